"""GET and HEAD /records/{id}/waveform: the peaks of a record, for its user and everybody with its link."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from uuid import uuid4

import httpx
import numpy as np
import pytest

from deploy.client import Client
from tests import wavs
from tests.response_checks import assert_challenge, assert_json, assert_problem
from tests.upload_requests import NOBODY, TINY_WAV, basic, bearer
from tests.wavs import Sound, Wav


class Recording(NamedTuple):
    """A record of ten seconds of music, its user and its sound."""

    user: dict[str, Any]
    record: dict[str, Any]
    sound: Sound

    @property
    def path(self) -> str:
        return f"/records/{self.record['id']}/waveform"


@pytest.fixture(scope="module")
def recording(base_url: str) -> Iterator[Recording]:
    with Client(base_url) as client:
        user, sound = client.create_user("Owner"), wavs.music(10)
        yield Recording(user, client.upload_stream([Wav().build(sound)], user["token"]), sound)


def expected_data(sound: Sound, samples_per_pixel: int) -> list[int]:
    """Computes minimum and maximum of each pixel from the WAV: 8-bit averages of the channels."""
    samples = np.frombuffer(wavs.pcm(sound, 16), dtype="<i2").reshape(len(sound), -1).astype(int)
    average = np.trunc(np.trunc(samples.mean(axis=1)) / 256).astype(int)
    pixels = [average[at : at + samples_per_pixel] for at in range(0, len(average), samples_per_pixel)]
    return [int(value) for pixel in pixels for value in (pixel.min(), pixel.max())]


def get_waveform(
    client: Client, recording: Recording, method: str = "GET", **query: int | str
) -> httpx.Response:
    """Requests the waveform with the user of the link."""
    params = {"user": recording.user["id"], **{name: str(value) for name, value in query.items()}}
    return client.http.request(method, recording.path, params=params)


# Who may ask


@pytest.mark.parametrize(
    "credentials",
    [
        pytest.param(lambda user: {"headers": bearer(user)}, id="Bearer"),
        pytest.param(lambda user: {"headers": basic(user)}, id="Basic"),
        pytest.param(lambda user: {"params": {"user": user["id"]}}, id="the link's user"),
    ],
)
def test_a_waveform_is_json_in_the_format_of_audiowaveform(
    client: Client, recording: Recording, credentials: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    document = assert_json(client.http.get(recording.path, **credentials(recording.user)), 200)
    assert document == {
        "version": 2,
        "channels": 1,
        "sample_rate": 44100,
        "samples_per_pixel": 128,
        "bits": 8,
        "length": -(-441_000 // 128),
        "data": expected_data(recording.sound, 128),
    }


def test_a_waveform_needs_credentials_or_the_user_of_the_link(client: Client, recording: Recording) -> None:
    assert_problem(client.http.get(recording.path), 401, "invalid-credentials", "the parameter 'user'")


@pytest.mark.parametrize(
    "authorization", ["Bearer wrong", "Basic d3Jvbmc=", "Basic %", "Digest x", f"Bearer {NOBODY}"]
)
def test_wrong_credentials_are_refused(client: Client, recording: Recording, authorization: str) -> None:
    response = client.http.get(recording.path, headers={"Authorization": authorization})
    assert_problem(response, 401, "invalid-credentials")
    assert_challenge(response)


def test_credentials_and_the_user_of_the_link_exclude_each_other(
    client: Client, recording: Recording
) -> None:
    response = client.http.get(
        recording.path, params={"user": recording.user["id"]}, headers=bearer(recording.user)
    )
    assert_problem(response, 400, "invalid-request", "twice")


@pytest.mark.parametrize("query", ["user=", "user=me", f"user={NOBODY}x", f"user={NOBODY}&user={NOBODY}"])
def test_a_malformed_user_is_refused(client: Client, recording: Recording, query: str) -> None:
    assert_problem(client.http.get(f"{recording.path}?{query}"), 400, "invalid-request", "'user'")


def test_an_unknown_record_and_another_user_s_get_the_response_of_a_download(
    client: Client, recording: Recording, user: dict[str, Any]
) -> None:
    unknown = f"/records/{uuid4()}/waveform"
    link = {"id": recording.record["id"], "user": user["id"]}
    download = assert_problem(client.http.get("/record", params=link), 404, "unknown-record")
    for response in (
        client.http.get(recording.path, headers=bearer(user)),
        client.http.get(recording.path, headers=basic(user)),
        client.http.get(recording.path, params={"user": user["id"]}),
        client.http.get(recording.path, params={"user": str(uuid4())}),
        client.http.get(unknown, headers=bearer(recording.user)),
        client.http.get(unknown, params={"user": recording.user["id"]}),
    ):
        problem = assert_problem(response, 404, "unknown-record")
        assert {**problem, "request_id": ""} == {**download, "request_id": ""}


@pytest.mark.parametrize(
    "path", ["/records/1/waveform", "/records/{id}/peaks", "/records/{id}/", "/records//"]
)
def test_other_paths_near_a_waveform_are_unknown(client: Client, recording: Recording, path: str) -> None:
    response = client.http.get(path.format(id=recording.record["id"]), headers=bearer(recording.user))
    assert_problem(response, 404, "unknown-route")


def test_an_unknown_host_is_refused(client: Client, recording: Recording) -> None:
    response = client.http.get(recording.path, headers={"Host": "evil.example"})
    assert_problem(response, 421, "unknown-host", "evil.example")


# At which resolution


@pytest.mark.parametrize(
    ("query", "samples_per_pixel"),
    [
        ({"samples_per_pixel": 1}, 128),
        ({"samples_per_pixel": 128}, 128),
        ({"samples_per_pixel": 129}, 256),
        ({"samples_per_pixel": 1000}, 1024),
        ({"samples_per_pixel": 999_999_999}, 1_000_000_000),
        ({"points": 999_999_999}, 128),
        ({"points": 3446}, 128),
        ({"points": 3445}, 256),
        ({"points": 800}, 640),
        ({"points": 1}, 3446 * 128),
    ],
)
def test_a_coarser_waveform_states_its_resolution(
    client: Client, recording: Recording, query: dict[str, int], samples_per_pixel: int
) -> None:
    document = assert_json(get_waveform(client, recording, "GET", **query), 200)
    assert document["samples_per_pixel"] == samples_per_pixel
    assert document["data"] == expected_data(recording.sound, samples_per_pixel)
    assert document["length"] == len(document["data"]) / 2
    assert document["length"] <= query.get("points", 3446)


@pytest.mark.parametrize("name", ["samples_per_pixel", "points"])
@pytest.mark.parametrize("value", ["", "0", "-1", "1.5", "1e3", "+5", " 5", "0x10", "٣", "many", "1" * 10])
def test_a_resolution_that_is_no_number_is_refused(
    client: Client, recording: Recording, name: str, value: str
) -> None:
    assert_problem(get_waveform(client, recording, **{name: value}), 400, "invalid-request", f"'{name}'")


@pytest.mark.parametrize("query", ["points=1&samples_per_pixel=1", "samples_per_pixel=1&points=1"])
def test_two_resolutions_are_refused(client: Client, recording: Recording, query: str) -> None:
    response = client.http.get(f"{recording.path}?user={recording.user['id']}&{query}")
    assert_problem(response, 400, "invalid-request", "both 'samples_per_pixel' and 'points'")


@pytest.mark.parametrize("query", ["points=1&points=1", "Points=1", "points%00=1", "token=x"])
def test_an_unknown_or_repeated_parameter_is_refused_and_named(
    client: Client, recording: Recording, query: str
) -> None:
    response = client.http.get(f"{recording.path}?user={recording.user['id']}&{query}")
    name = query.partition("=")[0].replace("%00", "\\x00")
    assert_problem(
        response, 400, "invalid-request", f"'{name}'", "once each: samples_per_pixel, points, user"
    )


# How it is sent


def test_head_has_the_headers_of_get_and_no_body(client: Client, recording: Recording) -> None:
    whole, head = get_waveform(client, recording), get_waveform(client, recording, "HEAD")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["Content-Length"] == str(len(whole.content))
    for name in ("Content-Type", "ETag", "Last-Modified", "Cache-Control", "Accept-Ranges"):
        assert head.headers[name] == whole.headers[name]
    assert whole.headers["Cache-Control"] == "private, no-cache"
    assert whole.headers["X-Content-Type-Options"] == "nosniff"


def test_each_resolution_has_its_own_etag_and_a_matching_one_gets_304(
    client: Client, recording: Recording
) -> None:
    tags = [get_waveform(client, recording, points=points).headers["ETag"] for points in (10, 100)]
    assert len({*tags, f'"{recording.record["sha256"]}"'}) == 3
    params = {"user": recording.user["id"], "points": "10"}
    for tag, status in zip(tags, (304, 200), strict=True):
        response = client.http.get(recording.path, params=params, headers={"If-None-Match": tag})
        assert (response.status_code, response.headers["ETag"]) == (status, tags[0])
        assert (response.content == b"") == (status == 304)


def test_a_range_is_ignored(client: Client, recording: Recording) -> None:
    response = client.http.get(
        recording.path, params={"user": recording.user["id"]}, headers={"Range": "bytes=0-1"}
    )
    assert assert_json(response, 200)["length"] == 3446


# What is measured


def upload(client: Client, user: dict[str, Any], wav: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the record and its waveform."""
    record = client.upload_stream([wav], user["token"])
    return record, assert_json(
        client.http.get(f"/records/{record['id']}/waveform", headers=bearer(user)), 200
    )


