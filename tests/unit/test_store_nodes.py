"""Which node of the object store is asked, and what counts if the nodes say different things."""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from io import BytesIO

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from common.problems import Unavailable
from deploy.setup import make_bucket
from records.settings import StoreSettings
from records.storage import STORE_AWAY, ObjectStore, ObjectWriter, make_client, make_session, means_lost

KEY = "user/record.mp3"
ABSENT, AWAY, BUSY, REFUSING, WORKING, BREAKING, HANGING, OWNED = 404, 0, 503, 403, 200, -1, -2, 409
CODES = {
    ABSENT: "NoSuchKey",
    BUSY: "SlowDownRead",
    REFUSING: "AccessDenied",
    OWNED: "BucketAlreadyOwnedByYou",
}


class Node:
    """A node of a store: it answers every request alike, and keeps what it was asked."""

    def __init__(self, state: int) -> None:
        self.state = state
        self.asked: list[tuple[str, str, bytes]] = []
        self.hangs = asyncio.Event()

    async def respond(self, request: web.Request) -> web.Response:
        self.asked.append((request.method, request.headers["Host"], await request.read()))
        if self.state == HANGING:
            self.hangs.set()
            await asyncio.Event().wait()
        if self.state == BREAKING:
            assert request.transport
            request.transport.abort()
        if self.state in (WORKING, BREAKING):
            return web.Response(headers={"ETag": '"0"'}, body=b"sound")
        if self.state == OWNED and request.method == "HEAD":
            return web.Response(status=ABSENT)
        body = f"<Error><Code>{CODES[self.state]}</Code><Message>No</Message></Error>"
        return web.Response(status=self.state, text=body, content_type="application/xml")


@asynccontextmanager
async def open_nodes(*states: int) -> AsyncIterator[tuple[ObjectStore, list[Node], list[str]]]:
    """Opens a store whose nodes are in these states. The calls begin with the first node."""
    nodes = [Node(state) for state in states]
    endpoints = []
    async with AsyncExitStack() as opened:
        for node in nodes:
            app = web.Application()
            app.router.add_route("*", "/{path:.*}", node.respond)
            server = await opened.enter_async_context(TestServer(app))
            endpoints.append(f"http://{server.host}:{server.port}")
            if node.state == AWAY:
                await server.close()
        session = await opened.enter_async_context(make_session())
        settings = StoreSettings(s3_endpoint=",".join(endpoints), s3_access_key="key", s3_secret_key="secret")
        yield ObjectStore(make_client(settings, session), "records"), nodes, endpoints


@pytest.fixture(autouse=True)
def first_node_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("records.storage.random.randrange", lambda _: 0)


@pytest.mark.parametrize("failure", [AWAY, BUSY, ABSENT, BREAKING])
async def test_what_one_node_fails_to_do_another_node_does_at_once(failure: int) -> None:
    async with open_nodes(failure, failure, WORKING) as (store, nodes, _):
        await store.put(KEY, b"sound")
        assert [body for _, _, body in nodes[2].asked] == [b"sound"]
        assert await store.find(KEY)
        assert b"".join([piece async for piece in await store.open(KEY)]) == b"sound"
        await store.check()


async def test_calls_go_to_the_node_that_answered_last() -> None:
    async with open_nodes(BUSY, WORKING, WORKING) as (store, nodes, _):
        for _ in range(3):
            await store.put(KEY, b"sound")
        assert [len(node.asked) for node in nodes] == [1, 3, 0]
        nodes[1].state, nodes[2].state = BUSY, BUSY
        nodes[0].state = WORKING
        await store.put(KEY, b"sound")
        assert [len(node.asked) for node in nodes] == [2, 4, 1]


async def test_calls_at_the_same_time_go_to_the_same_node_and_leave_it_if_it_hangs() -> None:
    async with open_nodes(WORKING, WORKING) as (store, nodes, _):
        await asyncio.gather(*(store.put(KEY, b"sound") for _ in range(5)))
        assert [len(node.asked) for node in nodes] == [5, 0]
        nodes[0].state = HANGING
        hanging = asyncio.ensure_future(store.check())
        await nodes[0].hangs.wait()
        hanging.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hanging
        await store.check()
        assert [len(node.asked) for node in nodes] == [6, 1]


async def test_a_request_is_signed_for_the_node_that_gets_it() -> None:
    async with open_nodes(BUSY, WORKING) as (store, nodes, endpoints):
        await store.put(KEY, b"sound")
        hosts = [node.asked[0][1] for node in nodes]
    assert hosts == [endpoint.removeprefix("http://") for endpoint in endpoints]


