"""A user may be deleted with all records, and is told how many there are: users gets rights for that."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Grants what the version before does without."""
    op.execute("GRANT SELECT (user_id, state, size_bytes), UPDATE (state) ON records TO waxwing_users")


def downgrade() -> None:
    """Takes it back."""
    op.execute("REVOKE SELECT (user_id, state, size_bytes), UPDATE (state) ON records FROM waxwing_users")
