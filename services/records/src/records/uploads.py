"""Takes uploads in an order that loses no acknowledged record and leaves nothing of a failed upload.

1. One statement checks the credentials and inserts the row, `uploading`, under a lease. If the upload keeps
   its original, another statement notes that before the audio begins.
2. The MP3 goes to its final object key, which is never used again; the original to its own, at the same time.
   The waveform follows at the end, beside the rest of the MP3.
3. One statement makes the row `ready` if it is still `uploading`. Only then does the client get its response.

If the user has used the Idempotency-Key before, the upload inserts no row and has no effects at all.

To give an upload up, the service first commits the state `deleting`, so that step 3 can no longer succeed.
The same transaction leaves tombstones for the original and the waveform. After that it touches the objects.
This module gives up failed uploads; records.sweeper gives up uploads whose lease has run out.
"""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, suppress
from typing import NamedTuple, get_args

import msgspec
import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from common.credentials import Credentials, parse_credentials
from common.problems import InvalidCredentials, Problem, RequestTimeout
from common.text import normalise_text
from records import audio as audio_package
from records import metrics, sql
from records.admission import Admission, HeldMp3
from records.documents import RecordDocument
from records.form import (
    BITRATE,
    CREDENTIAL_FIELDS,
    KEEP_ORIGINAL,
    MAX_TITLE_LENGTH,
    WISHES,
    AudioBegins,
    FormField,
    FormItem,
)
from records.heap import HeapTrimmer
from records.metrics import UploadReport, name_outcome
from records.problems import (
    BrokenAudio,
    CredentialsTooLate,
    IdempotencyKeyReused,
    InvalidForm,
    OriginalsNotKept,
    OutOfProportion,
    RecordingTooLong,
    UnsupportedAudio,
    UploadInterrupted,
)
from records.quotas import Room
from records.settings import BitrateKbps, Settings
from records.storage import ObjectStore, ObjectWriter, StoredObject, make_original_key, make_waveform_key

log = structlog.get_logger()

# The problem for each reason why the audio package refuses a recording.
PROBLEMS_OF_AUDIO: dict[type[Exception], type[Problem]] = {
    audio_package.UnsupportedAudio: UnsupportedAudio,
    audio_package.BrokenAudio: BrokenAudio,
    audio_package.OutOfProportion: OutOfProportion,
    audio_package.TooLong: RecordingTooLong,
}
AUDIO_ERRORS = tuple(PROBLEMS_OF_AUDIO)
RENEWALS_PER_LEASE = 6
# The response to a failed upload waits this long for the clean-up, which then goes on by itself.
CLEAN_UP_WAIT_SECONDS = 5


class Unidentified(NamedTuple):
    """Neither credentials nor audio have come."""


class Late(NamedTuple):
    """The audio came before the credentials. Its MP3 is held in memory until they come."""

    mp3: HeldMp3


class Reserved(NamedTuple):
    """The credentials are right, and the upload has a row."""

    reservation: sql.Reservation
    lease_keeper: asyncio.Task[None]


class Replayable(NamedTuple):
    """The credentials are right, and an earlier upload has used the idempotency key."""

    earlier: sql.EarlierUpload


State = Unidentified | Late | Reserved | Replayable


class Published(NamedTuple):
    """The upload made this record."""

    record: RecordDocument


class Replayed(NamedTuple):
    """An earlier upload with the same idempotency key made this record."""

    record: RecordDocument


class Shared(NamedTuple):
    """What all uploads of one instance share."""

    engine: AsyncEngine
    store: ObjectStore
    settings: Settings
    threads: audio_package.EncoderThreads
    admission: Admission
    head_thread: ThreadPoolExecutor
    """Makes the heads of MP3s, because the tags in them can take long: chardet alone loads for 0.4 s.

    It is one thread, so that only one head at a time takes memory for its copies of a cover.
    """


