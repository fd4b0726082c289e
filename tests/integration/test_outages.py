"""PostgreSQL or MinIO go away and come back, and the whole stack is stopped and started."""

import hashlib
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Event
from typing import Any
from uuid import UUID

import httpx
import pytest
import pytest_asyncio

from deploy.client import Client
from deploy.local.stack import Stack
from tests.integration.new_log_lines import NewLogLines
from tests.integration.recordings import LARGE, SMALL, make_wav
from tests.integration.records_service import RecordsService, open_running_service
from tests.integration.waiting import wait_until, wait_until_async
from tests.stacks import temporary_stack

PROBLEM = "application/problem+json"


@pytest.fixture(scope="module")
def fragile() -> Iterator[Stack]:
    """A stack whose parts may be taken away without disturbing other tests.

    With one thread less audio waits for LAME, and more of the MP3 is on its way.
    """
    with temporary_stack({"ENCODER_THREADS": "1"}) as stack:
        yield stack


@pytest.fixture
def http(fragile: Stack) -> Iterator[Client]:
    with Client(fragile.base_url) as client:
        yield client


@pytest.fixture
def ann(http: Client) -> dict[str, Any]:
    return http.create_user("Ann")


@pytest.fixture
def record(http: Client, ann: dict[str, Any]) -> dict[str, Any]:
    return http.upload_stream(iter([make_wav(SMALL)]), ann["token"])


def test_while_postgres_is_restarted_a_link_is_503_and_never_anything_else(
    fragile: Stack, record: dict[str, Any]
) -> None:
    over = Event()

    def ask(_: int) -> set[int]:
        seen = set()
        with Client(fragile.base_url) as client:
            while not over.is_set():
                seen.add(client.http.head(record["url"]).status_code)
        return seen

    with ThreadPoolExecutor(6) as pool:
        asked = pool.map(ask, range(6))
        for _ in range(3):
            fragile.stop_part("postgres")
            fragile.start_part("postgres")
        over.set()
        assert set().union(*asked) == {200, 503}


@pytest_asyncio.fixture
async def look(fragile: Stack) -> AsyncIterator[RecordsService]:
    async with open_running_service(fragile) as look:
        yield look


def upload(http: Client, token: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "audio/wav"}
    return http.http.post("/records", content=make_wav(SMALL), headers=headers)


def calls(http: Client, token: str, url: str) -> dict[str, httpx.Response]:
    """Every call of the contract once."""
    return {
        "POST /users": http.http.post("/users", json={"name": "Bob"}),
        "POST /records": upload(http, token),
        "GET /record": http.http.get(url),
        "HEAD /record": http.http.head(url),
        "/readyz/users": http.http.get("/readyz/users"),
        "/readyz/records": http.http.get("/readyz/records"),
        "/healthz": http.http.get("/healthz"),
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
    # Users are made, and what a row says is told, without MinIO.
    "minio": {**WELL, "POST /records": 503, "GET /record": 503, "/readyz/records": 503},
}


def is_ready(http: Client, service: str) -> bool:
    return http.http.get(f"/readyz/{service}").status_code == 200


def assert_is_unavailable(what: str, answer: httpx.Response) -> None:
    assert answer.headers["content-type"] == PROBLEM, what
    assert int(answer.headers["retry-after"]) > 0, what
    if not what.startswith("HEAD"):
        problem = answer.json()
        assert problem["status"] == 503, what
        assert problem["type"] in {"/problems/unavailable", "/problems/not-ready"}, what
        assert problem["request_id"] == answer.headers["x-request-id"], what


