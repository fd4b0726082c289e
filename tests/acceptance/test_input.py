"""Invalid input in every field, parameter and header gets a 400 or 401 and makes no record."""

from collections.abc import Callable
from typing import Any
from urllib.parse import quote_from_bytes
from uuid import uuid4

import httpx
import pytest

from deploy.client import Client
from tests.response_checks import assert_problem
from tests.upload_requests import (
    FORM_TYPE,
    TINY_WAV,
    WAV_TYPE,
    FormPart,
    audio,
    bearer,
    encode_basic,
    make_form,
    token,
    user_id,
)

User = dict[str, Any]
Send = Callable[[Client, User, bytes], httpx.Response]

# Not allowed in text: control characters, line separators, and characters that change the reading direction.
CONTROLS = [
    *(b"a\0b", b"a\r\nX-Header: b", b"a\x1b[2Jb", b"a\x7fb"),
    *(f"a{one}b".encode() for one in "\u0085\u2028\u2029"),
    *(f"a{one}b".encode() for one in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"),
]
# Latin-1, half a surrogate pair, a whole surrogate pair, NUL in two bytes, beyond Unicode, cut short.
NOT_UTF8 = [
    b"Zo\xeb",
    b"\xed\xa0\x80",
    b"\xed\xa0\xbd\xed\xb8\x80",
    b"\xc0\x80",
    b"\xf4\x90\x80\x80",
    b"\xe2\x82",
]
# Neither an integer nor an id that the API accepts, though other programs would accept some of them.
NO_VALUE = [
    *(b"", b"128.0", b"1e400", b"9" * 2000, b"+128", b"-1", b"0128", b"0x80", b"1_28", b" 128", b"128\n"),
    *("\u0661\u0662\u0668".encode(), b"null", b'{"$gt": 0}', b"1' OR '1'='1"),
    *(b"{8f0a8fd5-3f27-4c3a-8bd4-5ad33e7f2a61}", b"urn:uuid:8f0a8fd5-3f27-4c3a-8bd4-5ad33e7f2a61"),
    *(b"0x0a8fd53f274c3a8bd45ad33e7f2a61", b"8f0a_fd53f274c3a8bd45ad33e7f2a61", "\u0661".encode() * 32),
]


def send_name(client: Client, _: User, value: bytes) -> httpx.Response:
    body = b'{"name": "' + value + b'"}'
    return client.http.post("/users", content=body, headers={"Content-Type": "application/json"})


def send_field(which: str) -> Send:
    def send(client: Client, user: User, value: bytes) -> httpx.Response:
        given = FormPart(which, value)
        if which in ("title", "bitrate_kbps", "keep_original"):
            body = make_form(given, audio())
            return client.http.post("/records", content=body, headers={**FORM_TYPE, **bearer(user)})
        other = token(user) if which == "user_id" else user_id(user)
        return client.http.post("/records", content=make_form(given, other, audio()), headers=FORM_TYPE)

    return send


def send_parameter(which: str) -> Send:
    def send(client: Client, user: User, value: bytes) -> httpx.Response:
        url = f"/records?{which}={quote_from_bytes(value)}"
        return client.http.post(url, content=TINY_WAV, headers={**WAV_TYPE, **bearer(user)})

    return send


def get_with(url: str) -> Send:
    """Returns a function that sends a GET. In the URL, `{}` stands for the value and `{id}` for an id."""

    def send(client: Client, user: User, value: bytes) -> httpx.Response:
        path = url.format(quote_from_bytes(value), id=uuid4())
        return client.http.get(path, headers={} if "user=" in url else bearer(user))

    return send


def send_basic_user(client: Client, user: User, value: bytes) -> httpx.Response:
    return client.http.get("/users/me", headers=encode_basic(value, user["token"].encode()))


def send_basic_token(client: Client, user: User, value: bytes) -> httpx.Response:
    return client.http.get("/users/me", headers=encode_basic(user["id"].encode(), value))


# How to send a value, and the problems for CONTROLS, NOT_UTF8 and NO_VALUE. The last problem is empty where
# NO_VALUE is valid, because any text is allowed.
INPUTS: dict[str, tuple[Send, str, str, str]] = {
    "name": (send_name, "invalid-request", "invalid-request", ""),
    "title": (send_field("title"), "invalid-request", "invalid-form", ""),
    "?title": (send_parameter("title"), "invalid-request", "invalid-request", ""),
    "bitrate_kbps": (send_field("bitrate_kbps"), "invalid-form", "invalid-form", "invalid-form"),
    "?bitrate_kbps": (send_parameter("bitrate_kbps"), "invalid-form", "invalid-request", "invalid-form"),
    "keep_original": (send_field("keep_original"), "invalid-form", "invalid-form", "invalid-form"),
    "?keep_original": (send_parameter("keep_original"), "invalid-form", "invalid-request", "invalid-form"),
    "user_id": (send_field("user_id"), "invalid-credentials", "invalid-form", "invalid-credentials"),
    "token": (send_field("token"), "invalid-credentials", "invalid-form", "invalid-credentials"),
    "user of Basic": (send_basic_user, "invalid-credentials", "invalid-credentials", "invalid-credentials"),
    "token of Basic": (send_basic_token, "invalid-credentials", "invalid-credentials", "invalid-credentials"),
    **{
        url: (get_with(url), "invalid-request", "invalid-request", "invalid-request")
        for url in (
            "/records?limit={}",
            "/records?cursor={}",
            "/records/{id}/waveform?points={}",
            "/records/{id}/waveform?samples_per_pixel={}",
            "/records/{id}/waveform?user={}",
            "/record?id={}&user={id}",
            "/record?id={id}&user={}",
        )
    },
}


@pytest.mark.parametrize("target", INPUTS)
def test_invalid_input_gets_the_problem_in_the_table(client: Client, user: User, target: str) -> None:
    send, *problems = INPUTS[target]
    for values, problem in zip((CONTROLS, NOT_UTF8, NO_VALUE), problems, strict=True):
        for value in values if problem else ():
            # An empty bitrate is none, and so is an empty wish.
            if target.endswith(("bitrate_kbps", "keep_original")) and not value:
                continue
            status = 401 if problem == "invalid-credentials" else 400
            assert len(assert_problem(send(client, user, value), status, problem)["detail"]) < 500, value
    assert client.http.get("/records", headers=bearer(user)).json()["records"] == []


def test_the_parameter_download_accepts_only_0_and_1(client: Client, user: User) -> None:
    link = client.upload_stream([TINY_WAV], user["token"])["url"]
    # A link may have anything behind a 1 that cannot belong to a number or a word.
    behind_1 = {b"1_28", b"1' OR '1'='1"}
    for value in {*CONTROLS, *NOT_UTF8, *NO_VALUE} - behind_1:
        response = client.http.get(f"{link}&download={quote_from_bytes(value)}")
        assert_problem(response, 400, "invalid-request", "'download'")


def test_two_authorization_headers_are_refused_even_if_both_are_right(client: Client, user: User) -> None:
    for other in (bearer(user), {"Authorization": "Bearer x"}):
        headers = [*bearer(user).items(), *other.items()]
        assert_problem(client.http.get("/records", headers=headers), 400, "invalid-request")


def test_a_link_ignores_parameters_that_others_have_added(client: Client, user: User) -> None:
    record = client.upload_stream([TINY_WAV], user["token"])
    assert len(client.download(f"{record['url']}&utm_source=a&fbclid=%FF&x=1&x=2")) == record["size_bytes"]
