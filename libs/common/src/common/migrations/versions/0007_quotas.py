"""Adds a user's own quotas, and the index that sums the use of a user, or of all users."""

import sqlalchemy as sa
from alembic import op

from common.migrate import create_index

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

QUOTAS = ("quota_records", "quota_bytes", "quota_seconds")


def upgrade() -> None:
    """Adds columns that the previous version neither writes nor reads, an index, and a grant."""
    for name in QUOTAS:
        op.add_column("users", sa.Column(name, sa.BigInteger()), if_not_exists=True)
    op.execute(f"GRANT SELECT ({', '.join(QUOTAS)}) ON users TO waxwing_records")
    create_index(
        "records_use",
        "records",
        ["user_id"],
        postgresql_include=["size_bytes", "duration_seconds"],
        postgresql_where=sa.text("state = 'ready'"),
    )


def downgrade() -> None:
    """Drops the index and the columns. The version before knows no quotas."""
    op.drop_index("records_use", "records")
    for name in QUOTAS:
        op.drop_column("users", name)