@pytest.mark.parametrize("part", ["postgres", "minio"])
def test_without_a_part_every_call_that_needs_it_is_503_and_comes_back_by_itself(
    fragile: Stack, http: Client, ann: dict[str, Any], record: dict[str, Any], part: str
) -> None:
    logs = [NewLogLines(fragile, "users"), NewLogLines(fragile, "records")]
    pids = {name: fragile.pid(name) for name in ("users", "records", "gateway")}
    seen: set[int] = set()
    fragile.stop_part(part)
    try:
        for _ in range(3):  # Connections that were kept, and then new ones.
            answers = calls(http, ann["token"], record["url"])
            assert {what: answer.status_code for what, answer in answers.items()} == WITHOUT[part]
            for what, answer in answers.items():
                if answer.status_code == 503:
                    assert_is_unavailable(what, answer)
    finally:
        fragile.supervisor.start_part(part)

    def is_well() -> bool:
        answers = calls(http, ann["token"], record["url"])
        seen.update(answer.status_code for answer in answers.values())
        return {what: answer.status_code for what, answer in answers.items()} == WELL

    wait_until(is_well)
    # While it starts PostgreSQL refuses connections in words of its own: they mean the same.
    assert seen <= {200, 201, 503}
    assert pids == {name: fragile.pid(name) for name in pids}
    assert hashlib.sha256(http.download(record["url"])).hexdigest() == record["sha256"]
    for log in logs:
        assert "unexpected error" not in log.text()


@pytest.mark.parametrize("kind", [SMALL, LARGE])
@pytest.mark.parametrize("part", ["postgres", "minio"])
async def test_an_upload_under_way_when_a_part_goes_away_is_503_and_leaves_nothing_once_it_is_back(
    fragile: Stack, http: Client, look: RecordsService, ann: dict[str, Any], part: str, kind: str
) -> None:
    log = NewLogLines(fragile, "records")
    half_is_sent, is_gone = Event(), Event()
    wav = make_wav(kind)

    def body() -> Iterator[bytes]:
        yield wav[: -len(wav) // 20]
        half_is_sent.set()
        is_gone.wait(60)
        yield wav[-len(wav) // 20 :]

    def post() -> httpx.Response:
        headers = {"Authorization": f"Bearer {ann['token']}", "Content-Type": "audio/wav"}
        return http.http.post("/records", content=body(), headers=headers)

    user_id = UUID(ann["id"])
    with ThreadPoolExecutor(1) as threads:
        answering = threads.submit(post)
        try:
            assert half_is_sent.wait(60)
            (row,) = await wait_until_async(partial(look.rows, user_id))
            if kind == LARGE:
                await wait_until_async(partial(look.multipart_uploads, row.object_key))
            fragile.stop_part(part)
        finally:
            is_gone.set()
        answer = answering.result(120)
    fragile.start_part(part)
    assert answer.status_code == 503, answer.text
    assert_is_unavailable("POST /records", answer)
    assert "unexpected error" not in log.text()
    for service in ("users", "records"):
        wait_until(partial(is_ready, http, service))
    await look.engine.dispose()
    await look.owner.dispose()
    assert "ready" not in [each.state for each in await look.rows(user_id)]
    await look.settle(user_id)
    assert await look.rows(user_id) == []
    assert await look.objects(user_id) == []
    assert await look.multipart_uploads(row.object_key) == []


async def test_an_object_that_was_lost_is_a_503_and_never_a_404_or_a_piece_of_xml(
    fragile: Stack, http: Client, look: RecordsService, ann: dict[str, Any], record: dict[str, Any]
) -> None:
    (key,) = await look.objects(UUID(ann["id"]))
    assert await look.store.remove(key)
    answer = http.http.get(record["url"])
    assert answer.status_code == 503
    assert_is_unavailable("GET /record", answer)
    for secret in ("records/", "NoSuchKey", str(fragile.ports.minio)):
        assert secret not in answer.text.replace("/problems/", "")


def test_a_restart_of_everything_keeps_records_and_tokens(
    fragile: Stack, http: Client, ann: dict[str, Any], record: dict[str, Any]
) -> None:
    large = http.upload_stream(iter([make_wav(LARGE)]), ann["token"])
    before = {each["url"]: http.download(each["url"]) for each in (record, large)}
    fragile.stop()
    with pytest.raises(httpx.TransportError):
        http.http.get("/healthz")
    fragile.start()
    for each in (record, large):
        assert http.download(each["url"]) == before[each["url"]]
        assert hashlib.sha256(before[each["url"]]).hexdigest() == each["sha256"]
    again = upload(http, ann["token"])
    assert again.status_code == 201, again.text
    assert again.json()["user_id"] == ann["id"]
