"""Adds a column for the requested bitrate, which was the only member of idempotency_options.

This is the first half of the change: it adds the column and copies the values. The services of the version
before go on with idempotency_options, so this version writes both columns. The next version drops
idempotency_options.
"""

import sqlalchemy as sa
from alembic import op

from common.migrate import run_in_batches

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the column and copies the bitrates."""
    op.add_column("records", sa.Column("requested_bitrate_kbps", sa.Integer()), if_not_exists=True)
    run_in_batches(
        "records",
        "UPDATE records SET requested_bitrate_kbps = CAST(idempotency_options ->> 'bitrate_kbps' AS integer)"
        " WHERE idempotency_options IS NOT NULL AND {batch}",
    )


def downgrade() -> None:
    """Drops the column; idempotency_options still has the bitrates that the version before needs."""
    op.drop_column("records", "requested_bitrate_kbps")
