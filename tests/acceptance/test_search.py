"""GET /records?q=…: a user finds records by a part of their titles."""

from typing import Any

import httpx
import pytest

from deploy.client import Client
from tests.acceptance.upload_client import post_wav
from tests.response_checks import assert_json, assert_problem
from tests.upload_requests import TINY_WAV, bearer

# The newest first.
TITLES = [
    *("Monday's rehearsal", "monday 2", "Понедельник, блюз", "БЛЮЗ 100%", "100 per cent", "a_b", "aXb"),
    *("back\\slash", "Zoë", "東京の朝", "Die Straße", "\u039f\u03b4\u03cc\u03c2", "\u0130stanbul", "q", None),
    "Зелёный чай",
]


@pytest.fixture(scope="module")
def owner(base_url: str) -> dict[str, Any]:
    """A user with a record of each title; another user has the same titles."""
    with Client(base_url) as client:
        users = [client.create_user("Owner"), client.create_user("Other")]
        for user in users:
            for title in reversed(TITLES):
                assert_json(post_wav(client, user, TINY_WAV, **({"title": title} if title else {})), 201)
        return users[0]


def search(client: Client, user: dict[str, Any], **query: str | int) -> httpx.Response:
    return client.http.get("/records", params=query, headers=bearer(user))


def find(client: Client, user: dict[str, Any], part: str) -> list[str | None]:
    page = assert_json(search(client, user, q=part), 200)
    assert {record["user_id"] for record in page["records"]} <= {user["id"]}
    return [record["title"] for record in page["records"]]


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("monday", ["Monday's rehearsal", "monday 2"]),
        ("DAY'S RE", ["Monday's rehearsal"]),
        ("блюз", ["Понедельник, блюз", "БЛЮЗ 100%"]),
        ("ПОНЕДЕЛЬ", ["Понедельник, блюз"]),
        ("Ю", ["Понедельник, блюз", "БЛЮЗ 100%"]),
        ("zoe\u0308", ["Zoë"]),
        ("京の", ["東京の朝"]),
        ("東京の", ["東京の朝"]),
        ("STRASSE", ["Die Straße"]),
        ("straße", ["Die Straße"]),
        # The final sigma is another letter than the sigma within a word.
        ("\u039f\u0394\u038c\u03a3", ["\u039f\u03b4\u03cc\u03c2"]),
        ("i\u0307STANBUL", ["\u0130stanbul"]),
        # Russians write both letters for yo.
        ("зеленый", ["Зелёный чай"]),
        ("ЗЕЛЁНЫЙ", ["Зелёный чай"]),
        ("блюё", []),
        ("ё", ["Понедельник, блюз", "Зелёный чай"]),
        ("понёд", ["Понедельник, блюз"]),
        (" monday  ", ["Monday's rehearsal", "monday 2"]),
        ("monday  2", []),
        ("100%", ["БЛЮЗ 100%"]),
        ("%", ["БЛЮЗ 100%"]),
        ("a_b", ["a_b"]),
        ("_", ["a_b"]),
        ("\\", ["back\\slash"]),
        ("back\\s", ["back\\slash"]),
        ("/", []),
        ("'", ["Monday's rehearsal"]),
        ("q", ["q"]),
        ("null", []),
        ("x" * 200, []),
    ],
)
def test_a_search_finds_each_title_with_this_part_in_any_case(
    client: Client, owner: dict[str, Any], part: str, expected: list[str]
) -> None:
    assert find(client, owner, part) == expected


@pytest.mark.parametrize("part", ["", " "])
def test_an_empty_part_finds_all_records(client: Client, owner: dict[str, Any], part: str) -> None:
    assert find(client, owner, part) == TITLES


def test_all_pages_of_a_search_together_have_every_match_once(client: Client, owner: dict[str, Any]) -> None:
    query: dict[str, str | int] = {"q": "o", "limit": 2}
    found: list[str] = []
    while query:
        page = assert_json(search(client, owner, **query), 200)
        assert len(page["records"]) <= 2
        found += [record["title"] for record in page["records"]]
        query = {**query, "cursor": page["next_cursor"]} if page["next_cursor"] else {}
    assert found == [title for title in TITLES if title and "o" in title.lower()]


def test_a_search_follows_renames_and_deletions(client: Client, user: dict[str, Any]) -> None:
    record, other = (assert_json(post_wav(client, user, title=title), 201) for title in ("one", "two"))
    path = f"/records/{record['id']}"
    assert_json(client.http.patch(path, json={"title": "three"}, headers=bearer(user)), 200)
    assert [find(client, user, part) for part in ("one", "two", "three")] == [[], ["two"], ["three"]]
    assert client.http.delete(f"/records/{other['id']}", headers=bearer(user)).status_code == 204
    assert find(client, user, "two") == []


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("q=" + "x" * 201, "'q' has 201 characters"),
        ("q=a%00b", "'q' contains U+0000"),
        ("q=a%0Ab", "'q' contains U+000A"),
        ("q=%E2%80%AE", "'q' contains U+202E"),
        ("q=%E2%80%8B", "'q' has no character that can be seen"),
        ("q=%FF", "UTF-8"),
        ("q=%ED%A0%80", "UTF-8"),
        ("q=a&q=b", "'q'"),
        ("Q=a", "'Q'"),
        ("q=a&limit=0", "'limit'"),
    ],
)
def test_a_part_that_no_title_may_have_is_refused(
    client: Client, owner: dict[str, Any], query: str, says: str
) -> None:
    response = client.http.get(f"/records?{query}", headers=bearer(owner))
    assert_problem(response, 400, "invalid-request", says)
