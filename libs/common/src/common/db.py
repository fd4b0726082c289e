"""PostgreSQL: the engine of a service, and the functions that run statements on it.

`records.row_reader` reads single rows faster.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import asyncpg
from sqlalchemy import ExceptionContext, Executable, Row, event, text
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_dbapi
from sqlalchemy.exc import DBAPIError, DisconnectionError, InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from common.metrics import WRITES_WAIT_FOR_STANDBY
from common.poolers import READY_TIMEOUT_SECONDS, refuse_wrong_pooler
from common.problems import Unavailable
from common.servers import CONNECT_TIMEOUT_SECONDS, Servers

STATEMENT_TIMEOUT_SECONDS = 10
# If a read gets no response for so long, its connection counts as hung, and a fresh one repeats the read.
SILENCE_SECONDS = 3
READ_ONLY_SQLSTATE = "25006"
# Reads go on while PostgreSQL waits for a standby, so only this statement shows that no commit ends. Every
# role sees how many standbys follow, and what its own sessions wait for. A commit usually waits for
# milliseconds.
WRITES_WAIT = text(
    "SELECT current_setting('synchronous_commit') NOT IN ('off', 'local')"
    " AND current_setting('synchronous_standby_names') <> ''"
    " AND (NOT EXISTS (SELECT FROM pg_stat_replication) OR EXISTS (SELECT FROM pg_stat_activity"
    " WHERE wait_event = 'SyncRep' AND state_change < now() - interval '3 s'))"
)
# SQLSTATE classes that report a state of the server and no fault of the statement.
OUTAGE_SQLSTATE_CLASSES = {
    "08",  # connection lost
    "25",  # read-only
    "28",  # login refused
    "40",  # rolled back because of another transaction (deadlock)
    "53",  # out of resources (connections, disk)
    "57",  # starting up or shutting down
    "58",  # system error
}


def make_engine(
    database_url: str,
    password: str = "",
    statement_timeout_seconds: int = STATEMENT_TIMEOUT_SECONDS,
    pool_size: int = 10,
) -> AsyncEngine:
    """Returns an engine that runs every statement in a transaction of its own.

    AUTOCOMMIT without a reset on return needs one round trip for a statement instead of three. For several
    statements in one transaction use `transaction`. Never hold a transaction while a body is read or an
    object is stored.
    asyncpg applies the statement timeout to a whole connection, so slower statements need an engine of their
    own.
    """
    servers = Servers(database_url, password)
    engine = _make_engine(
        partial(servers.connect, command_timeout=statement_timeout_seconds),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=CONNECT_TIMEOUT_SECONDS,
        # `read` finds them here.
        execution_options={"servers": servers},
    )
    event.listen(engine.sync_engine, "checkout", _reject_closed_connection)
    event.listen(engine.sync_engine, "invalidate", _terminate)
    event.listen(engine.sync_engine, "handle_error", _leave_read_only_server)
    return engine


def _make_engine(connect: Callable[[], Awaitable[asyncpg.Connection]], **options: Any) -> AsyncEngine:
    return create_async_engine(
        "postgresql+asyncpg://",
        async_creator=connect,
        isolation_level="AUTOCOMMIT",
        pool_reset_on_return=None,
        # Keeps digests of tokens out of error messages, and so out of the log.
        hide_parameters=True,
        **options,
    )


def _without_pool(engine: AsyncEngine) -> AsyncEngine:
    """Returns an engine that opens a connection for each statement."""
    servers: Servers = engine.get_execution_options()["servers"]
    return _make_engine(
        partial(servers.connect, command_timeout=STATEMENT_TIMEOUT_SECONDS), poolclass=NullPool
    )


def _reject_closed_connection(connection: Any, *_: object) -> None:
    """Makes the pool replace a connection that a restart of PostgreSQL has closed, without a round trip."""
    if connection.driver_connection.is_closed():
        raise DisconnectionError


def _terminate(connection: Any, _: object, error: BaseException | None) -> None:
    """Drops a connection whose statement failed. SQLAlchemy would wait 2 s for PostgreSQL to agree.

    A cancellation is an exception: PostgreSQL must hear of the cancelled statement, because otherwise it
    would execute the statement later.
    """
    if error and not isinstance(error, asyncio.CancelledError):
        connection.driver_connection.terminate()


def _leave_read_only_server(context: ExceptionContext) -> None:
    """Drops all connections of the pool if a server has become read-only: another one is the primary now."""
    if getattr(context.original_exception, "sqlstate", None) == READ_ONLY_SQLSTATE:
        context.is_disconnect = True


async def execute(
    engine: AsyncEngine, statement: Executable, parameters: Mapping[str, Any] | None = None
) -> Sequence[Row[Any]]:
    """Runs one statement in its own transaction and returns its rows.

    `parameters` are the values of its bindparams. Building a statement and its cache key takes as long as
    running it, so statements that every request runs are module constants with bindparams.
    Raises Unavailable if PostgreSQL is away or does not answer in time.
    """
    with outages_as_unavailable():
        async with engine.connect() as connection:
            result = await connection.execute(statement, parameters)
            return result.all() if result.returns_rows else []


async def read(
    engine: AsyncEngine,
    statement: Executable,
    parameters: Mapping[str, Any] | None = None,
    silence_seconds: float = SILENCE_SECONDS,
) -> Sequence[Row[Any]]:
    """Runs a statement that changes nothing, as `execute` does, within STATEMENT_TIMEOUT_SECONDS.

    If there is no response for `silence_seconds`, runs it once more on a fresh connection.
    """
    with outages_as_unavailable():
        async with engine.connect() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            # Not asyncio.timeout: after a cancellation SQLAlchemy would wait 2 s for PostgreSQL to agree.
            timer = asyncio.get_running_loop().call_later(silence_seconds, driver.terminate)  # type: ignore[union-attr]
            try:
                return (await connection.execute(statement, parameters)).all()
            except DBAPIError:
                if timer.when() > asyncio.get_running_loop().time():
                    raise
            finally:
                timer.cancel()
        async with asyncio.timeout(STATEMENT_TIMEOUT_SECONDS - silence_seconds):
            return await execute(_without_pool(engine), statement, parameters)


@asynccontextmanager
async def transaction(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Yields a connection in a transaction, which is rolled back if the block raises.

    Each statement sees what was committed when the statement began. Raises Unavailable if PostgreSQL is away.
    """
    with outages_as_unavailable():
        async with engine.connect() as connection:
            await connection.execution_options(isolation_level="READ COMMITTED")
            async with connection.begin():
                yield connection


