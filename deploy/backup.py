"""`python -m deploy.backup back-up DIR` and `restore DIR`: copies database and bucket to a folder, and back.

The folder has, with the time at which the backup began:

    manifest.json           what the backup has; written last, so a backup without it is incomplete
    database-TIME.dump      pg_dump's custom format
    objects-TIME.sha256     a line for each object, as `sha256sum --check` reads them
    objects/USER/RECORD.mp3
"""

import argparse
import asyncio
import hashlib
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, NamedTuple

import aiohttp
import asyncpg
import msgspec
import structlog
from miniopy_async.error import MinioException
from sqlalchemy.exc import SQLAlchemyError

from common.db import make_asyncpg_url
from common.logs import configure_logs
from common.migrate import known_revisions
from common.problems import Problem, Unavailable
from common.settings import SettingsError, load
from deploy.postgres_binaries import binary
from deploy.setup import SetupSettings, set_up
from records.sql import BACKUP_LOCK
from records.storage import READ_BYTES, ObjectStore, ObjectWriter, means_lost, open_store

log = structlog.get_logger()

COPIES_AT_ONCE = 4
FETCH_ROWS = 1000
COMPLETE, INCOMPLETE, FAILED = 0, 1, 2


class BackupError(Exception):
    """The backup or the restore cannot go on; the message says why and what to do."""


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
    """The object keys of records whose object was lost or damaged when the backup was made."""


class StoredRecord(NamedTuple):
    """A record whose object belongs to the backup."""

    object_key: str
    size_bytes: int
    sha256: bytes


async def back_up(settings: SetupSettings, folder: Path, *, prune: bool = False) -> Manifest:
    """Copies the database, and exactly the objects of its records, while the services go on.

    An object that is there with the right SHA-256 is kept. So a backup that was cut off goes on where it
    stopped, and a later backup copies what is new. Until the end the manifest of the last backup stays valid.
    With `prune`, removes the objects of records that the database no longer has.
    """
    begun_at = datetime.now(UTC)
    stamp = f"{begun_at:%Y%m%dT%H%M%SZ}"
    (folder / "objects").mkdir(mode=0o700, parents=True, exist_ok=True)
    dump, listing = folder / f"database-{stamp}.dump", folder / f"objects-{stamp}.sha256"
    found: Counter[str] = Counter()
    missing: list[str] = []
    async with _open_connection(settings) as connection, open_store(settings.store) as store:
        # Until this session ends, no sweeper removes the object of a record that is deleted meanwhile.
        await connection.execute("SELECT pg_advisory_lock_shared($1)", BACKUP_LOCK)
        revision = await _dump(settings, connection, dump)
        with listing.open("w", encoding="utf-8") as lines:
            async for record, outcome in _copy_all(connection, store, folder):
                found[outcome] += 1
                if outcome in ("copied", "kept"):
                    found["bytes"] += record.size_bytes
                    lines.write(f"{record.sha256.hex()}  objects/{record.object_key}\n")
                else:
                    missing.append(record.object_key)
                    log.error("object missing", object_key=record.object_key, reason=outcome)
            _sync(lines)
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
    _replace(folder / "manifest.json", msgspec.json.format(msgspec.json.encode(manifest)))
    _remove_older(folder, manifest)
    if prune:
        found["pruned"] = _prune(folder, manifest)
    log.info("backup complete", folder=str(folder), **found)
    return manifest


async def _dump(settings: SetupSettings, connection: asyncpg.Connection, dump: Path) -> str:
    """Dumps the database, and opens the cursor `backup` over its records. Returns the schema's revision.

    Both show the same moment. The cursor is WITH HOLD, so the snapshot ends with the dump.
    """
    async with connection.transaction(isolation="repeatable_read"):
        revision = str(await connection.fetchval("SELECT version_num FROM alembic_version"))
        await connection.execute(
            "DECLARE backup NO SCROLL CURSOR WITH HOLD FOR SELECT object_key, size_bytes, sha256 FROM records"
            " WHERE state = 'ready' ORDER BY object_key COLLATE \"C\""
        )
        snapshot = await connection.fetchval("SELECT pg_export_snapshot()")
        options = ["--format=custom", "--no-owner", f"--snapshot={snapshot}", f"--file={dump}"]
        await _run(settings, "pg_dump", *options)
    with dump.open("rb") as file:
        _sync(file)
    return revision


async def _copy_all(
    connection: asyncpg.Connection, store: ObjectStore, folder: Path
) -> AsyncIterator[tuple[StoredRecord, str]]:
    """Copies the objects of all records, a few at once. Yields each record with its outcome, in order."""
    while rows := await connection.fetch(f"FETCH {FETCH_ROWS} FROM backup"):
        records = [StoredRecord(*row) for row in rows]
        for start in range(0, len(records), COPIES_AT_ONCE):
            batch = records[start : start + COPIES_AT_ONCE]
            outcomes = await asyncio.gather(*(_copy(store, folder, record) for record in batch))
            for record, outcome in zip(batch, outcomes, strict=True):
                yield record, outcome


