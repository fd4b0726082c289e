"""What the records service reads and writes in PostgreSQL: all its SQL but the sweeper's."""

from datetime import datetime, timedelta
from typing import Any, NamedTuple, Self
from uuid import UUID, uuid4

import msgspec
from sqlalchemy import Interval, String, Uuid, and_, bindparam, delete, func, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from common.credentials import Credentials, narrow, wrong_credentials
from common.db import DriverStatement, Reader, execute
from common.tables import Record, User
from records.audio import Waveform
from records.problems import IdempotencyKeyInUse, NoWaveform, UnknownRecord

PUBLISHED = (
    Record.id,
    Record.user_id,
    Record.title,
    Record.duration_seconds,
    Record.sample_rate,
    Record.channels,
    Record.bitrate_kbps,
    Record.peak_dbfs,
    Record.rms_dbfs,
    Record.truncated,
    Record.size_bytes,
    Record.sha256,
    Record.created_at,
)
RECORD_ID = bindparam("record_id", type_=Uuid())
IS_PUBLISHED = (
    Record.id == RECORD_ID,
    Record.user_id == bindparam("user_id"),
    Record.state == "ready",
)
FIND_RECORD = DriverStatement(select(*PUBLISHED, Record.object_key).where(*IS_PUBLISHED))
# Apart from FIND_RECORD, which every download needs and which reads nothing so large.
FIND_WAVEFORM = DriverStatement(
    select(*PUBLISHED, Record.waveform, Record.waveform_samples_per_pixel).where(*IS_PUBLISHED)
)
# An upload may have begun while its user was being deleted, too late for that to see its row.
IS_OF_SOMEBODY = select(User.id).where(User.id == Record.user_id, User.deleted_at.is_(None)).exists()
KEY = bindparam("key", type_=String())
LEASE_UNTIL = func.now() + bindparam("lease", type_=Interval())
# No row where no user has the credentials, or where the user's key is taken.
RESERVE = (
    insert(Record)
    .from_select(
        ["id", "user_id", "lease_until", "object_key", "idempotency_key"],
        narrow(select(RECORD_ID, User.id, LEASE_UNTIL, func.concat(User.id, "/", RECORD_ID, ".mp3"), KEY)),
    )
    .on_conflict_do_nothing()
    .returning(Record.id, Record.object_key)
)
# A row of nulls where the user has the credentials, and the key is free.
FIND_EARLIER = narrow(
    select(*PUBLISHED, Record.state, Record.idempotency_options)
    .select_from(User)
    .outerjoin(
        Record, and_(Record.user_id == User.id, Record.idempotency_key == KEY, Record.state != "deleting")
    )
)
FIND_USER = narrow(select(User.id))
IS_UPLOADING = (Record.id == RECORD_ID, Record.state == "uploading")
RENEW_LEASE = update(Record).where(*IS_UPLOADING).values(lease_until=LEASE_UNTIL).returning(Record.id)
# What the record is comes as further parameters, named as its columns.
PUBLISH = (
    update(Record)
    .where(*IS_UPLOADING, IS_OF_SOMEBODY)
    .values(state="ready", lease_until=None, published_at=func.now())
    .returning(*PUBLISHED)
)
GIVE_UP = update(Record).where(*IS_UPLOADING).values(state="deleting", lease_until=None)
FIND_STATE = select(Record.state).where(Record.id == RECORD_ID)
FORGET = delete(Record).where(*IS_UPLOADING)


class Published(msgspec.Struct, frozen=True):
    """A record as its row says: `sha256` is the digest of the stored MP3, sizes in bytes."""

    id: UUID
    user_id: UUID
    title: str | None
    duration_seconds: float
    sample_rate: int
    channels: int
    bitrate_kbps: int
    peak_dbfs: float | None
    rms_dbfs: float | None
    truncated: bool
    size_bytes: int
    sha256: bytes
    created_at: datetime

    @classmethod
    def of(cls, row: Any) -> Self:
        """The record of a row, which gives its values by their names."""
        return cls(**{name: row[name] for name in cls.__struct_fields__})


class Reservation(msgspec.Struct, frozen=True):
    """The row of an upload under way."""

    record_id: UUID
    object_key: str


class Replayed(Published, frozen=True):
    """A record that an earlier upload with the same key has made."""


class Earlier(NamedTuple):
    """What a key of this user was used for: the record, and what else its upload asked for."""

    record: Replayed
    options: dict[str, Any]


