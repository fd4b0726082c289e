"""A user can be deleted at any time: the links stop working at once, and the sweeper removes the rest."""

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from common.db import execute
from common.problems import ClientGone, InvalidCredentials, Unavailable
from deploy.client import Client
from deploy.local.stack import Stack
from records.form import AudioBegins, FormItem
from records.problems import UnknownRecord, UploadInterrupted
from records.sql import DELETE_RECORD, find_record, find_user, rename_record, renew_lease
from records.storage import make_waveform_key
from tests.integration.paused_calls import (
    Pause,
    PausedUpload,
    after_publish,
    after_reservation,
    before_completion,
    before_publish,
    before_second_upload_part,
    first_call_to_minio,
    uncommitted_deletion,
)
from tests.integration.recordings import LARGE, SMALL, make_wav, wav_pieces
from tests.integration.records_service import RecordsService
from tests.integration.waiting import MAX_WAIT_SECONDS, wait_until_async
from tests.integration.watched_calls import Call, CallWatcher
from tests.raw_connection import make_request_head, open_raw_connection
from tests.response_checks import assert_problem


async def test_a_statement_that_postgres_rolls_back_in_a_deadlock_is_unavailable(
    isolated_service: RecordsService,
) -> None:
    deadlock = text("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = 'deadlock_detected'; END $$")
    with pytest.raises(Unavailable):
        await execute(isolated_service.engine, deadlock)


async def assert_all_is_swept(isolated_service: RecordsService, user_id: UUID, watcher: CallWatcher) -> None:
    await isolated_service.settle(user_id)
    await isolated_service.assert_nothing_is_left(user_id, watcher)


@pytest.mark.parametrize(
    ("kind", "pauses_at"),
    [
        (SMALL, after_reservation),
        (SMALL, first_call_to_minio),
        (SMALL, before_publish),
        (LARGE, before_second_upload_part),
        (LARGE, before_completion),
        (LARGE, before_publish),
    ],
)
async def test_an_upload_whose_user_is_deleted_meanwhile_is_refused_and_leaves_nothing(
    isolated_service: RecordsService, kind: str, pauses_at: Callable[[Call], bool]
) -> None:
    upload = PausedUpload(isolated_service, kind, pauses_at)
    await upload.start()
    await isolated_service.delete_user(upload.credentials)
    await upload.assert_interrupted()
    assert {row.state for row in await isolated_service.rows(upload.user_id)} == {"deleting"}
    assert await isolated_service.objects(upload.user_id) == []
    await assert_all_is_swept(isolated_service, upload.user_id, upload.watcher)


@pytest.mark.parametrize(
    ("kind", "pauses_at"),
    [(SMALL, first_call_to_minio), (LARGE, before_second_upload_part), (LARGE, before_publish)],
)
async def test_an_upload_that_resumes_after_its_user_was_deleted_and_swept_leaves_nothing(
    isolated_service: RecordsService, kind: str, pauses_at: Callable[[Call], bool]
) -> None:
    upload = PausedUpload(isolated_service, kind, pauses_at)
    await upload.start()
    await isolated_service.delete_user(upload.credentials)
    # Its lease is not renewed any more.
    await isolated_service.expire(upload.user_id)
    await isolated_service.sweep()
    # MinIO refuses the rest of a large object, because the sweeper has aborted its multipart upload.
    with pytest.raises(Unavailable):
        await upload.resume()
    await assert_all_is_swept(isolated_service, upload.user_id, upload.watcher)


async def test_an_upload_that_loses_its_lease_ends_even_if_its_client_sends_nothing(
    isolated_service: RecordsService,
) -> None:
    user_id, credentials = await isolated_service.make_user()

    async def body() -> AsyncIterator[FormItem]:
        yield AudioBegins()
        yield make_wav(SMALL)[:1000]
        await isolated_service.delete_user(credentials)
        await asyncio.Event().wait()

    uploads = isolated_service.uploads(lease_seconds=1)
    with pytest.raises(UploadInterrupted):
        async with asyncio.timeout(MAX_WAIT_SECONDS):
            await uploads.store_record(body(), credentials)
    await uploads.close()
    assert await isolated_service.objects(user_id) == []


