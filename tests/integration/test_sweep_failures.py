"""A sweep that fails at any call: a later sweep finishes its work."""

import asyncio
from collections.abc import Awaitable, Callable
from uuid import UUID

import aiohttp
import pytest

from common.credentials import Credentials
from common.problems import Unavailable
from records.sql import delete_record
from tests.integration.failing_calls import Failure, Trial
from tests.integration.recordings import SMALL, wav_pieces
from tests.integration.records_service import RecordsService
from tests.integration.waiting import MAX_WAIT_SECONDS
from tests.integration.watched_calls import Call, CallWatcher


async def leave_an_abandoned_upload(isolated_service: RecordsService) -> tuple[UUID, str]:
    """Leaves an object, an open multipart upload and the row of an upload whose process died."""
    user_id, _ = await isolated_service.make_user()
    (row,) = await isolated_service.query(
        "INSERT INTO records (id, user_id, lease_until, object_key)"
        " SELECT id, user_id, now() - interval '1 day', user_id || '/' || id || '.mp3'"
        " FROM (SELECT gen_random_uuid() AS id, CAST(:id AS uuid) AS user_id) RETURNING object_key",
        id=user_id,
    )
    await isolated_service.store.put(row.object_key, b"half")
    await isolated_service.store.begin(row.object_key)
    return user_id, row.object_key


async def leave_a_deleted_record(isolated_service: RecordsService) -> tuple[UUID, str]:
    """Leaves to the sweeper what DELETE /records/{id} leaves."""
    (user_id, _), record_id, key = await make_record(isolated_service)
    await delete_record(isolated_service.engine, record_id, user_id)
    return user_id, key


async def leave_a_deleted_user(isolated_service: RecordsService) -> tuple[UUID, str]:
    """Leaves to the sweeper what DELETE /users/me leaves."""
    (user_id, credentials), _, key = await make_record(isolated_service)
    await isolated_service.delete_user(credentials)
    return user_id, key


async def make_record(isolated_service: RecordsService) -> tuple[tuple[UUID, Credentials], UUID, str]:
    """Makes a user with a record; returns the user, the record's id and its object key."""
    user_id, credentials = await isolated_service.make_user()
    uploads = isolated_service.uploads()
    published = await uploads.store_record(wav_pieces(SMALL), credentials)
    await uploads.close()
    (key,) = await isolated_service.objects(user_id)
    return (user_id, credentials), published.record.id, key


@pytest.mark.parametrize("leave", [leave_an_abandoned_upload, leave_a_deleted_record, leave_a_deleted_user])
@pytest.mark.parametrize("is_done", [False, True], ids=["before its effect", "after its effect"])
@pytest.mark.parametrize("process", ["postgres", "minio"])
async def test_a_later_sweep_finishes_the_work_of_a_sweep_that_failed_at_any_call(
    isolated_service: RecordsService,
    process: str,
    is_done: bool,
    leave: Callable[[RecordsService], Awaitable[tuple[UUID, str]]],
) -> None:
    number = 0
    while True:
        number += 1
        user_id, key = await leave(isolated_service)
        assert await isolated_service.objects(user_id) == [key]
        trial = Trial(isolated_service, Failure("fails", process, number, is_done))
        async with asyncio.timeout(MAX_WAIT_SECONDS):
            (outcome,) = await asyncio.gather(isolated_service.sweep(trial.watcher), return_exceptions=True)
        await isolated_service.settle(user_id)
        assert await isolated_service.rows(user_id) == []
        assert await isolated_service.objects(user_id) == []
        assert await isolated_service.multipart_uploads(key) == []
        if not trial.struck:
            assert outcome is None
            break
        # If one tombstone fails, the sweeper logs it and goes on; any other failure ends the round.
        assert outcome is None or isinstance(outcome, Unavailable), trial.struck
    # PostgreSQL: ended leases, tombstones, their rows. MinIO: multipart uploads, perhaps an abort, objects.
    assert number > 3


async def test_a_tombstone_whose_object_cannot_be_removed_does_not_stop_the_sweep_of_the_others(
    isolated_service: RecordsService,
) -> None:
    abandoned = [await leave_an_abandoned_upload(isolated_service) for _ in range(3)]
    refused_key = abandoned[0][1]

    async def watch(call: Call) -> None:
        if call.process == "minio" and refused_key.partition("/")[2] in call.request:
            raise aiohttp.ServerDisconnectedError

    await isolated_service.sweep(CallWatcher(watch))
    left = [await isolated_service.objects(user_id) for user_id, _ in abandoned]
    assert [bool(keys) for keys in left] == [True, False, False]
    for user_id, _ in abandoned:
        await isolated_service.settle(user_id)
