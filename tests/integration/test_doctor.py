"""The doctor finds what rows and bucket do not agree on, and nothing else; its repairs keep what is sound."""

import asyncio
import io
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import pytest
import pytest_asyncio
from sqlalchemy import make_url

from common.credentials import Credentials
from common.problems import Unavailable
from deploy.client import Client
from deploy.local.__main__ import main as run_local_command
from deploy.local.ports import free_ports
from deploy.local.stack import Stack
from deploy.local.supervision import ROOT
from records import commands, sql
from records.doctor import Doctor, DoctorError
from records.form import KEEP_ORIGINAL, AudioBegins, FormField, FormItem
from records.storage import NEVER, FoundObject, make_original_key, make_waveform_key
from records.sweeper import longest_late_put
from tests.integration.paused_calls import PausedUpload, before_publish
from tests.integration.recordings import KEPT
from tests.integration.records_service import RecordsService, open_isolated_service
from tests.integration.watched_calls import Call, CallWatcher
from tests.response_checks import assert_json, assert_problem
from tests.upload_requests import TINY_WAV, WAV_TYPE, bearer

# With the usual age, the doctor would not judge what a test has just made.
NO_AGE = timedelta(0)
# What the doctor reports, and does not repair.
OPERATORS = ("foreign", "overdue-tombstone", "overdue-upload", "unreadable", "wrong-info-frame")
DEEP_OR_NOT = pytest.mark.parametrize("is_deep", [False, True])


@pytest_asyncio.fixture(scope="module")
async def own_service(stack: Stack) -> AsyncIterator[RecordsService]:
    """A service whose database and bucket only these tests use."""
    async with open_isolated_service(stack, "doctor") as own_service:
        yield own_service


@pytest_asyncio.fixture
async def service(own_service: RecordsService) -> AsyncIterator[RecordsService]:
    """The same, empty again after each test."""
    yield own_service
    await clear(own_service)


async def clear(service: RecordsService) -> None:
    """Removes all records, objects and multipart uploads."""
    await service.query("DELETE FROM records")
    async for found in service.store.list_objects():
        await service.store.remove(found.key)
    async for upload in service.store.list_multipart_uploads():
        await service.store.abort_multipart_upload(upload)


async def upload(service: RecordsService, credentials: Credentials, *, keeps_original: bool = False) -> UUID:
    async def body() -> AsyncIterator[FormItem]:
        if keeps_original:
            yield FormField(KEEP_ORIGINAL, "true")
        yield AudioBegins()
        yield TINY_WAV

    uploads = service.uploads()
    result = await uploads.store_record(body(), credentials)
    await uploads.close()
    return result.record.id


async def make_keys(service: RecordsService, count: int) -> list[str]:
    """Uploads so many records of one user and returns their object keys."""
    user_id, credentials = await service.make_user()
    return [f"{user_id}/{await upload(service, credentials)}.mp3" for _ in range(count)]


def make_key() -> str:
    return f"{uuid4()}/{uuid4()}.mp3"


async def find(
    service: RecordsService,
    *,
    min_age: timedelta = NO_AGE,
    is_deep: bool = False,
    watcher: CallWatcher | None = None,
) -> set[tuple[str, str]]:
    """Returns the kinds and object keys of the findings."""
    engine, store = service.watched(watcher or CallWatcher())
    doctor = Doctor(engine, store, min_age, is_deep=is_deep)
    findings = [(finding.kind, finding.object_key) async for finding in doctor.look()]
    assert len(findings) == len(set(findings))
    return {(str(kind), key) for kind, key in findings}


async def repair(service: RecordsService, watcher: CallWatcher | None = None) -> set[tuple[str, str]]:
    """Repairs all findings, and returns those that the doctor did not repair."""
    doctor = Doctor(*service.watched(watcher or CallWatcher()), NO_AGE, is_deep=True)
    findings = [finding async for finding in doctor.look()]
    return {(each.kind, each.object_key) for each in findings if not await doctor.repair(each)}


async def reserve(service: RecordsService, key: str, lease: str) -> None:
    """Makes the row of an upload under way."""
    await service.query(
        "INSERT INTO records (id, user_id, object_key, lease_until)"
        " SELECT gen_random_uuid(), id, :key, now() + CAST(:lease AS text)::interval FROM users LIMIT 1",
        key=key,
        lease=lease,
    )


