"""A user can be deleted at any time: the links stop working at once, and the sweeper removes the rest."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import text

from common.db import execute
from common.problems import InvalidCredentials, Unavailable
from deploy.client import Client
from deploy.local.stack import Stack
from records.problems import UnknownRecord, UploadInterrupted
from records.sql import find_record, find_user
from tests.integration.paused_calls import (
    PausedDeletion,
    PausedUpload,
    after_publish,
    after_reservation,
    after_user_is_marked,
    before_commit,
    before_completion,
    before_publish,
    before_second_upload_part,
    first_call_to_minio,
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
    await isolated_service.sweep()
    # MinIO refuses the rest of a large object, because the sweeper has aborted its multipart upload.
    with pytest.raises(Unavailable):
        await upload.resume()
    await assert_all_is_swept(isolated_service, upload.user_id, upload.watcher)


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
    deletion = PausedDeletion(isolated_service, upload.credentials, after_user_is_marked)
    await deletion.start()
    record = await upload.resume()
    await find_record(isolated_service.reader, record.id, upload.user_id)
    await deletion.resume()
    with pytest.raises(UnknownRecord):
        await find_record(isolated_service.reader, record.id, upload.user_id)
    await assert_all_is_swept(isolated_service, upload.user_id, upload.watcher)


async def test_an_upload_that_publishes_while_a_deletion_commits_waits_and_is_refused(
    isolated_service: RecordsService,
) -> None:
    upload = PausedUpload(isolated_service, SMALL, before_publish)
    await upload.start()
    deletion = PausedDeletion(isolated_service, upload.credentials, before_commit)
    await deletion.start()
    refusal = asyncio.create_task(upload.assert_interrupted())
    async with asyncio.timeout(MAX_WAIT_SECONDS):
        await isolated_service.wait_for_locked_statements(1)
        await deletion.resume()
        await refusal
    await assert_all_is_swept(isolated_service, upload.user_id, upload.watcher)


@pytest.mark.parametrize("pauses_at", [after_user_is_marked, before_commit])
@pytest.mark.parametrize("kind", [SMALL, LARGE])
async def test_an_upload_that_begins_during_the_deletion_of_its_user_is_refused_and_leaves_nothing(
    isolated_service: RecordsService, kind: str, pauses_at: Callable[[Call], bool]
) -> None:
    user_id, credentials = await isolated_service.make_user()
    deletion = PausedDeletion(isolated_service, credentials, pauses_at)
    await deletion.start()
    watcher = CallWatcher()
    uploads = isolated_service.uploads(watcher)
    upload = asyncio.create_task(uploads.store_record(wav_pieces(kind), credentials))
    async with asyncio.timeout(MAX_WAIT_SECONDS):
        await isolated_service.wait_for_locked_statements(1)
        await deletion.resume()
        # The deletion may have scanned before this row existed, so the publishing statement refuses it.
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
            " VALUES (gen_random_uuid(), :user, now() + interval '1 hour', 'begun')"
        )
        await beginning.execute(text(statement), {"user": user_id})
        deletion = asyncio.create_task(isolated_service.delete_user(credentials))
        async with asyncio.timeout(MAX_WAIT_SECONDS):
            await isolated_service.wait_for_locked_statements(1)
    await deletion
    assert [row.state for row in await isolated_service.rows(user_id)] == ["deleting"]
    await isolated_service.settle(user_id)


async def test_the_second_of_two_deletions_at_once_waits_and_finds_no_user(
    isolated_service: RecordsService,
) -> None:
    _, credentials = await isolated_service.make_user()
    first = PausedDeletion(isolated_service, credentials, before_commit)
    await first.start()
    second = asyncio.create_task(isolated_service.delete_user(credentials))
    async with asyncio.timeout(MAX_WAIT_SECONDS):
        await isolated_service.wait_for_locked_statements(1)
        await first.resume()
        with pytest.raises(InvalidCredentials):
            await second


@pytest.mark.parametrize("is_done", [False, True], ids=["before its effect", "after its effect"])
@pytest.mark.parametrize("how", ["fails", "is killed by PostgreSQL"])
async def test_a_deletion_that_fails_at_any_statement_is_complete_or_without_effect(
    isolated_service: RecordsService, how: str, is_done: bool
) -> None:
    outcomes = [await delete_with_failure(isolated_service, how, number, is_done) for number in (1, 2, 3, 4)]
    # 1: the user, 2: the records, 3: the commit, whose effect completes the deletion. There is no fourth.
    assert outcomes == [False, False, is_done, True]


async def delete_with_failure(isolated_service: RecordsService, how: str, number: int, is_done: bool) -> bool:
    """Deletes a user with two records. Returns whether all are deleted; otherwise checks that none is."""
    user_id, credentials = await isolated_service.make_user()
    uploads = isolated_service.uploads()
    for _ in range(2):
        await uploads.store_record(wav_pieces(SMALL), credentials)
    await uploads.close()

    async def watch(call: Call) -> None:
        if (call.number, call.is_done) != (number, is_done):
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
    states = [row.state for row in await isolated_service.rows(user_id)]
    if states == ["ready", "ready"]:
        assert isinstance(outcome, Unavailable)
        assert await find_user(isolated_service.engine, credentials) == user_id
        # The second attempt succeeds.
        await isolated_service.delete_user(credentials)
        states = [row.state for row in await isolated_service.rows(user_id)]
        was_deleted = False
    else:
        was_deleted = True
    assert states == ["deleting", "deleting"]
    with pytest.raises(InvalidCredentials):
        await find_user(isolated_service.engine, credentials)
    await assert_all_is_swept(isolated_service, user_id, watcher)
    return was_deleted


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


async def test_a_deletion_may_take_longer_than_other_statements(
    stack_service: RecordsService, base_url: str, user: dict[str, Any]
) -> None:
    """Deleting very many records is slow. Here it waits for a lock until another statement times out."""
    me = httpx.AsyncClient(base_url=base_url, auth=(user["id"], user["token"]), timeout=MAX_WAIT_SECONDS)
    async with (
        me,
        stack_service.owner.execution_options(isolation_level="READ COMMITTED").begin() as holding,
    ):
        await holding.execute(text("SELECT FROM users WHERE id = :id FOR UPDATE"), {"id": user["id"]})
        deletion = asyncio.create_task(me.delete("/users/me"))
        async with asyncio.timeout(MAX_WAIT_SECONDS):
            await stack_service.wait_for_locked_statements(1)
        assert_problem(await me.post("/users/me/token"), 503, "unavailable")
        await holding.rollback()
        assert (await deletion).status_code == 204


async def test_the_next_sweep_removes_the_objects_of_deleted_records_and_users(
    stack_service: RecordsService, client: Client, user: dict[str, Any]
) -> None:
    user_id, headers = UUID(user["id"]), {"Authorization": f"Bearer {user['token']}"}
    first, second = (client.upload_stream([make_wav(SMALL)], user["token"]) for _ in range(2))
    client.http.delete(f"/records/{first['id']}", headers=headers).raise_for_status()
    await stack_service.sweep()
    assert await stack_service.objects(user_id) == [f"{user_id}/{second['id']}.mp3"]
    client.http.delete("/users/me", headers=headers).raise_for_status()
    await stack_service.sweep()
    assert await stack_service.objects(user_id) == []
    await assert_all_is_swept(stack_service, user_id, CallWatcher())
