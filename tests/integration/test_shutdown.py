"""A service that is stopped lets its requests end, and responds to those that take too long."""

from collections.abc import Iterator
from threading import Thread
from uuid import UUID

import pytest

from deploy.client import Client
from deploy.local.stack import Stack
from tests.integration.recordings import SMALL, make_wav
from tests.integration.records_service import open_stack_service
from tests.integration.waiting import wait_until_async
from tests.raw_connection import open_raw_connection
from tests.response_checks import assert_problem
from tests.stacks import temporary_stack
from tests.upload_requests import TINY_WAV


@pytest.fixture
def stack() -> Iterator[Stack]:
    """A stack whose services give up their requests a second after SIGTERM."""
    with temporary_stack({"SHUTDOWN_SECONDS": "1"}) as stack:
        yield stack


async def test_an_upload_that_outlasts_the_end_of_the_service_is_503_and_leaves_nothing(
    stack: Stack,
) -> None:
    with Client(stack.base_url) as client, open_raw_connection(stack.base_url) as upload:
        user = client.create_user("Test")
        wav = make_wav(SMALL)
        head = (
            f"POST /records HTTP/1.1\r\nHost: {client.http.base_url.netloc.decode()}\r\n"
            f"Authorization: Bearer {user['token']}\r\nIdempotency-Key: a\r\nContent-Type: audio/wav\r\n"
            f"Content-Length: {len(wav)}\r\n\r\n"
        )
        upload.send(head.encode() + wav[: len(wav) // 2])
        async with open_stack_service(stack) as service:

            async def rows() -> list[str]:
                return [row.state for row in await service.rows(UUID(user["id"]))]

            await wait_until_async(rows)
            stopping = Thread(target=stack.stop_process, args=["records"])
            stopping.start()
            response = upload.read_response("POST")
            assert_problem(response, 503, "unavailable", "The service is stopping and gave up this request")
            assert response.headers["Retry-After"] == "5"
            stopping.join()
            assert await rows() == []
        stack.start_process("records")
        # The key is free again.
        headers = {"Authorization": f"Bearer {user['token']}", "Idempotency-Key": "a"}
        again = client.http.post(
            "/records", content=TINY_WAV, headers={**headers, "Content-Type": "audio/wav"}
        )
        assert again.status_code == 201
