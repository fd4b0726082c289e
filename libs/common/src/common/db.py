"""PostgreSQL: one engine a service, and the one function through which statements go."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, nullcontext
from typing import Any

import asyncpg
from sqlalchemy import URL, Executable, Row, Select, event, func, make_url, select
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_dbapi
from sqlalchemy.dialects.postgresql.asyncpg import dialect as asyncpg_dialect
from sqlalchemy.exc import DBAPIError, DisconnectionError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from common.problems import Unavailable

CONNECT_TIMEOUT_SECONDS = 5
STATEMENT_TIMEOUT_SECONDS = 10
# Of an engine, and of a Reader on it; PostgreSQL has 100 connections, for all instances.
POOL_SIZE = 10
# Classes of SQLSTATE that are about the server and not the statement: connection lost, read-only, login
# refused, rolled back for another transaction (deadlock), out of resources (connections, disk), starting up
# or shutting down, system error.
AWAY_CLASSES = {"08", "25", "28", "40", "53", "57", "58"}


def make_url_of(database_url: str, password: str = "") -> URL:
    """The URL for asyncpg, with the password that is kept apart from it."""
    url = make_url(database_url).set(drivername="postgresql+asyncpg")
    return url.set(password=password) if password else url


def make_engine(
    database_url: str,
    password: str = "",
    statement_timeout_seconds: int = STATEMENT_TIMEOUT_SECONDS,
    pool_size: int = POOL_SIZE,
) -> AsyncEngine:
    """An engine on which every statement is its own transaction.

    What needs several in one says so (`transaction`), and none may be held while a body is read or an object
    stored; AUTOCOMMIT without a reset on return is one round trip a statement instead of three. A limit for
    statements is one of asyncpg's connection, so what may take longer has an engine of its own.
    """
    engine = create_async_engine(
        make_url_of(database_url, password),
        isolation_level="AUTOCOMMIT",
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=CONNECT_TIMEOUT_SECONDS,
        pool_reset_on_return=None,
        # Digests of tokens must not get into a log.
        hide_parameters=True,
        connect_args={"timeout": CONNECT_TIMEOUT_SECONDS, "command_timeout": statement_timeout_seconds},
    )
    event.listen(engine.sync_engine, "checkout", _refuse_dead)
    return engine


def _refuse_dead(connection: Any, *_: object) -> None:
    """Lets the pool open a new connection where PostgreSQL has been restarted, without asking it."""
    if connection.driver_connection.is_closed():
        raise DisconnectionError


async def execute(
    engine: AsyncEngine, statement: Executable, parameters: Mapping[str, Any] | None = None
) -> Sequence[Row[Any]]:
    """Runs one statement in its own transaction and returns its rows.

    `parameters` are the values of its bindparams. To build a statement and its cache key takes as long as to
    run it, so one that every request needs is built once and has parameters.
    Raises Unavailable where PostgreSQL is away or does not answer in time.
    """
    with _unavailable():
        async with engine.connect() as connection:
            result = await connection.execute(statement, parameters)
            return result.all() if result.returns_rows else []


class DriverStatement:
    """A statement for a Reader, which is written as SQL once."""

    def __init__(self, statement: Select[*tuple[Any, ...]]) -> None:
        compiled = statement.compile(dialect=asyncpg_dialect())  # type: ignore[no-untyped-call]
        self.sql = str(compiled)
        self._names: list[str] = compiled.positiontup or []
        self._constants = compiled.params

    def arguments(self, parameters: Mapping[str, Any]) -> list[Any]:
        """The values in the order of their places: those of its bindparams, and its own constants."""
        return [parameters.get(name, self._constants[name]) for name in self._names]


class Reader:
    """Reads the rows that every download asks for, on connections that it takes from an engine and keeps.

    What `execute` does, without SQLAlchemy's layers and its pool, which take three quarters of its time.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._places = asyncio.Semaphore(POOL_SIZE)
        self._idle: list[asyncpg.Connection] = []

    async def fetch_row(
        self, statement: DriverStatement, parameters: Mapping[str, Any]
    ) -> asyncpg.Record | None:
        """Returns the first row of a statement, or None. Raises Unavailable as `execute` does."""
        with _unavailable():
            # A statement's limit is its connection's; another one would take a seventh of the time.
            limit = asyncio.timeout(STATEMENT_TIMEOUT_SECONDS) if self._places.locked() else nullcontext()
            async with limit, self._places:
                connection = await self._take()
                try:
                    row = await connection.fetchrow(statement.sql, *statement.arguments(parameters))
                except BaseException:
                    # One that PostgreSQL is ending does not say yet that it is closed.
                    connection.terminate()
                    raise
                self._idle.append(connection)
                return row

    async def _take(self) -> asyncpg.Connection:
        while self._idle:
            if not (connection := self._idle.pop()).is_closed():
                return connection
        pooled = await self._engine.raw_connection()
        fresh: asyncpg.Connection = pooled.driver_connection  # type: ignore[assignment]
        # From now on it is not the pool's any more, but ours.
        pooled.detach()
        return fresh

    async def aclose(self) -> None:
        """Closes the connections; nothing may be under way."""
        for connection in self._idle:
            await connection.close()


@asynccontextmanager
async def transaction(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A connection whose statements take effect together, and not at all where the block raises.

    Each sees what has been committed when it begins. Raises Unavailable where PostgreSQL is away.
    """
    with _unavailable():
        async with engine.connect() as connection:
            await connection.execution_options(isolation_level="READ COMMITTED")
            async with connection.begin():
                yield connection


@asynccontextmanager
async def advisory_lock(engine: AsyncEngine, number: int) -> AsyncIterator[bool]:
    """Tries to take a lock that all instances share, and says whether this one has it for the block.

    Raises Unavailable where PostgreSQL is away.
    """
    async with AsyncExitStack() as stack:
        with _unavailable():
            connection = await stack.enter_async_context(engine.connect())
            taken = bool(await connection.scalar(select(func.pg_try_advisory_lock(number))))
        try:
            yield taken
        finally:
            # Ends the database session, and with it the lock, also where the connection is broken.
            await connection.invalidate()


@contextmanager
def _unavailable() -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        sqlstate = getattr(error.orig, "sqlstate", None) or ""
        if (
            error.connection_invalidated
            or isinstance(error, InterfaceError | OperationalError)
            or sqlstate[:2] in AWAY_CLASSES
        ):
            raise Unavailable("PostgreSQL does not answer") from error
        raise
    except asyncpg.PostgresError as error:
        if (error.sqlstate or "")[:2] in AWAY_CLASSES:
            raise Unavailable("PostgreSQL does not answer") from error
        raise
    # asyncpg's connect raises plain OSErrors, TimeoutError among them; its other errors come from SQLAlchemy
    # without a DBAPIError around them where a Reader takes a connection.
    except (
        *(OSError, PoolTimeout, asyncpg.InterfaceError, asyncpg.InternalClientError),
        AsyncAdapt_asyncpg_dbapi.Error,
    ) as error:
        raise Unavailable("PostgreSQL does not answer") from error


async def check_database(engine: AsyncEngine) -> None:
    """Raises Unavailable where PostgreSQL does not answer."""
    await execute(engine, select(1))
