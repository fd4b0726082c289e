"""Many connections and requests of one address cost nobody else anything."""

import re
import select
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import httpx
import psutil
import pytest

from deploy.client import load_certificates
from deploy.local.ports import LOOPBACK
from deploy.local.stack import Stack
from tests.integration.frozen_processes import frozen_process
from tests.integration.gateway_configuration import changed_gateway
from tests.integration.new_log_lines import NewLogLines
from tests.integration.recordings import upload_recording
from tests.integration.waiting import MAX_WAIT_SECONDS, wait_until
from tests.raw_connection import (
    RawConnection,
    header_lines,
    make_request_head,
    many_connections,
    open_raw_connection,
)
from tests.response_checks import assert_problem
from tests.stacks import temporary_stack
from tests.upload_requests import (
    BOUNDARY,
    FORM_TYPE,
    NOBODY,
    audio,
    bearer,
    make_form,
    token,
    user_id,
)

ATTACKER = "127.0.0.66"
PROXY = "127.0.0.77"
# More than nginx's default of 1,024 connections for each of two workers, each with its connection to records.
SLOW_CONNECTIONS = 3000
POOL_SIZE = 2


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    settings = {
        "REQUESTS_PER_ADDRESS": "40",
        "UPLOADS_PER_ADDRESS": "10",
        "SIGN_UPS_PER_MINUTE": "30",
        "FAILURES_PER_MINUTE": "20",
        "DATABASE_POOL_SIZE": str(POOL_SIZE),
        "TRUSTED_PROXY": PROXY,
    }
    with temporary_stack(settings) as stack:
        yield stack


def connect(stack: Stack, address: str = ATTACKER) -> socket.socket:
    """Opens a connection from one address of this machine."""
    connection = socket.create_connection((LOOPBACK, stack.ports.gateway), MAX_WAIT_SECONDS, (address, 0))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


@contextmanager
def client_behind_proxy(stack: Stack, address: str) -> Iterator[httpx.Client]:
    """A client with this address, whose requests come from the trusted proxy."""
    with httpx.Client(
        base_url=stack.base_url,
        headers={"X-Forwarded-For": address},
        transport=httpx.HTTPTransport(verify=load_certificates(), local_address=PROXY),
        trust_env=False,
    ) as client:
        yield client


def begin_form(stack: Stack, sent: bytes = f"--{BOUNDARY}\r\n".encode()) -> bytes:
    """Returns the start of an upload that sends its form byte by byte."""
    lines = header_lines({**FORM_TYPE, "Content-Length": "1000000"})
    return make_request_head("POST", "/records", stack.base_url, *lines) + sent


def test_thousands_of_slow_connections_leave_room_for_everybody_else(
    stack: Stack, owner: dict[str, Any], http: httpx.Client
) -> None:
    record = upload_recording(stack, owner)
    with many_connections(), ExitStack() as opened:
        for number in range(SLOW_CONNECTIONS):
            connection = opened.enter_context(connect(stack))
            # Half of them send a part of their head, the others a part of a form.
            connection.sendall(begin_form(stack) if number % 2 else b"GET /record HTTP/1.1\r\nHost: a\r\n")
        for _ in range(3):
            assert http.get("/healthz").status_code == 200
            assert http.get(record["url"]).status_code == 200
            assert upload_recording(stack, owner)["url"]


@pytest.fixture(scope="module")
def pausing_clients(stack: Stack) -> Iterator[list[RawConnection]]:
    """Clients that pause in their head and in a small body."""
    head = make_request_head("POST", "/users", stack.base_url, "Content-Length: 10")
    with open_raw_connection(stack.base_url) as in_head, open_raw_connection(stack.base_url) as in_body:
        in_head.send(head[:-2])
        in_body.send(head + b"{")
        yield [in_head, in_body]