async def break_something(service: RecordsService) -> tuple[set[tuple[str, str]], list[str]]:
    """Makes one finding of each kind that needs no reading of objects, among sound records and uploads.

    Returns the findings, and the keys of all records.
    """
    lost, short, sound, deleted, just_deleted = keys = await make_keys(service, 5)
    await service.store.remove(lost)
    await service.store.put(short, b"short")
    await service.store.begin(sound)
    orphan, upload_alone, expired, running = (make_key() for _ in range(4))
    await service.store.put(orphan, b"orphan")
    await service.store.begin(upload_alone)
    await service.store.put("notes.txt", b"foreign")
    for key in (deleted, just_deleted):
        await service.query("UPDATE records SET state = 'deleting' WHERE object_key = :key", key=key)
    await service.query(
        "UPDATE records SET deleted_at = deleted_at - interval '2 hours' WHERE object_key = :key", key=deleted
    )
    for key, lease in ((expired, "-2 hours"), (running, "1 minute")):
        await reserve(service, key, lease)
        await service.store.put(key, b"under way")
        await service.store.begin(key)
    return {
        ("lost-object", lost),
        ("wrong-size", short),
        ("open-multipart-upload", sound),
        ("orphan", orphan),
        ("open-multipart-upload", upload_alone),
        ("foreign", "notes.txt"),
        ("overdue-tombstone", deleted),
        ("overdue-upload", expired),
    }, keys


async def test_every_finding_is_reported_and_what_is_safe_is_repaired(service: RecordsService) -> None:
    expected, (lost, short, *_) = await break_something(service)
    assert await find(service) == expected
    left = {finding for finding in expected if finding[0] in OPERATORS}
    assert await repair(service) == left
    assert await find(service) == left
    rows = await service.query("SELECT object_key FROM records WHERE lost_at IS NOT NULL")
    assert {row.object_key for row in rows} == {lost, short}
    # A damaged object is never removed.
    assert await service.read_object(short) == b"short"


async def test_originals_are_compared_and_only_one_that_is_gone_is_forgotten(
    service: RecordsService,
) -> None:
    user_id, credentials = await service.make_user()
    records = [await upload(service, credentials, keeps_original=True) for _ in range(5)]
    lost, short, wrong, deleted, _ = (f"{user_id}/{record_id}.wav" for record_id in records)
    await service.store.remove(lost)
    await service.store.put(short, b"short")
    await service.store.put(wrong, bytes(len(TINY_WAV)))
    await sql.delete_original(service.engine, records[3], user_id)
    running, orphan, upload_alone = (make_original_key(make_key()) for _ in range(3))
    await reserve(service, running.replace(".wav", ".mp3"), "1 minute")
    await service.query("UPDATE records SET keep_original = true WHERE state = 'uploading'")
    for key in (running, orphan):
        await service.store.put(key, b"original")
    for key in (running, upload_alone):
        await service.store.begin(key)
    expected = {
        ("lost-original", lost),
        ("damaged-original", short),
        ("orphan", orphan),
        ("open-multipart-upload", upload_alone),
    }
    assert await find(service) == expected
    assert await find(service, is_deep=True) == expected | {("damaged-original", wrong)}
    left = {("damaged-original", short), ("damaged-original", wrong)}
    assert await repair(service) == left
    assert await find(service, is_deep=True) == left
    rows = await service.query("SELECT id FROM records WHERE state = 'ready' AND original_sha256 IS NULL")
    assert {row.id for row in rows} == {records[0], records[3]}
    assert not await service.query("SELECT id FROM records WHERE lost_at IS NOT NULL")
    await service.query("UPDATE records SET deleted_at = deleted_at - interval '2 hours'")
    assert await find(service) == {("damaged-original", short)} | {
        ("overdue-tombstone", key) for key in (lost, deleted)
    }


