"""Whatever fails and whenever: a record is whole or there is nothing of it, and nobody is told otherwise.

Each upload here is made again and again, and goes wrong at another call to PostgreSQL or MinIO each time.
"""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from uuid import UUID

import aiohttp
import pytest

from common.credentials import Credentials, digest
from common.problems import InvalidCredentials, Problem, Unavailable
from records.form import Field
from records.service import Published, delete_record
from records.setup import make_admin
from tests.integration.recordings import LARGE, SMALL, wav_pieces
from tests.integration.records_service import RecordsService
from tests.integration.waiting import MAX_WAIT_SECONDS
from tests.integration.watched_calls import Call, CallWatcher


class ClientVanishedError(Exception):
    """Stands for what the body raises when its client is gone."""


@dataclass(frozen=True)
class Trouble:
    """What goes wrong: how, at which call, and whether the part stays away from then on."""

    how: str
    part: str = ""
    number: int = 0
    is_done: bool = False
    stays_away: bool = False

    def strikes(self, call: Call) -> bool:
        if call.process != self.part:
            return False
        if self.stays_away and call.number > self.number:
            return not call.is_done
        return (call.number, call.is_done) == (self.number, self.is_done)


class Trial:
    """One upload in which something goes wrong."""

    def __init__(self, isolated_service: RecordsService, trouble: Trouble) -> None:
        self.watcher = CallWatcher(self._watch)
        self.struck: list[Call] = []
        self._service = isolated_service
        self._trouble = trouble
        self._task: asyncio.Task[Published] | None = None

    async def _watch(self, call: Call) -> None:
        if not self._trouble.strikes(call):
            return
        self.struck.append(call)
        if self._trouble.how == "cancelled":
            assert self._task
            self._task.cancel()
            # A cancellation arrives at an await.
            await asyncio.sleep(0)
        elif call.process == "minio":
            raise aiohttp.ServerDisconnectedError
        else:
            raise ConnectionResetError("the connection is gone")

    async def run(
        self, body: AsyncIterator[Field | bytes], encoder_threads: int = 2
    ) -> tuple[UUID, Published | BaseException]:
        """Returns the user, and what came out."""
        user_id, credentials = await self._service.make_user()
        uploads = self._service.uploads(self.watcher, encoder_threads=encoder_threads)
        self._task = asyncio.create_task(uploads.store_record(body, credentials))
        async with asyncio.timeout(MAX_WAIT_SECONDS):
            (outcome,) = await asyncio.gather(self._task, return_exceptions=True)
            await uploads.close()
        return user_id, outcome


async def vanishing(kind: str, watcher: CallWatcher) -> AsyncIterator[Field | bytes]:
    """An upload whose client goes away just before its end, and while no call is under way.

    One that is under way would be cancelled, and have no end after which something could go wrong.
    """
    async for piece in wav_pieces(kind):
        yield piece
    await asyncio.sleep(0)
    while watcher.under_way:  # noqa: ASYNC110 (nothing is announced to those outside)
        await asyncio.sleep(0)
    raise ClientVanishedError


async def run(trial: Trial, kind: str, vanishes: bool) -> tuple[UUID, Published | BaseException]:
    """Makes the upload; where its client vanishes, so much is encoded by then that parts are out."""
    if vanishes:
        return await trial.run(vanishing(kind, trial.watcher), encoder_threads=1)
    return await trial.run(wav_pieces(kind))


async def count_calls(
    isolated_service: RecordsService, kind: str, vanishes: bool, first: Trouble
) -> dict[str, int]:
    """How many calls such an upload makes to each part."""
    trial = Trial(isolated_service, first)
    await run(trial, kind, vanishes)
    return {part: sum(call.process == part for call in trial.watcher.calls) for part in ("postgres", "minio")}


UNTROUBLED = Trouble("untroubled")


