"""`just bench`: measures speed and memory, as ratios of two measurements that alternate in one run.

Each upload alternates with ffmpeg, pydub and bare LAME on the same file with the same settings (LAME quality
5, constant 128 kbit/s, joint stereo). The fastest of several turns counts. The bench asserts nothing.
"""

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NamedTuple

from deploy.client import Client
from deploy.local.stack import Stack
from tests.bench.charts import write_charts
from tests.bench.doctor import measure_doctor
from tests.bench.downloads import (
    measure_cold,
    measure_downloads,
    measure_slow_listeners,
    measure_users,
)
from tests.bench.fairness import measure_fairness, measure_refusals
from tests.bench.long_list import measure_long_list
from tests.bench.overload import measure_memory, measure_slow_connections
from tests.bench.results import Row, write_results
from tests.bench.rows import measure_rows
from tests.bench.uploads import (
    Uploader,
    measure_beside,
    measure_crowd,
    measure_memory_after,
    measure_original,
    measure_serial,
    measure_upload,
)
from tests.stacks import temporary_stack

FULL_NOTE = """\
Ratios are of the fastest of several turns that alternate in one run. The times are of this
machine, which is shared and noisy. The SNR compares the decoded MP3 with its source at the best
lag, whatever the level.
"""
OVERLOAD_NOTE = """\
Each upload has 28 MB of WAV and 14 MB of MP3. One user sends all of them. The slow connections send an
incomplete head; the gateway closes each after 10 s, and another one takes its place. Times without a ratio
are of this machine, which is shared and noisy.
"""
DOCTOR_NOTE = """\
Database and bucket are in order. The rows without an object are uploads under way. Every object has
2,880 bytes, so --deep shows what an object costs, and not how fast bytes are read. A million objects were
not measured, because MinIO takes hours to store them.
"""
ROWS_NOTE = """\
A tenth of the records belongs to one user, and every fifth has an old Idempotency-Key. They have no objects;
only the deletions of the sweeper have objects.
"""
LIST_NOTE = """\
Chromium without a graphics card scrolls the list of one user with the wheel, as fast as the pages come, and
back. The ratios compare medians with that of the first 2,000 records. 17 ms are 60 frames a second.
"""


def measure(stack: Stack, folder: Path, *, is_quick: bool) -> Iterator[list[Row]]:
    """Runs the measurements one after the other, and yields the rows of each."""
    plan = [(10, 1), (60, 1)] if is_quick else [(10, 15), (60, 9), (600, 3), (3600, 1)]
    with Client(stack.base_url) as client:
        user = client.create_user("Bench")
    uploader = Uploader(stack.base_url, user["token"])
    for seconds, turns in plan:
        yield measure_upload(stack, uploader, seconds, turns, folder)
    longest = plan[-1][0]
    yield measure_original(stack, uploader, longest, 1 if is_quick else 3, folder)
    yield measure_crowd(stack, uploader, 20, 1 if is_quick else 3, folder)
    yield measure_beside(uploader, max(longest, 600), folder)
    yield measure_serial(stack, 60 if is_quick else 600, 2, folder)
    if not is_quick:
        rows, records = measure_memory_after(stack, uploader, 50, folder)
        yield rows
        yield measure_cold(stack, records)
        yield measure_slow_listeners(stack, records, 5)
    yield measure_downloads(stack, user["token"], 2 if is_quick else 5)
    yield measure_users(stack, 2 if is_quick else 5)


def measure_everything(*, is_quick: bool) -> Iterator[list[Row]]:
    """Measures a stack in which one user may have all uploads, and sign up as often as they like."""
    settings = {
        "MAX_UPLOADS_PER_USER": "32",
        "SIGN_UPS_PER_MINUTE": "1000000",
        "FAILURES_PER_MINUTE": "1000000",
    }
    with (
        tempfile.TemporaryDirectory(prefix="waxwing-bench-") as folder,
        temporary_stack(settings, say=print) as stack,
    ):
        yield from measure(stack, Path(folder), is_quick=is_quick)


def measure_overload() -> Iterator[list[Row]]:
    """Measures a stack in which one user may have more uploads than it takes."""
    with temporary_stack({"MAX_UPLOADS_PER_USER": "128", "UPLOADS_PER_ADDRESS": "128"}, say=print) as stack:
        yield measure_refusals(stack)
        yield measure_fairness(stack)
        yield measure_slow_connections(stack)
        yield from measure_memory(stack)


def measure_rows_and_objects() -> Iterator[list[Row]]:
    """Measures the doctor."""
    with temporary_stack(say=print) as stack, asyncio.Runner() as runner:
        rows = measure_doctor(stack)
        while row := runner.run(_next_row(rows)):
            yield [row]


def measure_page() -> Iterator[list[Row]]:
    """Measures the page for people."""
    with temporary_stack(say=print) as stack:
        yield from measure_long_list(stack)


async def _next_row(rows: AsyncIterator[Row]) -> Row | None:
    return await anext(rows, None)


class Run(NamedTuple):
    """What is measured, and its section in RESULTS.md."""

    measurements: Iterator[list[Row]]
    title: str
    options: str
    note: str


def choose_run(options: argparse.Namespace) -> Run:
    if options.doctor:
        return Run(measure_rows_and_objects(), "The last doctor run", " --doctor", DOCTOR_NOTE)
    if options.rows:
        rows = f" --rows {options.rows}"
        return Run(measure_rows(options.rows), "The last run with many records", rows, ROWS_NOTE)
    if options.list:
        return Run(measure_page(), "The last run of a long list", " --list", LIST_NOTE)
    if options.overload:
        return Run(measure_overload(), "The last overload run", " --overload", OVERLOAD_NOTE)
    return Run(measure_everything(is_quick=options.quick), "The last full run", "", FULL_NOTE)


def main(arguments: list[str]) -> None:
    """Runs all measurements, prints a table, and with --keep writes RESULTS.md and its charts."""
    parser = argparse.ArgumentParser(prog="just bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only the short recordings, one turn each")
    parser.add_argument("--overload", action="store_true", help="only what too many uploads at once do")
    parser.add_argument("--list", action="store_true", help="only the page with a long list of records")
    parser.add_argument("--doctor", action="store_true", help="only the doctor, with up to a million rows")
    parser.add_argument(
        "--rows",
        type=lambda number: int(float(number)),
        nargs="?",
        const=1_000_000,
        metavar="N",
        help="only what grows with records, with N of them (1e6)",
    )
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--keep", action="store_true", help="write RESULTS.md and its charts")
    options = parser.parse_args(arguments)
    if options.quick and options.keep:
        parser.error("--quick measures too little for RESULTS.md: leave out --quick or --keep")
    if not shutil.which("wrk"):
        sys.exit("bench: downloads are measured with wrk; install it (`apt install wrk`)")
    # With a longer interval the polling thread would wait for the uploading one: both run in this process.
    sys.setswitchinterval(0.0001)
    run = choose_run(options)
    rows: list[Row] = []
    for found in run.measurements:
        for what, result, origin in found:
            print(f"{what:<56} {result:>10}   {origin}", flush=True)
        rows.extend(found)
    if options.json:
        options.json.write_text(
            json.dumps([dict(zip(("what", "result", "from"), row, strict=True)) for row in rows], indent=1)
        )
    if options.keep:
        write_results(rows, run.title, f"./just bench{run.options} --keep", run.note)
        write_charts()


if __name__ == "__main__":
    main(sys.argv[1:])