async def test_a_lease_that_ends_while_a_failed_upload_is_cleaned_up_is_no_error(
    isolated_service: RecordsService,
) -> None:
    _, credentials = await isolated_service.make_user()
    errors: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    pause = Pause(lambda call: call.request.startswith("DELETE FROM records") and call.is_done)
    watcher = CallWatcher(pause.watch)

    async def body() -> AsyncIterator[FormItem]:
        yield AudioBegins()
        raise ClientGone("The request body ended early.")

    async def has_lost_its_lease() -> bool:
        return watcher.has_made("SET lease_until")

    uploads = isolated_service.uploads(watcher, lease_seconds=1)
    upload = asyncio.create_task(uploads.store_record(body(), credentials))
    await pause.reached()
    await wait_until_async(has_lost_its_lease)
    pause.release()
    with pytest.raises(ClientGone):
        await upload
    await uploads.close()
    assert errors == []


async def test_a_record_that_is_published_just_before_its_user_is_deleted_is_deleted_too(
    isolated_service: RecordsService,
) -> None:
    upload = PausedUpload(isolated_service, SMALL, after_publish)
    await upload.start()
    await isolated_service.delete_user(upload.credentials)
    # The record existed for a moment.
    record = await upload.resume()
    with pytest.raises(UnknownRecord):
        await find_record(isolated_service.reader, record.id, upload.user_id)
    await assert_all_is_swept(isolated_service, upload.user_id, upload.watcher)


async def test_a_record_that_is_published_during_the_deletion_of_its_user_is_deleted_too(
    isolated_service: RecordsService,
) -> None:
    upload = PausedUpload(isolated_service, SMALL, before_publish)
    await upload.start()
    async with asyncio.timeout(MAX_WAIT_SECONDS):
        async with uncommitted_deletion(isolated_service, upload.credentials):
            publishing = asyncio.create_task(upload.resume())
            # The sums of the user wait for the deletion.
            await isolated_service.wait_for_locked_statements(1)
        record = await publishing
    with pytest.raises(UnknownRecord):
        await find_record(isolated_service.reader, record.id, upload.user_id)
    await assert_all_is_swept(isolated_service, upload.user_id, upload.watcher)


@pytest.mark.parametrize("kind", [SMALL, LARGE])
async def test_an_upload_that_begins_during_the_deletion_of_its_user_is_refused_and_leaves_nothing(
    isolated_service: RecordsService, kind: str
) -> None:
    user_id, credentials = await isolated_service.make_user()
    watcher = CallWatcher()
    uploads = isolated_service.uploads(watcher)
    async with asyncio.timeout(MAX_WAIT_SECONDS):
        async with uncommitted_deletion(isolated_service, credentials):
            upload = asyncio.create_task(uploads.store_record(wav_pieces(kind), credentials))
            await isolated_service.wait_for_locked_statements(1)
        with pytest.raises(UploadInterrupted):
            await upload
    await uploads.close()
    assert any(before_publish(call) for call in watcher.calls)
    await assert_all_is_swept(isolated_service, user_id, watcher)


async def test_a_deletion_waits_for_an_upload_that_just_begins_and_ends_it(
    isolated_service: RecordsService,
) -> None:
    user_id, credentials = await isolated_service.make_user()
    async with isolated_service.owner.execution_options(
        isolation_level="READ COMMITTED"
    ).begin() as beginning:
        # The first statement of an upload holds the same locks until its commit.
        statement = (
            "INSERT INTO records (id, user_id, lease_until, object_key)"
            " VALUES (gen_random_uuid(), :user, now() + interval '1 hour', 'begun') RETURNING id"
        )
        record_id = await beginning.scalar(text(statement), {"user": user_id})
        deletion = asyncio.create_task(isolated_service.delete_user(credentials))
        async with asyncio.timeout(MAX_WAIT_SECONDS):
            await isolated_service.wait_for_locked_statements(1)
    await deletion
    assert not await renew_lease(isolated_service.engine, record_id, 30)
    await isolated_service.settle(user_id)
    assert await isolated_service.rows(user_id) == []


async def test_a_rename_that_waits_for_the_deletion_of_its_record_finds_no_record(
    isolated_service: RecordsService,
) -> None:
    user_id, credentials = await isolated_service.make_user()
    uploads = isolated_service.uploads()
    record = (await uploads.store_record(wav_pieces(SMALL), credentials)).record
    await uploads.close()
    deletion = isolated_service.engine.execution_options(isolation_level="READ COMMITTED")
    async with asyncio.timeout(MAX_WAIT_SECONDS):
        async with deletion.begin() as connection:
            await connection.execute(DELETE_RECORD, {"record_id": record.id, "owner_id": user_id})
            rename = asyncio.create_task(rename_record(isolated_service.engine, record.id, user_id, "Late"))
            await isolated_service.wait_for_locked_statements(1)
        with pytest.raises(UnknownRecord):
            await rename
    (tombstone,) = [row for row in await isolated_service.rows(user_id) if row.id == record.id]
    assert (tombstone.state, tombstone.title) == ("deleting", None)


