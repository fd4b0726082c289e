"""Adds the table of the last backup and the last run of the doctor."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds a table that the previous version neither writes nor reads."""
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "runs",
        sa.Column("command", sa.String(), primary_key=True),
        sa.Column("began_at", moment, nullable=False),
        sa.Column("ended_at", moment, nullable=False),
        sa.Column("result", sa.String(), nullable=False),
        sa.Column("summary", sa.String(), nullable=False),
        sa.Column("succeeded_at", moment),
        if_not_exists=True,
    )
    op.execute("GRANT SELECT, INSERT, UPDATE ON runs TO waxwing_records")


def downgrade() -> None:
    """Drops the table."""
    op.drop_table("runs")
