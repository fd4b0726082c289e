"""How the object store is addressed, and which of its failures an upload gets over, without a store."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from common.problems import Unavailable
from records.settings import StoreSettings
from records.storage import (
    FIRST_PAUSE_SECONDS,
    STORE_AWAY,
    ObjectStore,
    ObjectWriter,
    make_client,
    make_session,
)


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://127.0.0.1:9000",
        "https://s3.example",
        # The library would put these buckets into the host, as records.s3.…, which the gateway does not know.
        "https://s3.eu-central-1.amazonaws.com",
        "https://oss-eu-central-1.aliyuncs.com",
    ],
)
async def test_the_bucket_stands_in_the_path_whatever_the_endpoint(endpoint: str) -> None:
    settings = StoreSettings(
        s3_endpoint=endpoint,
        s3_access_key="key",
        s3_secret_key="secret",
        s3_region="eu-central-1",
    )
    async with make_session() as session:
        store = ObjectStore(make_client(settings, session), settings.s3_bucket)
        presigned = await store.presign("user/record.mp3")
    assert presigned.startswith("/records/user/record.mp3?X-Amz-Algorithm=")


def make_error(code: str) -> str:
    return f"<Error><Code>{code}</Code><Message>Try later</Message></Error>"


class FailingStore:
    """A store that keeps the body of every request, and whose first response is a failure."""

    def __init__(self, status: int, text: str, content_type: str) -> None:
        self.bodies: list[bytes] = []
        self._failure = (status, text, content_type)

    async def respond(self, request: web.Request) -> web.Response:
        self.bodies.append(await request.read())
        status, text, content_type = self._failure
        if len(self.bodies) > 1:
            return web.Response(headers={"ETag": '"0"'})
        if not status:
            assert request.transport
            request.transport.abort()
        return web.Response(status=status or 200, text=text, content_type=content_type)

    @asynccontextmanager
    async def open_writer(self, retry_seconds: float) -> AsyncIterator[ObjectWriter]:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self.respond)
        async with TestServer(app) as server, make_session() as session:
            settings = StoreSettings(
                s3_endpoint=f"http://{server.host}:{server.port}", s3_access_key="key", s3_secret_key="secret"
            )
            yield ObjectWriter(ObjectStore(make_client(settings, session), "records"), retry_seconds)


XML, HTML = "application/xml", "text/html"
PASSING = {
    "slow down": (503, make_error("SlowDownWrite"), XML),
    "unavailable": (503, make_error("ServiceUnavailable"), XML),
    "starting": (503, make_error("XMinioServerNotInitialized"), XML),
    "internal error": (500, make_error("InternalError"), XML),
    "a proxy in front": (502, "<h1>Bad gateway</h1>", HTML),
    "no body": (503, "", XML),
    "broken connection": (0, "", XML),
}
LASTING = {
    "access denied": (403, make_error("AccessDenied"), XML),
    "bucket full": (400, make_error("XMinioAdminBucketQuotaExceeded"), XML),
    "disk full": (507, make_error("XMinioStorageFull"), XML),
    "no bucket": (404, make_error("NoSuchBucket"), XML),
}


@pytest.mark.parametrize("failure", PASSING.values(), ids=PASSING)
async def test_a_put_that_fails_in_passing_is_sent_again_from_its_first_byte(
    failure: tuple[int, str, str],
) -> None:
    store = FailingStore(*failure)
    async with store.open_writer(FIRST_PAUSE_SECONDS) as writer:
        writer.open("user/record.mp3", lambda: False)
        await writer.write(b"sound")
        assert (await writer.finish(b"head")).size_bytes == 9
    assert store.bodies == [b"headsound"] * 2


@pytest.mark.parametrize("failure", LASTING.values(), ids=LASTING)
async def test_a_put_that_fails_for_good_is_not_sent_again(failure: tuple[int, str, str]) -> None:
    store = FailingStore(*failure)
    async with store.open_writer(15) as writer:
        writer.open("user/record.mp3", lambda: False)
        with pytest.raises(Unavailable, match="refuses the request with the error"):
            await writer.finish(b"head")
    assert store.bodies == [b"head"]


@pytest.mark.parametrize(("retry_seconds", "is_lost"), [(0, False), (15, True)])
async def test_a_call_is_not_repeated_after_its_time_or_for_a_lost_lease(
    retry_seconds: float, is_lost: bool
) -> None:
    store = FailingStore(*PASSING["slow down"])
    async with store.open_writer(retry_seconds) as writer:
        writer.open("user/record.mp3", lambda: is_lost)
        with pytest.raises(Unavailable):
            await writer.finish(b"head")
    assert store.bodies == [b"head"]


async def test_a_cancelled_upload_repeats_no_call() -> None:
    store = FailingStore(*PASSING["slow down"])

    def cancel() -> bool:
        task.cancel()
        return False

    async with store.open_writer(15) as writer:
        writer.open("user/record.mp3", cancel)
        task = asyncio.create_task(writer.finish(b"head"))
        with pytest.raises(asyncio.CancelledError):
            await task
    assert store.bodies == [b"head"]


async def test_a_store_that_accepts_no_connection_counts_as_away_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("records.storage.CONNECT_TIMEOUT_SECONDS", 0.1)
    with ExitStack() as opened:
        full = opened.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        host, port = full.getsockname()
        # The kernel accepts as many connections as the backlog holds, and lets all others wait.
        for _ in range(2):
            waiting = opened.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex((host, port))
        async with make_session() as session:
            settings = StoreSettings(
                s3_endpoint=f"http://{host}:{port}", s3_access_key="key", s3_secret_key="secret"
            )
            with pytest.raises(Unavailable, match=STORE_AWAY) as refusal:
                await ObjectStore(make_client(settings, session), "records").check()
    assert isinstance(refusal.value.__cause__, TimeoutError)