@contextmanager
def outages_as_unavailable() -> Iterator[None]:
    """Raises Unavailable instead of the errors of SQLAlchemy and asyncpg that mean an outage of PostgreSQL.

    Other errors pass unchanged.
    """
    try:
        yield
    except DBAPIError as error:
        sqlstate = getattr(error.orig, "sqlstate", None) or ""
        if (
            error.connection_invalidated
            or isinstance(error, InterfaceError | OperationalError)
            or sqlstate[:2] in OUTAGE_SQLSTATE_CLASSES
            # asyncpg gives no SQLSTATE for the state of a connection that was lost between two messages.
            or (isinstance(error, InternalError) and not sqlstate)
        ):
            raise Unavailable("PostgreSQL does not answer") from error
        raise
    except asyncpg.PostgresError as error:
        if (error.sqlstate or "")[:2] in OUTAGE_SQLSTATE_CLASSES:
            raise Unavailable("PostgreSQL does not answer") from error
        raise
    # asyncpg's connect raises OSErrors, TimeoutError among them. SQLAlchemy does not wrap asyncpg's other
    # errors in a DBAPIError when a RowReader opens a connection.
    except (
        *(OSError, PoolTimeout, asyncpg.InterfaceError, asyncpg.InternalClientError),
        AsyncAdapt_asyncpg_dbapi.Error,
    ) as error:
        raise Unavailable("PostgreSQL does not answer") from error


async def check_database(engine: AsyncEngine) -> None:
    """Raises Unavailable if PostgreSQL does not answer, or no write can end.

    Raises SettingsError if a wrong pooler is in front of PostgreSQL.
    """
    ((is_read_only,),) = await execute(engine, text("SHOW transaction_read_only"))
    if is_read_only == "on":
        raise Unavailable("PostgreSQL takes no writes")
    if await writes_wait(engine):
        raise Unavailable("PostgreSQL's writes wait for the synchronous standby")
    servers: Servers = engine.get_execution_options()["servers"]
    # When the service started, PostgreSQL may have been away.
    if not servers.has_right_pooler:
        servers.has_right_pooler = await refuse_wrong_pooler(servers, READY_TIMEOUT_SECONDS)


async def writes_wait(engine: AsyncEngine) -> bool:
    """Returns whether writes hang because a synchronous standby is away or hangs. Renews the metric of it."""
    ((does_wait,),) = await execute(engine, WRITES_WAIT)
    WRITES_WAIT_FOR_STANDBY.set(does_wait)
    return bool(does_wait)
