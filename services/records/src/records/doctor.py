"""Compares all rows with the whole bucket, and repairs what is safe to repair.

Rows and objects both come in the order of the object keys, so memory holds one page of each. Uploads,
deletions and sweepers go on meanwhile, and the rows are older than the listing. So a difference is only a
suspicion: the doctor reads the object and then the row again, and reports only what these two show. It judges
nothing young.
"""

import asyncio
import hashlib
import re
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from common.problems import Unavailable
from records import sql
from records.audio import read_info_frame
from records.storage import (
    STORE_ERRORS,
    FoundMultipartUpload,
    FoundObject,
    ObjectStore,
)

Kind = Literal[
    "lost-object",
    "lost-original",
    "lost-waveform",
    "wrong-size",
    "wrong-sha256",
    "damaged-original",
    "unreadable",
    "wrong-info-frame",
    "found-again",
    "orphan",
    "open-multipart-upload",
    "foreign",
    "overdue-upload",
    "overdue-tombstone",
    "wrong-sums",
]
# What `repair` does about a finding; the operator has to look after the others.
REPAIRS: dict[Kind, str] = {
    "lost-object": "to mark as lost",
    "lost-original": "to forget",
    "lost-waveform": "to forget",
    "wrong-size": "to mark as lost",
    "wrong-sha256": "to mark as lost",
    "found-again": "to unmark",
    "orphan": "to remove",
    "open-multipart-upload": "to abort",
}
# The changes of a row among these repairs.
CHANGES: dict[Kind, Callable[[AsyncEngine, UUID], Awaitable[bool]]] = {
    "lost-object": sql.mark_lost,
    "wrong-size": sql.mark_lost,
    "wrong-sha256": sql.mark_lost,
    "lost-original": sql.forget_original,
    "lost-waveform": sql.forget_waveform,
    "found-again": sql.mark_found,
}
# The kind of a finding for an object that is absent, that has another size, or another SHA-256 than its row
# says. A damaged original stays, because the user may prefer it to none.
OF_ABSENT: dict[str, Kind] = {
    "mp3": "lost-object",
    "original": "lost-original",
    "waveform": "lost-waveform",
}
OF_SIZE: dict[str, Kind] = {
    "mp3": "wrong-size",
    "original": "damaged-original",
    "waveform": "lost-waveform",
}
OF_SHA256: dict[str, Kind] = {**OF_SIZE, "mp3": "wrong-sha256"}
# What the doctor counts: rows by their states, records that are marked as lost, kept originals, waveforms in
# the store, and what the store has.
SEEN = (
    *("ready", "uploading", "deleting", "marked_as_lost", "originals", "waveforms"),
    *("objects", "bytes", "read_bytes", "multipart_uploads"),
)
# The object keys that uploads use.
UUID_PATTERN = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
OWN_KEY = re.compile(f"{UUID_PATTERN}/{UUID_PATTERN}[.](mp3|wav|waveform)")
# A lease or a tombstone is overdue so long after the sweeper should have dealt with it.
SWEEPER_DELAY = timedelta(hours=1)
# Of the users whose sums are wrong, this many are findings: if there are more, one repair mends all.
MAX_WRONG_SUMS = 1000
# The ID3 tag and the Info frame of an MP3 together are always shorter.
START_BYTES = 4 * 1024**2


class DoctorError(Exception):
    """The doctor cannot look or repair; the message says why."""


class Finding(NamedTuple):
    """What row and bucket do not agree on."""

    kind: Kind
    object_key: str
    """For `wrong-sums`, which all the records of a user concern, how their object keys begin."""
    detail: str
    record_id: UUID | None = None
    upload: FoundMultipartUpload | None = None


class Judgement(NamedTuple):
    """The kind of a finding, and what was seen."""

    kind: Kind
    detail: str


