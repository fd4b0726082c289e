"""The gateway's cache of downloads, TLS in front of it, and scripts of other sites: what settings decide."""

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
from deploy.client import Client
from deploy.local.ports import LOOPBACK
from deploy.local.stack import Stack
from records.settings import SetupSettings
from records.storage import make_client, make_session
from tests.integration.reading import BOUND_SECONDS, until
from tests.integration.sounds import LARGE, SMALL, wav_of
from tests.raw_connection import make_request_head
from tests.stacks import temporary_stack
from tests.upload_requests import NOBODY
from tests.wavs import Wav, silence

SITE = "https://player.example"


@pytest.fixture(scope="module")
def chosen() -> Iterator[Stack]:
    """A stack that forgets downloads after a second, stands behind TLS, and lets one site's scripts in."""
    settings = {
        "CACHE_SECONDS": "1",
        "TRUSTED_PROXY": LOOPBACK,
        "CORS_ORIGINS": SITE,
        "MAX_UPLOAD_BYTES": "",
        "DOWNLOADS": "",
    }
    with temporary_stack(settings) as stack:
        yield stack


@pytest.fixture
def http(chosen: Stack) -> Iterator[httpx.Client]:
    with Client(chosen.base_url) as client:
        yield client.http


@pytest.fixture(scope="module")
def ann(chosen: Stack) -> dict[str, Any]:
    with Client(chosen.base_url) as client:
        return client.create_user("Ann")


def upload(stack: Stack, user: dict[str, Any], kind: str = SMALL) -> dict[str, Any]:
    with Client(stack.base_url) as client:
        return client.upload_stream([wav_of(kind)], user["token"])


def kept(stack: Stack) -> list[Path]:
    """The MP3s in the gateway's cache."""
    folder = stack.supervisor.log("gateway").parents[1] / "gateway" / "cache"
    return [path for path in folder.rglob("*") if path.is_file()]


def peers(pid: int, port: int) -> int:
    """How many connections a process and its children have to a port here."""
    process = psutil.Process(pid)
    count = 0
    for each in (process, *process.children()):
        # nginx has a child that reads its cache in at the start, and then ends.
        with suppress(psutil.NoSuchProcess):
            connections = each.net_connections("tcp4")
            count += sum(bool(one.raddr) and one.raddr.port == port for one in connections)
    return count


def test_a_setting_of_nothing_is_its_default(chosen: Stack) -> None:
    environment = chosen.environment("records")
    assert (environment["MAX_UPLOAD_BYTES"], environment["DOWNLOADS"]) == (str(4 * 1024**3), "accel")


# The cache


def test_what_has_been_played_is_played_without_the_store_and_the_rest_is_503(
    chosen: Stack, ann: dict[str, Any], http: httpx.Client
) -> None:
    played, other = upload(chosen, ann), upload(chosen, ann)
    mp3 = http.get(played["url"]).content
    chosen.stop_part("minio")
    try:
        assert http.get(played["url"]).content == mp3
        part = http.get(played["url"], headers={"Range": "bytes=100-199"})
        assert (part.status_code, part.content) == (206, mp3[100:200])
        refused = http.get(other["url"])
        assert (refused.status_code, refused.json()["type"]) == (503, "/problems/unavailable")
        assert int(refused.headers["Retry-After"]) > 0
    finally:
        chosen.start_part("minio")
    assert http.get(other["url"]).status_code == 200


def test_a_store_that_hangs_is_away_and_the_error_is_no_song(
    chosen: Stack, ann: dict[str, Any], http: httpx.Client
) -> None:
    record = upload(chosen, ann)
    minio = psutil.Process(chosen.pid("minio"))
    minio.suspend()
    try:
        answer = http.get(f"{record['url']}&download=1", headers={"Origin": SITE})
    finally:
        minio.resume()
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/unavailable")
    assert "Content-Disposition" not in answer.headers
    assert answer.headers["Access-Control-Allow-Origin"] == SITE


def test_who_has_waited_long_enough_for_another_listener_hears_the_range(
    chosen: Stack, ann: dict[str, Any]
) -> None:
    record = upload(chosen, ann)
    minio = psutil.Process(chosen.pid("minio"))
    gateway = chosen.pid("gateway")
    minio.suspend()
    try:
        before = peers(gateway, chosen.ports.minio)
        with ThreadPoolExecutor(3) as pool:
            asked = [
                pool.submit(httpx.get, record["url"], headers={"Range": "bytes=0-"}, trust_env=False)
                for _ in range(3)
            ]
            # Each has a connection of its own, so none waits for another any more.
            until(lambda: peers(gateway, chosen.ports.minio) >= before + 3)
            minio.resume()
            answers = [each.result() for each in asked]
    finally:
        minio.resume()
    assert [answer.status_code for answer in answers] == [206] * 3
    assert {answer.headers["Accept-Ranges"] for answer in answers} == {"bytes"}
    assert {len(answer.content) for answer in answers} == {record["size_bytes"]}


