"""Checks that every response must pass: it is a problem or JSON, and it has the id of its request."""

import re
from typing import Any, cast

import httpx

PROBLEM = "application/problem+json"
MEMBERS = {"type", "title", "status", "detail", "request_id"}
# A client must never see traces, other programs' markup, or the store's signatures and object keys.
INTERNALS = re.compile(r"Traceback|<html|<\?xml|X-Amz|\.py|[0-9a-f]{12}\.mp3")


BEARER = 'Bearer realm="waxwing"'
BASIC_OR_BEARER = f'Basic realm="waxwing", charset="UTF-8", {BEARER}'


def assert_problem(response: httpx.Response, status: int, name: str, *says: str) -> dict[str, Any]:
    """Checks that a response is the problem `name` with `says` in its detail, and returns the problem."""
    assert (response.status_code, response.headers["Content-Type"]) == (status, PROBLEM), response.content[
        :500
    ]
    problem = cast(dict[str, Any], response.json())
    assert problem.keys() == MEMBERS
    assert problem["type"] == f"/problems/{name}", problem
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    for words in says:
        assert words in problem["detail"], problem
    assert problem["request_id"] == request_id_of(response)
    assert not INTERNALS.search(response.text)
    return problem


def assert_json(response: httpx.Response, status: int) -> dict[str, Any]:
    """Checks that a response is a JSON object with this status, and returns the object."""
    assert (response.status_code, response.headers["Content-Type"]) == (status, "application/json"), (
        response.content[:500]
    )
    assert request_id_of(response)
    return cast(dict[str, Any], response.json())


def assert_challenge(response: httpx.Response) -> None:
    """Checks that a 401 has one challenge, for Bearer alone or for Basic and Bearer."""
    (challenge,) = response.headers.get_list("WWW-Authenticate")
    assert challenge in {BEARER, BASIC_OR_BEARER}


def request_id_of(response: httpx.Response) -> str:
    """Returns the X-Request-ID of a response, which must have exactly one."""
    (request_id,) = response.headers.get_list("X-Request-ID")
    assert re.fullmatch(r"[0-9a-f]{32}", request_id)
    return str(request_id)
