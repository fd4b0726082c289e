"""The records service inside the test process: engine, object store, uploads and sweeper.

An isolated service has its own database and bucket in the PostgreSQL and the MinIO of a running stack, so
only the test's sweeper works there.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import aiohttp
import msgspec
from sqlalchemy import Row, make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine

from common.credentials import Credentials, digest
from common.db import make_engine
from common.settings import load
from deploy.local.stack import Stack
from deploy.setup import SetupSettings, set_up
from records.row_reader import RowReader
from records.settings import Settings
from records.storage import (
    FIRST_PAUSE_SECONDS,
    ObjectStore,
    make_client,
    make_original_key,
    make_session,
    make_waveform_key,
)
from records.sweeper import sweep
from records.uploads import Uploads
from tests.integration.watched_calls import CallWatcher, watch_engine, watch_session
from users.sql import create_user, delete_user


@dataclass
class RecordsService:
    """A database and a bucket, with the engines and the store that the services use."""

    settings: Settings
    setup: SetupSettings
    engine: AsyncEngine
    """Logs in as the records service."""
    reader: RowReader
    """Reads through `engine`."""
    users_engine: AsyncEngine
    """Logs in as the users service."""
    owner: AsyncEngine
    """Logs in as the owner of the tables."""
    store: ObjectStore
    session: aiohttp.ClientSession

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables with which `python -m records` uses this database and bucket."""
        settings, store = self.settings, self.settings.store
        return {
            "DATABASE_URL": settings.database_url,
            "DATABASE_PASSWORD": settings.database_password,
            "S3_ENDPOINT": store.s3_endpoint,
            "S3_BUCKET": store.s3_bucket,
            "S3_ACCESS_KEY": store.s3_access_key,
            "S3_SECRET_KEY": store.s3_secret_key,
        }

    def watched(self, watcher: CallWatcher) -> tuple[AsyncEngine, ObjectStore]:
        """Returns the same engine and store, but every call goes through the watcher."""
        client = make_client(self.settings.store, watch_session(self.session, watcher))
        return watch_engine(self.engine, watcher), ObjectStore(client, self.settings.store.s3_bucket)

    def uploads(self, watcher: CallWatcher | None = None, **settings: float | str) -> Uploads:
        """Returns the uploads of a new service. `settings` replace single settings of this service.

        A call to the store that fails in passing is repeated once.
        """
        engine, store = self.watched(watcher or CallWatcher())
        own = {"encoder_threads": 2, "store_retry_seconds": FIRST_PAUSE_SECONDS}
        changed = {**msgspec.structs.asdict(self.settings), **own, **settings}
        return Uploads(engine, store, Settings(**changed))

    async def make_user(self) -> tuple[UUID, Credentials]:
        user, token = await create_user(self.owner, "Test")
        return user.id, Credentials(digest(token), user.id)

    async def delete_user(self, credentials: Credentials, watcher: CallWatcher | None = None) -> None:
        """Does the same as DELETE /users/me."""
        await delete_user(watch_engine(self.users_engine, watcher or CallWatcher()), credentials)

    async def rows(self, user_id: UUID) -> list[Row[Any]]:
        """Returns all rows of a user, in every state."""
        return await self.query("SELECT * FROM records WHERE user_id = :id", id=user_id)

    async def query(self, statement: str, **values: object) -> list[Row[Any]]:
        """Runs a statement as the owner."""
        async with self.owner.connect() as connection:
            result = await connection.execute(text(statement), values)
            return list(result.all()) if result.returns_rows else []

    async def expire(self, user_id: UUID) -> None:
        """Ends the leases of a user's uploads, so long ago that the sweeper gives the uploads up."""
        await self.query(
            "UPDATE records SET lease_until = now() - interval '1 day'"
            " WHERE user_id = :id AND lease_until IS NOT NULL",
            id=user_id,
        )

    async def age(self, user_id: UUID) -> None:
        """Moves every look of a sweeper at a user's tombstones back by a day."""
        await self.query(
            "UPDATE records SET gone_since = gone_since - interval '1 day',"
            " lease_until = lease_until - interval '1 day' WHERE user_id = :id AND state = 'deleting'",
            id=user_id,
        )

    async def wait_for_locked_statements(self, statements: int) -> None:
        """Waits until exactly so many statements of the services wait for a lock."""
        while True:
            (row,) = await self.query(
                "SELECT count(*) AS waiting FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                " AND usename LIKE 'waxwing_%_login' AND datname = current_database()"
            )
            if row.waiting == statements:
                return

    async def sweep(self, watcher: CallWatcher | None = None) -> None:
        """Runs one round of the sweeper."""
        engine, store = self.watched(watcher or CallWatcher())
        await sweep(engine, store, self.settings.lease_seconds)

    async def settle(self, user_id: UUID) -> None:
        """Sweeps, with leases ended and tombstones aged, until nothing of a user is left to sweep."""
        for _ in range(2):
            await self.expire(user_id)
            await self.sweep()
            await self.age(user_id)

    async def objects(self, user_id: UUID) -> list[str]:
        """Returns the keys of a user's objects."""
        client = make_client(self.settings.store, self.session)
        found = client.list_objects(self.settings.store.s3_bucket, prefix=f"{user_id}/", recursive=True)
        return [str(each.object_name) async for each in found]

    async def multipart_uploads(self, key: str) -> list[str]:
        """Returns the ids of the open multipart uploads of this object key."""
        client = make_client(self.settings.store, self.session)
        found = await client._list_multipart_uploads(self.settings.store.s3_bucket, prefix=key)
        return [str(each.upload_id) for each in found.uploads]

    async def read_sha256(self, key: str) -> str:
        """Reads an object and returns its SHA-256 in hexadecimal."""
        return hashlib.sha256(await self.read_object(key)).hexdigest()

    async def read_object(self, key: str, size_bytes: int = 0) -> bytes:
        """Reads the first `size_bytes` of an object, or all of it."""
        return b"".join([piece async for piece in await self.store.open(key, 0, size_bytes)])

    async def assert_nothing_is_left(self, user_id: UUID, watcher: CallWatcher) -> None:
        """Checks: the user has no row and no object, and no key of the calls has an open multipart upload."""
        assert await self.rows(user_id) == []
        assert await self.objects(user_id) == []
        for key in watcher.object_keys():
            assert await self.multipart_uploads(key) == [], key

    async def assert_record_is_complete(self, user_id: UUID, watcher: CallWatcher) -> None:
        """Checks: one ready row, its objects with their digests, no open multipart upload."""
        (row,) = await self.rows(user_id)
        assert (row.state, row.waveform) == ("ready", None)
        digests = {row.object_key: row.sha256.hex()}
        digests[make_waveform_key(row.object_key)] = row.waveform_sha256.hex()
        if row.keep_original:
            digests[make_original_key(row.object_key)] = row.original_sha256.hex()
        assert await self.objects(user_id) == sorted(digests)
        for key, sha256 in digests.items():
            assert await self.read_sha256(key) == sha256
        for key in watcher.object_keys():
            assert await self.multipart_uploads(key) == [], key


