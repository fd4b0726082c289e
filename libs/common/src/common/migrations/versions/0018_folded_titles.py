"""Lets a search fold letters as Unicode does: `STRASSE` finds `straße`, and `οδος` finds `ΟΔΟΣ`."""

from typing import Any

import sqlalchemy as sa
from alembic import op

from common.migrate import replace_index

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
INDEX: dict[str, Any] = {
    "table": "records",
    "columns": [sa.text("title_trigrams(user_id, title)")],
    "postgresql_using": "gin",
    "postgresql_where": sa.text("title IS NOT NULL"),
}


def upgrade() -> None:
    """Changes a function, and makes its index again. The version before finds the same titles as before."""
    op.execute(FOLD)
    op.execute(TRIGRAMS.format(fold="fold_title"))
    replace_index("records_by_title", "records_by_folded_title", **INDEX)


def downgrade() -> None:
    """Folds letters one by one again."""
    op.execute(TRIGRAMS.format(fold="lower"))
    op.execute("DROP FUNCTION fold_title(text)")
    replace_index("records_by_folded_title", "records_by_title", **INDEX)
