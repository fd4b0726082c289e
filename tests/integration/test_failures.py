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
from records.service import Published, delete_record

from common.credentials import Credentials, digest
from common.problems import InvalidCredentials, Problem, Unavailable
from records.form import Field
from records.setup import make_admin
from tests.integration.isolated import Call, Isolated, Wire
from tests.integration.sounds import LARGE, SMALL, pieces

BOUND_SECONDS = 60


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
        if call.part != self.part:
            return False
        if self.stays_away and call.number > self.number:
            return not call.is_done
        return (call.number, call.is_done) == (self.number, self.is_done)


class Trial:
    """One upload in which something goes wrong."""

    def __init__(self, isolated: Isolated, trouble: Trouble) -> None:
        self.wire = Wire(self._watch)
        self.struck: list[Call] = []
        self._isolated = isolated
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
        elif call.part == "minio":
            raise aiohttp.ServerDisconnectedError
        else:
            raise ConnectionResetError("the connection is gone")

    async def run(
        self, body: AsyncIterator[Field | bytes], encoder_threads: int = 2
    ) -> tuple[UUID, Published | BaseException]:
        """Returns the user, and what came out."""
        user_id, credentials = await self._isolated.make_user()
        uploads = self._isolated.uploads(self.wire, encoder_threads=encoder_threads)
        self._task = asyncio.create_task(uploads.store_record(body, credentials))
        async with asyncio.timeout(BOUND_SECONDS):
            (outcome,) = await asyncio.gather(self._task, return_exceptions=True)
            await uploads.close()
        return user_id, outcome


async def vanishing(kind: str, wire: Wire) -> AsyncIterator[Field | bytes]:
    """An upload whose client goes away just before its end, and while no call is under way.

    One that is under way would be cancelled, and have no end after which something could go wrong.
    """
    async for piece in pieces(kind):
        yield piece
    await asyncio.sleep(0)
    while wire.under_way:  # noqa: ASYNC110 (nothing is announced to those outside)
        await asyncio.sleep(0)
    raise ClientVanishedError


async def run(trial: Trial, kind: str, vanishes: bool) -> tuple[UUID, Published | BaseException]:
    """Makes the upload; where its client vanishes, so much is encoded by then that parts are out."""
    if vanishes:
        return await trial.run(vanishing(kind, trial.wire), encoder_threads=1)
    return await trial.run(pieces(kind))


async def count_calls(isolated: Isolated, kind: str, vanishes: bool, first: Trouble) -> dict[str, int]:
    """How many calls such an upload makes to each part."""
    trial = Trial(isolated, first)
    await run(trial, kind, vanishes)
    return {part: sum(call.part == part for call in trial.wire.calls) for part in ("postgres", "minio")}


UNTROUBLED = Trouble("untroubled")


