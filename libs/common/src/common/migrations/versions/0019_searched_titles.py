"""Lets a search take the Russian letter yo for ye, as people write it: `елка` and `ёлка` find each other."""

import sqlalchemy as sa
from alembic import op

from common.migrate import create_index, drop_index

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

YO, YE = "\u0451", "\u0435"
# As in migration 0018, but for the translation and the names: title_trigrams is the old index's.
FUNCTIONS = [
    f"""
    CREATE OR REPLACE FUNCTION fold_for_search(title text) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN translate(casefold(title COLLATE pg_unicode_fast), '{YO}', '{YE}')
    """,
    """
    CREATE OR REPLACE FUNCTION search_trigrams(user_id uuid, title text) RETURNS bigint[]
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN ARRAY(
        SELECT hashtextextended(substr(fold_for_search(title), start, 3), uuid_hash_extended(user_id, 0))
        FROM generate_series(1, char_length(fold_for_search(title)) - 2) AS start
    )
    """,
]


def upgrade() -> None:
    """Adds functions and an index. The version before goes on with its own, which the next version drops."""
    for function in FUNCTIONS:
        op.execute(function)
    create_index(
        "records_by_searched_title",
        "records",
        [sa.text("search_trigrams(user_id, title)")],
        postgresql_using="gin",
        postgresql_where=sa.text("title IS NOT NULL"),
    )


def downgrade() -> None:
    """Drops the index and the functions."""
    drop_index("records_by_searched_title", "records")
    op.execute("DROP FUNCTION IF EXISTS search_trigrams(uuid, text)")
    op.execute("DROP FUNCTION IF EXISTS fold_for_search(text)")
