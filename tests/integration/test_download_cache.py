"""The gateway's cache of downloads, and the many, slow and vanishing listeners that it serves."""

import hashlib
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from miniopy_async.commonconfig import ENABLED, REPLACE, CopySource, Filter, Tags
from miniopy_async.lifecycleconfig import Expiration, LifecycleConfig, Rule

from common.settings import load
from deploy.client import Client, load_certificates
from deploy.local.ports import LOOPBACK
from deploy.local.stack import Stack
from deploy.setup import SetupSettings
from records.storage import make_client, make_session
from tests.integration.recordings import LARGE, upload_recording
from tests.integration.unread_sockets import unread_sockets
from tests.integration.waiting import MAX_WAIT_SECONDS, wait_until
from tests.raw_connection import make_request_head
from tests.stacks import temporary_stack
from tests.wavs import Wav, silence


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """A stack that forgets downloads after a second."""
    with temporary_stack({"CACHE_SECONDS": "1"}) as stack:
        yield stack


def cached_files(stack: Stack) -> set[Path]:
    """Finds the MP3s in the gateway's cache. nginx looks only every ten seconds which ones it forgets."""
    folder = stack.supervisor.log("gateway").parents[1] / "gateway" / "cache"
    return {path for path in folder.rglob("*") if path.is_file()}


def ports_of_connections(pid: int, port: int) -> list[int]:
    """Lists the local ports of the connections of a process and its children to a port of this machine."""
    process = psutil.Process(pid)
    found: list[int] = []
    for each in (process, *process.children()):
        # At its start nginx has a child that reads the cache's directory and then ends.
        with suppress(psutil.NoSuchProcess):
            connections = each.net_connections("tcp4")
            found += [one.laddr.port for one in connections if bool(one.raddr) and one.raddr.port == port]
    return found


def count_connections(pid: int, port: int) -> int:
    return len(ports_of_connections(pid, port))


def count_unread_requests(pid: int, port: int) -> int:
    """Counts the connections from a process and its children whose data the server has not read yet."""
    senders = ports_of_connections(pid, port)
    return sum(one.local_port == port and one.remote_port in senders for one in unread_sockets())


def listen(record: dict[str, Any]) -> httpx.Response:
    """Downloads an MP3 as a player does, on a connection of its own."""
    headers = {"Range": "bytes=0-"}
    return httpx.get(record["url"], headers=headers, timeout=60, trust_env=False, verify=load_certificates())


def test_without_minio_cached_downloads_are_served_and_all_others_are_503(
    stack: Stack, owner: dict[str, Any], http: httpx.Client
) -> None:
    cached, other = upload_recording(stack, owner), upload_recording(stack, owner)
    mp3 = http.get(cached["url"]).content
    stack.stop_process("minio")
    try:
        assert http.get(cached["url"]).content == mp3
        ranged = http.get(cached["url"], headers={"Range": "bytes=100-199"})
        assert (ranged.status_code, ranged.content) == (206, mp3[100:200])
        refused = http.get(other["url"])
        assert (refused.status_code, refused.json()["type"]) == (503, "/problems/unavailable")
        assert int(refused.headers["Retry-After"]) > 0
    finally:
        stack.start_process("minio")
    assert http.get(other["url"]).status_code == 200


def test_listeners_who_wait_for_the_same_download_all_get_their_range(
    stack: Stack, owner: dict[str, Any]
) -> None:
    record = upload_recording(stack, owner)
    minio = psutil.Process(stack.pid("minio"))
    gateway = stack.pid("gateway")
    minio.suspend()
    try:
        with ThreadPoolExecutor(3) as pool:
            downloads = [pool.submit(listen, record) for _ in range(3)]
            # All three have reached MinIO, so none waits for another one in the gateway.
            wait_until(lambda: count_unread_requests(gateway, stack.ports.minio) >= 3)
            minio.resume()
            responses = [each.result() for each in downloads]
    finally:
        minio.resume()
    assert [response.status_code for response in responses] == [206] * 3
    assert {response.headers["Accept-Ranges"] for response in responses} == {"bytes"}
    assert {len(response.content) for response in responses} == {record["size_bytes"]}


def test_an_mp3_is_cached_once_for_all_its_requests(
    stack: Stack, owner: dict[str, Any], http: httpx.Client
) -> None:
    url = upload_recording(stack, owner)["url"]
    before = cached_files(stack)
    responses = [http.get(url, headers={"Range": "bytes=0-"}) for _ in range(5)]
    assert [response.status_code for response in responses] == [206] * 5
    assert len(cached_files(stack) - before) == 1