class Doctor:
    """Looks through one database and one bucket, once."""

    def __init__(
        self,
        engine: AsyncEngine,
        store: ObjectStore,
        min_age: timedelta,
        *,
        is_deep: bool = False,
        bytes_per_second: int | None = None,
    ) -> None:
        """Judges nothing that is younger than `min_age`. `is_deep` reads every object, at most so many
        `bytes_per_second`.

        `engine` needs a statement timeout that lets PostgreSQL sort all rows.
        """
        self._engine = engine
        self._store = store
        self._min_age = min_age
        self._overdue = min_age + SWEEPER_DELAY
        self._is_deep = is_deep
        self._bytes_per_second = bytes_per_second
        self._next_read_at = 0.0
        self.seen = Counter(dict.fromkeys(SEEN, 0))

    async def look(self) -> AsyncGenerator[Finding, None]:
        """Yields the findings.

        Raises Unavailable if PostgreSQL or the store is away, and DoctorError if the listing has no order.
        """
        await self._store.check()
        async with aclosing(self._pair_rows_with_objects()) as pairs:
            async for key, row, found in pairs:
                self._count(row, found)
                if await self._judge(row, found) and (finding := await self._judge_again(key)):
                    yield finding
        async for upload in self._store.list_multipart_uploads():
            self.seen["multipart_uploads"] += 1
            if finding := await self._judge_multipart_upload(upload):
                yield finding
        for user in await sql.find_wrong_sums(self._engine, MAX_WRONG_SUMS):
            kept = f"{user.record_count:,} records, {user.total_bytes:,} bytes, {user.total_seconds:,} s"
            right = f"{user.records:,} records, {user.bytes:,} bytes, {user.seconds:,} s"
            yield Finding("wrong-sums", f"{user.id}/", f"kept are {kept}; the records have {right}")

    async def repair(self, finding: Finding) -> bool:
        """Repairs a finding that still holds. Returns False if it does not, or needs the operator.

        Never removes an object that has a row.
        """
        if finding.upload:
            again = await self._judge_multipart_upload(finding.upload)
        else:
            again = await self._judge_again(finding.object_key)
        if not again or again.kind != finding.kind:
            return False
        match again:
            case Finding("orphan"):
                await self._store.remove(again.object_key)
                return True
            case Finding("open-multipart-upload", upload=FoundMultipartUpload() as upload):
                await self._store.abort_multipart_upload(upload)
                return True
            case Finding(record_id=UUID() as record_id) if change := CHANGES.get(again.kind):
                return await change(self._engine, record_id)
        return False

    async def _pair_rows_with_objects(
        self,
    ) -> AsyncGenerator[tuple[str, sql.DoctorRow | None, FoundObject | None], None]:
        """Yields every object key with its row, its object or both."""
        objects = self._store.list_objects()
        async with aclosing(sql.read_rows_for_doctor(self._engine, self._min_age, self._overdue)) as rows:
            row, found = await anext(rows, None), await anext(objects, None)
            while row or found:
                key = min(each for each in (row and row.object_key, found and found.key) if each)
                row_of_key = row if row and row.object_key == key else None
                object_of_key = found if found and found.key == key else None
                yield key, row_of_key, object_of_key
                if row_of_key:
                    row = await anext(rows, None)
                if object_of_key:
                    found = await _next_in_order(objects, object_of_key)

    def _count(self, row: sql.DoctorRow | None, found: FoundObject | None) -> None:
        if row and row.content != "mp3":
            self.seen[f"{row.content}s"] += row.state == "ready"
        elif row:
            self.seen[row.state] += 1
            self.seen["marked_as_lost"] += row.is_lost and row.state == "ready"
        if found:
            self.seen["objects"] += 1
            self.seen["bytes"] += found.size_bytes

    async def _judge_again(self, key: str) -> Finding | None:
        """Judges one object key by what the store and then the database say now.

        The order matters, because a row exists before its object and until after it. If the object is absent
        and afterwards the row is `ready`, or if the object is there and afterwards the row is absent, then no
        upload or deletion under way explains the difference.
        """
        found = await self._store.find(key)
        row = await self._find_row(key)
        judgement = await self._judge(row, found)
        return Finding(judgement.kind, key, judgement.detail, row and row.id) if judgement else None

    async def _find_row(self, key: str) -> sql.DoctorRow | None:
        return await sql.find_row_for_doctor(self._engine, key, self._min_age, self._overdue)

    async def _judge(self, row: sql.DoctorRow | None, found: FoundObject | None) -> Judgement | None:
        if not row:
            return self._judge_without_row(found) if found else None
        if row.state == "ready":
            return await self._judge_ready(row, found) if row.is_settled else None
        if not row.is_overdue:
            return None
        if row.state == "uploading":
            return Judgement("overdue-upload", "its lease is long over")
        return Judgement("overdue-tombstone", _describe(found))

    async def _judge_ready(self, row: sql.DoctorRow, found: FoundObject | None) -> Judgement | None:
        if row.is_lost:
            # The object may have been damaged when the record was marked, so its size alone proves nothing.
            is_right = found and found.size_bytes == row.size_bytes and not await self._check_content(row)
            return Judgement("found-again", "the object is right") if is_right else None
        if not found:
            return Judgement(OF_ABSENT[row.content], f"its row has {row.size_bytes:,} bytes")
        if found.size_bytes != row.size_bytes:
            return Judgement(OF_SIZE[row.content], f"{_describe(found)}, its row {row.size_bytes:,}")
        return await self._check_content(row) if self._is_deep else None

    def _judge_without_row(self, found: FoundObject) -> Judgement | None:
        if not self._is_old(found.changed_at):
            return None
        return Judgement("orphan" if OWN_KEY.fullmatch(found.key) else "foreign", _describe(found))

    async def _judge_multipart_upload(self, upload: FoundMultipartUpload) -> Finding | None:
        """Judges an open multipart upload.

        It is no finding if its key has a row that is not `ready`: then an upload is under way, or the sweeper
        will abort it.
        """
        if not self._is_old(upload.begun_at):
            return None
        async for each in self._store.list_multipart_uploads(upload.key):
            if each.upload_id == upload.upload_id:
                break
        else:
            return None
        row = await self._find_row(upload.key)
        if row and row.state != "ready":
            return None
        kind: Kind = "open-multipart-upload" if OWN_KEY.fullmatch(upload.key) else "foreign"
        return Finding(kind, upload.key, f"begun at {upload.begun_at:%Y-%m-%d %H:%M}", upload=upload)

    def _is_old(self, moment: datetime) -> bool:
        return moment <= datetime.now(UTC) - self._min_age

    async def _check_content(self, row: sql.DoctorRow) -> Judgement | None:
        """Reads the object of a row, and returns what is wrong with it.

        Raises Unavailable if the store is away altogether.
        """
        digest, start = hashlib.sha256(), bytearray()
        try:
            async with aclosing(await self._store.open(row.object_key)) as pieces:
                async for piece in pieces:
                    digest.update(piece)
                    start += piece[: START_BYTES - len(start)]
                    await self._pace(len(piece))
        except (Unavailable, *STORE_ERRORS) as error:
            await self._store.check()
            why = error.detail if isinstance(error, Unavailable) else type(error).__name__
            return Judgement("unreadable", f"reading its object fails: {why}")
        if digest.digest() != row.sha256:
            return Judgement(OF_SHA256[row.content], f"its SHA-256 is {digest.hexdigest()}")
        wrong = _check_info_frame(row, bytes(start)) if row.content == "mp3" else None
        return Judgement("wrong-info-frame", wrong) if wrong else None

    async def _pace(self, size_bytes: int) -> None:
        """Waits after each piece, so that the doctor reads no more bytes per second than allowed."""
        self.seen["read_bytes"] += size_bytes
        if not self._bytes_per_second:
            return
        now = asyncio.get_running_loop().time()
        self._next_read_at = max(self._next_read_at, now) + size_bytes / self._bytes_per_second
        await asyncio.sleep(self._next_read_at - now)


