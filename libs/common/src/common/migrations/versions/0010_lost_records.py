"""Adds when a record was found lost, and when a record became a tombstone."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds two columns that the previous version neither writes nor reads.

    A trigger notes when a record became a tombstone, because the services of the previous version make
    tombstones too.
    """
    op.add_column("records", sa.Column("lost_at", sa.DateTime(timezone=True)))
    op.add_column("records", sa.Column("deleted_at", sa.DateTime(timezone=True)))
    op.execute(
        "CREATE FUNCTION records_note_deletion() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN NEW.deleted_at := now(); RETURN NEW; END $$"
    )
    op.execute(
        "CREATE TRIGGER records_note_deletion BEFORE UPDATE OF state ON records FOR EACH ROW"
        " WHEN (NEW.state = 'deleting' AND OLD.state <> 'deleting') EXECUTE FUNCTION records_note_deletion()"
    )


def downgrade() -> None:
    """Drops the trigger and the columns."""
    op.execute("DROP TRIGGER records_note_deletion ON records")
    op.execute("DROP FUNCTION records_note_deletion()")
    op.drop_column("records", "deleted_at")
    op.drop_column("records", "lost_at")