@pytest.mark.parametrize("stays_away", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("is_done", [False, True], ids=["before its effect", "after its effect"])
@pytest.mark.parametrize("how", ["fails", "cancelled"])
@pytest.mark.parametrize("vanishes", [False, True], ids=["", "and its client vanishes"])
@pytest.mark.parametrize("kind", [SMALL, LARGE])
async def test_an_upload_that_goes_wrong_at_any_call_is_a_whole_record_or_nothing(
    isolated_service: RecordsService, kind: str, vanishes: bool, how: str, is_done: bool, stays_away: bool
) -> None:
    if how == "cancelled" and stays_away:
        # Cancelled over and over: the clean-up is cancelled as well, and must go on nevertheless.
        expected: tuple[type[BaseException], ...] = (asyncio.CancelledError,)
    else:
        expected = (Problem, asyncio.CancelledError, ClientVanishedError)
    calls = await count_calls(isolated_service, kind, vanishes, UNTROUBLED)
    assert calls["postgres"] >= 2
    assert calls["minio"] >= (0 if vanishes and kind == SMALL else 1)
    for part, count in calls.items():
        for number in range(1, count + 1):
            trial = Trial(isolated_service, Trouble(how, part, number, is_done, stays_away))
            user_id, outcome = await run(trial, kind, vanishes)
            assert trial.struck, f"call {number} to {part} was never made: {outcome!r}, {trial.watcher.calls}"
            await check(isolated_service, trial, user_id, outcome, expected)


async def check(
    isolated_service: RecordsService,
    trial: Trial,
    user_id: UUID,
    outcome: Published | BaseException,
    expected: tuple[type[BaseException], ...],
) -> None:
    """What came out was true, and stays so once the sweeper has had its time."""
    at = f"{trial.struck[0]} -> {outcome!r}"
    if isinstance(outcome, Published):
        await isolated_service.assert_record_is_whole(user_id, trial.watcher)
    else:
        assert isinstance(outcome, expected), at
        assert getattr(outcome, "status_code", 503) == 503, at
    trial.watcher.stop_watching()
    await isolated_service.settle(user_id)
    rows = await isolated_service.rows(user_id)
    if rows:
        assert "published_at" in trial.struck[0].request or isinstance(outcome, Published), at
        await isolated_service.assert_record_is_whole(user_id, trial.watcher)
    else:
        assert not isinstance(outcome, Published), at
        await isolated_service.assert_nothing_is_left(user_id, trial.watcher)


@pytest.mark.parametrize("kind", [SMALL, LARGE])
async def test_an_upload_that_fails_while_all_is_well_leaves_nothing_at_once(
    isolated_service: RecordsService, kind: str
) -> None:
    trial = Trial(isolated_service, UNTROUBLED)
    user_id, outcome = await run(trial, kind, vanishes=True)
    assert isinstance(outcome, ClientVanishedError)
    assert await isolated_service.objects(user_id) == []
    rows = await isolated_service.rows(user_id)
    # Without a trace in the store there is nothing that could come late; otherwise a tombstone watches.
    assert [row.state for row in rows] == ([] if kind == SMALL else ["deleting"])
    for row in rows:
        assert await isolated_service.multipart_uploads(row.object_key) == []


async def test_an_upload_that_is_cancelled_over_and_over_cleans_up_by_itself(
    isolated_service: RecordsService,
) -> None:
    trial = Trial(
        isolated_service,
        Trouble("cancelled", "postgres", await place_of_publish(isolated_service), stays_away=True),
    )
    user_id, outcome = await trial.run(wav_pieces(LARGE))
    assert isinstance(outcome, asyncio.CancelledError)
    # At before_publish, and then at every statement of the clean-up; no sweeper was there.
    assert len(trial.struck) >= 3
    (row,) = await isolated_service.rows(user_id)
    assert row.state == "deleting"
    assert await isolated_service.objects(user_id) == []
    assert await isolated_service.multipart_uploads(row.object_key) == []


@pytest.mark.parametrize("kind", [SMALL, LARGE])
async def test_a_store_that_is_full_says_so_and_nothing_is_left(
    isolated_service: RecordsService, kind: str
) -> None:
    user_id, credentials = await isolated_service.make_user()
    watcher = CallWatcher()
    uploads = isolated_service.uploads(watcher)
    bucket = isolated_service.settings.store.s3_bucket
    admin = make_admin(isolated_service.setup, isolated_service.session)
    await admin.bucket_quota_set(bucket, 1)
    try:
        with pytest.raises(Unavailable, match=r"The object store refuses, with \w+QuotaExceeded"):
            await uploads.store_record(wav_pieces(kind), credentials)
    finally:
        await admin.bucket_quota_clear(bucket)
    await uploads.close()
    await isolated_service.settle(user_id)
    await isolated_service.assert_nothing_is_left(user_id, watcher)


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda mp3: mp3[:-1], id="shorter"),
        pytest.param(lambda mp3: mp3 + b"\0", id="longer"),
        pytest.param(lambda mp3: mp3[:-1] + bytes([mp3[-1] ^ 1]), id="other sound"),
        pytest.param(lambda mp3: bytes([mp3[0] ^ 1]) + mp3[1:], id="another head"),
        pytest.param(lambda mp3: b"", id="empty"),
    ],
)
async def test_a_large_object_that_reads_back_otherwise_is_refused_and_leaves_nothing(
    isolated_service: RecordsService, spoil: Callable[[bytes], bytes]
) -> None:
    user_id, credentials = await isolated_service.make_user()
    spoiled: list[str] = []

    async def watch(call: Call) -> None:
        if call.request.startswith("GET") and call.request.endswith(".mp3") and not call.is_done:
            (key,) = await isolated_service.objects(user_id)
            mp3 = b"".join([piece async for piece in await isolated_service.store.open(key)])
            await isolated_service.store.put(key, spoil(mp3))
            spoiled.append(key)

    watcher = CallWatcher(watch)
    uploads = isolated_service.uploads(watcher)
    with pytest.raises(Unavailable, match="did not keep what it was sent") as refusal:
        await uploads.store_record(wav_pieces(LARGE), credentials)
    await uploads.close()
    assert refusal.value.status_code == 503
    assert len(spoiled) == 1
    assert await isolated_service.objects(user_id) == []
    await isolated_service.settle(user_id)
    await isolated_service.assert_nothing_is_left(user_id, watcher)


