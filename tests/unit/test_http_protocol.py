"""The HTTP protocol, which relies on internals of one version of uvicorn."""

import asyncio
import json
import socket
from importlib.metadata import version
from typing import Any

from uvicorn import Config
from uvicorn.server import ServerState

from common.http_protocol import CYCLE_INTERNALS, PROTOCOL_INTERNALS, UVICORN_VERSION, HttpProtocol


async def never_answer(_scope: Any, receive: Any, _send: Any) -> None:
    """An application that reads the body until the client has disconnected."""
    while (await receive())["type"] != "http.disconnect":
        pass


class Connection:
    """A real connection to the protocol, which serves `never_answer`."""

    async def __aenter__(self) -> "Connection":
        ours, theirs = socket.socketpair()
        self.state = ServerState()
        config = Config(never_answer, log_config=None)
        config.load()
        self.protocol = HttpProtocol(config=config, server_state=self.state, app_state={})
        await asyncio.get_running_loop().connect_accepted_socket(lambda: self.protocol, theirs)
        self.reader, self.writer = await asyncio.open_connection(sock=ours)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()
        await self.writer.wait_closed()

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def wait_for_request(self) -> None:
        async with asyncio.timeout(5):
            while self.protocol.cycle is None:  # noqa: ASYNC110 (uvicorn offers no event)
                await asyncio.sleep(0.001)

    async def read_problem(self) -> tuple[str, dict[str, Any]]:
        """Reads the head and the body of a response."""
        async with asyncio.timeout(5):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = int(head.partition("content-length: ")[2].split("\r\n")[0])
            return head, json.loads(await self.reader.readexactly(length))


HEAD = b"POST /records HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_the_installed_uvicorn_is_the_version_that_the_protocol_was_written_against() -> None:
    assert version("uvicorn") == UVICORN_VERSION, "see the docstring of common.http_protocol"


async def test_uvicorn_still_has_every_internal_that_the_protocol_uses() -> None:
    async with Connection() as connection:
        await connection.send(HEAD)
        await connection.wait_for_request()
        protocol = connection.protocol
        assert [name for name in PROTOCOL_INTERNALS if not hasattr(protocol, name)] == []
        assert [name for name in CYCLE_INTERNALS if not hasattr(protocol.cycle, name)] == []
        assert not protocol.cycle.disconnected


async def test_a_request_that_is_not_http_gets_a_problem_and_later_bytes_are_discarded() -> None:
    async with Connection() as connection:
        await connection.send(b"nonsense\r\n\r\n")
        head, problem = await connection.read_problem()
        assert head.startswith("http/1.1 400 bad request\r\n")
        assert problem["type"] == "/problems/invalid-request"
        assert f"x-request-id: {problem['request_id']}" in head
        connection.protocol.data_received(HEAD)
        assert connection.protocol.cycle is None
        assert not connection.protocol.transport.is_closing()


async def test_a_body_that_is_not_http_ends_its_request_with_a_problem() -> None:
    async with Connection() as connection:
        await connection.send(HEAD)
        await connection.wait_for_request()
        await connection.send(b"nonsense\r\n")
        _, problem = await connection.read_problem()
        assert (problem["status"], problem["type"]) == (400, "/problems/invalid-request")
        assert connection.protocol.cycle.disconnected
        async with asyncio.timeout(5):
            while connection.state.tasks:  # noqa: ASYNC110 (uvicorn offers no event)
                await asyncio.sleep(0.001)
