"""The schema: the tables users and records. Migrations create it; `alembic check` compares them with it."""

from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, DateTime, Double, ForeignKey, Index, false, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    type_annotation_map = {datetime: DateTime(timezone=True)}  # noqa: RUF012 (SQLAlchemy reads it from the class)


class User(Base):
    """A user. Only the SHA-256 digest of the token is stored."""

    __tablename__ = "users"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str]
    # Null when the user is deleted, so that no token matches.
    token_digest: Mapped[bytes | None] = mapped_column(unique=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    deleted_at: Mapped[datetime | None]
    # Since when the operator has blocked the user: no writes, and no links.
    blocked_at: Mapped[datetime | None]
    # The user's own quotas; null: as in the settings, and common.quotas.UNLIMITED: none.
    quota_records: Mapped[int | None] = mapped_column(BigInteger)
    quota_bytes: Mapped[int | None] = mapped_column(BigInteger)
    quota_seconds: Mapped[int | None] = mapped_column(BigInteger)
    # The sums of the user's records that are `ready`, with the bytes of kept originals; triggers on records
    # keep them (migrations 0011 and 0014). After the deletion of the user they fall, until the sweeper has
    # turned the last record into a tombstone.
    record_count: Mapped[int] = mapped_column(BigInteger, server_default="0")
    total_bytes: Mapped[int] = mapped_column(BigInteger, server_default="0")
    total_seconds: Mapped[Decimal] = mapped_column(server_default="0")

    __table_args__ = (
        # For the sweeper: deleted users who still have records.
        Index(
            "users_to_clear",
            "deleted_at",
            postgresql_where=text("deleted_at IS NOT NULL AND record_count > 0"),
        ),
        # For MAX_TOTAL_BYTES. Anybody may sign up, so most users may have stored nothing.
        Index("users_stored_bytes", "total_bytes", postgresql_where=text("total_bytes > 0")),
    )


class Record(Base):
    """A record, or a tombstone. Its row exists before the first byte of its object is stored, and until the
    last is deleted.

    A record has further objects: its waveform, `<user id>/<record id>.waveform`, and the original if it keeps
    one, `….wav`. When the record, or the upload, lets one of these go, a trigger inserts a tombstone of its
    own for it (migrations 0014 and 0015).
    """

    __tablename__ = "records"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"))
    # uploading -> ready -> deleting, or uploading -> deleting. A row in the state deleting is a tombstone.
    state: Mapped[str] = mapped_column(server_default="uploading")
    # While uploading: after this time of the database's clock another upload may take the idempotency key,
    # and some time later the sweeper gives the upload up. While deleting: no sweeper looks at the tombstone
    # before this time; null if none has looked yet.
    lease_until: Mapped[datetime | None]
    # While deleting: when a sweeper first looked at the tombstone.
    gone_since: Mapped[datetime | None]
    object_key: Mapped[str] = mapped_column(unique=True)
    title: Mapped[str | None]
    # When the user last changed the title; null while it is the title of the upload.
    renamed_at: Mapped[datetime | None]
    size_bytes: Mapped[int | None] = mapped_column(BigInteger)
    sha256: Mapped[bytes | None]
    duration_seconds: Mapped[float | None] = mapped_column(Double)
    sample_rate: Mapped[int | None]
    channels: Mapped[int | None]
    bitrate_kbps: Mapped[int | None]
    # Levels of the encoded audio, or the peak of a WAV that was clipped; null for digital silence and for
    # records made before levels were measured.
    peak_dbfs: Mapped[float | None] = mapped_column(Double)
    rms_dbfs: Mapped[float | None] = mapped_column(Double)
    # The waveform in the store (records.audio.levels): the number of samples of a pixel, and the object.
    waveform_samples_per_pixel: Mapped[int | None]
    waveform_size_bytes: Mapped[int | None]
    waveform_sha256: Mapped[bytes | None]
    # The waveform itself, of a record made before waveforms went to the store.
    waveform: Mapped[bytes | None]
    # Whether the WAV ended before the audio that its header announced.
    truncated: Mapped[bool] = mapped_column(server_default=false())
    # Whether the WAV had floats over full scale, which are cut off in the MP3.
    clipped: Mapped[bool] = mapped_column(server_default=false())
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    # Since when the operator knows that the MP3 is lost or damaged (records.doctor).
    lost_at: Mapped[datetime | None]
    # When the row became a tombstone. A trigger writes the time. Tombstones older than this column have null.
    deleted_at: Mapped[datetime | None]
    published_at: Mapped[datetime | None]
    # Identifies an upload that a client repeats. The sweeper sets it to null a day after publishing.
    idempotency_key: Mapped[str | None]
    # The bitrate that the upload asked for, or the default; the MP3 may have a lower one. An upload that
    # repeats the idempotency key must ask for the same.
    requested_bitrate_kbps: Mapped[int | None]
    # Whether the upload asked to keep its original, or the default did; true before the original is stored.
    # Like the bitrate it is compared, so it stays when the original is deleted.
    keep_original: Mapped[bool | None]
    # The kept original; both null without one.
    original_size_bytes: Mapped[int | None] = mapped_column(BigInteger)
    original_sha256: Mapped[bytes | None]
    # The version before still writes this column, which nobody reads. The next version drops it.
    idempotency_options: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))

    __table_args__ = (
        CheckConstraint("state IN ('uploading', 'ready', 'deleting')", name="records_state_is_known"),
        CheckConstraint(
            "state <> 'uploading' OR lease_until IS NOT NULL", name="records_uploading_has_a_lease"
        ),
        CheckConstraint(
            "state <> 'ready' OR num_nulls(size_bytes, sha256, duration_seconds, sample_rate, channels,"
            " bitrate_kbps, published_at) = 0",
            name="records_ready_is_complete",
        ),
        CheckConstraint(
            "num_nulls(original_size_bytes, original_sha256) <> 1", name="records_original_is_complete"
        ),
        CheckConstraint(
            "num_nulls(waveform_size_bytes, waveform_sha256) <> 1", name="records_waveform_is_complete"
        ),
        Index("records_of_a_user", "user_id", text("created_at DESC"), text("id DESC")),
        # For the version before this one, and for the sweeper, which deletes the records of deleted users.
        Index(
            "records_use",
            "user_id",
            postgresql_include=["size_bytes", "duration_seconds"],
            postgresql_where=text("state = 'ready'"),
        ),
        # For the sweeper, which deletes old records.
        Index("records_by_age", "published_at", postgresql_where=text("state = 'ready'")),
        # For a search in the titles of a user. Migration 0019 has the function.
        Index(
            "records_by_searched_title",
            text("search_trigrams(user_id, title)"),
            postgresql_using="gin",
            postgresql_where=text("title IS NOT NULL"),
        ),
        # For the same in the version before. The next version drops it, with its functions of migration 0018.
        Index(
            "records_by_folded_title",
            text("title_trigrams(user_id, title)"),
            postgresql_using="gin",
            postgresql_where=text("title IS NOT NULL"),
        ),
        # For the sweeper: only rows that are not ready, which are few.
        Index("records_unfinished", "state", "lease_until", postgresql_where=text("state <> 'ready'")),
        # A tombstone no longer holds its key, so a new upload may use the key.
        Index(
            "records_idempotency_key",
            "user_id",
            "idempotency_key",
            unique=True,
            postgresql_where=text("idempotency_key IS NOT NULL AND state <> 'deleting'"),
        ),
        # For the sweeper, which sets old keys to null.
        Index(
            "records_with_idempotency_key",
            "published_at",
            postgresql_where=text("idempotency_key IS NOT NULL"),
        ),
    )


class Run(Base):
    """The last run of an operator's command, on whichever machine it ran."""

    __tablename__ = "runs"

    # `backup` or `doctor`.
    command: Mapped[str] = mapped_column(primary_key=True)
    began_at: Mapped[datetime]
    ended_at: Mapped[datetime]
    # As its exit status: complete, incomplete, failed (backup); clean, found, failed (doctor).
    result: Mapped[str]
    # One line for the operator.
    summary: Mapped[str]
    # When the last run that has not failed ended.
    succeeded_at: Mapped[datetime | None]
