"""The link of an upload names the host and port that the client used, whatever headers it forged."""

from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from deploy.client import Client
from tests.response_checks import assert_json
from tests.upload_requests import FORM_TYPE, TINY_WAV, WAV_TYPE, audio, bearer, make_form, token, user_id


def upload(client: Client, user: dict[str, Any], headers: dict[str, str]) -> httpx.Response:
    form = make_form(user_id(user), token(user), audio())
    return client.http.post("/records", content=form, headers={**FORM_TYPE, **headers})


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "[::1]", "waxwing.localhost", "192.0.2.7", "LOCALHOST"]
)
@pytest.mark.parametrize("port", [":1234", ""])
def test_a_link_has_the_host_and_port_that_the_client_used(
    client: Client, user: dict[str, Any], host: str, port: str
) -> None:
    response = upload(client, user, {"Host": host + port})
    record = assert_json(response, 201)
    assert record["url"] == f"http://{host}{port}/record?id={record['id']}&user={user['id']}"
    assert response.headers["Location"] == record["url"]


@pytest.mark.parametrize(
    "forged",
    [
        {"X-Forwarded-Host": "evil.example"},
        {"X-Forwarded-Proto": "gopher"},
        {"X-Forwarded-Proto": "https"},
        {"X-Forwarded-Port": "666"},
        {"X-Forwarded-For": "192.0.2.66"},
        {"X-Forwarded-Prefix": "/evil"},
        {"Forwarded": "host=evil.example;proto=https"},
        {"X-Original-Host": "evil.example", "X-Host": "evil.example"},
        {"X-Accel-Redirect": "/healthz"},
    ],
)
def test_a_forged_header_does_not_change_the_link(
    client: Client, user: dict[str, Any], base_url: str, forged: dict[str, str]
) -> None:
    record = assert_json(upload(client, user, forged), 201)
    assert record["url"] == f"{base_url}/record?id={record['id']}&user={user['id']}"
    mp3 = client.http.get(record["url"], headers=forged)
    assert (mp3.status_code, mp3.headers["Content-Type"]) == (200, "audio/mpeg")


def test_the_link_of_a_bare_wav_has_the_host_and_port_that_the_client_used(
    client: Client, user: dict[str, Any]
) -> None:
    headers = {**WAV_TYPE, **bearer(user), "Host": "localhost:8080"}
    record = assert_json(client.http.post("/records", content=TINY_WAV, headers=headers), 201)
    assert urlsplit(record["url"]).netloc == "localhost:8080"
