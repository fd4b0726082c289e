"""The parts of the records service in this process, on a database and a bucket of their own.

They stand in the PostgreSQL and the MinIO of a running stack, so that no sweeper but the test's is at work,
and everything that the service says to either can be made to fail, to pause or to be cancelled.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit
from uuid import UUID

import aiohttp
import msgspec
from sqlalchemy import Executable, Row, make_url, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from common.credentials import Credentials, digest
from common.db import make_engine
from common.row_reader import RowReader
from common.settings import load
from deploy.local.stack import Stack
from records.settings import Settings, SetupSettings
from records.setup import set_up
from records.storage import ObjectStore, make_client, make_session
from records.sweeper import sweep
from records.uploads import Uploads
from users.sql import create_user, delete_user

T = TypeVar("T")


@dataclass(frozen=True)
class Call:
    """Something said to `postgres` or `minio`: the how-many-th it is there (from 1), and what it is."""

    part: str
    number: int
    what: str
    is_done: bool
    """Whether it has had its effect already."""

    def __str__(self) -> str:
        when = "after" if self.is_done else "before"
        return f"{when} call {self.number} to {self.part}: {self.what}"


async def _nothing(_: Call) -> None:
    """Lets every call pass."""


@dataclass
class Wire:
    """All calls to PostgreSQL and MinIO. `watch` is awaited before and after each, and may raise instead."""

    watch: Callable[[Call], Awaitable[None]] = _nothing
    calls: list[Call] = field(default_factory=list)
    under_way: int = 0
    """How many calls have begun their effect and not ended it."""

    async def say(self, part: str, what: str, effect: Callable[[], Awaitable[T]]) -> T:
        number = sum(call.part == part for call in self.calls) + 1
        call = Call(part, number, what, is_done=False)
        self.calls.append(call)
        await self.watch(call)
        self.under_way += 1
        try:
            answer = await effect()
        finally:
            self.under_way -= 1
        try:
            await self.watch(Call(part, number, what, is_done=True))
        except BaseException:
            if isinstance(answer, aiohttp.ClientResponse):
                answer.close()
            raise
        return answer


class _WatchedSession:
    def __init__(self, session: aiohttp.ClientSession, wire: Wire) -> None:
        self._session = session
        self._wire = wire

    async def request(self, method: str, url: Any, **rest: Any) -> aiohttp.ClientResponse:
        async def send() -> aiohttp.ClientResponse:
            return await self._session.request(method, url, **rest)

        parts = urlsplit(str(url))
        what = f"{method} {parts.path}?{parts.query}".rstrip("?")
        return await self._wire.say("minio", what, send)


class _WatchedConnection:
    def __init__(self, connection: AsyncConnection, wire: Wire) -> None:
        self._connection = connection
        self._wire = wire

    async def execute(self, statement: Executable, parameters: Mapping[str, Any] | None = None) -> Any:
        async def send() -> Any:
            return await self._connection.execute(statement, parameters)

        return await self._wire.say("postgres", str(statement).replace("\n", ""), send)

    async def scalar(self, statement: Executable, parameters: Mapping[str, Any] | None = None) -> Any:
        return (await self.execute(statement, parameters)).scalar()

    async def execution_options(self, **options: Any) -> None:
        await self._connection.execution_options(**options)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[None]:
        async with self._connection.begin() as transaction:
            yield
            await self._wire.say("postgres", "COMMIT", transaction.commit)


class _WatchedEngine:
    def __init__(self, engine: AsyncEngine, wire: Wire) -> None:
        self._engine = engine
        self._wire = wire

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[_WatchedConnection]:
        async with self._engine.connect() as connection:
            yield _WatchedConnection(connection, self._wire)


@dataclass
class Isolated:
    """A database and a bucket, and what the service would use them with."""

    settings: Settings
    setup: SetupSettings
    engine: AsyncEngine
    """With the login of the records service."""
    reader: RowReader
    """On that engine."""
    users_engine: AsyncEngine
    """With the login of the users service."""
    owner: AsyncEngine
    store: ObjectStore
    session: aiohttp.ClientSession

    def watched(self, wire: Wire) -> tuple[AsyncEngine, ObjectStore]:
        """The same engine and store, with every call going over the wire."""
        session = cast(aiohttp.ClientSession, _WatchedSession(self.session, wire))
        client = make_client(self.settings.store, session)
        engine = cast(AsyncEngine, _WatchedEngine(self.engine, wire))
        return engine, ObjectStore(client, self.settings.store.s3_bucket)

    def uploads(self, wire: Wire | None = None, **settings: int) -> Uploads:
        """The uploads of a service of its own; `settings` differ from the defaults."""
        engine, store = self.watched(wire or Wire())
        changed = {**msgspec.structs.asdict(self.settings), "encoder_threads": 2, **settings}
        return Uploads(engine, store, Settings(**changed))

    async def make_user(self) -> tuple[UUID, Credentials]:
        user, token = await create_user(self.owner, "Test")
        return user.id, Credentials(digest(token), user.id)

    async def delete_user(self, credentials: Credentials, wire: Wire | None = None) -> None:
        """What DELETE /users/me does."""
        await delete_user(cast(AsyncEngine, _WatchedEngine(self.users_engine, wire or Wire())), credentials)

    async def rows(self, user_id: UUID) -> list[Row[Any]]:
        """All of a user's rows, whatever their state."""
        return await self.query("SELECT * FROM records WHERE user_id = :id", id=user_id)

    async def query(self, statement: str, **values: object) -> list[Row[Any]]:
        """Runs a statement as the owner."""
        async with self.owner.connect() as connection:
            result = await connection.execute(text(statement), values)
            return list(result.all()) if result.returns_rows else []

    async def expire(self, user_id: UUID) -> None:
        """Lets the leases of a user's uploads run out."""
        await self.query(
            "UPDATE records SET lease_until = now() - interval '1 second'"
            " WHERE user_id = :id AND lease_until IS NOT NULL",
            id=user_id,
        )

    async def age(self, user_id: UUID) -> None:
        """Lets a day pass since a user's objects were seen gone."""
        await self.query(
            "UPDATE records SET gone_since = gone_since - interval '1 day' WHERE user_id = :id", id=user_id
        )

    async def until_waiting(self, statements: int) -> None:
        """Until so many statements of the services wait for a lock."""
        while True:
            (row,) = await self.query(
                "SELECT count(*) AS waiting FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                " AND usename LIKE 'waxwing_%_login' AND datname = current_database()"
            )
            if row.waiting == statements:
                return

    async def sweep(self, wire: Wire | None = None) -> None:
        engine, store = self.watched(wire or Wire())
        await sweep(engine, store, self.settings.lease_seconds)

    async def settle(self, user_id: UUID) -> None:
        """Lets pass whatever time the sweeper needs to finish with everything of a user's."""
        for _ in range(3):
            await self.expire(user_id)
            await self.sweep()
            await self.age(user_id)

    async def objects(self, user_id: UUID) -> list[str]:
        """The keys of a user's objects."""
        client = make_client(self.settings.store, self.session)
        found = client.list_objects(self.settings.store.s3_bucket, prefix=f"{user_id}/", recursive=True)
        return [str(each.object_name) async for each in found]

    async def open_uploads(self, key: str) -> list[str]:
        """The ids of the multipart uploads that are open for exactly this key."""
        client = make_client(self.settings.store, self.session)
        found = await client._list_multipart_uploads(self.settings.store.s3_bucket, prefix=key)
        return [str(each.upload_id) for each in found.uploads]

    async def stored(self, key: str, size_bytes: int) -> str:
        """The digest of an object of this size, as it reads back."""
        pieces = await self.store.open(key, 0, size_bytes)
        found = hashlib.sha256()
        async for piece in pieces:
            found.update(piece)
        return found.hexdigest()

    async def assert_nothing_is_left(self, user_id: UUID, wire: Wire) -> None:
        """No row, no object, and no open upload under any key that was tried."""
        assert await self.rows(user_id) == []
        assert await self.objects(user_id) == []
        for key in keys_of(wire):
            assert await self.open_uploads(key) == [], key

    async def assert_record_is_whole(self, user_id: UUID, wire: Wire) -> None:
        """One row, ready; its object reads back as the row says; no open upload."""
        (row,) = await self.rows(user_id)
        assert row.state == "ready"
        assert await self.objects(user_id) == [row.object_key]
        assert await self.stored(row.object_key, row.size_bytes) == row.sha256.hex()
        for key in keys_of(wire):
            assert await self.open_uploads(key) == [], key


