"""Without nginx (DOWNLOADS=stream) a download is answered as it is by the gateway."""

import hashlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psutil
import pytest

from deploy.client import Client
from deploy.local.ports import LOOPBACK, free_ports
from deploy.local.stack import Stack
from tests.integration.reading import until
from tests.integration.sounds import LARGE, SMALL, wav_of

# What a cache or a player goes by; the rest (Server, Date, Connection, X-Request-ID) is each one's own.
TELLING = {
    "content-type",
    "content-length",
    "content-range",
    "accept-ranges",
    "etag",
    "last-modified",
    "cache-control",
    "x-content-type-options",
    "vary",
    "content-encoding",
    "transfer-encoding",
    "retry-after",
}


class Service(NamedTuple):
    """A service that runs for itself."""

    port: int
    process: psutil.Process


@pytest.fixture(scope="module")
def service(stack: Stack) -> Iterator[Service]:
    """A records service of its own, with no gateway in front of it."""
    (port,) = free_ports(1)
    environment = {**os.environ, **stack.environment("records"), "DOWNLOADS": "stream", "PORT": str(port)}
    command = [sys.executable, "-m", "records"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
        try:
            until(lambda: answers(port))
            yield Service(port, psutil.Process(process.pid))
        finally:
            process.terminate()
            process.wait(60)


def answers(port: int) -> bool:
    try:
        return httpx.get(f"http://{LOOPBACK}:{port}/readyz", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def direct(service: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://{LOOPBACK}:{service.port}", trust_env=False) as direct:
        yield direct


@pytest.fixture(scope="module")
def records(stack: Stack) -> dict[str, dict[str, Any]]:
    with Client(stack.base_url) as client:
        user = client.create_user("Streamed")
        return {kind: client.upload_stream(iter([wav_of(kind)]), user["token"]) for kind in (SMALL, LARGE)}


def path_of(record: dict[str, Any]) -> str:
    return f"/record?id={record['id']}&user={record['user_id']}"


def telling(response: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in response.headers.items() if name in TELLING}


class Question(NamedTuple):
    """A request for a record, in which ETAG stands for its entity tag, and the status of its answer."""

    method: str
    headers: dict[str, str]
    status: int


@pytest.mark.parametrize("kind", [SMALL, LARGE])
@pytest.mark.parametrize(
    "question",
    [
        Question("GET", {}, 200),
        Question("HEAD", {}, 200),
        Question("GET", {"Range": "bytes=0-1"}, 206),
        Question("GET", {"Range": "bytes=1000-4999"}, 206),
        Question("GET", {"Range": "bytes=7-"}, 206),
        Question("GET", {"Range": "bytes=-100"}, 206),
        Question("GET", {"Range": "bytes=0-999999999"}, 206),
        Question("HEAD", {"Range": "bytes=0-1"}, 200),
        Question("GET", {"Range": "bytes=999999999-"}, 416),
        Question("GET", {"Range": "bytes=0-1,5-6"}, 200),
        Question("GET", {"Range": "bytes=0-1", "If-Range": '"other"'}, 200),
        Question("GET", {"Range": "bytes=0-1", "If-Range": "ETAG"}, 206),
        Question("GET", {"If-None-Match": "ETAG"}, 304),
        Question("HEAD", {"If-None-Match": "ETAG"}, 304),
        Question("GET", {"If-None-Match": '"other"'}, 200),
        Question("GET", {"If-Modified-Since": "Fri, 01 Jan 2100 00:00:00 GMT"}, 304),
        Question("GET", {"If-Match": '"other"'}, 412),
    ],
    ids=lambda question: " ".join([question.method, *map(": ".join, question.headers.items())]),
)
def test_the_service_alone_answers_as_the_gateway_does(
    client: Client, direct: httpx.Client, records: dict[str, dict[str, Any]], kind: str, question: Question
) -> None:
    record = records[kind]
    etag = f'"{record["sha256"]}"'
    headers = {name: value.replace("ETAG", etag) for name, value in question.headers.items()}
    headers["Accept-Encoding"] = "identity"
    through = client.http.request(question.method, path_of(record), headers=headers)
    alone = direct.request(question.method, path_of(record), headers=headers)
    assert (through.status_code, alone.status_code) == (question.status, question.status)
    if question.status < 400:
        assert telling(alone) == telling(through)
        assert alone.content == through.content
        return
    problems = [response.json() for response in (alone, through)]
    assert [problem.pop("request_id") for problem in problems] == [
        response.headers["x-request-id"] for response in (alone, through)
    ]
    assert problems[0] == problems[1]
    assert telling(alone).get("content-range") == telling(through).get("content-range")


def test_the_bytes_are_those_that_were_stored(
    direct: httpx.Client, records: dict[str, dict[str, Any]]
) -> None:

    for record in records.values():
        answer = direct.get(path_of(record))
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "audio/mpeg"
        assert hashlib.sha256(answer.content).hexdigest() == record["sha256"]


def test_somebody_else_s_record_is_not_found_either_way(
    client: Client, direct: httpx.Client, records: dict[str, dict[str, Any]]
) -> None:
    stranger = client.create_user("Stranger")
    path = f"/record?id={records[SMALL]['id']}&user={stranger['id']}"
    answers = [each.get(path) for each in (client.http, direct)]
    assert [answer.status_code for answer in answers] == [404, 404]
    assert answers[0].json()["type"] == answers[1].json()["type"] == "/problems/unknown-record"


def connections_to_store(stack: Stack) -> dict[int, int]:
    """Every connection to MinIO by its port on our side, with how many bytes wait there to be read."""
    found = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        ours, theirs, _, queues = line.split()[1:5]
        if int(theirs.rpartition(":")[2], 16) == stack.ports.minio:
            found[int(ours.rpartition(":")[2], 16)] = int(queues.rpartition(":")[2], 16)
    return found


def test_listeners_who_leave_early_leave_no_connection_to_the_store_behind(
    stack: Stack, service: Service, direct: httpx.Client, records: dict[str, dict[str, Any]]
) -> None:
    path = path_of(records[LARGE])
    before = set(connections_to_store(stack))
    held: set[int] = set()
    for _ in range(3):
        leaving = []
        for _ in range(20):
            connection = socket.socket()
            # So small that most of the 6.1 MB are still on their way when the listener goes.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect((LOOPBACK, service.port))
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
            leaving.append(connection)
        assert any(connections_to_store(stack).values())
        held |= set(connections_to_store(stack)) - before
        for connection in leaving:
            connection.close()
        until(lambda: not any(connections_to_store(stack).values()))
    # Closed or given back: later rounds had no need of connections beside those of the first.
    assert len(held) <= 20 + 5
    answer = direct.get(path)
    assert answer.status_code == 200
    assert len(answer.content) == records[LARGE]["size_bytes"]
