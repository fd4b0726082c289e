"""A stack whose object store has several nodes, of which some are away, come back, or lack objects."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from common.settings import load
from deploy.client import Client
from deploy.local.stack import Stack
from deploy.setup import SetupSettings, set_up
from records.storage import LOST_OBJECT, STORE_AWAY, ObjectStore, make_client, make_session
from tests.drills.store import QUICK_KINDS, SETTINGS, StoreDrill
from tests.integration.new_log_lines import NewLogLines
from tests.integration.waiting import wait_until
from tests.minio_nodes import NO_DATABASE, MinioNodes, minio_nodes
from tests.response_checks import assert_problem
from tests.stacks import temporary_stack
from tests.upload_requests import TINY_WAV, WAV_TYPE, bearer

# Past the gateway's cache, from it, a range, the waveform and the original.
WAYS = 5
STORES = 3
SUFFIXES = ("mp3", "wav", "waveform")


async def test_nothing_is_lost_or_called_lost_while_nodes_of_the_store_are_away_and_come_back(
    tmp_path: Path,
) -> None:
    with minio_nodes(tmp_path) as nodes, temporary_stack({**nodes.settings, **SETTINGS}) as stack:
        drill = StoreDrill(stack, nodes, QUICK_KINDS, print)
        await drill.run(uploads=3, downloads=60, failed_uploads=0)
    assert drill.ledger.violations == []


class Strangers(NamedTuple):
    """A stack, and stores that know nothing of each other. The stack takes them for the nodes of one store.

    A node that has just come back answers 404 for seconds. Each of these does so for good, for the objects of
    the others.
    """

    stack: Stack
    stores: list[MinioNodes]

    @contextmanager
    def without(self, number: int) -> Iterator[None]:
        """Kills one of the stores, and starts it again at the end."""
        self.stores[number].kill(0)
        try:
            yield
        finally:
            self.stores[number].start(0)
            self.stores[number].wait_until_ready()

    async def upload_to(self, target: int | None, http: httpx.Client, user: dict[str, Any]) -> dict[str, Any]:
        """Uploads, and moves all objects of the record to one of the stores, or removes them."""
        record = upload(http, user)
        for suffix in SUFFIXES:
            await self.move(f"{user['id']}/{record['id']}.{suffix}", target)
        return record

    async def move(self, key: str, target: int | None) -> None:
        """Moves an object to one of the stores, or removes it."""
        data = b""
        async with make_session() as session:
            stores = [
                ObjectStore(make_client(read_settings(each).store, session), "records")
                for each in self.stores
            ]
            for store in stores:
                if await store.find(key):
                    data = b"".join([piece async for piece in await store.open(key)])
                    await store.remove(key)
            if target is not None:
                await stores[target].put(key, data)


def read_settings(store: MinioNodes) -> SetupSettings:
    return load(SetupSettings, {**NO_DATABASE, **store.settings})


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Strangers]:
    with ExitStack() as opened:
        stores = [
            opened.enter_context(minio_nodes(tmp_path_factory.mktemp("store"), count=1))
            for _ in range(STORES)
        ]
        endpoints = ",".join(store.endpoints[0] for store in stores)
        stack = opened.enter_context(temporary_stack({**stores[0].settings, "S3_ENDPOINT": endpoints}))
        yield Strangers(stack, stores)


@pytest.fixture
def user(strangers: Strangers) -> dict[str, Any]:
    with Client(strangers.stack.base_url) as client:
        return client.create_user("Ann")


def upload(http: httpx.Client, user: dict[str, Any]) -> dict[str, Any]:
    headers = {**WAV_TYPE, **bearer(user)}
    response = http.post("/records?keep_original=true", content=TINY_WAV, headers=headers)
    assert response.status_code == 201
    return dict(response.json())


def get_in_all_ways(http: httpx.Client, user: dict[str, Any], record: dict[str, Any]) -> list[httpx.Response]:
    path = f"/records/{record['id']}"
    responses = [
        http.get(record["url"], headers={"If-Match": "*"}),
        http.get(record["url"], headers={"Range": "bytes=1-9"}),
        http.get(record["url"]),
        http.get(f"{path}/waveform", params={"user": user["id"]}),
        http.get(f"{path}/original", headers=bearer(user)),
    ]
    assert len(responses) == WAYS
    return responses


def has_status(gateway: NewLogLines, ending: str) -> bool:
    return any(line["upstream_status"].endswith(ending) for line in gateway.lines())


async def test_a_404_of_one_node_is_asked_of_another_before_an_object_counts_as_lost(
    strangers: Strangers, user: dict[str, Any]
) -> None:
    gateway, service = (NewLogLines(strangers.stack, name) for name in ("gateway", "records"))
    with Client(strangers.stack.base_url) as client:
        for number in range(6):
            record = await strangers.upload_to(number % STORES, client.http, user)
            responses = get_in_all_ways(client.http, user, record)
            assert [response.status_code for response in responses] == [200, 206, 200, 200, 200]
            assert responses[-1].content == TINY_WAV
    for ending in ("404, 200", "404, 206"):
        wait_until(partial(has_status, gateway, ending))
    wait_until(lambda: "a node of the store lacks what another node has" in service.text())
    assert "object lost" not in service.text()


async def test_an_object_that_no_node_has_is_lost(strangers: Strangers, user: dict[str, Any]) -> None:
    with Client(strangers.stack.base_url) as client:
        record = await strangers.upload_to(None, client.http, user)
        service = NewLogLines(strangers.stack, "records")
        for response in get_in_all_ways(client.http, user, record):
            assert_problem(response, 503, "unavailable", LOST_OBJECT)
        wait_until(lambda: service.text().count('"object lost"') == WAYS)


async def test_an_object_that_most_nodes_lack_is_lost_although_another_node_is_away(
    strangers: Strangers, user: dict[str, Any]
) -> None:
    with Client(strangers.stack.base_url) as client:
        record = await strangers.upload_to(None, client.http, user)
        with strangers.without(0):
            # Also when nginx leaves out the node that has failed.
            for _ in range(2):
                for response in get_in_all_ways(client.http, user, record):
                    assert_problem(response, 503, "unavailable", LOST_OBJECT)


async def test_an_object_that_one_remaining_node_lacks_is_not_lost(
    strangers: Strangers, user: dict[str, Any]
) -> None:
    with Client(strangers.stack.base_url) as client:
        record = await strangers.upload_to(0, client.http, user)
        service = NewLogLines(strangers.stack, "records")
        with strangers.without(0), strangers.without(1):
            for _ in range(2):
                for response in get_in_all_ways(client.http, user, record):
                    assert_problem(response, 503, "unavailable", STORE_AWAY)
        assert "object lost" not in service.text()
        # At once, although nginx leaves a node out for ten seconds.
        responses = get_in_all_ways(client.http, user, record)
        assert [response.status_code for response in responses] == [200, 206, 200, 200, 200]


def test_a_download_needs_no_node_that_is_away(strangers: Strangers, user: dict[str, Any]) -> None:
    with Client(strangers.stack.base_url) as client:
        for number in range(STORES):
            with strangers.without(number):
                record = upload(client.http, user)
                responses = get_in_all_ways(client.http, user, record)
                assert [response.status_code for response in responses] == [200, 206, 200, 200, 200]


def test_status_shows_each_node(strangers: Strangers) -> None:
    def show() -> tuple[int, list[tuple[str, str]]]:
        options = [f"--{name}=127.0.0.1:{strangers.stack.ports.of(name)}" for name in ("users", "records")]
        options.append(f"--gateway=127.0.0.1:{strangers.stack.ports.gateway_status}")
        done = subprocess.run(
            [sys.executable, "-m", "records", "status", "--json", *options],
            env=strangers.stack.environment("records"),
            capture_output=True,
            check=False,
        )
        parts = json.loads(done.stdout)["parts"]
        return done.returncode, [(each["state"], each["detail"]) for each in parts if each["name"] == "store"]

    assert show() == (0, [("ready", "")] * STORES)
    with strangers.without(1):
        away = f"{strangers.stores[1].endpoints[0]}: {STORE_AWAY}; try again in 5 seconds."
        assert show() == (1, [("ready", ""), ("away", away), ("ready", "")])


async def test_the_set_up_and_readiness_need_no_node_that_is_away(strangers: Strangers) -> None:
    with strangers.without(0):
        await set_up(load(SetupSettings, strangers.stack.environment("setup")))
        with Client(strangers.stack.base_url) as client:
            assert client.http.get("/readyz/records").status_code == 200
