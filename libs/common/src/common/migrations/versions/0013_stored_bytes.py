"""Adds the index that sums up the bytes of all users, however many of them have stored nothing."""

import sqlalchemy as sa
from alembic import op

from common.migrate import create_index

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds an index, which the previous version does not use."""
    create_index("users_stored_bytes", "users", ["total_bytes"], postgresql_where=sa.text("total_bytes > 0"))


def downgrade() -> None:
    """Drops the index."""
    op.drop_index("users_stored_bytes", "users")