# nginx waits ten seconds for the services and for the clients, so both wait at the same time.
@pytest.mark.usefixtures("pausing_clients")
def test_services_that_hang_are_503_soon(stack: Stack, owner: dict[str, Any], http: httpx.Client) -> None:
    record = upload_recording(stack, owner)
    # No request needs both services.
    paths = [record["url"], "/records", "/openapi/users.json", "/users/me"]

    def get(path: str) -> httpx.Response:
        # The client gives up after less time than nginx would wait by default.
        return http.get(path, auth=(owner["id"], owner["token"]), timeout=30)

    with (
        frozen_process(stack, "records"),
        frozen_process(stack, "users"),
        ThreadPoolExecutor(len(paths)) as threads,
    ):
        for response in threads.map(get, paths):
            assert_problem(response, 503, "unavailable", "A service behind the gateway does not answer")
    for path in paths:
        assert get(path).status_code == 200


def test_a_client_that_pauses_in_its_head_or_in_a_small_body_does_not_hold_its_connection(
    pausing_clients: list[RawConnection],
) -> None:
    for each in pausing_clients:
        assert each.connection.recv(1) == b""


def begin_request(stack: Stack) -> bytes:
    """Returns a request whose small body does not come."""
    return make_request_head("POST", "/users/me/token", stack.base_url, "Content-Length: 10")


@pytest.mark.parametrize(("begin", "limit"), [(begin_form, 10), (begin_request, 40)])
def test_requests_and_uploads_of_one_address_are_refused_above_their_limits_and_other_addresses_are_not(
    stack: Stack, owner: dict[str, Any], begin: Callable[[Stack], bytes], limit: int
) -> None:
    with ExitStack() as opened:
        connections = [opened.enter_context(connect(stack, f"127.0.0.{limit}")) for _ in range(limit + 5)]
        for connection in connections:
            connection.sendall(begin(stack))
        # nginx has several workers, so the first connections need not be the ones that are accepted.
        for _ in range(5):
            (refused, *_), _, _ = select.select(connections, [], [], MAX_WAIT_SECONDS)
            connections.remove(refused)
            response = refused.recv(4096)
            assert response.startswith(b"HTTP/1.1 429")
            assert b'"type":"/problems/too-many-requests"' in response
            assert b"\r\nRetry-After: 5\r\n" in response
        assert upload_recording(stack, owner)["url"]


def test_uploads_without_credentials_of_one_address_leave_slots_to_other_addresses(
    stack: Stack, owner: dict[str, Any], http: httpx.Client
) -> None:
    audio_first = make_form(audio(), user_id(owner), token(owner))
    without_credentials = begin_form(stack, audio_first[:1000])
    with ExitStack() as opened:
        connections = [opened.enter_context(connect(stack)) for _ in range(5)]
        for connection in connections:
            connection.sendall(without_credentials)
        (refused, *_), _, _ = select.select(connections, [], [], MAX_WAIT_SECONDS)
        response = refused.recv(4096)
        assert response.startswith(b"HTTP/1.1 503")
        assert b"too many sent their audio before credentials" in response
        assert http.post("/records", content=audio_first, headers=FORM_TYPE).status_code == 201


def test_sign_ups_of_one_address_are_refused_above_the_limit_and_other_addresses_are_not(
    stack: Stack,
) -> None:
    def sign_ups(address: str, count: int) -> list[httpx.Response]:
        transport = httpx.HTTPTransport(verify=load_certificates(), local_address=address)
        with httpx.Client(base_url=stack.base_url, transport=transport, trust_env=False) as client:
            return [client.post("/users", json={"name": "Test"}) for _ in range(count)]

    responses = sign_ups("127.0.0.67", 60)
    statuses = Counter(response.status_code for response in responses)
    assert statuses.keys() == {201, 429}
    # 31 at once, and one more every two seconds.
    assert statuses[201] >= 31
    assert_problem(responses[-1], 429, "too-many-requests", "signs up too often; try again in 5 seconds")
    assert responses[-1].headers["Retry-After"] == "5"
    assert sign_ups("127.0.0.68", 1)[0].status_code == 201