async def test_a_waveform_that_is_absent_or_damaged_is_forgotten_and_a_sound_one_stays(
    service: RecordsService,
) -> None:
    keys = [make_waveform_key(key) for key in await make_keys(service, 5)]
    absent, short, wrong, in_row, _ = keys
    await service.store.remove(absent)
    await service.store.put(short, b"short")
    await service.store.put(wrong, bytes(len(await service.read_object(wrong))))
    # As the version before made records.
    await service.store.remove(in_row)
    await service.query(
        "UPDATE records SET waveform = 'peaks', waveform_size_bytes = NULL, waveform_sha256 = NULL"
        " WHERE object_key = :key",
        key=in_row.replace(".waveform", ".mp3"),
    )
    orphan, running = (make_waveform_key(make_key()) for _ in range(2))
    await reserve(service, running.replace(".waveform", ".mp3"), "1 minute")
    for key in (orphan, running):
        await service.store.put(key, b"waveform")
    expected = {("lost-waveform", absent), ("lost-waveform", short), ("orphan", orphan)}
    assert await find(service) == expected
    assert await find(service, is_deep=True) == expected | {("lost-waveform", wrong)}
    assert await repair(service) == set()
    assert await find(service, is_deep=True) == set()
    rows = await service.query("SELECT object_key FROM records WHERE waveform_samples_per_pixel IS NULL")
    assert {row.object_key for row in rows} >= {
        key.replace(".waveform", ".mp3") for key in (absent, short, wrong)
    }
    assert not await service.query("SELECT id FROM records WHERE lost_at IS NOT NULL")
    for _ in range(2):
        await service.sweep()
        await service.query(
            "UPDATE records SET gone_since = gone_since - interval '1 day', lease_until = now()"
            " WHERE state = 'deleting'"
        )
    assert [
        each.key async for each in service.store.list_objects() if each.key.endswith("waveform")
    ] == sorted([keys[-1], running])


async def test_a_repair_looks_once_more(service: RecordsService) -> None:
    lost, deleted = await make_keys(service, 2)
    mp3 = await service.read_object(lost)
    orphan, upload_alone = make_key(), make_key()
    for key in (lost, deleted):
        await service.store.remove(key)
    await service.store.put(orphan, b"orphan")
    await service.store.begin(upload_alone)
    doctor = Doctor(service.engine, service.store, NO_AGE)
    findings = [finding async for finding in doctor.look()]
    assert {finding.object_key for finding in findings} == {lost, deleted, orphan, upload_alone}
    await service.store.put(lost, mp3)
    await service.query("UPDATE records SET state = 'deleting' WHERE object_key = :key", key=deleted)
    for key in (orphan, upload_alone):
        await reserve(service, key, "1 minute")
    assert [await doctor.repair(finding) for finding in findings] == [False] * 4
    assert await service.read_object(orphan) == b"orphan"
    assert [each.key async for each in service.store.list_multipart_uploads()] == [upload_alone]
    assert await service.query("SELECT id FROM records WHERE lost_at IS NOT NULL") == []


@pytest.mark.parametrize("is_done", [False, True], ids=["before its effect", "after its effect"])
async def test_the_next_repair_finishes_one_that_was_killed_at_any_call(
    service: RecordsService, is_done: bool
) -> None:
    chosen = calls = 0
    while chosen <= calls:
        # A waveform that is left of the last time would be read, too.
        await clear(service)
        (lost,) = await make_keys(service, 1)
        await service.store.remove(lost)
        orphan, upload_alone = make_key(), make_key()
        await service.store.put(orphan, b"orphan")
        await service.store.begin(upload_alone)
        calls = 0

        async def watch(call: Call, chosen: int = chosen) -> None:
            nonlocal calls
            calls += not call.is_done
            # No further call has an effect, as after a SIGKILL.
            if calls > chosen + 1 or (calls == chosen + 1 and call.is_done == is_done):
                raise aiohttp.ClientConnectionError if call.process == "minio" else ConnectionError

        with suppress(Unavailable):
            await repair(service, CallWatcher(watch))
        assert await repair(service) == set()
        assert await find(service, is_deep=True) == set()
        chosen += 1
    assert chosen > 10


async def test_nothing_young_is_judged(service: RecordsService) -> None:
    expected, _ = await break_something(service)
    # Only the overdue rows are hours old.
    old = {finding for finding in expected if finding[0].startswith("overdue")}
    assert await find(service, min_age=longest_late_put(service.settings.lease_seconds)) == old


