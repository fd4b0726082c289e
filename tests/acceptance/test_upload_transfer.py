"""POST /records: how the bytes of an upload may arrive: without a length, cut anywhere, byte by byte."""

from typing import Any

import pytest

from deploy.client import Client
from tests.acceptance.upload_client import MIB, assert_record, in_pieces
from tests.raw_connection import header_lines, make_request_head, open_raw_connection
from tests.response_checks import assert_json
from tests.upload_requests import (
    BOUNDARY,
    FORM_TYPE,
    TINY_WAV,
    WAV_TYPE,
    audio,
    bearer,
    make_form,
    token,
    user_id,
)


def test_a_bare_wav_may_be_sent_without_a_length(client: Client, user: dict[str, Any]) -> None:
    headers = {**WAV_TYPE, **bearer(user)}
    response = client.http.post("/records", content=in_pieces(TINY_WAV), headers=headers)
    assert response.request.headers["Transfer-Encoding"] == "chunked"
    assert_record(client, user, response)


def test_a_form_may_be_sent_without_a_length(client: Client, user: dict[str, Any]) -> None:
    body = in_pieces(make_form(user_id(user), token(user), audio()))
    response = client.http.post("/records", content=body, headers=FORM_TYPE)
    assert response.request.headers["Transfer-Encoding"] == "chunked"
    assert_record(client, user, response)


def test_the_network_may_cut_a_form_in_two_anywhere(client: Client, user: dict[str, Any]) -> None:
    body = make_form(user_id(user), token(user), audio())
    # These offsets cover every boundary but the last, every form field, and the header of the WAV.
    offsets = range(1, body.index(b"data", body.index(b"RIFF")) + 8)
    for offset in offsets:
        content = iter([body[:offset], body[offset:]])
        response = client.http.post("/records", content=content, headers=FORM_TYPE)
        assert_json(response, 201)
    assert len(offsets) > 200


def test_the_network_may_cut_the_end_of_a_form_anywhere(client: Client, user: dict[str, Any]) -> None:
    body = make_form(user_id(user), token(user), audio())
    end = len(f"\r\n--{BOUNDARY}--\r\n")
    for offset in range(len(body) - end, len(body)):
        content = iter([body[:offset], body[offset:]])
        assert_record(client, user, client.http.post("/records", content=content, headers=FORM_TYPE))


def test_a_form_may_arrive_byte_by_byte(client: Client, user: dict[str, Any], base_url: str) -> None:
    body = make_form(user_id(user), token(user), audio())
    head = make_request_head(
        "POST", "/records", base_url, *header_lines(FORM_TYPE), f"Content-Length: {len(body)}"
    )
    with open_raw_connection(base_url) as connection:
        connection.send(head, *(body[at : at + 1] for at in range(len(body))))
        assert_record(client, user, connection.read_response("POST"))


@pytest.mark.parametrize("epilogue", [b"", b"\r\n", b"Nobody reads this.", b"x" * MIB])
def test_bytes_after_the_last_boundary_are_ignored(
    client: Client, user: dict[str, Any], epilogue: bytes
) -> None:
    form = make_form(user_id(user), token(user), audio())
    for body in (iter([form, epilogue]), iter([form[:-2], b"\r\n" + epilogue]), form + epilogue):
        assert_record(client, user, client.http.post("/records", content=body, headers=FORM_TYPE))


def test_bytes_before_the_first_boundary_are_ignored(client: Client, user: dict[str, Any]) -> None:
    body = b"This is a message in MIME format.\r\n" + make_form(user_id(user), token(user), audio())
    assert_record(client, user, client.http.post("/records", content=body, headers=FORM_TYPE))


@pytest.mark.parametrize("boundary", ["x", "x" * 70, "'()+_,-./:=?", "----WebKitFormBoundary7MA4YWxkTrZu0gW"])
def test_a_boundary_may_have_every_character_and_length_that_rfc_2046_allows(
    client: Client, user: dict[str, Any], boundary: str
) -> None:
    body = make_form(user_id(user), token(user), audio(), boundary=boundary)
    headers = {"Content-Type": f'multipart/form-data; boundary="{boundary}"'}
    assert_record(client, user, client.http.post("/records", content=body, headers=headers))
