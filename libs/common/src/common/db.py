"""PostgreSQL: the engine of a service, and the functions that run statements on it.

`records.row_reader` reads single rows faster.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import asyncpg
from sqlalchemy import URL, Executable, Row, event, make_url, select
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_dbapi
from sqlalchemy.exc import DBAPIError, DisconnectionError, InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from common.problems import Unavailable

CONNECT_TIMEOUT_SECONDS = 5
STATEMENT_TIMEOUT_SECONDS = 10
# If a read gets no response for so long, its connection counts as hung, and a fresh one repeats the read.
SILENCE_SECONDS = 3
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


def make_asyncpg_url(database_url: str, password: str = "") -> URL:
    """Returns the URL for asyncpg, with the password if one is given apart from the URL."""
    url = make_url(database_url).set(drivername="postgresql+asyncpg")
    return url.set(password=password) if password else url


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
    engine = create_async_engine(
        make_asyncpg_url(database_url, password),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=CONNECT_TIMEOUT_SECONDS,
        **_engine_options(statement_timeout_seconds),
    )
    event.listen(engine.sync_engine, "checkout", _reject_closed_connection)
    event.listen(engine.sync_engine, "invalidate", _terminate)
    return engine


def _engine_options(statement_timeout_seconds: int) -> dict[str, Any]:
    return {
        "isolation_level": "AUTOCOMMIT",
        "pool_reset_on_return": None,
        # Keeps digests of tokens out of error messages, and so out of the log.
        "hide_parameters": True,
        "connect_args": {"timeout": CONNECT_TIMEOUT_SECONDS, "command_timeout": statement_timeout_seconds},
    }


def _without_pool(engine: AsyncEngine) -> AsyncEngine:
    """Returns an engine that opens a connection for each statement."""
    return create_async_engine(engine.url, poolclass=NullPool, **_engine_options(STATEMENT_TIMEOUT_SECONDS))


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
    """Raises Unavailable if PostgreSQL does not answer."""
    await execute(engine, select(1))
