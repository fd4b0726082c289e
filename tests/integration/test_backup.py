"""A backup has every object of its database, whatever goes on meanwhile, and restores the same deployment."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from threading import Event
from uuid import UUID

import msgspec
import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from common.credentials import Credentials
from common.settings import SettingsError
from deploy import backup
from deploy.backup import BackupError, Folder, Place, back_up, open_place, restore
from deploy.client import Client
from deploy.local.ports import LOOPBACK
from deploy.local.stack import Stack
from deploy.local.supervision import ROOT
from records import sql
from records.doctor import Doctor
from records.storage import ObjectStore, make_client
from records.uploads import Published
from tests.integration.recordings import KEPT, LARGE, SMALL, wav_pieces
from tests.integration.records_service import RecordsService, open_isolated_service
from tests.integration.waiting import wait_until
from tests.stacks import temporary_stack
from tests.upload_requests import TINY_WAV, bearer


@pytest_asyncio.fixture(scope="module")
async def source(stack: Stack) -> AsyncIterator[RecordsService]:
    """A deployment that is backed up."""
    async with open_isolated_service(stack, "backup-source") as service:
        yield service


@pytest_asyncio.fixture(scope="module")
async def target(stack: Stack) -> AsyncIterator[RecordsService]:
    """An empty deployment into which backups are restored."""
    async with open_isolated_service(stack, "backup-target") as service:
        yield service


async def upload(service: RecordsService, credentials: Credentials, kind: str = SMALL) -> UUID:
    uploads = service.uploads()
    outcome = await uploads.store_record(wav_pieces(kind), credentials)
    await uploads.close()
    assert isinstance(outcome, Published)
    return outcome.record.id


def copies(folder: Path) -> set[str]:
    objects = folder / "objects"
    return {path.relative_to(objects).as_posix() for path in objects.glob("*/*")}


def dumps(folder: Path) -> list[str]:
    return [path.name for path in folder.glob("database-*")]


async def test_a_record_that_is_deleted_during_a_backup_is_in_it_with_all_its_objects(
    source: RecordsService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user_id, credentials = await source.make_user()
    record_id = await upload(source, credentials, KEPT)
    copy = backup._copy

    async def delete_and_copy(store: ObjectStore, place: Place, record: backup.StoredRecord) -> str:
        if f"{record_id}.mp3" in record.object_key:
            await sql.delete_record(source.engine, record_id, user_id)
            await source.settle(user_id)
            assert [row.state for row in await source.rows(user_id)] == ["deleting"] * 3
        return await copy(store, place, record)

    monkeypatch.setattr(backup, "_copy", delete_and_copy)
    manifest = await back_up(source.setup, Folder(tmp_path))
    assert manifest.missing == []
    objects = {f"{user_id}/{record_id}.{suffix}" for suffix in ("mp3", "wav", "waveform")}
    assert objects <= copies(tmp_path)
    await source.settle(user_id)
    assert await source.rows(user_id) == []
    # The next backup has neither.
    await back_up(source.setup, Folder(tmp_path), prune=True)
    assert not objects & copies(tmp_path)


async def test_a_backup_is_on_the_disk_before_its_manifest_counts(
    source: RecordsService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user_id, credentials = await source.make_user()
    record_id = await upload(source, credentials)
    synced: dict[int, int] = {}

    def fsync(descriptor: int) -> None:
        status = os.fstat(descriptor)
        synced[status.st_ino] = status.st_size

    monkeypatch.setattr("deploy.backup.os.fsync", fsync)
    manifest = await back_up(source.setup, Folder(tmp_path))
    mp3 = f"objects/{user_id}/{record_id}.mp3"
    for name in (mp3, manifest.objects, manifest.dump, "manifest.json"):
        status = (tmp_path / name).stat()
        assert synced[status.st_ino] == status.st_size, name


async def test_a_backup_that_was_cut_off_is_refused_and_goes_on_where_it_stopped(
    source: RecordsService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, credentials = await source.make_user()
    for _ in range(2):
        await upload(source, credentials)
    copy = backup._copy
    copied: list[str] = []

    async def copy_one(store: ObjectStore, place: Place, record: backup.StoredRecord) -> str:
        if copied:
            raise asyncio.CancelledError
        copied.append(record.object_key)
        return await copy(store, place, record)

    with monkeypatch.context() as patch, pytest.raises(asyncio.CancelledError):
        patch.setattr(backup, "_copy", copy_one)
        patch.setattr(backup, "COPIES_AT_ONCE", 1)
        await back_up(source.setup, Folder(tmp_path))
    with pytest.raises(BackupError, match=r"no complete backup"):
        await restore(source.setup, Folder(tmp_path))
    assert copies(tmp_path) == set(copied)
    before = (tmp_path / "objects" / copied[0]).stat()
    manifest = await back_up(source.setup, Folder(tmp_path))
    assert manifest.object_count == len(copies(tmp_path)) >= 2
    assert (tmp_path / "objects" / copied[0]).stat().st_ino == before.st_ino
    assert dumps(tmp_path) == [manifest.dump]


async def test_a_restored_deployment_has_the_same_rows_and_objects(
    source: RecordsService, target: RecordsService, tmp_path: Path
) -> None:
    user_id, credentials = await source.make_user()
    for kind in (SMALL, LARGE, KEPT):
        await upload(source, credentials, kind)
    manifest = await back_up(source.setup, Folder(tmp_path))
    check = await asyncio.create_subprocess_exec(
        "sha256sum", "--check", "--quiet", manifest.objects, cwd=tmp_path
    )
    assert await check.wait() == 0
    with capture_logs() as lines:
        await restore(target.setup, Folder(tmp_path), is_trial=True)
    assert lines[-1]["event"] == "the backup would be restored"
    assert await target.rows(user_id) == []
    await restore(target.setup, Folder(tmp_path))
    assert sorted(await target.rows(user_id)) == sorted(await source.rows(user_id))
    assert sorted(await target.objects(user_id)) == sorted(await source.objects(user_id))
    doctor = Doctor(target.engine, target.store, timedelta(0), is_deep=True)
    assert [finding async for finding in doctor.look()] == []
    # The services may do there what they did before.
    await upload(target, credentials)
    with pytest.raises(BackupError, match=r"has users and objects already, so nothing was restored"):
        await restore(target.setup, Folder(tmp_path))
    await restore(target.setup, Folder(tmp_path), overwrite=True)
    assert sorted(await target.rows(user_id)) == sorted(await source.rows(user_id))


async def test_a_lost_object_makes_a_backup_that_names_it(source: RecordsService, tmp_path: Path) -> None:
    user_id, credentials = await source.make_user()
    lost, kept = [await upload(source, credentials) for _ in range(2)]
    await source.store.remove(f"{user_id}/{lost}.mp3")
    manifest = await back_up(source.setup, Folder(tmp_path))
    assert manifest.missing == [f"{user_id}/{lost}.mp3"]
    assert f"{user_id}/{kept}.mp3" in copies(tmp_path)
    await sql.delete_record(source.engine, lost, user_id)


async def test_a_damaged_backup_is_refused(
    source: RecordsService, target: RecordsService, tmp_path: Path
) -> None:
    user_id, credentials = await source.make_user()
    record_id = await upload(source, credentials)
    manifest = await back_up(source.setup, Folder(tmp_path))
    for name in (manifest.dump, manifest.objects, f"objects/{user_id}/{record_id}.mp3"):
        path = tmp_path / name
        sound = path.read_bytes()
        path.write_bytes(b"damaged" + sound[7:])
        with pytest.raises(BackupError, match=r"missing or damaged"):
            await restore(target.setup, Folder(tmp_path), overwrite=True)
        path.write_bytes(sound)
    newer = msgspec.structs.replace(manifest, schema_revision="9999")
    (tmp_path / "manifest.json").write_bytes(msgspec.json.encode(newer))
    with pytest.raises(BackupError, match=r"has the schema 9999, which this version .* does not know"):
        await restore(target.setup, Folder(tmp_path), overwrite=True)


@pytest_asyncio.fixture
async def other_bucket(source: RecordsService) -> AsyncIterator[tuple[ObjectStore, dict[str, str]]]:
    """A bucket that belongs to no deployment, and the settings of its store."""
    setup = source.setup
    keys = {"access_key": setup.minio_root_user, "secret_key": setup.minio_root_password}
    client = make_client(setup.store, source.session, **keys)
    if not await client.bucket_exists("backups"):
        await client.make_bucket("backups")
    store = ObjectStore(client, "backups")
    yield (
        store,
        {
            "BACKUP_S3_ENDPOINT": setup.store.s3_endpoint,
            "BACKUP_S3_ACCESS_KEY": setup.minio_root_user,
            "BACKUP_S3_SECRET_KEY": setup.minio_root_password,
        },
    )
    async for found in store.list_objects():
        await store.remove(found.key)


async def test_a_backup_in_another_bucket_restores_the_same_rows_and_objects(
    source: RecordsService, target: RecordsService, other_bucket: tuple[ObjectStore, dict[str, str]]
) -> None:
    store, environ = other_bucket
    user_id, credentials = await source.make_user()
    deleted = await upload(source, credentials)
    for kind in (SMALL, LARGE):
        await upload(source, credentials, kind)
    async with open_place("s3://backups/nightly/ours", environ) as place:
        with pytest.raises(BackupError, match=r"ours has no complete backup"):
            await restore(target.setup, place)
        await back_up(source.setup, place)
        first = {found.key: found.changed_at async for found in store.list_objects()}
        await sql.delete_record(source.engine, deleted, user_id)
        manifest = await back_up(source.setup, place, prune=True)
    second = {found.key: found.changed_at async for found in store.list_objects()}
    objects = {key for key in second if key.startswith("nightly/ours/objects/")}
    assert second.keys() - objects == {
        f"nightly/ours/{name}" for name in ("manifest.json", manifest.dump, manifest.objects)
    }
    assert len(objects) == manifest.object_count
    assert not any(str(deleted) in key for key in objects)
    # Nothing was copied twice.
    assert all(first[key] == second[key] for key in objects)
    async with open_place("s3://backups/nightly/ours", environ) as place:
        await restore(target.setup, place, overwrite=True)
        # The database of the backup has the tombstone, too.
        assert sorted(await target.rows(user_id)) == sorted(await source.rows(user_id))
        ready = [row for row in await target.rows(user_id) if row.state == "ready"]
        assert {row.object_key for row in ready} <= set(await target.objects(user_id))
        assert len(ready) == 2
        doctor = Doctor(target.engine, target.store, timedelta(0), is_deep=True)
        found = [finding.object_key async for finding in doctor.look() if str(user_id) in finding.object_key]
        assert found == []
        key = f"nightly/ours/objects/{user_id}/{ready[0].id}.mp3"
        await store.put(key, b"damaged")
        with pytest.raises(BackupError, match=r"missing or damaged"):
            await restore(target.setup, place, overwrite=True)


async def test_a_bucket_without_its_settings_is_refused() -> None:
    with pytest.raises(SettingsError, match="BACKUP_S3_ENDPOINT is not set"):
        async with open_place("s3://backups", {}):
            pass
    with pytest.raises(BackupError, match="names no bucket: write s3://BUCKET/PREFIX"):
        async with open_place("s3:///backups", {}):
            pass


def test_a_backup_names_a_bucket_that_does_not_exist(stack: Stack) -> None:
    setup = stack.environment("setup")
    keys = {"ACCESS_KEY": setup["MINIO_ROOT_USER"], "SECRET_KEY": setup["MINIO_ROOT_PASSWORD"]}
    store = {f"BACKUP_S3_{name}": value for name, value in {"ENDPOINT": setup["S3_ENDPOINT"], **keys}.items()}
    for command in ("back-up", "restore"):
        done = subprocess.run(
            [sys.executable, "-m", "deploy.backup", command, "s3://nowhere/nightly"],
            cwd=ROOT,
            env={**setup, **store},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == backup.FAILED
        assert done.stderr.splitlines()[-1] == "waxwing: the bucket nowhere does not exist"


def test_a_backup_says_that_postgresql_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("common.servers.CONNECT_TIMEOUT_SECONDS", 0.1)
    # The logs of later tests must not go where this test captures output.
    monkeypatch.setattr(backup, "configure_logs", lambda level: None)
    passwords = ("POSTGRES_PASSWORD", "USERS_DATABASE_PASSWORD", "RECORDS_DATABASE_PASSWORD")
    # This socket accepts connections and never responds, as a PostgreSQL that hangs.
    with socket.create_server((LOOPBACK, 0)) as silent:
        for name, value in {
            **dict.fromkeys((*passwords, "MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD"), "unused"),
            **dict.fromkeys(("S3_ACCESS_KEY", "S3_SECRET_KEY"), "unused"),
            "S3_ENDPOINT": f"http://{LOOPBACK}:{silent.getsockname()[1]}",
            "DATABASE_URL": f"postgresql://postgres@{LOOPBACK}:{silent.getsockname()[1]}/waxwing",
        }.items():
            monkeypatch.setenv(name, value)
        assert backup.main(["back-up", str(tmp_path)]) == backup.FAILED
    assert capsys.readouterr().err.splitlines()[-1] == "waxwing: PostgreSQL does not answer"


@contextmanager
def busy(stack: Stack) -> Iterator[None]:
    """Lets a user upload and delete meanwhile."""
    is_over = Event()

    def work() -> None:
        with Client(stack.base_url) as client:
            user = client.create_user("Bob")
            while not is_over.is_set():
                record = client.upload_stream([TINY_WAV], user["token"])
                path = f"/records/{record['id']}"
                assert client.http.delete(path, headers=bearer(user)).status_code == 204

    with ThreadPoolExecutor() as threads:
        working = threads.submit(work)
        try:
            yield
        finally:
            is_over.set()
        working.result()


def kill_a_backup_in_the_middle(stack: Stack, folder: Path, last_key: str) -> None:
    """Kills a backup that has copied some objects, while it writes the one with the last key."""
    # Whoever opens a pipe for writing waits for a reader.
    pipe = folder / "objects" / f"{last_key}.unfinished"
    pipe.parent.mkdir(parents=True)
    os.mkfifo(pipe)
    command = [sys.executable, "-m", "deploy.backup", "back-up", str(folder)]
    process = subprocess.Popen(command, cwd=ROOT, env=stack.environment("setup"), stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: len(list(folder.glob("objects/*/*.mp3"))) >= backup.COPIES_AT_ONCE)
    finally:
        process.kill()
        process.wait()
        pipe.unlink()


def test_under_load_a_backup_that_was_killed_goes_on_and_after_a_wipe_every_link_plays_the_same_bytes(
    tmp_path: Path,
) -> None:
    with temporary_stack() as stack, Client(stack.base_url) as client:
        ports = {f"{name.upper()}_PORT": str(port) for name, port in asdict(stack.ports).items()}
        folder = stack.supervisor.log("users").parents[1]
        environment = {**os.environ, **ports, "WAXWING_FOLDER": str(folder)}

        def run(*arguments: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-m", "deploy.local", *arguments]
            return subprocess.run(
                command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
            )

        user = client.create_user("Ann")
        records = [client.upload_stream([TINY_WAV], user["token"]) for _ in range(6)]
        before = [client.http.get(record["url"]) for record in records]
        with busy(stack):
            last = max(record["id"] for record in records)
            kill_a_backup_in_the_middle(stack, tmp_path, f"{user['id']}/{last}.mp3")
            copied = {path: path.stat().st_ino for path in tmp_path.glob(f"objects/{user['id']}/*.mp3")}
            assert not (tmp_path / "manifest.json").exists()
            done = run("backup", str(tmp_path))
            assert done.returncode == 0, done.stderr
            assert all(path.stat().st_ino == inode for path, inode in copied.items())
        later = client.upload_stream([TINY_WAV], user["token"])
        assert stack.reset()
        done = run("restore", str(tmp_path))
        assert done.returncode == 0, done.stderr
        for record, response in zip(records, before, strict=True):
            after = client.http.get(record["url"])
            assert (after.status_code, after.content) == (200, response.content)
            assert after.headers["ETag"] == response.headers["ETag"]
        assert client.http.get(later["url"]).status_code == 404
        services = [stack.pid(name) for name in ("users", "records", "gateway")]
        refused = run("restore", str(tmp_path))
        assert refused.returncode == 2
        assert "has users and objects already, so nothing was restored" in refused.stderr
        assert [stack.pid(name) for name in ("users", "records", "gateway")] == services
        assert client.http.get("/users/me", headers=bearer(user)).status_code == 200
        done = run("doctor", "--deep", "--json")
        assert done.returncode == 0, done.stdout