class Uploads:
    """Takes the uploads of one instance."""

    def __init__(self, engine: AsyncEngine, store: ObjectStore, settings: Settings) -> None:
        threads = audio_package.EncoderThreads(settings.encoder_threads)
        head_thread = ThreadPoolExecutor(1, "head")
        self._shared = Shared(engine, store, settings, threads, Admission(settings), head_thread)
        self._heap = HeapTrimmer()
        self._clean_ups: set[asyncio.Task[None]] = set()

    def watch(self) -> None:
        """Lets the metrics show what this instance holds."""
        admission, threads = self._shared.admission, self._shared.threads
        metrics.UPLOAD_SLOTS.set(self._shared.settings.max_uploads)
        metrics.UPLOADS_UNDER_WAY.set_function(lambda: admission.taken_slots)
        metrics.UPLOADS_WAITING.set_function(lambda: admission.waiting)
        metrics.HELD_MP3_BYTES.set_function(lambda: admission.held_bytes)
        metrics.ENCODER_THREADS.set(threads.count)
        metrics.BUSY_ENCODER_THREADS.set_function(lambda: threads.encoding.busy)
        metrics.WAITING_AUDIO_BYTES.set_function(lambda: threads.waiting_bytes)

    async def close(self) -> None:
        """Waits for the clean-up of failed uploads, and ends the threads."""
        self._heap.cancel()
        await asyncio.gather(*self._clean_ups)
        self._shared.head_thread.shutdown(wait=False)
        self._shared.threads.close()

    async def store_record(
        self,
        body: AsyncIterator[FormItem],
        credentials: Credentials | None,
        idempotency_key: str | None = None,
        address: str = "",
    ) -> Published | Replayed:
        """Converts and stores one upload while it arrives. Returns when its link works.

        `credentials` come from the header; without them, the form must have them as fields. If the user's
        `idempotency_key` has made a record, no audio is read. `address` is the client's: an upload whose
        credentials follow the audio shares slots and memory by address.
        Raises a Problem for every failure, and then keeps nothing of the upload.
        """
        async with AsyncExitStack() as resources:
            resources.enter_context(self._heap.upload_under_way())
            upload = Upload(self._shared, resources, idempotency_key, address)
            resources.callback(upload.close)
            try:
                result = await upload.receive(body, credentials)
            except BaseException as error:
                upload.report.end(name_outcome(error))
                # Close at once, because the clean-up can wait for the store.
                upload.close()
                clean_up = asyncio.create_task(upload.clean_up())
                self._clean_ups.add(clean_up)
                clean_up.add_done_callback(self._clean_ups.discard)
                # The clean-up is a task of its own, because this task may be cancelled, and the store may
                # hang.
                await asyncio.wait({clean_up}, timeout=CLEAN_UP_WAIT_SECONDS)
                raise
            upload.report.end("stored" if isinstance(result, Published) else "replayed")
            return result


