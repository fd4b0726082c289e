"""POST /users: who may upload."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from uuid import UUID

import httpx
import pytest

from deploy.client import Client
from tests.acceptance.answers import assert_json, assert_problem, request_id_of

JSON = {"Content-Type": "application/json"}
LIMIT_BYTES = 64 * 1024


def post_name(client: Client, name: object) -> httpx.Response:
    return client.http.post("/users", json={"name": name})


def padded_user(size: int) -> bytes:
    """A right body of exactly so many bytes: JSON may be followed by blanks."""
    return b'{"name": "Ann"}'.ljust(size)


def test_a_new_user_is_answered_with_id_name_token_and_time(client: Client) -> None:
    user = assert_json(post_name(client, "Ann"), 201)
    assert user.keys() == {"id", "name", "token", "created_at"}
    assert user["name"] == "Ann"
    for uuid in (user["id"], user["token"]):
        assert UUID(uuid).version == 4
        assert str(UUID(uuid)) == uuid
    assert user["id"] != user["token"]
    assert datetime.fromisoformat(user["created_at"]).utcoffset() == timedelta(0)


def test_names_need_not_be_unique(client: Client) -> None:
    first, second = (assert_json(post_name(client, "Ann"), 201) for _ in range(2))
    assert first["name"] == second["name"]
    assert first["id"] != second["id"]
    assert first["token"] != second["token"]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        pytest.param("x", "x", id="one character"),
        pytest.param("x" * 100, "x" * 100, id="a hundred characters"),
        pytest.param("\U0001f3b5" * 100, "\U0001f3b5" * 100, id="a hundred characters of four bytes"),
        pytest.param("  Ann \t\n", "Ann", id="blanks around"),
        pytest.param(" " * 100 + "x" * 100, "x" * 100, id="trimmed before it is counted"),
        pytest.param("Zoe\u0308", "Zo\u00eb", id="composed"),
        pytest.param("e\u0301" * 100, "\u00e9" * 100, id="composed before it is counted"),
        pytest.param("Ann  Lee", "Ann  Lee", id="blanks inside"),
        pytest.param("<b>\"'\\;--", "<b>\"'\\;--", id="what means something elsewhere"),
        pytest.param("\u05e9\u05dc\u05d5\u05dd", "\u05e9\u05dc\u05d5\u05dd", id="from right to left"),
    ],
)
def test_a_name_is_trimmed_and_composed_and_otherwise_kept(client: Client, given: str, kept: str) -> None:
    assert assert_json(post_name(client, given), 201)["name"] == kept


@pytest.mark.parametrize(
    ("name", "says"),
    [
        pytest.param("", "has 0", id="empty"),
        pytest.param(" \t\r\n\u3000", "has 0", id="blanks only"),
        pytest.param("x" * 101, "has 101", id="a hundred and one characters"),
        pytest.param("a\tb", "U+0009", id="a tab inside"),
        pytest.param("a\nb", "U+000A", id="a line break inside"),
        pytest.param("a\0b", "U+0000", id="NUL inside"),
        pytest.param("\0", "U+0000", id="NUL alone"),
        pytest.param("a\x1bb", "U+001B", id="escape"),
        pytest.param("a\x7fb", "U+007F", id="delete"),
        pytest.param("a\x85b", "U+0085", id="next line"),
        pytest.param("a\u2028b", "U+2028", id="line separator"),
        pytest.param(17, "name", id="a number"),
        pytest.param(None, "name", id="null"),
        pytest.param(True, "name", id="a truth value"),
        pytest.param(["Ann"], "name", id="an array"),
        pytest.param({"first": "Ann"}, "name", id="an object"),
    ],
)
def test_a_name_that_is_not_allowed_is_refused(client: Client, name: object, says: str) -> None:
    assert_problem(post_name(client, name), 400, "invalid-request", says)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"Ann", id="no JSON"),
        pytest.param(b'{"name": "Ann"', id="cut short"),
        pytest.param(b'{"name": "Ann"} {}', id="more behind it"),
        pytest.param(b"{'name': 'Ann'}", id="wrong quotes"),
        pytest.param(b'{"name": "Zo\xeb"}', id="Latin-1"),
        pytest.param('{"name": "Ann"}'.encode("utf-16"), id="UTF-16"),
        pytest.param(rb'{"name": "\ud800"}', id="a lone surrogate"),
        pytest.param(b'{"name": "\xed\xa0\x80"}', id="a lone surrogate in UTF-8"),
        pytest.param(b'["Ann"]', id="an array"),
        pytest.param(b'"Ann"', id="a string"),
        pytest.param(b"17", id="a number"),
        pytest.param(b"null", id="null"),
        pytest.param(b"{}", id="no name"),
        pytest.param(b'{"Name": "Ann"}', id="another case"),
        pytest.param(b'{"name": "Ann", "token": "mine"}', id="an unknown field"),
        pytest.param(b'{"name": "Ann", "id": 1}', id="an id of one's own"),
        pytest.param(b'{"name": ' + b"[" * 30000 + b"]" * 30000 + b"}", id="deeply nested"),
        pytest.param(b"[" * 60000, id="deeply nested and cut short"),
        pytest.param(b'{"name": 1' + b"0" * 60000 + b"}", id="a number of 60,000 digits"),
    ],
)
def test_a_body_that_is_no_user_is_refused(client: Client, body: bytes) -> None:
    response = client.http.post("/users", content=body, headers=JSON)
    assert_problem(response, 400, "invalid-request", '{"name": "Ann"}')


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "text/plain",
        "text/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/problem+json",
        "nonsense",
        "",
    ],
)
def test_a_body_that_is_not_announced_as_json_is_refused(client: Client, content_type: str | None) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    response = client.http.post("/users", content=padded_user(100), headers=headers)
    assert_problem(response, 415, "unsupported-media-type", "application/json")


@pytest.mark.parametrize(
    "content_type",
    ["application/json; charset=utf-8", "Application/JSON", 'application/json;charset="UTF-8"'],
)
def test_json_may_be_announced_in_every_way_that_http_has(client: Client, content_type: str) -> None:
    response = client.http.post("/users", content=padded_user(100), headers={"Content-Type": content_type})
    assert_json(response, 201)


def test_a_body_of_64_kib_is_read(client: Client) -> None:
    assert_json(client.http.post("/users", content=padded_user(LIMIT_BYTES), headers=JSON), 201)


@pytest.mark.parametrize("size", [LIMIT_BYTES + 1, 1 << 20])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_more_than_64_kib_is_refused(client: Client, size: int, chunked: bool) -> None:
    def pieces() -> Iterator[bytes]:
        body = padded_user(size)
        yield from (body[start : start + 8192] for start in range(0, size, 8192))

    content = pieces() if chunked else padded_user(size)
    response = client.http.post("/users", content=content, headers=JSON)
    assert_problem(response, 413, "too-large", "65536")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
def test_another_method_is_refused_and_the_right_one_named(client: Client, method: str) -> None:
    response = client.http.request(method, "/users")
    assert_problem(response, 405, "method-not-allowed", method)
    assert "POST" in response.headers["Allow"].split(", ")
    assert method not in response.headers["Allow"].split(", ")


@pytest.mark.parametrize("path", ["/users/", "/users/x", "/user", "/Users", "/users%20"])
def test_nothing_is_served_beside_users(client: Client, path: str) -> None:
    assert_problem(client.http.post(path, json={"name": "Ann"}), 404, "unknown-route")


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example"]
)
def test_a_host_that_is_not_ours_is_refused_and_the_setting_named(client: Client, host: str) -> None:
    response = client.http.post("/users", json={"name": "Ann"}, headers={"Host": host})
    assert_problem(response, 421, "unknown-host", "ALLOWED_HOSTS")


def test_every_answer_has_a_request_id_of_its_own(client: Client) -> None:
    given = "0" * 32
    responses = [
        client.http.post("/users", json={"name": "Ann"}, headers={"X-Request-ID": given}) for _ in range(2)
    ]
    for response in responses:
        assert_json(response, 201)
    assert len({given, *map(request_id_of, responses)}) == 3
