"""Who may do what: every route of tests/access_table.py, with every kind of credentials."""

import re
from base64 import b64encode
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import httpx
import pytest

from deploy.client import Client
from tests.access_table import COLUMNS, STATUSES, TwoUsers, User, send_to
from tests.response_checks import assert_challenge, assert_problem
from tests.upload_requests import FORM_TYPE, TINY_WAV, FormPart, audio, basic, bearer, make_form

# The gateway's own routes accept any host and have a 405 of their own (test_gateway.py).
LINK = re.compile(r"/(record|listen(\.png)?)\?")
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


def make_users(client: Client) -> TwoUsers:
    owner, other = client.create_user("Owner"), client.create_user("Other")
    record, _ = (
        client.upload_stream([TINY_WAV], user["token"], keep_original=True) for user in (owner, other)
    )
    return TwoUsers(owner, record, other)


@pytest.fixture
def users(client: Client) -> TwoUsers:
    """Users for one test, which may change them."""
    return make_users(client)


@pytest.fixture(scope="module")
def lasting_users(base_url: str) -> TwoUsers:
    """Users for all tests that only read, or whose requests are refused."""
    with Client(base_url) as client:
        return make_users(client)


def act_as(client: Client, users: TwoUsers, column: str) -> User:
    """Brings about the state that the column names, and returns the user that sends the request."""
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
    """Checks that a response is a problem and returns it; after a HEAD, checks the headers."""
    if response.request.method != "HEAD":
        return assert_problem(response, status, name, says)
    assert (response.status_code, response.content) == (status, b"")
    assert response.headers["Content-Type"] == "application/problem+json"
    return {}


def assert_status(response: httpx.Response, status: int) -> dict[str, Any]:
    """Checks status and headers of a response; returns a problem without its request id."""
    assert response.status_code == status, response.content[:500]
    assert ("WWW-Authenticate" in response.headers) == (status == 401)
    if status == 401:
        assert_challenge(response)
    if status < 300:
        path = response.url.path
        kinds = {
            "/record": "audio/mpeg",
            "/records/original": "audio/wav",
            "/listen": "text/html; charset=utf-8",
            "/listen.png": "image/png",
        }
        kind = kinds.get(re.sub("/[0-9a-f-]{36}", "", path), "application/json")
        assert response.headers.get("Content-Type") == (None if status == 204 else kind)
        return {}
    problem = assert_refused(response, status, PROBLEMS[status])
    return {member: value for member, value in problem.items() if member != "request_id"}


def problem_of_unknown_user(client: Client, scheme: Callable[[User], dict[str, str]]) -> dict[str, Any]:
    """The problem for credentials that never existed."""
    stranger = {"id": str(uuid4()), "token": str(uuid4())}
    return assert_status(client.http.get("/users/me", headers=scheme(stranger)), 401)


@pytest.mark.parametrize("scheme", [bearer, basic])
@pytest.mark.parametrize("column", ["owner", "other", "wrong", "rotated", "deleted"])
@pytest.mark.parametrize("route", STATUSES)
def test_each_user_gets_the_status_in_the_table(
    client: Client, lasting_users: TwoUsers, route: str, column: str, scheme: Callable[[User], dict[str, str]]
) -> None:
    only_reads = route.startswith(("GET", "HEAD")) and column not in ("rotated", "deleted")
    users = lasting_users if only_reads else make_users(client)
    status = STATUSES[route][column]
    problem = assert_status(send_to(client, route, users, scheme(act_as(client, users, column))), status)
    if problem and status == 401:
        # The problem does not tell whether the user exists or once existed.
        assert problem == problem_of_unknown_user(client, scheme)
    if problem and status == 404:
        absent = users._replace(record={"id": str(uuid4())})
        assert problem == assert_status(send_to(client, route, absent, scheme(users.other)), 404)
    if column not in ("owner", "deleted"):
        assert_untouched(client, users)


@pytest.mark.parametrize("route", STATUSES)
def test_missing_and_malformed_credentials_get_the_status_in_the_table(
    client: Client, lasting_users: TwoUsers, route: str
) -> None:
    for column, given in [("nobody", None), *(("malformed", each) for each in MALFORMED)]:
        headers = {} if given is None else {"Authorization": given.encode("latin-1")}
        # An empty Authorization header counts as none.
        status = STATUSES[route][column if given else "nobody"]
        assert_status(send_to(client, route, lasting_users, headers), status)
    assert_untouched(client, lasting_users)


