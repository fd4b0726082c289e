"""The limits of one instance, and the responses when they are reached."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from common.credentials import Credentials
from common.problems import InvalidCredentials, RequestTimeout, type_of
from records.form import AudioBegins, FormField, FormItem
from records.problems import Busy, CredentialsTooLate, InvalidForm, RecordingTooLong, TooManyUploads
from records.uploads import Uploads
from tests.integration.recordings import LARGE, LARGE_SECONDS, SMALL, make_wav, wav_pieces
from tests.integration.records_service import RecordsService
from tests.integration.waiting import MAX_WAIT_SECONDS, wait_until_async
from tests.integration.watched_calls import CallWatcher
from tests.wavs import Wav
from users.sql import create_user


class Held:
    """The body of an upload that pauses in its middle until `released` is set."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.released = asyncio.Event()

    async def __call__(self, *last: FormField) -> AsyncIterator[FormItem]:
        wav = make_wav(SMALL)
        yield AudioBegins()
        yield wav[:1000]
        self.reached.set()
        await self.released.wait()
        yield wav[1000:]
        for field in last:
            yield field


async def unread() -> AsyncIterator[FormItem]:
    """The body of an upload that the service must refuse before it reads anything."""
    pytest.fail("the service read the body")
    yield b""


async def start_held_upload(
    uploads: Uploads, credentials: Credentials | None, *last: FormField, address: str = ""
) -> tuple[Held, "asyncio.Task[object]"]:
    held = Held()
    task: asyncio.Task[object] = asyncio.create_task(
        uploads.store_record(held(*last), credentials, address=address)
    )
    async with asyncio.timeout(MAX_WAIT_SECONDS):
        await held.reached.wait()
    return held, task


async def make_fields(isolated_service: RecordsService) -> tuple[UUID, tuple[FormField, FormField]]:
    """Makes a user; returns its id, and its credentials as form fields."""
    user, token = await create_user(isolated_service.owner, "Late")
    return user.id, (FormField("user_id", str(user.id)), FormField("token", token))


async def test_an_upload_waits_for_a_slot_before_its_body_is_read_and_only_so_many_wait(
    isolated_service: RecordsService,
) -> None:
    user_id, credentials = await isolated_service.make_user()
    watcher = CallWatcher()
    uploads = isolated_service.uploads(watcher, max_uploads=1, max_waiting_uploads=1)
    held, first = await start_held_upload(uploads, credentials)
    waiting = Held()
    second = asyncio.create_task(uploads.store_record(waiting(), credentials))

    async def is_reserved() -> bool:
        return len(await isolated_service.rows(user_id)) == 2

    await wait_until_async(is_reserved)
    calls = len(watcher.calls)
    with pytest.raises(Busy, match="no free slot") as refusal:
        await uploads.store_record(unread(), credentials)
    # The refusal comes at once: the service has made no statement.
    assert len(watcher.calls) == calls
    assert (refusal.value.status_code, refusal.value.headers) == (503, {"Retry-After": "5"})
    assert not waiting.reached.is_set()
    held.released.set()
    waiting.released.set()
    await asyncio.gather(first, second)
    await uploads.close()
    assert [row.state for row in await isolated_service.rows(user_id)] == ["ready"] * 2


async def test_an_upload_that_waits_too_long_leaves_nothing_not_even_its_place(
    isolated_service: RecordsService,
) -> None:
    user_id, credentials = await isolated_service.make_user()
    uploads = isolated_service.uploads(max_uploads=1, max_waiting_uploads=1, upload_wait_seconds=0)
    held, first = await start_held_upload(uploads, credentials)
    for _ in range(3):
        with pytest.raises(Busy, match="no slot became free within 0 seconds"):
            await uploads.store_record(unread(), credentials)
        assert len(await isolated_service.rows(user_id)) == 1
    held.released.set()
    await first
    await uploads.close()