class Upload:
    """One upload, from its first form field to its published record."""

    def __init__(
        self, shared: Shared, resources: AsyncExitStack, idempotency_key: str | None, address: str
    ) -> None:
        """`resources` closes when the upload ends, and then releases its slots and its lease keeper."""
        self._shared = shared
        self._resources = resources
        self._idempotency_key = idempotency_key
        self._address = address
        self._timeout = asyncio.timeout(None)
        self._state: State = Unidentified()
        self._credential_fields: dict[str, str] = {}
        self._title: str | None = None
        # Also true if the title in front of the audio was empty, which counts as no title.
        self._title_precedes_audio = False
        self._audio_has_begun = False
        self._bitrate_kbps: int = shared.settings.default_bitrate_kbps
        self._keep_original = shared.settings.keep_originals == "true"
        self._converter = self._make_converter()
        retry_seconds = shared.settings.store_retry_seconds
        self._writer = ObjectWriter(shared.store, retry_seconds)
        self._original = ObjectWriter(shared.store, retry_seconds, has_head=False)
        self._waveform = ObjectWriter(shared.store, retry_seconds, has_head=False)
        self._storing_waveform: asyncio.Task[StoredObject] | None = None
        self._room: Room | None = None
        self.report = UploadReport()

    async def receive(
        self, body: AsyncIterator[FormItem], credentials: Credentials | None
    ) -> Published | Replayed:
        """Takes the whole body and publishes the record, or returns the record of an earlier upload."""
        try:
            async with self._timeout:
                return await self._receive(body, credentials)
        except TimeoutError:
            if not self._timeout.expired():
                raise
            if isinstance(self._state, Reserved):
                raise _interrupted() from None
            seconds = self._shared.settings.late_credentials_seconds
            raise RequestTimeout(
                f"The credentials did not follow within {seconds} seconds after the audio began."
                " Put the fields user_id and token in front of the audio, or send them in a header."
            ) from None

    async def _receive(
        self, body: AsyncIterator[FormItem], credentials: Credentials | None
    ) -> Published | Replayed:
        if credentials:
            await self._identify(credentials)
        self.report.begin("received")
        async for item in body:
            self.report.begin("encoded")
            match item:
                case FormField():
                    await self._take_field(item)
                case AudioBegins():
                    await self._begin_audio()
                case _:
                    await self._convert(item)
            # All options in front of the audio are known now. The audio itself is not compared.
            if self._audio_has_begun and isinstance(self._state, Replayable):
                return self._replay(self._state.earlier)
            self.report.begin("received")
        self.report.received_all()
        self.report.begin("encoded")
        return await self._publish()

    def close(self) -> None:
        """Frees the memory of the audio and of the objects, and the encoders."""
        self._converter.close()
        if self._storing_waveform:
            self._storing_waveform.cancel()
        for writer in self._writers:
            writer.drop()

    async def clean_up(self) -> None:
        """Removes everything of a failed upload. What cannot be removed now is left to the sweeper."""
        if self._storing_waveform:
            await asyncio.gather(self._storing_waveform, return_exceptions=True)
            # A failed task holds its exception, and that holds the frames that hold this upload.
            self._storing_waveform = None
        for writer in self._writers:
            await writer.close()
        if not isinstance(self._state, Reserved):
            return
        record_id = self._state.reservation.record_id
        touched = [writer.key for writer in self._writers if writer.has_touched_store]
        try:
            if not touched:
                await sql.forget(self._shared.engine, record_id)
            elif await sql.give_up(self._shared.engine, record_id):
                for key in touched:
                    await self._shared.store.remove(key)
        except Problem as problem:
            log.warning("clean-up left to the sweeper", detail=problem.detail)
        except Exception:
            log.exception("clean-up left to the sweeper")

    @property
    def _writers(self) -> tuple[ObjectWriter, ...]:
        return self._writer, self._original, self._waveform

    async def _take_field(self, field: FormField) -> None:
        if field.name == "title":
            self._title = normalise_text("title", field.value, 0, MAX_TITLE_LENGTH) or None
            self._title_precedes_audio = not self._audio_has_begun
        elif field.name == BITRATE:
            if not field.value:
                return
            # The form reader refuses a bitrate behind the audio, so the old converter has not been fed.
            self._bitrate_kbps = parse_bitrate(field.value, self._shared.settings)
            self._converter.close()
            self._converter = self._make_converter()
        elif field.name == KEEP_ORIGINAL:
            if field.value:
                self._keep_original = parse_wish(field.value)
        elif isinstance(self._state, Reserved | Replayable):
            raise InvalidForm("The upload has credentials twice. Send them in the header or as form fields.")
        else:
            self._credential_fields[field.name] = field.value
            if len(self._credential_fields) == len(CREDENTIAL_FIELDS):
                await self._identify(parse_credentials(**self._credential_fields))

    async def _identify(self, credentials: Credentials) -> None:
        """Unidentified or Late → Reserved or Replayable. Raises InvalidCredentials if nobody has them."""
        self._timeout.reschedule(None)
        self.report.begin("waited")
        admission, engine, settings = self._shared.admission, self._shared.engine, self._shared.settings
        has_slot = isinstance(self._state, Late)
        if not has_slot:
            admission.refuse_if_full(self._address)
        found = await sql.reserve(engine, credentials, settings.lease_seconds, self._idempotency_key)
        if isinstance(found, sql.EarlierUpload):
            self._state = Replayable(found)
            return
        lease_keeper = asyncio.create_task(keep_lease(engine, found, settings.lease_seconds))
        self._resources.callback(lease_keeper.cancel)
        lease_keeper.add_done_callback(self._end_at_once)
        self._state = Reserved(found, lease_keeper)
        admission.admit_user(self._resources, found.user_id)
        if not has_slot:
            # Only now, so that users get slots in turn, and nobody with wrong credentials waits.
            await admission.admit(self._resources, found.user_id, self._address)
        self._room = await sql.find_room(engine, found, settings)
        self._check_room()
        self._writer.open(found.object_key, lease_keeper.done)
        self._waveform.open(make_waveform_key(found.object_key), lease_keeper.done)

    async def _begin_audio(self) -> None:
        """Unidentified → Late."""
        self._audio_has_begun = True
        if isinstance(self._state, Replayable):
            # The settings may have changed since the options were offered. A replay only compares them.
            return
        self._check_options()
        if isinstance(self._state, Unidentified):
            if self._keep_original:
                raise CredentialsTooLate(
                    "The original can be kept only if the credentials come before the audio. Put the fields"
                    " user_id and token in front of 'audio', or send them in a header; or send"
                    f" {KEEP_ORIGINAL}=false in front of 'audio'."
                )
            self.report.begin("waited")
            held_mp3 = await self._shared.admission.admit_late(self._resources, self._address)
            self._state = Late(held_mp3)
            now = asyncio.get_running_loop().time()
            self._timeout.reschedule(now + self._shared.settings.late_credentials_seconds)
            self._converter.user = self._address
        elif isinstance(self._state, Reserved):
            reservation = self._state.reservation
            self._converter.user = reservation.user_id
            if self._keep_original:
                if not await sql.keep_original(self._shared.engine, reservation.record_id):
                    raise _interrupted()
                key = make_original_key(reservation.object_key)
                self._original.open(key, self._state.lease_keeper.done)

    def _check_options(self) -> None:
        """Raises InvalidForm or OriginalsNotKept for an option that this deployment does not offer."""
        settings = self._shared.settings
        if not settings.min_bitrate_kbps <= self._bitrate_kbps <= settings.max_bitrate_kbps:
            raise _bitrate_not_offered(str(self._bitrate_kbps), settings)
        if self._keep_original and settings.keep_originals == "never":
            raise OriginalsNotKept

    def _end_at_once(self, _: asyncio.Task[None]) -> None:
        """Ends an upload whose lease is lost, even while it waits for its client."""
        # An upload that has ended already lets the lease go itself.
        with suppress(RuntimeError):
            self._timeout.reschedule(asyncio.get_running_loop().time())

    async def _convert(self, audio: bytes) -> None:
        self.report.received_bytes += len(audio)
        if self._keep_original:
            self.report.begin("stored")
            await self._original.write(audio)
            self.report.begin("encoded")
        await self._write(self._converter.feed(audio))
        self._check_room()

    def _check_room(self) -> None:
        """Raises a Problem as soon as the upload does not fit into a quota."""
        if self._room:
            written_bytes = self._writer.written_bytes + self._original.written_bytes
            self._room.check(written_bytes, self._converter.seconds)

    async def _write(self, mp3: AsyncIterator[bytes]) -> None:
        try:
            async for piece in mp3:
                self.report.begin("stored")
                await self._writer.write(piece)
                self.report.begin("encoded")
                if isinstance(self._state, Late):
                    self._state.mp3.hold(self._writer.held_bytes)
        except AUDIO_ERRORS as error:
            raise PROBLEMS_OF_AUDIO[type(error)](str(error)) from None

    async def _publish(self) -> Published:
        if not isinstance(self._state, Reserved):
            raise InvalidCredentials(
                "The upload has no complete credentials. Send the form fields user_id and token, or an"
                " Authorization header."
            )
        # From now on, the database decides whether the lease still counted.
        self._state.lease_keeper.remove_done_callback(self._end_at_once)
        self._timeout.reschedule(None)
        await self._write(self._converter.finish())
        # Beside the MP3, so that the link waits for the slower of both only.
        self._storing_waveform = asyncio.create_task(self._store_waveform())
        head = await asyncio.get_running_loop().run_in_executor(
            self._shared.head_thread, self._converter.make_head, self._title
        )
        # The tags of the WAV are not needed beside the head.
        self._converter.close()
        self.report.begin("stored")
        stored = await self._writer.finish(head)
        original = await self._original.finish() if self._keep_original else None
        waveform = await self._storing_waveform
        self.report.begin("published")
        self._report_content(stored.size_bytes)
        finished = sql.FinishedUpload(
            self._title,
            stored,
            self._converter.properties,
            waveform,
            self._converter.waveform.samples_per_pixel,
            self._bitrate_kbps,
            self._idempotency_key,
            original,
        )
        reservation, settings = self._state.reservation, self._shared.settings
        record = await sql.publish(self._shared.engine, reservation, finished, settings)
        if not record:
            raise _interrupted()
        return Published(record)

    async def _store_waveform(self) -> StoredObject:
        await self._waveform.write(self._converter.waveform.peaks)
        return await self._waveform.finish()

    def _report_content(self, mp3_bytes: int) -> None:
        self.report.mp3_bytes = mp3_bytes
        self.report.audio_seconds = self._converter.properties.duration_seconds
        self.report.cuts, self.report.missed_joins = self._converter.cuts, self._converter.missed_joins

    def _replay(self, earlier: sql.EarlierUpload) -> Replayed:
        """Returns the earlier upload's record. Raises IdempotencyKeyReused if its options were different.

        A title behind the audio is not compared, because it has not been read yet; nor is the title of a
        record that was renamed since, because nobody knows the title of the upload.
        """
        record = earlier.record
        bitrate_kbps = earlier.requested_bitrate_kbps or self._shared.settings.default_bitrate_kbps
        keep_original = earlier.keep_original
        if keep_original is None:
            keep_original = self._shared.settings.keep_originals == "true"
        has_title = self._title_precedes_audio and not earlier.is_renamed
        has_other_title = has_title and self._title != record.title
        asked = (self._bitrate_kbps, self._keep_original)
        if has_other_title or asked != (bitrate_kbps, keep_original):
            of_earlier = {"title": record.title, BITRATE: bitrate_kbps, KEEP_ORIGINAL: keep_original}
            options = msgspec.json.encode(of_earlier).decode()
            raise IdempotencyKeyReused(
                f"The Idempotency-Key {self._idempotency_key!r} was used with the options {options}."
                " Send the same options, or use another key."
            )
        return Replayed(record)

    def _make_converter(self) -> audio_package.Converter:
        return audio_package.Converter(
            self._shared.threads,
            self._bitrate_kbps,
            max_duration_seconds=self._shared.settings.max_duration_seconds,
        )


