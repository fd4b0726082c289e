"""Who may do what: every route, everybody who may come, and the status that they get."""

from base64 import b64encode
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import httpx
import pytest

from deploy.client import Client
from tests.access_table import COLUMNS, STATUSES, TwoUsers, User, send_to
from tests.response_checks import assert_problem
from tests.upload_requests import FORM_TYPE, TINY_WAV, FormPart, audio, basic, bearer, make_form

# The gateway's own: for every host, and with a 405 of its own.
HEALTH = ("GET /healthz", "GET /readyz/users", "GET /readyz/records")
PROBLEMS = {400: "invalid-request", 401: "invalid-credentials", 404: "unknown-record"}
MALFORMED = [
    "",
    "Bearer",
    "Basic",
    "Bearer ,",
    "Bearer \xff",
    "Bearer " + "x" * 8000,
    "Basic %",
    "Basic d3Jvbmc=",
    "Basic " + b64encode(b":").decode(),
    "Basic " + b64encode(b"\xff:\xff").decode(),
    "Basic " + b64encode(b"me:secret").decode(),
    "Digest x",
    "Negotiate",
]


@pytest.fixture
def users(client: Client) -> TwoUsers:
    owner, other = client.create_user("Owner"), client.create_user("Other")
    record, _ = (client.upload_stream([TINY_WAV], user["token"]) for user in (owner, other))
    return TwoUsers(owner, record, other)


def come_as(client: Client, users: TwoUsers, column: str) -> User:
    """Makes true what the column says of the owner, and returns who comes."""
    match column:
        case "other":
            return users.other
        case "wrong":
            return {**users.owner, "token": str(uuid4())}
        case "rotated":
            assert client.http.post("/users/me/token", headers=bearer(users.owner)).status_code == 200
        case "deleted":
            assert client.http.delete("/users/me", headers=bearer(users.owner)).status_code == 204
    return users.owner


def assert_refused(response: httpx.Response, status: int, name: str, says: str = "") -> dict[str, Any]:
    """Checks that an answer is a problem, of which a HEAD shows the headers only, and returns it."""
    if response.request.method != "HEAD":
        return assert_problem(response, status, name, says)
    assert (response.status_code, response.content) == (status, b"")
    assert response.headers["Content-Type"] == "application/problem+json"
    return {}


def assert_status(response: httpx.Response, status: int) -> dict[str, Any]:
    """Checks an answer, and returns what a problem says apart from the request."""
    assert response.status_code == status, response.content[:500]
    assert ("WWW-Authenticate" in response.headers) == (status == 401)
    if status == 401:
        assert response.headers.get_list("WWW-Authenticate") == ['Bearer realm="waxwing"']
    if status < 300:
        kind = {204: None}.get(
            status, "audio/mpeg" if "/record?" in str(response.url) else "application/json"
        )
        assert response.headers.get("Content-Type") == kind
        return {}
    problem = assert_refused(response, status, PROBLEMS[status])
    return {member: value for member, value in problem.items() if member != "request_id"}


def problem_of_a_stranger(client: Client, scheme: Callable[[User], dict[str, str]]) -> dict[str, Any]:
    """What somebody hears who never was a user."""
    stranger = {"id": str(uuid4()), "token": str(uuid4())}
    return assert_status(client.http.get("/users/me", headers=scheme(stranger)), 401)


@pytest.mark.parametrize("scheme", [bearer, basic])
@pytest.mark.parametrize("column", ["owner", "other", "wrong", "rotated", "deleted"])
@pytest.mark.parametrize("route", STATUSES)
def test_who_has_or_had_credentials_may_do_what_the_table_says(
    client: Client, users: TwoUsers, route: str, column: str, scheme: Callable[[User], dict[str, str]]
) -> None:
    status = STATUSES[route][column]
    problem = assert_status(send_to(client, route, users, scheme(come_as(client, users, column))), status)
    if problem and status == 401:
        # Nobody learns whether there is such a user, or was one.
        assert problem == problem_of_a_stranger(client, scheme)
    if problem and status == 404:
        absent = users._replace(record={"id": str(uuid4())})
        assert problem == assert_status(send_to(client, route, absent, scheme(users.other)), 404)
    if column not in ("owner", "deleted"):
        assert_untouched(client, users)


@pytest.mark.parametrize("route", STATUSES)
def test_nobody_and_who_is_malformed_may_do_what_the_table_says(
    client: Client, users: TwoUsers, route: str
) -> None:
    for column, given in [("nobody", None), *(("malformed", each) for each in MALFORMED)]:
        headers = {} if given is None else {"Authorization": given.encode("latin-1")}
        # An empty header says nothing.
        status = STATUSES[route][column if given else "nobody"]
        assert_status(send_to(client, route, users, headers), status)
    assert_untouched(client, users)


