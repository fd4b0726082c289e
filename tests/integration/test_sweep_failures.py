"""A sweep that fails at any call: a later sweep finishes its work."""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from uuid import UUID

import aiohttp
import pytest

from common.credentials import Credentials
from deploy.setup import make_admin, make_bucket_key, make_policy
from records.sql import delete_record
from records.sweeper import sweep
from tests.integration.failing_calls import Failure, Trial
from tests.integration.paused_calls import Pause, sweeper_lists_multipart_uploads
from tests.integration.recordings import LARGE, SMALL, wav_pieces
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


async def leave_a_late_put(isolated_service: RecordsService) -> tuple[UUID, str]:
    """Leaves what arrives after a sweeper's first look, so that the next sweep is its last look."""
    user_id, key = await leave_an_abandoned_upload(isolated_service)
    await isolated_service.sweep()
    await isolated_service.store.put(key, b"late")
    await isolated_service.store.begin(key)
    await isolated_service.age(user_id)
    return user_id, key


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


async def make_record(
    isolated_service: RecordsService, kind: str = SMALL
) -> tuple[tuple[UUID, Credentials], UUID, str]:
    """Makes a user with a record; returns the user, the record's id and its object key."""
    user_id, credentials = await isolated_service.make_user()
    uploads = isolated_service.uploads()
    published = await uploads.store_record(wav_pieces(kind), credentials)
    await uploads.close()
    key, _ = await isolated_service.objects(user_id)
    return (user_id, credentials), published.record.id, key


@pytest.mark.parametrize(
    "leave", [leave_an_abandoned_upload, leave_a_late_put, leave_a_deleted_record, leave_a_deleted_user]
)
@pytest.mark.parametrize("is_done", [False, True], ids=["before its effect", "after its effect"])
@pytest.mark.parametrize("process", ["postgres", "minio"])
@pytest.mark.parametrize("how", ["fails", "killed"])
async def test_a_later_sweep_finishes_the_work_of_a_sweep_that_failed_at_any_call(
    isolated_service: RecordsService,
    how: str,
    process: str,
    is_done: bool,
    leave: Callable[[RecordsService], Awaitable[tuple[UUID, str]]],
) -> None:
    number = 0
    while True:
        number += 1
        user_id, key = await leave(isolated_service)
        assert (await isolated_service.objects(user_id))[0] == key
        trial = Trial(isolated_service, Failure(how, process, number, is_done))
        async with asyncio.timeout(MAX_WAIT_SECONDS):
            await isolated_service.sweep(trial.watcher)
        await isolated_service.settle(user_id)
        assert await isolated_service.rows(user_id) == []
        assert await isolated_service.objects(user_id) == []
        assert await isolated_service.multipart_uploads(key) == []
        if not trial.struck:
            break
    # PostgreSQL: keys, ended leases, tombstones, their rows. MinIO: multipart uploads, an abort, objects.
    has_multipart_upload = leave in (leave_an_abandoned_upload, leave_a_late_put)
    assert number >= (2 if process == "minio" and not has_multipart_upload else 4)


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


async def test_a_tombstone_whose_object_the_store_refuses_to_remove_does_not_stop_the_others(
    isolated_service: RecordsService,
) -> None:
    users = [(await leave_a_deleted_record(isolated_service))[0] for _ in range(3)]

    async def left() -> list[bool]:
        await isolated_service.sweep()
        return [bool(await isolated_service.rows(user_id)) for user_id in users]

    async with refused_removals(isolated_service, users[0]):
        await left()
        for user_id in users:
            await isolated_service.age(user_id)
        assert await left() == [True, False, False]
    assert len(await isolated_service.objects(users[0])) == 2
    await isolated_service.age(users[0])
    assert await left() == [False, False, False]
    assert await isolated_service.objects(users[0]) == []


