"""Takes uploads: the order of effects, by which no acknowledged record is lost and no ghost stays.

1. One statement checks the credentials and inserts the row, `uploading`, under a lease.
2. The MP3 goes to its final key, which is never used again.
3. One statement makes the row `ready` if it is still `uploading`; only then is the client told.

An upload with an Idempotency-Key that has a row already inserts none, and has no effects at all.

Whoever gives an upload up (this module, or records.sweeper when the lease has run out) first commits
`deleting`, so that step 3 can no longer succeed, and only then touches the object.
"""

import asyncio
import ctypes
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from typing import get_args
from uuid import UUID

import msgspec
import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from common.credentials import Credentials, parse_credentials
from common.problems import InvalidCredentials, Problem
from common.text import normalise_text
from records import audio as audio_package
from records.form import BITRATE, CREDENTIAL_FIELDS, Field
from records.problems import (
    BrokenAudio,
    Busy,
    CredentialsTooLate,
    IdempotencyKeyReused,
    InvalidForm,
    RecordingTooLong,
    UnsupportedAudio,
    UploadInterrupted,
)
from records.service import (
    Earlier,
    Published,
    Replayed,
    Reservation,
    forget,
    give_up,
    publish,
    renew_lease,
    reserve,
)
from records.settings import BitrateKbps, Settings
from records.storage import ObjectStore, ObjectWriter

log = structlog.get_logger()

MAX_TITLE_LENGTH = 200
RENEWALS_PER_LEASE = 6
GIVEN_UP = "The upload was given up, because it paused for too long or its user is gone"
# How long a failed upload's answer waits for its clean-up.
CLEAN_UP_WAIT_SECONDS = 5
# Without uploads for so long, their memory is given back: to give it and to get it again takes as long as to
# encode some seconds of sound.
QUIET_SECONDS = 1