def test_a_range_of_an_uncached_mp3_does_not_fetch_the_whole(
    stack: Stack, owner: dict[str, Any], http: httpx.Client
) -> None:
    record = upload_recording(stack, owner, LARGE)
    before = cached_files(stack)
    response = http.get(record["url"], headers={"Range": "bytes=-100"})
    assert (response.status_code, len(response.content)) == (206, 100)
    assert cached_files(stack) <= before


def test_a_deleted_record_is_404_at_once_and_leaves_the_cache(
    stack: Stack, owner: dict[str, Any], http: httpx.Client
) -> None:
    record = upload_recording(stack, owner)
    before = cached_files(stack)
    assert http.get(record["url"]).status_code == 200
    assert http.delete(f"/records/{record['id']}", auth=(owner["id"], owner["token"])).status_code == 204
    assert http.get(record["url"]).status_code == 404
    wait_until(lambda: cached_files(stack) <= before)


def test_two_hundred_listeners_of_a_new_record_all_get_it(stack: Stack, owner: dict[str, Any]) -> None:
    with Client(stack.base_url) as client:
        wav = Wav(bits=8, channels=1, rate=8000).build(silence(240.0, rate=8000, channels=1))
        record = client.upload_stream([wav], owner["token"])

    def hear(_: int) -> tuple[int, int]:
        response = listen(record)
        return response.status_code, len(response.content)

    with ThreadPoolExecutor(200) as pool:
        heard = set(pool.map(hear, range(200)))
    assert heard == {(206, record["size_bytes"])}


def test_ten_thousand_aborted_downloads_leave_no_connection_behind(
    stack: Stack, owner: dict[str, Any], http: httpx.Client
) -> None:
    record = upload_recording(stack, owner, LARGE)
    path = record["url"].removeprefix(stack.base_url)
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    gateway, records = stack.pid("gateway"), stack.pid("records")

    def abort(number: int) -> None:
        with socket.create_connection((LOOPBACK, stack.ports.gateway)) as connection:
            connection.sendall(request)
            # Every second client waits for the first bytes; the others leave before.
            if number % 2:
                assert connection.recv(64).startswith(b"HTTP/1.1 200")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(abort, range(10_000)))
    # nginx keeps connections for the next requests: 32 in each of its two workers.
    wait_until(
        lambda: (
            count_connections(gateway, stack.ports.minio) <= 64
            and count_connections(gateway, stack.ports.records) <= 64
        )
    )
    assert count_connections(records, stack.ports.minio) <= 10
    assert len(http.get(record["url"]).content) == record["size_bytes"]


