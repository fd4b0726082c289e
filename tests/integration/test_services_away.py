"""What a client sees while a service is away, and that the first request after a return is answered."""

import hashlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import pytest

from deploy.client import Client
from deploy.local.stack import Stack
from tests.access_table import STATUSES, TwoUsers, send_to
from tests.response_checks import assert_json, assert_problem
from tests.stacks import temporary_stack
from tests.upload_requests import TINY_WAV, WAV_TYPE, bearer


class Whole(NamedTuple):
    """A stack of one's own, which may be stopped, and a user of it."""

    stack: Stack
    client: Client
    user: dict[str, Any]

    def upload(self) -> dict[str, Any]:
        return self.client.upload_stream([TINY_WAV], self.user["token"])

    def post(self) -> httpx.Response:
        headers = {**WAV_TYPE, **bearer(self.user)}
        return self.client.http.post("/records", content=TINY_WAV, headers=headers)

    def assert_link_is_good(self, record: dict[str, Any]) -> None:
        response = self.client.http.get(record["url"])
        assert (response.status_code, response.headers["Content-Type"]) == (200, "audio/mpeg")
        assert hashlib.sha256(response.content).hexdigest() == record["sha256"]


@pytest.fixture(scope="module")
def whole() -> Iterator[Whole]:
    with temporary_stack() as stack, Client(stack.base_url) as client:
        yield Whole(stack, client, client.create_user("Owner"))


@pytest.fixture
def without(whole: Whole, request: pytest.FixtureRequest) -> Iterator[Whole]:
    """The stack with one part stopped, which is brought back afterwards."""
    whole.stack.stop_part(request.param)
    try:
        yield whole
    finally:
        whole.stack.start_part(request.param)


@pytest.fixture
def record(whole: Whole) -> dict[str, Any]:
    """A record from before the part was stopped."""
    return whole.upload()


def assert_unavailable(response: httpx.Response) -> None:
    assert_problem(response, 503, "unavailable", "try again in 5 seconds")
    assert response.headers["Retry-After"] == "5"


@pytest.mark.parametrize("without", ["users"], indirect=True)
def test_without_the_users_service_records_are_still_served(record: dict[str, Any], without: Whole) -> None:
    assert_unavailable(without.client.http.post("/users", json={"name": "Ann"}))
    assert_unavailable(without.client.http.get("/readyz/users"))
    without.assert_link_is_good(record)
    without.assert_link_is_good(without.upload())


@pytest.mark.parametrize("without", ["records"], indirect=True)
def test_without_the_records_service_users_are_still_made(record: dict[str, Any], without: Whole) -> None:
    http = without.client.http
    assert_json(http.post("/users", json={"name": "Ann"}), 201)
    assert_unavailable(http.get("/readyz/records"))
    assert_unavailable(http.get(record["url"]))
    assert_unavailable(without.post())


@pytest.mark.parametrize("without", ["postgres"], indirect=True)
def test_without_postgres_nobody_is_told_anything_else(record: dict[str, Any], without: Whole) -> None:
    users = TwoUsers(without.user, record, without.user)
    for route in (route for route in STATUSES if route != "GET /healthz" and STATUSES[route]["owner"] < 300):
        response = send_to(without.client, route, users, bearer(without.user))
        assert response.status_code == 503, route
        assert response.headers["Retry-After"] == "5"
        assert response.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("part", ["postgres", "minio", "users", "records", "gateway"])
def test_the_first_request_after_a_part_is_back_is_answered(
    whole: Whole, record: dict[str, Any], part: str
) -> None:
    pid = whole.stack.pid("records")
    whole.stack.stop_part(part)
    whole.stack.start_part(part)
    whole.assert_link_is_good(record)
    whole.assert_link_is_good(whole.upload())
    assert_json(whole.client.http.post("/users", json={"name": "Ann"}), 201)
    for service in ("users", "records"):
        assert_json(whole.client.http.get(f"/readyz/{service}"), 200)
    assert (whole.stack.pid("records") == pid) == (part != "records")


@pytest.mark.parametrize("without", ["records"], indirect=True)
def test_without_the_records_service_an_upload_of_any_size_is_told_to_come_again(without: Whole) -> None:
    headers = {**WAV_TYPE, **bearer(without.user)}
    response = without.client.http.post("/records", content=bytes(1_000_000), headers=headers)
    assert_problem(response, 503, "unavailable")
    assert response.headers["Retry-After"] == "5"