def test_silence_has_no_levels_and_a_flat_waveform(client: Client, user: dict[str, Any]) -> None:
    record, waveform = upload(client, user, Wav().build(wavs.silence()))
    assert (record["peak_dbfs"], record["rms_dbfs"], record["truncated"]) == (None, None, False)
    assert waveform["data"] == [0] * 2 * 345


@pytest.mark.parametrize("bits", [8, 16, 24, 32])
def test_a_tone_at_half_of_full_scale_has_the_right_levels(
    client: Client, user: dict[str, Any], bits: int
) -> None:
    record, waveform = upload(client, user, Wav(bits=bits).build(wavs.sine()))
    assert record["peak_dbfs"] == pytest.approx(-6.02, abs=0.03)
    assert record["rms_dbfs"] == pytest.approx(-9.03, abs=0.03)
    assert {min(waveform["data"]), max(waveform["data"])} <= {-64, -63, 63, 64}


def test_the_levels_of_music_are_those_of_its_samples(recording: Recording) -> None:
    samples = np.frombuffer(wavs.pcm(recording.sound, 16), dtype="<i2").astype(float) / 32768
    peak_dbfs, rms_dbfs = (20 * np.log10(v) for v in (np.abs(samples).max(), np.sqrt(np.mean(samples**2))))
    assert recording.record["peak_dbfs"] == pytest.approx(peak_dbfs, abs=0.0051)
    assert recording.record["rms_dbfs"] == pytest.approx(rms_dbfs, abs=0.0051)