async def _next_in_order(objects: AsyncIterator[FoundObject], before: FoundObject) -> FoundObject | None:
    found = await anext(objects, None)
    if found and found.key <= before.key:
        raise DoctorError("the object store does not list objects in the order of their keys")
    return found


def _describe(found: FoundObject | None) -> str:
    return f"the object has {found.size_bytes:,} bytes" if found else "it has no object"


def _check_info_frame(row: sql.DoctorRow, start: bytes) -> str | None:
    """Returns what the Info frame says differently from the row, or None.

    A resampled recording may differ by the rounding of its length, so one MP3 frame more or less is right.
    """
    try:
        info = read_info_frame(start)
    except ValueError as error:
        return str(error)
    seconds = info.sample_frames / info.sample_rate
    if (info.sample_rate, info.channels) != (row.sample_rate, row.channels):
        return f"it has {info.sample_rate} Hz and {info.channels} channels"
    if abs(seconds - (row.duration_seconds or 0)) > 1152 / info.sample_rate:
        return f"it has {seconds:.3f} s, its row {row.duration_seconds:.3f}"
    # The field has 32 bits.
    if info.stream_bytes != min((row.size_bytes or 0) - info.id3_bytes, 2**32 - 1):
        return f"it has {info.id3_bytes + info.stream_bytes:,} bytes, its row {row.size_bytes:,}"
    return None