async def test_the_first_part_of_a_large_object_is_sent_when_all_is_known_and_the_object_read_back(
    isolated_service: RecordsService,
) -> None:
    user_id, credentials = await isolated_service.make_user()
    is_known = False
    parts: dict[str, bool] = {}

    async def body() -> AsyncIterator[Field | bytes]:
        nonlocal is_known
        async for piece in wav_pieces(LARGE):
            yield piece
        is_known = True

    async def watch(call: Call) -> None:
        for number in re.findall(r"partNumber=(\d+)", call.request):
            parts.setdefault(number, is_known)

    watcher = CallWatcher(watch)
    uploads = isolated_service.uploads(watcher)
    record = await uploads.store_record(body(), credentials)
    await uploads.close()
    assert sorted(parts) == ["1", "2", "3"]
    assert parts["1"]
    assert [call.request for call in watcher.calls if call.process == "minio"][-1].startswith("GET")
    (key,) = await isolated_service.objects(user_id)
    mp3 = b"".join([piece async for piece in await isolated_service.store.open(key)])
    assert len(mp3) == record.size_bytes
    assert hashlib.sha256(mp3).digest() == record.sha256
    assert b"Info" in mp3[:100]


async def place_of_publish(isolated_service: RecordsService) -> int:
    """Which statement of an upload is the one that publishes it."""
    trial = Trial(isolated_service, UNTROUBLED)
    await trial.run(wav_pieces(LARGE))
    (number,) = [call.number for call in trial.watcher.calls if "published_at" in call.request]
    return number