def test_one_mp3_is_kept_once_however_often_it_is_asked_for(
    chosen: Stack, ann: dict[str, Any], http: httpx.Client
) -> None:
    url = upload(chosen, ann)["url"]
    until(lambda: not kept(chosen))
    answers = [http.get(url, headers={"Range": "bytes=0-"}) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [206] * 5
    assert len(kept(chosen)) == 1


def test_a_part_of_what_is_not_in_the_cache_does_not_fetch_the_rest(
    chosen: Stack, ann: dict[str, Any], http: httpx.Client
) -> None:
    record = upload(chosen, ann, LARGE)
    until(lambda: not kept(chosen))
    part = http.get(record["url"], headers={"Range": "bytes=-100"})
    assert (part.status_code, len(part.content)) == (206, 100)
    assert kept(chosen) == []


def test_a_deleted_record_is_refused_at_once_and_leaves_the_cache(
    chosen: Stack, ann: dict[str, Any], http: httpx.Client
) -> None:
    record = upload(chosen, ann)
    assert http.get(record["url"]).status_code == 200
    assert http.delete(f"/records/{record['id']}", auth=(ann["id"], ann["token"])).status_code == 204
    assert http.get(record["url"]).status_code == 404
    until(lambda: not kept(chosen))


def test_two_hundred_listeners_of_a_new_record_all_hear_it(chosen: Stack, ann: dict[str, Any]) -> None:
    with Client(chosen.base_url) as client:
        wav = Wav(bits=8, channels=1, rate=8000).build(silence(240.0, rate=8000, channels=1))
        record = client.upload_stream([wav], ann["token"])

    def listen(_: int) -> tuple[int, int]:
        answer = httpx.get(record["url"], headers={"Range": "bytes=0-"}, timeout=60, trust_env=False)
        return answer.status_code, len(answer.content)

    with ThreadPoolExecutor(200) as pool:
        heard = set(pool.map(listen, range(200)))
    assert heard == {(206, record["size_bytes"])}


def test_ten_thousand_aborted_downloads_leave_no_connection_behind(
    chosen: Stack, ann: dict[str, Any], http: httpx.Client
) -> None:
    record = upload(chosen, ann, LARGE)
    path = record["url"].removeprefix(chosen.base_url)
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    gateway, records = chosen.pid("gateway"), chosen.pid("records")

    def abort(number: int) -> None:
        with socket.create_connection((LOOPBACK, chosen.ports.gateway)) as connection:
            connection.sendall(request)
            # Some wait for the first bytes, others go before there are any.
            if number % 2:
                assert connection.recv(64).startswith(b"HTTP/1.1 200")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(abort, range(10_000)))
    # As many stay open for the next request as the gateway keeps, two workers of 32 each.
    until(lambda: peers(gateway, chosen.ports.minio) <= 64 and peers(gateway, chosen.ports.records) <= 64)
    assert peers(records, chosen.ports.minio) <= 10
    assert len(http.get(record["url"]).content) == record["size_bytes"]


