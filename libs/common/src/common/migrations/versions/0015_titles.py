"""Adds when a record was renamed, and the index that finds a user's records by a part of their titles."""

import sqlalchemy as sa
from alembic import op

from common.migrate import create_index

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

# All three characters that follow each other, hashed together with the user: so the index finds only the
# user's records. pg_trgm would know no user, and no Cyrillic where LC_CTYPE is C.
FUNCTION = """
CREATE OR REPLACE FUNCTION title_trigrams(user_id uuid, title text) RETURNS bigint[]
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN ARRAY(
    SELECT hashtextextended(substr(lower(title), start, 3), uuid_hash_extended(user_id, 0))
    FROM generate_series(1, char_length(lower(title)) - 2) AS start
)
"""


def upgrade() -> None:
    """Adds a column that the previous version neither writes nor reads, and an index that it does not use."""
    op.add_column("records", sa.Column("renamed_at", sa.DateTime(timezone=True)), if_not_exists=True)
    op.execute(FUNCTION)
    create_index(
        "records_by_title",
        "records",
        [sa.text("title_trigrams(user_id, title)")],
        postgresql_using="gin",
        postgresql_where=sa.text("title IS NOT NULL"),
    )


def downgrade() -> None:
    """Drops the index, the function and the column."""
    op.drop_index("records_by_title", "records")
    op.execute("DROP FUNCTION title_trigrams(uuid, text)")
    op.drop_column("records", "renamed_at")
