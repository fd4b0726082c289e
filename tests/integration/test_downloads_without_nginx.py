"""A records service without nginx (DOWNLOADS=stream) responds to downloads as the gateway does."""

import hashlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import httpx
import psutil
import pytest

from deploy.client import Client
from deploy.local.ports import LOOPBACK, free_ports
from deploy.local.stack import Stack
from records.routes.downloads import hash_id
from tests.download_requests import DOWNLOAD_REQUESTS, REQUESTS_BY_STATUS, DownloadRequest, link_path
from tests.integration.frozen_processes import frozen_process
from tests.integration.instances import is_ready
from tests.integration.new_log_lines import NewLogLines
from tests.integration.recordings import LARGE, SMALL, make_wav, upload_kind
from tests.integration.records_service import open_stack_service
from tests.integration.unread_sockets import unread_sockets
from tests.integration.waiting import MAX_WAIT_SECONDS, wait_until
from tests.response_checks import assert_problem
from tests.stacks import temporary_stack

# These headers may differ between the service and the gateway. All others must be equal.
MAY_DIFFER = {"server", "date", "connection", "x-request-id"}
SITE = "https://player.example"


class Service(NamedTuple):
    """A records service that runs without a gateway."""

    port: int
    process: psutil.Process
    log: Path


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """A stack whose MinIO these tests stop, and which lets the scripts of one site in."""
    with temporary_stack({"CORS_ORIGINS": SITE}) as stack:
        yield stack


@pytest.fixture(scope="module")
def base_url(stack: Stack) -> str:
    return stack.base_url


