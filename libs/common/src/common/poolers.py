"""Recognises a pooler of connections, such as PgBouncer, between this process and PostgreSQL.

A pooler in transaction mode lends a session of PostgreSQL to one client for one transaction, and then to
another client. Prepared statements belong to a session, and asyncpg prepares every statement. So the pooler
must prepare a statement again wherever the client's next transaction runs.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from secrets import token_hex
from typing import NamedTuple

import asyncpg
import structlog

from common.servers import Servers
from common.settings import SettingsError

log = structlog.get_logger()

# A pooler that chooses a session by chance may choose the same one again.
ROUNDS = 3
START_TIMEOUT_SECONDS = 5
# /readyz has 3 s for everything.
READY_TIMEOUT_SECONDS = 1
SESSION = "pg_backend_pid() || ' since ' || pg_postmaster_start_time()"
WHERE_TO_READ = "(docs/operate.md, PgBouncer)"
# PostgreSQL, or the way to it, is in no state that tells anything.
UNCLEAR = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
# asyncpg or PostgreSQL refuses an option of the URL. Both name the option, and neither shows a password.
REFUSED_OPTION = (
    asyncpg.ClientConfigurationError,
    asyncpg.UndefinedObjectError,
    asyncpg.InvalidParameterValueError,
)


class Pooler(NamedTuple):
    """What a pooler does. On a direct connection, and in session mode, nothing of it is true."""

    shares_sessions: bool
    """Transactions of one connection run in sessions that other connections use too."""
    mixes_statements: bool
    """A prepared statement is missing in the client's next transaction, or another client has it."""
    refuses_transactions: bool


async def find_pooler(servers: Servers) -> Pooler:
    """Uses two connections in turn, and compares what they see of their sessions.

    On a direct connection each one always sees its own session, and nothing of the other one. Raises an error
    of UNCLEAR if PostgreSQL is away or takes no connection.
    """
    name = f"waxwing_{token_hex(8)}"
    mine, others = set[str](), set[str]()
    # Without a cache, asyncpg sends a statement and its execution together, which every pooler takes.
    async with _open(servers) as first, _open(servers, statement_cache_size=0) as second:
        statement = await first.prepare(f"SELECT {SESSION}", name=name)
        mixes = False
        for _ in range(ROUNDS):
            try:
                mine.add(await statement.fetchval())
            except asyncpg.InvalidSQLStatementNameError:
                mixes = True
                break
            others.add(await second.fetchval(f"SELECT {SESSION}"))
            mixes = mixes or await second.fetchval(
                f"SELECT EXISTS (SELECT FROM pg_prepared_statements WHERE name = '{name}')"  # noqa: S608
            )
        shares = mixes or len(mine) > 1 or len(others) > 1 or bool(mine & others)
        return Pooler(shares, mixes, shares and await _refuses_transactions(second))


async def _refuses_transactions(connection: asyncpg.Connection) -> bool:
    try:
        await connection.execute("BEGIN")
        await connection.execute("ROLLBACK")
    # PgBouncer says it when it closes the connection, which may just as well have other reasons.
    except asyncpg.PostgresError as error:
        if "transaction blocks" in str(error):
            return True
        raise
    return False


@asynccontextmanager
async def _open(servers: Servers, **options: int) -> AsyncIterator[asyncpg.Connection]:
    connection = await servers.connect(**options)
    try:
        yield connection
    finally:
        connection.terminate()


async def refuse_wrong_pooler(servers: Servers, timeout_seconds: float = START_TIMEOUT_SECONDS) -> bool:
    """Returns whether it is known that the services can work over these connections.

    Returns False if PostgreSQL is away, or takes no connection. Raises SettingsError if a pooler is in
    between over which requests would fail, or if an option of the URL is refused.
    """
    pooler = await _find_in_time(servers, timeout_seconds)
    if not pooler:
        log.warning("it is not known yet whether a pooler is in front of PostgreSQL")
        return False
    if pooler.refuses_transactions:
        raise SettingsError(
            "DATABASE_URL leads to a pooler that takes no transactions (PgBouncer: pool_mode = statement)."
            f" Set pool_mode = transaction there {WHERE_TO_READ}"
        )
    if pooler.mixes_statements:
        raise SettingsError(
            "DATABASE_URL leads to a pooler that shares sessions of PostgreSQL and does not prepare a"
            " client's statements in each of them. Set max_prepared_statements = 200 (PgBouncer 1.21 or"
            f" newer), or pool_mode = session {WHERE_TO_READ}"
        )
    return True


async def refuse_pooler(servers: Servers, whose: str) -> None:
    """Raises SettingsError if a pooler is in between that gives each transaction another session, or if an
    option of the URL is refused.

    `whose` needs something that belongs to a session, such as a lock or a cursor.
    """
    pooler = await _find_in_time(servers, START_TIMEOUT_SECONDS)
    if pooler and pooler.shares_sessions:
        raise SettingsError(
            f"DATABASE_URL leads to a pooler that lends out sessions for a transaction, and {whose} needs one"
            f" session to the end. Set DATABASE_URL to PostgreSQL itself {WHERE_TO_READ}"
        )


async def _find_in_time(servers: Servers, timeout_seconds: float) -> Pooler | None:
    try:
        async with asyncio.timeout(timeout_seconds):
            return await find_pooler(servers)
    except REFUSED_OPTION as error:
        raise SettingsError(f"DATABASE_URL has an option that is refused: {error.args[0]}") from None
    except UNCLEAR:
        return None
