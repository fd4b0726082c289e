"""Adds the facts about kept originals, their bytes to the sums, and a tombstone for each one that is let go.

A record with an original has two objects. A tombstone is about one object, so the sweeper of any version
removes both.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

COLUMNS: dict[str, sa.types.TypeEngine[Any]] = {
    "keep_original": sa.Boolean(),
    "original_size_bytes": sa.BigInteger(),
    "original_sha256": sa.LargeBinary(),
}
CHECK = "num_nulls(original_size_bytes, original_sha256) <> 1"
# As in migration 0011, but for the bytes.
ROWS = "SELECT user_id, {sign} AS sign, {bytes} AS bytes, duration_seconds FROM {table} WHERE state = 'ready'"
FUNCTION = """
CREATE OR REPLACE FUNCTION sum_up_records_after_{event}() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
DECLARE
    change record;
BEGIN
    FOR change IN
        SELECT
            user_id,
            sum(sign) AS records,
            sum(sign * bytes) AS bytes,
            sum(sign * duration_seconds::text::numeric) AS seconds
        FROM ({changed_rows}) AS changed_rows
        GROUP BY user_id
        HAVING sum(sign) <> 0
            OR sum(sign * bytes) <> 0
            OR sum(sign * duration_seconds::text::numeric) <> 0
        ORDER BY user_id
    LOOP
        UPDATE users SET
            record_count = record_count + change.records,
            total_bytes = total_bytes + change.bytes,
            total_seconds = total_seconds + change.seconds
        WHERE id = change.user_id;
    END LOOP;
    RETURN NULL;
END
$$
"""
# Whether a record may have an original in the store: an upload that keeps it, or a record that has it.
MAY_HAVE_ORIGINAL = (
    "({row}.state = 'uploading' AND coalesce({row}.keep_original, false)"
    " OR {row}.state = 'ready' AND {row}.original_sha256 IS NOT NULL)"
)
LEAVE_TOMBSTONE = """
CREATE OR REPLACE FUNCTION records_leave_original() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
BEGIN
    INSERT INTO records (id, user_id, state, object_key, deleted_at)
    VALUES (gen_random_uuid(), OLD.user_id, 'deleting', left(OLD.object_key, -4) || '.wav', now());
    RETURN NULL;
END
$$
"""


def upgrade() -> None:
    """Adds columns that the previous version neither writes nor reads, and triggers that work for it too."""
    for name, kind in COLUMNS.items():
        op.add_column("records", sa.Column(name, kind), if_not_exists=True)
    op.execute("ALTER TABLE records DROP CONSTRAINT IF EXISTS records_original_is_complete")
    op.execute(f"ALTER TABLE records ADD CONSTRAINT records_original_is_complete CHECK ({CHECK}) NOT VALID")
    sum_up("size_bytes + coalesce(original_size_bytes, 0)")
    op.execute(LEAVE_TOMBSTONE)
    op.execute(
        "CREATE OR REPLACE TRIGGER records_leave_original AFTER UPDATE ON records FOR EACH ROW"
        f" WHEN ({MAY_HAVE_ORIGINAL.format(row='OLD')} AND NOT {MAY_HAVE_ORIGINAL.format(row='NEW')})"
        " EXECUTE FUNCTION records_leave_original()"
    )
    # PostgreSQL reads the whole table for this, so without the lock that the statements above take.
    with op.get_context().autocommit_block():
        op.execute("ALTER TABLE records VALIDATE CONSTRAINT records_original_is_complete")


def downgrade() -> None:
    """Leaves a tombstone for each original, so that the sweeper removes it, and drops all."""
    op.execute(
        "UPDATE records SET keep_original = NULL, original_size_bytes = NULL, original_sha256 = NULL"
        " WHERE keep_original OR original_sha256 IS NOT NULL"
    )
    op.execute("DROP TRIGGER records_leave_original ON records")
    op.execute("DROP FUNCTION records_leave_original()")
    sum_up("size_bytes")
    op.drop_constraint("records_original_is_complete", "records")
    for name in COLUMNS:
        op.drop_column("records", name)


def sum_up(size: str) -> None:
    """Replaces the functions that keep the sums of a user. `size` are the bytes of a row."""
    new = ROWS.format(sign=1, bytes=size, table="new_rows")
    old = ROWS.format(sign=-1, bytes=size, table="old_rows")
    for event, changed_rows in {"insert": new, "update": f"{new} UNION ALL {old}", "delete": old}.items():
        # No bind parameters: SQLAlchemy must not read the colons.
        op.get_bind().exec_driver_sql(FUNCTION.format(event=event, changed_rows=changed_rows))
