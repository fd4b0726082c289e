"""GET and HEAD /records/{id}/waveform: the peaks of a record, for its user and for who has its link."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from uuid import uuid4

import httpx
import numpy as np
import pytest

from deploy.client import Client
from tests import wavs
from tests.response_checks import assert_json, assert_problem
from tests.upload_requests import NOBODY, TINY_WAV, basic, bearer
from tests.wavs import Sound, Wav


class Published(NamedTuple):
    """A record of ten seconds of music, its user and its sound."""

    user: dict[str, Any]
    record: dict[str, Any]
    sound: Sound

    @property
    def path(self) -> str:
        return f"/records/{self.record['id']}/waveform"


@pytest.fixture(scope="module")
def published(base_url: str) -> Iterator[Published]:
    with Client(base_url) as client:
        user, sound = client.create_user("Owner"), wavs.music(10)
        yield Published(user, client.upload_stream([Wav().build(sound)], user["token"]), sound)


def expected_data(sound: Sound, samples_per_pixel: int) -> list[int]:
    """Minimum and maximum of each pixel, of the channels' average in 8 bit, from the samples of the WAV."""
    samples = np.frombuffer(wavs.pcm(sound, 16), dtype="<i2").reshape(len(sound), -1).astype(int)
    average = np.trunc(np.trunc(samples.mean(axis=1)) / 256).astype(int)
    pixels = [average[at : at + samples_per_pixel] for at in range(0, len(average), samples_per_pixel)]
    return [int(value) for pixel in pixels for value in (pixel.min(), pixel.max())]


def get(client: Client, published: Published, method: str = "GET", **query: int | str) -> httpx.Response:
    """Asks as who has the link."""
    params = {"user": published.user["id"], **{name: str(value) for name, value in query.items()}}
    return client.http.request(method, published.path, params=params)


# Who may ask


