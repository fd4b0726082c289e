"""What one instance takes at once, and what it says when that is reached."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from common.credentials import Credentials
from common.problems import InvalidCredentials, type_of
from records.form import Field
from records.problems import Busy, CredentialsTooLate, InvalidForm, RecordingTooLong
from records.uploads import Uploads
from tests.integration.isolated import Isolated, Wire
from tests.integration.sounds import LARGE, SMALL, pieces, wav_of
from tests.wavs import Wav
from users.sql import create_user

BOUND_SECONDS = 60


class Held:
    """The body of an upload that waits in its middle until it is let go."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.released = asyncio.Event()

    async def __call__(self, *last: Field) -> AsyncIterator[Field | bytes]:
        wav = wav_of(SMALL)
        yield wav[:1000]
        self.reached.set()
        await self.released.wait()
        yield wav[1000:]
        for field in last:
            yield field


async def unread() -> AsyncIterator[Field | bytes]:
    pytest.fail("the body was read")
    yield b""


async def hold(
    uploads: Uploads, credentials: Credentials | None, *last: Field
) -> tuple[Held, "asyncio.Task[object]"]:
    held = Held()
    task: asyncio.Task[object] = asyncio.create_task(uploads.store_record(held(*last), credentials))
    async with asyncio.timeout(BOUND_SECONDS):
        await held.reached.wait()
    return held, task


async def make_fields(isolated: Isolated) -> tuple[UUID, tuple[Field, Field]]:
    """A user and its credentials as fields of a form."""

    user, token = await create_user(isolated.owner, "Late")
    return user.id, (Field("user_id", str(user.id)), Field("token", token))


async def test_one_upload_too_many_is_refused_before_its_body_is_read_and_fits_once_another_is_done(
    isolated: Isolated,
) -> None:
    user_id, credentials = await isolated.make_user()
    wire = Wire()
    uploads = isolated.uploads(wire, max_uploads=2)
    under_way = [await hold(uploads, credentials) for _ in range(2)]
    calls = len(wire.calls)
    with pytest.raises(Busy) as refusal:
        await uploads.store_record(unread(), credentials)
    assert refusal.value.status_code == 503
    assert refusal.value.headers == {"Retry-After": "5"}
    # At once: neither the credentials were looked up nor a row made.
    assert len(wire.calls) == calls
    under_way[0][0].released.set()
    await under_way[0][1]
    await uploads.store_record(pieces(SMALL), credentials)
    under_way[1][0].released.set()
    await under_way[1][1]
    await uploads.close()
    assert [row.state for row in await isolated.rows(user_id)] == ["ready"] * 3


async def test_an_upload_that_fails_or_is_cancelled_gives_its_place_back(isolated: Isolated) -> None:
    _, credentials = await isolated.make_user()
    uploads = isolated.uploads(max_uploads=1, max_late_credentials=1)
    for _ in range(3):
        _, task = await hold(uploads, credentials)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        held, task = await hold(uploads, None)
        held.released.set()
        with pytest.raises(InvalidCredentials):
            await task
    assert (await uploads.store_record(pieces(SMALL), credentials)).size_bytes > 0
    await uploads.close()


async def test_credentials_behind_the_audio_are_as_good_as_those_before_it(isolated: Isolated) -> None:
    user_id, fields = await make_fields(isolated)
    wire = Wire()
    uploads = isolated.uploads(wire)
    held, task = await hold(uploads, None, *fields)
    assert wire.calls == []
    held.released.set()
    await task
    await uploads.close()
    await isolated.assert_record_is_whole(user_id, wire)


async def test_a_long_upload_whose_credentials_come_last_is_held_and_then_stored_in_parts(
    isolated: Isolated,
) -> None:
    user_id, fields = await make_fields(isolated)
    wire = Wire()
    uploads = isolated.uploads(wire)
    calls_before: list[int] = []

    async def body() -> AsyncIterator[Field | bytes]:
        async for piece in pieces(LARGE):
            yield piece
        calls_before.append(len(wire.calls))
        for field in fields:
            yield field

    record = await uploads.store_record(body(), None)
    await uploads.close()
    assert calls_before == [0]
    assert record.duration_seconds == 1760
    assert sum("partNumber" in call.what for call in wire.calls) == 3
    await isolated.assert_record_is_whole(user_id, wire)


async def test_one_upload_too_many_that_has_no_credentials_yet_is_refused_and_leaves_nothing(
    isolated: Isolated,
) -> None:
    user_id, fields = await make_fields(isolated)
    wire = Wire()
    uploads = isolated.uploads(wire, max_late_credentials=2)
    under_way = [await hold(uploads, None, *fields) for _ in range(2)]
    with pytest.raises(Busy) as refusal:
        await uploads.store_record(pieces(SMALL), None)
    assert refusal.value.status_code == 503
    assert refusal.value.headers == {"Retry-After": "5"}
    assert wire.calls == []
    # Those that show their credentials first are not held back by them.
    _, credentials = await isolated.make_user()
    await uploads.store_record(pieces(SMALL), credentials)
    for held, task in under_way:
        held.released.set()
        await task
    await uploads.close()
    assert [row.state for row in await isolated.rows(user_id)] == ["ready"] * 2


async def test_audio_too_long_to_wait_for_its_credentials_is_refused_with_the_way_out(
    isolated: Isolated,
) -> None:
    _, fields = await make_fields(isolated)
    wire = Wire()
    uploads = isolated.uploads(wire, max_held_bytes=100_000)

    async def body() -> AsyncIterator[Field | bytes]:
        async for piece in pieces(LARGE):
            yield piece
        for field in fields:
            yield field

    with pytest.raises(CredentialsTooLate) as refusal:
        await uploads.store_record(body(), None)
    await uploads.close()
    assert refusal.value.status_code == 400
    assert "100000 bytes" in refusal.value.detail
    assert "Put the fields user_id and token in front of the audio" in refusal.value.detail
    assert wire.calls == []


async def test_a_recording_that_lasts_too_long_is_refused_and_leaves_nothing(isolated: Isolated) -> None:
    user_id, credentials = await isolated.make_user()
    wire = Wire()
    uploads = isolated.uploads(wire, max_duration_seconds=3600)

    async def body() -> AsyncIterator[Field | bytes]:
        # At 1 Hz a byte is a second.
        yield Wav(rate=1, bits=8, channels=1).header(3601) + bytes(3601)

    with pytest.raises(RecordingTooLong) as refusal:
        await uploads.store_record(body(), credentials)
    await uploads.close()
    assert refusal.value.status_code == 413
    assert type_of(refusal.value) == "/problems/recording-too-long"
    assert "longer than 3600 seconds" in refusal.value.detail
    assert await isolated.rows(user_id) == []


async def test_credentials_that_are_given_twice_are_refused_and_leave_nothing(isolated: Isolated) -> None:
    user_id, fields = await make_fields(isolated)
    _, credentials = await isolated.make_user()
    wire = Wire()
    uploads = isolated.uploads(wire)

    async def body() -> AsyncIterator[Field | bytes]:
        yield fields[0]
        async for piece in pieces(SMALL):
            yield piece

    with pytest.raises(InvalidForm):
        await uploads.store_record(body(), credentials)
    await uploads.close()
    await isolated.settle(user_id)
    await isolated.assert_nothing_is_left(user_id, wire)
