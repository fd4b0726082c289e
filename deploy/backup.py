"""`python -m deploy.backup back-up DIR` and `restore DIR`: copies database and bucket to a folder, and back.

DIR may also be `s3://BUCKET/PREFIX`, a place in another object store (BACKUP_S3_ENDPOINT).

The folder, or the prefix, has with the time at which the backup began:

    manifest.json           what the backup has; written last, so a backup without it is incomplete
    database-TIME.dump      pg_dump's custom format
    objects-TIME.sha256     a line for each object, as `sha256sum --check` reads them
    objects/USER/RECORD.mp3
    objects/USER/RECORD.waveform
    objects/USER/RECORD.wav what a record keeps of its upload
"""

import argparse
import asyncio
import hashlib
import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

import aiohttp
import asyncpg
import msgspec
import structlog
from miniopy_async.error import MinioException, S3Error
from sqlalchemy.exc import SQLAlchemyError

from common.db import make_engine
from common.logs import configure_logs
from common.migrate import known_revisions
from common.poolers import refuse_pooler
from common.problems import Problem, Unavailable
from common.servers import Servers
from common.settings import SettingsError, load
from deploy.postgres_binaries import binary
from deploy.setup import SetupSettings, set_up
from records.settings import StoreSettings
from records.sql import BACKUP_LOCK, READ_FOR_BACKUP, note_run
from records.storage import READ_BYTES, ObjectStore, ObjectWriter, means_lost, open_store

log = structlog.get_logger()

COPIES_AT_ONCE = 4
FETCH_ROWS = 1000
STORE_RETRY_SECONDS = 15
IN_BUCKET = re.compile(r"s3://(?P<bucket>[^/]+)/*(?P<prefix>.*?)/*")
COMPLETE, INCOMPLETE, FAILED = 0, 1, 2


class BackupError(Exception):
    """The backup or the restore cannot go on; the message says why and what to do."""


EXPECTED_ERRORS = (
    *(Problem, BackupError, asyncpg.PostgresError, SQLAlchemyError),
    *(aiohttp.ClientError, MinioException, OSError),
)


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a complete backup has."""

    begun_at: datetime
    finished_at: datetime
    schema_revision: str
    postgres_version: str
    dump: str
    dump_sha256: str
    objects: str
    objects_sha256: str
    object_count: int
    object_bytes: int
    missing: list[str]
    """The keys of objects that were lost or damaged when the backup was made."""


class StoredRecord(NamedTuple):
    """An object of a record, which belongs to the backup."""

    object_key: str
    size_bytes: int
    sha256: bytes


class BackupStoreSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The object store that has the backups."""

    backup_s3_endpoint: str
    backup_s3_access_key: str
    backup_s3_secret_key: str
    backup_s3_region: str = "us-east-1"

    def of_bucket(self, name: str) -> StoreSettings:
        """Returns the settings of one bucket. Raises SettingsError if an endpoint is wrong."""
        try:
            return StoreSettings(
                s3_endpoint=self.backup_s3_endpoint,
                s3_access_key=self.backup_s3_access_key,
                s3_secret_key=self.backup_s3_secret_key,
                s3_bucket=name,
                s3_region=self.backup_s3_region,
            )
        except SettingsError as error:
            raise SettingsError(f"BACKUP_{error}") from None


class Folder:
    """A backup in a folder."""

    def __init__(self, path: Path) -> None:
        """`work` is where the files besides the objects are made and read."""
        self.work = path

    def __str__(self) -> str:
        return str(self.work)

    async def has(self, record: StoredRecord) -> bool:
        """Whether the object is here, with the right SHA-256."""
        digest = await asyncio.to_thread(_hash_if_there, self.work / "objects" / record.object_key)
        return digest == record.sha256.hex()

    async def write(self, record: StoredRecord, pieces: AsyncIterator[bytes]) -> bool:
        """Takes an object. If it has another SHA-256 than its record, keeps nothing and returns False."""
        path = self.work / "objects" / record.object_key
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        unfinished = path.with_name(f"{path.name}.unfinished")
        digest = hashlib.sha256()
        try:
            with unfinished.open("wb") as file:
                async for piece in pieces:
                    digest.update(piece)
                    file.write(piece)
                await asyncio.to_thread(_sync, file)
            if digest.digest() == record.sha256:
                unfinished.rename(path)
                return True
        finally:
            unfinished.unlink(missing_ok=True)
        return False

    async def read(self, key: str) -> AsyncGenerator[bytes, None]:
        """Yields the bytes of an object."""
        with (self.work / "objects" / key).open("rb") as file:
            while piece := file.read(READ_BYTES):
                yield piece

    async def keep(self, name: str) -> None:
        """Makes sure that a file of `work` survives a loss of power."""
        with (self.work / name).open("rb") as file:
            _sync(file)

    async def fetch(self, name: str) -> None:
        """Does nothing, because `work` has every file of this backup."""

    async def find_names(self) -> AsyncIterator[str]:
        """Yields the names of all files and objects."""
        for path in self.work.rglob("*"):
            if path.is_file():
                yield path.relative_to(self.work).as_posix()

    async def remove(self, name: str) -> None:
        """Removes a file or an object."""
        (self.work / name).unlink()