async def test_one_upload_too_many_is_refused_before_its_body_is_read_until_another_is_done(
    isolated_service: RecordsService,
) -> None:
    user_id, credentials = await isolated_service.make_user()
    watcher = CallWatcher()
    uploads = isolated_service.uploads(watcher, max_uploads=2, max_waiting_uploads=0)
    under_way = [await start_held_upload(uploads, credentials) for _ in range(2)]
    calls = len(watcher.calls)
    with pytest.raises(Busy) as refusal:
        await uploads.store_record(unread(), credentials)
    assert refusal.value.status_code == 503
    assert refusal.value.headers == {"Retry-After": "5"}
    # The refusal comes at once: the service has made no statement.
    assert len(watcher.calls) == calls
    under_way[0][0].released.set()
    await under_way[0][1]
    await uploads.store_record(wav_pieces(SMALL), credentials)
    under_way[1][0].released.set()
    await under_way[1][1]
    await uploads.close()
    assert [row.state for row in await isolated_service.rows(user_id)] == ["ready"] * 3


async def test_users_of_one_address_leave_a_slot_to_another_address(
    isolated_service: RecordsService,
) -> None:
    uploads = isolated_service.uploads(max_uploads=4, max_waiting_uploads=0, max_uploads_per_user=1)
    users = [(await isolated_service.make_user())[1] for _ in range(5)]
    under_way = [await start_held_upload(uploads, user, address="a") for user in users[:3]]
    with pytest.raises(Busy, match="from your address"):
        await uploads.store_record(unread(), users[3], address="a")
    assert (await uploads.store_record(wav_pieces(SMALL), users[4], address="b")).record.size_bytes > 0
    for held, task in under_way:
        held.released.set()
        await task
    await uploads.close()


async def test_an_upload_that_fails_or_is_cancelled_releases_its_slot(
    isolated_service: RecordsService,
) -> None:
    _, credentials = await isolated_service.make_user()
    uploads = isolated_service.uploads(max_uploads=1, max_late_credentials=1)
    for _ in range(3):
        _, task = await start_held_upload(uploads, credentials)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        held, task = await start_held_upload(uploads, None)
        held.released.set()
        with pytest.raises(InvalidCredentials):
            await task
    assert (await uploads.store_record(wav_pieces(SMALL), credentials)).record.size_bytes > 0
    await uploads.close()


async def test_credentials_may_come_after_the_audio(
    isolated_service: RecordsService,
) -> None:
    user_id, fields = await make_fields(isolated_service)
    watcher = CallWatcher()
    uploads = isolated_service.uploads(watcher)
    held, task = await start_held_upload(uploads, None, *fields)
    assert watcher.calls == []
    held.released.set()
    await task
    await uploads.close()
    await isolated_service.assert_record_is_complete(user_id, watcher)


async def test_a_long_upload_whose_credentials_come_last_is_held_in_memory_and_then_stored_in_upload_parts(
    isolated_service: RecordsService,
) -> None:
    user_id, fields = await make_fields(isolated_service)
    watcher = CallWatcher()
    uploads = isolated_service.uploads(watcher)
    calls_before: list[int] = []

    async def body() -> AsyncIterator[FormItem]:
        async for piece in wav_pieces(LARGE):
            yield piece
        calls_before.append(len(watcher.calls))
        for field in fields:
            yield field

    published = await uploads.store_record(body(), None)
    await uploads.close()
    assert calls_before == [0]
    assert published.record.duration_seconds == LARGE_SECONDS
    assert sum("partNumber" in call.request for call in watcher.calls) == 3
    await isolated_service.assert_record_is_complete(user_id, watcher)


async def test_one_upload_of_a_user_too_many_is_429_and_leaves_nothing_and_others_go_on(
    isolated_service: RecordsService,
) -> None:
    user_id, credentials = await isolated_service.make_user()
    uploads = isolated_service.uploads(max_uploads_per_user=2)
    under_way = [await start_held_upload(uploads, credentials) for _ in range(2)]
    with pytest.raises(TooManyUploads, match="2 uploads under way, the limit of one user") as refusal:
        await uploads.store_record(wav_pieces(SMALL), credentials)
    assert (refusal.value.status_code, refusal.value.headers) == (429, {"Retry-After": "5"})
    assert [row.state for row in await isolated_service.rows(user_id)] == ["uploading"] * 2
    _, other = await isolated_service.make_user()
    await uploads.store_record(wav_pieces(SMALL), other)
    for held, task in under_way:
        held.released.set()
        await task
    await uploads.store_record(wav_pieces(SMALL), credentials)
    await uploads.close()
    assert [row.state for row in await isolated_service.rows(user_id)] == ["ready"] * 3