def begin(stack: Stack, url: str, *lines: str) -> socket.socket:
    """A listener who has asked, and can hold so little that most of the MP3 must wait for its reading."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(BOUND_SECONDS)
    connection.connect((LOOPBACK, stack.ports.gateway))
    connection.sendall(make_request_head("GET", url.removeprefix(stack.base_url), stack.base_url, *lines))
    return connection


def read_to_the_end(connection: socket.socket) -> Iterator[bytes]:
    """What still comes, until the other side closes."""
    with suppress(ConnectionResetError):
        while piece := connection.recv(1 << 16):
            yield piece


def test_slow_listeners_cost_the_service_nothing_and_hear_all_while_the_others_play(
    chosen: Stack, ann: dict[str, Any], http: httpx.Client
) -> None:
    record = upload(chosen, ann, LARGE)
    mp3 = http.get(record["url"]).content
    service = psutil.Process(chosen.pid("records"))
    before = service.memory_info().rss
    with ExitStack() as open_ones:
        slow = [
            open_ones.enter_context(begin(chosen, record["url"], "Connection: close")) for _ in range(200)
        ]
        heard = [connection.recv(1024) for connection in slow]
        for _ in range(20):
            assert http.get(record["url"]).content == mp3
            pieces = [connection.recv(1024) for connection in slow]
            assert all(pieces)
            heard = [begun + piece for begun, piece in zip(heard, pieces, strict=True)]
        assert peers(chosen.pid("gateway"), chosen.ports.records) <= 64
        assert service.memory_info().rss - before < 10 * 2**20
        # The rest of a few, or it would take long.
        for begun, connection in list(zip(heard, slow, strict=True))[::50]:
            answer = begun + b"".join(read_to_the_end(connection))
            assert answer.startswith(b"HTTP/1.1 200")
            assert answer.partition(b"\r\n\r\n")[2] == mp3


@pytest.fixture(scope="module")
def long_record(chosen: Stack, ann: dict[str, Any]) -> dict[str, Any]:
    """48 MB, more than Linux lets sockets hold by default: the store is not done before it is listened to."""
    with Client(chosen.base_url) as client:
        wav = Wav(bits=8, channels=1, rate=8000).build(silence(6000.0, rate=8000, channels=1))
        return client.upload_stream([wav], ann["token"])


@pytest.mark.parametrize("part", ["gateway", "minio"])
def test_after_a_restart_in_the_middle_the_players_next_range_works(
    chosen: Stack, long_record: dict[str, Any], part: str
) -> None:
    # A part is not kept, so that its bytes come from the store while it is listened to.
    with begin(chosen, long_record["url"], "Range: bytes=1-", "Connection: close") as listener:
        answer = listener.recv(1024)
        chosen.stop_part(part)
        try:
            answer += b"".join(read_to_the_end(listener))
        finally:
            chosen.start_part(part)
    head, _, begun = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 206")
    # It was under way.
    assert 0 < len(begun) < long_record["size_bytes"] - 1
    # Another stack's client would keep a connection that is no more.
    with Client(chosen.base_url) as client:

        def listen(span: str) -> bytes:
            headers = {"Range": f"bytes={span}", "If-Range": f'"{long_record["sha256"]}"'}
            answer = client.http.get(long_record["url"], headers=headers)
            assert answer.status_code == 206
            return answer.content

        mp3 = listen("0-0") + begun + listen(f"{1 + len(begun)}-")
    assert hashlib.sha256(mp3).hexdigest() == long_record["sha256"]


# The store's headers


def tells(http: httpx.Client, url: str, **headers: str) -> list[tuple[str, str]]:
    """All headers of a download but those that each has anew; one that is there twice is there twice."""
    answer = http.get(url, headers=headers)
    assert answer.status_code in (200, 206)
    return sorted(pair for pair in answer.headers.multi_items() if pair[0] not in ("date", "x-request-id"))


async def test_what_the_store_knows_of_an_object_does_not_get_into_an_answer(
    chosen: Stack, ann: dict[str, Any], http: httpx.Client
) -> None:
    record = upload(chosen, ann)
    ways = [{}, {"Range": "bytes=0-9"}, {"Range": "bytes=0-"}, {"If-Match": "*"}]
    before = [tells(http, record["url"], **way) for way in ways]
    bucket, key = "records", f"{ann['id']}/{record['id']}.mp3"
    tags = Tags.new_object_tags()
    tags["secret"] = "tag"
    metadata: dict[str, str | list[str] | tuple[str]] = {
        "Cache-Control": "public, max-age=999",
        "Content-Disposition": "attachment; filename=metadata.html",
        "Content-Encoding": "gzip",
        "Content-Language": "xx",
        "Content-Type": "text/html",
    }
    settings = load(SetupSettings, chosen.environment("setup"))
    root = {"access_key": settings.minio_root_user, "secret_key": settings.minio_root_password}
    async with make_session() as session:
        owner = make_client(settings.store, session, **root)
        rule = Rule(ENABLED, rule_filter=Filter(prefix=ann["id"]), expiration=Expiration(days=365))
        await owner.set_bucket_lifecycle(bucket, LifecycleConfig([rule]))
        await owner.copy_object(
            bucket,
            key,
            CopySource(bucket, key),
            metadata=metadata,
            metadata_directive=REPLACE,
            tags=tags,
            tagging_directive=REPLACE,
        )
        until(lambda: not kept(chosen))
        try:
            # The other ways first, so that the store is asked for each.
            after = [tells(http, record["url"], **way) for way in reversed(ways)][::-1]
            assert tells(http, record["url"]) == before[0]
        finally:
            await owner.delete_bucket_lifecycle(bucket)
    assert after == before


# TLS in front


@pytest.mark.parametrize(("forwarded", "scheme"), [("https", "https"), ("http", "http"), ("gopher", "http")])
def test_a_trusted_proxy_says_which_scheme_the_link_has(
    chosen: Stack, ann: dict[str, Any], http: httpx.Client, forwarded: str, scheme: str
) -> None:
    headers = {
        "Authorization": f"Bearer {ann['token']}",
        "Content-Type": "audio/wav",
        "X-Forwarded-Proto": forwarded,
        "Host": "[2001:db8::1]:8443",
    }
    answer = http.post("/records", content=wav_of(SMALL), headers=headers)
    record = answer.json()
    link = f"{scheme}://[2001:db8::1]:8443/record?id={record['id']}&user={ann['id']}"
    assert (record["url"], answer.headers["Location"]) == (link, link)


# Scripts of other sites


def cors_of(answer: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name.startswith("access-control-")}


def test_the_scripts_of_the_site_that_is_named_may_read_everything(
    chosen: Stack, ann: dict[str, Any], http: httpx.Client
) -> None:
    url = upload(chosen, ann)["url"]
    ways: list[dict[str, str]] = [{}, {"Range": "bytes=0-9"}, {"If-Match": "*"}, {"If-None-Match": "*"}]
    answers = [http.get(url, headers={"Origin": SITE, **headers}) for headers in ways]
    answers += [http.get(path, headers={"Origin": SITE}) for path in ("/users/me", "/records", "/record")]
    assert [answer.status_code for answer in answers] == [200, 206, 200, 304, 401, 401, 400]
    for answer in answers:
        cors = cors_of(answer)
        assert "Content-Range" in cors.pop("access-control-expose-headers")
        assert cors == {"access-control-allow-origin": SITE}
        assert answer.headers.get_list("Vary") == ["Origin"]


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/users", {"POST", "OPTIONS"}),
        ("/users/me", {"GET", "HEAD", "DELETE", "OPTIONS"}),
        ("/records", {"GET", "HEAD", "POST", "OPTIONS"}),
        ("/record?id=x", {"GET", "HEAD", "OPTIONS"}),
        (f"/records/{NOBODY}", {"GET", "HEAD", "DELETE", "OPTIONS"}),
    ],
)
def test_a_preflight_names_the_methods_of_its_address_to_the_site_that_is_named(
    http: httpx.Client, path: str, methods: set[str]
) -> None:
    asked = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "Range, If-Range"}
    answer = http.options(path, headers={"Origin": SITE, **asked})
    assert (answer.status_code, answer.content) == (204, b"")
    cors = cors_of(answer)
    assert set(cors["access-control-allow-methods"].split(", ")) == methods
    assert {"range", "if-range", "authorization"} <= set(cors["access-control-allow-headers"].split(", "))
    assert cors["access-control-allow-origin"] == SITE
    assert int(cors["access-control-max-age"]) > 0


@pytest.mark.parametrize("origin", [None, "https://evil.example", f"{SITE}.evil.example", "null"])
def test_the_scripts_of_other_sites_may_read_nothing(
    chosen: Stack, ann: dict[str, Any], http: httpx.Client, origin: str | None
) -> None:
    url = upload(chosen, ann)["url"]
    headers = {"Origin": origin} if origin else {}
    preflight = headers | {"Access-Control-Request-Method": "PUT"}
    answers = [
        *(http.get(url, headers=headers), http.get(url, headers={**headers, "Range": "bytes=0-9"})),
        *(http.get("/records", headers=headers), http.options(url, headers=headers)),
        *(http.options(url, headers=preflight), http.options("/users", headers=preflight)),
    ]
    assert [answer.status_code for answer in answers] == [200, 206, 401, 204, 204, 204]
    for answer in answers:
        assert cors_of(answer) == {}
        # A cache may not give this answer to the site that is named.
        assert answer.headers.get_list("Vary") == ["Origin"]


def test_a_preflight_for_a_host_that_is_not_ours_is_refused(http: httpx.Client) -> None:
    headers = {"Origin": SITE, "Access-Control-Request-Method": "GET", "Host": "evil.example"}
    answer = http.options("/record", headers=headers)
    assert (answer.status_code, answer.headers["Content-Type"]) == (421, "application/problem+json")
