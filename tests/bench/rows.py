"""What grows with the number of records: the check, searches, the sums of a user, deletions, the sweeper."""

import asyncio
import os
import random
import statistics
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta

import httpx

from deploy.client import Client
from deploy.local import postgres
from deploy.local.stack import Stack
from records import sql
from records.audio import Properties
from records.storage import REQUEST_TIMEOUT_SECONDS, StoredObject, make_waveform_key
from records.sweeper import BATCH, GRACE, sweep
from tests.bench.downloads import latency
from tests.bench.results import Row
from tests.integration.records_service import RecordsService, open_stack_service
from tests.stacks import temporary_stack

# A tenth of the records, in the middle of all, belongs to one user; the rest belongs to a thousand others.
OTHER_USERS = 1000
FEW = 1000
CHECK_MANY = """\
local paths = {{ {paths} }}
local next = 0
request = function()
    next = next % #paths + 1
    return wrk.format("GET", paths[next], {{ ["If-None-Match"] = "*", ["Host"] = "localhost" }})
end
"""
MAKE_USERS = "INSERT INTO users (id, name) SELECT gen_random_uuid(), 'Other' FROM generate_series(1, 1000)"
FILL = """\
INSERT INTO {table} (id, user_id, state, object_key, size_bytes, sha256, duration_seconds, sample_rate,
                     channels, bitrate_kbps, published_at, idempotency_key, title, waveform_samples_per_pixel,
                     {columns})
SELECT gen_random_uuid(), CASE WHEN number % 10 = 0 THEN '{user_id}' ELSE others[1 + number % {others}] END,
       'ready', gen_random_uuid(), 160000, sha256('x'), number / 3.0, 44100, 2, 128,
       now() - interval '2 days',
       CASE WHEN number % 5 = 0 THEN number::text END,
       (ARRAY['Rehearsal', 'Репетиция', 'Lecture', 'Лекция', 'Interview'])[1 + number % 7] || ' '
       || md5(number::text), 256, {values}
FROM generate_series({first}, {last}) AS number,
     (SELECT array_agg(id) AS others FROM users WHERE name = 'Other') AS users
"""
SOME_OF_USER = "SELECT id FROM records WHERE user_id = '{user_id}' ORDER BY random() LIMIT 1000"
# What a row has of its waveform: the facts about the object, or as before the waveform itself, which
# PostgreSQL cannot compress.
WAVEFORM_BYTES = 24_000
IN_STORE = ("waveform_size_bytes, waveform_sha256", f"{WAVEFORM_BYTES}, sha256('x')")
# 750 digests of 32 bytes.
IN_ROW = (
    "waveform",
    "(SELECT string_agg(sha256(digest::text::bytea), '') FROM generate_series(1, 750) AS digest)",
)
SIZED = 10_000
# The last word of each title.
SOME_WORDS = (
    "SELECT right(title, 32) FROM records WHERE user_id = '{user_id}' AND title IS NOT NULL"
    " ORDER BY random() LIMIT 1000"
)
SEARCHES = 200
DELETED_RECORDS = 2000
PUBLISHED = 400


def measure_rows(count: int) -> Iterator[list[Row]]:
    """Fills a stack's database with `count` records, and yields the rows of each measurement."""
    # The stack's own sweeper sweeps once, before there is anything, and leaves the rest to the bench.
    with temporary_stack({"SWEEP_SECONDS": "1000000"}, say=print) as stack:
        with Client(stack.base_url) as client:
            user, small = client.create_user("Bench"), client.create_user("Small")
        psql(stack, MAKE_USERS)
        yield [measure_size(stack, user["id"])]
        fill(stack, user["id"], 1, FEW)
        few = measure_check(stack, user["id"])
        began = time.perf_counter()
        step = 100_000
        for first in range(FEW + 1, count + 1, step):
            fill(stack, user["id"], first, min(first + step - 1, count))
        yield [
            (
                "filling with records",
                f"{(count - FEW) / (time.perf_counter() - began):.0f} /s",
                "with triggers",
            )
        ]
        psql(stack, "VACUUM ANALYZE records")
        many = measure_check(stack, user["id"])
        yield [
            (
                f"the check among {count:,} records / among {FEW:,}, p99",
                f"{many[2] / few[2]:.2f}",
                f"{many[2]:.1f} ms / {few[2]:.1f} ms; p50 {many[0]:.1f} ms / {few[0]:.1f} ms",
            )
        ]
        yield measure_searches(stack, user, count)
        yield measure_profile(stack, user, small)
        yield asyncio.run(measure_service(stack, user))


