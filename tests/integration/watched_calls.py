"""Watches the calls of the records service to PostgreSQL and MinIO. A test can make any call fail or wait."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

import aiohttp
from sqlalchemy import Executable
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

T = TypeVar("T")


@dataclass(frozen=True)
class Call:
    """One statement to `postgres` or one HTTP request to `minio`."""

    process: str
    number: int
    """Counts the calls to this process from 1."""
    request: str
    """The SQL statement, or method, path and query of the HTTP request."""
    is_done: bool
    """Whether the call has already had its effect."""

    def __str__(self) -> str:
        when = "after" if self.is_done else "before"
        return f"{when} call {self.number} to {self.process}: {self.request}"


async def _let_pass(_: Call) -> None:
    pass


@dataclass
class CallWatcher:
    """Awaits `watch` before and after each call, and records all calls. If `watch` raises, the call fails."""

    watch: Callable[[Call], Awaitable[None]] = _let_pass
    calls: list[Call] = field(default_factory=list)
    under_way: int = 0
    """How many calls are being sent or wait for their response."""

    async def make(self, process: str, request: str, send: Callable[[], Awaitable[T]]) -> T:
        """Makes one call with `send`."""
        number = sum(call.process == process for call in self.calls) + 1
        call = Call(process, number, request, is_done=False)
        self.calls.append(call)
        await self.watch(call)
        self.under_way += 1
        try:
            response = await send()
        finally:
            self.under_way -= 1
        try:
            await self.watch(Call(process, number, request, is_done=True))
        except BaseException:
            if isinstance(response, aiohttp.ClientResponse):
                response.close()
            raise
        return response

    def has_made(self, part: str) -> bool:
        """Whether a call has been made whose request has this part."""
        return any(part in call.request for call in self.calls)

    def stop_watching(self) -> None:
        """Lets all further calls pass."""
        self.watch = _let_pass

    def object_keys(self) -> set[str]:
        """Returns every object key that was sent to MinIO."""
        paths = {
            urlsplit(call.request.partition(" ")[2]).path for call in self.calls if call.process == "minio"
        }
        return {path.split("/", 2)[2] for path in paths if path.endswith((".mp3", ".wav", ".waveform"))}


def watch_session(session: aiohttp.ClientSession, watcher: CallWatcher) -> aiohttp.ClientSession:
    """Returns a session for MinIO whose requests go through the watcher."""
    return cast(aiohttp.ClientSession, _WatchedSession(session, watcher))


def watch_engine(engine: AsyncEngine, watcher: CallWatcher) -> AsyncEngine:
    """Returns an engine whose statements and commits go through the watcher."""
    return cast(AsyncEngine, _WatchedEngine(engine, watcher))


class _WatchedSession:
    def __init__(self, session: aiohttp.ClientSession, watcher: CallWatcher) -> None:
        self._session = session
        self._watcher = watcher

    async def request(self, method: str, url: Any, **rest: Any) -> aiohttp.ClientResponse:
        async def send() -> aiohttp.ClientResponse:
            return await self._session.request(method, url, **rest)

        parts = urlsplit(str(url))
        request = f"{method} {parts.path}?{parts.query}".rstrip("?")
        return await self._watcher.make("minio", request, send)


# Compiling a statement takes longer than running it. Nearly all statements are constants of a module.
@lru_cache(maxsize=100)
def _write_sql(statement: Executable) -> str:
    return str(statement).replace("\n", "")


class _WatchedConnection:
    def __init__(self, connection: AsyncConnection, watcher: CallWatcher) -> None:
        self._connection = connection
        self._watcher = watcher

    async def execute(self, statement: Executable, parameters: Mapping[str, Any] | None = None) -> Any:
        async def send() -> Any:
            return await self._connection.execute(statement, parameters)

        return await self._watcher.make("postgres", _write_sql(statement), send)

    async def exec_driver_sql(self, statement: str, parameters: tuple[Any, ...] | None = None) -> Any:
        async def send() -> Any:
            return await self._connection.exec_driver_sql(statement, parameters)

        return await self._watcher.make("postgres", statement.replace("\n", ""), send)

    async def scalar(self, statement: Executable, parameters: Mapping[str, Any] | None = None) -> Any:
        return (await self.execute(statement, parameters)).scalar()

    async def invalidate(self) -> None:
        await self._connection.invalidate()

    async def execution_options(self, **options: Any) -> None:
        await self._connection.execution_options(**options)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[None]:
        async with self._connection.begin() as transaction:
            yield
            await self._watcher.make("postgres", "COMMIT", transaction.commit)


class _WatchedEngine:
    def __init__(self, engine: AsyncEngine, watcher: CallWatcher) -> None:
        self._engine = engine
        self._watcher = watcher

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[_WatchedConnection]:
        async with self._engine.connect() as connection:
            yield _WatchedConnection(connection, self._watcher)
