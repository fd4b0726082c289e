"""Sends uploads to POST /records, and checks their responses."""

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import httpx

from deploy.client import Client
from tests.raw_connection import make_request_head, open_raw_connection
from tests.response_checks import assert_challenge, assert_json, assert_problem
from tests.upload_requests import FORM_TYPE, TINY_WAV, WAV_TYPE, FormPart, bearer, make_form
from tests.wavs import Wav

MIB = 1 << 20
GIB = 1 << 30

# Makes the headers with a user's credentials: `bearer` or `basic`.
Credentials = Callable[[dict[str, Any]], dict[str, str]]


def post_form(client: Client, *parts: FormPart, headers: dict[str, str] | None = None) -> httpx.Response:
    """Uploads a form of these form parts."""
    return client.http.post("/records", content=make_form(*parts), headers={**FORM_TYPE, **(headers or {})})


def post_wav(client: Client, user: dict[str, Any], wav: bytes = TINY_WAV, **query: str) -> httpx.Response:
    """Uploads a bare WAV with the token in a header."""
    return client.http.post("/records", content=wav, params=query, headers={**WAV_TYPE, **bearer(user)})


def in_pieces(data: bytes) -> Iterator[bytes]:
    """A body that httpx sends chunked, without a Content-Length."""
    yield from (data[start : start + 1000] for start in range(0, len(data), 1000))


def begin_upload(base_url: str, fields: bytes, *headers: str) -> httpx.Response:
    """Announces 1 GiB, sends the fields and a little audio, and reads the response to the incomplete body."""
    head = make_request_head("POST", "/records", base_url, *headers, f"Content-Length: {GIB}")
    with open_raw_connection(base_url) as connection:
        connection.send(head, fields, Wav().header(GIB - MIB), bytes(4096))
        return connection.read_response("POST")


def assert_record(client: Client, user: dict[str, Any], response: httpx.Response) -> dict[str, Any]:
    """Checks that an upload of TINY_WAV made a record whose link gives its MP3; returns the record."""
    record = assert_json(response, 201)
    assert record["user_id"] == user["id"]
    assert record["duration_seconds"] == 0.1
    mp3 = client.http.get(record["url"])
    assert (mp3.status_code, mp3.headers["Content-Type"]) == (200, "audio/mpeg")
    assert hashlib.sha256(mp3.content).hexdigest() == record["sha256"]
    return record


def assert_wrong_credentials(response: httpx.Response, says: str) -> None:
    """Checks that a response is the problem for missing or wrong credentials, with its challenge."""
    assert_problem(response, 401, "invalid-credentials", says)
    assert_challenge(response)
