"""Adds the index that finds the records which RETENTION_DAYS deletes."""

import sqlalchemy as sa
from alembic import op

from common.migrate import create_index

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds an index, which the previous version does not use."""
    create_index("records_by_age", "records", ["published_at"], postgresql_where=sa.text("state = 'ready'"))


def downgrade() -> None:
    """Drops the index."""
    op.drop_index("records_by_age", "records")