async def test_the_second_of_two_deletions_at_once_waits_and_finds_no_user(
    isolated_service: RecordsService,
) -> None:
    _, credentials = await isolated_service.make_user()
    async with asyncio.timeout(MAX_WAIT_SECONDS):
        async with uncommitted_deletion(isolated_service, credentials):
            second = asyncio.create_task(isolated_service.delete_user(credentials))
            await isolated_service.wait_for_locked_statements(1)
        with pytest.raises(InvalidCredentials):
            await second


@pytest.mark.parametrize("is_done", [False, True], ids=["before its effect", "after its effect"])
@pytest.mark.parametrize("how", ["fails", "is killed by PostgreSQL"])
async def test_a_deletion_that_fails_is_complete_or_without_effect(
    isolated_service: RecordsService, how: str, is_done: bool
) -> None:
    user_id, credentials = await isolated_service.make_user()
    uploads = isolated_service.uploads()
    records = [(await uploads.store_record(wav_pieces(SMALL), credentials)).record for _ in range(2)]
    await uploads.close()

    async def watch(call: Call) -> None:
        # A deletion is one statement.
        assert call.number == 1
        if call.is_done != is_done:
            return
        if how == "fails":
            raise ConnectionResetError
        await isolated_service.query(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
            " WHERE usename = 'waxwing_users_login' AND datname = current_database()"
        )

    watcher = CallWatcher(watch)
    (outcome,) = await asyncio.gather(
        isolated_service.delete_user(credentials, watcher), return_exceptions=True
    )
    assert outcome is None or isinstance(outcome, Unavailable), outcome
    if not is_done:
        assert await find_user(isolated_service.engine, credentials) == user_id
        for record in records:
            await find_record(isolated_service.reader, record.id, user_id)
        # The second attempt succeeds.
        await isolated_service.delete_user(credentials)
    with pytest.raises(InvalidCredentials):
        await find_user(isolated_service.engine, credentials)
    for record in records:
        with pytest.raises(UnknownRecord):
            await find_record(isolated_service.reader, record.id, user_id)
    await assert_all_is_swept(isolated_service, user_id, watcher)


async def test_an_upload_during_which_its_user_deletes_the_account_is_503_and_leaves_nothing(
    stack: Stack, stack_service: RecordsService, client: Client, user: dict[str, Any]
) -> None:
    user_id, wav = UUID(user["id"]), make_wav(SMALL)
    authorization = f"Authorization: Bearer {user['token']}"
    head = make_request_head(
        "POST",
        "/records",
        stack.base_url,
        authorization,
        "Content-Type: audio/wav",
        f"Content-Length: {len(wav)}",
    )
    with open_raw_connection(stack.base_url) as connection:
        connection.send(head, wav[:10_000])
        (row,) = await wait_until_async(partial(stack_service.rows, user_id))
        deletion = client.http.delete("/users/me", headers=dict([authorization.split(": ")]))
        assert deletion.status_code == 204
        connection.send(wav[10_000:])
        response = connection.read_response("POST")
    assert_problem(response, 503, "upload-interrupted", "its user was deleted")
    assert response.headers["Retry-After"] == "5"
    link = client.http.get("/record", params={"id": str(row.id), "user": user["id"]})
    assert_problem(link, 404, "unknown-record")
    assert await stack_service.objects(user_id) == []
    await assert_all_is_swept(stack_service, user_id, CallWatcher())


async def test_the_next_sweep_removes_the_objects_of_deleted_records_and_users(
    stack_service: RecordsService, client: Client, user: dict[str, Any]
) -> None:
    user_id, headers = UUID(user["id"]), {"Authorization": f"Bearer {user['token']}"}
    first, second = (client.upload_stream([make_wav(SMALL)], user["token"]) for _ in range(2))
    client.http.delete(f"/records/{first['id']}", headers=headers).raise_for_status()

    async def has_only(keys: list[str]) -> bool:
        # The sweeper of the stack may take the work before this one.
        await stack_service.sweep()
        return await stack_service.objects(user_id) == keys

    key = f"{user_id}/{second['id']}.mp3"
    await wait_until_async(lambda: has_only([key, make_waveform_key(key)]))
    client.http.delete("/users/me", headers=headers).raise_for_status()
    await wait_until_async(lambda: has_only([]))
    await assert_all_is_swept(stack_service, user_id, CallWatcher())