@asynccontextmanager
async def refused_removals(service: RecordsService, user_id: UUID) -> AsyncIterator[None]:
    """Lets MinIO refuse to remove the objects of a user."""
    bucket = service.settings.store.s3_bucket
    policy = make_policy(bucket)
    statements = policy["Statement"]
    assert isinstance(statements, list)
    resource = f"arn:aws:s3:::{bucket}/{user_id}/*"
    statements.append({"Effect": "Deny", "Action": ["s3:DeleteObject"], "Resource": [resource]})
    admin = make_admin(service.setup, service.session)
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(policy, file)
        file.flush()
        await admin.policy_add(f"waxwing-{bucket}", file.name)
    try:
        yield
    finally:
        await make_bucket_key(admin, service.setup)


async def test_a_step_that_fails_does_not_stop_the_other_steps(isolated_service: RecordsService) -> None:
    user_id, _ = await leave_an_abandoned_upload(isolated_service)

    async def watch(call: Call) -> None:
        if "SET idempotency_key" in call.request:
            raise TimeoutError

    watcher = CallWatcher(watch)
    await isolated_service.sweep(watcher)
    assert any("SET idempotency_key" in call.request for call in watcher.calls)
    assert await isolated_service.objects(user_id) == []
    await isolated_service.settle(user_id)


async def test_a_round_works_in_batches_and_says_that_more_is_left(
    isolated_service: RecordsService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("records.sweeper.BATCH", 2)
    monkeypatch.setattr("records.sweeper.MAX_BATCHES", 2)
    user_id, _ = await isolated_service.make_user()
    # Older than what other tests have left.
    await isolated_service.query(
        "INSERT INTO records (id, user_id, lease_until, object_key) SELECT gen_random_uuid(), :id,"
        " now() - interval '1000 days', gen_random_uuid() FROM generate_series(1, 5)",
        id=user_id,
    )
    service = isolated_service
    left = []
    for _ in range(2):
        has_more = await sweep(service.engine, service.store, service.settings.lease_seconds)
        left.append((has_more, [row.state for row in await service.rows(user_id)].count("uploading")))
    assert left[0] == (True, 1)
    assert left[1][1] == 0
    monkeypatch.undo()
    await service.settle(user_id)
    assert await service.rows(user_id) == []
    assert not await sweep(service.engine, service.store, service.settings.lease_seconds)


async def test_two_sweepers_work_on_different_tombstones(isolated_service: RecordsService) -> None:
    first_user, first_key = await leave_an_abandoned_upload(isolated_service)
    pause = Pause(sweeper_lists_multipart_uploads)
    first = asyncio.create_task(isolated_service.sweep(CallWatcher(pause.watch)))
    await pause.reached()
    second_user, second_key = await leave_an_abandoned_upload(isolated_service)
    second = CallWatcher()
    await isolated_service.sweep(second)
    listed = "".join(call.request for call in second.calls if sweeper_lists_multipart_uploads(call))
    assert (is_listed(first_key, listed), is_listed(second_key, listed)) == (False, True)
    pause.release()
    await first
    for user_id in (first_user, second_user):
        await isolated_service.settle(user_id)
        assert await isolated_service.objects(user_id) == []


def is_listed(key: str, requests: str) -> bool:
    return key.partition("/")[2] in requests


@pytest.mark.parametrize("kind", [SMALL, LARGE])
async def test_only_a_record_of_several_upload_parts_has_its_multipart_uploads_looked_for(
    isolated_service: RecordsService, kind: str
) -> None:
    (user_id, _), record_id, key = await make_record(isolated_service, kind)
    upload_id = await isolated_service.store.begin(key)
    await delete_record(isolated_service.engine, record_id, user_id)
    await isolated_service.settle(user_id)
    assert await isolated_service.objects(user_id) == []
    left = await isolated_service.multipart_uploads(key)
    # One PUT never has a multipart upload; here the test made it.
    assert left == ([upload_id] if kind == SMALL else [])
    await isolated_service.store.remove(key)
