"""Lets a search fold letters as Unicode does: `STRASSE` finds `straße`, and `οδος` finds `ΟΔΟΣ`."""

import sqlalchemy as sa
from alembic import op

from common.migrate import create_index, drop_index

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

# PostgreSQL 18 brings this collation in every database in UTF-8. Its folding can make a text longer.
FOLD = """
CREATE OR REPLACE FUNCTION fold_title(title text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN casefold(title COLLATE pg_unicode_fast)
"""
# As in migration 0017, with other letters.
TRIGRAMS = """
CREATE OR REPLACE FUNCTION title_trigrams(user_id uuid, title text) RETURNS bigint[]
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN ARRAY(
    SELECT hashtextextended(substr({fold}(title), start, 3), uuid_hash_extended(user_id, 0))
    FROM generate_series(1, char_length({fold}(title)) - 2) AS start
)
"""


def upgrade() -> None:
    """Changes a function, and makes its index again. The version before finds the same titles as before."""
    op.execute(FOLD)
    op.execute(TRIGRAMS.format(fold="fold_title"))
    make_index("records_by_folded_title", instead_of="records_by_title")


def downgrade() -> None:
    """Folds letters one by one again."""
    op.execute(TRIGRAMS.format(fold="lower"))
    op.execute("DROP FUNCTION IF EXISTS fold_title(text)")
    make_index("records_by_title", instead_of="records_by_folded_title")


def make_index(name: str, instead_of: str) -> None:
    create_index(
        name,
        "records",
        [sa.text("title_trigrams(user_id, title)")],
        postgresql_using="gin",
        postgresql_where=sa.text("title IS NOT NULL"),
    )
    drop_index(instead_of, "records")
