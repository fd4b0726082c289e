"""Uploads and sweeps interleave: no acknowledged record is lost, and no object is left without a record."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import pytest

from common.problems import Unavailable
from records.audio.tags import make_id3
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
from tests.integration.recordings import KEPT, LARGE, SMALL, wav_pieces
from tests.integration.records_service import RecordsService
from tests.integration.waiting import MAX_WAIT_SECONDS, wait_until_async
from tests.integration.watched_calls import Call, CallWatcher

EACH_KIND = pytest.mark.parametrize("kind", [SMALL, LARGE, KEPT])


@EACH_KIND
async def test_an_upload_whose_object_is_swept_before_publishing_is_refused_and_leaves_nothing(
    isolated_service: RecordsService, kind: str
) -> None:
    upload = PausedUpload(isolated_service, kind, before_publish)
    await upload.start()
    objects = len(await isolated_service.objects(upload.user_id))
    assert objects == (3 if kind == KEPT else 2)
    await isolated_service.expire(upload.user_id)
    await isolated_service.sweep()
    assert await isolated_service.objects(upload.user_id) == []
    await upload.assert_interrupted()
    tombstones = await isolated_service.rows(upload.user_id)
    assert [tombstone.state for tombstone in tombstones] == ["deleting"] * objects
    assert await isolated_service.objects(upload.user_id) == []
    await isolated_service.sweep()
    await isolated_service.age(upload.user_id)
    await isolated_service.sweep()
    await isolated_service.assert_nothing_is_left(upload.user_id, upload.watcher)


@EACH_KIND
async def test_an_upload_cannot_publish_after_the_sweeper_has_given_it_up(
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


@EACH_KIND
async def test_a_record_that_is_published_before_the_sweep_is_kept(
    isolated_service: RecordsService, kind: str
) -> None:
    upload = PausedUpload(isolated_service, kind, after_publish)
    await upload.start()
    # The uploader has no response yet, and any lease that is left ends now.
    await isolated_service.query(
        "UPDATE records SET lease_until = now() - interval '1 day' WHERE user_id = :id", id=upload.user_id
    )
    await isolated_service.sweep()
    record = await upload.resume()
    assert record.user_id == upload.user_id
    await isolated_service.settle(upload.user_id)
    await isolated_service.assert_record_is_complete(upload.user_id, upload.watcher)


@pytest.mark.parametrize(
    ("kind", "pauses_at"),
    [
        (SMALL, first_call_to_minio),
        (LARGE, first_call_to_minio),
        (LARGE, before_second_upload_part),
        (LARGE, before_completion),
        (KEPT, first_call_to_minio),
        (KEPT, before_second_upload_part),
        (KEPT, before_completion),
    ],
)
@pytest.mark.parametrize(
    "sweeps", [1, 2], ids=["while its tombstone is there", "after its tombstone is removed"]
)
async def test_an_upload_that_resumes_after_the_sweep_leaves_nothing(
    isolated_service: RecordsService, kind: str, pauses_at: Callable[[Call], bool], sweeps: int
) -> None:
    upload = PausedUpload(isolated_service, kind, pauses_at)
    await upload.start()
    # While an upload part is paused, the upload itself can go on, and fail as soon as the sweeper is done.
    before = len(upload.watcher.calls)
    await isolated_service.expire(upload.user_id)
    for _ in range(sweeps):
        await isolated_service.sweep()
        await isolated_service.age(upload.user_id)
    tombstones = 3 if kind == KEPT else 2
    assert len(await isolated_service.rows(upload.user_id)) == (tombstones if sweeps == 1 else 0)
    # If the sweeper has aborted the multipart upload, MinIO refuses the rest.
    with pytest.raises(Unavailable):
        await upload.resume()
    assert len(upload.watcher.calls) > before
    await isolated_service.settle(upload.user_id)
    await isolated_service.assert_nothing_is_left(upload.user_id, upload.watcher)


@EACH_KIND
async def test_an_upload_survives_an_outage_of_postgres_that_is_a_little_longer_than_its_lease(
    isolated_service: RecordsService, kind: str
) -> None:
    user_id, credentials = await isolated_service.make_user()

    async def watch(call: Call) -> None:
        if "SET lease_until" in call.request:
            raise ConnectionResetError

    async def has_no_lease() -> bool:
        (row,) = await isolated_service.query(
            "SELECT lease_until < now() AS is_over FROM records WHERE user_id = :id", id=user_id
        )
        return bool(row.is_over)

    async def body() -> AsyncIterator[FormItem]:
        items = [item async for item in wav_pieces(kind)]
        for item in items[:3]:
            yield item
        await wait_until_async(has_no_lease)
        await isolated_service.sweep()
        for item in items[3:]:
            yield item

    watcher = CallWatcher(watch)
    uploads = isolated_service.uploads(watcher, lease_seconds=1)
    await uploads.store_record(body(), credentials)
    await uploads.close()
    await isolated_service.assert_record_is_complete(user_id, watcher)


@pytest.mark.parametrize("is_user_deleted", [False, True])
async def test_an_upload_that_learns_of_its_lost_lease_stops_before_it_stores_anything(
    isolated_service: RecordsService, is_user_deleted: bool
) -> None:
    user_id, credentials = await isolated_service.make_user()
    wanted, given_up, learned = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def is_renewal(call: Call) -> bool:
        return "SET lease_until" in call.request

    pause = Pause(lambda call: wanted.is_set() and is_renewal(call) and not call.is_done)

    async def watch(call: Call) -> None:
        await pause.watch(call)
        if given_up.is_set() and is_renewal(call) and call.is_done:
            learned.set()

    async def body() -> AsyncIterator[FormItem]:
        items = [item async for item in wav_pieces(LARGE)]
        for item in items[:3]:
            yield item
        # The row is given up while a renewal is about to be sent, so that this renewal tells of it.
        wanted.set()
        await pause.reached()
        if is_user_deleted:
            await isolated_service.delete_user(credentials)
        else:
            await isolated_service.query(
                "UPDATE records SET state = 'deleting', lease_until = NULL WHERE user_id = :id", id=user_id
            )
        given_up.set()
        pause.release()
        async with asyncio.timeout(MAX_WAIT_SECONDS):
            await learned.wait()
        for item in items[3:]:
            yield item

    watcher = CallWatcher(watch)
    # A lease of zero seconds is renewed continuously.
    uploads = isolated_service.uploads(watcher, lease_seconds=0)
    with pytest.raises(UploadInterrupted):
        await uploads.store_record(body(), credentials)
    await uploads.close()
    assert stored_nothing(watcher)
    await isolated_service.settle(user_id)
    await isolated_service.assert_nothing_is_left(user_id, watcher)


async def test_a_lease_is_renewed_while_the_client_sends_nothing_even_after_failed_renewals(
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


def stored_nothing(watcher: CallWatcher) -> bool:
    return not any(call.request.startswith("PUT") for call in watcher.calls)


async def test_the_second_sweep_removes_the_late_put_of_a_dead_process(
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
    # No late PUT can arrive any more, so the tombstone is gone, too.
    assert await isolated_service.rows(upload.user_id) == []
    await upload.assert_interrupted()
    await isolated_service.assert_nothing_is_left(upload.user_id, upload.watcher)


async def test_a_tombstone_stays_for_a_lease_and_the_longest_put(
    isolated_service: RecordsService,
) -> None:
    upload = PausedUpload(isolated_service, SMALL, first_call_to_minio)
    await upload.start()
    await isolated_service.expire(upload.user_id)
    await isolated_service.sweep()
    tombstone, of_waveform = await isolated_service.rows(upload.user_id)
    # A lease, the grace and the longest PUT.
    wait = tombstone.lease_until - tombstone.gone_since
    assert of_waveform.lease_until - of_waveform.gone_since == wait
    assert wait.total_seconds() == isolated_service.settings.lease_seconds + 90 + 60
    # Even a sweeper that looks again too early leaves it.
    await isolated_service.query(
        "UPDATE records SET lease_until = NULL, gone_since = :almost WHERE user_id = :id",
        id=upload.user_id,
        almost=tombstone.gone_since - wait + timedelta(seconds=10),
    )
    await isolated_service.sweep()
    assert [row.state for row in await isolated_service.rows(upload.user_id)] == ["deleting"] * 2
    await upload.assert_interrupted()


async def test_the_sweeper_spares_uploads_with_a_lease_and_ready_records(
    isolated_service: RecordsService,
) -> None:
    upload = PausedUpload(isolated_service, SMALL, before_publish)
    await upload.start()
    await isolated_service.sweep()
    record = await upload.resume()
    await isolated_service.sweep()
    assert [row.id for row in await isolated_service.rows(upload.user_id)] == [record.id]
    await isolated_service.assert_record_is_complete(upload.user_id, upload.watcher)


async def test_the_service_goes_on_while_it_reads_the_tags_of_a_wav(
    isolated_service: RecordsService, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, credentials = await isolated_service.make_user()
    loop, begun, resumed = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def make_slowly(chunks: list[tuple[bytes, bytes]], title: str | None) -> bytes:
        loop.call_soon_threadsafe(begun.set)
        assert resumed.wait(MAX_WAIT_SECONDS)
        return make_id3(chunks, title)

    monkeypatch.setattr("records.audio.converter.make_id3", make_slowly)
    uploads = isolated_service.uploads()
    upload = asyncio.create_task(uploads.store_record(wav_pieces(SMALL), credentials))
    async with asyncio.timeout(MAX_WAIT_SECONDS):
        await begun.wait()
        resumed.set()
        assert (await upload).record.duration_seconds == 1.0
    await uploads.close()