class Bucket:
    """A backup in an object store, below a prefix. It has the same methods as Folder.

    An object is complete or not there, and has been compared when it was written. So `has` compares its size
    only, and reads no bytes.
    """

    def __init__(self, name: str, store: ObjectStore, prefix: str, work: Path) -> None:
        self._name = name
        self._store = store
        self._prefix = f"{prefix}/" if prefix else ""
        self.work = work

    def __str__(self) -> str:
        return self._name

    async def has(self, record: StoredRecord) -> bool:
        found = await self._store.find(f"{self._prefix}objects/{record.object_key}")
        return found is not None and found.size_bytes == record.size_bytes

    async def write(self, record: StoredRecord, pieces: AsyncIterator[bytes]) -> bool:
        key = f"{self._prefix}objects/{record.object_key}"
        return await _store_object(self._store, key, pieces, record.sha256)

    async def read(self, key: str) -> AsyncGenerator[bytes, None]:
        async with aclosing(await self._store.open(f"{self._prefix}objects/{key}")) as pieces:
            async for piece in pieces:
                yield piece

    async def keep(self, name: str) -> None:
        path = self.work / name
        sha256 = bytes.fromhex(await asyncio.to_thread(_hash, path))
        if not await _store_object(self._store, self._prefix + name, _read_file(path), sha256):
            raise BackupError(f"{path} has changed while it was stored: back up again")

    async def fetch(self, name: str) -> None:
        try:
            async with aclosing(await self._store.open(self._prefix + name)) as pieces:
                with (self.work / name).open("wb") as file:
                    async for piece in pieces:
                        file.write(piece)
        except Unavailable as problem:
            if not means_lost(problem):
                raise

    async def find_names(self) -> AsyncIterator[str]:
        async for found in self._store.list_objects(self._prefix):
            yield found.key.removeprefix(self._prefix)

    async def remove(self, name: str) -> None:
        await self._store.remove(self._prefix + name)


Place = Folder | Bucket


@asynccontextmanager
async def open_place(target: str, environ: Mapping[str, str]) -> AsyncIterator[Place]:
    """Opens a folder, or with `s3://BUCKET/PREFIX` the object store of the settings."""
    if not target.startswith("s3:"):
        yield Folder(Path(target))
        return
    if not (found := IN_BUCKET.fullmatch(target)):
        raise BackupError(f"{target} names no bucket: write s3://BUCKET/PREFIX")
    store_settings = load(BackupStoreSettings, environ).of_bucket(found["bucket"])
    with tempfile.TemporaryDirectory(prefix="waxwing-backup-") as work:
        async with open_store(store_settings) as store:
            yield Bucket(target, store, found["prefix"], Path(work))


