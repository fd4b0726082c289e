"""A key whatever fails, and whoever else uses it at the same moment: one record, and no key that is lost."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from typing import Any
from uuid import UUID

import httpx
import pytest
from records.service import Published, Replayed
from sqlalchemy import text

from common.credentials import Credentials
from common.db import transaction
from common.problems import InvalidCredentials, Unavailable
from deploy.client import Client
from deploy.local.stack import Stack
from records.form import Field
from records.problems import IdempotencyKeyInUse, IdempotencyKeyReused
from tests.integration.isolated import Call, Isolated, Wire
from tests.integration.pausing import BOUND_SECONDS, Pause, first_of_the_object, publishing
from tests.integration.reading import until, until_awaited
from tests.integration.sounds import LARGE, SMALL, pieces
from tests.raw_connection import make_request_head, open_raw_connection
from tests.response_checks import assert_json, assert_problem
from tests.upload_requests import TINY_WAV, WAV_TYPE, bearer

KEY = "the key"


def looking_up(call: Call) -> bool:
    """The statement that asks what a key was used for."""
    return "LEFT OUTER JOIN" in call.what and not call.is_done


async def unread() -> AsyncIterator[Field | bytes]:
    """A body of which nothing but the beginning of its audio may be read."""
    yield b""
    pytest.fail("the audio was read")


async def store(
    isolated: Isolated, credentials: Credentials, wire: Wire | None = None, key: str | None = KEY
) -> Published:
    """Uploads to a service of its own."""
    uploads = isolated.uploads(wire)
    try:
        async with asyncio.timeout(BOUND_SECONDS):
            return await uploads.store_record(pieces(SMALL), credentials, key)
    finally:
        await uploads.close()


async def replay(isolated: Isolated, credentials: Credentials) -> Replayed:
    """Sends the upload again and checks that only PostgreSQL was asked, and no audio read."""
    wire = Wire()
    uploads = isolated.uploads(wire)
    record = await uploads.store_record(unread(), credentials, KEY)
    await uploads.close()
    assert isinstance(record, Replayed)
    assert [(call.part, call.what.split()[0]) for call in wire.calls] == [
        ("postgres", "INSERT"),
        ("postgres", "SELECT"),
    ]
    return record


def assert_made(record: Published) -> None:
    assert not isinstance(record, Replayed)


async def test_an_upload_with_a_new_key_asks_no_more_of_postgres_than_one_without(
    isolated: Isolated,
) -> None:
    calls = []
    for key in (KEY, None):
        _, credentials = await isolated.make_user()
        wire = Wire()
        assert_made(await store(isolated, credentials, wire, key))
        calls.append([call.what.split()[0] for call in wire.calls if call.part == "postgres"])
    assert calls == [["INSERT", "UPDATE"]] * 2


@pytest.mark.parametrize("kind", [SMALL, LARGE])
async def test_while_an_upload_is_under_way_its_key_is_in_use_and_then_answered(
    isolated: Isolated, kind: str
) -> None:
    user_id, credentials = await isolated.make_user()
    pause = Pause(publishing)
    wire = Wire(pause.watch)
    uploads = isolated.uploads(wire)
    first = asyncio.create_task(uploads.store_record(pieces(kind), credentials, KEY))
    await pause.reached()
    with pytest.raises(IdempotencyKeyInUse) as refusal:
        await uploads.store_record(unread(), credentials, KEY)
    assert (refusal.value.status_code, refusal.value.headers) == (409, {"Retry-After": "5"})
    pause.release()
    record = await first
    await uploads.close()
    assert_made(record)
    assert (await replay(isolated, credentials)).id == record.id
    await isolated.assert_record_is_whole(user_id, wire)


async def test_of_many_first_uploads_at_once_exactly_one_makes_a_record(isolated: Isolated) -> None:
    for _ in range(5):
        user_id, credentials = await isolated.make_user()
        outcomes = await asyncio.gather(
            *(store(isolated, credentials) for _ in range(6)), return_exceptions=True
        )
        kinds = Counter(type(outcome) for outcome in outcomes)
        assert kinds[Published] == 1
        assert kinds.keys() <= {Published, Replayed, IdempotencyKeyInUse}
        (row,) = await isolated.rows(user_id)
        assert {outcome.id for outcome in outcomes if isinstance(outcome, Published)} == {row.id}


async def test_a_key_that_is_freed_while_it_is_looked_up_is_taken(isolated: Isolated) -> None:
    user_id, credentials = await isolated.make_user()
    holding = Pause(publishing)
    first = asyncio.create_task(store(isolated, credentials, Wire(holding.watch)))
    await holding.reached()
    looking = Pause(looking_up)
    wire = Wire(looking.watch)
    second = asyncio.create_task(store(isolated, credentials, wire))
    await looking.reached()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    looking.release()
    record = await second
    assert_made(record)
    said = [call.what.split()[0] for call in wire.calls if call.part == "postgres"]
    assert said == ["INSERT", "SELECT", "INSERT", "UPDATE"]
    await isolated.settle(user_id)
    await isolated.assert_record_is_whole(user_id, wire)


async def test_a_token_that_is_renewed_while_its_key_is_looked_up_is_refused(isolated: Isolated) -> None:
    user_id, credentials = await isolated.make_user()
    await store(isolated, credentials)
    looking = Pause(looking_up)
    second = asyncio.create_task(store(isolated, credentials, Wire(looking.watch)))
    await looking.reached()
    await isolated.query("UPDATE users SET token_digest = 'x' WHERE id = :id", id=user_id)
    looking.release()
    with pytest.raises(InvalidCredentials):
        await second
    await isolated.query("UPDATE users SET token_digest = NULL WHERE id = :id", id=user_id)


@pytest.mark.parametrize("is_done", [False, True], ids=["before its effect", "after its effect"])
async def test_an_upload_that_goes_wrong_at_any_call_can_be_sent_again_with_its_key(
    isolated: Isolated, is_done: bool
) -> None:
    counted = Wire()
    _, credentials = await isolated.make_user()
    await store(isolated, credentials, counted)
    outcomes: list[type[Published]] = []
    for strike in range(len(counted.calls)):
        user_id, credentials = await isolated.make_user()
        wire = Wire()

        async def watch(call: Call, wire: Wire = wire, strike: int = strike) -> None:
            if len(wire.calls) == strike + 1 and call.is_done == is_done:
                raise ConnectionResetError

        wire.watch = watch
        with pytest.raises(Unavailable):
            await store(isolated, credentials, wire)
        # A reservation whose answer was lost is the sweeper's: nobody knows its row.
        await isolated.expire(user_id)
        await isolated.sweep()
        record = await store(isolated, credentials)
        outcomes.append(type(record))
        assert (await replay(isolated, credentials)).id == record.id
        await isolated.settle(user_id)
        await isolated.assert_record_is_whole(user_id, wire)
    # Where only the answer to the last statement was lost, there is a record, which is announced now.
    assert outcomes == [Published] * (len(outcomes) - is_done) + [Replayed] * is_done
    assert len(outcomes) >= 3


async def test_the_sweeper_leaves_what_is_locked_to_its_next_round(isolated: Isolated) -> None:
    user_id, credentials = await isolated.make_user()
    await store(isolated, credentials)
    await isolated.query(
        "UPDATE records SET published_at = published_at - interval '25 hours' WHERE user_id = :id", id=user_id
    )
    keys = "SELECT idempotency_key FROM records WHERE user_id = :id"
    async with transaction(isolated.engine) as connection:
        await connection.execute(text(f"{keys} FOR UPDATE"), {"id": user_id})
        await isolated.sweep()
        assert [row.idempotency_key for row in await isolated.query(keys, id=user_id)] != [None]
    await isolated.sweep()
    assert [row.idempotency_key for row in await isolated.query(keys, id=user_id)] == [None]


async def test_a_key_is_free_once_the_sweeper_has_taken_the_upload_of_a_process_that_is_gone(
    isolated: Isolated,
) -> None:
    user_id, credentials = await isolated.make_user()
    pause = Pause(first_of_the_object)
    wire = Wire(pause.watch)
    gone = asyncio.create_task(store(isolated, credentials, wire))
    await pause.reached()
    with pytest.raises(IdempotencyKeyInUse):
        await store(isolated, credentials)
    await isolated.expire(user_id)
    await isolated.sweep()
    # The tombstone is still there, and has the key no more.
    assert [row.state for row in await isolated.rows(user_id)] == ["deleting"]
    record = await store(isolated, credentials)
    assert_made(record)
    # It was only paused, and wakes: it is refused, and takes nothing from the other.
    pause.release()
    with pytest.raises(Unavailable):
        await gone
    assert (await replay(isolated, credentials)).id == record.id
    await isolated.settle(user_id)
    await isolated.assert_record_is_whole(user_id, wire)


async def age_keys(isolated: Isolated, user_id: UUID, hours: float) -> None:
    await isolated.query(
        "UPDATE records SET published_at = published_at - make_interval(secs => :seconds)"
        " WHERE user_id = :id",
        id=user_id,
        seconds=hours * 3600,
    )


async def test_a_key_is_kept_for_24_hours_and_then_forgotten(isolated: Isolated) -> None:
    user_id, credentials = await isolated.make_user()
    record = await store(isolated, credentials)
    await age_keys(isolated, user_id, 23.9)
    await isolated.sweep()
    assert (await replay(isolated, credentials)).id == record.id
    await age_keys(isolated, user_id, 0.2)
    await isolated.sweep()
    (row,) = await isolated.rows(user_id)
    assert (row.state, row.idempotency_key, row.idempotency_options) == ("ready", None, None)
    another = await store(isolated, credentials)
    assert_made(another)
    assert {row.id for row in await isolated.rows(user_id)} == {record.id, another.id}


async def test_the_key_of_an_upload_that_takes_more_than_24_hours_is_kept(isolated: Isolated) -> None:
    user_id, credentials = await isolated.make_user()
    pause = Pause(publishing)
    first = asyncio.create_task(store(isolated, credentials, Wire(pause.watch)))
    await pause.reached()
    await isolated.query(
        "UPDATE records SET created_at = created_at - interval '25 hours' WHERE user_id = :id", id=user_id
    )
    await isolated.sweep()
    with pytest.raises(IdempotencyKeyInUse):
        await store(isolated, credentials)
    pause.release()
    record = await first
    await isolated.sweep()
    assert (await replay(isolated, credentials)).id == record.id


async def test_old_keys_are_forgotten_also_while_the_store_is_away(isolated: Isolated) -> None:
    user_id, credentials = await isolated.make_user()
    await store(isolated, credentials)
    await age_keys(isolated, user_id, 25)
    other_id, other = await isolated.make_user()
    record = await store(isolated, other)
    await isolated.query("UPDATE records SET state = 'deleting' WHERE id = :id", id=record.id)

    async def watch(call: Call) -> None:
        if call.part == "minio":
            raise ConnectionResetError

    wire = Wire(watch)
    # It is given up where there are other tombstones too.
    with suppress(Unavailable):
        await isolated.sweep(wire)
    assert any(call.part == "minio" for call in wire.calls)
    assert [row.idempotency_key for row in await isolated.rows(user_id)] == [None]
    await isolated.settle(other_id)


async def test_other_options_are_refused_before_the_audio_is_read_and_change_nothing(
    isolated: Isolated,
) -> None:
    user_id, credentials = await isolated.make_user()
    wire = Wire()
    uploads = isolated.uploads(wire)

    async def titled(title: str) -> AsyncIterator[Field | bytes]:
        yield Field("title", title)
        async for piece in unread() if title == "b" else pieces(SMALL):
            yield piece

    record = await uploads.store_record(titled("a"), credentials, KEY)
    with pytest.raises(IdempotencyKeyReused) as refusal:
        await uploads.store_record(titled("b"), credentials, KEY)
    await uploads.close()
    assert refusal.value.status_code == 422
    assert '{"title":"a","bitrate_kbps":128}' in refusal.value.detail
    (row,) = await isolated.rows(user_id)
    assert (row.id, row.title, row.idempotency_options) == (record.id, "a", {"bitrate_kbps": 128})
    await isolated.assert_record_is_whole(user_id, wire)


@pytest.mark.parametrize("options", ["{}", '{"title": "a"}'])
async def test_a_record_whose_upload_was_noted_without_a_bitrate_had_the_default(
    isolated: Isolated, options: str
) -> None:
    user_id, credentials = await isolated.make_user()
    record = await store(isolated, credentials)
    await isolated.query(
        "UPDATE records SET idempotency_options = cast(:options AS jsonb) WHERE user_id = :id",
        id=user_id,
        options=options,
    )
    assert (await replay(isolated, credentials)).id == record.id
    uploads = isolated.uploads(default_bitrate_kbps=64)
    with pytest.raises(IdempotencyKeyReused):
        await uploads.store_record(with_bitrate("128"), credentials, KEY)
    assert (await uploads.store_record(with_bitrate("64"), credentials, KEY)).id == record.id
    await uploads.close()


async def with_bitrate(kbps: str) -> AsyncIterator[Field | bytes]:
    yield Field("bitrate_kbps", kbps)
    async for piece in unread():
        yield piece


async def test_a_replay_gives_its_place_back(isolated: Isolated) -> None:
    _, credentials = await isolated.make_user()
    uploads = isolated.uploads(max_uploads=1)
    first = await uploads.store_record(pieces(SMALL), credentials, KEY)
    for _ in range(3):
        assert (await uploads.store_record(unread(), credentials, KEY)).id == first.id
    await uploads.close()


# A client that vanishes, through all parts


def send(client: Client, user: dict[str, Any]) -> httpx.Response:
    headers = {**WAV_TYPE, **bearer(user), "Idempotency-Key": "the-key"}
    return client.http.post("/records", content=TINY_WAV, headers=headers)


def send_unless_in_use(client: Client, user: dict[str, Any]) -> httpx.Response | None:
    answer = send(client, user)
    return None if answer.status_code == 409 else answer


async def test_an_upload_whose_client_vanished_can_be_sent_again(
    stack: Stack, inside: Isolated, client: Client, user: dict[str, Any]
) -> None:
    headers = WAV_TYPE | bearer(user) | {"Idempotency-Key": "the-key", "Content-Length": str(len(TINY_WAV))}
    head = make_request_head(
        "POST", "/records", stack.base_url, *(f"{name}: {headers[name]}" for name in headers)
    )
    with open_raw_connection(stack.base_url) as wire:
        wire.send(head, TINY_WAV[:200])
        await until_awaited(partial(inside.rows, UUID(user["id"])))
        assert_problem(send(client, user), 409, "idempotency-key-in-use")
    answer = until(partial(send_unless_in_use, client, user))
    assert answer
    record = assert_json(answer, 201)
    assert "Idempotency-Replayed" not in answer.headers
    assert [row.id for row in await inside.rows(UUID(user["id"]))] == [UUID(record["id"])]
