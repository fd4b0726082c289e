"""Adds what the records of a user sum up to, and triggers that keep the sums.

The sums change in the transaction that changes the records, so they are exact. Migration 0012 fills them.
The services of the version before sum up the records themselves.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

SUMS: dict[str, sa.types.TypeEngine[Any]] = {
    "record_count": sa.BigInteger(),
    "total_bytes": sa.BigInteger(),
    "total_seconds": sa.Numeric(),
}
# The rows that a statement has changed, by event.
TRANSITION_TABLES = {
    "insert": "NEW TABLE AS new_rows",
    "update": "OLD TABLE AS old_rows NEW TABLE AS new_rows",
    "delete": "OLD TABLE AS old_rows",
}
ROWS = "SELECT user_id, {sign} AS sign, size_bytes, duration_seconds FROM {table} WHERE state = 'ready'"
CHANGED_ROWS = {
    "insert": ROWS.format(sign=1, table="new_rows"),
    "update": f"{ROWS.format(sign=1, table='new_rows')} UNION ALL {ROWS.format(sign=-1, table='old_rows')}",
    "delete": ROWS.format(sign=-1, table="old_rows"),
}
# Users are locked in the order of their ids, so two statements that change records of several users do not
# deadlock. Seconds are added as decimals, because sums of floats depend on the order. A float's text has all
# its digits, while PostgreSQL's cast to a decimal keeps 15.
FUNCTION = """
CREATE FUNCTION sum_up_records_after_{event}() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
DECLARE
    change record;
BEGIN
    FOR change IN
        SELECT
            user_id,
            sum(sign) AS records,
            sum(sign * size_bytes) AS bytes,
            sum(sign * duration_seconds::text::numeric) AS seconds
        FROM ({changed_rows}) AS changed_rows
        GROUP BY user_id
        HAVING sum(sign) <> 0
            OR sum(sign * size_bytes) <> 0
            OR sum(sign * duration_seconds::text::numeric) <> 0
        ORDER BY user_id
    LOOP
        UPDATE users SET
            record_count = record_count + change.records,
            total_bytes = total_bytes + change.bytes,
            total_seconds = total_seconds + change.seconds
        WHERE id = change.user_id;
    END LOOP;
    RETURN NULL;
END
$$
"""


def upgrade() -> None:
    """Adds columns that the previous version neither writes nor reads, the triggers, and grants."""
    # An upload locks records and then, for its foreign key, users. In the other order, this migration and an
    # upload would wait for each other.
    op.execute("LOCK TABLE records IN SHARE ROW EXCLUSIVE MODE")
    for name, kind in SUMS.items():
        op.add_column("users", sa.Column(name, kind, server_default="0", nullable=False))
    for event, changed_rows in CHANGED_ROWS.items():
        # No bind parameters: SQLAlchemy must not read the colons.
        op.get_bind().exec_driver_sql(FUNCTION.format(event=event, changed_rows=changed_rows))
        op.execute(
            f"CREATE TRIGGER sum_up_records_after_{event} AFTER {event.upper()} ON records"
            f" REFERENCING {TRANSITION_TABLES[event]}"
            f" FOR EACH STATEMENT EXECUTE FUNCTION sum_up_records_after_{event}()"
        )
    op.execute(f"GRANT SELECT ({', '.join(SUMS)}) ON users TO waxwing_records")


def downgrade() -> None:
    """Drops all; the version before does not use them."""
    for event in CHANGED_ROWS:
        op.execute(f"DROP TRIGGER sum_up_records_after_{event} ON records")
        op.execute(f"DROP FUNCTION sum_up_records_after_{event}")
    for name in SUMS:
        op.drop_column("users", name)
