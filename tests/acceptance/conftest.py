"""Fixtures that several files of acceptance tests share."""

import pytest

from deploy.client import Client
from tests.acceptance.mp3_checks import LONG_SECONDS, Published
from tests.response_checks import assert_json
from tests.upload_requests import WAV_TYPE, bearer
from tests.wavs import Wav, music


def publish(base_url: str, seconds: int, bitrate_kbps: int) -> Published:
    """Uploads music of this length for a new user, and downloads its MP3."""
    with Client(base_url) as client:
        headers = {**WAV_TYPE, **bearer(client.create_user("Owner"))}
        pieces = Wav().stream(44 + seconds * 44100 * 4, music(min(seconds, 60)))
        path = f"/records?bitrate_kbps={bitrate_kbps}"
        record = assert_json(client.http.post(path, content=pieces, headers=headers), 201)
        response = client.http.get(record["url"])
        return Published(record, response.content, response.headers)


@pytest.fixture(scope="session")
def published(base_url: str) -> Published:
    """Three seconds of music behind a link."""
    return publish(base_url, 3, 128)


@pytest.fixture(scope="session")
def long_published(base_url: str) -> Published:
    """Five minutes of music, whose MP3 has three upload parts."""
    return publish(base_url, LONG_SECONDS, 320)