async def test_a_deep_look_finds_objects_that_differ_from_their_rows(
    stack: Stack, service: RecordsService
) -> None:
    _, wrong, short, unreadable = await make_keys(service, 4)
    mp3 = await service.read_object(wrong)
    await service.store.put(wrong, bytes(len(mp3)))
    await service.query(
        "UPDATE records SET duration_seconds = duration_seconds + 1 WHERE object_key = :key", key=short
    )
    # MinIO keeps an object of this size in a file of its own.
    await service.store.put(unreadable, bytes(300_000))
    await service.query("UPDATE records SET size_bytes = 300000 WHERE object_key = :key", key=unreadable)
    bucket = stack.supervisor.log("users").parents[1] / "minio" / service.settings.store.s3_bucket
    (part,) = (bucket / unreadable).glob("*/part.1")
    part.write_bytes(part.read_bytes()[:1000] + b"damaged" + part.read_bytes()[1007:])
    assert await find(service) == set()
    expected = {("wrong-sha256", wrong), ("wrong-info-frame", short), ("unreadable", unreadable)}
    assert await find(service, is_deep=True) == expected
    assert await repair(service) == expected - {("wrong-sha256", wrong)}
    (marked,) = await service.query("SELECT object_key FROM records WHERE lost_at IS NOT NULL")
    assert marked.object_key == wrong


async def test_a_record_whose_mp3_is_restored_is_no_longer_lost(service: RecordsService) -> None:
    (key,) = await make_keys(service, 1)
    mp3 = await service.read_object(key)
    await service.store.remove(key)
    assert await repair(service) == set()
    # A marked record is no finding, whether its object is absent or wrong.
    assert await find(service, is_deep=True) == set()
    await service.store.put(key, bytes(len(mp3)))
    assert await find(service) == set()
    await service.store.put(key, mp3)
    assert await find(service) == {("found-again", key)}
    assert await repair(service) == set()
    (row,) = await service.query("SELECT lost_at FROM records")
    assert row.lost_at is None


async def act_at_each_call(
    service: RecordsService,
    is_deep: bool,
    prepare: Callable[[], Awaitable[Callable[[], Awaitable[object]]]],
) -> None:
    """Lets the doctor look again and again, each time with an action before another one of its calls, and
    checks that it never finds anything.
    """
    moments = chosen = 0
    while chosen <= moments:
        act = await prepare()
        moments = 0

        async def watch(call: Call, act: Callable[[], Awaitable[object]] = act, chosen: int = chosen) -> None:
            nonlocal moments
            moments += not call.is_done
            if not call.is_done and moments == chosen + 1:
                await act()

        assert await find(service, is_deep=is_deep, watcher=CallWatcher(watch)) == set()
        if chosen == moments:
            await act()
        chosen += 1
    assert moments > 5


@DEEP_OR_NOT
async def test_a_deletion_at_any_moment_is_no_finding(service: RecordsService, is_deep: bool) -> None:
    async def prepare() -> Callable[[], Awaitable[object]]:
        user_id, credentials = await service.make_user()
        record_id = await upload(service, credentials, keeps_original=True)

        async def delete() -> None:
            await sql.delete_record(service.engine, record_id, user_id)
            await service.settle(user_id)
            assert await service.rows(user_id) == []

        return delete

    await act_at_each_call(service, is_deep, prepare)


async def test_the_deletion_of_an_original_at_any_moment_is_no_finding(service: RecordsService) -> None:
    async def prepare() -> Callable[[], Awaitable[object]]:
        await clear(service)
        user_id, credentials = await service.make_user()
        record_id = await upload(service, credentials, keeps_original=True)

        async def delete() -> None:
            await sql.delete_original(service.engine, record_id, user_id)
            await service.settle(user_id)
            assert len(await service.objects(user_id)) == 2

        return delete

    await act_at_each_call(service, True, prepare)


@DEEP_OR_NOT
async def test_an_upload_that_is_published_at_any_moment_is_no_finding(
    service: RecordsService, is_deep: bool
) -> None:
    async def prepare() -> Callable[[], Awaitable[object]]:
        await clear(service)
        paused = PausedUpload(service, KEPT, before_publish)
        await paused.start()
        return paused.resume

    await act_at_each_call(service, is_deep, prepare)


async def test_beside_uploads_deletions_and_a_sweeper_nothing_is_found(service: RecordsService) -> None:
    async def live() -> None:
        user_id, credentials = await service.make_user()
        for _ in range(3):
            await upload(service, credentials, keeps_original=True)
            record_id = await upload(service, credentials, keeps_original=True)
            await sql.delete_record(service.engine, record_id, user_id)
            for _ in range(2):
                await service.sweep()
                await service.age(user_id)

    living = asyncio.gather(*(live() for _ in range(3)))
    looks = 0
    while not living.done():
        assert await find(service, is_deep=bool(looks % 2)) == set()
        looks += 1
    await living
    assert looks > 2
    assert await find(service, is_deep=True) == set()


