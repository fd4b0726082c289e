"""What every answer must be: a problem that says what is wrong, or JSON; each with the id of its request."""

import re
from typing import Any, cast

import httpx

PROBLEM = "application/problem+json"
MEMBERS = {"type", "title", "status", "detail", "request_id"}
# What only somebody inside may see: traces, markup of programs behind us, signatures and keys of the store.
INTERNALS = re.compile(r"Traceback|<html|<\?xml|X-Amz|\.py|[0-9a-f]{12}\.mp3")


def assert_problem(response: httpx.Response, status: int, name: str, says: str = "") -> dict[str, Any]:
    """Checks that an answer is the problem `name` with this status, whose detail contains `says`."""
    assert (response.status_code, response.headers["Content-Type"]) == (status, PROBLEM), response.content[
        :500
    ]
    problem = cast(dict[str, Any], response.json())
    assert problem.keys() == MEMBERS
    assert problem["type"] == f"/problems/{name}", problem
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    assert says in problem["detail"], problem
    assert problem["request_id"] == request_id_of(response)
    assert not INTERNALS.search(response.text)
    return problem


def assert_json(response: httpx.Response, status: int) -> dict[str, Any]:
    """Checks that an answer is a JSON object with this status, and returns it."""
    assert (response.status_code, response.headers["Content-Type"]) == (status, "application/json"), (
        response.content[:500]
    )
    assert request_id_of(response)
    return cast(dict[str, Any], response.json())


def request_id_of(response: httpx.Response) -> str:
    """The one X-Request-ID of an answer."""
    (request_id,) = response.headers.get_list("X-Request-ID")
    assert re.fullmatch(r"[0-9a-f]{32}", request_id)
    return str(request_id)
