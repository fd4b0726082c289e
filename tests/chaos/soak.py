"""`just soak`: uses a stack for long, with failures but without kills, and looks whether anything grows.

The drill's clients and ledger, with a hand that only cuts, delays and fills. At the end everything is checked
as after the drill.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import psutil

from tests.bench.results import Row
from tests.chaos.chaos import Drill, conduct, say
from tests.chaos.clients import Client, Http
from tests.chaos.final_check import find_multipart_folders
from tests.chaos.hand import VICTIMS, Hand, run_sql
from tests.chaos.trends import CONFIDENCE, MEMORY, Trend, find_grown, find_trend
from tests.chaos.wires import WiredStack

CLIENTS = 3
SAMPLE_SECONDS = 5
UNFINISHED = "SELECT state, count(*) FROM records WHERE state <> 'ready' GROUP BY state"


class PatientClient(Client):
    """A client who leaves the machine most of its time."""

    longest_rest_seconds = 3


class GentleHand(Hand):
    """A hand that kills nothing, so that each process is the same from the beginning to the end."""

    deeds: ClassVar[dict[str, int]] = {"cut": 6, "part": 3, "delay": 4, "expire": 3, "fill": 1}
    longest_rest_seconds = 20


def measure(stack: WiredStack) -> dict[str, float]:
    """Counts what could grow in the processes and on the disk."""
    counts: dict[str, float] = defaultdict(float)
    for name in stack.process_names:
        main = psutil.Process(stack.pid(name))
        for process in (main, *main.children(recursive=True)):
            # A backend of PostgreSQL may end meanwhile.
            with suppress(psutil.NoSuchProcess):
                memory = process.memory_full_info()
                # In the RSS each backend would count the buffers that all share.
                used = memory.uss if name == "postgres" else memory.rss
                counts[f"{name}: {MEMORY}"] += used / 1024**2
                counts[f"{name}: descriptors"] += process.num_fds()
                counts[f"{name}: threads"] += process.num_threads()
                counts[f"{name}: connections"] += len(process.net_connections("inet"))
    folder = stack.supervisor.log("minio").parents[1]
    counts["open multipart uploads"] = len(find_multipart_folders(stack))
    temporary = [
        folder / name for name in ("gateway/temp", "minio/.minio.sys/tmp", "postgres/base/pgsql_tmp")
    ]
    temporary.append(Path(stack.environment("records")["TMPDIR"]))
    counts["temporary files"] = sum(len(files) for each in temporary for *_, files in os.walk(each))
    return dict(counts)


class Soak(Drill):
    """One long run on one stack."""

    samples: dict[str, list[tuple[float, float]]]
    trends: dict[str, Trend]

    async def disturb(self, http: Http) -> None:
        """Lets clients and a hand work, and measures meanwhile."""
        self.samples, self.trends = defaultdict(list), {}
        begin = time.monotonic()
        is_over = asyncio.Event()
        locks = {process: asyncio.Lock() for process in VICTIMS.values()}
        seed = self.options.seed
        hand = GentleHand(self.stack, self.steps, self.tally, locks, f"{seed} hand", 3)
        working = [
            asyncio.create_task(
                PatientClient(http, self.ledger, f"{seed} client {number}").run(is_over.is_set)
            )
            for number in range(CLIENTS)
        ]
        working.append(asyncio.create_task(hand.run(is_over.is_set)))
        next_report = 0.0
        while (seconds := time.monotonic() - begin) < self.options.minutes * 60:
            await self._sample(seconds)
            if seconds >= next_report:
                next_report = seconds + 300
                say(f"{seconds / 60:.0f} minutes, {dict(self.ledger.acknowledged)}")
            await asyncio.sleep(SAMPLE_SECONDS)
        is_over.set()
        await asyncio.gather(*working)
        self.trends = {name: find_trend(samples) for name, samples in self.samples.items()}
        for sentence in find_grown(self.trends):
            self.ledger.violate(sentence)

    async def _sample(self, seconds: float) -> None:
        counts = await asyncio.to_thread(measure, self.stack)
        rows = await run_sql(self.stack, UNFINISHED)
        states: dict[str, int] = {row["state"]: row["count"] for row in rows}
        counts["tombstones"] = states.get("deleting", 0)
        counts["uploads under way"] = states.get("uploading", 0)
        for name, count in counts.items():
            self.samples[name].append((seconds, count))
        self.ledger.note(f"counts: {counts}")

    def rows(self) -> list[Row]:
        """Returns the trend of each count, and what the load was."""
        rows = self.rows_of_ledger()
        for name, trend in self.trends.items():
            slopes = f"{trend.slope:+.2f} ({trend.lowest:+.2f} to {trend.highest:+.2f}) an hour"
            first, last = trend.values[0], trend.values[-1]
            highest = max(value for _, value in self.samples[name])
            rows.append((name, slopes, f"{first:.5g} → {last:.5g}; at most {highest:.5g}"))
        return rows


NOTE = f"""\
Three clients, and a hand that cuts, delays and fills the store, but kills nothing. The slopes are of the
second half of the run, by Theil and Sen, with the interval of {CONFIDENCE:.0%} confidence. Memory is the
RSS of a process with its children; of PostgreSQL only what each backend has for itself. The status is 1 if
the memory of records surely grows by more than 1 MiB an hour, or a count by more than 1. MinIO empties its
folder of deleted objects every five minutes, so the temporary files rise and fall.
"""


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="just soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30, help="how long, without start and check")
    parser.add_argument("--seed", help="repeats what clients and hand did")
    parser.add_argument("--keep", action="store_true", help="write the table to tests/bench/RESULTS.md")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Runs the soak. Returns the exit status: 1 if anything grows or is violated."""
    options = _parse(arguments)
    return conduct(Soak, options, "The last soak", f"./just soak {' '.join(arguments)}", NOTE)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
