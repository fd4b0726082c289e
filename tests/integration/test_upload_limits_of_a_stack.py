"""The limits of uploads, as clients of a stack see them."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from uuid import UUID

import httpx
import pytest

from deploy.client import Client
from deploy.local.ports import LOOPBACK
from deploy.local.stack import Stack
from tests.integration.gateway_configuration import changed_gateway
from tests.integration.instances import Instance
from tests.integration.records_service import RecordsService
from tests.integration.waiting import wait_until_async
from tests.raw_connection import RawConnection, header_lines, make_request_head, open_raw_connection
from tests.response_checks import assert_problem
from tests.upload_requests import TINY_WAV, WAV_TYPE, bearer

DEFAULT_UPLOADS_PER_USER = 8


def begin_upload(
    connection: RawConnection, base_url: str, user: dict[str, Any], sent_bytes: int = len(TINY_WAV) - 1
) -> None:
    """Sends the first bytes of an upload, by default all but the last."""
    lines = header_lines({**bearer(user), **WAV_TYPE, "Content-Length": str(len(TINY_WAV))})
    connection.send(make_request_head("POST", "/records", base_url, *lines) + TINY_WAV[:sent_bytes])


async def test_a_user_with_as_many_uploads_as_allowed_gets_429_and_others_go_on(
    stack: Stack, stack_service: RecordsService, http: httpx.Client, client: Client
) -> None:
    user, other = client.create_user("Many"), client.create_user("Other")

    async def have_all_begun() -> bool:
        return len(await stack_service.rows(UUID(user["id"]))) == DEFAULT_UPLOADS_PER_USER

    def post(user: dict[str, Any]) -> httpx.Response:
        return http.post("/records", content=TINY_WAV, headers={**bearer(user), **WAV_TYPE})

    with ExitStack() as opened:
        connections = [
            opened.enter_context(open_raw_connection(stack.base_url)) for _ in range(DEFAULT_UPLOADS_PER_USER)
        ]
        for connection in connections:
            begin_upload(connection, stack.base_url, user)
        await wait_until_async(have_all_begun)
        refusal = post(user)
        assert_problem(refusal, 429, "too-many-uploads", "8 uploads under way, the limit of one user")
        assert refusal.headers["Retry-After"] == "5"
        assert post(other).status_code == 201
        for connection in connections:
            connection.send(TINY_WAV[-1:])
            assert connection.read_response("POST").status_code == 201
    assert post(user).status_code == 201


@pytest.fixture(scope="module")
def impatient_service(stack: Stack) -> Iterator[None]:
    """Behind the gateway is a service that takes one upload at a time, and waits a second for its bytes."""
    instance = Instance(stack, "records", {"SLOW_UPLOAD_SECONDS": "1", "MAX_UPLOADS": "1"})
    usual, impatient = f"{LOOPBACK}:{stack.ports.records}", f"{LOOPBACK}:{instance.port}"
    instance.start()
    try:
        with changed_gateway(stack, lambda conf: conf.replace(usual, impatient)):
            yield
    finally:
        instance.stop()


@pytest.mark.usefixtures("impatient_service")
@pytest.mark.parametrize("sent_bytes", [0, 1000])
def test_a_client_that_stops_sending_gets_408_and_its_slot_is_free_again(
    stack: Stack, client: Client, sent_bytes: int
) -> None:
    user = client.create_user("Slow")
    with open_raw_connection(stack.base_url) as connection:
        begin_upload(connection, stack.base_url, user, sent_bytes)
        response = connection.read_response("POST")
        assert_problem(response, 408, "request-timeout", f"only {sent_bytes} bytes of the upload arrived")
    assert client.upload_stream([TINY_WAV], user["token"])["url"]
