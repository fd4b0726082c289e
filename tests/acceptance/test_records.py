"""GET /records, and GET and DELETE /records/{id}: a user's records, page by page and one by one."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import httpx
import pytest

from deploy.client import Client
from tests.response_checks import assert_json, assert_problem
from tests.upload_requests import NOBODY, TINY_WAV, basic, bearer

Record = dict[str, Any]
# One more than the default page has.
MANY = 51


def upload(client: Client, user: dict[str, Any]) -> Record:
    return client.upload_stream([TINY_WAV], user["token"])


def delete(client: Client, user: dict[str, Any], record: Record) -> httpx.Response:
    return client.http.delete(f"/records/{record['id']}", headers=bearer(user))


def get_page(client: Client, user: dict[str, Any], **query: str | int | None) -> dict[str, Any]:
    given = {name: value for name, value in query.items() if value is not None}
    page = assert_json(client.http.get("/records", params=given, headers=bearer(user)), 200)
    assert page.keys() == {"records", "next_cursor"}
    return page


def get_pages(client: Client, user: dict[str, Any], limit: int) -> Iterator[list[Record]]:
    """Yields all pages, from the first to the last."""
    cursor = None
    while True:
        page = get_page(client, user, limit=limit, cursor=cursor)
        yield page["records"]
        cursor = page["next_cursor"]
        if cursor is None:
            return


@pytest.fixture(scope="module")
def owner(base_url: str) -> dict[str, Any]:
    with Client(base_url) as client:
        return client.create_user("Owner")


@pytest.fixture(scope="module")
def records(base_url: str, owner: dict[str, Any]) -> list[Record]:
    """The responses of the owner's uploads, the newest first."""
    with Client(base_url) as client:
        return [upload(client, owner) for _ in range(MANY)][::-1]


# Pages


def test_a_page_has_the_records_of_the_uploads_newest_first(
    client: Client, owner: dict[str, Any], records: list[Record]
) -> None:
    assert get_page(client, owner, limit=100) == {"records": records, "next_cursor": None}


def test_a_page_has_fifty_records_by_default(
    client: Client, owner: dict[str, Any], records: list[Record]
) -> None:
    page = get_page(client, owner)
    assert page["records"] == records[:50]
    assert get_page(client, owner, cursor=page["next_cursor"]) == {
        "records": records[50:],
        "next_cursor": None,
    }


@pytest.mark.parametrize("limit", [1, 7, 17, 50, 51, 52])
def test_all_pages_together_have_every_record_once(
    client: Client, owner: dict[str, Any], records: list[Record], limit: int
) -> None:
    expected = [records[start : start + limit] for start in range(0, MANY, limit)]
    assert list(get_pages(client, owner, limit)) == expected


def test_a_user_without_records_gets_an_empty_page(client: Client, user: dict[str, Any]) -> None:
    assert get_page(client, user) == {"records": [], "next_cursor": None}


def test_a_cursor_continues_after_its_page_despite_uploads_and_deletions(
    client: Client, user: dict[str, Any]
) -> None:
    fifth, fourth, third, second, first = [upload(client, user) for _ in range(5)]
    page = get_page(client, user, limit=2)
    assert page["records"] == [first, second]
    newer = [upload(client, user) for _ in range(3)]
    # A cursor stays valid after the deletion of the record that it was made from.
    assert delete(client, user, second).status_code == 204
    assert delete(client, user, fourth).status_code == 204
    assert get_page(client, user, limit=2, cursor=page["next_cursor"]) == {
        "records": [third, fifth],
        "next_cursor": None,
    }
    assert get_page(client, user)["records"] == [*newer[::-1], first, third, fifth]


def test_another_user_s_cursor_shows_only_own_records(
    client: Client, owner: dict[str, Any], user: dict[str, Any], records: list[Record]
) -> None:
    mine = upload(client, user)
    cursor = get_page(client, owner, limit=1)["next_cursor"]
    # The cursor excludes all records that were uploaded after its own.
    assert get_page(client, user, cursor=cursor)["records"] == []
    theirs = get_page(client, user, limit=1)
    assert theirs == {"records": [mine], "next_cursor": None}


def test_an_unfinished_upload_is_in_no_page(client: Client, base_url: str, user: dict[str, Any]) -> None:
    pages = []

    def body() -> Iterator[bytes]:
        half = len(TINY_WAV) // 2
        yield TINY_WAV[:half]
        with Client(base_url) as another:
            pages.append(get_page(another, user))
        yield TINY_WAV[half:]

    record = client.upload_stream(body(), user["token"])
    assert pages == [{"records": [], "next_cursor": None}]
    assert get_page(client, user)["records"] == [record]


CURSOR = f"1700000000000000-{NOBODY}"


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("limit=0", "'limit' is '0'. It must be a whole number from 1 to 100"),
        ("limit=101", "'limit'"),
        ("limit=-1", "'limit'"),
        ("limit=%2B1", "'limit'"),
        ("limit=1.0", "'limit'"),
        ("limit=1e1", "'limit'"),
        ("limit=01", "'limit'"),
        ("limit=", "'limit'"),
        ("limit", "'limit'"),
        ("limit=ten", "'limit'"),
        ("limit=%D9%A1", "'limit'"),
        ("limit=1%00", "'limit'"),
        ("limit=1%0A", "'limit'"),
        ("limit=" + "9" * 5000, "'limit'"),
        ("limit=1&limit=1", "'limit'"),
        ("cursor=", "'cursor' is not the next_cursor"),
        ("cursor=next", "'cursor'"),
        ("cursor=1700000000000000", "'cursor'"),
        (f"cursor={NOBODY}", "'cursor'"),
        (f"cursor={CURSOR.upper()}x", "'cursor'"),
        (f"cursor={CURSOR}%0A", "'cursor'"),
        (f"cursor=-{CURSOR}", "'cursor'"),
        (f"cursor={'9' * 18}-{NOBODY}", "'cursor'"),
        (f"cursor=%D9%A1-{NOBODY}", "'cursor'"),
        (f"cursor={CURSOR}&cursor={CURSOR}", "'cursor'"),
        (f"cursor={CURSOR}&limit=0", "'limit'"),
        ("page=2", "'page'"),
        ("Limit=2", "'Limit'"),
        ("token=secret", "'token'"),
        ("=1", "''"),
        ("x%00=1", "x"),
        ("%FF=1", "allowed"),
        ("y" * 5000 + "=1", "y" * 100),
    ],
)
def test_an_invalid_parameter_is_refused_and_named(
    client: Client, owner: dict[str, Any], query: str, says: str
) -> None:
    response = client.http.get(f"/records?{query}", headers=bearer(owner))
    assert len(assert_problem(response, 400, "invalid-request", says)["detail"]) < 500