async def reserve(
    engine: AsyncEngine, credentials: Credentials, lease_seconds: int, idempotency_key: str | None = None
) -> Reservation | Earlier:
    """Checks the credentials and inserts the row, in one statement; of two at once with a key one does.

    Returns the Earlier upload where the user's key has made a record already.
    Raises InvalidCredentials where no user has them, IdempotencyKeyInUse while that upload is under way.
    """
    whose = {**credentials.parameters, "key": idempotency_key}
    while True:
        values = {"record_id": uuid4(), "lease": timedelta(seconds=lease_seconds), **whose}
        if rows := await execute(engine, RESERVE, values):
            return Reservation(rows[0].id, rows[0].object_key)
        if not idempotency_key:
            raise wrong_credentials()
        rows = await execute(engine, FIND_EARLIER, whose)
        if not rows:
            raise wrong_credentials()
        (row,) = rows
        if row.state == "uploading":
            raise IdempotencyKeyInUse(idempotency_key)
        if row.state:
            return Earlier(Replayed.of(row._mapping), row.idempotency_options)
        # Between the two statements the upload that had the key has failed, and the key is free.


async def find_user(engine: AsyncEngine, credentials: Credentials) -> UUID:
    """The id of the user who has the credentials. Raises InvalidCredentials where nobody has."""
    rows = await execute(engine, FIND_USER, credentials.parameters)
    if not rows:
        raise wrong_credentials()
    return UUID(str(rows[0].id))


async def renew_lease(engine: AsyncEngine, record_id: UUID, lease_seconds: int) -> bool:
    """Renews the lease; False where the upload has been given up meanwhile."""
    values = {"record_id": record_id, "lease": timedelta(seconds=lease_seconds)}
    return bool(await execute(engine, RENEW_LEASE, values))


async def publish(engine: AsyncEngine, record_id: UUID, values: dict[str, Any]) -> Published | None:
    """Makes the row `ready`; None where the upload has been given up meanwhile."""
    rows = await execute(engine, PUBLISH, {"record_id": record_id, **values})
    return Published.of(rows[0]._mapping) if rows else None


async def give_up(engine: AsyncEngine, record_id: UUID) -> bool:
    """Makes an unfinished row a tombstone; False where the row is ready after all.

    That happens where the answer to `publish` was lost: the record then stays, complete but never announced.
    """
    await execute(engine, GIVE_UP, {"record_id": record_id})
    rows = await execute(engine, FIND_STATE, {"record_id": record_id})
    return not rows or rows[0].state != "ready"


async def forget(engine: AsyncEngine, record_id: UUID) -> None:
    """Removes the row of an upload for which the store was never touched."""
    await execute(engine, FORGET, {"record_id": record_id})


async def find_record(reader: Reader, record_id: UUID, user_id: UUID) -> tuple[Published, str]:
    """The record and its object key: the one check of every download.

    Raises UnknownRecord where it is absent, not ready, or somebody else's.
    """
    row = await _find(reader, FIND_RECORD, record_id, user_id)
    return Published.of(row), row["object_key"]


async def find_waveform(reader: Reader, record_id: UUID, user_id: UUID) -> tuple[Published, Waveform]:
    """The record and its waveform.

    Raises UnknownRecord as `find_record` does, and NoWaveform for a record from before there were any.
    """
    row = await _find(reader, FIND_WAVEFORM, record_id, user_id)
    if row["waveform"] is None:
        raise NoWaveform("The record was made before waveforms were; upload its WAV again to have one.")
    return Published.of(row), Waveform(row["waveform_samples_per_pixel"], row["waveform"])


async def list_records(
    engine: AsyncEngine, user_id: UUID, limit: int, before: tuple[datetime, UUID] | None
) -> list[Published]:
    """A user's records, newest first: those that come after `before`, a record's creation and id."""
    page = select(*PUBLISHED).where(Record.user_id == user_id, Record.state == "ready")
    if before:
        page = page.where(tuple_(Record.created_at, Record.id) < before)
    page = page.order_by(Record.created_at.desc(), Record.id.desc()).limit(limit)
    return [Published.of(row._mapping) for row in await execute(engine, page)]


async def delete_record(engine: AsyncEngine, record_id: UUID, user_id: UUID) -> None:
    """Makes the record a tombstone, which the sweeper removes with its object.

    Raises UnknownRecord as `find_record` does.
    """
    rows = await execute(
        engine,
        update(Record)
        .where(Record.id == record_id, Record.user_id == user_id, Record.state == "ready")
        .values(state="deleting")
        .returning(Record.id),
    )
    if not rows:
        raise _unknown()


async def _find(reader: Reader, statement: DriverStatement, record_id: UUID, user_id: UUID) -> Any:
    row = await reader.fetch_row(statement, {"record_id": record_id, "user_id": user_id})
    if not row:
        raise _unknown()
    return row


def _unknown() -> UnknownRecord:
    return UnknownRecord("There is no record with this id and user; a link is used exactly as it was given.")