def test_addresses_of_one_ipv6_network_count_together_and_ipv4_addresses_alone(stack: Stack) -> None:
    def sign_up(address: str) -> int:
        with client_behind_proxy(stack, address) as client:
            return client.post("/users", json={"name": "Test"}).status_code

    statuses = [sign_up(f"2001:db8:0:a::{number:x}") for number in range(60)]
    assert statuses[:31] == [201] * 31
    assert 429 in statuses[31:]
    assert sign_up("2001:db8:0:b::1") == 201
    # A proxy that listens on both families writes the addresses of IPv4 clients like this.
    assert {sign_up(f"::ffff:192.0.2.{number}") for number in range(60)} == {201}


UNKNOWN = {
    "wrong credentials at users": ("/users/me", 401),
    "wrong credentials at records": ("/records", 401),
    "unknown links": (f"/record?id={NOBODY}&user={NOBODY}", 404),
}


@pytest.mark.parametrize("what", UNKNOWN)
def test_an_address_may_fail_only_so_often_and_right_requests_still_work(
    stack: Stack, owner: dict[str, Any], what: str
) -> None:
    path, status = UNKNOWN[what]
    wrong = bearer({"token": NOBODY})
    record = upload_recording(stack, owner)
    # A /64 of its own, in which each request has another address.
    network = f"2001:db8:1:{[*UNKNOWN].index(what)}"
    for number in range(20):
        with client_behind_proxy(stack, f"{network}::{number:x}") as client:
            assert client.get(path, headers=wrong).status_code == status
    with client_behind_proxy(stack, f"{network}::ffff") as client:
        refusal = client.get(path, headers=wrong)
        assert_problem(refusal, 429, "too-many-requests", "more than 20 times in 60 seconds")
        assert refusal.headers["Retry-After"] == "60"
        for right in ("/users/me", "/records", record["url"]):
            assert client.get(right, headers=bearer(owner)).status_code == 200
    with client_behind_proxy(stack, "192.0.2.9") as client:
        assert client.get(path, headers=wrong).status_code == status


def test_an_instance_opens_no_more_connections_to_postgresql_than_its_pool_has(
    stack: Stack, owner: dict[str, Any], http: httpx.Client
) -> None:
    record = upload_recording(stack, owner)

    def get(path: str) -> int:
        return http.get(path, auth=(owner["id"], owner["token"])).status_code

    def count_connections(service: str) -> int:
        connections = psutil.Process(stack.pid(service)).net_connections("tcp")
        return sum(bool(each.raddr) and each.raddr.port == stack.ports.postgres for each in connections)

    with ThreadPoolExecutor(12) as threads:
        paths = [record["url"], "/records", "/users/me"] * 20
        assert set(threads.map(get, paths)) == {200}
    assert 0 < count_connections("users") <= POOL_SIZE
    assert POOL_SIZE < count_connections("records") <= 2 * POOL_SIZE


def test_the_log_says_when_connections_run_out_and_nothing_of_a_request(stack: Stack) -> None:
    log = NewLogLines(stack, "gateway")
    received = bytearray()

    def receive() -> bytearray:
        for connection in select.select(connections, [], [], 0)[0]:
            with suppress(OSError):
                received.extend(connection.recv(65536))
        return received

    def leave_few_connections(conf: str) -> str:
        return re.sub(r"worker_connections \d+", "worker_connections 32", conf)

    with changed_gateway(stack, leave_few_connections, "nginx.conf"), ExitStack() as opened:
        connections = [opened.enter_context(connect(stack)) for _ in range(80)]
        # nginx closes those that it has no room for. Of the others, only some get one to records, which
        # does not answer, so that they need their connections at the same time.
        opened.enter_context(frozen_process(stack, "records"))
        for end in (b"GET /record?id=private HTTP/1.1\r\nHost: a\r\n", b"\r\n"):
            for connection in connections:
                with suppress(OSError):
                    connection.sendall(end)
        wait_until(lambda: "32 worker_connections are not enough" in log.text())
        wait_until(lambda: b"HTTP/1.1 503 " in receive())
        assert b"HTTP/1.1 500 " not in received
        assert b"<html" not in received
        assert "private" not in log.text()