@pytest.fixture(scope="module")
def service(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A second records service without a gateway in front of it."""
    log = tmp_path_factory.mktemp("service") / "records.log"
    (port,) = free_ports(1)
    environment = {**os.environ, **stack.environment("records"), "DOWNLOADS": "stream", "PORT": str(port)}
    command = [sys.executable, "-m", "records"]
    with log.open("w") as output, subprocess.Popen(command, env=environment, stdout=output) as process:
        try:
            wait_until(lambda: is_ready(port))
            yield Service(port, psutil.Process(process.pid), log)
        finally:
            process.terminate()
            process.wait(60)


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
    """One record of each kind, which the gateway has cached."""
    with Client(stack.base_url) as client:
        records = {kind: upload_kind(client, token, kind) for kind in (SMALL, LARGE)}
        for record in records.values():
            assert client.http.get(link_path(record)).status_code == 200
        return records


def comparable_headers(response: httpx.Response) -> list[tuple[str, str]]:
    """Returns the headers that must be equal in both responses, repeated ones too."""
    return sorted(pair for pair in response.headers.multi_items() if pair[0] not in MAY_DIFFER)


@pytest.mark.parametrize("kind", ["new", SMALL, LARGE])
@pytest.mark.parametrize("download", DOWNLOAD_REQUESTS, ids=str)
def test_the_service_alone_responds_as_the_gateway_does(
    client: Client,
    direct: httpx.Client,
    records: dict[str, dict[str, Any]],
    token: str,
    kind: str,
    download: DownloadRequest,
) -> None:
    # A new record is not in the gateway's cache.
    record = records.get(kind) or client.upload_stream([make_wav(SMALL)], token)
    through = download.send(str(client.http.base_url), record)
    alone = download.send(str(direct.base_url), record)
    assert (through.status_code, alone.status_code) == (download.status, download.status)
    assert comparable_headers(alone) == comparable_headers(through)
    if download.status < 400 or download.method == "HEAD":
        assert alone.content == through.content
        return
    problems = [response.json() for response in (alone, through)]
    assert [problem.pop("request_id") for problem in problems] == [
        response.headers["x-request-id"] for response in (alone, through)
    ]
    assert problems[0] == problems[1]


@pytest.mark.parametrize("origin", [SITE, "https://evil.example", f"{SITE}.evil.example", "null"])
@pytest.mark.parametrize("kind", ["new", SMALL])
def test_scripts_of_a_site_get_the_same_headers_from_the_service_and_the_gateway(
    client: Client,
    direct: httpx.Client,
    records: dict[str, dict[str, Any]],
    token: str,
    kind: str,
    origin: str,
) -> None:
    requests = [
        *(some[0] for some in REQUESTS_BY_STATUS.values()),
        ("GET", {"If-Match": "ETAG"}),
        ("GET", {"Range": "bytes=5-2"}),
        ("OPTIONS", {}),
        ("OPTIONS", {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "range"}),
    ]
    for method, headers in requests:
        record = records.get(kind) or client.upload_stream([make_wav(SMALL)], token)
        download = DownloadRequest(0, method, {**headers, "Origin": origin})
        through = download.send(str(client.http.base_url), record)
        alone = download.send(str(direct.base_url), record)
        assert (alone.status_code, comparable_headers(alone)) == (
            through.status_code,
            comparable_headers(through),
        ), download
        # A problem of a link also depends on Accept and Accept-Language.
        assert through.headers["Vary"].split(",")[-1] == "Origin", download
        is_named = [name for name in through.headers if name.startswith("access-control-")]
        assert bool(is_named) == (origin == SITE), download


def test_cached_downloads_are_served_while_minio_is_away(
    stack: Stack, records: dict[str, dict[str, Any]]
) -> None:
    record = records[SMALL]
    stack.stop_process("minio")
    try:
        responses = {str(each): each.send(stack.base_url, record).status_code for each in DOWNLOAD_REQUESTS}
    finally:
        stack.start_process("minio")
    assert responses == {str(each): 503 if each.needs_store() else each.status for each in DOWNLOAD_REQUESTS}


def test_the_service_alone_returns_the_stored_bytes(
    direct: httpx.Client, records: dict[str, dict[str, Any]]
) -> None:
    for record in records.values():
        response = direct.get(link_path(record))
        assert response.status_code == 200
        assert response.headers["content-type"] == "audio/mpeg"
        assert hashlib.sha256(response.content).hexdigest() == record["sha256"]


@pytest.mark.parametrize(("name", "status"), [("If-None-Match", 304), ("If-Match", 200)])
def test_two_lines_of_etags_are_one_list_for_the_service_alone(
    direct: httpx.Client, records: dict[str, dict[str, Any]], name: str, status: int
) -> None:
    record = records[SMALL]
    # The gateway refuses two lines.
    response = direct.get(link_path(record), headers=[(name, '"other"'), (name, f'"{record["sha256"]}"')])
    assert response.status_code == status
    assert response.headers["ETag"] == f'"{record["sha256"]}"'


def test_two_range_headers_are_ignored_by_the_service_and_the_gateway(
    client: Client, direct: httpx.Client, records: dict[str, dict[str, Any]]
) -> None:
    headers = [("Range", "bytes=0-1"), ("Range", "bytes=5-6")]
    responses = [each.get(link_path(records[SMALL]), headers=headers) for each in (client.http, direct)]
    assert [response.status_code for response in responses] == [200, 200]
    assert comparable_headers(responses[0]) == comparable_headers(responses[1])


def test_a_record_of_another_user_is_404_from_the_service_and_the_gateway(
    client: Client, direct: httpx.Client, records: dict[str, dict[str, Any]]
) -> None:
    stranger = client.create_user("Stranger")
    path = f"/record?id={records[SMALL]['id']}&user={stranger['id']}"
    responses = [each.get(path) for each in (client.http, direct)]
    assert [response.status_code for response in responses] == [404, 404]
    assert responses[0].json()["type"] == responses[1].json()["type"] == "/problems/unknown-record"


def find_line(log: NewLogLines, request_id: str) -> dict[str, Any] | None:
    return next((line for line in log.lines() if line["request_id"] == request_id), None)


def find_lost_object(log: NewLogLines, response: httpx.Response) -> dict[str, Any] | None:
    wanted = ("object lost", "error", response.headers["X-Request-ID"])
    return next(
        (line for line in log.lines() if (line["event"], line["level"], line["request_id"]) == wanted), None
    )


def test_an_original_is_sent_as_an_mp3_is_and_the_gateway_does_not_keep_it(
    stack: Stack, client: Client, direct: httpx.Client, token: str
) -> None:
    wav = make_wav(SMALL)
    record = client.upload_stream([wav], token, keep_original=True)
    for download in DOWNLOAD_REQUESTS:
        through = download.send(str(client.http.base_url), record, token)
        alone = download.send(str(direct.base_url), record, token)
        assert through.status_code == alone.status_code == download.status, download
        assert comparable_headers(through) == comparable_headers(alone), download
        if download.status in (200, 206):
            assert through.content == alone.content, download
    cache = stack.supervisor.log("gateway").parents[1] / "gateway" / "cache"
    assert not [path for path in cache.rglob("*") if path.is_file() and wav in path.read_bytes()]


async def test_an_original_that_is_lost_is_503_and_logged_and_its_mp3_plays(
    stack: Stack, client: Client, token: str
) -> None:
    record = client.upload_stream([make_wav(SMALL)], token, keep_original=True)
    async with open_stack_service(stack) as stack_service:
        await stack_service.store.remove(f"{record['user_id']}/{record['id']}.wav")
    log = NewLogLines(stack, "records")
    through = DownloadRequest(503, "GET", {}).send(str(client.http.base_url), record, token)
    assert_problem(through, 503, "unavailable", "does not have what belongs to this address")
    wait_until(partial(find_lost_object, log, through))
    assert record["id"] not in log.text()
    assert client.http.get(link_path(record)).status_code == 200


async def test_a_lost_object_gets_another_detail_than_a_store_that_is_away(
    stack: Stack, client: Client, service: Service, direct: httpx.Client, token: str
) -> None:
    record = client.upload_stream([make_wav(SMALL)], token)
    async with open_stack_service(stack) as stack_service:
        await stack_service.store.remove(f"{record['user_id']}/{record['id']}.mp3")
    gateway, behind_gateway = NewLogLines(stack, "gateway"), NewLogLines(stack, "records")
    for download in (DownloadRequest(503, "GET", headers) for headers in ({}, {"Range": "bytes=0-1"})):
        through = download.send(str(client.http.base_url), record)
        alone = download.send(str(direct.base_url), record)
        for response in (through, alone):
            assert_problem(response, 503, "unavailable", "does not have what belongs to this address")
        assert through.json()["detail"] == alone.json()["detail"]
        assert comparable_headers(through) == comparable_headers(alone)
        request_id = through.headers["X-Request-ID"]
        line = wait_until(partial(find_line, gateway, request_id))
        assert line and line["upstream_status"].endswith("404 : 503")
        # One log line for each listener who meets a lost object, in both download modes.
        wait_until(partial(find_lost_object, behind_gateway, through))
    assert [line["event"] for line in behind_gateway.lines()].count("object lost") == 2
    assert record["id"] not in behind_gateway.text()
    said = [json.loads(line) for line in service.log.read_text().splitlines()]
    lost = [line for line in said if line["event"] == "object lost"]
    async with open_stack_service(stack) as stack_service:
        # As docs/operate.md says.
        found = await stack_service.query(
            "SELECT id FROM records WHERE encode(sha256(id::text::bytea), 'hex') LIKE :hash",
            hash=f"{lost[0]['record']}%",
        )
    assert [str(row.id) for row in found] == [record["id"]]
    assert [(line["level"], line["record"]) for line in lost] == [("error", hash_id(UUID(record["id"])))] * 2
    assert [line["detail"] for line in said if line["event"] == "unavailable"] == [alone.json()["detail"]] * 2
    assert record["id"] not in service.log.read_text()


def test_no_client_reaches_the_path_at_which_the_gateway_reports_a_lost_object(
    stack: Stack,
    client: Client,
    service: Service,
    direct: httpx.Client,
    records: dict[str, dict[str, Any]],
    token: str,
) -> None:
    link = link_path(records[SMALL]).replace("/record?", "/_lost?")
    assert link.startswith("/_lost?")
    log = NewLogLines(stack, "records")
    assert_problem(client.http.get(link), 404, "unknown-route")
    # The service alone looks for the object, so nobody can forge a log line.
    assert_problem(direct.get(link), 503, "unavailable", "does not answer")
    assert_problem(direct.get(link.replace("id=", "id=0")), 400, "invalid-request")
    # A record may be deleted while the store is asked for its object.
    deleted = client.upload_stream([make_wav(SMALL)], token)
    headers = {"Authorization": f"Bearer {token}"}
    assert client.http.delete(f"/records/{deleted['id']}", headers=headers).status_code == 204
    assert_problem(direct.get(link_path(deleted).replace("/record?", "/_lost?")), 404, "unknown-record")
    assert "object lost" not in log.text()
    said = [json.loads(line) for line in service.log.read_text().splitlines()]
    assert records[SMALL]["id"] not in json.dumps(said)
    assert hash_id(UUID(records[SMALL]["id"])) not in json.dumps(said)


def test_while_the_store_hangs_downloads_and_waveforms_are_503_soon_and_afterwards_they_are_sent(
    stack: Stack, client: Client, direct: httpx.Client, token: str
) -> None:
    # The gateway has not cached it.
    record = client.upload_stream([make_wav(SMALL)], token)
    link, waveform = link_path(record), f"/records/{record['id']}/waveform?user={record['user_id']}"

    def get(http: httpx.Client, path: str, **headers: str) -> httpx.Response:
        # For an upload the service waits longer than this timeout.
        return http.get(path, headers=headers, timeout=MAX_WAIT_SECONDS // 2)

    # All of them at once, because each waits for ten seconds.
    with frozen_process(stack, "minio"), ThreadPoolExecutor() as threads:
        alone = threads.submit(get, direct, link)
        through = threads.submit(get, client.http, f"{link}&download=1", Origin=SITE)
        peaks = threads.submit(get, client.http, waveform)
    assert_problem(alone.result(), 503, "unavailable", "does not answer")
    assert_problem(peaks.result(), 503, "unavailable")
    assert_problem(through.result(), 503, "unavailable")
    assert "Content-Disposition" not in through.result().headers
    assert through.result().headers["Access-Control-Allow-Origin"] == SITE
    wait_until(lambda: {client.http.get(path).status_code for path in (link, waveform)} == {200})


def read_connections(stack: Stack) -> set[int]:
    """Returns the connections to MinIO that have unread bytes: the inodes of their sockets."""
    return {one.inode for one in unread_sockets() if one.remote_port == stack.ports.minio}


def test_the_service_stops_reading_an_object_when_its_listener_leaves(
    stack: Stack, service: Service, direct: httpx.Client, records: dict[str, dict[str, Any]]
) -> None:
    path = link_path(records[LARGE])
    left: set[int] = set()
    for _ in range(3):
        leaving = []
        for _ in range(20):
            connection = socket.socket()
            # A receive buffer so small that most of the 12 MB are still unsent when the listener leaves.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect((LOOPBACK, service.port))
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
            leaving.append(connection)
        now = read_connections(stack)
        assert now
        # The service would use a connection again if it had read an MP3 from it to the end.
        assert not now & left
        left |= now
        for connection in leaving:
            connection.close()
        wait_until(lambda: not read_connections(stack))
    response = direct.get(path)
    assert response.status_code == 200
    assert len(response.content) == records[LARGE]["size_bytes"]
