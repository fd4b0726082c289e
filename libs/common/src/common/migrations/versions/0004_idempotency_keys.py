"""Adds the idempotency key of an upload, and the options that the upload asked for."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds columns that the previous version neither writes nor reads. The grants on the table cover them."""
    op.add_column("records", sa.Column("idempotency_key", sa.String()))
    op.add_column("records", sa.Column("idempotency_options", JSONB(none_as_null=True)))
    op.create_index(
        "records_idempotency_key",
        "records",
        ["user_id", "idempotency_key"],
        unique=True,
        postgresql_where=sa.text("idempotency_key IS NOT NULL AND state <> 'deleting'"),
    )
    op.create_index(
        "records_with_idempotency_key",
        "records",
        ["published_at"],
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
    )


def downgrade() -> None:
    """Drops the columns, and with them the indexes."""
    op.drop_column("records", "idempotency_options")
    op.drop_column("records", "idempotency_key")
