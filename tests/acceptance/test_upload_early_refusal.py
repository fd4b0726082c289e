"""POST /records: what the service or nginx refuses before it has read the audio."""

from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from deploy.client import Client
from tests import wavs
from tests.acceptance.upload_client import GIB, MIB, assert_wrong_credentials, begin_upload
from tests.raw_connection import header_lines, make_request_head, open_raw_connection
from tests.response_checks import assert_json, assert_problem
from tests.upload_requests import (
    FORM_TYPE,
    WAV_TYPE,
    FormPart,
    audio,
    bearer,
    begin_form,
    make_form,
    token,
    user_id,
)
from tests.wavs import Wav


def test_wrong_credentials_in_fields_are_refused_before_the_audio_is_read(
    base_url: str, user: dict[str, Any]
) -> None:
    wrong = user | {"token": str(uuid4())}
    response = begin_upload(base_url, begin_form(user_id(wrong), token(wrong)), *header_lines(FORM_TYPE))
    assert_wrong_credentials(response, "no user")


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param((), id="none"),
        pytest.param((f"Authorization: Bearer {uuid4()}",), id="Bearer"),
        pytest.param(("Authorization: Basic !",), id="Basic"),
    ],
)
def test_wrong_credentials_in_headers_are_refused_before_a_bare_wav_is_read(
    base_url: str, headers: tuple[str, ...]
) -> None:
    assert_wrong_credentials(begin_upload(base_url, b"", *header_lines(WAV_TYPE), *headers), "")


def test_audio_that_is_no_wav_is_refused_before_all_of_it_is_sent(
    base_url: str, user: dict[str, Any]
) -> None:
    response = begin_upload(base_url, b"x" * 300_000, *header_lines(WAV_TYPE | bearer(user)))
    assert_problem(response, 415, "unsupported-audio", "'xxxx")


def test_an_unsupported_content_type_is_refused_before_the_body_is_sent(
    base_url: str, user: dict[str, Any]
) -> None:
    response = begin_upload(base_url, b"", "Content-Type: application/json", *header_lines(bearer(user)))
    assert_problem(response, 415, "unsupported-media-type", "application/json")


def test_a_form_field_that_is_too_long_is_refused_before_it_is_complete(
    base_url: str, user: dict[str, Any]
) -> None:
    start = make_form(FormPart("token", "x" * 100_000))[:90_000]
    assert_problem(begin_upload(base_url, start, *header_lines(FORM_TYPE)), 400, "invalid-form", "'token'")


def test_a_body_over_the_limit_is_refused_before_it_is_sent(base_url: str, user: dict[str, Any]) -> None:
    size = 4 * GIB + 1
    head = make_request_head(
        "POST", "/records", base_url, *header_lines(WAV_TYPE | bearer(user)), f"Content-Length: {size}"
    )
    with open_raw_connection(base_url) as connection:
        connection.send(head)
        assert_problem(connection.read_response("POST"), 413, "too-large", str(4 * GIB))


def test_a_body_of_exactly_the_limit_is_not_refused_for_its_size(base_url: str) -> None:
    head = make_request_head(
        "POST", "/records", base_url, *header_lines(WAV_TYPE), f"Content-Length: {4 * GIB}"
    )
    with open_raw_connection(base_url) as connection:
        connection.send(head)
        assert_wrong_credentials(connection.read_response("POST"), "Authorization")


def test_a_client_with_expect_100_continue_is_refused_before_it_sends_the_body(
    base_url: str, user: dict[str, Any]
) -> None:
    expecting = f"Authorization: Bearer {uuid4()}", "Expect: 100-continue", f"Content-Length: {GIB}"
    head = make_request_head("POST", "/records", base_url, *header_lines(WAV_TYPE), *expecting)
    with open_raw_connection(base_url) as connection:
        connection.send(head)
        assert_wrong_credentials(connection.read_response("POST"), "no user")


def test_an_unknown_host_is_refused_before_the_body_is_read(base_url: str, user: dict[str, Any]) -> None:
    port = urlsplit(base_url).port
    head = make_request_head(
        "POST", "/records", f"http://evil.example:{port}", *header_lines(WAV_TYPE | bearer(user))
    )
    head = head[:-2] + f"Content-Length: {GIB}\r\n\r\n".encode()
    with open_raw_connection(base_url) as connection:
        connection.send(head, Wav().header(GIB - 44), bytes(4096))
        assert_problem(connection.read_response("POST"), 421, "unknown-host", "evil.example")


def test_a_refused_upload_never_breaks_the_next_request_of_its_client(
    client: Client, user: dict[str, Any]
) -> None:
    wrong = user | {"token": str(uuid4())}
    form = make_form(user_id(wrong), token(wrong), audio(Wav().build(wavs.noise(seconds=6))))
    assert len(form) > MIB
    for _ in range(300):
        assert_wrong_credentials(client.http.post("/records", content=form, headers=FORM_TYPE), "no user")
        assert assert_json(client.http.get("/healthz"), 200) == {"status": "ok"}
