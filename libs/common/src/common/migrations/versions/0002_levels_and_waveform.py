"""Adds levels, waveform and `truncated` to records. Older records have null levels and no waveform."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds columns that the previous version neither writes nor reads. The grants on the table cover them."""
    op.add_column("records", sa.Column("peak_dbfs", sa.Double()))
    op.add_column("records", sa.Column("rms_dbfs", sa.Double()))
    op.add_column("records", sa.Column("waveform", sa.LargeBinary()))
    op.add_column("records", sa.Column("waveform_samples_per_pixel", sa.Integer()))
    op.add_column("records", sa.Column("truncated", sa.Boolean(), server_default=sa.false(), nullable=False))


def downgrade() -> None:
    """Drops the columns."""
    for name in ("truncated", "waveform_samples_per_pixel", "waveform", "rms_dbfs", "peak_dbfs"):
        op.drop_column("records", name)