async def test_a_url_for_the_gateway_is_signed_for_the_first_node() -> None:
    settings = {"s3_access_key": "key", "s3_secret_key": "secret"}
    signed = []
    async with make_session() as session:
        for endpoint in ("http://one:9000", "http://one:9000, http://two:9000", "http://two:9000"):
            client = make_client(StoreSettings(s3_endpoint=endpoint, **settings), session)
            url = await client.presigned_get_object("records", KEY)
            signed.append(url.partition("/records/")[0])
    assert signed == ["http://one:9000", "http://one:9000", "http://two:9000"]


async def test_no_object_is_lost_that_any_node_has() -> None:
    async with open_nodes(ABSENT, ABSENT, ABSENT, ABSENT) as (store, nodes, _):
        assert await store.find(KEY) is None
        assert [len(node.asked) for node in nodes] == [1] * 4
        with pytest.raises(Unavailable) as refusal:
            await store.open(KEY)
        assert means_lost(refusal.value)
        nodes[3].state = WORKING
        assert await store.find(KEY)


@pytest.mark.parametrize(
    ("states", "is_believed"),
    [
        ((AWAY, ABSENT, ABSENT, ABSENT), True),
        ((AWAY, ABSENT, BREAKING, ABSENT, ABSENT), True),
        ((ABSENT, AWAY, BUSY, ABSENT), False),
        ((ABSENT, AWAY, AWAY, AWAY), False),
        ((AWAY, BUSY, BUSY, ABSENT), False),
        ((AWAY, ABSENT), False),
        ((ABSENT,), True),
    ],
)
async def test_an_object_is_lost_only_if_more_than_half_of_the_nodes_say_so(
    states: tuple[int, ...], is_believed: bool
) -> None:
    async with open_nodes(*states) as (store, _, _):
        with pytest.raises(Unavailable) as refusal:
            await store.open(KEY)
        assert means_lost(refusal.value) == is_believed
        if is_believed:
            assert await store.find(KEY) is None
        else:
            with pytest.raises(Unavailable):
                await store.find(KEY)


async def test_a_refusal_is_not_asked_of_another_node() -> None:
    async with open_nodes(REFUSING, WORKING) as (store, nodes, _):
        with pytest.raises(Unavailable, match="AccessDenied"):
            await store.put(KEY, b"sound")
        assert [len(node.asked) for node in nodes] == [1, 0]


async def test_if_all_nodes_are_away_the_store_is_away() -> None:
    async with open_nodes(AWAY, AWAY) as (store, _, _):
        with pytest.raises(Unavailable, match=STORE_AWAY):
            await store.put(KEY, b"sound")


@pytest.mark.parametrize("failure", [BREAKING, BUSY])
async def test_a_post_which_may_have_had_its_effect_is_left_to_its_caller(failure: int) -> None:
    async with open_nodes(failure, WORKING) as (store, nodes, _):
        with pytest.raises(Unavailable):
            await store.begin(KEY)
        # Only the writer can remove the multipart upload that the first POST may have begun.
        assert [len(node.asked) for node in nodes] == [1, 0]


async def test_a_bucket_that_a_failing_node_has_made_is_there() -> None:
    async with open_nodes(BREAKING, OWNED, OWNED) as (_, nodes, endpoints), make_session() as session:
        settings = StoreSettings(s3_endpoint=",".join(endpoints), s3_access_key="key", s3_secret_key="secret")
        await make_bucket(make_client(settings, session), "records")
        # aiohttp itself repeats what a connection breaks off.
        assert [{method for method, _, _ in node.asked} for node in nodes] == [
            {"HEAD", "PUT"},
            {"HEAD", "PUT"},
            {"HEAD"},
        ]


async def test_an_upload_goes_on_at_another_node_without_a_repetition_of_its_own() -> None:
    async with open_nodes(AWAY, BUSY, WORKING) as (store, nodes, _):
        writer = ObjectWriter(store, retry_seconds=0)
        writer.open(KEY, lambda: False)
        await writer.write(b"sound")
        assert (await writer.finish(b"head")).size_bytes == 9
        assert [body for _, _, body in nodes[2].asked] == [b"headsound"]


async def test_a_call_that_fails_at_every_node_keeps_none_of_its_bytes() -> None:
    async with open_nodes(BREAKING, BUSY, ABSENT) as (store, _, _):
        gc.collect()
        gc.disable()
        try:
            with pytest.raises(Unavailable):
                await store.put(KEY, b"these bytes")
            kept = [each for each in gc.get_objects() if isinstance(each, BytesIO)]
        finally:
            gc.enable()
    assert [each for each in kept if not each.closed and each.getvalue() == b"these bytes"] == []
