"""POST /records: a form or a bare WAV becomes a record with a link to its MP3."""

import hashlib
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from deploy.client import Client
from tests import decoding, wavs
from tests.acceptance.upload_client import Credentials, assert_record, post_form, post_wav
from tests.response_checks import assert_json, assert_problem
from tests.upload_requests import TINY_WAV, WAV_TYPE, FormPart, audio, basic, bearer, token, user_id
from tests.wavs import Wav


def test_a_form_gets_the_record_with_its_link(client: Client, user: dict[str, Any], base_url: str) -> None:
    wav = Wav(channels=2, rate=44100).build(wavs.music(seconds=2))
    response = post_form(client, user_id(user), token(user), FormPart("title", "A walk"), audio(wav))
    record = assert_json(response, 201)
    mp3 = client.download(record["url"])
    UUID(record["id"], version=4)
    assert datetime.fromisoformat(record["created_at"]).utcoffset() == timedelta(0)
    assert record == {
        "id": record["id"],
        "url": f"{base_url}/record?id={record['id']}&user={user['id']}",
        "listen_url": f"{base_url}/listen?id={record['id']}&user={user['id']}",
        "user_id": user["id"],
        "title": "A walk",
        "duration_seconds": 2.0,
        "sample_rate": 44100,
        "channels": 2,
        "bitrate_kbps": 128,
        "peak_dbfs": record["peak_dbfs"],
        "rms_dbfs": record["rms_dbfs"],
        "truncated": False,
        "clipped": False,
        "size_bytes": len(mp3),
        "sha256": hashlib.sha256(mp3).hexdigest(),
        "original": None,
        "created_at": record["created_at"],
        "lost_at": None,
    }
    assert isinstance(record["duration_seconds"], float)
    assert -40 < record["rms_dbfs"] < record["peak_dbfs"] <= 0
    assert response.headers["Location"] == record["url"]
    assert decoding.decode(mp3).seconds == 2


def test_the_record_states_the_bitrate_that_the_mp3_has(client: Client, user: dict[str, Any]) -> None:
    wav = Wav(channels=1, rate=8000).build(wavs.sine(rate=8000, channels=1))
    record = assert_json(post_wav(client, user, wav), 201)
    # MPEG-2.5 has no more than 64 kbit/s; LAME lowers the default of 128 to that.
    assert (record["sample_rate"], record["channels"], record["bitrate_kbps"]) == (8000, 1, 64)
    assert record["duration_seconds"] == 1.0


@pytest.mark.parametrize(
    "order",
    [
        pytest.param((user_id, token, None), id="credentials first"),
        pytest.param((token, user_id, None), id="token first"),
        pytest.param((None, user_id, token), id="audio first"),
        pytest.param((user_id, None, token), id="audio between"),
    ],
)
def test_form_fields_may_come_in_any_order(
    client: Client, user: dict[str, Any], order: tuple[Callable[[dict[str, Any]], FormPart] | None, ...]
) -> None:
    response = post_form(client, *(part(user) if part else audio() for part in order))
    assert_record(client, user, response)


@pytest.mark.parametrize("credentials", [bearer, basic])
def test_a_form_may_have_its_credentials_in_a_header(
    client: Client, user: dict[str, Any], credentials: Credentials
) -> None:
    assert_record(client, user, post_form(client, audio(), headers=credentials(user)))


@pytest.mark.parametrize("credentials", [bearer, basic])
@pytest.mark.parametrize(
    "content_type", ["audio/wav", "audio/x-wav", "audio/wave", "audio/vnd.wave", "Audio/WAV"]
)
def test_a_bare_wav_is_accepted_with_credentials_in_a_header(
    client: Client, user: dict[str, Any], credentials: Credentials, content_type: str
) -> None:
    headers = {"Content-Type": content_type, **credentials(user)}
    assert_record(client, user, client.http.post("/records", content=TINY_WAV, headers=headers))


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer "])
def test_the_name_of_the_authorization_scheme_may_be_in_any_case(
    client: Client, user: dict[str, Any], scheme: str
) -> None:
    headers = {**WAV_TYPE, "Authorization": f"{scheme} {user['token']}"}
    assert_record(client, user, client.http.post("/records", content=TINY_WAV, headers=headers))


def test_uploading_the_same_wav_twice_makes_two_records(client: Client, user: dict[str, Any]) -> None:
    first, second = (assert_record(client, user, post_wav(client, user)) for _ in range(2))
    assert first["id"] != second["id"]


@pytest.mark.parametrize(
    "filename",
    [
        *(
            "../../etc/passwd",
            "..\\..\\boot.ini",
            "a" * 1000 + ".wav",
            "recording",
            "t\u00f6ne.wav",
            "a.mp3",
            "CON",
        ),
        *(
            "a%00b%0D%0A.wav",
            "\u202evaw.exe",
            "a; name=title",
            ".",
            "|id",
        ),
    ],
)
def test_the_file_name_of_the_audio_does_not_matter(
    client: Client, user: dict[str, Any], filename: str
) -> None:
    parts = user_id(user), token(user), FormPart("audio", TINY_WAV, filename)
    assert_record(client, user, post_form(client, *parts))


def test_a_client_can_upload_after_many_uploads_that_were_refused(
    client: Client, user: dict[str, Any]
) -> None:
    for _ in range(50):
        assert_problem(post_wav(client, user, Wav().header(0)), 422, "broken-audio")
    assert_record(client, user, post_wav(client, user))