async def _read_file(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(READ_BYTES):
            yield piece


async def _store_object(store: ObjectStore, key: str, pieces: AsyncIterator[bytes], sha256: bytes) -> bool:
    """Stores an object. If the bytes have another SHA-256, stores nothing and returns False."""
    writer = ObjectWriter(store, STORE_RETRY_SECONDS)
    writer.open(key, lambda: False)
    digest = hashlib.sha256()
    try:
        async for piece in pieces:
            digest.update(piece)
            await writer.write(piece)
        if digest.digest() == sha256:
            stored = await writer.finish(b"")
            return stored.sha256 == sha256
    finally:
        await writer.close()
    await store.abort_multipart_uploads(key)
    return False


async def back_up(settings: SetupSettings, place: Place, *, prune: bool = False) -> Manifest:
    """Copies the database, and exactly the objects of its records, while the services go on.

    An object that is there already is kept. So a backup that was cut off goes on where it
    stopped, and a later backup copies what is new. Until the end the manifest of the last backup stays valid.
    With `prune`, removes the objects of records that the database no longer has.
    """
    begun_at = datetime.now(UTC)
    stamp = f"{begun_at:%Y%m%dT%H%M%SZ}"
    place.work.mkdir(mode=0o700, parents=True, exist_ok=True)
    dump, listing = place.work / f"database-{stamp}.dump", place.work / f"objects-{stamp}.sha256"
    found: Counter[str] = Counter()
    missing: list[str] = []
    async with _open_connection(settings) as connection, open_store(settings.store) as store:
        # Until this session ends, no sweeper removes the object of a record that is deleted meanwhile.
        await connection.execute("SELECT pg_advisory_lock_shared($1)", BACKUP_LOCK)
        revision = await _dump(settings, connection, dump)
        await place.keep(dump.name)
        with listing.open("w", encoding="utf-8") as lines:
            async for record, outcome in _copy_all(connection, store, place):
                found[outcome] += 1
                if outcome in ("copied", "kept"):
                    found["bytes"] += record.size_bytes
                    lines.write(f"{record.sha256.hex()}  objects/{record.object_key}\n")
                else:
                    missing.append(record.object_key)
                    log.error("object missing", object_key=record.object_key, reason=outcome)
        await place.keep(listing.name)
        manifest = Manifest(
            begun_at=begun_at,
            finished_at=datetime.now(UTC),
            schema_revision=revision,
            postgres_version=str(connection.get_server_version().major),
            dump=dump.name,
            dump_sha256=_hash(dump),
            objects=listing.name,
            objects_sha256=_hash(listing),
            object_count=found["copied"] + found["kept"],
            object_bytes=found["bytes"],
            missing=missing,
        )
    _replace(place.work / "manifest.json", msgspec.json.format(msgspec.json.encode(manifest)))
    await place.keep("manifest.json")
    found["pruned"] = await _remove_older(place, manifest, prune=prune)
    log.info("backup complete", place=str(place), **found)
    return manifest


async def _dump(settings: SetupSettings, connection: asyncpg.Connection, dump: Path) -> str:
    """Dumps the database, and opens the cursor `backup` over its records. Returns the schema's revision.

    Both show the same moment. The cursor is WITH HOLD, so the snapshot ends with the dump.
    """
    async with connection.transaction(isolation="repeatable_read"):
        revision = str(await connection.fetchval("SELECT version_num FROM alembic_version"))
        await connection.execute(
            f"DECLARE backup NO SCROLL CURSOR WITH HOLD FOR {READ_FOR_BACKUP.sql}",
            *READ_FOR_BACKUP.arguments({}),
        )
        snapshot = await connection.fetchval("SELECT pg_export_snapshot()")
        options = ["--format=custom", "--no-owner", f"--snapshot={snapshot}", f"--file={dump}"]
        await _run(settings, "pg_dump", *options)
    return revision


async def _copy_all(
    connection: asyncpg.Connection, store: ObjectStore, place: Place
) -> AsyncIterator[tuple[StoredRecord, str]]:
    """Copies the objects of all records, a few at once. Yields each record with its outcome, in order."""
    while rows := await connection.fetch(f"FETCH {FETCH_ROWS} FROM backup"):
        records = [StoredRecord(*row) for row in rows]
        for start in range(0, len(records), COPIES_AT_ONCE):
            batch = records[start : start + COPIES_AT_ONCE]
            outcomes = await asyncio.gather(*(_copy(store, place, record) for record in batch))
            for record, outcome in zip(batch, outcomes, strict=True):
                yield record, outcome


async def _copy(store: ObjectStore, place: Place, record: StoredRecord) -> str:
    """Returns `kept`, `copied`, `lost`, or `damaged` if the object has another SHA-256 than its record."""
    if await place.has(record):
        return "kept"
    try:
        async with aclosing(await store.open(record.object_key)) as pieces:
            return "copied" if await place.write(record, pieces) else "damaged"
    except Unavailable as problem:
        if not means_lost(problem):
            raise
        return "lost"


async def restore(
    settings: SetupSettings, place: Place, *, overwrite: bool = False, is_trial: bool = False
) -> Manifest:
    """Puts a backup into a deployment: first the objects, then the database in one transaction, and then the
    migrations since the backup. A trial ends before the first object.

    Raises BackupError if the backup is incomplete or damaged, or if the deployment has users or objects and
    `overwrite` is False.
    """
    manifest = await _read_manifest(place)
    # Creates the bucket, and the roles that the dump names.
    await set_up(settings)
    async with open_store(settings.store) as store:
        if not overwrite:
            await _refuse_to_overwrite(settings, store)
        if is_trial:
            log.info("the backup would be restored", place=str(place))
            return manifest
        for sha256, key in _read_listing(place.work / manifest.objects):
            await _put(store, place, key, sha256)
    await _replace_database(settings, place.work / manifest.dump)
    await set_up(settings)
    log.info("backup restored", place=str(place), begun_at=manifest.begun_at.isoformat())
    return manifest


async def _read_manifest(place: Place) -> Manifest:
    try:
        await place.fetch("manifest.json")
        manifest = msgspec.json.decode((place.work / "manifest.json").read_bytes(), type=Manifest)
    except FileNotFoundError:
        raise BackupError(
            f"{place} has no complete backup, because it has no manifest.json: back up again, which goes on"
            " where the last backup stopped"
        ) from None
    except msgspec.DecodeError as error:
        raise BackupError(f"{place}/manifest.json is damaged: {error}") from error
    if manifest.schema_revision not in known_revisions():
        raise BackupError(
            f"the backup has the schema {manifest.schema_revision}, which this version of Waxwing does not"
            " know: restore it with the version that made it, or a later one"
        )
    for name, sha256 in (
        (manifest.dump, manifest.dump_sha256),
        (manifest.objects, manifest.objects_sha256),
    ):
        await place.fetch(name)
        if _hash_if_there(place.work / name) != sha256:
            raise BackupError(f"{place}/{name} is missing or damaged: its SHA-256 is not {sha256}")
    return manifest


def _read_listing(listing: Path) -> Iterator[tuple[str, str]]:
    with listing.open(encoding="utf-8") as lines:
        for line in lines:
            sha256, _, path = line.rstrip("\n").partition("  ")
            yield sha256, path.removeprefix("objects/")


async def _refuse_to_overwrite(settings: SetupSettings, store: ObjectStore) -> None:
    async with _open_connection(settings) as connection:
        has_users = await connection.fetchval("SELECT EXISTS (SELECT FROM users)")
    has_objects = await anext(store.list_objects(), None) is not None
    if has_users or has_objects:
        what = " and ".join(name for name, found in (("users", has_users), ("objects", has_objects)) if found)
        raise BackupError(
            f"this deployment has {what} already, so nothing was restored. --overwrite replaces its database"
            " and keeps objects that the backup does not have"
        )


async def _put(store: ObjectStore, place: Place, key: str, sha256: str) -> None:
    """Stores one object. Raises BackupError if the backup does not have it, or with another SHA-256."""
    try:
        is_right = await _store_object(store, key, place.read(key), bytes.fromhex(sha256))
    except FileNotFoundError:
        is_right = False
    except Unavailable as problem:
        if not means_lost(problem):
            raise
        is_right = False
    if not is_right:
        raise BackupError(f"{place}/objects/{key} is missing or damaged: its SHA-256 is not {sha256}")


async def _replace_database(settings: SetupSettings, dump: Path) -> None:
    """Replaces the schema by the schema of a dump, in one transaction."""
    script = dump.with_suffix(".sql")
    try:
        await _run(settings, "pg_restore", "--no-owner", f"--file={script}", str(dump), is_connected=False)
        # pg_dump leaves out the schema `public` itself and what everybody may do there.
        empty = "DROP SCHEMA public CASCADE; CREATE SCHEMA public; GRANT USAGE ON SCHEMA public TO PUBLIC"
        options = ["--quiet", "--no-psqlrc", "--single-transaction", "--set=ON_ERROR_STOP=1"]
        await _run(settings, "psql", *options, f"--command={empty}", f"--file={script}")
    finally:
        script.unlink(missing_ok=True)


@asynccontextmanager
async def _open_connection(settings: SetupSettings) -> AsyncIterator[asyncpg.Connection]:
    connection = await Servers(settings.database_url, settings.postgres_password).connect()
    try:
        yield connection
    finally:
        await connection.close()


async def _run(settings: SetupSettings, program: str, *options: str, is_connected: bool = True) -> None:
    """Runs a program of PostgreSQL on the database. Raises BackupError if it fails."""
    database = [f"--dbname={settings.database_url}"] if is_connected else []
    process = await asyncio.create_subprocess_exec(
        binary(program),
        *database,
        *options,
        env={**os.environ, "PGPASSWORD": settings.postgres_password},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        _, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    if process.returncode:
        raise BackupError(f"{program} failed: {errors.decode(errors='replace').strip()}")


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hash_if_there(path: Path) -> str | None:
    return _hash(path) if path.exists() else None


def _sync(file: IO[Any]) -> None:
    """Writes all of a file to the disk, so that it survives a loss of power."""
    file.flush()
    os.fsync(file.fileno())


def _replace(path: Path, data: bytes) -> None:
    unfinished = path.with_suffix(".unfinished")
    with unfinished.open("wb") as file:
        file.write(data)
        _sync(file)
    unfinished.rename(path)


async def _remove_older(place: Place, manifest: Manifest, *, prune: bool) -> int:
    """Removes dumps and listings of older backups, and with `prune` the objects that this one does not have.

    Returns how many objects it has removed.
    """
    kept = {f"objects/{key}" for _, key in _read_listing(place.work / manifest.objects)} if prune else set()
    pruned = 0
    async for name in place.find_names():
        if name.startswith("objects/"):
            if prune and name not in kept:
                await place.remove(name)
                pruned += 1
        elif name.startswith(("database-", "objects-")) and name not in (manifest.dump, manifest.objects):
            await place.remove(name)
    return pruned


async def _run_command(settings: SetupSettings, options: argparse.Namespace) -> int:
    whose = "the backup" if options.command == "back-up" else "the restore"
    await refuse_pooler(Servers(settings.database_url, settings.postgres_password), whose)
    async with open_place(options.target, os.environ) as place:
        if options.command == "restore":
            await restore(settings, place, overwrite=options.overwrite, is_trial=options.trial)
            return COMPLETE
        manifest = await _back_up_and_note(settings, place, prune=options.prune)
        return INCOMPLETE if manifest.missing else COMPLETE


async def _back_up_and_note(settings: SetupSettings, place: Place, *, prune: bool) -> Manifest:
    """Backs up, and notes in the database with which result, for `status` and the metrics."""
    engine = make_engine(settings.database_url, settings.postgres_password)
    note = partial(note_run, engine, "backup", datetime.now(UTC))
    try:
        manifest = await back_up(settings, place, prune=prune)
    except EXPECTED_ERRORS as error:
        await note("failed", _explain(error))
        raise
    else:
        missing = f", {len(manifest.missing):,} are missing" if manifest.missing else ""
        summary = f"{manifest.object_count:,} objects to {place}{missing}"
        await note("incomplete" if manifest.missing else "complete", summary)
        return manifest
    finally:
        await engine.dispose()


def _explain(error: Exception) -> str:
    match error:
        case Unavailable(__cause__=S3Error(code="NoSuchBucket") as refusal):
            return f"the bucket {refusal._bucket_name} does not exist"
        case Unavailable():
            return error.reason
        case Problem():
            return error.detail
        case BackupError() | asyncpg.PostgresError() | SQLAlchemyError():
            return str(error)
        case TimeoutError():
            # The bucket's own time-outs are problems already.
            return "PostgreSQL does not answer"
    return f"{type(error).__name__}: {error}"


def main(arguments: Sequence[str]) -> int:
    """Runs one command. Returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m deploy.backup", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    backing_up = commands.add_parser("back-up", help="copy database and bucket to a folder or a bucket")
    backing_up.add_argument("target", metavar="DIR")
    backing_up.add_argument("--prune", action="store_true", help="remove the objects of deleted records")
    restoring = commands.add_parser("restore", help="put a backup into this deployment")
    restoring.add_argument("target", metavar="DIR")
    restoring.add_argument(
        "--overwrite", action="store_true", help="replace a database that has users already"
    )
    restoring.add_argument(
        "--trial", action="store_true", help="only say whether this would be refused, and restore nothing"
    )
    options = parser.parse_args(arguments)
    configure_logs("INFO")
    try:
        status = asyncio.run(_run_command(load(SetupSettings, os.environ), options))
    except SettingsError as error:
        reason = f"wrong setting: {error}"
    except EXPECTED_ERRORS as error:
        reason = _explain(error)
    except KeyboardInterrupt:
        reason = "interrupted"
    else:
        return status
    print(f"waxwing: {reason}", file=sys.stderr)
    return FAILED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