async def _copy(store: ObjectStore, folder: Path, record: StoredRecord) -> str:
    """Returns `kept`, `copied`, `lost`, or `damaged` if the object has another SHA-256 than its record."""
    path = folder / "objects" / record.object_key
    if await asyncio.to_thread(_hash_if_there, path) == record.sha256.hex():
        return "kept"
    path.parent.mkdir(mode=0o700, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    digest = hashlib.sha256()
    try:
        with unfinished.open("wb") as file:
            async with aclosing(await store.open(record.object_key)) as pieces:
                async for piece in pieces:
                    digest.update(piece)
                    file.write(piece)
            await asyncio.to_thread(_sync, file)
        if digest.digest() != record.sha256:
            return "damaged"
        unfinished.rename(path)
    except Unavailable as problem:
        if not means_lost(problem):
            raise
        return "lost"
    finally:
        unfinished.unlink(missing_ok=True)
    return "copied"


async def restore(settings: SetupSettings, folder: Path, *, overwrite: bool = False) -> Manifest:
    """Puts a backup into a deployment: first the objects, then the database in one transaction, and then the
    migrations since the backup.

    Raises BackupError if the backup is incomplete or damaged, or if the deployment has users or objects and
    `overwrite` is False.
    """
    manifest = _read_manifest(folder)
    # Creates the bucket, and the roles that the dump names.
    await set_up(settings)
    async with open_store(settings.store) as store:
        if not overwrite:
            await _refuse_to_overwrite(settings, store)
        for sha256, key in _read_listing(folder / manifest.objects):
            await _put(store, folder / "objects" / key, key, sha256)
    await _replace_database(settings, folder / manifest.dump)
    await set_up(settings)
    log.info("backup restored", folder=str(folder), begun_at=manifest.begun_at.isoformat())
    return manifest


def _read_manifest(folder: Path) -> Manifest:
    try:
        manifest = msgspec.json.decode((folder / "manifest.json").read_bytes(), type=Manifest)
    except FileNotFoundError:
        raise BackupError(
            f"{folder} has no complete backup, because it has no manifest.json: back up again, which goes on"
            " where the last backup stopped"
        ) from None
    except msgspec.DecodeError as error:
        raise BackupError(f"{folder}/manifest.json is damaged: {error}") from error
    for name, sha256 in (
        (manifest.dump, manifest.dump_sha256),
        (manifest.objects, manifest.objects_sha256),
    ):
        if _hash_if_there(folder / name) != sha256:
            raise BackupError(f"{folder / name} is missing or damaged: its SHA-256 is not {sha256}")
    if manifest.schema_revision not in known_revisions():
        raise BackupError(
            f"the backup has the schema {manifest.schema_revision}, which this version of Waxwing does not"
            " know: restore it with the version that made it, or a later one"
        )
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


async def _put(store: ObjectStore, path: Path, key: str, sha256: str) -> None:
    """Stores one object. Raises BackupError if the file is missing or has another SHA-256."""
    if await asyncio.to_thread(_hash_if_there, path) != sha256:
        raise BackupError(f"{path} is missing or damaged: its SHA-256 is not {sha256}")
    writer = ObjectWriter(store, retry_seconds=15)
    writer.open(key, lambda: False)
    try:
        with path.open("rb") as file:
            while piece := file.read(READ_BYTES):
                await writer.write(piece)
        await writer.finish(b"")
    finally:
        await writer.close()


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
    url = make_asyncpg_url(settings.database_url, settings.postgres_password)
    connection = await asyncpg.connect(url.set(drivername="postgresql").render_as_string(hide_password=False))
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


def _remove_older(folder: Path, manifest: Manifest) -> None:
    for path in (*folder.glob("database-*.dump"), *folder.glob("objects-*.sha256")):
        if path.name not in (manifest.dump, manifest.objects):
            path.unlink()


def _prune(folder: Path, manifest: Manifest) -> int:
    """Removes the objects that the backup does not have. Returns how many."""
    kept = {key for _, key in _read_listing(folder / manifest.objects)}
    objects = folder / "objects"
    old = [path for path in objects.glob("*/*") if path.relative_to(objects).as_posix() not in kept]
    for path in old:
        path.unlink()
    return len(old)


def main(arguments: Sequence[str]) -> int:
    """Runs one command. Returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m deploy.backup", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    backing_up = commands.add_parser("back-up", help="copy database and bucket to a folder")
    backing_up.add_argument("folder", type=Path, metavar="DIR")
    backing_up.add_argument("--prune", action="store_true", help="remove the objects of deleted records")
    restoring = commands.add_parser("restore", help="put a backup into this deployment")
    restoring.add_argument("folder", type=Path, metavar="DIR")
    restoring.add_argument(
        "--overwrite", action="store_true", help="replace a database that has users already"
    )
    options = parser.parse_args(arguments)
    configure_logs("INFO")
    try:
        settings = load(SetupSettings, os.environ)
        if options.command == "restore":
            asyncio.run(restore(settings, options.folder, overwrite=options.overwrite))
            status = COMPLETE
        else:
            manifest = asyncio.run(back_up(settings, options.folder, prune=options.prune))
            status = INCOMPLETE if manifest.missing else COMPLETE
    except SettingsError as error:
        reason = f"wrong setting: {error}"
    except Problem as problem:
        reason = problem.detail
    except (BackupError, asyncpg.PostgresError, SQLAlchemyError) as error:
        reason = str(error)
    except (aiohttp.ClientError, MinioException, OSError) as error:
        reason = f"{type(error).__name__}: {error}"
    except KeyboardInterrupt:
        reason = "interrupted"
    else:
        return status
    print(f"waxwing: {reason}", file=sys.stderr)
    return FAILED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
