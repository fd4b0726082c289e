"""PATCH /records/{id}: a user gives a record another title."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from deploy.client import Client
from tests.acceptance.upload_client import post_wav
from tests.response_checks import assert_json, assert_problem
from tests.upload_requests import TINY_WAV, WAV_TYPE, basic, bearer

Record = dict[str, Any]
JSON_TYPE = {"Content-Type": "application/json"}


def rename(client: Client, user: dict[str, Any], record: Record, title: str | None) -> httpx.Response:
    return client.http.patch(f"/records/{record['id']}", json={"title": title}, headers=bearer(user))


@pytest.fixture
def record(client: Client, user: dict[str, Any]) -> Record:
    return assert_json(post_wav(client, user, title="First"), 201)


@pytest.mark.parametrize("scheme", [bearer, basic])
def test_a_renamed_record_has_its_new_title_everywhere(
    client: Client, user: dict[str, Any], record: Record, scheme: Callable[[dict[str, Any]], dict[str, str]]
) -> None:
    path = f"/records/{record['id']}"
    response = client.http.patch(path, json={"title": " Вторая\u00a0"}, headers=scheme(user))
    renamed = assert_json(response, 200)
    assert renamed == {**record, "title": "Вторая"}
    assert assert_json(client.http.get(path, headers=bearer(user)), 200) == renamed
    assert assert_json(client.http.get("/records", headers=bearer(user)), 200)["records"] == [renamed]


def test_a_rename_changes_the_file_name_and_neither_the_mp3_nor_its_validators(
    client: Client, user: dict[str, Any], record: Record
) -> None:
    # The second download comes from the gateway's cache.
    before = [client.http.get(record["url"]) for _ in range(2)][-1]
    assert "First.mp3" in before.headers["Content-Disposition"]
    assert_json(rename(client, user, record, "Second"), 200)
    after = client.http.get(record["url"])
    assert (after.status_code, after.content) == (200, before.content)
    # A player with the MP3 in its cache learns the file name from the 304.
    unchanged = client.http.get(record["url"], headers={"If-None-Match": before.headers["ETag"]})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    part = client.http.get(record["url"], headers={"Range": "bytes=0-9"})
    assert (part.status_code, part.content) == (206, before.content[:10])
    for response in (after, unchanged, part, client.http.head(record["url"])):
        assert response.headers["Content-Disposition"] == "inline; filename=Second.mp3"
        for name in ("ETag", "Last-Modified", "Cache-Control"):
            assert response.headers[name] == before.headers[name]


@pytest.mark.parametrize("title", [None, "", "  "])
def test_a_record_can_lose_its_title(
    client: Client, user: dict[str, Any], record: Record, title: str | None
) -> None:
    assert assert_json(rename(client, user, record, title), 200) == {**record, "title": None}


def test_a_title_of_200_characters_is_the_longest(
    client: Client, user: dict[str, Any], record: Record
) -> None:
    assert assert_json(rename(client, user, record, "ж" * 200), 200)["title"] == "ж" * 200
    assert_problem(rename(client, user, record, "ж" * 201), 400, "invalid-request", "201 characters")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not JSON"),
        (b"{}", "missing required field `title`"),
        (b"[]", "Expected `object`"),
        (b'{"title": 1}', "Expected `str | null`"),
        (b'{"title": "a", "name": "b"}', "unknown field `name`"),
        (b'{"title": "a", "title": "b"}', "twice"),
        (b'{"title": "\\u0000"}', "U+0000"),
        (b'{"title": "\\u202e"}', "U+202E"),
        (b'{"title": "\\ud800"}', ""),
        (b'{"title": "\\u200b"}', "can be seen"),
        (b'{"title": "\xff"}', "UTF-8"),
        (b"title=a", "not JSON"),
    ],
)
def test_a_body_that_is_no_title_is_refused(
    client: Client, user: dict[str, Any], record: Record, body: bytes, says: str
) -> None:
    path = f"/records/{record['id']}"
    response = client.http.patch(path, content=body, headers={**JSON_TYPE, **bearer(user)})
    assert_problem(response, 400, "invalid-request", says)
    assert assert_json(client.http.get(path, headers=bearer(user)), 200) == record


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded"])
def test_another_content_type_is_refused(
    client: Client, user: dict[str, Any], record: Record, kind: str
) -> None:
    headers = {"Content-Type": kind, **bearer(user)}
    response = client.http.patch(f"/records/{record['id']}", content=b'{"title": "a"}', headers=headers)
    assert_problem(response, 415, "unsupported-media-type", "application/json")


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_over_64_kib_is_refused(
    client: Client, user: dict[str, Any], record: Record, is_chunked: bool
) -> None:
    body = b'{"title": "' + b" " * 65536 + b'"}'
    content = iter([body]) if is_chunked else body
    headers = {**JSON_TYPE, **bearer(user)}
    response = client.http.patch(f"/records/{record['id']}", content=content, headers=headers)
    assert_problem(response, 413, "too-large", "65536")


def test_a_deleted_record_cannot_be_renamed(client: Client, user: dict[str, Any], record: Record) -> None:
    assert client.http.delete(f"/records/{record['id']}", headers=bearer(user)).status_code == 204
    assert_problem(rename(client, user, record, "Second"), 404, "unknown-record")


def test_an_upload_that_is_sent_again_gets_its_record_though_it_was_renamed(
    client: Client, user: dict[str, Any]
) -> None:
    headers = {**bearer(user), **WAV_TYPE, "Idempotency-Key": "once"}

    def upload() -> httpx.Response:
        return client.http.post("/records?title=First", content=TINY_WAV, headers=headers)

    renamed = assert_json(rename(client, user, assert_json(upload(), 201), "Second"), 200)
    again = upload()
    assert assert_json(again, 201) == renamed
    assert again.headers["Idempotency-Replayed"] == "true"
