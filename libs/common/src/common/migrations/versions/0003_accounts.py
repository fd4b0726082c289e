"""Allows the users service to delete a user's records and to count them."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Grants rights that the previous version does not use."""
    op.execute("GRANT SELECT (user_id, state, size_bytes), UPDATE (state) ON records TO waxwing_users")


def downgrade() -> None:
    """Revokes these rights."""
    op.execute("REVOKE SELECT (user_id, state, size_bytes), UPDATE (state) ON records FROM waxwing_users")