def fill(
    stack: Stack,
    user_id: str,
    first: int,
    last: int,
    table: str = "records",
    waveform: tuple[str, str] = IN_STORE,
) -> None:
    columns, values = waveform
    numbers = {"others": OTHER_USERS, "first": first, "last": last}
    psql(stack, FILL.format(user_id=user_id, table=table, columns=columns, values=values, **numbers))


def measure_size(stack: Stack, user_id: str) -> Row:
    """Compares the disk that a record takes with its waveform in its row, and in the store."""
    sizes = []
    for waveform in (IN_ROW, IN_STORE):
        psql(stack, "CREATE TABLE sized (LIKE records INCLUDING ALL)")
        fill(stack, user_id, 1, SIZED, "sized", waveform)
        sizes.append(int(psql(stack, "SELECT pg_total_relation_size('sized')")) / SIZED)
        psql(stack, "DROP TABLE sized")
    before, now = sizes
    return (
        "bytes of PostgreSQL for a record, waveform in its row / in the store",
        f"{before / now:.0f}",
        f"{before:,.0f} / {now:,.0f}, with all indexes; a waveform of {WAVEFORM_BYTES:,} bytes",
    )


def measure_check(stack: Stack, user_id: str) -> tuple[float, float, float]:
    """Returns p50, p95 and p99 in ms, the best of three turns."""
    psql(stack, "ANALYZE records")
    ids = psql(stack, SOME_OF_USER.format(user_id=user_id)).split()
    paths = ",".join(f'"/record?id={each}&user={user_id}"' for each in ids)
    turns = [latency(stack.base_url, 5, CHECK_MANY.format(paths=paths)) for _ in range(3)]
    return min(turns, key=lambda turn: turn[2])


def measure_searches(stack: Stack, user: dict[str, str], count: int) -> list[Row]:
    """Measures searches of the user with a tenth of the records: one at a time, through the gateway."""
    words = psql(stack, SOME_WORDS.format(user_id=user["id"])).split()
    chosen = random.Random(1)
    kinds: dict[str, Callable[[], str]] = {
        "a word that every seventh title has": lambda: "репетиция",
        "eight characters that one title has": lambda: chosen.choice(words)[:8],
        "a word that no title has": lambda: f"absent{chosen.random()}",
        "two characters": lambda: chosen.choice(words)[:2],
        "two characters that no title has": lambda: "zz",
    }
    rows: list[Row] = []
    with httpx.Client(base_url=stack.base_url, auth=(user["id"], user["token"])) as http:
        for kind, choose in kinds.items():
            times = []
            for _ in range(SEARCHES):
                began = time.perf_counter()
                page = http.get("/records", params={"q": choose()}).raise_for_status().json()
                times.append(1000 * (time.perf_counter() - began))
            p50, p99 = statistics.median(times), statistics.quantiles(times, n=100)[98]
            found = f"p50 {p50:.1f} ms; the last page had {len(page['records'])} records"
            rows.append((f"a search among {count:,} records for {kind}, p99", f"{p99:.1f} ms", found))
    return rows


def measure_profile(stack: Stack, user: dict[str, str], small: dict[str, str]) -> list[Row]:
    """Compares GET /users/me of the two users."""
    times: dict[str, list[float]] = {user["id"]: [], small["id"]: []}
    with httpx.Client(base_url=stack.base_url) as http:
        for _ in range(100):
            for each in (user, small):
                began = time.perf_counter()
                profile = http.get("/users/me", auth=(each["id"], each["token"])).raise_for_status().json()
                times[each["id"]].append(1000 * (time.perf_counter() - began))
                if each is user:
                    records = profile["record_count"]
    large, none = (statistics.median(times[each["id"]]) for each in (user, small))
    return [
        (
            f"GET /users/me with {records:,} records / with none, median",
            f"{large / none:.2f}",
            f"{large:.1f} ms / {none:.1f} ms; slowest {max(times[user['id']]):.1f} ms",
        )
    ]


async def measure_service(stack: Stack, user: dict[str, str]) -> list[Row]:
    """Measures publishing, the sweeper's steps and the deletion of the user."""
    rows: list[Row] = []
    async with open_stack_service(stack) as service:
        rows.append(await measure_publishing(service))
        rows.append(
            await measure_step(
                "idempotency keys forgotten", lambda: sql.forget_old_idempotency_keys(service.engine, BATCH)
            )
        )
        rows.append(await measure_tombstones(service))
        began = time.perf_counter()
        async with httpx.AsyncClient(base_url=stack.base_url) as http:
            deletion = await http.delete("/users/me", auth=(user["id"], user["token"]))
            deletion.raise_for_status()
        rows.append(
            ("DELETE /users/me of the same user", f"{1000 * (time.perf_counter() - began):.0f} ms", "once")
        )
        rows.append(
            await measure_step(
                "records of a deleted user made tombstones",
                lambda: sql.delete_records_of_deleted_users(service.engine, BATCH),
            )
        )
    return rows


