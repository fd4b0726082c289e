"""Adds `clipped` to records. Nothing is known of older records, so they count as not clipped."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the column, which has a default for the services of the version before."""
    op.add_column("records", sa.Column("clipped", sa.Boolean(), server_default=sa.false(), nullable=False))


def downgrade() -> None:
    """Drops the column."""
    op.drop_column("records", "clipped")
