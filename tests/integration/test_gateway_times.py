"""The time-outs that are constants of nginx. They are shortened here, because most of them take minutes."""

import os
import select
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

import httpx
import psutil
import pytest

from deploy.local.ports import LOOPBACK
from deploy.local.stack import Stack
from tests.integration.frozen_processes import frozen_process
from tests.integration.gateway_configuration import changed_gateway
from tests.integration.new_log_lines import NewLogLines
from tests.integration.waiting import wait_until
from tests.raw_connection import RawConnection, header_lines, make_request_head, open_raw_connection
from tests.response_checks import assert_problem
from tests.upload_requests import WAV_TYPE, bearer, make_bare_upload

# The time-outs of an upload, and what they are here.
SHORTENED = {
    "client_body_timeout 60s;": "client_body_timeout 1s;",
    "proxy_send_timeout 60s;": "proxy_send_timeout 1s;",
    "proxy_read_timeout 300s;": "proxy_read_timeout 1s;",
    "lingering_timeout 10s;": "lingering_timeout 1s;",
    "lingering_time 300s;": "lingering_time 3s;",
}
# More than the buffers between the client and a service hold.
LARGE = 64 * 1024**2


def shorten(conf: str) -> str:
    for usual, short in SHORTENED.items():
        assert conf.count(usual) == 1
        conf = conf.replace(usual, short)
    return conf


@pytest.fixture(scope="module", autouse=True)
def shortened_times(stack: Stack) -> Iterator[None]:
    with changed_gateway(stack, shorten):
        yield


def begin_upload(stack: Stack, headers: dict[str, str]) -> bytes:
    lines = header_lines({**headers, **WAV_TYPE, "Content-Length": str(LARGE)})
    return make_request_head("POST", "/records", stack.base_url, *lines)


def is_closed(connection: RawConnection) -> bool:
    """Whether the connection has ended. Waits a little for that."""
    if not select.select([connection.connection], [], [], 0.1)[0]:
        return False
    try:
        return not connection.connection.recv(65536)
    except ConnectionError:
        return True


def is_held(connection: RawConnection) -> bool:
    """Whether nginx still has its end of the connection, which it may have closed for sending."""
    client = connection.connection.getsockname()
    return any(each.raddr == client and each.pid for each in psutil.net_connections("tcp"))


def test_an_upload_that_pauses_loses_its_connection(stack: Stack, owner: dict[str, Any]) -> None:
    log = NewLogLines(stack, "gateway")
    with open_raw_connection(stack.base_url) as upload:
        upload.send(begin_upload(stack, bearer(owner)) + b"RIFF")
        assert upload.connection.recv(1) == b""
    # It gets no response. Every line of the log is JSON nevertheless.
    wait_until(lambda: [line["status"] for line in log.lines() if line["path"] == "/records"] == [408])


def test_a_service_that_takes_nothing_more_of_an_upload_is_503(stack: Stack, owner: dict[str, Any]) -> None:
    with frozen_process(stack, "records"), open_raw_connection(stack.base_url) as upload:
        upload.send(begin_upload(stack, bearer(owner)))
        for _ in range(LARGE // 65536):
            if select.select([upload.connection], [], [], 0)[0]:
                break
            upload.send(bytes(65536))
        assert_problem(upload.read_response("POST"), 503, "unavailable", "does not answer")


def test_a_service_that_does_not_answer_an_upload_is_503(stack: Stack, owner: dict[str, Any]) -> None:
    with frozen_process(stack, "records"), open_raw_connection(stack.base_url) as upload:
        upload.send(make_bare_upload(stack.base_url, owner))
        assert_problem(upload.read_response("POST"), 503, "unavailable", "does not answer")


@pytest.mark.parametrize("goes_on", [False, True])
def test_a_client_may_go_on_sending_after_a_refusal_only_for_a_while(stack: Stack, goes_on: bool) -> None:
    with open_raw_connection(stack.base_url) as upload:
        upload.send(begin_upload(stack, {"Authorization": "Bearer wrong"}) + b"RIFF")
        assert upload.read_response("POST").status_code == 401
        assert is_held(upload)

        def has_gone() -> bool:
            if goes_on:
                with suppress(ConnectionError):
                    upload.send(b"\0")
            return not is_held(upload)

        wait_until(has_gone)


def test_a_service_that_accepts_no_connection_is_503(stack: Stack, http: httpx.Client) -> None:
    with ExitStack() as opened:
        full = opened.enter_context(socket.create_server((LOOPBACK, 0), backlog=0))
        while True:
            waiting = opened.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
            if not select.select([], [waiting], [], 0.5)[1]:
                break
        own, hung = f"{LOOPBACK}:{stack.ports.users}", f"{LOOPBACK}:{full.getsockname()[1]}"
        opened.enter_context(changed_gateway(stack, lambda conf: conf.replace(own, hung)))
        assert_problem(http.get("/users/me"), 503, "unavailable", "does not answer")


def test_a_gateway_that_is_stopped_does_not_wait_for_ever_for_its_requests(
    stack: Stack, owner: dict[str, Any]
) -> None:
    with (
        changed_gateway(stack, lambda conf: conf.replace("_timeout 45s;", "_timeout 1s;"), "nginx.conf"),
        open_raw_connection(stack.base_url) as upload,
    ):
        upload.send(begin_upload(stack, bearer(owner)) + b"RIFF")
        os.kill(stack.pid("gateway"), signal.SIGQUIT)
        with suppress(ConnectionError):
            while not is_closed(upload):
                upload.send(b"\0")
