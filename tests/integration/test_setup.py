"""The set-up may run at any time, and gives each service only the rights that it needs."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from io import BytesIO
from typing import Any
from uuid import uuid4

import msgspec
import pytest
import pytest_asyncio
from alembic import command
from miniopy_async.credentials.providers import AssumeRoleProvider
from miniopy_async.error import MinioAdminException, S3Error
from miniopy_async.minioadmin import MinioAdmin
from sqlalchemy import Connection, make_url, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from common.db import make_engine
from common.migrate import make_alembic_config, migrate
from common.problems import type_of
from deploy.local.stack import Stack
from deploy.local.supervision import ROOT
from deploy.setup import main, make_admin, set_up
from records.problems import NoWaveform, UnknownRecord
from records.row_reader import RowReader
from records.sql import find_record, find_waveform
from records.storage import make_client
from tests.integration.recordings import SMALL, wav_pieces
from tests.integration.records_service import RecordsService, open_isolated_service
from users.sql import create_user


@pytest_asyncio.fixture(scope="module")
async def own_service(stack: Stack) -> AsyncIterator[RecordsService]:
    """A service whose database and bucket only these tests use, after one set-up."""
    async with open_isolated_service(stack, "setup") as own_service:
        yield own_service


@asynccontextmanager
async def empty_database(service: RecordsService, name: str) -> AsyncIterator[tuple[AsyncEngine, str]]:
    await service.query(f'CREATE DATABASE "{name}"')
    url = make_url(service.setup.database_url).set(database=name).render_as_string(hide_password=False)
    engine = make_engine(url, service.setup.postgres_password)
    try:
        yield engine, url
    finally:
        await engine.dispose()
        await service.query(f'DROP DATABASE "{name}"')


def login(stack: Stack, own_service: RecordsService, service: str) -> AsyncEngine:
    environment = stack.environment(service)
    database = make_url(own_service.setup.database_url).database
    url = make_url(environment["DATABASE_URL"]).set(database=database)
    return make_engine(url.render_as_string(hide_password=False), environment["DATABASE_PASSWORD"])


async def state_of(own_service: RecordsService) -> list[Any]:
    """Reads the schema and its grants as comparable rows."""
    grants = await own_service.query(
        "SELECT grantee, table_name, column_name, privilege_type FROM information_schema.column_privileges"
        " WHERE grantee LIKE 'waxwing%' ORDER BY 1, 2, 3, 4"
    )
    columns = await own_service.query(
        "SELECT table_name, column_name, data_type, is_nullable FROM information_schema.columns"
        " WHERE table_schema = 'public' ORDER BY 1, 2"
    )
    return [*grants, *columns]


async def test_the_set_up_may_run_again_and_two_at_once_wait_for_each_other(
    own_service: RecordsService,
) -> None:
    user_id, credentials = await own_service.make_user()
    before = await state_of(own_service)
    assert before
    await set_up(own_service.setup)
    await asyncio.gather(*(set_up(own_service.setup) for _ in range(2)))
    assert await state_of(own_service) == before
    uploads = own_service.uploads()
    await uploads.store_record(wav_pieces(SMALL), credentials)
    await uploads.close()
    assert [row.state for row in await own_service.rows(user_id)] == ["ready"]


async def test_the_set_up_of_the_version_before_leaves_a_newer_schema_as_it_is(
    own_service: RecordsService,
) -> None:
    before = await state_of(own_service)
    ((revision,),) = await own_service.query("SELECT version_num FROM alembic_version")
    await own_service.query("UPDATE alembic_version SET version_num = 'of-the-next-version'")
    try:
        with capture_logs() as lines:
            await set_up(own_service.setup)
        assert await own_service.query("SELECT version_num FROM alembic_version") == [
            ("of-the-next-version",)
        ]
    finally:
        await own_service.query("UPDATE alembic_version SET version_num = :revision", revision=revision)
    assert await state_of(own_service) == before
    (warning,) = [line for line in lines if line["log_level"] == "warning"]
    assert warning["revision"] == "of-the-next-version"
    assert "only the version right before" in warning["event"]


# MinIO always lets a key list and delete its own further keys, of which it has none.
ADMIN_CALLS: dict[str, Callable[[MinioAdmin, str], Awaitable[object]]] = {
    "make a key": lambda admin, _: admin.add_service_account(name="backdoor"),
    "change a key": lambda admin, own: admin.update_service_account(own, secret_key="x" * 20),
    "show itself": lambda admin, own: admin.user_info(own),
    "change its secret": lambda admin, own: admin.user_add(own, "y" * 20),
    "make a user": lambda admin, _: admin.user_add("backdoor", "y" * 20),
    "list users": lambda admin, _: admin.user_list(),
    "disable a user": lambda admin, own: admin.user_disable(own),
    "remove a user": lambda admin, own: admin.user_remove(own),
    "show a policy": lambda admin, _: admin.policy_info("readwrite"),
    "list policies": lambda admin, _: admin.policy_list(),
    "remove a policy": lambda admin, _: admin.policy_remove("readwrite"),
    "give itself a policy": lambda admin, own: admin.attach_policy(["consoleAdmin"], user=own),
    "set its policy": lambda admin, own: admin.policy_set("consoleAdmin", user=own),
    "list groups": lambda admin, _: admin.group_list(),
    "make a group": lambda admin, own: admin.group_add("backdoor", own),
    "show the server": lambda admin, _: admin.info(),
    "read the configuration": lambda admin, _: admin.config_get("api"),
    "change the configuration": lambda admin, _: admin.config_set("api", {"cors_allow_origin": "*"}),
    "show the configuration's history": lambda admin, _: admin.config_history(),
    "set a quota": lambda admin, _: admin.bucket_quota_set("records", 1),
    "read a quota": lambda admin, _: admin.bucket_quota_get("records"),
    "profile the server": lambda admin, _: admin.profile_start(("cpu",)),
    "make a key of encryption": lambda admin, _: admin.kms_key_create("backdoor"),
    "show the replication": lambda admin, _: admin.get_site_replication_info(),
    "update the server": lambda admin, _: admin.update(),
    "restart the server": lambda admin, _: admin.service_restart(),
    "stop the server": lambda admin, _: admin.service_stop(),
}


@pytest.mark.parametrize("call", ADMIN_CALLS)
async def test_the_key_of_the_service_may_make_no_call_of_an_administrator(
    own_service: RecordsService, call: str
) -> None:
    store = own_service.settings.store
    as_service = msgspec.structs.replace(
        own_service.setup, minio_root_user=store.s3_access_key, minio_root_password=store.s3_secret_key
    )
    admin = make_admin(as_service, own_service.session)
    with pytest.raises(MinioAdminException, match="AccessDenied"):
        await ADMIN_CALLS[call](admin, store.s3_access_key)


async def test_temporary_keys_of_the_key_of_the_service_may_do_nothing(own_service: RecordsService) -> None:
    store, session = own_service.settings.store, own_service.session
    sts = AssumeRoleProvider(
        store.s3_endpoint, store.s3_access_key, store.s3_secret_key, region=store.s3_region, session=session
    )
    key = await sts.retrieve()
    client = make_client(
        *(store, session),
        access_key=key.access_key,
        secret_key=key.secret_key,
        session_token=key.session_token,
    )
    for call in (
        lambda: client.bucket_exists(store.s3_bucket),
        lambda: client.put_object(store.s3_bucket, "left", BytesIO(b"x"), 1),
        lambda: client.stat_object(store.s3_bucket, "left"),
        lambda: client.remove_object(store.s3_bucket, "left"),
    ):
        with pytest.raises(S3Error, match="AccessDenied"):
            await call()


async def test_several_set_ups_at_once_make_a_new_database_and_bucket(
    stack: Stack, own_service: RecordsService
) -> None:
    async with empty_database(own_service, "twins") as (engine, url):
        store = msgspec.structs.replace(own_service.setup.store, s3_bucket="twins", s3_access_key="twins")
        twins = msgspec.structs.replace(own_service.setup, database_url=url, store=store)
        await asyncio.gather(*(set_up(twins) for _ in range(3)))
        assert await make_client(store, own_service.session).bucket_exists("twins")
        user, _ = await create_user(engine, "Ann")
        assert user.name == "Ann"


@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [
        ("POSTGRES_PASSWORD", "wrong", "password authentication failed"),
        ("DATABASE_URL", "postgresql://postgres@127.0.0.1:1/waxwing", "Connect"),
        ("S3_ENDPOINT", "http://127.0.0.1:1", "127.0.0.1"),
    ],
)
def test_a_failed_set_up_gives_its_reason_in_one_line(
    stack: Stack, setting: str, value: str, says: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main({**stack.environment("setup"), setting: value})
    (line,) = str(ended.value.code).splitlines()
    assert line.startswith("waxwing: the set-up failed: ")
    assert says in line


def test_a_failed_set_up_ends_with_status_1_and_prints_one_line(stack: Stack) -> None:
    environment = {**os.environ, **stack.environment("setup"), "MINIO_ROOT_PASSWORD": "wrong-wrong"}
    command = [sys.executable, "-m", "deploy.setup"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("waxwing: the set-up failed: ")
    assert "AccessDenied" in line


async def test_the_set_up_applies_a_changed_password(own_service: RecordsService) -> None:
    changed = msgspec.structs.replace(own_service.setup, records_database_password='it\'s "new" %s :x \\')
    await set_up(changed)
    try:
        engine = make_engine(own_service.settings.database_url, changed.records_database_password)
        async with engine.connect() as connection:
            assert await connection.scalar(select(1)) == 1
        await engine.dispose()
    finally:
        await set_up(own_service.setup)


RECORDS_MAY_NOT = [
    "SELECT name FROM users",
    "SELECT * FROM users",
    "SELECT created_at FROM users",
    "INSERT INTO users (id, name) VALUES (gen_random_uuid(), 'x')",
    "UPDATE users SET name = 'x'",
    "UPDATE users SET token_digest = NULL",
    "DELETE FROM users",
    "TRUNCATE records",
    "DROP TABLE records",
    "CREATE TABLE mine (id int)",
]
USERS_MAY_NOT = [
    "SELECT id FROM records",
    "SELECT lease_until FROM records",
    "SELECT created_at FROM records",
    "UPDATE records SET state = 'deleting' RETURNING id",
    "UPDATE records SET lease_until = NULL",
    "UPDATE records SET gone_since = now()",
    "UPDATE records SET size_bytes = 0",
    "TRUNCATE records",
    "TRUNCATE users CASCADE",
    "SELECT object_key FROM records",
    "SELECT * FROM records",
    "SELECT sha256 FROM records",
    "SELECT title FROM records",
    "SELECT peak_dbfs FROM records",
    "SELECT waveform FROM records",
    "SELECT idempotency_key FROM records",
    "UPDATE records SET object_key = 'x'",
    "UPDATE records SET user_id = gen_random_uuid()",
    "INSERT INTO records (id, user_id, object_key) VALUES (gen_random_uuid(), gen_random_uuid(), 'x')",
    "DELETE FROM records",
    "DELETE FROM users",
    "DROP TABLE users",
    "CREATE TABLE mine (id int)",
]


@pytest.mark.parametrize(
    ("service", "statement"),
    [("records", each) for each in RECORDS_MAY_NOT] + [("users", each) for each in USERS_MAY_NOT],
)
async def test_the_login_of_a_service_may_do_nothing_else(
    stack: Stack, own_service: RecordsService, service: str, statement: str
) -> None:
    engine = login(stack, own_service, service)
    try:
        async with engine.connect() as connection:
            with pytest.raises(DBAPIError) as refusal:
                await connection.exec_driver_sql(statement)
    finally:
        await engine.dispose()
    assert getattr(refusal.value.orig, "sqlstate", None) == "42501", str(refusal.value)


@pytest.mark.parametrize(
    ("service", "statement"),
    [
        ("records", "SELECT id, token_digest, deleted_at FROM users"),
        ("records", "SELECT * FROM records"),
        ("users", "SELECT * FROM users"),
        ("users", "SELECT user_id, state, size_bytes FROM records"),
        ("users", "UPDATE records SET state = 'deleting' WHERE user_id IS NULL RETURNING user_id"),
    ],
)
async def test_the_login_of_a_service_may_do_its_work(
    stack: Stack, own_service: RecordsService, service: str, statement: str
) -> None:
    engine = login(stack, own_service, service)
    async with engine.connect() as connection:
        assert (await connection.exec_driver_sql(statement)).returns_rows
    await engine.dispose()


@pytest.mark.parametrize("service", ["records", "users"])
async def test_the_login_of_a_service_may_not_make_roles_or_databases(
    stack: Stack, own_service: RecordsService, service: str
) -> None:
    (role,) = await own_service.query(
        "SELECT rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls, rolcanlogin FROM pg_roles"
        " WHERE rolname = :name",
        name=f"waxwing_{service}_login",
    )
    assert tuple(role) == (False, False, False, False, False, True)


async def test_the_database_has_digests_of_tokens_and_no_tokens(own_service: RecordsService) -> None:
    user, token = await create_user(own_service.owner, "Ann")
    rows = await own_service.query("SELECT users::text AS all_of_it, token_digest FROM users")
    dump = "\n".join(row.all_of_it for row in rows)
    assert str(user.id) in dump
    for form in (token, token.replace("-", ""), token.encode().hex()):
        assert form not in dump
    assert {len(row.token_digest) for row in rows} == {32}


async def test_the_access_key_of_the_bucket_opens_nothing_else(own_service: RecordsService) -> None:
    store = own_service.setup.store
    root = {
        "access_key": own_service.setup.minio_root_user,
        "secret_key": own_service.setup.minio_root_password,
    }
    owner = make_client(store, own_service.session, **root)
    if not await owner.bucket_exists("foreign"):
        await owner.make_bucket("foreign")
    await owner._put_object("foreign", "secret", b"secret", {})
    key = make_client(store, own_service.session)
    assert [bucket.name for bucket in await list_buckets(key)] in ([], [store.s3_bucket])
    for attempt in (
        lambda: key.make_bucket("mine"),
        lambda: key._put_object("foreign", "mine", b"mine", {}),
        lambda: key.get_object("foreign", "secret"),
        lambda: key.stat_object("foreign", "secret"),
        lambda: key.remove_object("foreign", "secret"),
        lambda: key._list_multipart_uploads("foreign", prefix="secret"),
        lambda: key._create_multipart_upload("foreign", "mine", {}),
        lambda: key.remove_bucket(store.s3_bucket),
        lambda: key.delete_bucket_policy(store.s3_bucket),
        lambda: key.get_bucket_policy(store.s3_bucket),
    ):
        with pytest.raises(S3Error) as refusal:
            await attempt()
        assert refusal.value.code == "AccessDenied", refusal.value
    assert not await owner.bucket_exists("mine")


async def list_buckets(key: Any) -> list[Any]:
    try:
        return list(await key.list_buckets())
    except S3Error as error:
        assert error.code == "AccessDenied", error
        return []


async def test_without_an_access_key_minio_returns_nothing(own_service: RecordsService) -> None:
    await own_service.store.put("somebody/record.mp3", b"sound")
    for path in ("", "/", "/somebody/record.mp3", "?list-type=2"):
        url = f"{own_service.setup.store.s3_endpoint}/{own_service.setup.store.s3_bucket}{path}"
        async with own_service.session.get(url) as response:
            assert response.status == 403, path
    await own_service.store.remove("somebody/record.mp3")


async def test_the_migrations_make_exactly_the_tables_of_the_code(own_service: RecordsService) -> None:
    def check(connection: Connection) -> None:
        command.check(make_alembic_config(connection))

    async with own_service.owner.connect() as connection:
        await connection.run_sync(check)


async def test_the_migrations_can_be_undone_and_done_again(own_service: RecordsService) -> None:
    async with empty_database(own_service, "undone") as (engine, _):
        for _ in range(2):
            await migrate(engine)
            await create_user(engine, "Ann")
            # Not in one transaction, in which an index cannot be made concurrently.
            async with engine.connect() as connection:
                await connection.execution_options(isolation_level="READ COMMITTED")
                await connection.run_sync(lambda sync: command.downgrade(make_alembic_config(sync), "base"))
            async with engine.connect() as connection:
                tables = await connection.exec_driver_sql(
                    "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
                )
                assert [row.table_name for row in tables] == ["alembic_version"]
        await migrate(engine)


READY_RECORDS = text(
    "INSERT INTO records (id, user_id, state, object_key, size_bytes, sha256, duration_seconds, sample_rate,"
    " channels, bitrate_kbps, published_at)"
    " SELECT gen_random_uuid(), :user, 'ready', gen_random_uuid(), number, 'x', number / 3.0, 44100, 2, 128,"
    " now() FROM generate_series(1, :count) AS number"
)


async def wait_for_a_lock(engine: AsyncEngine, migrating: asyncio.Task[None]) -> None:
    waiting = text(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        " AND datname = current_database()"
    )
    async with engine.connect() as watching:
        while not await watching.scalar(waiting):
            assert not migrating.done()


async def test_the_migration_of_the_sums_and_an_upload_do_not_wait_for_each_other(
    own_service: RecordsService,
) -> None:
    async with empty_database(own_service, "crossed") as (engine, _):
        await migrate(engine, "0010")
        async with engine.execution_options(isolation_level="READ COMMITTED").begin() as upload:
            # As an upload does, for its row and then for the foreign key of the row.
            await upload.exec_driver_sql("LOCK TABLE records IN ROW EXCLUSIVE MODE")
            migrating = asyncio.create_task(migrate(engine, "0011"))
            await wait_for_a_lock(engine, migrating)
            await upload.exec_driver_sql("SELECT FROM users FOR KEY SHARE")
        await migrating


async def test_a_migration_waits_for_whoever_reads_before_it_drops_an_index(
    own_service: RecordsService, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with empty_database(own_service, "read") as (engine, _):
        await migrate(engine, "0018")
        async with engine.execution_options(isolation_level="READ COMMITTED").begin() as connection:
            # As a set-up leaves it that is cut before the drop.
            await connection.exec_driver_sql("CREATE INDEX records_by_title ON records (title)")
            await connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0017'")
        async with engine.execution_options(isolation_level="READ COMMITTED").begin() as reading:
            await reading.exec_driver_sql("SELECT FROM records")
            monkeypatch.setattr("common.migrate.LIMIT_LOCKS", "SET lock_timeout = '1ms'")
            migrating = asyncio.create_task(migrate(engine, "0018"))
            await wait_for_a_lock(engine, migrating)
        await migrating


async def test_a_migration_that_was_cut_goes_on_the_next_time(
    own_service: RecordsService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.migrate.BATCH", 2)
    async with empty_database(own_service, "cut") as (engine, _):
        await migrate(engine, "0010")
        async with engine.connect() as connection:
            for _ in range(5):
                user, _ = await create_user(engine, "Ann")
                await connection.execute(READY_RECORDS, {"user": user.id, "count": 3})
            # As CREATE INDEX CONCURRENTLY leaves an index when it is cut.
            await connection.exec_driver_sql("CREATE INDEX users_to_clear ON users (deleted_at)")
            await connection.exec_driver_sql(
                "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'users_to_clear'::regclass"
            )
        await migrate(engine, "0011")
        # Somebody holds the third user, so the second batch fails.
        async with engine.execution_options(isolation_level="READ COMMITTED").begin() as holding:
            (third,) = (
                await holding.execute(text("SELECT id FROM users ORDER BY id OFFSET 2 LIMIT 1"))
            ).one()
            await holding.execute(text("SELECT FROM users WHERE id = :id FOR UPDATE"), {"id": third})
            monkeypatch.setattr("common.migrate.LIMIT_LOCKS", "SET lock_timeout = '1ms'")
            with pytest.raises(DBAPIError, match="lock timeout"):
                await migrate(engine)
        async with engine.connect() as connection:
            counts = "SELECT record_count, total_bytes, total_seconds FROM users ORDER BY id"
            filled = [row.record_count for row in await connection.exec_driver_sql(counts)]
            assert filled == [3, 3, 0, 0, 0]
            # A record that comes meanwhile counts once.
            await connection.execute(READY_RECORDS, {"user": third, "count": 1})
        await migrate(engine)
        async with engine.connect() as connection:
            rows = (await connection.exec_driver_sql(counts)).all()
            assert [row.record_count for row in rows] == [3, 3, 4, 3, 3]
            assert [row.total_bytes for row in rows] == [6, 6, 7, 6, 6]
            validity = text(
                "SELECT indisvalid, pg_get_indexdef(indexrelid) LIKE '%record_count > 0%' AS is_whole"
                " FROM pg_index WHERE indexrelid = 'users_to_clear'::regclass"
            )
            assert tuple((await connection.execute(validity)).one()) == (True, True)


async def test_a_record_of_an_earlier_version_keeps_its_link_and_has_no_waveform(
    own_service: RecordsService,
) -> None:
    async with empty_database(own_service, "before") as (engine, _):
        await migrate(engine, "0001")
        user, _ = await create_user(engine, "Ann")
        record_id = uuid4()
        async with engine.connect() as connection:
            await connection.execute(
                text(
                    "INSERT INTO records (id, user_id, state, object_key, size_bytes, sha256,"
                    " duration_seconds, sample_rate, channels, bitrate_kbps, published_at)"
                    " VALUES (:id, :user, 'ready', 'key', 1, 'x', 1, 44100, 2, 128, now())"
                ),
                {"id": record_id, "user": user.id},
            )
        await migrate(engine)
        async with aclosing(RowReader(engine)) as reader:
            record, object_key = await find_record(reader, record_id, user.id)
            assert (object_key, record.duration_seconds) == ("key", 1.0)
            assert (record.peak_dbfs, record.rms_dbfs) == (None, None)
            assert (record.truncated, record.clipped) == (False, False)
            with pytest.raises(NoWaveform) as refusal:
                await find_waveform(reader, record_id, user.id)
            assert (refusal.value.status_code, type_of(refusal.value)) == (404, "/problems/no-waveform")
            with pytest.raises(UnknownRecord):
                await find_waveform(reader, record_id, uuid4())


async def test_the_database_refuses_a_ready_row_that_is_incomplete(own_service: RecordsService) -> None:
    user_id, _ = await own_service.make_user()
    for state in ("ready", "uploading", "lost"):
        with pytest.raises(DBAPIError) as refusal:
            await own_service.query(
                "INSERT INTO records (id, user_id, state, object_key) VALUES (:id, :user, :state, :key)",
                id=uuid4(),
                user=user_id,
                state=state,
                key=f"{user_id}/{state}",
            )
        assert getattr(refusal.value.orig, "sqlstate", None) == "23514"