def give_memory_back() -> None:
    """Has glibc return to the system what is free inside its heap; other C libraries do so by themselves."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)


class Uploads:
    """Takes uploads: as many as allowed, encoded by as many threads as there are cores."""

    def __init__(self, engine: AsyncEngine, store: ObjectStore, settings: Settings) -> None:
        self._engine = engine
        self._store = store
        self._settings = settings
        self._threads = audio_package.EncoderThreads(settings.encoder_threads)
        self._slots = asyncio.Semaphore(settings.max_uploads)
        self._late_slots = asyncio.Semaphore(settings.max_late_credentials)
        self._clean_ups: set[asyncio.Task[None]] = set()
        self._under_way = 0
        self._memory_timer: asyncio.TimerHandle | None = None

    async def close(self) -> None:
        """Waits for the clean-up of uploads that ended early, and ends the threads."""
        if self._memory_timer:
            self._memory_timer.cancel()
        await asyncio.gather(*self._clean_ups)
        self._threads.close()

    async def store_record(
        self,
        body: AsyncIterator[Field | bytes],
        credentials: Credentials | None,
        idempotency_key: str | None = None,
    ) -> Published:
        """Converts and stores one upload while it arrives, and returns it once its link is good.

        `credentials` are those of the header; where it has none they are fields of the form. Where the user's
        `idempotency_key` has made a record, that is returned as a Replayed, and no audio is read.
        Raises a Problem for whatever goes wrong; then nothing of the upload is kept.
        """
        async with AsyncExitStack() as resources:
            resources.enter_context(self._counted())
            bitrate_kbps = self._settings.default_bitrate_kbps
            converter = self._new_converter(bitrate_kbps)
            upload = _Upload(ObjectWriter(self._store), resources, converter, bitrate_kbps, idempotency_key)
            resources.callback(upload.close)
            try:
                return await self._receive(upload, body, credentials)
            except BaseException:
                upload.close()
                clean_up = asyncio.create_task(self._clean_up(upload))
                self._clean_ups.add(clean_up)
                clean_up.add_done_callback(self._clean_ups.discard)
                # It goes on by itself where this very task is being cancelled, and where the store hangs:
                # the client is not kept waiting for what is no longer its concern.
                await asyncio.wait({clean_up}, timeout=CLEAN_UP_WAIT_SECONDS)
                raise

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Counts an upload under way; some time after the last one their memory goes back to the system."""
        self._under_way += 1
        if self._memory_timer:
            self._memory_timer.cancel()
        try:
            yield
        finally:
            self._under_way -= 1
            if not self._under_way:
                loop = asyncio.get_running_loop()
                self._memory_timer = loop.call_later(QUIET_SECONDS, give_memory_back)

    async def _receive(
        self, upload: "_Upload", body: AsyncIterator[Field | bytes], credentials: Credentials | None
    ) -> Published:
        if credentials:
            await self._reserve(upload, credentials)
        async for item in body:
            if isinstance(item, Field):
                await self._take_field(upload, item)
            else:
                await self._take_audio(upload, item)
            if upload.earlier and upload.has_audio:
                return _replay(upload.earlier, upload, self._settings.default_bitrate_kbps)
        if not upload.reservation:
            raise InvalidCredentials("Send the fields user_id and token, or an Authorization header.")
        await self._write(upload, upload.converter.finish())
        stored = await upload.writer.finish(upload.converter.make_head(upload.title))
        properties, waveform = upload.converter.properties, upload.converter.waveform
        record = await publish(
            self._engine,
            upload.reservation.record_id,
            {
                **stored._asdict(),
                **asdict(properties),
                "title": upload.title,
                "waveform": waveform.peaks,
                "waveform_samples_per_pixel": waveform.samples_per_pixel,
                "idempotency_options": {BITRATE: upload.bitrate_kbps} if upload.idempotency_key else None,
            },
        )
        if not record:
            raise UploadInterrupted(GIVEN_UP)
        return record

    async def _take_field(self, upload: "_Upload", field: Field) -> None:
        if field.name == "title":
            upload.title = normalise_text("title", field.value, 0, MAX_TITLE_LENGTH) or None
            upload.title_is_in_front = not upload.has_audio
            return
        if field.name == BITRATE:
            # The audio has not begun: the reading of the form sees to that.
            upload.bitrate_kbps = self._parse_bitrate(field.value)
            upload.converter = self._new_converter(upload.bitrate_kbps)
            return
        if upload.reservation or upload.earlier:
            raise InvalidForm("The credentials are given twice; send them in the header or as form fields.")
        upload.credentials[field.name] = field.value
        if len(upload.credentials) == len(CREDENTIAL_FIELDS):
            await self._reserve(upload, parse_credentials(**upload.credentials))

    def _parse_bitrate(self, text: str) -> int:
        """Returns the bitrate that a field asks for; raises InvalidForm where it cannot be had here."""
        lowest, highest = self._settings.min_bitrate_kbps, self._settings.max_bitrate_kbps
        allowed: dict[str, int] = {
            str(kbps): kbps for kbps in get_args(BitrateKbps) if lowest <= kbps <= highest
        }
        if text not in allowed:
            raise InvalidForm(
                f"The bitrate_kbps {text[:100]!r} cannot be had; allowed: {', '.join(allowed)}."
            )
        return allowed[text]

    async def _take_audio(self, upload: "_Upload", audio: bytes) -> None:
        upload.has_audio = True
        if upload.earlier:
            return
        if upload.lease_keeper and upload.lease_keeper.done():
            raise UploadInterrupted(GIVEN_UP)
        if not upload.reservation and not upload.is_late:
            await self._take_slot(upload, self._late_slots, "too many uploads wait for their credentials")
            await self._take_slot(upload, self._slots, "as many uploads are under way as are allowed")
            upload.is_late = True
        await self._write(upload, upload.converter.feed(audio))

    async def _reserve(self, upload: "_Upload", credentials: Credentials) -> None:
        if not upload.is_late:
            await self._take_slot(upload, self._slots, "as many uploads are under way as are allowed")
        found = await reserve(self._engine, credentials, self._settings.lease_seconds, upload.idempotency_key)
        if isinstance(found, Earlier):
            # What it asks for is compared once all that stands in front of its audio is read.
            upload.earlier = found
            return
        upload.reservation = found
        upload.lease_keeper = asyncio.create_task(self._keep_lease(upload.reservation.record_id))
        upload.resources.callback(upload.lease_keeper.cancel)
        upload.writer.open(upload.reservation.object_key)

    async def _keep_lease(self, record_id: UUID) -> None:
        """Renews the lease until cancelled, also while a client or the store is slow; ends when it is lost.

        A client that sends nothing at all is ended by the gateway.
        """
        while True:
            await asyncio.sleep(self._settings.lease_seconds / RENEWALS_PER_LEASE)
            try:
                if not await renew_lease(self._engine, record_id, self._settings.lease_seconds):
                    return
            except Problem as problem:
                log.warning("the lease was not renewed", detail=problem.detail)

    def _new_converter(self, bitrate_kbps: int) -> audio_package.Converter:
        return audio_package.Converter(
            self._threads, bitrate_kbps, max_duration_seconds=self._settings.max_duration_seconds
        )

    async def _write(self, upload: "_Upload", mp3: AsyncIterator[bytes]) -> None:
        """Writes what the converter makes, or holds it while the credentials have not come."""
        try:
            async for piece in mp3:
                await upload.writer.write(piece)
                if not upload.reservation and upload.writer.held_bytes > self._settings.max_held_bytes:
                    raise CredentialsTooLate(
                        f"More than {self._settings.max_held_bytes} bytes of MP3 wait for the credentials;"
                        " put the fields user_id and token in front of the audio, or send them in a header."
                    )
        except audio_package.UnsupportedAudio as error:
            raise UnsupportedAudio(str(error)) from None
        except audio_package.BrokenAudio as error:
            raise BrokenAudio(str(error)) from None
        except audio_package.TooLong as error:
            raise RecordingTooLong(str(error)) from None

    async def _take_slot(self, upload: "_Upload", semaphore: asyncio.Semaphore, reason: str) -> None:
        if semaphore.locked():
            raise Busy(f"Too much at once: {reason}")
        await upload.resources.enter_async_context(semaphore)

    async def _clean_up(self, upload: "_Upload") -> None:
        """Leaves nothing of an upload that failed; what cannot be done now is left to the sweeper."""
        await upload.writer.close()
        if not upload.reservation:
            return
        try:
            if not upload.writer.has_touched_store:
                await forget(self._engine, upload.reservation.record_id)
            elif await give_up(self._engine, upload.reservation.record_id):
                await self._store.remove(upload.reservation.object_key)
        except Problem as problem:
            log.warning("clean-up left to the sweeper", detail=problem.detail)
        except Exception:
            log.exception("clean-up left to the sweeper")


