"""GET and HEAD /record: everybody who has the link gets the MP3, and nobody else."""

from typing import Any
from uuid import uuid4

import httpx
import pytest

from deploy.client import Client
from tests.acceptance.mp3_checks import Published, assert_mp3, header_names
from tests.response_checks import assert_json, assert_problem
from tests.upload_requests import TINY_WAV


@pytest.mark.parametrize("authorization", ["Bearer x", "Basic eDp5", "AWS4-HMAC-SHA256 x"])
def test_a_link_needs_no_credentials_and_ignores_wrong_ones(
    client: Client, published: Published, authorization: str
) -> None:
    response = client.http.get(published.url, headers={"Authorization": authorization})
    assert_mp3(response, 200, published.mp3)


def assert_unknown_record(response: httpx.Response) -> dict[str, Any]:
    """Checks that a response is the problem for an unknown record; returns it without its request id."""
    problem = assert_problem(response, 404, "unknown-record")
    return {name: value for name, value in problem.items() if name != "request_id"}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_wrong_user_and_an_unknown_id_get_the_same_response(
    client: Client, published: Published, method: str
) -> None:
    stranger = client.create_user("Stranger")
    ids = {"id": published.record["id"], "user": published.record["user_id"]}
    wrong = [
        ids | {"user": stranger["id"]},
        ids | {"user": str(uuid4())},
        ids | {"id": str(uuid4())},
        {"id": ids["user"], "user": ids["id"]},
    ]
    responses = [client.http.request(method, "/record", params=query) for query in wrong]
    if method == "GET":
        bodies = [assert_unknown_record(response) for response in responses]
        assert bodies == bodies[:1] * len(wrong)
    for response in responses:
        assert response.status_code == 404
        assert response.headers["Content-Type"] == "application/problem+json"
        assert header_names(response) == header_names(responses[0])


def test_a_user_s_id_does_not_open_another_user_s_record(client: Client) -> None:
    users = [client.create_user(name) for name in ("Ann", "Bob")]
    records = [client.upload_stream([TINY_WAV], user["token"]) for user in users]
    for mine, theirs in (records, records[::-1]):
        assert_json(client.http.get("/healthz"), 200)
        own = client.http.get("/record", params={"id": mine["id"], "user": mine["user_id"]})
        assert (own.status_code, own.headers["Content-Type"]) == (200, "audio/mpeg")
        assert_unknown_record(
            client.http.get("/record", params={"id": mine["id"], "user": theirs["user_id"]})
        )


def test_ranges_and_conditions_on_another_user_s_record_get_404(client: Client, published: Published) -> None:
    query = {"id": published.record["id"], "user": str(uuid4())}
    for headers in (
        {"Range": "bytes=0-1"},
        {"Range": "bytes=99999999-"},
        {"If-None-Match": published.headers["ETag"]},
        {"If-Match": '"x"'},
    ):
        assert_unknown_record(client.http.get("/record", params=query, headers=headers))


SOME_ID = "8f0a8fd5-3f27-4c3a-8bd4-5ad33e7f2a61"


@pytest.mark.parametrize(
    ("query", "says"),
    [
        pytest.param("", "'id'", id="nothing"),
        pytest.param(f"id={SOME_ID}", "'user'", id="no user"),
        pytest.param(f"user={SOME_ID}", "'id'", id="no id"),
        pytest.param(f"id=&user={SOME_ID}", "'id'", id="an empty id"),
        pytest.param(f"id=1&user={SOME_ID}", "'id'", id="a number"),
        pytest.param(f"id={SOME_ID}&user=me", "'user'", id="a word"),
        pytest.param(f"id={SOME_ID}&id={SOME_ID}&user={SOME_ID}", "'id'", id="two ids"),
        pytest.param(f"id={SOME_ID}&user={SOME_ID}&user={SOME_ID}", "'user'", id="two users"),
        pytest.param(f"id=%ff&user={SOME_ID}", "'id'", id="not UTF-8"),
        pytest.param(f"id={SOME_ID}x&user={SOME_ID}", "'id'", id="too long"),
        pytest.param(f"id={SOME_ID[:-1]}&user={SOME_ID}", "'id'", id="too short"),
        pytest.param("id=" + "x" * 4000, "'id'", id="much too long"),
    ],
)
def test_a_malformed_link_is_refused(client: Client, query: str, says: str) -> None:
    assert_problem(client.http.get(f"/record?{query}"), 400, "invalid-request", says)


def test_an_unknown_host_is_refused(client: Client, published: Published) -> None:
    response = client.http.get(published.url, headers={"Host": "evil.example"})
    assert_problem(response, 421, "unknown-host", "evil.example")
