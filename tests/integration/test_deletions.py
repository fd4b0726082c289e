"""A user is deleted, whatever is under way: from then on nothing is heard, and soon nothing is left."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import UUID

import httpx
import pytest
from records.service import find_record, find_user
from sqlalchemy import text

from common.db import execute
from common.problems import InvalidCredentials, Unavailable
from deploy.client import Client
from deploy.local.stack import Stack
from records.problems import UnknownRecord, UploadInterrupted
from tests.integration.isolated import Call, Isolated, Wire
from tests.integration.pausing import (
    BOUND_SECONDS,
    Deleting,
    Uploading,
    committing,
    completing,
    first_of_the_object,
    published,
    publishing,
    reserved,
    second_part,
    user_is_marked,
)
from tests.integration.reading import until_awaited
from tests.integration.sounds import LARGE, SMALL, pieces, wav_of
from tests.raw_connection import make_request_head, open_raw_connection
from tests.response_checks import assert_problem


async def test_what_postgres_rolls_back_for_another_may_be_tried_again(isolated: Isolated) -> None:
    deadlock = text("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = 'deadlock_detected'; END $$")
    with pytest.raises(Unavailable):
        await execute(isolated.engine, deadlock)


async def assert_all_is_swept(isolated: Isolated, user_id: UUID, wire: Wire) -> None:
    await isolated.settle(user_id)
    await isolated.assert_nothing_is_left(user_id, wire)


# An upload is under way


@pytest.mark.parametrize(
    ("kind", "stopped_at"),
    [
        (SMALL, reserved),
        (SMALL, first_of_the_object),
        (SMALL, publishing),
        (LARGE, second_part),
        (LARGE, completing),
        (LARGE, publishing),
    ],
)
async def test_the_upload_of_a_user_who_is_deleted_meanwhile_is_refused_and_leaves_nothing(
    isolated: Isolated, kind: str, stopped_at: Callable[[Call], bool]
) -> None:
    upload = Uploading(isolated, kind, stopped_at)
    await upload.start()
    await isolated.delete_user(upload.credentials)
    await upload.is_interrupted()
    assert {row.state for row in await isolated.rows(upload.user_id)} == {"deleting"}
    assert await isolated.objects(upload.user_id) == []
    await assert_all_is_swept(isolated, upload.user_id, upload.wire)


@pytest.mark.parametrize(
    ("kind", "stopped_at"), [(SMALL, first_of_the_object), (LARGE, second_part), (LARGE, publishing)]
)
async def test_an_upload_that_wakes_after_its_user_was_deleted_and_swept_leaves_nothing(
    isolated: Isolated, kind: str, stopped_at: Callable[[Call], bool]
) -> None:
    upload = Uploading(isolated, kind, stopped_at)
    await upload.start()
    await isolated.delete_user(upload.credentials)
    await isolated.sweep()
    # The store refuses the rest of a large object, whose open upload is gone.
    with pytest.raises(Unavailable):
        await upload.go_on()
    await assert_all_is_swept(isolated, upload.user_id, upload.wire)


async def test_a_record_that_is_published_before_its_user_is_deleted_goes_too(isolated: Isolated) -> None:
    upload = Uploading(isolated, SMALL, published)
    await upload.start()
    await isolated.delete_user(upload.credentials)
    # It was there, for a moment.
    record = await upload.go_on()
    with pytest.raises(UnknownRecord):
        await find_record(isolated.reader, record.id, upload.user_id)
    await assert_all_is_swept(isolated, upload.user_id, upload.wire)


async def test_a_record_that_is_published_in_the_middle_of_a_deletion_goes_too(isolated: Isolated) -> None:
    upload = Uploading(isolated, SMALL, publishing)
    await upload.start()
    deletion = Deleting(isolated, upload.credentials, user_is_marked)
    await deletion.start()
    record = await upload.go_on()
    await find_record(isolated.reader, record.id, upload.user_id)
    await deletion.go_on()
    with pytest.raises(UnknownRecord):
        await find_record(isolated.reader, record.id, upload.user_id)
    await assert_all_is_swept(isolated, upload.user_id, upload.wire)


async def test_an_upload_that_would_publish_at_the_end_of_a_deletion_waits_and_is_refused(
    isolated: Isolated,
) -> None:
    upload = Uploading(isolated, SMALL, publishing)
    await upload.start()
    deletion = Deleting(isolated, upload.credentials, committing)
    await deletion.start()
    refusal = asyncio.create_task(upload.is_interrupted())
    async with asyncio.timeout(BOUND_SECONDS):
        await isolated.until_waiting(1)
        await deletion.go_on()
        await refusal
    await assert_all_is_swept(isolated, upload.user_id, upload.wire)


@pytest.mark.parametrize("stopped_at", [user_is_marked, committing])
@pytest.mark.parametrize("kind", [SMALL, LARGE])
async def test_an_upload_that_begins_while_its_user_is_being_deleted_is_refused_and_leaves_nothing(
    isolated: Isolated, kind: str, stopped_at: Callable[[Call], bool]
) -> None:
    user_id, credentials = await isolated.make_user()
    deletion = Deleting(isolated, credentials, stopped_at)
    await deletion.start()
    wire = Wire()
    uploads = isolated.uploads(wire)
    upload = asyncio.create_task(uploads.store_record(pieces(kind), credentials))
    async with asyncio.timeout(BOUND_SECONDS):
        await isolated.until_waiting(1)
        await deletion.go_on()
        # Its row came too late for the deletion to see it, so it is refused at its end.
        with pytest.raises(UploadInterrupted):
            await upload
    await uploads.close()
    assert any(publishing(call) for call in wire.calls)
    await assert_all_is_swept(isolated, user_id, wire)


async def test_a_deletion_that_finds_an_upload_beginning_waits_and_ends_it(isolated: Isolated) -> None:
    user_id, credentials = await isolated.make_user()
    async with isolated.owner.execution_options(isolation_level="READ COMMITTED").begin() as beginning:
        # What the first statement of an upload holds until it is committed.
        statement = (
            "INSERT INTO records (id, user_id, lease_until, object_key)"
            " VALUES (gen_random_uuid(), :user, now() + interval '1 hour', 'begun')"
        )
        await beginning.execute(text(statement), {"user": user_id})
        deletion = asyncio.create_task(isolated.delete_user(credentials))
        async with asyncio.timeout(BOUND_SECONDS):
            await isolated.until_waiting(1)
    await deletion
    assert [row.state for row in await isolated.rows(user_id)] == ["deleting"]
    await isolated.settle(user_id)


async def test_two_deletions_at_once_wait_for_each_other_and_one_finds_nobody(isolated: Isolated) -> None:
    _, credentials = await isolated.make_user()
    first = Deleting(isolated, credentials, committing)
    await first.start()
    second = asyncio.create_task(isolated.delete_user(credentials))
    async with asyncio.timeout(BOUND_SECONDS):
        await isolated.until_waiting(1)
        await first.go_on()
        with pytest.raises(InvalidCredentials):
            await second


# The deletion itself fails


@pytest.mark.parametrize("is_done", [False, True], ids=["before its effect", "after its effect"])
@pytest.mark.parametrize("how", ["fails", "is killed by PostgreSQL"])
async def test_a_deletion_that_goes_wrong_at_any_statement_is_whole_or_has_not_been(
    isolated: Isolated, how: str, is_done: bool
) -> None:
    outcomes = [await delete_in_trouble(isolated, how, number, is_done) for number in (1, 2, 3, 4)]
    # The user, the records, and the commit, from whose effect on it has been; there is no fourth.
    assert outcomes == [False, False, is_done, True]


async def delete_in_trouble(isolated: Isolated, how: str, number: int, is_done: bool) -> bool:
    """Deletes a user with two records; returns whether all are deleted, and checks that else none is."""
    user_id, credentials = await isolated.make_user()
    uploads = isolated.uploads()
    for _ in range(2):
        await uploads.store_record(pieces(SMALL), credentials)
    await uploads.close()

    async def watch(call: Call) -> None:
        if (call.number, call.is_done) != (number, is_done):
            return
        if how == "fails":
            raise ConnectionResetError
        await isolated.query(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
            " WHERE usename = 'waxwing_users_login' AND datname = current_database()"
        )

    wire = Wire(watch)
    (outcome,) = await asyncio.gather(isolated.delete_user(credentials, wire), return_exceptions=True)
    assert outcome is None or isinstance(outcome, Unavailable), outcome
    states = [row.state for row in await isolated.rows(user_id)]
    if states == ["ready", "ready"]:
        assert isinstance(outcome, Unavailable)
        assert await find_user(isolated.engine, credentials) == user_id
        # A second try succeeds.
        await isolated.delete_user(credentials)
        states = [row.state for row in await isolated.rows(user_id)]
        was_deleted = False
    else:
        was_deleted = True
    assert states == ["deleting", "deleting"]
    with pytest.raises(InvalidCredentials):
        await find_user(isolated.engine, credentials)
    await assert_all_is_swept(isolated, user_id, wire)
    return was_deleted


# Over HTTP


async def test_who_deletes_the_account_during_an_upload_gets_503_for_it_and_nothing_is_left(
    stack: Stack, inside: Isolated, client: Client, user: dict[str, Any]
) -> None:
    user_id, wav = UUID(user["id"]), wav_of(SMALL)
    authorization = f"Authorization: Bearer {user['token']}"
    head = make_request_head(
        "POST",
        "/records",
        stack.base_url,
        authorization,
        "Content-Type: audio/wav",
        f"Content-Length: {len(wav)}",
    )
    with open_raw_connection(stack.base_url) as wire:
        wire.send(head, wav[:10_000])
        (row,) = await until_awaited(partial(inside.rows, user_id))
        deletion = client.http.delete("/users/me", headers=dict([authorization.split(": ")]))
        assert deletion.status_code == 204
        wire.send(wav[10_000:])
        answer = wire.read_response("POST")
    assert_problem(answer, 503, "upload-interrupted", "its user is gone")
    assert answer.headers["Retry-After"] == "5"
    link = client.http.get("/record", params={"id": str(row.id), "user": user["id"]})
    assert_problem(link, 404, "unknown-record")
    assert await inside.objects(user_id) == []
    await assert_all_is_swept(inside, user_id, Wire())


async def test_a_deletion_may_take_longer_than_other_statements(
    inside: Isolated, base_url: str, user: dict[str, Any]
) -> None:
    """As one of very many records does: here it waits for a lock until another has waited too long."""
    me = httpx.AsyncClient(base_url=base_url, auth=(user["id"], user["token"]), timeout=BOUND_SECONDS)
    async with me, inside.owner.execution_options(isolation_level="READ COMMITTED").begin() as holding:
        await holding.execute(text("SELECT FROM users WHERE id = :id FOR UPDATE"), {"id": user["id"]})
        deletion = asyncio.create_task(me.delete("/users/me"))
        async with asyncio.timeout(BOUND_SECONDS):
            await inside.until_waiting(1)
        assert_problem(await me.post("/users/me/token"), 503, "unavailable")
        await holding.rollback()
        assert (await deletion).status_code == 204


async def test_the_objects_of_deleted_records_and_users_are_removed_by_the_next_sweep(
    inside: Isolated, client: Client, user: dict[str, Any]
) -> None:
    user_id, headers = UUID(user["id"]), {"Authorization": f"Bearer {user['token']}"}
    first, second = (client.upload_stream([wav_of(SMALL)], user["token"]) for _ in range(2))
    client.http.delete(f"/records/{first['id']}", headers=headers).raise_for_status()
    await inside.sweep()
    assert await inside.objects(user_id) == [f"{user_id}/{second['id']}.mp3"]
    client.http.delete("/users/me", headers=headers).raise_for_status()
    await inside.sweep()
    assert await inside.objects(user_id) == []
    await assert_all_is_swept(inside, user_id, Wire())