async def leave_a_ghost(isolated_service: RecordsService) -> tuple[UUID, str]:
    """An object, an open upload, and the row of an upload whose process died."""
    user_id, _ = await isolated_service.make_user()
    (row,) = await isolated_service.query(
        "INSERT INTO records (id, user_id, lease_until, object_key)"
        " SELECT id, user_id, now() - interval '1 s', user_id || '/' || id || '.mp3'"
        " FROM (SELECT gen_random_uuid() AS id, CAST(:id AS uuid) AS user_id) RETURNING object_key",
        id=user_id,
    )
    await isolated_service.store.put(row.object_key, b"half")
    await isolated_service.store.begin(row.object_key)
    return user_id, row.object_key


async def leave_a_deleted_record(isolated_service: RecordsService) -> tuple[UUID, str]:
    """What DELETE /records/{id} leaves to the sweeper."""
    (user_id, _), record_id, key = await make_record(isolated_service)
    await delete_record(isolated_service.engine, record_id, user_id)
    return user_id, key


async def leave_a_deleted_user(isolated_service: RecordsService) -> tuple[UUID, str]:
    """What DELETE /users/me leaves to it."""
    (user_id, credentials), _, key = await make_record(isolated_service)
    await isolated_service.delete_user(credentials)
    return user_id, key


async def make_record(isolated_service: RecordsService) -> tuple[tuple[UUID, Credentials], UUID, str]:
    """A user with a record: its id and the key of its object."""
    user_id, credentials = await isolated_service.make_user()
    uploads = isolated_service.uploads()
    record = await uploads.store_record(wav_pieces(SMALL), credentials)
    await uploads.close()
    (key,) = await isolated_service.objects(user_id)
    return (user_id, credentials), record.id, key


@pytest.mark.parametrize("leave", [leave_a_ghost, leave_a_deleted_record, leave_a_deleted_user])
@pytest.mark.parametrize("is_done", [False, True], ids=["before its effect", "after its effect"])
@pytest.mark.parametrize("part", ["postgres", "minio"])
async def test_a_sweep_that_fails_at_any_call_is_finished_by_a_later_one(
    isolated_service: RecordsService,
    part: str,
    is_done: bool,
    leave: Callable[[RecordsService], Awaitable[tuple[UUID, str]]],
) -> None:
    number = 0
    while True:
        number += 1
        user_id, key = await leave(isolated_service)
        assert await isolated_service.objects(user_id) == [key]
        trial = Trial(isolated_service, Trouble("fails", part, number, is_done))
        async with asyncio.timeout(MAX_WAIT_SECONDS):
            (outcome,) = await asyncio.gather(isolated_service.sweep(trial.watcher), return_exceptions=True)
        await isolated_service.settle(user_id)
        assert await isolated_service.rows(user_id) == []
        assert await isolated_service.objects(user_id) == []
        assert await isolated_service.multipart_uploads(key) == []
        if not trial.struck:
            assert outcome is None
            break
        # What concerns one tombstone is logged and left for later; the rest ends the round.
        assert outcome is None or isinstance(outcome, Unavailable), trial.struck
    # The lease, the tombstone and its row; the uploads, perhaps an abort, the object and its removal.
    assert number > 3


async def test_a_tombstone_that_the_store_refuses_does_not_stand_in_front_of_the_others(
    isolated_service: RecordsService,
) -> None:
    ghosts = [await leave_a_ghost(isolated_service) for _ in range(3)]
    refused_key = ghosts[0][1]

    async def watch(call: Call) -> None:
        if call.process == "minio" and refused_key.partition("/")[2] in call.request:
            raise aiohttp.ServerDisconnectedError

    await isolated_service.sweep(CallWatcher(watch))
    left = [await isolated_service.objects(user_id) for user_id, _ in ghosts]
    assert [bool(keys) for keys in left] == [True, False, False]
    for user_id, _ in ghosts:
        await isolated_service.settle(user_id)