@pytest.mark.parametrize("microseconds", ["0", "1", "9" * 17])
def test_a_cursor_with_any_time_gets_a_page(
    client: Client, owner: dict[str, Any], records: list[Record], microseconds: str
) -> None:
    page = get_page(client, owner, limit=1, cursor=f"{microseconds}-{uuid4()}")
    assert page["records"] == ([records[0]] if microseconds[0] == "9" else [])


# One record


@pytest.mark.parametrize("scheme", [bearer, basic])
def test_a_record_is_the_response_of_its_upload(
    client: Client,
    owner: dict[str, Any],
    records: list[Record],
    scheme: Callable[[dict[str, Any]], dict[str, str]],
) -> None:
    response = client.http.get(f"/records/{records[0]['id']}", headers=scheme(owner))
    assert assert_json(response, 200) == records[0]


@pytest.mark.parametrize("path", ["/records", "/records/{id}"])
def test_head_has_the_headers_of_get_and_no_body(
    client: Client, owner: dict[str, Any], records: list[Record], path: str
) -> None:
    path = path.format(id=records[0]["id"])
    get, head = (client.http.request(method, path, headers=bearer(owner)) for method in ("GET", "HEAD"))
    assert (get.status_code, head.status_code) == (200, 200)
    for name in ("Content-Type", "Content-Length"):
        assert head.headers[name] == get.headers[name]
    assert head.content == b""


def test_links_have_the_host_that_the_client_used(
    client: Client, owner: dict[str, Any], records: list[Record]
) -> None:
    headers = {**bearer(owner), "Host": "localhost:1234"}
    one = assert_json(client.http.get(f"/records/{records[0]['id']}", headers=headers), 200)
    page = assert_json(client.http.get("/records", params={"limit": 1}, headers=headers), 200)
    link = f"http://localhost:1234/record?id={records[0]['id']}&user={owner['id']}"
    assert [one["url"], page["records"][0]["url"]] == [link, link]


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/records/1",
            "/records/me",
            "/records/{id}x",
            "/records/{id}/",
            "/records/{id}%0A",
            "/RECORDS/{id}",
        ),
        *("/records/%7B{id}%7D", "/records/urn:uuid:{id}", "/records/%20{id}", "/records/+{id}"),
        *("/records/0x" + "a" * 30, "/records/1_2" + "a" * 29, "/records/" + "%D9%A1" * 32),
    ],
)
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_other_paths_below_records_are_unknown(
    client: Client, owner: dict[str, Any], records: list[Record], method: str, path: str
) -> None:
    path = path.format(id=records[0]["id"])
    assert_problem(client.http.request(method, path, headers=bearer(owner)), 404, "unknown-route")


# Deletion


def test_a_record_is_gone_for_everybody_once_its_deletion_is_confirmed(
    client: Client, user: dict[str, Any]
) -> None:
    stays, goes = upload(client, user), upload(client, user)
    path, etag = f"/records/{goes['id']}", {"If-None-Match": f'"{goes["sha256"]}"'}
    # The second download comes from the gateway's cache.
    for _ in range(2):
        client.download(goes["url"])
    response = delete(client, user, goes)
    assert (response.status_code, response.content) == (204, b"")
    assert "Content-Type" not in response.headers
    for response in (
        client.http.get(goes["url"]),
        client.http.get(goes["url"], headers=etag),
        client.http.get(goes["url"], headers={"Range": "bytes=0-9"}),
        client.http.get(path, headers=bearer(user)),
        client.http.get(f"{path}/waveform", headers=bearer(user)),
        client.http.get(f"{path}/waveform", params={"user": user["id"]}),
        client.http.get(f"{path}/waveform", headers={**bearer(user), **etag}),
        delete(client, user, goes),
    ):
        assert_problem(response, 404, "unknown-record")
    assert client.http.head(goes["url"]).status_code == 404
    assert get_page(client, user) == {"records": [stays], "next_cursor": None}
    assert len(client.download(stays["url"])) == stays["size_bytes"]


def test_exactly_one_of_many_simultaneous_deletions_succeeds(client: Client, user: dict[str, Any]) -> None:
    record = upload(client, user)
    with ThreadPoolExecutor(8) as threads:
        responses = list(threads.map(lambda _: delete(client, user, record), range(8)))
    assert sorted(response.status_code for response in responses) == [204] + [404] * 7


def test_a_wav_can_be_uploaded_again_after_its_record_is_deleted(
    client: Client, user: dict[str, Any]
) -> None:
    first = upload(client, user)
    assert delete(client, user, first).status_code == 204
    second = upload(client, user)
    assert second["id"] != first["id"]
    assert len(client.download(second["url"])) == second["size_bytes"]
    assert get_page(client, user)["records"] == [second]