@DEEP_OR_NOT
async def test_a_store_or_a_database_that_goes_away_is_no_finding(
    service: RecordsService, is_deep: bool
) -> None:
    await make_keys(service, 1)
    failures = chosen = calls = 0
    while chosen <= calls:
        calls = 0

        async def watch(call: Call, chosen: int = chosen) -> None:
            nonlocal calls
            calls += not call.is_done
            if not call.is_done and calls == chosen + 1:
                raise aiohttp.ClientConnectionError if call.process == "minio" else ConnectionError

        try:
            assert await find(service, is_deep=is_deep, watcher=CallWatcher(watch)) == set()
        except Unavailable:
            failures += 1
        chosen += 1
    # The doctor reads an object again, MP3 or waveform, if the store is there after all.
    assert failures == chosen - 1 - (2 if is_deep else 0)


async def test_while_the_doctor_looks_it_holds_no_snapshot(
    service: RecordsService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql, "FETCH_ROWS", 1)
    keys = await make_keys(service, 3)
    read = []
    async for row in sql.read_rows_for_doctor(service.engine, NO_AGE, NO_AGE):
        read.append(row.object_key)
        # A snapshot would keep the vacuum from removing what was deleted since.
        assert not await service.query(
            "SELECT query FROM pg_stat_activity WHERE datname = current_database()"
            " AND usename = 'waxwing_records_login' AND (backend_xmin IS NOT NULL OR xact_start IS NOT NULL)"
        )
    assert read == sorted([*keys, *map(make_waveform_key, keys)])