@pytest.mark.parametrize("stays_away", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("is_done", [False, True], ids=["before its effect", "after its effect"])
@pytest.mark.parametrize("how", ["fails", "cancelled"])
@pytest.mark.parametrize("vanishes", [False, True], ids=["", "and its client vanishes"])
@pytest.mark.parametrize("kind", [SMALL, LARGE])
async def test_an_upload_that_goes_wrong_at_any_call_is_a_whole_record_or_nothing(
    isolated: Isolated, kind: str, vanishes: bool, how: str, is_done: bool, stays_away: bool
) -> None:
    if how == "cancelled" and stays_away:
        # Cancelled over and over: the clean-up is cancelled as well, and must go on nevertheless.
        expected: tuple[type[BaseException], ...] = (asyncio.CancelledError,)
    else:
        expected = (Problem, asyncio.CancelledError, ClientVanishedError)
    calls = await count_calls(isolated, kind, vanishes, UNTROUBLED)
    assert calls["postgres"] >= 2
    assert calls["minio"] >= (0 if vanishes and kind == SMALL else 1)
    for part, count in calls.items():
        for number in range(1, count + 1):
            trial = Trial(isolated, Trouble(how, part, number, is_done, stays_away))
            user_id, outcome = await run(trial, kind, vanishes)
            assert trial.struck, f"call {number} to {part} was never made: {outcome!r}, {trial.wire.calls}"
            await check(isolated, trial, user_id, outcome, expected)


async def check(
    isolated: Isolated,
    trial: Trial,
    user_id: UUID,
    outcome: Published | BaseException,
    expected: tuple[type[BaseException], ...],
) -> None:
    """What came out was true, and stays so once the sweeper has had its time."""
    at = f"{trial.struck[0]} -> {outcome!r}"
    if isinstance(outcome, Published):
        await isolated.assert_record_is_whole(user_id, trial.wire)
    else:
        assert isinstance(outcome, expected), at
        assert getattr(outcome, "status_code", 503) == 503, at
    trial.wire.watch = Wire().watch
    await isolated.settle(user_id)
    rows = await isolated.rows(user_id)
    if rows:
        assert "published_at" in trial.struck[0].what or isinstance(outcome, Published), at
        await isolated.assert_record_is_whole(user_id, trial.wire)
    else:
        assert not isinstance(outcome, Published), at
        await isolated.assert_nothing_is_left(user_id, trial.wire)


@pytest.mark.parametrize("kind", [SMALL, LARGE])
async def test_an_upload_that_fails_while_all_is_well_leaves_nothing_at_once(
    isolated: Isolated, kind: str
) -> None:
    trial = Trial(isolated, UNTROUBLED)
    user_id, outcome = await run(trial, kind, vanishes=True)
    assert isinstance(outcome, ClientVanishedError)
    assert await isolated.objects(user_id) == []
    rows = await isolated.rows(user_id)
    # Without a trace in the store there is nothing that could come late; otherwise a tombstone watches.
    assert [row.state for row in rows] == ([] if kind == SMALL else ["deleting"])
    for row in rows:
        assert await isolated.open_uploads(row.object_key) == []


async def test_an_upload_that_is_cancelled_over_and_over_cleans_up_by_itself(isolated: Isolated) -> None:
    trial = Trial(
        isolated, Trouble("cancelled", "postgres", await place_of_publish(isolated), stays_away=True)
    )
    user_id, outcome = await trial.run(pieces(LARGE))
    assert isinstance(outcome, asyncio.CancelledError)
    # At publishing, and then at every statement of the clean-up; no sweeper was there.
    assert len(trial.struck) >= 3
    (row,) = await isolated.rows(user_id)
    assert row.state == "deleting"
    assert await isolated.objects(user_id) == []
    assert await isolated.open_uploads(row.object_key) == []


@pytest.mark.parametrize("kind", [SMALL, LARGE])
async def test_a_store_that_is_full_says_so_and_nothing_is_left(isolated: Isolated, kind: str) -> None:
    user_id, credentials = await isolated.make_user()
    wire = Wire()
    uploads = isolated.uploads(wire)
    bucket = isolated.settings.store.s3_bucket
    admin = make_admin(isolated.setup, isolated.session)
    await admin.bucket_quota_set(bucket, 1)
    try:
        with pytest.raises(Unavailable, match=r"The object store refuses, with \w+QuotaExceeded"):
            await uploads.store_record(pieces(kind), credentials)
    finally:
        await admin.bucket_quota_clear(bucket)
    await uploads.close()
    await isolated.settle(user_id)
    await isolated.assert_nothing_is_left(user_id, wire)


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
    isolated: Isolated, spoil: Callable[[bytes], bytes]
) -> None:
    user_id, credentials = await isolated.make_user()
    spoiled: list[str] = []

    async def watch(call: Call) -> None:
        if call.what.startswith("GET") and call.what.endswith(".mp3") and not call.is_done:
            (key,) = await isolated.objects(user_id)
            mp3 = b"".join([piece async for piece in await isolated.store.open(key)])
            await isolated.store.put(key, spoil(mp3))
            spoiled.append(key)

    wire = Wire(watch)
    uploads = isolated.uploads(wire)
    with pytest.raises(Unavailable, match="did not keep what it was sent") as refusal:
        await uploads.store_record(pieces(LARGE), credentials)
    await uploads.close()
    assert refusal.value.status_code == 503
    assert len(spoiled) == 1
    assert await isolated.objects(user_id) == []
    await isolated.settle(user_id)
    await isolated.assert_nothing_is_left(user_id, wire)


