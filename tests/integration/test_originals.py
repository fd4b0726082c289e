"""A kept original lives as long as its record wants it, and no failure leaves it behind or takes it away."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from uuid import UUID

import aiohttp
import pytest

from common.credentials import Credentials
from common.problems import Unavailable
from records import sql
from records.form import BITRATE, KEEP_ORIGINAL, AudioBegins, FormField, FormItem
from records.problems import (
    CredentialsTooLate,
    IdempotencyKeyReused,
    InvalidForm,
    LargerThanQuota,
    OriginalsNotKept,
)
from records.storage import UPLOAD_PART_BYTES, make_original_key, make_waveform_key
from records.uploads import Published, Replayed
from tests.integration.failing_calls import Failure, LetGo, Trial, kill_sweeps_at_any_call
from tests.integration.paused_calls import Pause, PausedUpload, before_publish
from tests.integration.recordings import KEPT, make_wav, wav_pieces
from tests.integration.records_service import RecordsService
from tests.integration.watched_calls import Call, CallWatcher
from tests.upload_requests import TINY_WAV


async def body(*wish: str, bitrate_kbps: str = "") -> AsyncIterator[FormItem]:
    for value in wish:
        yield FormField(KEEP_ORIGINAL, value)
    yield FormField(BITRATE, bitrate_kbps)
    yield AudioBegins()
    yield TINY_WAV


async def keep(service: RecordsService) -> tuple[UUID, Credentials, UUID, str]:
    """Makes a user with a record that has its original. Returns the user, the record's id and its MP3's
    key.
    """
    user_id, credentials = await service.make_user()
    uploads = service.uploads()
    record_id = (await uploads.store_record(body("true"), credentials)).record.id
    await uploads.close()
    key = f"{user_id}/{record_id}.mp3"
    assert await service.objects(user_id) == [key, make_original_key(key), make_waveform_key(key)]
    return user_id, credentials, record_id, key


async def delete_the_original(service: RecordsService) -> tuple[UUID, list[str]]:
    user_id, _, record_id, key = await keep(service)
    assert await sql.delete_original(service.engine, record_id, user_id)
    return user_id, [key, make_waveform_key(key)]


async def delete_the_user(service: RecordsService) -> tuple[UUID, list[str]]:
    user_id, credentials, _, _ = await keep(service)
    await service.delete_user(credentials)
    return user_id, []


async def let_a_killed_upload_expire(service: RecordsService) -> tuple[UUID, list[str]]:
    # The statements of an upload: reserve, keep the original, publish.
    trial = Trial(service, Failure("killed", "postgres", 3))
    user_id, outcome = await trial.run(body("true"))
    assert isinstance(outcome, Unavailable)
    assert "published_at" in trial.struck[0].request
    (row,) = await service.rows(user_id)
    assert (row.state, row.keep_original) == ("uploading", True)
    assert len(await service.objects(user_id)) == 3
    await service.expire(user_id)
    return user_id, []


@pytest.mark.parametrize("process", ["postgres", "minio"])
@pytest.mark.parametrize("let_go", [delete_the_original, delete_the_user, let_a_killed_upload_expire])
async def test_a_sweep_that_is_killed_at_any_call_neither_leaves_an_original_nor_takes_an_mp3(
    isolated_service: RecordsService,
    let_go: LetGo,
    process: str,
) -> None:
    await kill_sweeps_at_any_call(isolated_service, let_go, process)


async def test_an_original_is_deleted_at_once_and_its_room_is_free_before_the_sweep(
    isolated_service: RecordsService,
) -> None:
    user_id, _, record_id, key = await keep(isolated_service)
    before = await read_use(isolated_service, user_id)
    assert await sql.delete_original(isolated_service.engine, record_id, user_id)
    assert await read_use(isolated_service, user_id) == before - len(TINY_WAV)
    assert not await sql.delete_original(isolated_service.engine, record_id, user_id)
    await isolated_service.sweep()
    assert await isolated_service.objects(user_id) == [key, make_waveform_key(key)]
    # The second look waits for what may arrive late.
    assert len(await isolated_service.rows(user_id)) == 2


async def read_use(service: RecordsService, user_id: UUID) -> int:
    (row,) = await service.query("SELECT total_bytes FROM users WHERE id = :id", id=user_id)
    return int(row.total_bytes)


async def test_an_original_that_arrives_late_is_removed_by_the_second_look(
    isolated_service: RecordsService,
) -> None:
    upload = PausedUpload(isolated_service, KEPT, before_publish)
    await upload.start()
    (row,) = await isolated_service.rows(upload.user_id)
    await isolated_service.expire(upload.user_id)
    await isolated_service.sweep()
    late = make_original_key(row.object_key)
    await isolated_service.store.put(late, b"late")
    await isolated_service.store.begin(late)
    await isolated_service.age(upload.user_id)
    await isolated_service.sweep()
    await upload.assert_interrupted()
    await isolated_service.assert_nothing_is_left(upload.user_id, upload.watcher)
    assert await isolated_service.multipart_uploads(late) == []


async def test_an_upload_that_was_given_up_before_its_audio_begins_touches_no_original(
    isolated_service: RecordsService,
) -> None:
    user_id, credentials = await isolated_service.make_user()
    watcher = CallWatcher()

    async def given_up() -> AsyncIterator[FormItem]:
        yield FormField(KEEP_ORIGINAL, "true")
        await isolated_service.query(
            "UPDATE records SET state = 'deleting', lease_until = NULL WHERE user_id = :id", id=user_id
        )
        async for item in wav_pieces(KEPT):
            yield item

    uploads = isolated_service.uploads(watcher)
    with pytest.raises(Unavailable):
        await uploads.store_record(given_up(), credentials)
    await uploads.close()
    assert {call.process for call in watcher.calls} == {"postgres"}
    await isolated_service.settle(user_id)
    assert await isolated_service.rows(user_id) == []


async def test_the_original_is_sent_while_it_arrives_and_waits_for_a_slow_store(
    isolated_service: RecordsService,
) -> None:
    user_id, credentials = await isolated_service.make_user()
    pause = Pause(lambda call: "partNumber=1" in call.request and not call.is_done)
    watcher = CallWatcher(pause.watch)
    taken = 0

    async def pieces() -> AsyncIterator[FormItem]:
        nonlocal taken
        async for item in wav_pieces(KEPT, 100):
            taken += len(item) if isinstance(item, bytes) else 0
            yield item

    async def release() -> int:
        await pause.reached()
        # The upload takes what fits into memory: an upload part that is being sent, and one that fills.
        while taken < 2 * UPLOAD_PART_BYTES:  # noqa: ASYNC110 (no event tells it)
            await asyncio.sleep(0)
        for _ in range(1000):
            await asyncio.sleep(0)
        pause.release()
        return taken

    uploads = isolated_service.uploads(watcher)
    releasing = asyncio.create_task(release())
    await uploads.store_record(pieces(), credentials)
    await uploads.close()
    wav = make_wav(KEPT)
    piece = -(-len(wav) // 100)
    assert await releasing < 2 * UPLOAD_PART_BYTES + piece < len(wav)
    (row,) = await isolated_service.rows(user_id)
    assert row.original_sha256 == hashlib.sha256(wav).digest()
    assert await isolated_service.read_object(make_original_key(row.object_key)) == wav


@pytest.mark.parametrize(
    ("setting", "wish", "is_kept"),
    [("false", [], False), ("false", ["true"], True), ("true", [], True), ("true", ["false"], False)],
)
async def test_the_setting_is_what_an_upload_without_a_wish_gets(
    isolated_service: RecordsService, setting: str, wish: list[str], is_kept: bool
) -> None:
    user_id, credentials = await isolated_service.make_user()
    uploads = isolated_service.uploads(keep_originals=setting)
    for key in (None, "key"):
        result = await uploads.store_record(body(*wish), credentials, key)
        assert isinstance(result, Published)
        assert (result.record.original is not None) == is_kept
    assert isinstance(await uploads.store_record(body(*wish), credentials, "key"), Replayed)
    other = "false" if is_kept else "true"
    with pytest.raises(IdempotencyKeyReused, match='"keep_original":' + str(is_kept).lower()):
        await uploads.store_record(body(other), credentials, "key")
    # A record of the version before, which has no wish, counts as the default.
    await isolated_service.query("UPDATE records SET keep_original = NULL WHERE user_id = :id", id=user_id)
    assert isinstance(await uploads.store_record(body(setting), credentials, "key"), Replayed)
    await uploads.close()


async def test_where_all_originals_are_kept_the_audio_cannot_come_first(
    isolated_service: RecordsService,
) -> None:
    uploads = isolated_service.uploads(keep_originals="true")
    with pytest.raises(CredentialsTooLate, match="keep_original=false"):
        await uploads.store_record(body(), None)
    await uploads.close()


async def test_a_deployment_that_keeps_no_originals_refuses_the_wish_and_takes_uploads_without(
    isolated_service: RecordsService,
) -> None:
    user_id, credentials = await isolated_service.make_user()
    uploads = isolated_service.uploads(keep_originals="never")
    with pytest.raises(OriginalsNotKept, match="KEEP_ORIGINALS=never") as refusal:
        await uploads.store_record(body("true"), credentials)
    assert refusal.value.status_code == 403
    for wish in ([], ["false"]):
        assert not (await uploads.store_record(body(*wish), credentials)).record.original
    await uploads.close()
    assert len(await isolated_service.objects(user_id)) == 2 * 2


async def test_an_upload_is_replayed_though_its_options_are_no_longer_offered(
    isolated_service: RecordsService,
) -> None:
    _, credentials = await isolated_service.make_user()
    uploads = isolated_service.uploads()
    made = await uploads.store_record(body("true", bitrate_kbps="320"), credentials, "key")
    await uploads.close()
    uploads = isolated_service.uploads(keep_originals="never", max_bitrate_kbps=256)
    again = await uploads.store_record(body("true", bitrate_kbps="320"), credentials, "key")
    assert (type(again), again.record) == (Replayed, made.record)
    # A new upload is refused.
    with pytest.raises(OriginalsNotKept):
        await uploads.store_record(body("true"), credentials)
    with pytest.raises(InvalidForm, match="256"):
        await uploads.store_record(body(bitrate_kbps="320"), credentials)
    await uploads.close()


async def test_a_quota_counts_the_original_while_it_arrives(isolated_service: RecordsService) -> None:
    user_id, credentials = await isolated_service.make_user()
    wav = make_wav(KEPT)
    # The MP3 alone would fit.
    uploads = isolated_service.uploads(quota_bytes=len(wav) - 1_000_000)
    taken = 0

    async def pieces() -> AsyncIterator[FormItem]:
        nonlocal taken
        async for item in wav_pieces(KEPT, 20):
            taken += len(item) if isinstance(item, bytes) else 0
            yield item

    with pytest.raises(LargerThanQuota):
        await uploads.store_record(pieces(), credentials)
    await uploads.close()
    assert taken < len(wav)
    await isolated_service.settle(user_id)
    assert await isolated_service.objects(user_id) == []


async def test_a_backup_that_begins_holds_the_removal_of_an_original_back(
    isolated_service: RecordsService,
) -> None:
    user_id, _, record_id, key = await keep(isolated_service)
    assert await sql.delete_original(isolated_service.engine, record_id, user_id)
    async with isolated_service.owner.connect() as connection:
        await connection.exec_driver_sql(f"SELECT pg_advisory_lock_shared({sql.BACKUP_LOCK})")
        await isolated_service.sweep()
        assert len(await isolated_service.objects(user_id)) == 3
        await connection.invalidate()
    await isolated_service.settle(user_id)
    assert await isolated_service.objects(user_id) == [key, make_waveform_key(key)]


async def test_an_upload_whose_original_cannot_be_stored_is_refused_and_leaves_nothing(
    isolated_service: RecordsService,
) -> None:
    user_id, credentials = await isolated_service.make_user()

    async def watch(call: Call) -> None:
        if ".wav" in call.request and call.request.startswith("PUT"):
            raise aiohttp.ServerDisconnectedError

    watcher = CallWatcher(watch)
    uploads = isolated_service.uploads(watcher)
    for pieces in (wav_pieces(KEPT), body("true")):
        with pytest.raises(Unavailable):
            await uploads.store_record(pieces, credentials)
    await uploads.close()
    assert await isolated_service.objects(user_id) == []
    await isolated_service.settle(user_id)
    await isolated_service.assert_nothing_is_left(user_id, watcher)
