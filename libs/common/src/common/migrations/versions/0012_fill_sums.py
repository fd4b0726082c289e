"""Fills the sums of all users, and adds the index that finds deleted users who still have records."""

import sqlalchemy as sa
from alembic import op

from common.migrate import create_index, run_in_batches

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

# The lock keeps the triggers from changing the sums meanwhile. The statement after the lock sees every change
# whose trigger has run; a trigger that waits for the lock adds its change afterwards.
FILL = """
DO $$
DECLARE
    locked record;
BEGIN
    FOR locked IN SELECT id FROM users WHERE {batch} ORDER BY id FOR NO KEY UPDATE LOOP
        UPDATE users SET (record_count, total_bytes, total_seconds) = (
            SELECT count(*), coalesce(sum(size_bytes), 0), coalesce(sum(duration_seconds::text::numeric), 0)
            FROM records WHERE user_id = locked.id AND state = 'ready'
        )
        WHERE id = locked.id;
    END LOOP;
END
$$
"""


def upgrade() -> None:
    """Fills columns and adds an index that the previous version does not use."""
    run_in_batches("users", FILL)
    create_index(
        "users_to_clear",
        "users",
        ["deleted_at"],
        postgresql_where=sa.text("deleted_at IS NOT NULL AND record_count > 0"),
    )


def downgrade() -> None:
    """Drops the index. The sums stay as long as their columns."""
    op.drop_index("users_to_clear", "users")