async def measure_step(what: str, step: Callable[[], Awaitable[int]]) -> Row:
    """Repeats a step of the sweeper until it finds nothing."""
    done, slowest, began = 0, 0.0, time.perf_counter()
    while True:
        batch_began = time.perf_counter()
        count = await step()
        slowest = max(slowest, time.perf_counter() - batch_began)
        if not count:
            break
        done += count
    seconds = time.perf_counter() - began
    return what, f"{done / seconds:.0f} /s", f"{done:,} in {seconds:.1f} s; the slowest batch {slowest:.2f} s"


async def measure_tombstones(service: RecordsService) -> Row:
    """Deletes records with MP3 and waveform in the store; counts both looks of one sweeper."""
    user_id, _ = await service.make_user()
    rows = await service.query(
        "INSERT INTO records (id, user_id, lease_until, object_key, size_bytes)"
        " SELECT gen_random_uuid(), :id, now(), 'bench/' || gen_random_uuid() || '.mp3', 160000"
        " FROM generate_series(1, :count) RETURNING object_key",
        id=user_id,
        count=DELETED_RECORDS,
    )
    slots, body = asyncio.Semaphore(32), os.urandom(160_000)

    async def put(key: str) -> None:
        async with slots:
            await service.store.put(key, body)
            await service.store.put(make_waveform_key(key), body[:WAVEFORM_BYTES])

    await asyncio.gather(*(put(row.object_key) for row in rows))
    await service.query(
        "UPDATE records SET state = 'deleting', lease_until = NULL WHERE user_id = :id", id=user_id
    )
    looks = []
    for _ in range(2):
        began = time.perf_counter()
        while await sweep(service.engine, service.store, service.settings.lease_seconds):
            pass
        looks.append(time.perf_counter() - began)
        await service.age(user_id)
    assert await service.rows(user_id) == []
    wait = GRACE + timedelta(seconds=service.settings.lease_seconds + REQUEST_TIMEOUT_SECONDS)
    return (
        "deletions of one sweeper, with an MP3 and a waveform each",
        f"{DELETED_RECORDS / sum(looks):.0f} /s",
        f"{DELETED_RECORDS:,} of 160 KB: the first look {looks[0]:.1f} s, the last one {looks[1]:.1f} s,"
        f" {wait.total_seconds():.0f} s apart",
    )


async def measure_publishing(service: RecordsService) -> Row:
    """Compares reservation and publishing with the triggers and without, in turns."""
    _, credentials = await service.make_user()
    times: dict[bool, list[float]] = {True: [], False: []}
    for turn in range(20):
        with_triggers = turn % 2 == 0
        switch = "ENABLE" if with_triggers else "DISABLE"
        for event in ("insert", "update"):
            await service.query(f"ALTER TABLE records {switch} TRIGGER sum_up_records_after_{event}")
        for _ in range(PUBLISHED // 20):
            began = time.perf_counter()
            reservation = await sql.reserve(service.engine, credentials, 30)
            assert isinstance(reservation, sql.Reservation)
            finished = sql.FinishedUpload(
                None,
                StoredObject(160_000, bytes(32)),
                Properties(10.0, 44100, 2, 128, -1.0, -10.0, truncated=False, clipped=False),
                StoredObject(WAVEFORM_BYTES, bytes(32)),
                *(256, 128, None),
            )
            assert await sql.publish(service.engine, reservation, finished, service.settings)
            times[with_triggers].append(1000 * (time.perf_counter() - began))
    for event in ("insert", "update"):
        await service.query(f"ALTER TABLE records ENABLE TRIGGER sum_up_records_after_{event}")
    kept, without = (statistics.median(times[each]) for each in (True, False))
    return (
        "a record's two statements with the triggers / without, median",
        f"{kept / without:.2f}",
        f"{kept:.2f} ms / {without:.2f} ms; an upload also encodes and stores",
    )


def psql(stack: Stack, statement: str) -> str:
    """Runs a statement, and returns its result as text."""
    done = subprocess.run(
        [*postgres.psql_command(stack.ports.postgres), "-qAt", "-c", statement],
        env=postgres.psql_environment(stack.secrets["postgres"]),
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout
