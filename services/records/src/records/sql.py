"""All SQL of the records service: uploads, reads, deletions, and the sweeper's statements.

Nearly all statements are constants: building one takes as long as running it.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple
from uuid import UUID, uuid4

import msgspec
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Integer,
    Interval,
    Row,
    String,
    Uuid,
    and_,
    any_,
    bindparam,
    cast,
    collate,
    delete,
    false,
    func,
    literal_column,
    or_,
    select,
    text,
    true,
    tuple_,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.sql.dml import ReturningUpdate

from common.credentials import Credentials, restrict_to_credentials, wrong_credentials
from common.db import execute, outages_as_unavailable, read, transaction
from common.logs import name_user
from common.problems import Problem, UserBlocked
from common.quotas import QUOTAS, USE, choose_limits
from common.tables import Record, Run, User
from records.audio import Properties
from records.documents import COLUMNS, RecordDocument
from records.problems import IdempotencyKeyInUse, NoWaveform, UnknownRecord
from records.quotas import Room
from records.row_reader import DriverStatement, RowReader
from records.settings import Settings
from records.storage import MULTIPART_BYTES, StoredObject, make_waveform_key

# For this long, an upload that repeats an idempotency key gets the record of the first one.
IDEMPOTENCY_KEY_LIFETIME = timedelta(hours=24)
# The first number of the advisory locks under which uploads are published where a quota counts.
QUOTA_LOCK = 0x5155_4F54
# A backup holds this advisory lock, shared. Meanwhile the objects of deleted records stay, because the dump
# may have their rows as they were before.
BACKUP_LOCK = 0x4241_434B
NO_BACKUP_IS_UNDER_WAY = text(
    "NOT EXISTS (SELECT FROM pg_locks JOIN pg_database ON pg_database.oid = database"
    f" WHERE locktype = 'advisory' AND objid = {BACKUP_LOCK} AND datname = current_database())"
)

# A shorter part of a title has no trigrams, so the index does not help (migration 0019).
TRIGRAM_LENGTH = 3

DOCUMENT_COLUMNS = tuple(getattr(Record, name) for name in COLUMNS)
RECORD_ID = bindparam("record_id", type_=Uuid())
OWNER_ID = bindparam("owner_id", type_=Uuid())
# Not named like the column: SQLAlchemy reserves the names of columns in an INSERT.
IDEMPOTENCY_KEY = bindparam("key", type_=String())
LEASE_UNTIL = func.now() + bindparam("lease", type_=Interval())
IS_PUBLISHED = (
    Record.id == RECORD_ID,
    Record.user_id == OWNER_ID,
    Record.state == "ready",
)
IS_ACTIVE = (User.deleted_at.is_(None), User.blocked_at.is_(None))
# This does not depend on the record, so PostgreSQL scans an index once for the whole statement.
OWNER_MAY_SHOW = select(User.id).where(User.id == OWNER_ID, *IS_ACTIVE).exists()
IS_PUBLIC = (*IS_PUBLISHED, OWNER_MAY_SHOW)
IS_UPLOADING = (Record.id == RECORD_ID, Record.state == "uploading")
# The user may have been deleted or blocked during the upload.
USER_MAY_PUBLISH = select(User.id).where(User.id == Record.user_id, *IS_ACTIVE).exists()

FIND_USER = restrict_to_credentials(select(User.id, User.blocked_at))
FIND_USE = select(*QUOTAS, *USE).where(User.id == OWNER_ID)
# Only users who have stored something, so that PostgreSQL reads an index without the others.
SUM_ALL_BYTES = select(cast(func.coalesce(func.sum(User.total_bytes), 0), BigInteger)).where(
    User.total_bytes > literal_column("0")
)
# Until the end of the transaction. The second number follows from the user's id, or from `all` for all users.
LOCK_QUOTA = select(
    func.pg_advisory_xact_lock(QUOTA_LOCK, func.hashtext(bindparam("quota_of", type_=String())))
)
HAS_OWN_QUOTA = (
    select(func.num_nonnulls(User.quota_records, User.quota_bytes, User.quota_seconds) > 0)
    # SQLAlchemy does not correlate a subquery with the table of an INSERT.
    .where(User.id == literal_column("records.user_id", Uuid()))
    .scalar_subquery()
)
# Inserts no row if nobody has the credentials, if the user is blocked or has used the idempotency key.
RESERVE = (
    insert(Record)
    .from_select(
        ["id", "user_id", "lease_until", "object_key", "idempotency_key"],
        restrict_to_credentials(
            select(
                RECORD_ID,
                User.id,
                LEASE_UNTIL,
                func.concat(User.id, "/", RECORD_ID, ".mp3"),
                IDEMPOTENCY_KEY,
            ).where(User.blocked_at.is_(None))
        ),
    )
    .on_conflict_do_nothing()
    .returning(Record.id, Record.user_id, Record.object_key, HAS_OWN_QUOTA.label("has_own_quota"))
)
# Finds no record if the idempotency key is null or unused.
FIND_EARLIER_UPLOAD = restrict_to_credentials(
    select(
        User.id.label("owner_id"),
        User.blocked_at,
        *DOCUMENT_COLUMNS,
        Record.state,
        Record.requested_bitrate_kbps,
        Record.keep_original,
        Record.renamed_at,
    )
    .select_from(User)
    .outerjoin(
        Record,
        and_(
            Record.user_id == User.id,
            Record.idempotency_key == IDEMPOTENCY_KEY,
            Record.state != "deleting",
        ),
    )
)
RENEW_LEASE = (
    update(Record).where(*IS_UPLOADING, USER_MAY_PUBLISH).values(lease_until=LEASE_UNTIL).returning(Record.id)
)
# Before the original touches the store. From then on, whoever gives the upload up leaves a tombstone for the
# original, too.
KEEP_ORIGINAL = update(Record).where(*IS_UPLOADING).values(keep_original=True).returning(Record.id)
# `publish` passes the other columns as further parameters with the columns' names.
PUBLISH = (
    update(Record)
    .where(*IS_UPLOADING, USER_MAY_PUBLISH)
    .values(state="ready", lease_until=None, published_at=func.now())
    .returning(*DOCUMENT_COLUMNS)
)
# The user may have got a quota of its own during the upload.
PUBLISH_WITHOUT_QUOTA = PUBLISH.where(~HAS_OWN_QUOTA)
# If the lease has run out, the upload's process is dead or was paused. So an upload with the same key takes
# its place.
GIVE_UP_WITHOUT_LEASE = (
    update(Record)
    .where(*IS_UPLOADING, Record.lease_until < func.now())
    .values(state="deleting", lease_until=None)
    .returning(Record.id)
)
FIND_BLOCKED_OWNER = (
    select(User.id)
    .join(Record, Record.user_id == User.id)
    .where(Record.id == RECORD_ID, User.blocked_at.is_not(None))
)
GIVE_UP = update(Record).where(*IS_UPLOADING).values(state="deleting", lease_until=None)
FIND_STATE = select(Record.state).where(Record.id == RECORD_ID)
FORGET = delete(Record).where(*IS_UPLOADING)

REMOVE_TOMBSTONES = delete(Record).where(
    Record.id == any_(bindparam("record_ids", type_=ARRAY(Uuid()))), Record.state == "deleting"
)

FIND_RECORD = DriverStatement(select(*DOCUMENT_COLUMNS, Record.object_key).where(*IS_PUBLIC))
FIND_OWN_RECORD = DriverStatement(select(*DOCUMENT_COLUMNS).where(*IS_PUBLISHED))
# A statement of its own: FIND_RECORD runs at every download and must not read the 32 KiB of an old waveform.
FIND_WAVEFORM = DriverStatement(
    select(
        *(*DOCUMENT_COLUMNS, Record.object_key, Record.waveform),
        *(Record.waveform_samples_per_pixel, Record.waveform_sha256),
    ).where(*IS_PUBLIC)
)
# Without the facts there is no original any more. The trigger leaves a tombstone for its object.
FORGET_ORIGINAL = (
    update(Record)
    .where(Record.id == RECORD_ID, Record.state == "ready", Record.original_sha256.is_not(None))
    .values(original_size_bytes=None, original_sha256=None)
    .returning(Record.id)
)
FORGET_WAVEFORM = (
    update(Record)
    .where(Record.id == RECORD_ID, Record.state == "ready", Record.waveform_sha256.is_not(None))
    .values(waveform_samples_per_pixel=None, waveform_size_bytes=None, waveform_sha256=None)
    .returning(Record.id)
)
DELETE_ORIGINAL = FORGET_ORIGINAL.where(Record.user_id == OWNER_ID)
# `rename_record` passes the title as a further parameter.
RENAME_RECORD = update(Record).where(*IS_PUBLISHED).values(renamed_at=func.now()).returning(*DOCUMENT_COLUMNS)
DELETE_RECORD = update(Record).where(*IS_PUBLISHED).values(state="deleting").returning(Record.id)
# For the operator, who may know the owner from the link.
DELETE_ANY_RECORD = (
    update(Record)
    .where(
        Record.id == RECORD_ID, Record.state == "ready", or_(OWNER_ID.is_(None), Record.user_id == OWNER_ID)
    )
    .values(state="deleting")
    .returning(Record.user_id, Record.created_at)
)


class Reservation(NamedTuple):
    """The row of an upload under way."""

    record_id: UUID
    user_id: UUID
    object_key: str
    has_own_quota: bool


class EarlierUpload(NamedTuple):
    """The upload that has used an idempotency key before."""

    record: RecordDocument
    requested_bitrate_kbps: int | None
    """None if the upload did not state a bitrate and its version did not note the default."""
    keep_original: bool | None
    """None if its version could not keep originals."""
    is_renamed: bool
    """Whether the record no longer has the title of the upload."""


class FinishedUpload(NamedTuple):
    """Everything that an upload learns about its record and that publishing writes into the row."""

    title: str | None
    stored_object: StoredObject
    properties: Properties
    waveform: StoredObject
    waveform_samples_per_pixel: int
    requested_bitrate_kbps: int
    idempotency_key: str | None
    original: StoredObject | None = None

    @property
    def stored_bytes(self) -> int:
        """The bytes of the MP3 and of the original."""
        return self.stored_object.size_bytes + (self.original.size_bytes if self.original else 0)

    @property
    def columns(self) -> dict[str, Any]:
        """The values by the names of the columns."""
        return {
            "title": self.title,
            **self.stored_object._asdict(),
            **asdict(self.properties),
            "waveform_samples_per_pixel": self.waveform_samples_per_pixel,
            "waveform_size_bytes": self.waveform.size_bytes,
            "waveform_sha256": self.waveform.sha256,
            "requested_bitrate_kbps": self.requested_bitrate_kbps,
            "keep_original": self.original is not None,
            "original_size_bytes": self.original and self.original.size_bytes,
            "original_sha256": self.original and self.original.sha256,
        }


class FoundWaveform(NamedTuple):
    """The waveform of a record, or where it is."""

    record: RecordDocument
    samples_per_pixel: int
    peaks: bytes | None
    """None if they are in the store."""
    object_key: str
    sha256: bytes

    @property
    def record_id(self) -> UUID:
        """The id of the record."""
        return self.record.id


# The objects that may be in the store, which are those of the rows, the originals and the waveforms.
# Migrations 0014 and 0015 have the same conditions: what no longer meets them has a tombstone of its own.
MAY_HAVE_ORIGINAL = or_(
    and_(Record.state == "uploading", Record.keep_original.is_(true())),
    and_(Record.state == "ready", Record.original_sha256.is_not(None)),
)
MAY_HAVE_WAVEFORM = or_(
    Record.state == "uploading", and_(Record.state == "ready", Record.waveform_sha256.is_not(None))
)
OF_THE_ROW = (
    *(Record.id, Record.state, Record.object_key.label("row_key")),
    *(Record.duration_seconds, Record.sample_rate, Record.channels, Record.lost_at),
    *(Record.published_at, Record.deleted_at, Record.gone_since, Record.lease_until),
)


def _key_with(suffix: str) -> ColumnElement[str]:
    # Of the same type as the other keys, so that PostgreSQL finds a row by its index.
    return cast(func.concat(func.left(Record.object_key, -len(".mp3")), suffix), String)


OBJECTS = union_all(
    select(
        *(*OF_THE_ROW, Record.object_key, Record.size_bytes, Record.sha256),
        literal_column("'mp3'").label("content"),
    ),
    select(
        *(*OF_THE_ROW, _key_with(".wav"), Record.original_size_bytes, Record.original_sha256),
        literal_column("'original'"),
    ).where(MAY_HAVE_ORIGINAL),
    select(
        *(*OF_THE_ROW, _key_with(".waveform"), Record.waveform_size_bytes, Record.waveform_sha256),
        literal_column("'waveform'"),
    ).where(MAY_HAVE_WAVEFORM),
).subquery("objects")
# A backup and the doctor read the objects in the order in which the store lists them: by the bytes of the
# keys.
BY_KEY = collate(OBJECTS.c.object_key, "C")
READ_FOR_BACKUP = DriverStatement(
    select(OBJECTS.c.object_key, OBJECTS.c.size_bytes, OBJECTS.c.sha256)
    .where(OBJECTS.c.state == "ready")
    .order_by(BY_KEY)
)
# `min_age` and `overdue` are intervals.
IS_SETTLED = OBJECTS.c.published_at < func.now() - bindparam("min_age", type_=Interval())
# By the age of a tombstone, or the lease of an upload.
IS_OVERDUE = func.coalesce(
    OBJECTS.c.deleted_at, OBJECTS.c.gone_since, OBJECTS.c.lease_until
) < func.now() - bindparam("overdue", type_=Interval())
IS_MP3 = OBJECTS.c.content == literal_column("'mp3'")
SELECT_FOR_DOCTOR = select(
    *(OBJECTS.c.id, OBJECTS.c.object_key, OBJECTS.c.state, OBJECTS.c.size_bytes, OBJECTS.c.sha256),
    *(OBJECTS.c.duration_seconds, OBJECTS.c.sample_rate, OBJECTS.c.channels, OBJECTS.c.content),
    and_(IS_MP3, OBJECTS.c.lost_at.is_not(None)).label("is_lost"),
    # Where a time is null, the comparison is null, which counts as false.
    func.coalesce(IS_SETTLED, false()).label("is_settled"),
    # An upload is overdue once, however many objects it may have.
    and_(IS_MP3, OBJECTS.c.state != "ready", func.coalesce(IS_OVERDUE, false())).label("is_overdue"),
)
READ_FOR_DOCTOR = DriverStatement(SELECT_FOR_DOCTOR.order_by(BY_KEY))
KEY = bindparam("key", type_=String())
FIND_FOR_DOCTOR = SELECT_FOR_DOCTOR.where(
    OBJECTS.c.object_key == KEY,
    OBJECTS.c.row_key.in_([KEY, bindparam("mp3_key", type_=String())]),
)
FETCH_ROWS = 1000
# The sums of a user that triggers keep, where the user's records sum up to something else.
FIND_WRONG_SUMS = text(
    "SELECT users.id, record_count, total_bytes, total_seconds, sums.* FROM users CROSS JOIN LATERAL ("
    " SELECT count(*) AS records,"
    " coalesce(sum(size_bytes + coalesce(original_size_bytes, 0)), 0) AS bytes,"
    " coalesce(sum(CAST(CAST(duration_seconds AS text) AS numeric)), 0) AS seconds"
    " FROM records WHERE user_id = users.id AND state = 'ready'"
    ") AS sums WHERE (record_count, total_bytes, total_seconds) IS DISTINCT FROM (records, bytes, seconds)"
    " LIMIT :limit"
)
MEASURE_TOMBSTONES = select(
    func.count().label("amount"),
    func.extract("epoch", func.now() - func.min(Record.deleted_at)).label("seconds"),
).where(Record.state == "deleting")
IS_READY = (Record.id == RECORD_ID, Record.state == "ready")
# Without its key, so that the same upload again makes a new record.
MARK_LOST = (
    update(Record)
    .where(*IS_READY, Record.lost_at.is_(None))
    .values(lost_at=func.now(), idempotency_key=None)
    .returning(Record.id)
)
MARK_FOUND = (
    update(Record).where(*IS_READY, Record.lost_at.is_not(None)).values(lost_at=None).returning(Record.id)
)


# Replaces the row of the last run, and keeps when the last run succeeded if this one has failed.
NOTE_RUN = insert(Run).values(
    {column.name: bindparam(f"run_{column.name}", type_=column.type) for column in Run.__table__.columns}
)
NOTE_RUN = NOTE_RUN.on_conflict_do_update(
    index_elements=[Run.command],
    set_={
        **{name: NOTE_RUN.excluded[name] for name in ("began_at", "ended_at", "result", "summary")},
        "succeeded_at": func.coalesce(NOTE_RUN.excluded.succeeded_at, Run.succeeded_at),
    },
)
FIND_RUNS = select(*Run.__table__.columns)
# One statement, so that its numbers fit together. PostgreSQL reads the first two from the index records_use.
MEASURE_ALL = text(
    "SELECT current_setting('server_version') AS version,"
    " extract(epoch FROM now() - pg_postmaster_start_time()) AS uptime_seconds, stored.*,"
    " (SELECT count(*) FROM users WHERE deleted_at IS NULL) AS users,"
    " (SELECT coalesce(sum(total_bytes), 0) FROM users WHERE total_bytes > 0) AS total_bytes"
    " FROM (SELECT count(*) AS records, coalesce(sum(size_bytes), 0) AS mp3_bytes FROM records"
    " WHERE state = 'ready') AS stored"
)


class LastRun(msgspec.Struct, frozen=True):
    """The last run of `backup` or `doctor`."""

    command: str
    began_at: datetime
    ended_at: datetime
    result: str
    summary: str
    succeeded_at: datetime | None
    """When the last run that has not failed ended."""


class Tombstone(NamedTuple):
    """A row whose object is to be removed."""

    record_id: UUID
    object_key: str
    may_have_multipart_uploads: bool
    """False for an MP3 or a waveform that was one PUT. Of others that is unknown."""
    is_last_look: bool
    """Whether a sweeper has looked at it before, so long ago that nothing can arrive late any more."""


class DoctorRow(NamedTuple):
    """What the doctor compares with an object of a row."""

    id: UUID
    object_key: str
    state: str
    size_bytes: int | None
    sha256: bytes | None
    duration_seconds: float | None
    sample_rate: int | None
    channels: int | None
    content: Literal["mp3", "original", "waveform"]
    """What the object is. For a tombstone always `mp3`."""
    is_lost: bool
    """Whether the record is marked as lost."""
    is_settled: bool
    """Whether the record was published long enough ago to be judged."""
    is_overdue: bool
    """Whether the sweeper should have worked on this lease or tombstone long ago."""


async def find_user(engine: AsyncEngine, credentials: Credentials, *, to_write: bool = False) -> UUID:
    """Returns the id of the user who has the credentials, and names the user in the log.

    Raises InvalidCredentials if nobody has them, and UserBlocked `to_write` if the user is blocked.
    """
    rows = await read(engine, FIND_USER, credentials.parameters)
    if not rows:
        raise wrong_credentials()
    user_id = UUID(str(rows[0].id))
    name_user(user_id)
    if to_write and rows[0].blocked_at:
        raise UserBlocked
    return user_id


async def reserve(
    engine: AsyncEngine, credentials: Credentials, lease_seconds: int, idempotency_key: str | None = None
) -> Reservation | EarlierUpload:
    """Checks the credentials and inserts the row in one statement. If two uploads have one key, only one
    inserts a row. Names the user in the log.

    Returns the EarlierUpload if the user's key has made a record.
    Raises InvalidCredentials if nobody has the credentials, UserBlocked if the user is blocked, and
    IdempotencyKeyInUse while another upload with the key is under way. Gives the other upload up if its
    lease has run out.
    """
    parameters = {**credentials.parameters, "key": idempotency_key}
    while True:
        new_row = {"record_id": uuid4(), "lease": timedelta(seconds=lease_seconds)}
        if rows := await execute(engine, RESERVE, {**parameters, **new_row}):
            (row,) = rows
            name_user(row.user_id)
            return Reservation(row.id, row.user_id, row.object_key, row.has_own_quota)
        rows = await execute(engine, FIND_EARLIER_UPLOAD, parameters)
        if not rows:
            raise wrong_credentials()
        (row,) = rows
        name_user(row.owner_id)
        if row.blocked_at:
            raise UserBlocked
        if idempotency_key and row.state == "uploading":
            if not await execute(engine, GIVE_UP_WITHOUT_LEASE, {"record_id": row.id}):
                raise IdempotencyKeyInUse(idempotency_key)
        elif row.state:
            record = RecordDocument.from_row(row._mapping)
            return EarlierUpload(
                record, row.requested_bitrate_kbps, row.keep_original, is_renamed=row.renamed_at is not None
            )
        # The upload that had the key has failed by now, so the key is free again; or the user was unblocked.


async def renew_lease(engine: AsyncEngine, record_id: UUID, lease_seconds: int) -> bool:
    """Renews the lease. Returns False if the upload has been given up, or its user is deleted or blocked."""
    values = {"record_id": record_id, "lease": timedelta(seconds=lease_seconds)}
    return bool(await execute(engine, RENEW_LEASE, values))


async def keep_original(engine: AsyncEngine, record_id: UUID) -> bool:
    """Notes that the upload will store its original. Returns False if the upload has been given up."""
    return bool(await execute(engine, KEEP_ORIGINAL, {"record_id": record_id}))


async def find_room(engine: AsyncEngine, reservation: Reservation, settings: Settings) -> Room | None:
    """Returns what the user of an upload may still store, or None if no quota counts."""
    if not reservation.has_own_quota and not settings.has_quota:
        return None
    async with transaction(engine) as connection:
        return await _read_room(connection, reservation.user_id, settings)


async def _read_room(connection: AsyncConnection, user_id: UUID, settings: Settings) -> Room:
    use = (await connection.execute(FIND_USE, {"owner_id": user_id})).one()
    stored_bytes = await connection.scalar(SUM_ALL_BYTES) if settings.max_total_bytes is not None else 0
    return Room(
        *choose_limits(use, settings),
        *(use.record_count, use.total_bytes, use.total_seconds),
        *(settings.max_total_bytes, int(stored_bytes or 0)),
    )


async def publish(
    engine: AsyncEngine, reservation: Reservation, finished: FinishedUpload, settings: Settings
) -> RecordDocument | None:
    """Makes the row `ready`. Returns None if the upload has been given up or its user is deleted.

    Where a quota counts, uploads are published one after the other, so that together they cannot overrun it.
    Raises QuotaReached if another upload took the room, and UserBlocked if the user has been blocked
    meanwhile.
    """
    record_id = reservation.record_id
    parameters = {"record_id": record_id, **finished.columns}
    rows: Sequence[Row[Any]] = []
    if not reservation.has_own_quota and not settings.has_quota:
        rows = await execute(engine, PUBLISH_WITHOUT_QUOTA, parameters)
    if not rows:
        async with transaction(engine) as connection:
            quota_of = "all" if settings.max_total_bytes is not None else str(reservation.user_id)
            await connection.execute(LOCK_QUOTA, {"quota_of": quota_of})
            room = await _read_room(connection, reservation.user_id, settings)
            room.check(finished.stored_bytes, finished.properties.duration_seconds)
            rows = (await connection.execute(PUBLISH, parameters)).all()
    if rows:
        return RecordDocument.from_row(rows[0]._mapping)
    if await execute(engine, FIND_BLOCKED_OWNER, {"record_id": record_id}):
        raise UserBlocked
    return None


async def give_up(engine: AsyncEngine, record_id: UUID) -> bool:
    """Turns the row of an unfinished upload into a tombstone. Returns False if the row is `ready` after all.

    The row is `ready` if the response to `publish` was lost. The record then stays, although no client was
    told.
    """
    await execute(engine, GIVE_UP, {"record_id": record_id})
    rows = await execute(engine, FIND_STATE, {"record_id": record_id})
    return not rows or rows[0].state != "ready"


async def forget(engine: AsyncEngine, record_id: UUID) -> None:
    """Deletes the row of an upload that never touched the object store."""
    await execute(engine, FORGET, {"record_id": record_id})


async def find_record(reader: RowReader, record_id: UUID, user_id: UUID) -> tuple[RecordDocument, str]:
    """Returns the record and its object key. This is the one check of every download.

    Raises UnknownRecord if the record is absent, not published, or another user's, or if the user is blocked
    or deleted.
    """
    row = await _find_published(reader, FIND_RECORD, record_id, user_id)
    return RecordDocument.from_row(row), row["object_key"]


async def find_own_record(reader: RowReader, record_id: UUID, user_id: UUID) -> RecordDocument:
    """Returns the record for its user, who may look at it even if blocked.

    Raises UnknownRecord if the record is absent, not published, or another user's.
    """
    return RecordDocument.from_row(await _find_published(reader, FIND_OWN_RECORD, record_id, user_id))


async def find_waveform(reader: RowReader, record_id: UUID, user_id: UUID) -> FoundWaveform:
    """Returns the waveform of a record, or where it is.

    Raises UnknownRecord as `find_record` does, and NoWaveform for a record without one.
    """
    row = await _find_published(reader, FIND_WAVEFORM, record_id, user_id)
    if row["waveform_samples_per_pixel"] is None:
        raise NoWaveform(
            "This record was made before waveforms were stored, or its waveform is lost. Upload its WAV again"
            " to get one."
        )
    return FoundWaveform(
        *(RecordDocument.from_row(row), row["waveform_samples_per_pixel"], row["waveform"]),
        *(make_waveform_key(row["object_key"]), row["waveform_sha256"]),
    )


async def list_records(
    engine: AsyncEngine, user_id: UUID, limit: int, after: tuple[datetime, UUID] | None, title_part: str = ""
) -> list[RecordDocument]:
    """Returns a user's records, newest first: those behind `after`, the creation time and id of a record.

    With `title_part`, only records whose title has this part, in upper or lower case.
    """
    page = select(*DOCUMENT_COLUMNS).where(Record.user_id == user_id, Record.state == "ready")
    if after:
        page = page.where(tuple_(Record.created_at, Record.id) < after)
    if title_part:
        fold = func.fold_for_search
        page = page.where(func.strpos(fold(Record.title), fold(title_part)) > 0)
    if len(title_part) >= TRIGRAM_LENGTH:
        trigrams = func.search_trigrams
        page = page.where(
            trigrams(Record.user_id, Record.title).op("@>")(trigrams(cast(user_id, Uuid), title_part))
        )
    page = page.order_by(Record.created_at.desc(), Record.id.desc()).limit(limit)
    return [RecordDocument.from_row(row._mapping) for row in await read(engine, page)]


async def rename_record(
    engine: AsyncEngine, record_id: UUID, user_id: UUID, title: str | None
) -> RecordDocument:
    """Gives the record another title, or none. Raises UnknownRecord as `find_record` does."""
    rows = await execute(engine, RENAME_RECORD, {"record_id": record_id, "owner_id": user_id, "title": title})
    if not rows:
        raise _unknown_record()
    return RecordDocument.from_row(rows[0]._mapping)


async def delete_record(engine: AsyncEngine, record_id: UUID, user_id: UUID) -> None:
    """Turns the record into a tombstone; the sweeper removes its object and its row.

    Raises UnknownRecord as `find_record` does.
    """
    if not await execute(engine, DELETE_RECORD, {"record_id": record_id, "owner_id": user_id}):
        raise _unknown_record()


async def delete_any_record(engine: AsyncEngine, record_id: UUID, user_id: UUID | None) -> Row[Any] | None:
    """Turns a record into a tombstone, whoever owns it, or only if this user does. For the operator.

    Returns the `user_id` and `created_at` of the record, or None if there is no such record.
    """
    rows = await execute(engine, DELETE_ANY_RECORD, {"record_id": record_id, "owner_id": user_id})
    return rows[0] if rows else None


async def delete_original(engine: AsyncEngine, record_id: UUID, user_id: UUID) -> bool:
    """Lets the original of a user's record go; the sweeper removes its object. Returns False without one."""
    return bool(await execute(engine, DELETE_ORIGINAL, {"record_id": record_id, "owner_id": user_id}))


LIMIT = bindparam("limit", type_=Integer())


def _update_batch(condition: tuple[Any, ...], order: InstrumentedAttribute[Any]) -> ReturningUpdate[Any]:
    """Returns an UPDATE of the first `limit` records that meet the condition and that nobody has locked.

    Another sweeper takes other rows then, and no sweep waits for a lock, which could deadlock.
    """
    batch = select(Record.id).where(*condition).order_by(order).limit(LIMIT)
    batch = batch.with_for_update(skip_locked=True)
    # A CTE, because a subquery could run more than once.
    return update(Record).where(Record.id.in_(select(batch.cte().c.id))).returning(Record.id)


FORGET_OLD_IDEMPOTENCY_KEYS = _update_batch(
    (Record.idempotency_key.is_not(None), Record.published_at < func.now() - IDEMPOTENCY_KEY_LIFETIME),
    Record.published_at,
).values(idempotency_key=None)
GIVE_UP_EXPIRED_UPLOADS = _update_batch(
    (Record.state == "uploading", Record.lease_until < func.now() - bindparam("grace", type_=Interval())),
    Record.lease_until,
).values(state="deleting", lease_until=None)
DELETE_RECORDS_OF_DELETED_USERS = _update_batch(
    (
        Record.state == "ready",
        Record.user_id.in_(select(User.id).where(User.deleted_at.is_not(None), User.record_count > 0)),
    ),
    Record.user_id,
).values(state="deleting")
DELETE_OLD_RECORDS = _update_batch(
    (Record.state == "ready", Record.published_at < func.now() - bindparam("age", type_=Interval())),
    Record.published_at,
).values(state="deleting")


async def forget_old_idempotency_keys(engine: AsyncEngine, limit: int) -> int:
    """Removes the oldest idempotency keys that are older than IDEMPOTENCY_KEY_LIFETIME. Returns how many."""
    return len(await execute(engine, FORGET_OLD_IDEMPOTENCY_KEYS, {"limit": limit}))


async def give_up_expired_uploads(engine: AsyncEngine, grace: timedelta, limit: int) -> int:
    """Turns uploads whose lease ran out at least `grace` ago into tombstones. After that, none of them can be
    published. Returns how many.
    """
    return len(await execute(engine, GIVE_UP_EXPIRED_UPLOADS, {"grace": grace, "limit": limit}))


async def delete_records_of_deleted_users(engine: AsyncEngine, limit: int) -> int:
    """Turns published records of deleted users into tombstones. Returns how many.

    Uploads under way lose their leases.
    """
    return len(await execute(engine, DELETE_RECORDS_OF_DELETED_USERS, {"limit": limit}))


async def delete_old_records(engine: AsyncEngine, age: timedelta, limit: int) -> int:
    """Turns the oldest records that were published longer ago into tombstones. Returns how many."""
    return len(await execute(engine, DELETE_OLD_RECORDS, {"age": age, "limit": limit}))


TOMBSTONES = (
    select(Record.id, Record.gone_since)
    .where(Record.state == "deleting", NO_BACKUP_IS_UNDER_WAY)
    .limit(LIMIT)
    .with_for_update(skip_locked=True)
)
# Two conditions, because each is a range of the index records_unfinished.
NEW_TOMBSTONES = TOMBSTONES.where(Record.lease_until.is_(None)).cte("new")
DUE_TOMBSTONES = TOMBSTONES.where(Record.lease_until < func.now()).order_by(Record.lease_until).cte("due")
TOMBSTONE_BATCH = union_all(select(*NEW_TOMBSTONES.c), select(*DUE_TOMBSTONES.c)).subquery("batch")
BETWEEN_LOOKS = bindparam("between_looks", type_=Interval())
LEASE_TOMBSTONES = (
    update(Record)
    .where(Record.id == TOMBSTONE_BATCH.c.id)
    .values(
        lease_until=func.now() + BETWEEN_LOOKS,
        gone_since=func.coalesce(TOMBSTONE_BATCH.c.gone_since, func.now()),
    )
    .returning(
        Record.id,
        Record.object_key,
        func.coalesce(Record.size_bytes >= MULTIPART_BYTES, true()),
        func.coalesce(TOMBSTONE_BATCH.c.gone_since < func.now() - BETWEEN_LOOKS, false()),
    )
)