def assert_untouched(client: Client, users: TwoUsers) -> None:
    """Checks that the owner's record is still there."""
    assert client.http.head(users.record["url"]).status_code == 200


@pytest.mark.parametrize("column", COLUMNS)
def test_credentials_in_a_form_get_the_status_of_those_in_a_header(
    client: Client, users: TwoUsers, column: str
) -> None:
    user = act_as(client, users, column)
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
        assert problem == problem_of_unknown_user(client, basic)


@pytest.mark.parametrize(
    "path",
    [
        "/record?id={record}&user={user}",
        "/listen?id={record}&user={user}",
        "/listen.png?id={record}&user={user}",
        "/records/{record}/waveform?user={user}",
    ],
)
def test_every_wrong_link_gets_the_same_response(client: Client, users: TwoUsers, path: str) -> None:
    owner, other, unknown = users.owner["id"], users.other["id"], uuid4()
    record, absent = users.record["id"], uuid4()
    pairs = [(record, other), (record, unknown), (absent, owner), (absent, unknown)]
    responses = [client.http.get(path.format(record=each, user=user)) for each, user in pairs]
    client.http.delete("/users/me", headers=bearer(users.owner)).raise_for_status()
    responses.append(client.http.get(path.format(record=record, user=owner)))
    problems = [assert_status(response, 404) for response in responses]
    assert problems == [problems[0]] * 5


@pytest.mark.parametrize("route", [route for route in STATUSES if route not in HEALTH])
def test_every_route_refuses_an_unknown_host(client: Client, lasting_users: TwoUsers, route: str) -> None:
    response = send_to(client, route, lasting_users, {**bearer(lasting_users.owner), "Host": "evil.example"})
    assert_refused(response, 421, "unknown-host", "ALLOWED_HOSTS")
    assert_untouched(client, lasting_users)


@pytest.mark.parametrize("route", STATUSES)
def test_every_route_refuses_headers_over_the_limit(
    client: Client, lasting_users: TwoUsers, route: str
) -> None:
    headers = {**bearer(lasting_users.owner), **{f"X-{number}": "x" * 8000 for number in range(5)}}
    assert_status(send_to(client, route, lasting_users, headers), 400)
    assert_untouched(client, lasting_users)


@pytest.mark.parametrize(
    "route",
    [route for route in STATUSES if route not in (*HEALTH, "POST /records") and not LINK.search(route)],
)
def test_every_route_but_a_link_refuses_an_unknown_parameter(
    client: Client, lasting_users: TwoUsers, route: str
) -> None:
    query = ("&" if "?" in route else "?") + "confirm=no"
    # A link's user and other credentials exclude each other.
    headers = {} if "?" in route else bearer(lasting_users.owner)
    response = send_to(client, route + query, lasting_users, headers)
    assert_refused(response, 400, "invalid-request", "'confirm'")
    assert_untouched(client, lasting_users)
    assert client.http.get("/users/me", headers=bearer(lasting_users.owner)).status_code == 200


ALLOWED = {
    path: {route.split()[0] for route in STATUSES if route.endswith(f" {path}")} | {"OPTIONS"}
    for path in dict.fromkeys(route.split()[1] for route in STATUSES if route not in HEALTH)
}


@pytest.mark.parametrize("path", ALLOWED)
def test_other_methods_are_refused_and_the_allowed_ones_are_named(
    client: Client, lasting_users: TwoUsers, path: str
) -> None:
    options = send_to(client, f"OPTIONS {path}", lasting_users, {})
    assert options.status_code == 204
    assert {*options.headers["Allow"].split(", ")} == ALLOWED[path]
    for method in sorted({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "BREW"} - ALLOWED[path]):
        response = send_to(client, f"{method} {path}", lasting_users, bearer(lasting_users.owner))
        assert {*response.headers["Allow"].split(", ")} == ALLOWED[path], method
        if method == "HEAD":
            assert response.status_code == 405
            assert response.headers["Content-Type"] == "application/problem+json"
        else:
            # nginx refuses these two methods, and its problem does not name them.
            named = () if method in ("TRACE", "BREW") else (method,)
            assert_problem(response, 405, "method-not-allowed", *named)
    assert_untouched(client, lasting_users)