async def test_two_addresses_with_uploads_without_credentials_leave_room_for_a_third_and_for_everybody_else(
    isolated_service: RecordsService,
) -> None:
    user_id, fields = await make_fields(isolated_service)
    watcher = CallWatcher()
    uploads = isolated_service.uploads(watcher, max_late_credentials=4)
    under_way = []
    for address, count in [("192.0.2.1", 2), ("192.0.2.2", 1)]:
        under_way += [await start_held_upload(uploads, None, *fields, address=address) for _ in range(count)]
        with pytest.raises(Busy) as refusal:
            await uploads.store_record(wav_pieces(SMALL), None, address=address)
        assert refusal.value.status_code == 503
        assert refusal.value.headers == {"Retry-After": "5"}
    assert watcher.calls == []
    under_way.append(await start_held_upload(uploads, None, *fields, address="192.0.2.3"))
    # Uploads that send their credentials first are still accepted.
    _, credentials = await isolated_service.make_user()
    await uploads.store_record(wav_pieces(SMALL), credentials)
    for held, task in under_way:
        held.released.set()
        await task
    await uploads.close()
    assert [row.state for row in await isolated_service.rows(user_id)] == ["ready"] * 4


async def test_an_upload_whose_credentials_do_not_follow_in_time_is_408_and_others_have_their_time(
    isolated_service: RecordsService,
) -> None:
    _, credentials = await isolated_service.make_user()
    watcher = CallWatcher()
    uploads = isolated_service.uploads(watcher, late_credentials_seconds=0)
    with pytest.raises(RequestTimeout, match="did not follow within 0 seconds"):
        await uploads.store_record(Held()(), None)
    assert watcher.calls == []
    held, task = await start_held_upload(uploads, credentials)
    held.released.set()
    await task
    await uploads.close()


async def test_too_much_audio_before_the_credentials_is_refused_and_the_problem_says_what_to_do(
    isolated_service: RecordsService,
) -> None:
    _, fields = await make_fields(isolated_service)
    watcher = CallWatcher()
    uploads = isolated_service.uploads(watcher, max_held_bytes=200_000)

    async def body() -> AsyncIterator[FormItem]:
        async for piece in wav_pieces(LARGE):
            yield piece
        for field in fields:
            yield field

    with pytest.raises(CredentialsTooLate) as refusal:
        await uploads.store_record(body(), None)
    await uploads.close()
    assert refusal.value.status_code == 400
    assert int(refusal.value.detail.split()[0]) <= 100_000
    assert "Put the fields user_id and token in front of the audio" in refusal.value.detail
    assert watcher.calls == []


async def test_a_recording_with_too_long_a_duration_is_refused_and_leaves_nothing(
    isolated_service: RecordsService,
) -> None:
    user_id, credentials = await isolated_service.make_user()
    watcher = CallWatcher()
    uploads = isolated_service.uploads(watcher, max_duration_seconds=3600)

    async def body() -> AsyncIterator[FormItem]:
        yield AudioBegins()
        # At 1 Hz, each byte is a second.
        yield Wav(rate=1, bits=8, channels=1).header(3601) + bytes(3601)

    with pytest.raises(RecordingTooLong) as refusal:
        await uploads.store_record(body(), credentials)
    await uploads.close()
    assert refusal.value.status_code == 413
    assert type_of(refusal.value) == "/problems/recording-too-long"
    assert "longer than 3600 seconds" in refusal.value.detail
    assert await isolated_service.rows(user_id) == []


async def test_credentials_that_are_given_twice_are_refused_and_leave_nothing(
    isolated_service: RecordsService,
) -> None:
    user_id, fields = await make_fields(isolated_service)
    _, credentials = await isolated_service.make_user()
    watcher = CallWatcher()
    uploads = isolated_service.uploads(watcher)

    async def body() -> AsyncIterator[FormItem]:
        yield fields[0]
        async for piece in wav_pieces(SMALL):
            yield piece

    with pytest.raises(InvalidForm):
        await uploads.store_record(body(), credentials)
    await uploads.close()
    await isolated_service.settle(user_id)
    await isolated_service.assert_nothing_is_left(user_id, watcher)