def keys_of(wire: Wire) -> set[str]:
    """Every key that was named to MinIO."""
    paths = {urlsplit(call.what.partition(" ")[2]).path for call in wire.calls if call.part == "minio"}
    return {path.split("/", 2)[2] for path in paths if path.endswith(".mp3")}


@asynccontextmanager
async def open_isolated(stack: Stack, name: str) -> AsyncIterator[Isolated]:
    """A database, a bucket and a key with this name in the PostgreSQL and the MinIO of the stack."""
    environment = stack.environment("setup")
    superuser = make_engine(environment["DATABASE_URL"], environment["POSTGRES_PASSWORD"])
    async with superuser.connect() as connection:
        await connection.exec_driver_sql(f'CREATE DATABASE "{name}"')
    await superuser.dispose()

    def of_database(url: str) -> str:
        return make_url(url).set(database=name).render_as_string(hide_password=False)

    own = {"S3_BUCKET": name, "S3_ACCESS_KEY": name}
    setup_environment = {**environment, **own, "DATABASE_URL": of_database(environment["DATABASE_URL"])}
    setup = load(SetupSettings, setup_environment)
    await set_up(setup)
    environment = {**stack.environment("records"), **own}
    settings = load(Settings, {**environment, "DATABASE_URL": of_database(environment["DATABASE_URL"])})
    async with open_parts(setup, settings) as isolated:
        yield isolated


@asynccontextmanager
async def open_inside(stack: Stack) -> AsyncIterator[Isolated]:
    """The database and the bucket of the running services themselves."""
    setup = load(SetupSettings, stack.environment("setup"))
    async with open_parts(setup, load(Settings, stack.environment("records"))) as inside:
        yield inside


@asynccontextmanager
async def open_parts(setup: SetupSettings, settings: Settings) -> AsyncIterator[Isolated]:
    """Engines, store and connections for these settings."""
    engine = make_engine(settings.database_url, settings.database_password)
    users_url = make_url(settings.database_url).set(username="waxwing_users_login")
    users_engine = make_engine(users_url.render_as_string(hide_password=False), setup.users_database_password)
    owner = make_engine(setup.database_url, setup.postgres_password)
    try:
        async with make_session() as session, aclosing(RowReader(engine)) as reader:
            store = ObjectStore(make_client(settings.store, session), settings.store.s3_bucket)
            yield Isolated(settings, setup, engine, reader, users_engine, owner, store, session)
    finally:
        for each in (engine, users_engine, owner):
            await each.dispose()
