"""`python -m tests.bench.capacity`: writes the tables of docs/scale.md from what was measured.

A simulation of uploads checks the first table, and the measured points check the simulation
(tests/unit/test_capacity.py).
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from deploy.upkeep.metrics_table import replace_between

PAGE = Path(__file__).parents[2] / "docs" / "scale.md"
BEGIN, END = "<!-- Made by tests/bench/capacity.py. -->\n", "<!-- The end of what it makes. -->\n"

# Measured on the slower of two machines, with two cores of an Intel Xeon, on 2026-11-29 (RESULTS.md shows the
# other one in "The last full run"); from ROW_BYTES on in "The last run with many records".
# CPU of records and MinIO for an hour of audio, without and with its original.
CPU_SECONDS_PER_HOUR, CPU_SECONDS_PER_HOUR_WITH_ORIGINAL = 36.9, 39.9
# One event loop: one core.
CHECKS_PER_INSTANCE = 2500
# pgbench inserts so many rows on two cores. Reading a row by its key is not slower.
READS_PER_DATABASE = 14_000
ROW_BYTES = 1851
DELETIONS_PER_SWEEPER = 900

# What the tables assume: CD sound at 128 kbit/s, recordings of ten minutes, clients with 10 Mbit/s.
WAV_BYTES_PER_SECOND = 176_400
MP3_BYTES_PER_SECOND = 16_000
CLIENT_BYTES_PER_SECOND = 1_250_000
RECORDING_SECONDS = 600
CORES_PER_INSTANCE = 2
# The default of MAX_UPLOADS and of MAX_WAITING_UPLOADS, and of UPLOAD_WAIT_SECONDS.
SLOTS, WAITING, WAIT_SECONDS = 32, 32, 30
CONNECTIONS_PER_INSTANCE = 20
# Of one instance of users.
CONNECTIONS_OF_USERS = 10
CONNECTIONS_OF_POSTGRES = 100
# Uploads do not come evenly.
FULLEST = 0.8
STEP_SECONDS = 0.25


@dataclass
class Outcome:
    """What a simulation has seen."""

    ended: int = 0
    refused: int = 0
    slowdowns: list[float] = field(default_factory=list)
    """How much longer each upload took than its client needs to send it."""

    @property
    def slowdown(self) -> float:
        """The 95th percentile."""
        return sorted(self.slowdowns)[int(0.95 * len(self.slowdowns))] if self.slowdowns else math.inf


@dataclass
class _Upload:
    began: float
    missing_seconds: float


@dataclass
class _Instance:
    under_way: list[_Upload] = field(default_factory=list)
    waiting: deque[_Upload] = field(default_factory=deque)


def simulate(
    uploads_at_once: float,
    instances: int,
    *,
    cores: float = CORES_PER_INSTANCE,
    audio_seconds: float = RECORDING_SECONDS,
    seconds: float = 600,
    seed: int = 1,
) -> Outcome:
    """Lets so many clients upload at once on average, who come by chance and are handed out in turn.

    The uploads of an instance share its cores. A client sends as fast as its line and the cores allow.
    """
    chance = random.Random(seed)
    by_line = CLIENT_BYTES_PER_SECOND / WAV_BYTES_PER_SECOND
    least = audio_seconds / by_line
    group = [_Instance() for _ in range(instances)]
    seen = Outcome()
    turn = count()
    next_at = 0.0
    for step in range(int(seconds / STEP_SECONDS)):
        now = step * STEP_SECONDS
        while next_at <= now:
            _take(group[next(turn) % instances], _Upload(now, audio_seconds), seen)
            next_at += chance.expovariate(uploads_at_once / least)
        for instance in group:
            _work(instance, now, cores, by_line, least, seen)
    return seen


def _take(instance: _Instance, upload: _Upload, seen: Outcome) -> None:
    if len(instance.under_way) < SLOTS:
        instance.under_way.append(upload)
    elif len(instance.waiting) < WAITING:
        instance.waiting.append(upload)
    else:
        seen.refused += 1


def _work(instance: _Instance, now: float, cores: float, by_line: float, least: float, seen: Outcome) -> None:
    if instance.under_way:
        by_cores = cores / len(instance.under_way) / (CPU_SECONDS_PER_HOUR / 3600)
        for upload in instance.under_way:
            upload.missing_seconds -= min(by_line, by_cores) * STEP_SECONDS
            if upload.missing_seconds <= 0:
                seen.ended += 1
                seen.slowdowns.append((now + STEP_SECONDS - upload.began) / least)
        instance.under_way = [upload for upload in instance.under_way if upload.missing_seconds > 0]
    while instance.waiting and now - instance.waiting[0].began > WAIT_SECONDS:
        instance.waiting.popleft()
        seen.refused += 1
    while instance.waiting and len(instance.under_way) < SLOTS:
        instance.under_way.append(instance.waiting.popleft())


def predict_seconds(audio_seconds: float, uploads: int, cores: float) -> float:
    """Returns how long uploads take together that arrive as fast as they are encoded."""
    return uploads * audio_seconds * CPU_SECONDS_PER_HOUR / 3600 / cores


def count_upload_instances(uploads_at_once: int) -> int:
    """Returns how many instances of records take so many uploads at once."""
    audio_per_second = uploads_at_once * CLIENT_BYTES_PER_SECOND / WAV_BYTES_PER_SECOND
    cores = audio_per_second * CPU_SECONDS_PER_HOUR / 3600 / FULLEST
    return max(math.ceil(cores / CORES_PER_INSTANCE), math.ceil(uploads_at_once / SLOTS / FULLEST))


def describe_uploads(uploads_at_once: int) -> tuple[str, ...]:
    """Returns a row of the table of uploads."""
    instances = count_upload_instances(uploads_at_once)
    audio_per_second = uploads_at_once * CLIENT_BYTES_PER_SECOND / WAV_BYTES_PER_SECOND
    mp3_bytes = audio_per_second * MP3_BYTES_PER_SECOND
    connections = instances * CONNECTIONS_PER_INSTANCE + CONNECTIONS_OF_USERS
    pooler = "" if connections <= CONNECTIONS_OF_POSTGRES else ", so PgBouncer"
    return (
        f"{uploads_at_once:,}",
        f"{instances} with {CORES_PER_INSTANCE} cores",
        _in_bits(uploads_at_once * CLIENT_BYTES_PER_SECOND),
        f"{_in_bytes(mp3_bytes)}/s; with originals"
        f" {_in_bytes(mp3_bytes + uploads_at_once * CLIENT_BYTES_PER_SECOND)}/s",
        f"{connections}{pooler}",
    )


def describe_records(records: int) -> tuple[str, ...]:
    """Returns a row of the table of records."""
    mp3_bytes = records * RECORDING_SECONDS * MP3_BYTES_PER_SECOND
    wav_bytes = records * RECORDING_SECONDS * WAV_BYTES_PER_SECOND
    minutes = records / DELETIONS_PER_SWEEPER / 60
    return (
        f"{records:,}",
        _in_bytes(records * ROW_BYTES),
        _in_bytes(mp3_bytes),
        _in_bytes(mp3_bytes + wav_bytes),
        f"{minutes / 1440:,.0f} days" if minutes > 1440 else f"{minutes:,.0f} minutes",
    )


def describe_downloads(downloads_per_second: int) -> tuple[str, ...]:
    """Returns a row of the table of downloads."""
    instances = math.ceil(downloads_per_second / CHECKS_PER_INSTANCE / FULLEST)
    databases = math.ceil(downloads_per_second / READS_PER_DATABASE / FULLEST)
    return (
        f"{downloads_per_second:,}",
        f"{instances}",
        f"{databases}",
        _in_bits(downloads_per_second * RECORDING_SECONDS * MP3_BYTES_PER_SECOND),
    )


def make_tables() -> str:
    """Returns the tables in Markdown."""
    return "\n".join(_make_tables())


def _make_tables() -> Iterator[str]:
    yield _make_table(
        (
            "uploads at once",
            "records",
            "network in",
            "into the store",
            "connections to PostgreSQL, with one instance of users",
        ),
        [describe_uploads(each) for each in (10, 100, 1000)],
    )
    yield _make_table(
        ("records", "PostgreSQL", "MP3s", "with originals", "one sweeper deletes all in"),
        [describe_records(each) for each in (10**5, 10**7, 10**9)],
    )
    yield _make_table(
        ("whole downloads a second", "records", "PostgreSQL servers that answer reads", "network out"),
        [describe_downloads(each) for each in (10**2, 10**3, 10**4, 10**5)],
    )


def _make_table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _in_bits(bytes_per_second: float) -> str:
    return f"{_with_unit(8 * bytes_per_second, 'bit')}/s"


def _in_bytes(size: float) -> str:
    return _with_unit(size, "B")


def _with_unit(number: float, unit: str) -> str:
    power = min(int(math.log10(number)) // 3, 5)
    return f"{number / 1000**power:.3g} {['', 'k', 'M', 'G', 'T', 'P'][power]}{unit}"


def put_tables_into(page: str) -> str:
    """Returns the text of the page with the tables of today."""
    return replace_between(BEGIN, END, page, make_tables())


if __name__ == "__main__":
    PAGE.write_text(put_tables_into(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