@pytest.mark.parametrize("rate", [96_000, 37_800, 4_000])
def test_the_waveform_of_a_resampled_recording_is_as_long_as_the_recording(
    client: Client, user: dict[str, Any], rate: int
) -> None:
    record, document = upload(client, user, Wav(rate=rate).build(wavs.noise(3, rate)))
    assert document["sample_rate"] == record["sample_rate"] != rate
    pixel_seconds = document["samples_per_pixel"] / document["sample_rate"]
    assert document["length"] * pixel_seconds == pytest.approx(3, abs=pixel_seconds)


def test_one_sample_frame_has_a_waveform(client: Client, user: dict[str, Any]) -> None:
    record, waveform = upload(client, user, Wav(channels=1).build(np.full((1, 1), -1.0)))
    assert (record["peak_dbfs"], record["rms_dbfs"]) == (0.0, 0.0)
    assert waveform["data"] == [-128, -128]


def test_a_long_record_has_a_waveform_of_bounded_size(client: Client, user: dict[str, Any]) -> None:
    wav, minute = Wav(channels=1, rate=8000), wavs.sweep(60, 8000, channels=1)
    record = client.upload_stream(wav.stream(44 + 2 * 8000 * 600, minute), user["token"])
    response = client.http.get(f"/records/{record['id']}/waveform", headers=bearer(user))
    document = assert_json(response, 200)
    assert record["duration_seconds"] == 600
    assert (document["sample_rate"], document["samples_per_pixel"]) == (8000, 512)
    assert document["length"] == -(-600 * 8000 // 512)
    assert document["data"] == expected_data(np.tile(minute, (10, 1)), 512)


def test_two_uploads_of_one_wav_have_the_same_waveform(client: Client, user: dict[str, Any]) -> None:
    assert upload(client, user, TINY_WAV)[1] == upload(client, user, TINY_WAV)[1]