@asynccontextmanager
async def open_isolated_service(stack: Stack, name: str) -> AsyncIterator[RecordsService]:
    """Makes a database, a bucket and an access key with this name in the stack, and connects to them."""
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
    async with connect_service(setup, settings) as service:
        yield service


@asynccontextmanager
async def open_stack_service(stack: Stack) -> AsyncIterator[RecordsService]:
    """Connects to the database and the bucket of the stack's own services."""
    setup = load(SetupSettings, stack.environment("setup"))
    async with connect_service(setup, load(Settings, stack.environment("records"))) as service:
        yield service


@asynccontextmanager
async def connect_service(setup: SetupSettings, settings: Settings) -> AsyncIterator[RecordsService]:
    """Opens engines, reader and store for these settings, and closes them at the end."""
    engine = make_engine(settings.database_url, settings.database_password)
    users_url = make_url(settings.database_url).set(username="waxwing_users_login")
    users_engine = make_engine(users_url.render_as_string(hide_password=False), setup.users_database_password)
    owner = make_engine(setup.database_url, setup.postgres_password)
    try:
        async with make_session() as session, aclosing(RowReader(engine)) as reader:
            store = ObjectStore(make_client(settings.store, session), settings.store.s3_bucket)
            yield RecordsService(settings, setup, engine, reader, users_engine, owner, store, session)
    finally:
        for each in (engine, users_engine, owner):
            await each.dispose()