async def lease_tombstones(engine: AsyncEngine, between_looks: timedelta, limit: int) -> list[Tombstone]:
    """Returns tombstones that no sweeper has looked at yet, and tombstones whose last look was at least
    `between_looks` ago. Leases them for `between_looks`, so that other sweepers leave them alone.

    Returns none while a backup is under way.
    """
    parameters = {"between_looks": between_looks, "limit": limit // 2}
    return [Tombstone._make(row) for row in await execute(engine, LEASE_TOMBSTONES, parameters)]


async def remove_tombstones(engine: AsyncEngine, record_ids: list[UUID]) -> None:
    """Deletes the rows of these tombstones."""
    await execute(engine, REMOVE_TOMBSTONES, {"record_ids": record_ids})


async def measure_tombstones(engine: AsyncEngine) -> tuple[int, float]:
    """Returns how many tombstones there are, and the age of the oldest one in seconds (0 without any)."""
    (row,) = await execute(engine, MEASURE_TOMBSTONES)
    return row.amount, float(row.seconds or 0)


async def sum_stored_bytes(engine: AsyncEngine) -> int:
    """Returns how many bytes all users together have stored."""
    (row,) = await execute(engine, SUM_ALL_BYTES)
    return int(row[0])


async def note_run(engine: AsyncEngine, command: str, began_at: datetime, result: str, summary: str) -> None:
    """Notes that a run of an operator's command has ended now. The row of the run before goes.

    While PostgreSQL is away, or has an older schema, nothing is noted. The run may have succeeded
    nevertheless.
    """
    ended_at = datetime.now(UTC)
    run = LastRun(command, began_at, ended_at, result, summary, None if result == "failed" else ended_at)
    with suppress(Problem, SQLAlchemyError):
        await execute(
            engine, NOTE_RUN, {f"run_{name}": value for name, value in msgspec.structs.asdict(run).items()}
        )


async def find_runs(engine: AsyncEngine) -> dict[str, LastRun]:
    """Returns the last run of each command that ever ran."""
    return {row.command: LastRun(**row._mapping) for row in await read(engine, FIND_RUNS)}


async def measure_all(engine: AsyncEngine) -> Row[Any]:
    """Returns a row of what the database has: `version`, `uptime_seconds`, `records`, `mp3_bytes`, `users`,
    and `total_bytes`, which are the bytes of MP3s and originals.
    """
    (row,) = await read(engine, MEASURE_ALL)
    return row


async def read_rows_for_doctor(
    engine: AsyncEngine, min_age: timedelta, overdue: timedelta
) -> AsyncGenerator[DoctorRow, None]:
    """Yields all objects of the rows as one statement sees them, by the bytes of their keys. Holds 1,000.

    The cursor is WITH HOLD: PostgreSQL sorts the rows into a temporary file of its own, and its snapshot ends
    before the first row arrives. So the vacuum is not held up, however long the caller takes.
    """
    arguments = READ_FOR_DOCTOR.arguments({"min_age": min_age, "overdue": overdue})
    with outages_as_unavailable():
        async with engine.connect() as connection:
            declare = f"DECLARE doctor NO SCROLL CURSOR WITH HOLD FOR {READ_FOR_DOCTOR.sql}"
            try:
                await connection.exec_driver_sql(declare, tuple(arguments))
                while rows := (await connection.exec_driver_sql(f"FETCH {FETCH_ROWS} FROM doctor")).all():
                    for row in rows:
                        yield DoctorRow._make(row)
            finally:
                # Ends the database session, and so the cursor, even if the connection is broken.
                await connection.invalidate()


async def find_row_for_doctor(
    engine: AsyncEngine, object_key: str, min_age: timedelta, overdue: timedelta
) -> DoctorRow | None:
    """Returns the row of this object as it is now."""
    mp3_key = object_key.rpartition(".")[0] + ".mp3"
    parameters = {"key": object_key, "mp3_key": mp3_key, "min_age": min_age, "overdue": overdue}
    rows = await execute(engine, FIND_FOR_DOCTOR, parameters)
    return DoctorRow._make(rows[0]) if rows else None


async def find_wrong_sums(engine: AsyncEngine, limit: int) -> Sequence[Row[Any]]:
    """Returns users whose kept sums are not what their records sum up to.

    The rows have the columns `id`; `record_count`, `total_bytes`, `total_seconds`, as they are kept; and
    `records`, `bytes`, `seconds`, as they should be.
    """
    return await execute(engine, FIND_WRONG_SUMS, {"limit": limit})


async def mark_lost(engine: AsyncEngine, record_id: UUID) -> bool:
    """Notes that the object of a record is lost. Returns False if the record is deleted, or noted already."""
    return bool(await execute(engine, MARK_LOST, {"record_id": record_id}))


async def forget_original(engine: AsyncEngine, record_id: UUID) -> bool:
    """Lets the original of a record go. Returns False if the record is deleted, or has none."""
    return bool(await execute(engine, FORGET_ORIGINAL, {"record_id": record_id}))


async def forget_waveform(engine: AsyncEngine, record_id: UUID) -> bool:
    """Lets the waveform of a record go. Returns False if the record is deleted, or has none in the store."""
    return bool(await execute(engine, FORGET_WAVEFORM, {"record_id": record_id}))


async def mark_found(engine: AsyncEngine, record_id: UUID) -> bool:
    """Undoes `mark_lost`. Returns False if there is nothing to undo."""
    return bool(await execute(engine, MARK_FOUND, {"record_id": record_id}))


async def _find_published(
    reader: RowReader, statement: DriverStatement, record_id: UUID, user_id: UUID
) -> Any:
    row = await reader.fetch_row(statement, {"record_id": record_id, "owner_id": user_id})
    if not row:
        raise _unknown_record()
    return row


def _unknown_record() -> UnknownRecord:
    return UnknownRecord("No record has this id and user. Use the link or the id exactly as it was given.")
