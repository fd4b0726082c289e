"""POST /users creates a user; /users/me shows and deletes it; /users/me/token renews its token."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest

from deploy.client import Client
from tests.response_checks import assert_json, assert_problem, request_id_of
from tests.upload_requests import TINY_WAV, WAV_TYPE, basic, bearer

JSON = {"Content-Type": "application/json"}
LIMIT_BYTES = 64 * 1024


def post_name(client: Client, name: object) -> httpx.Response:
    return client.http.post("/users", json={"name": name})


def padded_user(size: int) -> bytes:
    """A valid body of this many bytes; blanks may follow JSON."""
    return b'{"name": "Ann"}'.ljust(size)


def test_a_new_user_has_an_id_a_name_a_token_and_a_time(client: Client) -> None:
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
        pytest.param("<b>\"'\\;--", "<b>\"'\\;--", id="characters with a meaning in HTML and SQL"),
        pytest.param("\u05e9\u05dc\u05d5\u05dd", "\u05e9\u05dc\u05d5\u05dd", id="from right to left"),
        *(
            pytest.param(each, each, id=f"with invisible characters: {what}")
            for what, each in {
                "a family": "\U0001f469\u200d\U0001f469\u200d\U0001f467",
                "a flag": "\U0001f1eb\U0001f1f7",
                "a flag of tags": "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
                "a keycap": "1\ufe0f\u20e3",
                "Persian": "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
            }.items()
        ),
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
        *(
            pytest.param(each, f"U+{ord(each[-1]):04X}", id=f"a noncharacter, {ord(each[-1]):X}")
            for each in ("\ufdd0", "a\ufdef", "a\ufffe", "a\uffff", "a\U0001fffe", "a\U0010ffff")
        ),
        *(
            pytest.param(each, "can be seen", id=f"invisible characters only, {ord(each[0]):X}")
            for each in (
                *(
                    "\u00ad",
                    "\u034f",
                    "\u115f\u1160",
                    "\u180e",
                    "\u200b",
                    "\u200d \u200c",
                    "\u2060",
                    "\u2064",
                ),
                *("\u2800", "\u3164", "\ufe0f", "\ufeff", "\uffa0", "\U000e0061", "\U000e0100", "\U0001d173"),
            )
        ),
        pytest.param(17, "name", id="a number"),
        pytest.param(None, "name", id="null"),
        pytest.param(True, "name", id="a truth value"),
        pytest.param(["Ann"], "name", id="an array"),
        pytest.param({"first": "Ann"}, "name", id="an object"),
    ],
)
def test_a_name_that_is_not_allowed_is_refused(client: Client, name: object, says: str) -> None:
    assert_problem(post_name(client, name), 400, "invalid-request", says)


def test_a_body_that_is_not_utf_8_is_named_as_such(client: Client) -> None:
    response = client.http.post("/users", content=b'{"name": "Zo\xeb"}', headers=JSON)
    problem = assert_problem(response, 400, "invalid-request")
    assert problem["detail"] == 'The body is not UTF-8. Send a body such as {"name": "Ann"}.'


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
        pytest.param(b'{"name": "Ann", "name": "Ann"}', id="a name twice"),
        pytest.param(rb'{"name": "Ann", "n\u0061me": "Bob"}', id="a name twice, once escaped"),
        pytest.param(b'\xef\xbb\xbf\xef\xbb\xbf{"name": "Ann"}', id="two byte order marks"),
        pytest.param(rb'{"name": "\udc00\ud800"}', id="surrogates in the wrong order"),
        pytest.param(b'{"name": "a\nb"}', id="a line break as it is"),
        pytest.param(b'{"name": NaN}', id="no number"),
        pytest.param(b'{"name": -Infinity}', id="minus infinity"),
        pytest.param(b'{"name": 1e400}', id="a number beyond all doubles"),
        pytest.param(b'{"name": ' + b"[" * 30000 + b"]" * 30000 + b"}", id="deeply nested"),
        pytest.param(b'{"x": ' + b"[" * 30000 + b"]" * 30000 + b"}", id="deeply nested in an unknown field"),
        pytest.param(b"[" * 60000, id="deeply nested and cut short"),
        pytest.param(b'{"name": 1' + b"0" * 60000 + b"}", id="a number of 60,000 digits"),
    ],
)
def test_a_body_that_is_not_a_valid_user_is_refused(client: Client, body: bytes) -> None:
    response = client.http.post("/users", content=body, headers=JSON)
    assert_problem(response, 400, "invalid-request", '{"name": "Ann"}')


@pytest.mark.parametrize("field", ["token", "id", "Name", "name ", "x" * 60_000])
def test_an_unknown_field_is_refused_and_named(client: Client, field: str) -> None:
    for body in ({"name": "Ann", field: 1e300}, {field: {}, "name": "Ann"}):
        problem = assert_problem(client.http.post("/users", json=body), 400, "invalid-request", field[:100])
        assert len(problem["detail"]) < 500


def test_two_content_types_are_refused(client: Client) -> None:
    headers = [*JSON.items(), *JSON.items()]
    response = client.http.post("/users", content=b'{"name": "Ann"}', headers=headers)
    assert_problem(response, 400, "invalid-request", "Content-Type")


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
def test_a_content_type_other_than_json_is_refused(client: Client, content_type: str | None) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    response = client.http.post("/users", content=padded_user(100), headers=headers)
    assert_problem(response, 415, "unsupported-media-type", "application/json")


@pytest.mark.parametrize(
    "content_type",
    ["application/json; charset=utf-8", "Application/JSON", 'application/json;charset="UTF-8"'],
)
def test_the_content_type_of_json_may_have_any_case_and_a_charset(client: Client, content_type: str) -> None:
    response = client.http.post("/users", content=padded_user(100), headers={"Content-Type": content_type})
    assert_json(response, 201)


def test_a_byte_order_mark_in_front_of_the_json_does_not_count(client: Client) -> None:
    response = client.http.post("/users", content=b'\xef\xbb\xbf{"name": "Ann"}', headers=JSON)
    assert assert_json(response, 201)["name"] == "Ann"


def test_a_body_of_64_kib_is_accepted(client: Client) -> None:
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


@pytest.mark.parametrize("path", ["/users/", "/users/x", "/user", "/Users", "/users%20"])
def test_other_paths_near_users_are_unknown(client: Client, path: str) -> None:
    assert_problem(client.http.post(path, json={"name": "Ann"}), 404, "unknown-route")


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example"),
        *("[localhost]", "[zz]", "a'b.localhost"),
    ],
)
def test_an_unknown_host_is_refused_and_the_setting_is_named(client: Client, host: str) -> None:
    response = client.http.post("/users", json={"name": "Ann"}, headers={"Host": host})
    assert_problem(response, 421, "unknown-host", "ALLOWED_HOSTS")


def test_every_response_has_its_own_request_id(client: Client) -> None:
    given = "0" * 32
    responses = [
        client.http.post("/users", json={"name": "Ann"}, headers={"X-Request-ID": given}) for _ in range(2)
    ]
    for response in responses:
        assert_json(response, 201)
    assert len({given, *map(request_id_of, responses)}) == 3


# The profile


def get_profile(client: Client, user: dict[str, Any]) -> dict[str, Any]:
    return assert_json(client.http.get("/users/me", headers=bearer(user)), 200)


def test_a_profile_has_the_number_and_the_bytes_of_the_records(client: Client, user: dict[str, Any]) -> None:
    described = {name: user[name] for name in ("id", "name", "created_at")}
    described |= dict.fromkeys(("max_records", "max_bytes", "max_seconds"))
    nothing = {"record_count": 0, "total_bytes": 0, "total_seconds": 0.0}
    assert get_profile(client, user) == {**described, **nothing}
    first, second = (client.upload_stream([TINY_WAV], user["token"]) for _ in range(2))
    both = first["size_bytes"] + second["size_bytes"]
    seconds = first["duration_seconds"]
    all_of_it = {"record_count": 2, "total_bytes": both, "total_seconds": 2 * seconds}
    assert get_profile(client, user) == {**described, **all_of_it}
    client.http.delete(f"/records/{first['id']}", headers=bearer(user)).raise_for_status()
    left = {"record_count": 1, "total_bytes": second["size_bytes"], "total_seconds": seconds}
    assert get_profile(client, user) == {**described, **left}


def test_a_profile_counts_neither_other_users_records_nor_refused_uploads(
    client: Client, user: dict[str, Any]
) -> None:
    client.upload_stream([TINY_WAV], client.create_user("Other")["token"])
    refused = client.http.post("/records", content=TINY_WAV[:44], headers={**WAV_TYPE, **bearer(user)})
    assert_problem(refused, 422, "broken-audio")
    profile = get_profile(client, user)
    assert (profile["record_count"], profile["total_bytes"]) == (0, 0)


def test_head_has_the_headers_of_the_profile_and_no_body(client: Client, user: dict[str, Any]) -> None:
    get, head = (client.http.request(method, "/users/me", headers=basic(user)) for method in ("GET", "HEAD"))
    assert (get.status_code, head.status_code) == (200, 200)
    for name in ("Content-Type", "Content-Length"):
        assert head.headers[name] == get.headers[name]
    assert head.content == b""


# A new token


def renew(client: Client, user: dict[str, Any]) -> httpx.Response:
    return client.http.post("/users/me/token", headers=bearer(user))


def test_a_new_token_replaces_the_old_one_and_changes_nothing_else(
    client: Client, user: dict[str, Any]
) -> None:
    record = client.upload_stream([TINY_WAV], user["token"])
    before = get_profile(client, user)
    renewed = assert_json(renew(client, user), 200)
    assert renewed.keys() == {"id", "token"}
    assert renewed["id"] == user["id"]
    assert UUID(renewed["token"]).version == 4
    assert renewed["token"] != user["token"]
    for headers in (bearer(user), basic(user)):
        assert_problem(client.http.get("/users/me", headers=headers), 401, "invalid-credentials")
    assert get_profile(client, renewed) == before
    assert len(client.download(record["url"])) == record["size_bytes"]
    assert client.upload_stream([TINY_WAV], renewed["token"])["user_id"] == user["id"]


def test_exactly_one_of_many_simultaneous_renewals_of_a_token_succeeds(
    client: Client, user: dict[str, Any]
) -> None:
    with ThreadPoolExecutor(8) as threads:
        responses = list(threads.map(lambda _: renew(client, user), range(8)))
    assert sorted(response.status_code for response in responses) == [200] + [401] * 7
    (renewed,) = [response.json() for response in responses if response.is_success]
    assert get_profile(client, renewed)["id"] == user["id"]


# Deletion


def test_a_user_and_all_records_are_gone_once_the_deletion_is_confirmed(
    client: Client, user: dict[str, Any]
) -> None:
    records = [client.upload_stream([TINY_WAV], user["token"]) for _ in range(3)]
    other = client.create_user(user["name"])
    kept = client.upload_stream([TINY_WAV], other["token"])
    for record in records:
        client.download(record["url"])
    response = client.http.delete("/users/me", headers=bearer(user))
    assert (response.status_code, response.content) == (204, b"")
    assert "Content-Type" not in response.headers
    for record in records:
        assert_problem(client.http.get(record["url"]), 404, "unknown-record")
        waveform = client.http.get(f"/records/{record['id']}/waveform", params={"user": user["id"]})
        assert_problem(waveform, 404, "unknown-record")
    for method, path in (
        ("GET", "/users/me"),
        ("DELETE", "/users/me"),
        ("POST", "/users/me/token"),
        ("GET", "/records"),
        ("GET", f"/records/{records[0]['id']}"),
    ):
        for headers in (bearer(user), basic(user)):
            assert_problem(client.http.request(method, path, headers=headers), 401, "invalid-credentials")
    # Other users keep their records, and the name can be used again.
    assert len(client.download(kept["url"])) == kept["size_bytes"]
    assert get_profile(client, other)["record_count"] == 1
    again = client.create_user(user["name"])
    assert again["id"] != user["id"]
    assert get_profile(client, again)["record_count"] == 0


def test_exactly_one_of_many_simultaneous_deletions_of_a_user_succeeds(
    client: Client, user: dict[str, Any]
) -> None:
    with ThreadPoolExecutor(8) as threads:
        responses = list(
            threads.map(lambda _: client.http.delete("/users/me", headers=bearer(user)), range(8))
        )
    assert sorted(response.status_code for response in responses) == [204] + [401] * 7


@pytest.mark.parametrize("path", ["/users/me/", "/users/me/tokens", "/users/me/token/", "/users/{id}"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_other_paths_near_users_me_are_unknown(
    client: Client, user: dict[str, Any], method: str, path: str
) -> None:
    response = client.http.request(method, path.format(id=user["id"]), headers=bearer(user))
    assert_problem(response, 404, "unknown-route")