async def keep_lease(engine: AsyncEngine, reservation: sql.Reservation, lease_seconds: int) -> None:
    """Renews the lease until cancelled, however slow the client or the store is. Returns when the lease is
    lost.

    The gateway ends an upload whose client sends nothing at all.
    """
    while True:
        await asyncio.sleep(lease_seconds / RENEWALS_PER_LEASE)
        try:
            if not await sql.renew_lease(engine, reservation.record_id, lease_seconds):
                return
        except Problem as problem:
            log.warning("the lease was not renewed", detail=problem.detail)


def parse_bitrate(text: str, settings: Settings) -> int:
    """Returns the requested bitrate in kbit/s. Raises InvalidForm if it is none of MP3."""
    bitrates: dict[str, int] = {str(kbps): kbps for kbps in get_args(BitrateKbps)}
    if text not in bitrates:
        raise _bitrate_not_offered(text, settings)
    return bitrates[text]


def parse_wish(text: str) -> bool:
    """Returns whether to keep the original. Raises InvalidForm for another value."""
    wish = WISHES.get(text.lower())
    if wish is None:
        raise InvalidForm(f"The {KEEP_ORIGINAL} is {text[:100]!r}. Allowed: {', '.join(WISHES)}.")
    return wish


def _bitrate_not_offered(text: str, settings: Settings) -> InvalidForm:
    lowest, highest = settings.min_bitrate_kbps, settings.max_bitrate_kbps
    allowed = ", ".join(str(kbps) for kbps in get_args(BitrateKbps) if lowest <= kbps <= highest)
    return InvalidForm(f"The bitrate_kbps {text[:100]!r} is not offered. Allowed: {allowed}.")


def _interrupted() -> UploadInterrupted:
    return UploadInterrupted(
        "The upload was given up, because the service could not renew its lease, or its user was deleted or"
        " blocked"
    )
