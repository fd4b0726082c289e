"""Adds the time since when a user is blocked, and allows the users service to sum the lengths of records."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds a column that the previous version neither writes nor reads, and grants what it does not use."""
    op.add_column("users", sa.Column("blocked_at", sa.DateTime(timezone=True)))
    op.execute("GRANT SELECT (blocked_at) ON users TO waxwing_records")
    op.execute("GRANT SELECT (duration_seconds) ON records TO waxwing_users")


def downgrade() -> None:
    """Drops the column, so blocked users are no longer blocked."""
    op.execute("REVOKE SELECT (duration_seconds) ON records FROM waxwing_users")
    op.drop_column("users", "blocked_at")