async def test_the_first_part_of_a_large_object_is_sent_when_all_is_known_and_the_object_read_back(
    isolated: Isolated,
) -> None:
    user_id, credentials = await isolated.make_user()
    is_known = False
    parts: dict[str, bool] = {}

    async def body() -> AsyncIterator[Field | bytes]:
        nonlocal is_known
        async for piece in pieces(LARGE):
            yield piece
        is_known = True

    async def watch(call: Call) -> None:
        for number in re.findall(r"partNumber=(\d+)", call.what):
            parts.setdefault(number, is_known)

    wire = Wire(watch)
    uploads = isolated.uploads(wire)
    record = await uploads.store_record(body(), credentials)
    await uploads.close()
    assert sorted(parts) == ["1", "2", "3"]
    assert parts["1"]
    assert [call.what for call in wire.calls if call.part == "minio"][-1].startswith("GET")
    (key,) = await isolated.objects(user_id)
    mp3 = b"".join([piece async for piece in await isolated.store.open(key)])
    assert len(mp3) == record.size_bytes
    assert hashlib.sha256(mp3).digest() == record.sha256
    assert b"Info" in mp3[:100]


async def place_of_publish(isolated: Isolated) -> int:
    """Which statement of an upload is the one that publishes it."""
    trial = Trial(isolated, UNTROUBLED)
    await trial.run(pieces(LARGE))
    (number,) = [call.number for call in trial.wire.calls if "published_at" in call.what]
    return number


async def leave_a_ghost(isolated: Isolated) -> tuple[UUID, str]:
    """An object, an open upload, and the row of an upload whose process died."""
    user_id, _ = await isolated.make_user()
    (row,) = await isolated.query(
        "INSERT INTO records (id, user_id, lease_until, object_key)"
        " SELECT id, user_id, now() - interval '1 s', user_id || '/' || id || '.mp3'"
        " FROM (SELECT gen_random_uuid() AS id, CAST(:id AS uuid) AS user_id) RETURNING object_key",
        id=user_id,
    )
    await isolated.store.put(row.object_key, b"half")
    await isolated.store.begin(row.object_key)
    return user_id, row.object_key


async def leave_a_deleted_record(isolated: Isolated) -> tuple[UUID, str]:
    """What DELETE /records/{id} leaves to the sweeper."""
    (user_id, _), record_id, key = await make_record(isolated)
    await delete_record(isolated.engine, record_id, user_id)
    return user_id, key


async def leave_a_deleted_user(isolated: Isolated) -> tuple[UUID, str]:
    """What DELETE /users/me leaves to it."""
    (user_id, credentials), _, key = await make_record(isolated)
    await isolated.delete_user(credentials)
    return user_id, key


async def make_record(isolated: Isolated) -> tuple[tuple[UUID, Credentials], UUID, str]:
    """A user with a record: its id and the key of its object."""
    user_id, credentials = await isolated.make_user()
    uploads = isolated.uploads()
    record = await uploads.store_record(pieces(SMALL), credentials)
    await uploads.close()
    (key,) = await isolated.objects(user_id)
    return (user_id, credentials), record.id, key


@pytest.mark.parametrize("leave", [leave_a_ghost, leave_a_deleted_record, leave_a_deleted_user])
@pytest.mark.parametrize("is_done", [False, True], ids=["before its effect", "after its effect"])
@pytest.mark.parametrize("part", ["postgres", "minio"])
async def test_a_sweep_that_fails_at_any_call_is_finished_by_a_later_one(
    isolated: Isolated,
    part: str,
    is_done: bool,
    leave: Callable[[Isolated], Awaitable[tuple[UUID, str]]],
) -> None:
    number = 0
    while True:
        number += 1
        user_id, key = await leave(isolated)
        assert await isolated.objects(user_id) == [key]
        trial = Trial(isolated, Trouble("fails", part, number, is_done))
        async with asyncio.timeout(BOUND_SECONDS):
            (outcome,) = await asyncio.gather(isolated.sweep(trial.wire), return_exceptions=True)
        await isolated.settle(user_id)
        assert await isolated.rows(user_id) == []
        assert await isolated.objects(user_id) == []
        assert await isolated.open_uploads(key) == []
        if not trial.struck:
            assert outcome is None
            break
        # What concerns one tombstone is logged and left for later; the rest ends the round.
        assert outcome is None or isinstance(outcome, Unavailable), trial.struck
    # The lease, the tombstone and its row; the uploads, perhaps an abort, the object and its removal.
    assert number > 3


