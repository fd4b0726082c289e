"""Processes of the stack stop and come back: what clients see meanwhile and afterwards."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from threading import Event
from typing import Any, NamedTuple
from uuid import UUID

import httpx
import psutil
import pytest
import pytest_asyncio

from deploy.client import Client
from deploy.local.stack import Stack
from tests.access_table import STATUSES, TwoUsers, send_to
from tests.integration.new_log_lines import NewLogLines
from tests.integration.recordings import LARGE, SMALL, make_wav, upload_kind, wav_pieces
from tests.integration.records_service import RecordsService, open_stack_service
from tests.integration.waiting import MAX_WAIT_SECONDS, has_ended, wait_until, wait_until_async
from tests.integration.watched_calls import Call, CallWatcher
from tests.response_checks import PROBLEM, assert_json, assert_problem
from tests.stacks import temporary_stack
from tests.upload_requests import TINY_WAV, WAV_TYPE, bearer
from tests.wavs import Wav, silence


@pytest.fixture(scope="module")
def fragile() -> Iterator[Stack]:
    """A stack whose processes these tests stop.

    With one encoder thread less audio waits for LAME, so more of the MP3 has been sent. Uploads do not wait
    for a store that a test has stopped.
    """
    settings = {"ENCODER_THREADS": "1", "STORE_RETRY_SECONDS": "0", "LEASE_SECONDS": "2"}
    with temporary_stack(settings) as stack:
        yield stack


@pytest.fixture
def client(fragile: Stack) -> Iterator[Client]:
    with Client(fragile.base_url) as client:
        yield client


@pytest.fixture
def owner(client: Client) -> dict[str, Any]:
    return client.create_user("Ann")


@pytest.fixture
def record(client: Client, owner: dict[str, Any]) -> dict[str, Any]:
    return client.upload_stream(iter([make_wav(SMALL)]), owner["token"])


def test_while_postgres_restarts_a_link_is_200_or_503(fragile: Stack, record: dict[str, Any]) -> None:
    over = Event()

    def request_link(_: int) -> set[int]:
        seen = set()
        with Client(fragile.base_url) as client:
            while not over.is_set():
                seen.add(client.http.head(record["url"]).status_code)
        return seen

    with ThreadPoolExecutor(6) as pool:
        statuses = pool.map(request_link, range(6))
        for _ in range(3):
            fragile.stop_process("postgres")
            fragile.start_process("postgres")
        over.set()
        assert set().union(*statuses) == {200, 503}


@pytest_asyncio.fixture
async def stack_service(fragile: Stack) -> AsyncIterator[RecordsService]:
    async with open_stack_service(fragile) as stack_service:
        yield stack_service


def upload(client: Client, token: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "audio/wav"}
    return client.http.post("/records", content=make_wav(SMALL), headers=headers)


def send_all(client: Client, token: str, url: str) -> dict[str, httpx.Response]:
    """Sends each kind of request once."""
    return {
        "POST /users": client.http.post("/users", json={"name": "Bob"}),
        "POST /records": upload(client, token),
        "GET /record": client.http.get(url),
        "HEAD /record": client.http.head(url),
        "/readyz/users": client.http.get("/readyz/users"),
        "/readyz/records": client.http.get("/readyz/records"),
        "/healthz": client.http.get("/healthz"),
    }


WELL = {
    "POST /users": 201,
    "POST /records": 201,
    "GET /record": 200,
    "HEAD /record": 200,
    "/readyz/users": 200,
    "/readyz/records": 200,
    "/healthz": 200,
}
WITHOUT = {
    "postgres": {**dict.fromkeys(WELL, 503), "/healthz": 200},
    # HEAD /record and POST /users need only PostgreSQL.
    "minio": {**WELL, "POST /records": 503, "GET /record": 503, "/readyz/records": 503},
}


def is_ready(client: Client, service: str) -> bool:
    return client.http.get(f"/readyz/{service}").status_code == 200


def assert_503_with_retry_after(what: str, response: httpx.Response) -> None:
    assert response.headers["content-type"] == PROBLEM, what
    assert int(response.headers["retry-after"]) > 0, what
    if not what.startswith("HEAD"):
        problem = response.json()
        assert problem["status"] == 503, what
        assert problem["type"] in {"/problems/unavailable", "/problems/not-ready"}, what
        assert problem["request_id"] == response.headers["x-request-id"], what


@pytest.mark.parametrize("store", ["postgres", "minio"])
def test_without_a_store_every_request_that_needs_it_is_503_until_the_store_is_back(
    fragile: Stack, client: Client, owner: dict[str, Any], record: dict[str, Any], store: str
) -> None:
    logs = [NewLogLines(fragile, "users"), NewLogLines(fragile, "records")]
    pids = {name: fragile.pid(name) for name in ("users", "records", "gateway")}
    seen: set[int] = set()
    fragile.stop_process(store)
    try:
        for _ in range(3):  # On kept connections, and then on new ones.
            responses = send_all(client, owner["token"], record["url"])
            assert {what: response.status_code for what, response in responses.items()} == WITHOUT[store]
            for what, response in responses.items():
                if response.status_code == 503:
                    assert_503_with_retry_after(what, response)
    finally:
        fragile.supervisor.start_process(store)

    def is_well() -> bool:
        responses = send_all(client, owner["token"], record["url"])
        seen.update(response.status_code for response in responses.values())
        return {what: response.status_code for what, response in responses.items()} == WELL

    wait_until(is_well)
    # PostgreSQL refuses connections with another error while it starts; that is also a 503.
    assert seen <= {200, 201, 503}
    assert pids == {name: fragile.pid(name) for name in pids}
    assert hashlib.sha256(client.download(record["url"])).hexdigest() == record["sha256"]
    for log in logs:
        assert "unexpected error" not in log.text()


@contextmanager
def held_upload(
    client: Client, owner: dict[str, Any], wav: bytes, key: str = "held"
) -> Iterator["Future[httpx.Response]"]:
    """Begins an upload, and sends its last audio when the block ends. Yields its response to come."""
    half_is_sent, may_go_on = Event(), Event()

    def body() -> Iterator[bytes]:
        yield wav[: -len(wav) // 20]
        half_is_sent.set()
        may_go_on.wait(MAX_WAIT_SECONDS)
        yield wav[-len(wav) // 20 :]

    headers = {**bearer(owner), **WAV_TYPE, "Idempotency-Key": key}
    with ThreadPoolExecutor(1) as threads:
        posting = threads.submit(client.http.post, "/records", content=body(), headers=headers)
        try:
            assert half_is_sent.wait(MAX_WAIT_SECONDS)
            yield posting
        finally:
            may_go_on.set()


def make_long_wav() -> bytes:
    """Returns a WAV of so many minutes that its multipart upload has begun before the last audio arrives."""
    return Wav(bits=8, channels=1, rate=8000).build(silence(1760.0, rate=8000, channels=1))


@pytest.mark.parametrize("kind", [SMALL, LARGE])
@pytest.mark.parametrize("store", ["postgres", "minio"])
async def test_an_upload_during_which_a_store_stops_is_503_and_leaves_nothing_once_the_store_is_back(
    fragile: Stack,
    client: Client,
    stack_service: RecordsService,
    owner: dict[str, Any],
    store: str,
    kind: str,
) -> None:
    log = NewLogLines(fragile, "records")
    wav = make_wav(SMALL) if kind == SMALL else make_long_wav()
    user_id = UUID(owner["id"])
    with held_upload(client, owner, wav) as posting:
        (row,) = await wait_until_async(partial(stack_service.rows, user_id))
        if kind == LARGE:
            await wait_until_async(partial(stack_service.multipart_uploads, row.object_key))
        fragile.stop_process(store)
    response = posting.result()
    fragile.start_process(store)
    assert response.status_code == 503, response.text
    assert_503_with_retry_after("POST /records", response)
    assert "unexpected error" not in log.text()
    for service in ("users", "records"):
        wait_until(partial(is_ready, client, service))
    await stack_service.engine.dispose()
    await stack_service.owner.dispose()
    assert "ready" not in [each.state for each in await stack_service.rows(user_id)]
    await stack_service.settle(user_id)
    assert await stack_service.rows(user_id) == []
    assert await stack_service.objects(user_id) == []
    assert await stack_service.multipart_uploads(row.object_key) == []


async def test_an_upload_gets_over_a_restart_of_postgres(
    fragile: Stack, client: Client, stack_service: RecordsService, owner: dict[str, Any]
) -> None:
    records = psutil.Process(fragile.pid("records"))

    def has_noticed() -> bool:
        return all(each.status != psutil.CONN_CLOSE_WAIT for each in records.net_connections())

    with held_upload(client, owner, make_wav(SMALL)) as posting:
        await wait_until_async(partial(stack_service.rows, UUID(owner["id"])))
        fragile.stop_process("postgres")
        wait_until(has_noticed)
        fragile.start_process("postgres")
    assert_json(posting.result(), 201)


async def test_after_the_records_service_was_killed_an_upload_can_soon_be_sent_again_with_its_key(
    fragile: Stack, client: Client, stack_service: RecordsService, owner: dict[str, Any]
) -> None:
    def send_again() -> int:
        headers = {**bearer(owner), **WAV_TYPE, "Idempotency-Key": "key"}
        return client.http.post("/records", content=TINY_WAV, headers=headers).status_code

    with held_upload(client, owner, make_wav(SMALL), "key") as posting:
        await wait_until_async(partial(stack_service.rows, UUID(owner["id"])))
        # The stack starts the process again.
        psutil.Process(fragile.pid("records")).kill()
    assert_unavailable(posting.result())
    wait_until(lambda: send_again() == 201)


async def test_uploads_get_over_a_restart_of_minio(fragile: Stack, stack_service: RecordsService) -> None:
    minio = fragile.pid("minio")
    calls_of_a_dead_store = 0

    async def watch(call: Call) -> None:
        nonlocal calls_of_a_dead_store
        if call.process != "minio" or call.is_done:
            return
        if "partNumber=3" in call.request and not calls_of_a_dead_store:
            psutil.Process(minio).kill()
            await asyncio.to_thread(wait_until, partial(has_ended, minio))
        calls_of_a_dead_store += has_ended(minio)
        # Each of the two uploads has failed by now.
        if calls_of_a_dead_store == 5:
            fragile.supervisor.start_process("minio")

    user_id, credentials = await stack_service.make_user()
    watcher = CallWatcher(watch)
    uploads = stack_service.uploads(watcher, store_retry_seconds=MAX_WAIT_SECONDS, encoder_threads=1)
    kinds = (LARGE, LARGE)
    await asyncio.gather(*(uploads.store_record(wav_pieces(kind), credentials) for kind in kinds))
    await uploads.close()
    assert calls_of_a_dead_store >= 5
    rows = await stack_service.rows(user_id)
    assert [row.state for row in rows] == ["ready", "ready"]
    for row in rows:
        assert await stack_service.read_sha256(row.object_key) == row.sha256.hex()


async def test_a_lost_object_is_503_without_anything_of_minio_s_error(
    fragile: Stack,
    client: Client,
    stack_service: RecordsService,
    owner: dict[str, Any],
    record: dict[str, Any],
) -> None:
    key, _ = await stack_service.objects(UUID(owner["id"]))
    await stack_service.store.remove(key)
    response = client.http.get(record["url"])
    assert response.status_code == 503
    assert_503_with_retry_after("GET /record", response)
    for secret in ("records/", "NoSuchKey", str(fragile.ports.minio)):
        assert secret not in response.text.replace("/problems/", "")


def test_a_restart_of_everything_keeps_records_and_tokens(
    fragile: Stack, client: Client, owner: dict[str, Any], record: dict[str, Any]
) -> None:
    large = upload_kind(client, owner["token"], LARGE)
    before = {each["url"]: client.download(each["url"]) for each in (record, large)}
    fragile.stop()
    with pytest.raises(httpx.TransportError):
        client.http.get("/healthz")
    fragile.start()
    for each in (record, large):
        assert client.download(each["url"]) == before[each["url"]]
        assert hashlib.sha256(before[each["url"]]).hexdigest() == each["sha256"]
    again = upload(client, owner["token"])
    assert again.status_code == 201, again.text
    assert again.json()["user_id"] == owner["id"]


class StackWithUser(NamedTuple):
    """The fragile stack, a client and a user of it."""

    stack: Stack
    client: Client
    user: dict[str, Any]

    def upload(self) -> dict[str, Any]:
        return self.client.upload_stream([TINY_WAV], self.user["token"])

    def post(self) -> httpx.Response:
        headers = {**WAV_TYPE, **bearer(self.user)}
        return self.client.http.post("/records", content=TINY_WAV, headers=headers)

    def assert_link_is_good(self, record: dict[str, Any]) -> None:
        response = self.client.http.get(record["url"])
        assert (response.status_code, response.headers["Content-Type"]) == (200, "audio/mpeg")
        assert hashlib.sha256(response.content).hexdigest() == record["sha256"]


@pytest.fixture(scope="module")
def owned(fragile: Stack) -> Iterator[StackWithUser]:
    with Client(fragile.base_url) as client:
        yield StackWithUser(fragile, client, client.create_user("Owner"))


@pytest.fixture
def stack_without(owned: StackWithUser, request: pytest.FixtureRequest) -> Iterator[StackWithUser]:
    """Stops one process of the stack, and starts it again afterwards."""
    owned.stack.stop_process(request.param)
    try:
        yield owned
    finally:
        owned.stack.start_process(request.param)


@pytest.fixture
def tiny_record(owned: StackWithUser) -> dict[str, Any]:
    """A record from before the process was stopped."""
    return owned.upload()


def assert_unavailable(response: httpx.Response) -> None:
    assert_problem(response, 503, "unavailable", "try again in 5 seconds")
    assert response.headers["Retry-After"] == "5"


@pytest.mark.parametrize("stack_without", ["users"], indirect=True)
def test_without_the_users_service_records_are_still_served(
    tiny_record: dict[str, Any], stack_without: StackWithUser
) -> None:
    assert_unavailable(stack_without.client.http.post("/users", json={"name": "Ann"}))
    assert_unavailable(stack_without.client.http.get("/readyz/users"))
    stack_without.assert_link_is_good(tiny_record)
    stack_without.assert_link_is_good(stack_without.upload())


@pytest.mark.parametrize("stack_without", ["records"], indirect=True)
def test_without_the_records_service_users_are_still_made(
    tiny_record: dict[str, Any], stack_without: StackWithUser
) -> None:
    http = stack_without.client.http
    assert_json(http.post("/users", json={"name": "Ann"}), 201)
    assert_unavailable(http.get("/readyz/records"))
    assert_unavailable(http.get(tiny_record["url"]))
    assert_unavailable(stack_without.post())


@pytest.mark.parametrize("stack_without", ["postgres"], indirect=True)
def test_without_postgres_every_route_is_503(
    tiny_record: dict[str, Any], stack_without: StackWithUser
) -> None:
    users = TwoUsers(stack_without.user, tiny_record, stack_without.user)
    for route in (route for route in STATUSES if route != "GET /healthz" and STATUSES[route]["owner"] < 300):
        response = send_to(stack_without.client, route, users, bearer(stack_without.user))
        assert response.status_code == 503, route
        assert response.headers["Retry-After"] == "5"
        assert response.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("process", ["postgres", "minio", "users", "records", "gateway"])
def test_the_first_request_after_a_process_is_back_succeeds(
    owned: StackWithUser, tiny_record: dict[str, Any], process: str
) -> None:
    pid = owned.stack.pid("records")
    owned.stack.stop_process(process)
    owned.stack.start_process(process)
    owned.assert_link_is_good(tiny_record)
    owned.assert_link_is_good(owned.upload())
    assert_json(owned.client.http.post("/users", json={"name": "Ann"}), 201)
    for service in ("users", "records"):
        assert_json(owned.client.http.get(f"/readyz/{service}"), 200)
    assert (owned.stack.pid("records") == pid) == (process != "records")


@pytest.mark.parametrize("stack_without", ["records"], indirect=True)
def test_without_the_records_service_an_upload_of_any_size_is_503_with_retry_after(
    stack_without: StackWithUser,
) -> None:
    headers = {**WAV_TYPE, **bearer(stack_without.user)}
    response = stack_without.client.http.post("/records", content=bytes(1_000_000), headers=headers)
    assert_problem(response, 503, "unavailable")
    assert response.headers["Retry-After"] == "5"
