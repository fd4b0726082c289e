"""The key by which an upload is recognised when it is sent again, and what it asked for."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds columns that the version before neither writes nor reads; the grants on the table cover them."""
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
    """Drops them, and the indexes with them."""
    op.drop_column("records", "idempotency_options")
    op.drop_column("records", "idempotency_key")
