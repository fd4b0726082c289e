"""A service that is stopped lets its requests end, and responds to those that take too long."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from threading import Thread
from uuid import UUID

import pytest

from deploy.client import Client
from deploy.local.ports import LOOPBACK, Ports, is_free
from deploy.local.stack import Stack
from tests.integration.records_service import open_stack_service
from tests.integration.waiting import MAX_WAIT_SECONDS, wait_until, wait_until_async
from tests.raw_connection import open_raw_connection
from tests.response_checks import assert_problem
from tests.stacks import temporary_stack
from tests.upload_requests import TINY_WAV, WAV_TYPE, bearer, make_bare_upload


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """A stack whose services give up their requests a second after SIGTERM."""
    with temporary_stack({"SHUTDOWN_SECONDS": "21"}) as stack:
        yield stack


async def test_an_upload_that_outlasts_the_end_of_the_service_is_503_and_leaves_nothing(
    stack: Stack,
) -> None:
    with Client(stack.base_url) as client, open_raw_connection(stack.base_url) as upload:
        user = client.create_user("Test")
        headers = {**bearer(user), **WAV_TYPE, "Idempotency-Key": "a"}
        upload.send(make_bare_upload(stack.base_url, user, {"Idempotency-Key": "a"})[:-1])
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
        assert client.http.post("/records", content=TINY_WAV, headers=headers).status_code == 201


async def test_uploads_that_outlast_the_end_of_the_stack_are_503(stack: Stack) -> None:
    with ExitStack() as closer:
        user = closer.enter_context(Client(stack.base_url)).create_user("Test")
        uploads = [closer.enter_context(open_raw_connection(stack.base_url)) for _ in range(8)]
        for upload in uploads:
            upload.send(make_bare_upload(stack.base_url, user)[:-1])
        async with open_stack_service(stack) as service:

            async def all_are_under_way() -> bool:
                return len(await service.rows(UUID(user["id"]))) == len(uploads)

            await wait_until_async(all_are_under_way)
        stopping = Thread(target=stack.stop)
        stopping.start()
        for upload in uploads:
            response = upload.read_response("POST")
            assert_problem(response, 503, "unavailable", "The service is stopping and gave up this request")
    stopping.join()
    assert not stack.has_processes()


def test_a_service_that_is_interrupted_ends_without_a_traceback() -> None:
    port = Ports.free().users
    environment = {**os.environ, "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none", "PORT": str(port)}
    command = [sys.executable, "-m", "users"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as service:
        wait_until(lambda: not is_free(LOOPBACK, port))
        service.send_signal(signal.SIGINT)
        _, errors = service.communicate(timeout=MAX_WAIT_SECONDS)
    assert "Traceback" not in errors
    assert service.returncode == 0