async def test_a_store_that_does_not_list_in_order_is_refused(
    service: RecordsService, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [FoundObject(f"{name}.mp3", 1, NEVER) for name in "ba"]

    async def list_objects() -> AsyncIterator[FoundObject]:
        for each in found:
            yield each

    monkeypatch.setattr(service.store, "list_objects", list_objects)
    doctor = Doctor(service.engine, service.store, NO_AGE)
    with pytest.raises(DoctorError, match="order"):
        assert [each async for each in doctor.look()]


# Runs `python -m records doctor` with these arguments; returns exit status, output and error output.
Run = Callable[..., Awaitable[tuple[int, str, str]]]


@pytest.fixture
def run(service: RecordsService, capfd: pytest.CaptureFixture[str]) -> Run:
    async def run(*arguments: str, **changed: str) -> tuple[int, str, str]:
        environ = {**service.environment, **changed}
        # What the test's own uploads have logged.
        capfd.readouterr()
        status = await asyncio.to_thread(commands.main, ["doctor", *arguments], environ)
        printed = capfd.readouterr()
        return status, printed.out, printed.err

    return run


class Terminal(io.StringIO):
    """A standard input at which somebody types."""

    def isatty(self) -> bool:
        return True


async def lose(service: RecordsService, count: int = 1) -> list[str]:
    """Uploads records, old enough for the command, and removes their objects. Returns their keys."""
    keys = await make_keys(service, count)
    for key in keys:
        await service.store.remove(key)
    await service.query("UPDATE records SET published_at = published_at - interval '1 day'")
    return keys


async def test_sums_that_are_not_those_of_the_records_are_found_and_summing_up_again_mends_them(
    service: RecordsService,
) -> None:
    (key, _) = await make_keys(service, 2)
    await service.query("UPDATE users SET total_bytes = total_bytes + 1 WHERE record_count = 2")
    user_prefix = key[: key.index("/") + 1]
    assert await find(service) == {("wrong-sums", user_prefix)}
    assert await repair(service) == {("wrong-sums", user_prefix)}
    (statement,) = re.findall(r'-c "(UPDATE users [^"]+)"', (ROOT / "docs/operate.md").read_text())
    await service.query(re.sub(":", r"\:", statement))
    assert await find(service) == set()


async def test_the_command_reports_and_repairs_only_if_it_may(
    service: RecordsService, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, out, err = await run()
    assert (status, err) == (0, "")
    assert out.startswith("clean: 0 records (0 marked as lost, 0 with their original), ")
    (key,) = await lose(service)
    status, out, err = await run("--deep", "--rate", "1000000")
    head, finding, summary = out.splitlines()
    assert (status, err, head.split()) == (1, "", ["FINDING", "OBJECT", "KEY", "DETAIL"])
    assert finding.split()[:2] == ["lost-object", key]
    assert summary.startswith(
        "1 finding (1 lost-object), 0 repaired: 1 record (0 marked as lost, 0 with their original), "
    )
    status, out, err = await run("--repair")
    assert (status, out, err) == (2, "", "waxwing: without a terminal --repair needs --yes\n")
    for answer, repaired in (("\n", 0), ("n\n", 0), ("y\n", 1)):
        monkeypatch.setattr(sys, "stdin", Terminal(answer))
        status, out, err = await run("--repair")
        assert (status, err) == (1, "1 to mark as lost? [y/N] ")
        assert f", {repaired} repaired: " in out
    status, out, _ = await run("--repair", "--yes")
    assert status == 0
    assert out.startswith("clean: 1 record (1 marked as lost, 0 with their original), ")
    await service.query("UPDATE records SET state = 'deleting'")
    assert (await run())[1].startswith("clean: 0 records (0 marked as lost, 0 with their original), ")


async def test_the_command_prints_no_control_characters_of_a_key(service: RecordsService, run: Run) -> None:
    await lose(service)
    await service.query("UPDATE records SET object_key = :key", key="a\nb\x1b[2J\u202ecü/x.mp3")
    status, out, _ = await run()
    assert status == 1
    assert r"  a\nb\x1b[2J\u202ecü/x.mp3  " in out


async def test_the_command_prints_json_for_programs(service: RecordsService, run: Run) -> None:
    (key,) = await lose(service)
    status, out, err = await run("--json", "--repair", "--yes")
    assert (status, err) == (1, "")
    finding, repaired, summary = map(json.loads, out.splitlines())
    assert finding == {"finding": "lost-object", "object_key": key, "detail": finding["detail"]}
    assert repaired == {"repaired": "lost-object", "object_key": key}
    assert summary == {
        "findings": {"lost-object": 1},
        "repaired": {"lost-object": 1},
        "seen": {
            "ready": 1,
            **dict.fromkeys(("uploading", "deleting", "marked_as_lost", "originals"), 0),
            "waveforms": 1,
            "objects": 1,
            "bytes": 2 * 7,
            **dict.fromkeys(("read_bytes", "multipart_uploads"), 0),
        },
        "seconds": summary["seconds"],
    }
    assert [*map(json.loads, (await run("--json"))[1].splitlines())] == [
        {
            "findings": {},
            "repaired": {},
            "seen": {**summary["seen"], "marked_as_lost": 1},
            "seconds": pytest.approx(0, abs=60),
        }
    ]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (
            {"DATABASE_URL": "postgresql://waxwing_records_login@127.0.0.1:{port}/doctor"},
            "PostgreSQL does not",
        ),
        ({"DATABASE_URL": "{database_url}"}, 'PostgreSQL refuses: .*"absent" does not exist'),
        ({"DATABASE_PASSWORD": "wrong"}, "PostgreSQL does not answer"),
        ({"S3_ENDPOINT": "http://127.0.0.1:{port}"}, "The object store does not answer"),
        ({"S3_SECRET_KEY": "wrong"}, "The object store refuses the request with the error"),
        ({"S3_BUCKET": "absent"}, "The object store refuses the request|The bucket is missing"),
        ({"S3_ENDPOINT": ""}, "wrong setting: S3_ENDPOINT is not set"),
        ({"LOG_LEVEL": "loud"}, "wrong setting: LOG_LEVEL"),
    ],
    ids=str,
)
async def test_a_command_that_cannot_look_says_why_and_its_status_is_2(
    service: RecordsService, run: Run, changed: dict[str, str], says: str
) -> None:
    (port,) = free_ports(1)
    url = make_url(service.settings.database_url).set(database="absent").render_as_string()
    status, out, err = await run(
        **{name: value.format(port=port, database_url=url) for name, value in changed.items()}
    )
    assert (status, out) == (2, "")
    assert re.match(f"waxwing: ({says})", err)
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [["--rate", "1"], ["--yes"], ["--deep", "--rate", "0"], ["--dep"]], ids=str
)
async def test_wrong_arguments_have_the_status_2(run: Run, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as refusal:
        await run(*arguments)
    assert refusal.value.code == 2


async def test_a_bucket_that_is_probably_the_wrong_one_is_repaired_only_on_a_terminal(
    service: RecordsService, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "MANY_FINDINGS", 3)
    # So that the rows are several pages.
    monkeypatch.setattr(sql, "FETCH_ROWS", 2)
    keys = await lose(service, 5)
    status, _, err = await run("--repair", "--yes")
    assert status == 2
    assert "nothing is repaired (5 to mark as lost)" in err
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    status, out, err = await run("--repair")
    assert status == 1
    assert "Most of this deployment! Is it the right bucket, and the right database? [y/N]" in err
    assert {line.split()[1] for line in out.splitlines()[1:-1]} == {*keys}
    assert ", 5 repaired: " in out


async def test_reading_keeps_the_rate(service: RecordsService, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = await make_keys(service, 2)
    sizes = [len(await service.read_object(key)) for key in keys]
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    doctor = Doctor(service.engine, service.store, NO_AGE, is_deep=True, bytes_per_second=1)
    monkeypatch.setattr("records.doctor.asyncio.sleep", pause)
    assert [each async for each in doctor.look()] == []
    assert max(pauses) == pytest.approx(sum(sizes), rel=0.1)


async def test_the_row_of_a_deleted_record_says_since_when(service: RecordsService) -> None:
    user_id, credentials = await service.make_user()
    await sql.delete_record(service.engine, await upload(service, credentials), user_id)
    (row,) = [row for row in await service.rows(user_id) if row.published_at]
    assert row.deleted_at >= row.published_at


async def test_the_link_of_a_lost_record_is_410_and_everything_else_of_the_record_works(
    client: Client, user: dict[str, Any], stack_service: RecordsService
) -> None:
    headers = {**bearer(user), **WAV_TYPE, "Idempotency-Key": "lost"}
    record = assert_json(client.http.post("/records", content=TINY_WAV, headers=headers), 201)
    # The gateway's cache has the MP3.
    for _ in range(2):
        client.download(record["url"])
    assert await sql.mark_lost(stack_service.engine, UUID(record["id"]))
    etag = f'"{record["sha256"]}"'
    for sent in ({}, {"Range": "bytes=0-9"}, {"If-None-Match": etag}, {"If-Match": '"other"'}):
        assert_problem(client.http.get(record["url"], headers=sent), 410, "lost-record", "operator")
    for link in (record["url"], record["listen_url"], record["listen_url"].replace("/listen", "/listen.png")):
        assert client.http.head(link).status_code == client.http.get(link).status_code == 410
    page = client.http.get(record["url"], headers={"Accept": "text/html"})
    assert (page.status_code, page.headers["Content-Type"]) == (410, "text/html; charset=utf-8")
    path = f"/records/{record['id']}"
    shown = assert_json(client.http.get(path, headers=bearer(user)), 200)
    assert shown == {**record, "lost_at": shown["lost_at"]}
    assert shown["lost_at"] > shown["created_at"]
    assert assert_json(client.http.get("/records", headers=bearer(user)), 200)["records"] == [shown]
    # The same upload again, with its key, stores a new record instead of returning the lost one.
    again = assert_json(client.http.post("/records", content=TINY_WAV, headers=headers), 201)
    assert again["id"] != record["id"]
    assert len(client.download(again["url"])) == again["size_bytes"]
    assert client.http.get(f"{path}/waveform?user={user['id']}").status_code == 200
    assert client.http.delete(path, headers=bearer(user)).status_code == 204
    assert_problem(client.http.get(record["url"]), 404, "unknown-record")
    assert not await sql.mark_lost(stack_service.engine, UUID(record["id"]))


def test_the_recipe_looks_at_the_local_stack(stack: Stack, client: Client, user: dict[str, Any]) -> None:
    client.upload_stream([TINY_WAV], user["token"])
    folder = stack.supervisor.log("users").parents[1]
    done = subprocess.run(
        [sys.executable, "-m", "deploy.local", "doctor", "--json"],
        cwd=ROOT,
        env={**stack.environment("records"), "WAXWING_FOLDER": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    # Other tests may have removed objects of this stack.
    assert (done.returncode in (0, 1), done.stderr) == (True, "")
    assert json.loads(done.stdout.splitlines()[-1])["seen"]["objects"] > 0


@pytest.mark.parametrize("arguments", [["doctor"], ["remove", str(uuid4())]], ids=["doctor", "remove"])
def test_without_a_stack_the_recipe_has_the_status_2(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "absent"
    monkeypatch.setenv("WAXWING_FOLDER", str(folder))
    assert run_local_command(arguments) == 2
    assert not folder.exists()
    printed = capfd.readouterr()
    assert printed.out == ""
    assert "the stack does not run: `./just up -d` starts it" in printed.err
