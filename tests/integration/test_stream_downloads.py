"""Without nginx (DOWNLOADS=stream) a download is answered as it is by the gateway."""

import hashlib
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psutil
import pytest

from deploy.client import Client
from deploy.local.ports import LOOPBACK, free_ports
from deploy.local.stack import Stack
from tests.acceptance.answers import assert_problem
from tests.acceptance.wire import make_head, open_wire
from tests.integration.isolated import open_inside
from tests.integration.reading import BOUND_SECONDS, Log, until
from tests.integration.sounds import LARGE, SMALL, wav_of
from tests.stacks import temporary_stack

# What is each one's own; all other headers are part of the answer.
OWN = {"server", "date", "connection", "x-request-id"}


SITE = "https://player.example"


class Service(NamedTuple):
    """A service that runs for itself."""

    port: int
    process: psutil.Process
    log: Path


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """A stack whose store may go away, and which lets the scripts of one site in."""
    with temporary_stack({"CORS_ORIGINS": SITE}) as stack:
        yield stack


@pytest.fixture(scope="module")
def base_url(stack: Stack) -> str:
    return stack.base_url


@pytest.fixture(scope="module")
def service(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A records service of its own, with no gateway in front of it."""
    log = tmp_path_factory.mktemp("service") / "records.log"
    (port,) = free_ports(1)
    environment = {**os.environ, **stack.environment("records"), "DOWNLOADS": "stream", "PORT": str(port)}
    command = [sys.executable, "-m", "records"]
    with log.open("w") as output, subprocess.Popen(command, env=environment, stdout=output) as process:
        try:
            until(lambda: answers(port))
            yield Service(port, psutil.Process(process.pid), log)
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
def token(stack: Stack) -> str:
    with Client(stack.base_url) as client:
        return str(client.create_user("Streamed")["token"])


@pytest.fixture(scope="module")
def records(stack: Stack, token: str) -> dict[str, dict[str, Any]]:
    """One record of each kind, which the gateway has in its cache."""
    with Client(stack.base_url) as client:
        records = {kind: client.upload_stream(iter([wav_of(kind)]), token) for kind in (SMALL, LARGE)}
        for record in records.values():
            assert client.http.get(path_of(record)).status_code == 200
        return records


def path_of(record: dict[str, Any]) -> str:
    return f"/record?id={record['id']}&user={record['user_id']}"


def telling(response: httpx.Response) -> list[tuple[str, str]]:
    """All headers but each one's own; one that is there twice is there twice."""
    return sorted(pair for pair in response.headers.multi_items() if pair[0] not in OWN)


class Question(NamedTuple):
    """A request for a record, and the status of its answer."""

    status: int
    method: str
    headers: dict[str, str]

    def __str__(self) -> str:
        return " ".join([self.method, *map(": ".join, self.headers.items())])

    def needs_store(self) -> bool:
        """Whether nginx would evaluate this otherwise than the service on what it has in its cache."""
        if self.method == "HEAD" or self.status not in (200, 206):
            return False
        lines = "".join(self.headers.get(name, "") for name in ("Range", "If-Range"))
        is_odd = self.status == 206 and re.search(r"[\t,]|[0-9]{19}|HUGE", lines)
        return bool(is_odd) or not {"If-Match", "If-Unmodified-Since"}.isdisjoint(self.headers)

    def ask(self, base_url: str, record: dict[str, Any]) -> httpx.Response:
        """Sends the request as it stands, with what the words in capitals stand for."""
        created = datetime.fromisoformat(record["created_at"])
        meanings = {
            "ETAG": f'"{record["sha256"]}"',
            "BARE": record["sha256"],
            "DATE": format_datetime(created.astimezone(UTC), usegmt=True),
            "LIKE": format_datetime(created.astimezone(UTC), usegmt=True).lower(),
            "SIZE": str(record["size_bytes"]),
            "LAST": str(record["size_bytes"] - 1),
            "HUGE": "9" * 3000,
        }
        lines = [f"{name}: {value}" for name, value in self.headers.items()]
        for word, meaning in meanings.items():
            lines = [line.replace(word, meaning) for line in lines]
        with open_wire(base_url) as wire:
            wire.send(make_head(self.method, path_of(record), base_url, *lines))
            return wire.read_answer(self.method)


LATER, EARLIER = "Fri, 01 Jan 2100 00:00:00 GMT", "Thu, 01 Jan 1970 00:00:00 GMT"

# Requests for a record by the status of their answer. ETAG means its entity tag, BARE that without quotes,
# DATE its last change, LIKE the same in small letters, SIZE its number of bytes, LAST one less, and HUGE a
# number of 3000 digits.
ASKED: dict[int, list[tuple[str, dict[str, str]]]] = {
    200: [
        ("GET", {}),
        ("HEAD", {}),
        ("HEAD", {"Range": "bytes=0-1"}),
        ("HEAD", {"Range": "bytes=SIZE-"}),
        # Ranges that may be ignored: malformed, of another unit, several.
        ("GET", {"Range": "bytes=5-2"}),
        ("GET", {"Range": "bytes=a-b"}),
        ("GET", {"Range": "bytes="}),
        ("GET", {"Range": "bytes=-"}),
        ("GET", {"Range": "bytes=1.5-3"}),
        ("GET", {"Range": "items=0-1"}),
        ("GET", {"Range": "0-1"}),
        ("GET", {"Range": "bytes=0-1,5-6"}),
        ("GET", {"Range": "bytes=0-1, -1"}),
        ("GET", {"Range": "bytes=0-,0-,0-"}),
        ("GET", {"Range": "bytes=SIZE-,0-1"}),
        ("GET", {"Range": "bytes=,"}),
        ("GET", {"Range": "bytes=0 -1"}),
        ("GET", {"Range": "\tbytes=5-2"}),
        ("GET", {"Range": "bytes=0-HUGEHUGE"}),
        # Preconditions that hold.
        ("GET", {"If-None-Match": '"other"'}),
        ("GET", {"If-None-Match": '"other", W/"another"'}),
        ("GET", {"If-None-Match": '"other"', "If-Modified-Since": "DATE"}),
        ("GET", {"If-None-Match": "BARE"}),
        ("GET", {"If-Modified-Since": EARLIER}),
        ("GET", {"If-Modified-Since": "yesterday"}),
        ("GET", {"If-Match": "*"}),
        ("GET", {"If-Match": "ETAG"}),
        ("GET", {"If-Match": '"other", ETAG'}),
        ("HEAD", {"If-Match": "ETAG"}),
        ("GET", {"If-Match": "ETAG", "If-Unmodified-Since": EARLIER}),
        ("GET", {"If-Match": "ETAG", "Range": "bytes=5-2"}),
        ("GET", {"If-Unmodified-Since": "DATE"}),
        ("GET", {"If-Unmodified-Since": LATER}),
        ("GET", {"If-Unmodified-Since": "tomorrow"}),
        # A range of what has been something else.
        ("GET", {"Range": "bytes=0-1", "If-Range": '"other"'}),
        ("GET", {"Range": "bytes=0-1", "If-Range": "W/ETAG"}),
        ("GET", {"Range": "bytes=0-1", "If-Range": EARLIER}),
        ("GET", {"Range": "bytes=0-1", "If-Range": LATER}),
        ("GET", {"Range": "bytes=0-1", "If-Range": "nonsense"}),
        ("GET", {"Range": "bytes=0-1", "If-Range": ""}),
        # Given in other words than ours, so by somebody else.
        ("GET", {"Range": "bytes=0-1", "If-Range": "LIKE"}),
        ("GET", {"Range": "bytes=SIZE-", "If-Range": '"other"'}),
        ("GET", {"If-Range": "ETAG"}),
        ("GET", {"If-Range": "\tETAG"}),
        ("GET", {"Range": "bytes=0-1", "If-Range": '\t"other"'}),
        ("GET", {"Range": "bytes=0-1", "If-Range": "BARE"}),
    ],
    206: [
        # Safari's probe, Chromium's beginning, a player that seeks, and one that goes on where it was.
        ("GET", {"Range": "bytes=0-1"}),
        ("GET", {"Range": "bytes=0-"}),
        ("GET", {"Range": "bytes=1000-4999"}),
        ("GET", {"Range": "bytes=7-"}),
        ("GET", {"Range": "bytes=0-1", "If-Range": "ETAG"}),
        ("GET", {"Range": "bytes=7-", "If-Range": "DATE"}),
        ("GET", {"Range": "bytes=0-0"}),
        ("GET", {"Range": "bytes=LAST-"}),
        ("GET", {"Range": "bytes=LAST-LAST"}),
        ("GET", {"Range": "bytes=0-LAST"}),
        ("GET", {"Range": "bytes=0-SIZE"}),
        ("GET", {"Range": "bytes=0-999999999"}),
        ("GET", {"Range": "bytes=-1"}),
        ("GET", {"Range": "bytes=-100"}),
        ("GET", {"Range": "bytes=-SIZE"}),
        ("GET", {"Range": "bytes=-999999999"}),
        ("GET", {"Range": "Bytes=0-1"}),
        ("GET", {"Range": "bytes= 5-9"}),
        ("GET", {"Range": "bytes=0-1", "If-Match": "ETAG"}),
        ("GET", {"Range": "bytes=0-", "If-Match": "ETAG"}),
        ("GET", {"Range": "bytes=0-1", "If-None-Match": '"other"'}),
        ("GET", {"Range": "bytes=0-1", "If-Modified-Since": EARLIER}),
        ("GET", {"Range": "bytes=0-", "If-Unmodified-Since": "DATE"}),
        # Numbers that are larger than nginx can count, or have more digits.
        ("GET", {"Range": f"bytes=0-{'9' * 18}"}),
        ("GET", {"Range": f"bytes=0-{'9' * 19}"}),
        ("GET", {"Range": "bytes=7-HUGE"}),
        ("GET", {"Range": f"bytes=-{'9' * 19}"}),
        ("GET", {"Range": f"bytes={'0' * 30}1-5"}),
        # White space around it, and elements of the list that are empty.
        ("GET", {"Range": "bytes=0-1 "}),
        ("GET", {"Range": "bytes=0-1\t"}),
        ("GET", {"Range": "\tbytes=0-1"}),
        ("GET", {"Range": "\tbytes=0-"}),
        ("GET", {"Range": "bytes=\t0-1"}),
        ("GET", {"Range": "bytes=0-1,"}),
        ("GET", {"Range": "bytes=, ,0-1"}),
        ("GET", {"Range": "bytes=0-1", "If-Range": "\tETAG"}),
        ("GET", {"Range": "bytes=0-", "If-Range": "ETAG \t"}),
        ("GET", {"Range": "bytes=7-", "If-Range": "ETAG "}),
        ("GET", {"Range": "bytes=7-", "If-Range": "\tDATE "}),
    ],
    304: [
        ("GET", {"If-None-Match": "ETAG"}),
        ("HEAD", {"If-None-Match": "ETAG"}),
        ("GET", {"If-None-Match": "W/ETAG"}),
        ("GET", {"If-None-Match": '"other", ETAG'}),
        ("GET", {"If-None-Match": "*"}),
        ("GET", {"If-None-Match": "ETAG", "Range": "bytes=0-1"}),
        ("GET", {"If-None-Match": "ETAG", "If-Modified-Since": EARLIER}),
        ("GET", {"If-Match": "ETAG", "If-None-Match": "ETAG"}),
        ("GET", {"If-Modified-Since": "DATE"}),
        ("HEAD", {"If-Modified-Since": "DATE"}),
        ("GET", {"If-Modified-Since": LATER}),
        ("GET", {"If-Modified-Since": "DATE", "Range": "bytes=0-1"}),
    ],
    412: [
        ("GET", {"If-Match": '"other"'}),
        ("HEAD", {"If-Match": '"other"'}),
        ("GET", {"If-Match": "W/ETAG"}),
        ("GET", {"If-Match": "BARE"}),
        ("GET", {"If-Match": '"other"', "Range": "bytes=0-1"}),
        ("GET", {"If-Match": '"other"', "If-None-Match": "ETAG"}),
        ("GET", {"If-Match": '"other"', "If-Unmodified-Since": LATER}),
        ("GET", {"If-Unmodified-Since": EARLIER}),
        ("GET", {"If-Unmodified-Since": EARLIER, "Range": "bytes=SIZE-"}),
    ],
    416: [
        ("GET", {"Range": "bytes=SIZE-"}),
        ("GET", {"Range": "bytes=SIZE-SIZE"}),
        ("GET", {"Range": "bytes=999999999-"}),
        ("GET", {"Range": f"bytes={'9' * 18}-"}),
        ("GET", {"Range": f"bytes={'9' * 19}-"}),
        ("GET", {"Range": "bytes=HUGE-"}),
        ("GET", {"Range": "\tbytes=SIZE-"}),
        ("GET", {"Range": "bytes=-0"}),
        ("GET", {"Range": "bytes=SIZE-", "If-Range": "ETAG"}),
    ],
}
QUESTIONS = [Question(status, *asked) for status, all_asked in ASKED.items() for asked in all_asked]


@pytest.mark.parametrize("kind", ["new", SMALL, LARGE])
@pytest.mark.parametrize("question", QUESTIONS, ids=str)
def test_the_service_alone_answers_as_the_gateway_does(
    client: Client,
    direct: httpx.Client,
    records: dict[str, dict[str, Any]],
    token: str,
    kind: str,
    question: Question,
) -> None:
    # A new record is not in the gateway's cache.
    record = records.get(kind) or client.upload_stream([wav_of(SMALL)], token)
    through = question.ask(str(client.http.base_url), record)
    alone = question.ask(str(direct.base_url), record)
    assert (through.status_code, alone.status_code) == (question.status, question.status)
    assert telling(alone) == telling(through)
    if question.status < 400 or question.method == "HEAD":
        assert alone.content == through.content
        return
    problems = [response.json() for response in (alone, through)]
    assert [problem.pop("request_id") for problem in problems] == [
        response.headers["x-request-id"] for response in (alone, through)
    ]
    assert problems[0] == problems[1]


@pytest.mark.parametrize("origin", [SITE, "https://evil.example", f"{SITE}.evil.example", "null"])
@pytest.mark.parametrize("kind", ["new", SMALL])
def test_the_scripts_of_a_site_are_told_the_same_both_ways(
    client: Client,
    direct: httpx.Client,
    records: dict[str, dict[str, Any]],
    token: str,
    kind: str,
    origin: str,
) -> None:
    asked = [
        *(all_asked[0] for all_asked in ASKED.values()),
        ("GET", {"If-Match": "ETAG"}),
        ("GET", {"Range": "bytes=5-2"}),
        ("OPTIONS", {}),
        ("OPTIONS", {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "range"}),
    ]
    for method, headers in asked:
        record = records.get(kind) or client.upload_stream([wav_of(SMALL)], token)
        question = Question(0, method, {**headers, "Origin": origin})
        through = question.ask(str(client.http.base_url), record)
        alone = question.ask(str(direct.base_url), record)
        assert (alone.status_code, telling(alone)) == (through.status_code, telling(through)), question
        assert through.headers.get_list("Vary") == ["Origin"], question
        is_named = [name for name in through.headers if name.startswith("access-control-")]
        assert bool(is_named) == (origin == SITE), question


def test_what_has_been_played_is_played_while_the_store_is_away(
    stack: Stack, records: dict[str, dict[str, Any]]
) -> None:
    record = records[SMALL]
    stack.stop_part("minio")
    try:
        answers = {str(each): each.ask(stack.base_url, record).status_code for each in QUESTIONS}
    finally:
        stack.start_part("minio")
    assert answers == {str(each): 503 if each.needs_store() else each.status for each in QUESTIONS}


def test_the_bytes_are_those_that_were_stored(
    direct: httpx.Client, records: dict[str, dict[str, Any]]
) -> None:

    for record in records.values():
        answer = direct.get(path_of(record))
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "audio/mpeg"
        assert hashlib.sha256(answer.content).hexdigest() == record["sha256"]


@pytest.mark.parametrize(("name", "status"), [("If-None-Match", 304), ("If-Match", 200)])
def test_two_lines_of_etags_are_one_list_for_the_service_alone(
    direct: httpx.Client, records: dict[str, dict[str, Any]], name: str, status: int
) -> None:
    record = records[SMALL]
    # The gateway refuses them.
    answer = direct.get(path_of(record), headers=[(name, '"other"'), (name, f'"{record["sha256"]}"')])
    assert answer.status_code == status
    assert answer.headers["ETag"] == f'"{record["sha256"]}"'


def test_two_lines_of_ranges_are_ignored_both_ways(
    client: Client, direct: httpx.Client, records: dict[str, dict[str, Any]]
) -> None:
    headers = [("Range", "bytes=0-1"), ("Range", "bytes=5-6")]
    answers = [each.get(path_of(records[SMALL]), headers=headers) for each in (client.http, direct)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert telling(answers[0]) == telling(answers[1])


def test_somebody_else_s_record_is_not_found_either_way(
    client: Client, direct: httpx.Client, records: dict[str, dict[str, Any]]
) -> None:
    stranger = client.create_user("Stranger")
    path = f"/record?id={records[SMALL]['id']}&user={stranger['id']}"
    answers = [each.get(path) for each in (client.http, direct)]
    assert [answer.status_code for answer in answers] == [404, 404]
    assert answers[0].json()["type"] == answers[1].json()["type"] == "/problems/unknown-record"


def find_line(log: Log, request_id: str) -> dict[str, Any] | None:
    return next((line for line in log.lines() if line["request_id"] == request_id), None)


async def test_an_mp3_that_the_store_has_lost_is_told_from_a_store_that_is_away(
    stack: Stack, client: Client, service: Service, direct: httpx.Client, token: str
) -> None:
    record = client.upload_stream([wav_of(SMALL)], token)
    async with open_inside(stack) as inside:
        assert await inside.store.remove(f"{record['user_id']}/{record['id']}.mp3")
    gateway = Log(stack, "gateway")
    for question in (Question(503, "GET", headers) for headers in ({}, {"Range": "bytes=0-1"})):
        through = question.ask(str(client.http.base_url), record)
        alone = question.ask(str(direct.base_url), record)
        for answer in (through, alone):
            assert_problem(answer, 503, "unavailable", "does not have this MP3")
        assert through.json()["detail"] == alone.json()["detail"]
        assert telling(through) == telling(alone)
        request_id = through.headers["X-Request-ID"]
        line = until(partial(find_line, gateway, request_id))
        assert line and line["upstream_status"].endswith("404")
    said = [json.loads(line) for line in service.log.read_text().splitlines()]
    assert [line["detail"] for line in said if line["event"] == "unavailable"] == [alone.json()["detail"]] * 2
    assert record["id"] not in service.log.read_text()


def test_a_store_that_hangs_is_away_for_the_service_alone_too(
    stack: Stack, direct: httpx.Client, records: dict[str, dict[str, Any]]
) -> None:
    minio = psutil.Process(stack.pid("minio"))
    minio.suspend()
    try:
        # The service's patience for an upload is longer than ours.
        answer = direct.get(path_of(records[SMALL]), timeout=BOUND_SECONDS // 2)
    finally:
        minio.resume()
    assert_problem(answer, 503, "unavailable", "does not answer")


def read_connections(stack: Stack) -> set[int]:
    """The connections to MinIO with something to be read, by their ports on our side."""
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        ours, theirs, _, queues = line.split()[1:5]
        if int(theirs.rpartition(":")[2], 16) == stack.ports.minio and int(queues.rpartition(":")[2], 16):
            found.add(int(ours.rpartition(":")[2], 16))
    return found


def test_of_what_a_listener_leaves_nothing_more_is_read_from_the_store(
    stack: Stack, service: Service, direct: httpx.Client, records: dict[str, dict[str, Any]]
) -> None:
    path = path_of(records[LARGE])
    left: set[int] = set()
    for _ in range(3):
        leaving = []
        for _ in range(20):
            connection = socket.socket()
            # So small that most of the 14 MB are still on their way when the listener goes.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect((LOOPBACK, service.port))
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
            leaving.append(connection)
        now = read_connections(stack)
        assert now
        # One whose MP3 had been read to its end would be used again.
        assert not now & left
        left |= now
        for connection in leaving:
            connection.close()
        until(lambda: not read_connections(stack))
    answer = direct.get(path)
    assert answer.status_code == 200
    assert len(answer.content) == records[LARGE]["size_bytes"]
