"""What the bench measures of the doctor: time and peak memory, with ever more rows and objects."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator

from deploy.local.stack import Stack
from records.form import AudioBegins, FormItem
from tests.bench.results import Row
from tests.integration.records_service import RecordsService, open_isolated_service
from tests.upload_requests import TINY_WAV

# The numbers of objects and of rows. Each object has a row; the other rows are uploads under way, which need
# no object. MinIO takes hours to store a million objects, so there are no more.
STEPS = ((1_000, 10_000), (10_000, 100_000), (100_000, 1_000_000))
DEEP_OBJECTS = 1_000
USERS = 1_000
# So few that they stay below the limit of a statement also on a busy machine.
ROWS_AT_ONCE = 5_000
PUTS_AT_ONCE = 16

MAKE_USERS = (
    f"INSERT INTO users (id, name) SELECT gen_random_uuid(), 'Bench' FROM generate_series(1, {USERS})"  # noqa: S608
)
# Each new record is a copy of the one record that was uploaded, and belongs to any user.
COPY_RECORDS = """
INSERT INTO records (id, user_id, state, lease_until, object_key, size_bytes, sha256, duration_seconds,
    sample_rate, channels, bitrate_kbps, published_at)
SELECT new.id, new.user_id, :state, now() + interval '1 day', new.user_id || '/' || new.id || '.mp3',
    size_bytes, sha256, duration_seconds, sample_rate, channels, bitrate_kbps,
    published_at - interval '1 day'
FROM (
    SELECT gen_random_uuid() AS id, owners[1 + mod(number, cardinality(owners))] AS user_id
    FROM generate_series(1, :count) AS number, (SELECT array_agg(id) AS owners FROM users) AS users
) AS new, records
WHERE records.id = :copied
RETURNING object_key
"""

# Behind its output the command prints its exit status, the kernel's line with its peak memory, and its CPU
# time.
MEASURED_COMMAND = """
import os, pathlib, sys, time
from records import commands
print(commands.main(sys.argv[1:], os.environ))
status = pathlib.Path("/proc/self/status").read_text()
print(next(line for line in status.splitlines() if line.startswith("VmHWM")))
print(time.process_time())
"""


async def measure_doctor(stack: Stack) -> AsyncIterator[Row]:
    """Measures the command `doctor` on a database and a bucket of its own, which are in order."""
    async with open_isolated_service(stack, "doctor-bench") as service:
        _, credentials = await service.make_user()
        uploads = service.uploads()
        record = (await uploads.store_record(_tiny_body(), credentials)).record
        await uploads.close()
        mp3 = await service.read_object(f"{record.user_id}/{record.id}.mp3")
        await service.query(MAKE_USERS)
        objects = rows = 0
        for more_objects, more_rows in STEPS:
            keys = await _copy(service, record.id, "ready", more_objects - objects)
            slots = asyncio.Semaphore(PUTS_AT_ONCE)
            await asyncio.gather(*(_put(service, slots, key, mp3) for key in keys))
            await _copy(service, record.id, "uploading", more_rows - more_objects - (rows - objects))
            objects, rows = more_objects, more_rows
            size = f"{objects:,} objects and {rows:,} rows"
            yield await asyncio.to_thread(_run, service, f"doctor, {size}")
            if objects == DEEP_OBJECTS:
                yield await asyncio.to_thread(_run, service, f"doctor --deep, {size}", "--deep")


async def _tiny_body() -> AsyncIterator[FormItem]:
    yield AudioBegins()
    yield TINY_WAV


async def _copy(service: RecordsService, copied: object, state: str, count: int) -> list[str]:
    keys: list[str] = []
    for start in range(0, count, ROWS_AT_ONCE):
        more = min(ROWS_AT_ONCE, count - start)
        made = await service.query(COPY_RECORDS, copied=copied, state=state, count=more)
        keys += [row.object_key for row in made]
    return keys


async def _put(service: RecordsService, slots: asyncio.Semaphore, key: str, mp3: bytes) -> None:
    async with slots:
        await service.store.put(key, mp3)


def _run(service: RecordsService, what: str, *options: str) -> Row:
    """Runs the command in a process of its own, which then says how much memory it has used."""
    environment = {**os.environ, **service.environment}
    command = [sys.executable, "-c", MEASURED_COMMAND, "doctor", "--json", *options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    *_, last_line, status, peak, cpu_seconds = done.stdout.splitlines()
    summary = json.loads(last_line)
    seconds = summary["seconds"]
    read = f", {summary['seen']['read_bytes'] / seconds / 1e6:.1f} MB/s read" if options else ""
    return (
        f"{what}: peak memory",
        f"{int(peak.split()[1]) / 1024:.0f} MiB",
        f"{seconds:.1f} s{read}; CPU {float(cpu_seconds):.1f} s with the start; exit status {status}",
    )