@pytest.mark.parametrize("waits_for", ["INSERT", "UPDATE"])
async def test_an_upload_that_is_cancelled_while_postgres_works_on_its_statement_leaves_nothing(
    isolated_service: RecordsService, waits_for: str
) -> None:
    user_id, credentials = await isolated_service.make_user()
    watcher = CallWatcher()
    uploads = isolated_service.uploads(watcher)
    reached = asyncio.Event()
    go_on = asyncio.Event()

    async def watch(call: Call) -> None:
        if call.process == "postgres" and call.request.startswith(waits_for) and not call.is_done:
            reached.set()
            await go_on.wait()

    watcher.watch = watch
    async with asyncio.timeout(MAX_WAIT_SECONDS):
        task = asyncio.create_task(uploads.store_record(wav_pieces(SMALL), credentials))
        await reached.wait()
        async with isolated_service.owner.execution_options(
            isolation_level="READ COMMITTED"
        ).begin() as locking:
            await locking.exec_driver_sql("LOCK TABLE records IN ACCESS EXCLUSIVE MODE")
            go_on.set()
            watcher.stop_watching()
            await isolated_service.wait_for_locked_statements(1)
            task.cancel()
            await isolated_service.wait_for_locked_statements(0)
        with pytest.raises(asyncio.CancelledError):
            await task
        await uploads.close()
    await isolated_service.settle(user_id)
    await isolated_service.assert_nothing_is_left(user_id, watcher)


async def test_postgres_that_refuses_new_connections_is_unavailable_and_no_fault_of_ours(
    isolated_service: RecordsService,
) -> None:
    _, credentials = await isolated_service.make_user()
    await isolated_service.engine.dispose()
    await isolated_service.query("ALTER ROLE waxwing_records_login CONNECTION LIMIT 0")
    uploads = isolated_service.uploads()
    try:
        with pytest.raises(Unavailable):
            await uploads.store_record(wav_pieces(SMALL), credentials)
    finally:
        await isolated_service.query("ALTER ROLE waxwing_records_login CONNECTION LIMIT -1")
        await uploads.close()


async def test_a_connection_that_postgres_ends_is_unavailable_and_the_next_statement_works(
    isolated_service: RecordsService,
) -> None:
    user_id, credentials = await isolated_service.make_user()
    watcher = CallWatcher()
    killed: list[str] = []

    async def watch(call: Call) -> None:
        if call.process == "postgres" and not call.is_done and not killed:
            killed.append(call.request)
            await isolated_service.query(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE usename = 'waxwing_records_login' AND datname = current_database()"
            )

    watcher.watch = watch
    uploads = isolated_service.uploads(watcher)
    with pytest.raises(Unavailable):
        await uploads.store_record(wav_pieces(SMALL), credentials)
    record = await uploads.store_record(wav_pieces(SMALL), credentials)
    await uploads.close()
    assert killed
    assert [row.id for row in await isolated_service.rows(user_id)] == [record.id]


async def test_wrong_credentials_are_refused_before_the_audio_is_read_and_leave_nothing(
    isolated_service: RecordsService,
) -> None:
    user_id, _ = await isolated_service.make_user()
    read: list[Field | bytes] = []

    async def body() -> AsyncIterator[Field | bytes]:
        async for piece in wav_pieces(SMALL):
            read.append(piece)
            yield piece

    watcher = CallWatcher()
    uploads = isolated_service.uploads(watcher)
    with pytest.raises(InvalidCredentials):
        await uploads.store_record(body(), Credentials(digest("no token"), user_id))
    await uploads.close()
    assert read == []
    assert [call.process for call in watcher.calls] == ["postgres"]
    await isolated_service.assert_nothing_is_left(user_id, watcher)
