"""Idempotency keys under failures and concurrency: a key makes one record and is never lost."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from functools import partial
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import text

from common.credentials import Credentials
from common.db import transaction
from common.problems import InvalidCredentials, Unavailable
from deploy.client import Client
from deploy.local.stack import Stack
from records.form import AudioBegins, FormField, FormItem
from records.problems import IdempotencyKeyInUse, IdempotencyKeyReused
from records.uploads import Published, Replayed
from tests.integration.paused_calls import Pause, before_publish, first_call_to_minio
from tests.integration.recordings import LARGE, SMALL, wav_pieces
from tests.integration.records_service import RecordsService
from tests.integration.waiting import MAX_WAIT_SECONDS, wait_until, wait_until_async
from tests.integration.watched_calls import Call, CallWatcher
from tests.raw_connection import make_request_head, open_raw_connection
from tests.response_checks import assert_json, assert_problem
from tests.upload_requests import TINY_WAV, WAV_TYPE, bearer

KEY = "the key"


def before_key_lookup(call: Call) -> bool:
    """Whether the service is about to look up the upload that used the key."""
    return "LEFT OUTER JOIN" in call.request and not call.is_done


async def unread(kind: str = SMALL) -> AsyncIterator[FormItem]:
    """Yields what precedes the audio and that it begins, and fails if the service reads on."""
    async for piece in wav_pieces(kind):
        yield piece
        if isinstance(piece, AudioBegins):
            break
    pytest.fail("the service read the audio")


async def store(
    isolated_service: RecordsService,
    credentials: Credentials,
    watcher: CallWatcher | None = None,
    key: str | None = KEY,
) -> Published | Replayed:
    """Uploads to a new service."""
    uploads = isolated_service.uploads(watcher, store_retry_seconds=0)
    try:
        async with asyncio.timeout(MAX_WAIT_SECONDS):
            return await uploads.store_record(wav_pieces(SMALL), credentials, key)
    finally:
        await uploads.close()


async def replay(isolated_service: RecordsService, credentials: Credentials, kind: str = SMALL) -> Replayed:
    """Sends the upload again. Checks that the service makes two statements and reads no audio."""
    watcher = CallWatcher()
    uploads = isolated_service.uploads(watcher)
    record = await uploads.store_record(unread(kind), credentials, KEY)
    await uploads.close()
    assert isinstance(record, Replayed)
    assert [(call.process, call.request.split()[0]) for call in watcher.calls] == [
        ("postgres", "INSERT"),
        ("postgres", "SELECT"),
    ]
    return record


def assert_made(outcome: Published | Replayed) -> None:
    assert isinstance(outcome, Published)


async def test_an_upload_with_a_new_key_makes_as_many_statements_as_one_without_a_key(
    isolated_service: RecordsService,
) -> None:
    calls = []
    for key in (KEY, None):
        _, credentials = await isolated_service.make_user()
        watcher = CallWatcher()
        assert_made(await store(isolated_service, credentials, watcher, key))
        calls.append([call.request.split()[0] for call in watcher.calls if call.process == "postgres"])
    assert calls == [["INSERT", "UPDATE"]] * 2


@pytest.mark.parametrize("kind", [SMALL, LARGE])
async def test_a_key_is_in_use_during_its_upload_and_replayed_afterwards(
    isolated_service: RecordsService, kind: str
) -> None:
    user_id, credentials = await isolated_service.make_user()
    pause = Pause(before_publish)
    watcher = CallWatcher(pause.watch)
    uploads = isolated_service.uploads(watcher)
    first = asyncio.create_task(uploads.store_record(wav_pieces(kind), credentials, KEY))
    await pause.reached()
    with pytest.raises(IdempotencyKeyInUse) as refusal:
        await uploads.store_record(unread(), credentials, KEY)
    assert (refusal.value.status_code, refusal.value.headers) == (409, {"Retry-After": "5"})
    pause.release()
    made = await first
    await uploads.close()
    assert_made(made)
    assert (await replay(isolated_service, credentials, kind)).record.id == made.record.id
    await isolated_service.assert_record_is_complete(user_id, watcher)


async def test_exactly_one_of_many_simultaneous_uploads_with_one_key_makes_a_record(
    isolated_service: RecordsService,
) -> None:
    for _ in range(5):
        user_id, credentials = await isolated_service.make_user()
        outcomes = await asyncio.gather(
            *(store(isolated_service, credentials) for _ in range(6)), return_exceptions=True
        )
        kinds = Counter(type(outcome) for outcome in outcomes)
        assert kinds[Published] == 1
        assert kinds.keys() <= {Published, Replayed, IdempotencyKeyInUse}
        (row,) = await isolated_service.rows(user_id)
        assert {outcome.record.id for outcome in outcomes if isinstance(outcome, Published)} == {row.id}


async def test_an_upload_takes_a_key_that_becomes_free_during_its_lookup(
    isolated_service: RecordsService,
) -> None:
    user_id, credentials = await isolated_service.make_user()
    holding = Pause(before_publish)
    first = asyncio.create_task(store(isolated_service, credentials, CallWatcher(holding.watch)))
    await holding.reached()
    looking = Pause(before_key_lookup)
    watcher = CallWatcher(looking.watch)
    second = asyncio.create_task(store(isolated_service, credentials, watcher))
    await looking.reached()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    looking.release()
    made = await second
    assert_made(made)
    statements = [call.request.split()[0] for call in watcher.calls if call.process == "postgres"]
    assert statements == ["INSERT", "SELECT", "INSERT", "UPDATE"]
    await isolated_service.settle(user_id)
    await isolated_service.assert_record_is_complete(user_id, watcher)


async def test_a_token_that_is_renewed_during_the_lookup_of_a_key_is_refused(
    isolated_service: RecordsService,
) -> None:
    user_id, credentials = await isolated_service.make_user()
    await store(isolated_service, credentials)
    looking = Pause(before_key_lookup)
    second = asyncio.create_task(store(isolated_service, credentials, CallWatcher(looking.watch)))
    await looking.reached()
    await isolated_service.query("UPDATE users SET token_digest = 'x' WHERE id = :id", id=user_id)
    looking.release()
    with pytest.raises(InvalidCredentials):
        await second
    await isolated_service.query("UPDATE users SET token_digest = NULL WHERE id = :id", id=user_id)


@pytest.mark.parametrize("is_done", [False, True], ids=["before its effect", "after its effect"])
async def test_an_upload_that_goes_wrong_at_any_call_can_be_sent_again_with_its_key(
    isolated_service: RecordsService, is_done: bool
) -> None:
    counted = CallWatcher()
    _, credentials = await isolated_service.make_user()
    await store(isolated_service, credentials, counted)
    outcomes: list[type[Published | Replayed]] = []
    for struck in counted.calls:
        user_id, credentials = await isolated_service.make_user()
        watcher = CallWatcher()

        async def watch(call: Call, struck: Call = struck) -> None:
            if (call.process, call.number, call.is_done) == (struck.process, struck.number, is_done):
                raise ConnectionResetError

        watcher.watch = watch
        with pytest.raises(Unavailable):
            await store(isolated_service, credentials, watcher)
        # If the response to the reservation is lost, only the sweeper can find the row.
        await isolated_service.expire(user_id)
        await isolated_service.sweep()
        made = await store(isolated_service, credentials)
        outcomes.append(type(made))
        assert (await replay(isolated_service, credentials)).record.id == made.record.id
        await isolated_service.settle(user_id)
        await isolated_service.assert_record_is_complete(user_id, watcher)
    # If only the response to the last statement was lost, the record exists and is replayed.
    assert outcomes == [Published] * (len(outcomes) - is_done) + [Replayed] * is_done
    assert len(outcomes) >= 3


async def test_the_sweeper_skips_locked_rows_until_its_next_round(isolated_service: RecordsService) -> None:
    user_id, credentials = await isolated_service.make_user()
    await store(isolated_service, credentials)
    await isolated_service.query(
        "UPDATE records SET published_at = published_at - interval '25 hours' WHERE user_id = :id", id=user_id
    )
    keys = "SELECT idempotency_key FROM records WHERE user_id = :id"
    async with transaction(isolated_service.engine) as connection:
        await connection.execute(text(f"{keys} FOR UPDATE"), {"id": user_id})
        await isolated_service.sweep()
        assert [row.idempotency_key for row in await isolated_service.query(keys, id=user_id)] != [None]
    await isolated_service.sweep()
    assert [row.idempotency_key for row in await isolated_service.query(keys, id=user_id)] == [None]


@pytest.mark.parametrize("is_swept", [False, True], ids=["before the sweeper comes", "after a sweep"])
async def test_a_key_is_free_once_the_lease_of_a_dead_process_has_run_out(
    isolated_service: RecordsService, is_swept: bool
) -> None:
    user_id, credentials = await isolated_service.make_user()
    pause = Pause(first_call_to_minio)
    watcher = CallWatcher(pause.watch)
    gone = asyncio.create_task(store(isolated_service, credentials, watcher))
    await pause.reached()
    with pytest.raises(IdempotencyKeyInUse):
        await store(isolated_service, credentials)
    await isolated_service.expire(user_id)
    if is_swept:
        await isolated_service.sweep()
    made = await store(isolated_service, credentials)
    assert_made(made)
    # The tombstone is still there, but without the key.
    assert {row.state for row in await isolated_service.rows(user_id)} == {"deleting", "ready"}
    # The first upload was only paused. When it resumes it is refused, and the second keeps its record.
    pause.release()
    with pytest.raises(Unavailable):
        await gone
    assert (await replay(isolated_service, credentials)).record.id == made.record.id
    await isolated_service.settle(user_id)
    await isolated_service.assert_record_is_complete(user_id, watcher)


async def age_keys(isolated_service: RecordsService, user_id: UUID, hours: float) -> None:
    await isolated_service.query(
        "UPDATE records SET published_at = published_at - make_interval(secs => :seconds)"
        " WHERE user_id = :id",
        id=user_id,
        seconds=hours * 3600,
    )


async def test_a_key_is_kept_for_24_hours_and_then_forgotten(isolated_service: RecordsService) -> None:
    user_id, credentials = await isolated_service.make_user()
    made = await store(isolated_service, credentials)
    await age_keys(isolated_service, user_id, 23.9)
    await isolated_service.sweep()
    assert (await replay(isolated_service, credentials)).record.id == made.record.id
    await age_keys(isolated_service, user_id, 0.2)
    await isolated_service.sweep()
    (row,) = await isolated_service.rows(user_id)
    assert (row.state, row.idempotency_key) == ("ready", None)
    another = await store(isolated_service, credentials)
    assert_made(another)
    assert {row.id for row in await isolated_service.rows(user_id)} == {made.record.id, another.record.id}


async def test_an_upload_that_takes_more_than_24_hours_keeps_its_key(
    isolated_service: RecordsService,
) -> None:
    user_id, credentials = await isolated_service.make_user()
    pause = Pause(before_publish)
    first = asyncio.create_task(store(isolated_service, credentials, CallWatcher(pause.watch)))
    await pause.reached()
    await isolated_service.query(
        "UPDATE records SET created_at = created_at - interval '25 hours' WHERE user_id = :id", id=user_id
    )
    await isolated_service.sweep()
    with pytest.raises(IdempotencyKeyInUse):
        await store(isolated_service, credentials)
    pause.release()
    made = await first
    await isolated_service.sweep()
    assert (await replay(isolated_service, credentials)).record.id == made.record.id


async def test_the_sweeper_forgets_old_keys_while_minio_is_away(isolated_service: RecordsService) -> None:
    user_id, credentials = await isolated_service.make_user()
    await store(isolated_service, credentials)
    await age_keys(isolated_service, user_id, 25)
    other_id, other = await isolated_service.make_user()
    made = await store(isolated_service, other)
    await isolated_service.query("UPDATE records SET state = 'deleting' WHERE id = :id", id=made.record.id)

    async def watch(call: Call) -> None:
        if call.process == "minio":
            raise ConnectionResetError

    watcher = CallWatcher(watch)
    await isolated_service.sweep(watcher)
    assert any(call.process == "minio" for call in watcher.calls)
    assert [row.idempotency_key for row in await isolated_service.rows(user_id)] == [None]
    await isolated_service.settle(other_id)


async def test_a_key_with_other_options_is_refused_before_the_audio_is_read_and_changes_nothing(
    isolated_service: RecordsService,
) -> None:
    user_id, credentials = await isolated_service.make_user()
    watcher = CallWatcher()
    uploads = isolated_service.uploads(watcher)

    async def titled(title: str) -> AsyncIterator[FormItem]:
        yield FormField("title", title)
        async for piece in unread() if title == "b" else wav_pieces(SMALL):
            yield piece

    made = await uploads.store_record(titled("a"), credentials, KEY)
    with pytest.raises(IdempotencyKeyReused) as refusal:
        await uploads.store_record(titled("b"), credentials, KEY)
    await uploads.close()
    assert refusal.value.status_code == 422
    assert '{"title":"a","bitrate_kbps":128,"keep_original":false}' in refusal.value.detail
    (row,) = await isolated_service.rows(user_id)
    assert (row.id, row.title, row.requested_bitrate_kbps) == (made.record.id, "a", 128)
    await isolated_service.assert_record_is_complete(user_id, watcher)


async def test_a_key_whose_row_has_no_bitrate_counts_as_used_with_the_default(
    isolated_service: RecordsService,
) -> None:
    user_id, credentials = await isolated_service.make_user()
    made = await store(isolated_service, credentials)
    await isolated_service.query(
        "UPDATE records SET requested_bitrate_kbps = NULL WHERE user_id = :id", id=user_id
    )
    assert (await replay(isolated_service, credentials)).record.id == made.record.id
    uploads = isolated_service.uploads(default_bitrate_kbps=64)
    with pytest.raises(IdempotencyKeyReused):
        await uploads.store_record(with_bitrate("128"), credentials, KEY)
    assert (await uploads.store_record(with_bitrate("64"), credentials, KEY)).record.id == made.record.id
    await uploads.close()


async def with_bitrate(kbps: str) -> AsyncIterator[FormItem]:
    yield FormField("bitrate_kbps", kbps)
    async for piece in unread():
        yield piece


async def test_a_replay_releases_its_slot(isolated_service: RecordsService) -> None:
    _, credentials = await isolated_service.make_user()
    uploads = isolated_service.uploads(max_uploads=1)
    first = await uploads.store_record(wav_pieces(SMALL), credentials, KEY)
    for _ in range(3):
        assert (await uploads.store_record(unread(), credentials, KEY)).record.id == first.record.id
    await uploads.close()


def send(client: Client, user: dict[str, Any]) -> httpx.Response:
    headers = {**WAV_TYPE, **bearer(user), "Idempotency-Key": "the-key"}
    return client.http.post("/records", content=TINY_WAV, headers=headers)


def send_unless_in_use(client: Client, user: dict[str, Any]) -> httpx.Response | None:
    response = send(client, user)
    return None if response.status_code == 409 else response


async def test_an_upload_whose_client_vanished_can_be_sent_again(
    stack: Stack, stack_service: RecordsService, client: Client, user: dict[str, Any]
) -> None:
    headers = WAV_TYPE | bearer(user) | {"Idempotency-Key": "the-key", "Content-Length": str(len(TINY_WAV))}
    head = make_request_head(
        "POST", "/records", stack.base_url, *(f"{name}: {headers[name]}" for name in headers)
    )
    with open_raw_connection(stack.base_url) as connection:
        connection.send(head, TINY_WAV[:200])
        await wait_until_async(partial(stack_service.rows, UUID(user["id"])))
        assert_problem(send(client, user), 409, "idempotency-key-in-use")
    response = wait_until(partial(send_unless_in_use, client, user))
    assert response
    record = assert_json(response, 201)
    assert "Idempotency-Replayed" not in response.headers
    assert [row.id for row in await stack_service.rows(UUID(user["id"]))] == [UUID(record["id"])]
