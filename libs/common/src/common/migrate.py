"""Creates and upgrades the schema with Alembic, and creates the login roles of the services."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import structlog
from alembic import command, op
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, TextClause, text
from sqlalchemy.ext.asyncio import AsyncEngine

log = structlog.get_logger()

# An arbitrary number. All instances of the set-up step must use the same number.
ADVISORY_LOCK = 0x5741_5857
TRY_LOCK = text("SELECT pg_try_advisory_lock(:lock)")
LOCK_POLL_SECONDS = 0.5
# For one statement of a migration. An index over 10⁷ rows takes minutes.
MIGRATION_TIMEOUT_SECONDS = 6 * 60 * 60
LIMIT_LOCKS = "SET lock_timeout = '10s'"
BATCH = 1000
PROGRESS_SECONDS = 10
IS_VALID = text("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)")
PROGRESS = text(
    "SELECT index_relid::regclass::text AS index, phase, blocks_done, blocks_total, tuples_done, tuples_total"
    " FROM pg_stat_progress_create_index WHERE datname = current_database()"
)
LOGIN_ROLES = {"waxwing_users_login": "waxwing_users", "waxwing_records_login": "waxwing_records"}


def make_alembic_config(connection: Connection) -> Config:
    """Returns Alembic's configuration for a connection that is already open."""
    config = _find_migrations()
    config.attributes["connection"] = connection
    return config


def known_revisions() -> set[str]:
    """Returns the revisions of the schema that this version can upgrade, or has itself."""
    return {script.revision for script in ScriptDirectory.from_config(_find_migrations()).walk_revisions()}


def _find_migrations() -> Config:
    config = Config()
    # Alembic would take a single % as the beginning of a variable.
    folder = str(Path(__file__).parent / "migrations").replace("%", "%%")
    config.set_main_option("script_location", folder)
    return config


async def migrate(engine: AsyncEngine, revision: str = "head") -> None:
    """Upgrades the schema to a revision, each migration in transactions of its own. Waits while another
    instance upgrades it. Logs what it does and how far it is. Leaves the schema of a newer version as it is.

    A migration that was cut goes on the next time. A statement that waits 10 s for a lock fails, because
    everybody else's statements wait behind it. `engine` needs a statement timeout of
    MIGRATION_TIMEOUT_SECONDS for a large database, and a direct connection: no pooler of transactions.
    """
    async with _the_only_set_up(engine), engine.connect() as connection:
        await connection.execution_options(isolation_level="READ COMMITTED")
        await connection.exec_driver_sql(LIMIT_LOCKS)
        await connection.commit()
        reporter = asyncio.create_task(_report_progress(engine))
        try:
            await connection.run_sync(_upgrade, revision)
        finally:
            reporter.cancel()
            await asyncio.gather(reporter, return_exceptions=True)
            # The limit of locks must not stay in a pool.
            await connection.invalidate()


def _upgrade(connection: Connection, revision: str) -> None:
    current = MigrationContext.configure(connection).get_current_revision()
    # A migration begins its own transactions.
    connection.rollback()
    if current and current not in known_revisions():
        log.warning(
            "the schema is of a newer version and stays as it is: only the version right before that one"
            " works with it",
            revision=current,
        )
    else:
        command.upgrade(make_alembic_config(connection), revision)


@asynccontextmanager
async def _the_only_set_up(engine: AsyncEngine) -> AsyncIterator[None]:
    """Waits until no other instance of the set-up is in such a block.

    CREATE INDEX CONCURRENTLY waits for every older statement and transaction. So the lock belongs to a
    database session without a transaction, and whoever waits for it has no statement open.
    """
    async with engine.connect() as connection:
        while not await connection.scalar(TRY_LOCK, {"lock": ADVISORY_LOCK}):
            log.info("another set-up is at work")
            await asyncio.sleep(LOCK_POLL_SECONDS)
        try:
            yield
        finally:
            # Ends the database session, and so the lock, even if the connection is broken.
            await connection.invalidate()


def create_index(name: str, table: str, columns: Sequence[str | TextClause], **options: Any) -> None:
    """For migrations: makes an index while others read and write the table.

    Makes it again if a set-up that was cut has left it invalid. Statements of the migration that stand in
    front must be repeatable: they are committed before.
    """
    with _waiting_for_transactions() as connection:
        if not connection.scalar(IS_VALID, {"name": name}):
            op.drop_index(name, table, if_exists=True, postgresql_concurrently=True)
            log.info("index is being made", index=name)
            op.create_index(name, table, columns, postgresql_concurrently=True, **options)


def drop_index(name: str, table: str) -> None:
    """For migrations: drops an index, if it is there, while others read and write the table."""
    with _waiting_for_transactions():
        op.drop_index(name, table, if_exists=True, postgresql_concurrently=True)


@contextmanager
def _waiting_for_transactions() -> Iterator[Connection]:
    """For CREATE and DROP INDEX CONCURRENTLY: they run in no transaction and wait for older ones, but nobody
    waits behind them.
    """
    with op.get_context().autocommit_block():
        connection = op.get_bind()
        connection.exec_driver_sql("SET lock_timeout = 0")
        yield connection
        connection.exec_driver_sql(LIMIT_LOCKS)


def run_in_batches(table: str, statement: str) -> None:
    """For migrations: runs a statement for BATCH rows of a table at a time, each time in its own transaction.

    `statement` has the condition `{batch}`. It must be repeatable: a set-up that was cut begins again.
    """
    with op.get_context().autocommit_block():
        connection = op.get_bind()
        total = connection.scalar(text(f"SELECT count(*) FROM {table}"))  # noqa: S608
        last, done = UUID(int=0), 0
        while True:
            end = connection.scalar(
                text(
                    f"SELECT id FROM (SELECT id FROM {table} WHERE id > :last"  # noqa: S608
                    f" ORDER BY id LIMIT {BATCH}) AS batch ORDER BY id DESC LIMIT 1"
                ),
                {"last": last},
            )
            if end is None:
                return
            connection.exec_driver_sql(
                statement.format(batch=f"{table}.id > '{last}' AND {table}.id <= '{end}'")
            )
            last, done = end, done + BATCH
            log.info("rows are being filled", table=table, done=min(done, total), of=total)


async def _report_progress(engine: AsyncEngine) -> None:
    """Logs from time to time how far an index is."""
    while True:
        await asyncio.sleep(PROGRESS_SECONDS)
        async with engine.connect() as connection:
            for row in await connection.execute(PROGRESS):
                log.info("index is being made", **row._mapping)


async def make_login_roles(engine: AsyncEngine, passwords: dict[str, str]) -> None:
    """Creates the login roles, or sets their passwords if they exist.

    This is no migration, because a dump of the database does not hold roles.
    `passwords`: a password for each name in LOGIN_ROLES.
    """
    own = engine.execution_options(isolation_level="READ COMMITTED")
    async with _the_only_set_up(engine), own.begin() as connection:
        for role, group in LOGIN_ROLES.items():
            exists = await connection.scalar(
                text("SELECT 1 FROM pg_roles WHERE rolname = :role"), {"role": role}
            )
            # CREATE ROLE and ALTER ROLE take no parameters, so PostgreSQL's format() quotes the values.
            statement = await connection.scalar(
                text("SELECT format(:template, CAST(:role AS text), CAST(:password AS text))"),
                {
                    "template": f"{'ALTER' if exists else 'CREATE'} ROLE %I LOGIN PASSWORD %L",
                    "role": role,
                    "password": passwords[role],
                },
            )
            await connection.exec_driver_sql(str(statement))
            await connection.execute(text(f"GRANT {group} TO {role}"))
