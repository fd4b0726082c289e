"""`just chaos`: kills and cuts everything of a stack under load, and then looks whether anything is lost.

The seed decides what clients and hands do. How the processes interleave is the machine's.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from deploy.local.stack import Stack
from deploy.local.supervision import ROOT
from tests.bench.results import Row, write_results
from tests.chaos.clients import Client, Http
from tests.chaos.final_check import (
    Level,
    check_everything,
    check_levels,
    check_logs,
    let_sweeper_finish,
    measure_levels,
)
from tests.chaos.hand import NO_STEP, VICTIMS, Hand, Tally
from tests.chaos.ledger import Ledger
from tests.chaos.wires import MOMENTS, STEPS, Steps, WiredStack

KEPT = ROOT / ".chaos"
CLIENTS = 12
HANDS = 3
SETTINGS = {
    # Short, so that leases run out and the sweeper comes often.
    "LEASE_SECONDS": "5",
    "SWEEP_SECONDS": "1",
    "STORE_RETRY_SECONDS": "5",
    "SHUTDOWN_SECONDS": "21",
    "MAX_LATE_CREDENTIALS": "64",
    # No client is refused for its number of requests.
    "FAILURES_PER_MINUTE": "1000000",
    "SIGN_UPS_PER_MINUTE": "1000000",
}


class Drill:
    """One run on one stack."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.options = options
        self.steps = Steps()
        temporary = folder / "tmp"
        temporary.mkdir()
        self.stack = WiredStack(folder / "stack", {**SETTINGS, "TMPDIR": str(temporary)}, self.steps)
        self.ledger = Ledger()
        self.tally = Tally(self.ledger.note)
        self._passed = Counter[str]()
        self._levels: dict[str, tuple[Level, Level]] = {}

    async def run(self) -> None:
        """Starts the stack, disturbs it, and checks everything."""
        for wire in self.stack.wires.values():
            await wire.open()
        await asyncio.to_thread(self.stack.start, say, background=True)
        self.ledger.diary = self.stack.supervisor.log("drill").open("w", buffering=1)
        http = Http(self.stack.base_url, self.ledger)
        try:
            warming_up = [
                Client(http, self.ledger, f"warm-up {number}").warm_up(has_large_upload=number == 0)
                for number in range(CLIENTS)
            ]
            await asyncio.gather(*warming_up)
            await self.disturb(http)
            say("the load is over; what was interrupted is swept, and then everything is checked …")
            # Now no upload of a client that has gone is under way.
            await asyncio.to_thread(self.stack.stop_process, "records")
            await asyncio.to_thread(self.stack.start_process, "records")
            await let_sweeper_finish(self.stack, self.ledger)
            await check_everything(self.stack, http, self.ledger)
            check_logs(self.stack, self.ledger)
        finally:
            await http.close()
            await asyncio.to_thread(self.stack.stop)
            for wire in self.stack.wires.values():
                await wire.close()

    async def disturb(self, http: Http) -> None:
        """Lets clients and hands work, and compares memory and descriptors with the beginning."""
        before = await asyncio.to_thread(measure_levels, self.stack)
        await self._let_hands_work(http)
        self._passed = Counter(self.steps.passed)
        after = await check_levels(self.stack, self.ledger, before)
        self._levels = {name: (before[name], after[name]) for name in before}

    async def _let_hands_work(self, http: Http) -> None:
        options = self.options
        end = time.monotonic() + options.seconds
        next_report = time.monotonic()

        def is_over() -> bool:
            return time.monotonic() > end or self.tally.kills.total() >= int(options.kills)

        locks = {process: asyncio.Lock() for process in VICTIMS.values()}
        # The services start slowly. Without one of them hardly anything happens.
        locks["users"] = locks["records"]
        hands = [
            Hand(
                self.stack,
                self.steps,
                self.tally,
                locks,
                f"{options.seed} hand {number}",
                options.longest_stop,
            ).run(is_over)
            for number in range(HANDS)
        ]
        clients_are_over = asyncio.Event()
        clients = [
            asyncio.create_task(
                Client(http, self.ledger, f"{options.seed} client {number}").run(clients_are_over.is_set)
            )
            for number in range(CLIENTS)
        ]
        working = asyncio.gather(*hands)
        while not working.done():
            if time.monotonic() > next_report:
                next_report = time.monotonic() + 60
                say(f"{self.tally.kills.total()} kills, {dict(self.ledger.acknowledged)}")
            await asyncio.wait({working}, timeout=1)
        await working
        clients_are_over.set()
        await asyncio.gather(*clients)

    def rows(self) -> list[Row]:
        """Returns the summary."""
        rows = self.rows_of_ledger()
        rows.insert(
            3,
            (
                "kills",
                f"{self.tally.kills.total():,}",
                ", ".join(f"{self.tally.count(victim=victim)} {victim}" for victim in VICTIMS)
                + "; "
                + ", ".join(f"{self.tally.count(moment=moment)} {moment}" for moment in MOMENTS),
            ),
        )
        for step in (*STEPS, NO_STEP):
            of_victims = ", ".join(
                f"{count} {victim}"
                for victim in VICTIMS
                if (count := self.tally.count(step=step, victim=victim))
            )
            passed = f"; passed {self._passed[step]:,} times" if step != NO_STEP else ""
            rows.append((f"kills at: {step}", str(self.tally.count(step=step)), f"{of_victims}{passed}"))
        for name, (before, after) in self._levels.items():
            change = f"{before.descriptors} → {after.descriptors} descriptors"
            rows.append((f"{name}, before → after", f"{before.mib} → {after.mib} MiB", change))
        return rows

    def rows_of_ledger(self) -> list[Row]:
        """Returns what clients were told, and what the hands did besides kills."""
        told = self.ledger.acknowledged
        silent = sum(count for (*_, status), count in self.ledger.responses.items() if not status)
        by_status = Counter[int]()
        for (*_, status), count in self.ledger.responses.items():
            by_status[status] += count
        statuses = ", ".join(f"{count:,} x {status or 'none'}" for status, count in sorted(by_status.items()))
        return [
            ("violations", str(len(self.ledger.violations)), "; ".join(self.ledger.violations[:3]) or "none"),
            (
                "acknowledged",
                f"{told['uploads']:,} uploads",
                ", ".join(f"{count:,} {what}" for what, count in told.items() if what != "uploads"),
            ),
            ("responses", f"{sum(by_status.values()):,}", f"{statuses} (none: {silent:,} broke off)"),
            (
                "other disturbances",
                f"{self.tally.deeds.total() - self.tally.deeds['kill']:,}",
                ", ".join(f"{count} x {deed}" for deed, count in self.tally.deeds.items() if deed != "kill"),
            ),
        ]


