"""An upload and the sweeper meet: whichever comes first, nothing acknowledged is lost and no ghost stays."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from common.problems import Unavailable
from records.form import FormItem
from records.problems import UploadInterrupted
from tests.integration.paused_calls import (
    Pause,
    PausedUpload,
    after_publish,
    before_completion,
    before_publish,
    before_second_upload_part,
    first_call_to_minio,
    sweeper_lists_multipart_uploads,
)
from tests.integration.recordings import LARGE, SMALL, wav_pieces
from tests.integration.records_service import RecordsService
from tests.integration.waiting import MAX_WAIT_SECONDS
from tests.integration.watched_calls import Call, CallWatcher

BOTH_KINDS = pytest.mark.parametrize("kind", [SMALL, LARGE])


@BOTH_KINDS
async def test_an_upload_that_is_swept_before_it_publishes_is_refused_and_leaves_nothing(
    isolated_service: RecordsService, kind: str
) -> None:
    upload = PausedUpload(isolated_service, kind, before_publish)
    await upload.start()
    assert len(await isolated_service.objects(upload.user_id)) == 1
    await isolated_service.expire(upload.user_id)
    await isolated_service.sweep()
    assert await isolated_service.objects(upload.user_id) == []
    await upload.assert_interrupted()
    (tombstone,) = await isolated_service.rows(upload.user_id)
    assert tombstone.state == "deleting"
    assert await isolated_service.objects(upload.user_id) == []
    await isolated_service.sweep()
    await isolated_service.age(upload.user_id)
    await isolated_service.sweep()
    await isolated_service.assert_nothing_is_left(upload.user_id, upload.watcher)


@BOTH_KINDS
async def test_an_upload_cannot_publish_between_the_two_halves_of_a_sweep(
    isolated_service: RecordsService, kind: str
) -> None:
    upload = PausedUpload(isolated_service, kind, before_publish)
    await upload.start()
    await isolated_service.expire(upload.user_id)
    pause = Pause(sweeper_lists_multipart_uploads)
    sweeping = asyncio.create_task(isolated_service.sweep(CallWatcher(pause.watch)))
    await pause.reached()
    await upload.assert_interrupted()
    pause.release()
    await sweeping
    await isolated_service.settle(upload.user_id)
    await isolated_service.assert_nothing_is_left(upload.user_id, upload.watcher)


@BOTH_KINDS
async def test_a_record_that_is_published_before_the_sweep_stays(
    isolated_service: RecordsService, kind: str
) -> None:
    upload = PausedUpload(isolated_service, kind, after_publish)
    await upload.start()
    # Its uploader does not know yet; and a lease that were still there would have run out.
    await isolated_service.query(
        "UPDATE records SET lease_until = now() - interval '1 second' WHERE user_id = :id", id=upload.user_id
    )
    await isolated_service.sweep()
    record = await upload.resume()
    assert record.user_id == upload.user_id
    await isolated_service.settle(upload.user_id)
    await isolated_service.assert_record_is_complete(upload.user_id, upload.watcher)


@pytest.mark.parametrize(
    ("kind", "stopped_at"),
    [
        (SMALL, first_call_to_minio),
        (LARGE, first_call_to_minio),
        (LARGE, before_second_upload_part),
        (LARGE, before_completion),
    ],
)
@pytest.mark.parametrize("looks", [1, 3], ids=["while its tombstone stands", "after its tombstone went"])
async def test_a_paused_uploader_that_wakes_after_the_sweep_leaves_nothing(
    isolated_service: RecordsService, kind: str, stopped_at: Callable[[Call], bool], looks: int
) -> None:
    upload = PausedUpload(isolated_service, kind, stopped_at)
    await upload.start()
    await isolated_service.expire(upload.user_id)
    for _ in range(looks):
        await isolated_service.sweep()
        await isolated_service.age(upload.user_id)
    assert len(await isolated_service.rows(upload.user_id)) == (1 if looks == 1 else 0)
    before = len(upload.watcher.calls)
    # Where the sweep took the open upload away, the store refuses the rest of it.
    with pytest.raises(Unavailable):
        await upload.resume()
    assert len(upload.watcher.calls) > before
    await isolated_service.settle(upload.user_id)
    await isolated_service.assert_nothing_is_left(upload.user_id, upload.watcher)


async def test_an_uploader_that_finds_its_lease_lost_stops_before_it_stores_anything(
    isolated_service: RecordsService,
) -> None:
    user_id, credentials = await isolated_service.make_user()
    swept, learned = asyncio.Event(), asyncio.Event()

    async def watch(call: Call) -> None:
        if swept.is_set() and "SET lease_until" in call.request and call.is_done:
            learned.set()

    async def body() -> AsyncIterator[FormItem]:
        items = [item async for item in wav_pieces(LARGE)]
        for item in items[:2]:
            yield item
        await isolated_service.expire(user_id)
        swept.set()
        await isolated_service.sweep()
        async with asyncio.timeout(MAX_WAIT_SECONDS):
            await learned.wait()
        for item in items[2:]:
            yield item

    watcher = CallWatcher(watch)
    # A lease of no length is renewed all the time.
    uploads = isolated_service.uploads(watcher, lease_seconds=0)
    with pytest.raises(UploadInterrupted):
        await uploads.store_record(body(), credentials)
    await uploads.close()
    assert keys_were_not_stored(watcher)
    await isolated_service.settle(user_id)
    await isolated_service.assert_nothing_is_left(user_id, watcher)


async def test_a_lease_is_renewed_while_the_client_sends_nothing_also_after_renewals_that_failed(
    isolated_service: RecordsService,
) -> None:
    user_id, credentials = await isolated_service.make_user()
    renewals = 0
    renewed = asyncio.Event()

    async def watch(call: Call) -> None:
        nonlocal renewals
        if "SET lease_until" in call.request:
            if not call.is_done and renewals < 2:
                renewals += 1
                raise ConnectionResetError
            if call.is_done:
                renewed.set()

    async def body() -> AsyncIterator[FormItem]:
        async with asyncio.timeout(MAX_WAIT_SECONDS):
            await renewed.wait()
        async for item in wav_pieces(SMALL):
            yield item

    uploads = isolated_service.uploads(CallWatcher(watch), lease_seconds=1)
    published = await uploads.store_record(body(), credentials)
    await uploads.close()
    assert renewals == 2
    assert [row.id for row in await isolated_service.rows(user_id) if row.state == "ready"] == [
        published.record.id
    ]


def keys_were_not_stored(watcher: CallWatcher) -> bool:
    return not any(call.request.startswith("PUT") for call in watcher.calls)


async def test_a_late_put_of_a_process_that_is_gone_is_caught_by_the_second_look(
    isolated_service: RecordsService,
) -> None:
    upload = PausedUpload(isolated_service, SMALL, first_call_to_minio)
    await upload.start()
    (row,) = await isolated_service.rows(upload.user_id)
    await isolated_service.expire(upload.user_id)
    await isolated_service.sweep()
    await isolated_service.store.put(row.object_key, b"late")
    upload_id = await isolated_service.store.begin(row.object_key)
    await isolated_service.age(upload.user_id)
    await isolated_service.sweep()
    assert await isolated_service.objects(upload.user_id) == []
    assert upload_id not in await isolated_service.multipart_uploads(row.object_key)
    # Something was found, so the two looks begin anew.
    (tombstone,) = await isolated_service.rows(upload.user_id)
    assert (tombstone.state, tombstone.gone_since) == ("deleting", None)
    await upload.assert_interrupted()
    await isolated_service.settle(upload.user_id)
    await isolated_service.assert_nothing_is_left(upload.user_id, upload.watcher)


async def test_a_tombstone_stays_until_the_longest_put_and_a_lease_have_passed(
    isolated_service: RecordsService,
) -> None:
    upload = PausedUpload(isolated_service, SMALL, first_call_to_minio)
    await upload.start()
    await isolated_service.expire(upload.user_id)
    for _ in range(3):
        await isolated_service.sweep()
    (tombstone,) = await isolated_service.rows(upload.user_id)
    assert tombstone.state == "deleting"
    assert tombstone.gone_since is not None
    await upload.assert_interrupted()


async def test_a_living_upload_and_a_ready_record_are_not_swept(isolated_service: RecordsService) -> None:
    upload = PausedUpload(isolated_service, SMALL, before_publish)
    await upload.start()
    await isolated_service.sweep()
    record = await upload.resume()
    await isolated_service.sweep()
    assert [row.id for row in await isolated_service.rows(upload.user_id)] == [record.id]
    await isolated_service.assert_record_is_complete(upload.user_id, upload.watcher)