async def test_a_tombstone_that_the_store_refuses_does_not_stand_in_front_of_the_others(
    isolated: Isolated,
) -> None:
    ghosts = [await leave_a_ghost(isolated) for _ in range(3)]
    refused_key = ghosts[0][1]

    async def watch(call: Call) -> None:
        if call.part == "minio" and refused_key.partition("/")[2] in call.what:
            raise aiohttp.ServerDisconnectedError

    await isolated.sweep(Wire(watch))
    left = [await isolated.objects(user_id) for user_id, _ in ghosts]
    assert [bool(keys) for keys in left] == [True, False, False]
    for user_id, _ in ghosts:
        await isolated.settle(user_id)


@pytest.mark.parametrize("waits_for", ["INSERT", "UPDATE"])
async def test_an_upload_that_is_cancelled_while_postgres_works_on_its_statement_leaves_nothing(
    isolated: Isolated, waits_for: str
) -> None:
    user_id, credentials = await isolated.make_user()
    wire = Wire()
    uploads = isolated.uploads(wire)
    reached = asyncio.Event()
    go_on = asyncio.Event()

    async def watch(call: Call) -> None:
        if call.part == "postgres" and call.what.startswith(waits_for) and not call.is_done:
            reached.set()
            await go_on.wait()

    wire.watch = watch
    async with asyncio.timeout(BOUND_SECONDS):
        task = asyncio.create_task(uploads.store_record(pieces(SMALL), credentials))
        await reached.wait()
        async with isolated.owner.execution_options(isolation_level="READ COMMITTED").begin() as locking:
            await locking.exec_driver_sql("LOCK TABLE records IN ACCESS EXCLUSIVE MODE")
            go_on.set()
            wire.watch = Wire().watch
            await isolated.until_waiting(1)
            task.cancel()
            await isolated.until_waiting(0)
        with pytest.raises(asyncio.CancelledError):
            await task
        await uploads.close()
    await isolated.settle(user_id)
    await isolated.assert_nothing_is_left(user_id, wire)


async def test_postgres_that_refuses_new_connections_is_unavailable_and_no_fault_of_ours(
    isolated: Isolated,
) -> None:
    _, credentials = await isolated.make_user()
    await isolated.engine.dispose()
    await isolated.query("ALTER ROLE waxwing_records_login CONNECTION LIMIT 0")
    uploads = isolated.uploads()
    try:
        with pytest.raises(Unavailable):
            await uploads.store_record(pieces(SMALL), credentials)
    finally:
        await isolated.query("ALTER ROLE waxwing_records_login CONNECTION LIMIT -1")
        await uploads.close()


async def test_a_connection_that_postgres_ends_is_unavailable_and_the_next_statement_works(
    isolated: Isolated,
) -> None:
    user_id, credentials = await isolated.make_user()
    wire = Wire()
    killed: list[str] = []

    async def watch(call: Call) -> None:
        if call.part == "postgres" and not call.is_done and not killed:
            killed.append(call.what)
            await isolated.query(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE usename = 'waxwing_records_login' AND datname = current_database()"
            )

    wire.watch = watch
    uploads = isolated.uploads(wire)
    with pytest.raises(Unavailable):
        await uploads.store_record(pieces(SMALL), credentials)
    record = await uploads.store_record(pieces(SMALL), credentials)
    await uploads.close()
    assert killed
    assert [row.id for row in await isolated.rows(user_id)] == [record.id]


async def test_wrong_credentials_are_refused_before_the_audio_is_read_and_leave_nothing(
    isolated: Isolated,
) -> None:
    user_id, _ = await isolated.make_user()
    read: list[Field | bytes] = []

    async def body() -> AsyncIterator[Field | bytes]:
        async for piece in pieces(SMALL):
            read.append(piece)
            yield piece

    wire = Wire()
    uploads = isolated.uploads(wire)
    with pytest.raises(InvalidCredentials):
        await uploads.store_record(body(), Credentials(digest("no token"), user_id))
    await uploads.close()
    assert read == []
    assert [call.part for call in wire.calls] == ["postgres"]
    await isolated.assert_nothing_is_left(user_id, wire)