def say(message: str) -> None:
    """Tells the person at the terminal how far the drill is."""
    print(f"drill: {message}", flush=True)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="just chaos", description=__doc__)
    parser.add_argument("--kills", type=int, help="ends after so many kills")
    parser.add_argument("--seconds", type=float, help="ends after so long, without start and check")
    parser.add_argument("--seed", help="repeats what clients and hands did")
    parser.add_argument(
        "--longest-stop", type=float, default=40, metavar="SECONDS", help="how long a process may be stopped"
    )
    parser.add_argument("--keep", action="store_true", help="write the summary to tests/bench/RESULTS.md")
    options = parser.parse_args(arguments)
    if options.kills is None:
        options.kills = 100 if options.seconds is None else sys.maxsize
    if options.seconds is None:
        options.seconds = float("inf")
    return options


NOTE = """\
Each kill is a SIGKILL. It hits a step when the step's bytes pass between two processes: before the request
arrives, after it, or when its response would arrive.
"""


def main(arguments: list[str]) -> int:
    """Runs the drill. Returns the exit status: 1 if anything is violated."""
    options = _parse(arguments)
    return conduct(Drill, options, "The last chaos drill", f"./just chaos {' '.join(arguments)}", NOTE)


def conduct(kind: type[Drill], options: argparse.Namespace, title: str, command: str, note: str) -> int:
    """Runs a drill, prints its rows, and keeps them if the options say so. Returns the exit status."""
    options.seed = options.seed or f"{time.time_ns() % 1_000_000}"
    say(f"the seed is {options.seed}")
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="waxwing-chaos-") as folder:
        drill = kind(Path(folder), options)
        try:
            asyncio.run(drill.run())
        except BaseException:
            _keep_logs(drill.stack, options.seed)
            raise
        if drill.ledger.violations:
            _keep_logs(drill.stack, options.seed)
    rows = drill.rows()
    for what, result, origin in rows:
        print(f"{what:<28} {result:>22}   {origin}")
    seconds = time.monotonic() - started
    say(f"{len(drill.ledger.violations)} violations in {seconds:.0f} s, with the seed {options.seed}")
    if options.keep:
        write_results(rows, title, command, note)
    return 1 if drill.ledger.violations else 0


def _keep_logs(stack: Stack, seed: str) -> None:
    folder = KEPT / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{seed}"
    shutil.copytree(stack.supervisor.log("records").parent, folder)
    say(f"the logs are kept in {folder.relative_to(ROOT)}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
