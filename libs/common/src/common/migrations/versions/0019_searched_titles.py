"""Lets a search take the Russian letter yo for ye, as people write it: `елка` and `ёлка` find each other."""

from typing import Any

import sqlalchemy as sa
from alembic import op

from common.migrate import replace_index

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

# As in migration 0018, but for the translation.
FOLD = """
CREATE OR REPLACE FUNCTION fold_title(title text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN {folded}
"""
YO, YE = "\u0451", "\u0435"
FOLDED = "casefold(title COLLATE pg_unicode_fast)"
INDEX: dict[str, Any] = {
    "table": "records",
    "columns": [sa.text("title_trigrams(user_id, title)")],
    "postgresql_using": "gin",
    "postgresql_where": sa.text("title IS NOT NULL"),
}


def upgrade() -> None:
    """Changes a function, and makes its index again. The version before finds what this one finds."""
    op.execute(FOLD.format(folded=f"translate({FOLDED}, '{YO}', '{YE}')"))
    replace_index("records_by_folded_title", "records_by_searched_title", **INDEX)


def downgrade() -> None:
    """Tells yo and ye apart again."""
    op.execute(FOLD.format(folded=FOLDED))
    replace_index("records_by_searched_title", "records_by_folded_title", **INDEX)