@dataclass
class _Upload:
    """One upload under way."""

    writer: ObjectWriter
    # Its places in the queues and its lease keeper, let go when it ends.
    resources: AsyncExitStack
    converter: audio_package.Converter
    # As asked for; the MP3 may have less.
    bitrate_kbps: int
    idempotency_key: str | None
    credentials: dict[str, str] = field(default_factory=dict)
    title: str | None = None
    # Whether there is a title, perhaps an empty one, in front of the audio.
    title_is_in_front: bool = False
    has_audio: bool = False
    reservation: Reservation | None = None
    # Instead of a reservation: what the key was used for.
    earlier: Earlier | None = None
    lease_keeper: asyncio.Task[None] | None = None
    # The audio came before the credentials, so its MP3 is held in memory.
    is_late: bool = False

    def close(self) -> None:
        """Lets the converter's threads and memory go."""
        self.converter.close()


def _replay(earlier: Earlier, upload: _Upload, default_bitrate_kbps: int) -> Replayed:
    """The record of the earlier upload; raises IdempotencyKeyReused where that was another one.

    A title behind the audio is not compared, since it is not read; one in front is, wherever it stood before.
    """
    record = earlier.record
    # Uploads of the version before have noted no default.
    bitrate_kbps = earlier.options.get(BITRATE, default_bitrate_kbps)
    has_other_title = upload.title_is_in_front and upload.title != record.title
    if has_other_title or upload.bitrate_kbps != bitrate_kbps:
        options = msgspec.json.encode({"title": record.title, BITRATE: bitrate_kbps}).decode()
        raise IdempotencyKeyReused(
            f"The Idempotency-Key {upload.idempotency_key!r} was used with {options};"
            " send the same, or another key."
        )
    return record
