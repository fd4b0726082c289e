"""Adds the facts about waveforms in the store, and a tombstone for each one that is let go.

A waveform is an object of its own, as an original is (migration 0014). Records made before keep theirs in the
column `waveform`.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

COLUMNS: dict[str, sa.types.TypeEngine[Any]] = {
    "waveform_size_bytes": sa.Integer(),
    "waveform_sha256": sa.LargeBinary(),
}
CHECK = "num_nulls(waveform_size_bytes, waveform_sha256) <> 1"
# A waveform is one PUT, so the sweeper need not look for multipart uploads: it reads that from the size.
LEAVE_TOMBSTONE = """
CREATE OR REPLACE FUNCTION records_leave_waveform() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
BEGIN
    INSERT INTO records (id, user_id, state, object_key, size_bytes, deleted_at)
    VALUES (gen_random_uuid(), OLD.user_id, 'deleting', left(OLD.object_key, -4) || '.waveform', 0, now());
    RETURN NULL;
END
$$
"""
# Any upload may have stored its waveform when it is given up. The version before publishes without one, so an
# upload that becomes `ready` lets nothing go.
LETS_WAVEFORM_GO = (
    "OLD.state = 'uploading' AND NEW.state = 'deleting'"
    " OR OLD.state = 'ready' AND OLD.waveform_sha256 IS NOT NULL"
    " AND (NEW.state <> 'ready' OR NEW.waveform_sha256 IS NULL)"
)


def upgrade() -> None:
    """Adds columns that the previous version does not use, and a trigger that works for it too."""
    for name, kind in COLUMNS.items():
        op.add_column("records", sa.Column(name, kind), if_not_exists=True)
    op.execute("ALTER TABLE records DROP CONSTRAINT IF EXISTS records_waveform_is_complete")
    op.execute(f"ALTER TABLE records ADD CONSTRAINT records_waveform_is_complete CHECK ({CHECK}) NOT VALID")
    op.execute(LEAVE_TOMBSTONE)
    op.execute(
        "CREATE OR REPLACE TRIGGER records_leave_waveform AFTER UPDATE ON records FOR EACH ROW"
        f" WHEN ({LETS_WAVEFORM_GO}) EXECUTE FUNCTION records_leave_waveform()"
    )
    # PostgreSQL reads the whole table for this, so without the lock that the statements above take.
    with op.get_context().autocommit_block():
        op.execute("ALTER TABLE records VALIDATE CONSTRAINT records_waveform_is_complete")


def downgrade() -> None:
    """Leaves a tombstone for each waveform in the store, so that the sweeper removes it, and drops all."""
    op.execute(
        "UPDATE records SET waveform_size_bytes = NULL, waveform_sha256 = NULL"
        " WHERE waveform_sha256 IS NOT NULL"
    )
    op.execute("DROP TRIGGER records_leave_waveform ON records")
    op.execute("DROP FUNCTION records_leave_waveform()")
    op.drop_constraint("records_waveform_is_complete", "records")
    for name in COLUMNS:
        op.drop_column("records", name)
