"""Alembic's entry point. common.migrate passes the connection."""

from alembic import context

from common.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    # So that a migration may end a transaction, and what is done stays done.
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