def begin_download(stack: Stack, url: str, *lines: str) -> socket.socket:
    """Opens a download with a receive buffer so small that most of the MP3 waits until the test reads it."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(MAX_WAIT_SECONDS)
    connection.connect((LOOPBACK, stack.ports.gateway))
    connection.sendall(make_request_head("GET", url.removeprefix(stack.base_url), stack.base_url, *lines))
    return connection


def read_to_the_end(connection: socket.socket) -> Iterator[bytes]:
    """Yields all bytes until the server closes the connection."""
    with suppress(ConnectionResetError):
        while piece := connection.recv(1 << 16):
            yield piece


def test_slow_listeners_cost_the_service_nothing_and_get_everything_while_others_download(
    stack: Stack, owner: dict[str, Any], http: httpx.Client
) -> None:
    record = upload_recording(stack, owner, LARGE)
    mp3 = http.get(record["url"]).content
    service = psutil.Process(stack.pid("records"))
    before = service.memory_info().rss
    with ExitStack() as opened:
        slow = [
            opened.enter_context(begin_download(stack, record["url"], "Connection: close"))
            for _ in range(200)
        ]
        heard = [connection.recv(1024) for connection in slow]
        for _ in range(20):
            assert http.get(record["url"]).content == mp3
            pieces = [connection.recv(1024) for connection in slow]
            assert all(pieces)
            heard = [begun + piece for begun, piece in zip(heard, pieces, strict=True)]
        assert count_connections(stack.pid("gateway"), stack.ports.records) <= 64
        assert service.memory_info().rss - before < 10 * 2**20
        # Only every fiftieth download is read to its end, to save time.
        for begun, connection in list(zip(heard, slow, strict=True))[::50]:
            response = begun + b"".join(read_to_the_end(connection))
            assert response.startswith(b"HTTP/1.1 200")
            assert response.partition(b"\r\n\r\n")[2] == mp3


@pytest.fixture(scope="module")
def long_record(stack: Stack, owner: dict[str, Any]) -> dict[str, Any]:
    """48 MB, more than Linux buffers in sockets by default: MinIO is still sending while the test reads."""
    with Client(stack.base_url) as client:
        wav = Wav(bits=8, channels=1, rate=8000).build(silence(6000.0, rate=8000, channels=1))
        return client.upload_stream([wav], owner["token"])


@pytest.mark.parametrize("process", ["gateway", "minio"])
def test_after_a_restart_during_a_download_the_player_s_next_range_works(
    stack: Stack, long_record: dict[str, Any], process: str
) -> None:
    # The gateway does not cache ranges, so the bytes come from MinIO during the download.
    with begin_download(stack, long_record["url"], "Range: bytes=1-", "Connection: close") as listener:
        response = listener.recv(1024)
        # The stack starts the process again. `stop_process` would wait for the end of the download.
        ended = stack.pid(process)
        psutil.Process(ended).terminate()
        response += b"".join(read_to_the_end(listener))
    wait_until(lambda: stack.pid(process) not in (0, ended))
    stack.start_process(process)
    head, _, begun = response.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 206")
    # The restart interrupted the download.
    assert 0 < len(begun) < long_record["size_bytes"] - 1
    # A new client, because the connections of an older one are closed.
    with Client(stack.base_url) as client:

        def listen(span: str) -> bytes:
            headers = {"Range": f"bytes={span}", "If-Range": f'"{long_record["sha256"]}"'}
            response = client.http.get(long_record["url"], headers=headers)
            assert response.status_code == 206
            return response.content

        mp3 = listen("0-0") + begun + listen(f"{1 + len(begun)}-")
    assert hashlib.sha256(mp3).hexdigest() == long_record["sha256"]


def read_headers(http: httpx.Client, url: str, **headers: str) -> list[tuple[str, str]]:
    """Returns all header lines of a download, except those that differ in each response."""
    response = http.get(url, headers=headers)
    assert response.status_code in (200, 206)
    return sorted(pair for pair in response.headers.multi_items() if pair[0] not in ("date", "x-request-id"))


async def test_metadata_of_the_object_never_reaches_a_response(
    stack: Stack, owner: dict[str, Any], http: httpx.Client
) -> None:
    record = upload_recording(stack, owner)
    cached_before = cached_files(stack)
    requests = [{}, {"Range": "bytes=0-9"}, {"Range": "bytes=0-"}, {"If-Match": "*"}]
    before = [read_headers(http, record["url"], **headers) for headers in requests]
    bucket, key = "records", f"{owner['id']}/{record['id']}.mp3"
    tags = Tags.new_object_tags()
    tags["secret"] = "tag"
    metadata: dict[str, str | list[str] | tuple[str]] = {
        "Cache-Control": "public, max-age=999",
        "Content-Disposition": "attachment; filename=metadata.html",
        "Content-Encoding": "gzip",
        "Content-Language": "xx",
        "Content-Type": "text/html",
    }
    settings = load(SetupSettings, stack.environment("setup"))
    root = {"access_key": settings.minio_root_user, "secret_key": settings.minio_root_password}
    async with make_session() as session:
        admin = make_client(settings.store, session, **root)
        rule = Rule(ENABLED, rule_filter=Filter(prefix=owner["id"]), expiration=Expiration(days=365))
        await admin.set_bucket_lifecycle(bucket, LifecycleConfig([rule]))
        await admin.copy_object(
            bucket,
            key,
            CopySource(bucket, key),
            metadata=metadata,
            metadata_directive=REPLACE,
            tags=tags,
            tagging_directive=REPLACE,
        )
        wait_until(lambda: cached_files(stack) <= cached_before)
        try:
            # The whole MP3 comes last: once it is cached, the gateway no longer asks MinIO for ranges.
            after = [read_headers(http, record["url"], **headers) for headers in reversed(requests)][::-1]
            assert read_headers(http, record["url"]) == before[0]
        finally:
            await admin.delete_bucket_lifecycle(bucket)
    assert after == before