def assert_untouched(client: Client, users: TwoUsers) -> None:
    """Checks that the owner's record is still there."""
    assert client.http.head(users.record["url"]).status_code == 200


@pytest.mark.parametrize("column", COLUMNS)
def test_credentials_in_the_form_count_as_those_in_the_header(
    client: Client, users: TwoUsers, column: str
) -> None:
    user = come_as(client, users, column)
    match column:
        case "nobody":
            fields = []
        case "malformed":
            fields = [FormPart("user_id", "me"), FormPart("token", "secret")]
        case _:
            fields = [FormPart("user_id", user["id"]), FormPart("token", user["token"])]
    response = client.http.post("/records", content=make_form(*fields, audio()), headers=FORM_TYPE)
    problem = assert_status(response, STATUSES["POST /records"][column])
    if problem and column != "nobody":
        assert problem == problem_of_a_stranger(client, basic)


@pytest.mark.parametrize(
    "path", ["/record?id={record}&user={user}", "/records/{record}/waveform?user={user}"]
)
def test_a_link_with_anything_wrong_in_it_gets_one_answer(client: Client, users: TwoUsers, path: str) -> None:
    owner, other, nobody = users.owner["id"], users.other["id"], uuid4()
    record, absent = users.record["id"], uuid4()
    pairs = [(record, other), (record, nobody), (absent, owner), (absent, nobody)]
    answers = [client.http.get(path.format(record=each, user=user)) for each, user in pairs]
    client.http.delete("/users/me", headers=bearer(users.owner)).raise_for_status()
    answers.append(client.http.get(path.format(record=record, user=owner)))
    problems = [assert_status(answer, 404) for answer in answers]
    assert problems == [problems[0]] * 5


@pytest.mark.parametrize("route", [route for route in STATUSES if route not in HEALTH])
def test_a_host_that_is_not_ours_is_refused_on_every_route(
    client: Client, users: TwoUsers, route: str
) -> None:
    response = send_to(client, route, users, {**bearer(users.owner), "Host": "evil.example"})
    assert_refused(response, 421, "unknown-host", "ALLOWED_HOSTS")
    assert_untouched(client, users)


@pytest.mark.parametrize("route", STATUSES)
def test_headers_over_their_limit_are_refused_on_every_route(
    client: Client, users: TwoUsers, route: str
) -> None:
    headers = {**bearer(users.owner), **{f"X-{number}": "x" * 8000 for number in range(5)}}
    assert_status(send_to(client, route, users, headers), 400)
    assert_untouched(client, users)


@pytest.mark.parametrize(
    "route",
    [route for route in STATUSES if route not in (*HEALTH, "POST /records") and "/record?" not in route],
)
def test_a_parameter_that_is_not_known_is_refused_on_every_route_but_a_link_s(
    client: Client, users: TwoUsers, route: str
) -> None:
    query = ("&" if "?" in route else "?") + "confirm=no"
    # With a link's user there are no other credentials.
    headers = {} if "?" in route else bearer(users.owner)
    response = send_to(client, route + query, users, headers)
    assert_refused(response, 400, "invalid-request", "'confirm'")
    assert_untouched(client, users)
    assert client.http.get("/users/me", headers=bearer(users.owner)).status_code == 200


ALLOWED = {
    path: {route.split()[0] for route in STATUSES if route.endswith(f" {path}")} | {"OPTIONS"}
    for path in dict.fromkeys(route.split()[1] for route in STATUSES if route not in HEALTH)
}


@pytest.mark.parametrize("path", ALLOWED)
def test_every_other_method_is_refused_and_the_right_ones_named(
    client: Client, users: TwoUsers, path: str
) -> None:
    options = send_to(client, f"OPTIONS {path}", users, {})
    assert options.status_code == 204
    assert {*options.headers["Allow"].split(", ")} == ALLOWED[path]
    for method in sorted({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "BREW"} - ALLOWED[path]):
        response = send_to(client, f"{method} {path}", users, bearer(users.owner))
        assert {*response.headers["Allow"].split(", ")} == ALLOWED[path], method
        if method == "HEAD":
            assert response.status_code == 405
            assert response.headers["Content-Type"] == "application/problem+json"
        else:
            # nginx, which refuses these two itself, does not name them.
            named = () if method in ("TRACE", "BREW") else (method,)
            assert_problem(response, 405, "method-not-allowed", *named)
    assert_untouched(client, users)