@pytest.mark.parametrize(
    "asking",
    [
        pytest.param(lambda user: {"headers": bearer(user)}, id="Bearer"),
        pytest.param(lambda user: {"headers": basic(user)}, id="Basic"),
        pytest.param(lambda user: {"params": {"user": user["id"]}}, id="the link's user"),
    ],
)
def test_the_waveform_is_audiowaveform_s_json_of_what_was_sent(
    client: Client, published: Published, asking: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    document = assert_json(client.http.get(published.path, **asking(published.user)), 200)
    assert document == {
        "version": 2,
        "channels": 1,
        "sample_rate": 44100,
        "samples_per_pixel": 128,
        "bits": 8,
        "length": -(-441_000 // 128),
        "data": expected_data(published.sound, 128),
    }


def test_nobody_gets_a_waveform_without_credentials_or_link(client: Client, published: Published) -> None:
    assert_problem(client.http.get(published.path), 401, "invalid-credentials", "the parameter 'user'")


@pytest.mark.parametrize(
    "authorization", ["Bearer wrong", "Basic d3Jvbmc=", "Basic %", "Digest x", f"Bearer {NOBODY}"]
)
def test_wrong_credentials_are_refused(client: Client, published: Published, authorization: str) -> None:
    response = client.http.get(published.path, headers={"Authorization": authorization})
    assert_problem(response, 401, "invalid-credentials")
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="waxwing"'


def test_credentials_and_a_user_are_one_too_many(client: Client, published: Published) -> None:
    response = client.http.get(
        published.path, params={"user": published.user["id"]}, headers=bearer(published.user)
    )
    assert_problem(response, 400, "invalid-request", "twice")


@pytest.mark.parametrize("query", ["user=", "user=me", f"user={NOBODY}x", f"user={NOBODY}&user={NOBODY}"])
def test_a_user_that_is_malformed_is_refused(client: Client, published: Published, query: str) -> None:
    assert_problem(client.http.get(f"{published.path}?{query}"), 400, "invalid-request", "'user'")


def test_an_unknown_record_and_somebody_else_s_get_the_answer_of_a_download(
    client: Client, published: Published, user: dict[str, Any]
) -> None:
    unknown = f"/records/{uuid4()}/waveform"
    link = {"id": published.record["id"], "user": user["id"]}
    download = assert_problem(client.http.get("/record", params=link), 404, "unknown-record")
    for response in (
        client.http.get(published.path, headers=bearer(user)),
        client.http.get(published.path, headers=basic(user)),
        client.http.get(published.path, params={"user": user["id"]}),
        client.http.get(published.path, params={"user": str(uuid4())}),
        client.http.get(unknown, headers=bearer(published.user)),
        client.http.get(unknown, params={"user": published.user["id"]}),
    ):
        problem = assert_problem(response, 404, "unknown-record")
        assert {**problem, "request_id": ""} == {**download, "request_id": ""}


@pytest.mark.parametrize(
    "path", ["/records/1/waveform", "/records/{id}/peaks", "/records/{id}/", "/records//"]
)
def test_beside_the_waveform_there_is_nothing(client: Client, published: Published, path: str) -> None:
    response = client.http.get(path.format(id=published.record["id"]), headers=bearer(published.user))
    assert_problem(response, 404, "unknown-route")


def test_a_host_that_is_not_ours_is_refused(client: Client, published: Published) -> None:
    response = client.http.get(published.path, headers={"Host": "evil.example"})
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
def test_a_coarser_waveform_says_its_resolution(
    client: Client, published: Published, query: dict[str, int], samples_per_pixel: int
) -> None:
    document = assert_json(get(client, published, "GET", **query), 200)
    assert document["samples_per_pixel"] == samples_per_pixel
    assert document["data"] == expected_data(published.sound, samples_per_pixel)
    assert document["length"] == len(document["data"]) / 2
    assert document["length"] <= query.get("points", 3446)


@pytest.mark.parametrize("name", ["samples_per_pixel", "points"])
@pytest.mark.parametrize("value", ["", "0", "-1", "1.5", "1e3", "+5", " 5", "0x10", "٣", "many", "1" * 10])
def test_a_resolution_that_is_no_number_is_refused(
    client: Client, published: Published, name: str, value: str
) -> None:
    assert_problem(get(client, published, **{name: value}), 400, "invalid-request", f"'{name}'")


@pytest.mark.parametrize("query", ["points=1&samples_per_pixel=1", "samples_per_pixel=1&points=1"])
def test_two_resolutions_are_refused(client: Client, published: Published, query: str) -> None:
    response = client.http.get(f"{published.path}?user={published.user['id']}&{query}")
    assert_problem(response, 400, "invalid-request", "Give one of")


@pytest.mark.parametrize("query", ["points=1&points=1", "Points=1", "points%00=1", "token=x"])
def test_a_parameter_that_is_unknown_or_there_twice_is_refused_by_name(
    client: Client, published: Published, query: str
) -> None:
    response = client.http.get(f"{published.path}?user={published.user['id']}&{query}")
    name = query.partition("=")[0].replace("%00", "\\x00")
    assert_problem(
        response, 400, "invalid-request", f"'{name}'; allowed, once each: samples_per_pixel, points, user"
    )


# How it is sent


def test_head_tells_what_get_tells_but_sends_nothing(client: Client, published: Published) -> None:
    whole, head = get(client, published), get(client, published, "HEAD")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["Content-Length"] == str(len(whole.content))
    for name in ("Content-Type", "ETag", "Last-Modified", "Cache-Control", "Accept-Ranges"):
        assert head.headers[name] == whole.headers[name]
    assert whole.headers["Cache-Control"] == "private, no-cache"
    assert whole.headers["X-Content-Type-Options"] == "nosniff"


def test_a_waveform_that_is_known_is_not_sent_again_and_each_resolution_has_its_own_tag(
    client: Client, published: Published
) -> None:
    tags = [get(client, published, points=points).headers["ETag"] for points in (10, 100)]
    assert len({*tags, f'"{published.record["sha256"]}"'}) == 3
    params = {"user": published.user["id"], "points": "10"}
    for tag, status in zip(tags, (304, 200), strict=True):
        response = client.http.get(published.path, params=params, headers={"If-None-Match": tag})
        assert (response.status_code, response.headers["ETag"]) == (status, tags[0])
        assert (response.content == b"") == (status == 304)


def test_a_range_of_a_waveform_is_all_of_it(client: Client, published: Published) -> None:
    response = client.http.get(
        published.path, params={"user": published.user["id"]}, headers={"Range": "bytes=0-1"}
    )
    assert assert_json(response, 200)["length"] == 3446


# What is measured


def upload(client: Client, user: dict[str, Any], wav: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the record and its waveform."""
    record = client.upload_stream([wav], user["token"])
    return record, assert_json(
        client.http.get(f"/records/{record['id']}/waveform", headers=bearer(user)), 200
    )


def test_silence_has_no_level_and_a_flat_waveform(client: Client, user: dict[str, Any]) -> None:
    record, waveform = upload(client, user, Wav().build(wavs.silence()))
    assert (record["peak_dbfs"], record["rms_dbfs"], record["truncated"]) == (None, None, False)
    assert waveform["data"] == [0] * 2 * 345


@pytest.mark.parametrize("bits", [8, 16, 24, 32])
def test_a_tone_at_half_of_full_scale_has_its_levels(client: Client, user: dict[str, Any], bits: int) -> None:
    record, waveform = upload(client, user, Wav(bits=bits).build(wavs.sine()))
    assert record["peak_dbfs"] == pytest.approx(-6.02, abs=0.03)
    assert record["rms_dbfs"] == pytest.approx(-9.03, abs=0.03)
    assert {min(waveform["data"]), max(waveform["data"])} <= {-64, -63, 63, 64}


def test_the_levels_of_music_are_those_of_its_samples(published: Published) -> None:
    samples = np.frombuffer(wavs.pcm(published.sound, 16), dtype="<i2").astype(float) / 32768
    peak_dbfs, rms_dbfs = (20 * np.log10(v) for v in (np.abs(samples).max(), np.sqrt(np.mean(samples**2))))
    assert published.record["peak_dbfs"] == pytest.approx(peak_dbfs, abs=0.0051)
    assert published.record["rms_dbfs"] == pytest.approx(rms_dbfs, abs=0.0051)


@pytest.mark.parametrize("rate", [96_000, 37_800, 4_000])
def test_the_waveform_of_a_resampled_recording_is_as_long_as_the_recording(
    client: Client, user: dict[str, Any], rate: int
) -> None:
    record, document = upload(client, user, Wav(rate=rate).build(wavs.noise(3, rate)))
    assert document["sample_rate"] == record["sample_rate"] != rate
    pixel_seconds = document["samples_per_pixel"] / document["sample_rate"]
    assert document["length"] * pixel_seconds == pytest.approx(3, abs=pixel_seconds)


def test_one_frame_has_a_waveform(client: Client, user: dict[str, Any]) -> None:
    record, waveform = upload(client, user, Wav(channels=1).build(np.full((1, 1), -1.0)))
    assert (record["peak_dbfs"], record["rms_dbfs"]) == (0.0, 0.0)
    assert waveform["data"] == [-128, -128]


def test_a_long_record_has_a_waveform_of_bounded_size(client: Client, user: dict[str, Any]) -> None:
    wav, minute = Wav(channels=1, rate=8000), wavs.sweep(60, 8000, channels=1)
    record = client.upload_stream(wav.stream(44 + 2 * 8000 * 1800, minute), user["token"])
    response = client.http.get(f"/records/{record['id']}/waveform", headers=bearer(user))
    document = assert_json(response, 200)
    assert record["duration_seconds"] == 1800
    assert (document["sample_rate"], document["samples_per_pixel"]) == (8000, 1024)
    assert document["length"] == -(-1800 * 8000 // 1024)
    assert document["data"] == expected_data(np.tile(minute, (30, 1)), 1024)


def test_two_uploads_of_one_wav_have_one_waveform(client: Client, user: dict[str, Any]) -> None:
    assert upload(client, user, TINY_WAV)[1] == upload(client, user, TINY_WAV)[1]
