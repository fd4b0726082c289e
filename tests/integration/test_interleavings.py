"""An upload and the sweeper meet: whichever comes first, nothing acknowledged is lost and no ghost stays."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from common.problems import Unavailable
from records.form import Field
from records.problems import UploadInterrupted
from tests.integration.isolated import Call, Isolated, Wire
from tests.integration.pausing import (
    BOUND_SECONDS,
    Pause,
    Uploading,
    completing,
    first_of_the_object,
    published,
    publishing,
    removing,
    second_part,
)
from tests.integration.sounds import LARGE, SMALL, pieces

BOTH_KINDS = pytest.mark.parametrize("kind", [SMALL, LARGE])


@BOTH_KINDS
async def test_an_upload_that_is_swept_before_it_publishes_is_refused_and_leaves_nothing(
    isolated: Isolated, kind: str
) -> None:
    upload = Uploading(isolated, kind, publishing)
    await upload.start()
    assert len(await isolated.objects(upload.user_id)) == 1
    await isolated.expire(upload.user_id)
    await isolated.sweep()
    assert await isolated.objects(upload.user_id) == []
    await upload.is_interrupted()
    (tombstone,) = await isolated.rows(upload.user_id)
    assert tombstone.state == "deleting"
    assert await isolated.objects(upload.user_id) == []
    await isolated.sweep()
    await isolated.age(upload.user_id)
    await isolated.sweep()
    await isolated.assert_nothing_is_left(upload.user_id, upload.wire)


@BOTH_KINDS
async def test_an_upload_cannot_publish_between_the_two_halves_of_a_sweep(
    isolated: Isolated, kind: str
) -> None:
    upload = Uploading(isolated, kind, publishing)
    await upload.start()
    await isolated.expire(upload.user_id)
    pause = Pause(removing)
    sweeping = asyncio.create_task(isolated.sweep(Wire(pause.watch)))
    await pause.reached()
    await upload.is_interrupted()
    pause.release()
    await sweeping
    await isolated.settle(upload.user_id)
    await isolated.assert_nothing_is_left(upload.user_id, upload.wire)


@BOTH_KINDS
async def test_a_record_that_is_published_before_the_sweep_stays(isolated: Isolated, kind: str) -> None:
    upload = Uploading(isolated, kind, published)
    await upload.start()
    # Its uploader does not know yet; and a lease that were still there would have run out.
    await isolated.query(
        "UPDATE records SET lease_until = now() - interval '1 second' WHERE user_id = :id", id=upload.user_id
    )
    await isolated.sweep()
    record = await upload.go_on()
    assert record.user_id == upload.user_id
    await isolated.settle(upload.user_id)
    await isolated.assert_record_is_whole(upload.user_id, upload.wire)


@pytest.mark.parametrize(
    ("kind", "stopped_at"),
    [(SMALL, first_of_the_object), (LARGE, first_of_the_object), (LARGE, second_part), (LARGE, completing)],
)
@pytest.mark.parametrize("looks", [1, 3], ids=["while its tombstone stands", "after its tombstone went"])
async def test_a_paused_uploader_that_wakes_after_the_sweep_leaves_nothing(
    isolated: Isolated, kind: str, stopped_at: Callable[[Call], bool], looks: int
) -> None:
    upload = Uploading(isolated, kind, stopped_at)
    await upload.start()
    await isolated.expire(upload.user_id)
    for _ in range(looks):
        await isolated.sweep()
        await isolated.age(upload.user_id)
    assert len(await isolated.rows(upload.user_id)) == (1 if looks == 1 else 0)
    before = len(upload.wire.calls)
    # Where the sweep took the open upload away, the store refuses the rest of it.
    with pytest.raises(Unavailable):
        await upload.go_on()
    assert len(upload.wire.calls) > before
    await isolated.settle(upload.user_id)
    await isolated.assert_nothing_is_left(upload.user_id, upload.wire)


async def test_an_uploader_that_finds_its_lease_lost_stops_before_it_stores_anything(
    isolated: Isolated,
) -> None:
    user_id, credentials = await isolated.make_user()
    swept, learned = asyncio.Event(), asyncio.Event()

    async def watch(call: Call) -> None:
        if swept.is_set() and "SET lease_until" in call.what and call.is_done:
            learned.set()

    async def body() -> AsyncIterator[Field | bytes]:
        windows = [window async for window in pieces(LARGE)]
        yield windows[0]
        await isolated.expire(user_id)
        swept.set()
        await isolated.sweep()
        async with asyncio.timeout(BOUND_SECONDS):
            await learned.wait()
        for window in windows[1:]:
            yield window

    wire = Wire(watch)
    # A lease of no length is renewed all the time.
    uploads = isolated.uploads(wire, lease_seconds=0)
    with pytest.raises(UploadInterrupted):
        await uploads.store_record(body(), credentials)
    await uploads.close()
    assert keys_were_not_stored(wire)
    await isolated.settle(user_id)
    await isolated.assert_nothing_is_left(user_id, wire)


async def test_a_lease_is_renewed_while_the_client_sends_nothing_also_after_renewals_that_failed(
    isolated: Isolated,
) -> None:
    user_id, credentials = await isolated.make_user()
    renewals = 0
    renewed = asyncio.Event()

    async def watch(call: Call) -> None:
        nonlocal renewals
        if "SET lease_until" in call.what:
            if not call.is_done and renewals < 2:
                renewals += 1
                raise ConnectionResetError
            if call.is_done:
                renewed.set()

    async def body() -> AsyncIterator[Field | bytes]:
        async with asyncio.timeout(BOUND_SECONDS):
            await renewed.wait()
        async for window in pieces(SMALL):
            yield window

    uploads = isolated.uploads(Wire(watch), lease_seconds=1)
    record = await uploads.store_record(body(), credentials)
    await uploads.close()
    assert renewals == 2
    assert [row.id for row in await isolated.rows(user_id) if row.state == "ready"] == [record.id]


def keys_were_not_stored(wire: Wire) -> bool:
    return not any(call.what.startswith("PUT") for call in wire.calls)


async def test_a_late_put_of_a_process_that_is_gone_is_caught_by_the_second_look(isolated: Isolated) -> None:
    upload = Uploading(isolated, SMALL, first_of_the_object)
    await upload.start()
    (row,) = await isolated.rows(upload.user_id)
    await isolated.expire(upload.user_id)
    await isolated.sweep()
    await isolated.store.put(row.object_key, b"late")
    upload_id = await isolated.store.begin(row.object_key)
    await isolated.age(upload.user_id)
    await isolated.sweep()
    assert await isolated.objects(upload.user_id) == []
    assert upload_id not in await isolated.open_uploads(row.object_key)
    # Something was found, so the two looks begin anew.
    (tombstone,) = await isolated.rows(upload.user_id)
    assert (tombstone.state, tombstone.gone_since) == ("deleting", None)
    await upload.is_interrupted()
    await isolated.settle(upload.user_id)
    await isolated.assert_nothing_is_left(upload.user_id, upload.wire)


async def test_a_tombstone_stays_until_the_longest_put_and_a_lease_have_passed(isolated: Isolated) -> None:
    upload = Uploading(isolated, SMALL, first_of_the_object)
    await upload.start()
    await isolated.expire(upload.user_id)
    for _ in range(3):
        await isolated.sweep()
    (tombstone,) = await isolated.rows(upload.user_id)
    assert tombstone.state == "deleting"
    assert tombstone.gone_since is not None
    await upload.is_interrupted()


async def test_a_living_upload_and_a_ready_record_are_not_swept(isolated: Isolated) -> None:
    upload = Uploading(isolated, SMALL, publishing)
    await upload.start()
    await isolated.sweep()
    record = await upload.go_on()
    await isolated.sweep()
    assert [row.id for row in await isolated.rows(upload.user_id)] == [record.id]
    await isolated.assert_record_is_whole(upload.user_id, upload.wire)
