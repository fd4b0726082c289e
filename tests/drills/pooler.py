"""`just drill-pooler`: uploads and downloads through PgBouncer in transaction mode, with few sessions."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path

from deploy.client import Client
from deploy.local.ports import Ports
from deploy.local.stack import Stack
from tests.bench.results import Row
from tests.drills.load import Load
from tests.drills.pgbouncer import PREPARES_SINCE, PgBouncer, find_version, pgbouncer
from tests.drills.report import run_drill, say

TITLE = "The last pooler drill"
NOTE = """\
Two instances of the records service and two of users share a few sessions of PostgreSQL through PgBouncer.
Without a version that prepares statements, the drill runs in session mode.
"""
INSTANCES = ("records", "records-2")
SETTINGS = {
    "RECORDS": str(len(INSTANCES)),
    "USERS": "2",
    # The clients download from the services themselves.
    "DOWNLOADS": "stream",
    "SIGN_UPS_PER_MINUTE": "1000000",
    "FAILURES_PER_MINUTE": "1000000",
}
# Round robin gives nearly every transaction another session.
TRANSACTION_MODE: dict[str, object] = {
    "pool_mode": "transaction",
    "max_prepared_statements": 200,
    "server_round_robin": 1,
    "default_pool_size": 4,
}
SESSION_MODE: dict[str, object] = {"pool_mode": "session", "default_pool_size": 40}


class PooledStack(Stack):
    """A stack whose services reach PostgreSQL through PgBouncer. The set-up does not."""

    def __init__(self, folder: Path) -> None:
        self.given_ports = Ports.free()
        super().__init__(folder, self.given_ports, SETTINGS)
        self.pooler: PgBouncer | None = None

    def _own_environment(self, service: str, process: str = "") -> dict[str, str]:
        own = super()._own_environment(service, process)
        if service != "setup" and self.pooler:
            own["DATABASE_URL"] = own["DATABASE_URL"].replace(
                f":{self.ports.postgres}/", f":{self.pooler.port}/"
            )
        return own


class Drill:
    """One run."""

    def __init__(self, folder: Path, seconds: float) -> None:
        prepares = find_version() >= PREPARES_SINCE
        self.mode = TRANSACTION_MODE if prepares else SESSION_MODE
        self._folder = folder
        self._seconds = seconds
        self._stack = PooledStack(folder / "stack")
        self.rows: list[Row] = []
        self.violations: list[str] = []

    def run(self) -> None:
        """Starts everything, uses it, and downloads what was stored."""
        version = ".".join(map(str, find_version()))
        self.rows.append(
            ("PgBouncer", version, ", ".join(f"{name} = {value}" for name, value in self.mode.items()))
        )
        (self._folder / "stack").mkdir(mode=0o700)
        secrets = self._stack.secrets
        passwords = {f"waxwing_{service}_login": secrets[service] for service in ("users", "records")}
        port = self._stack.given_ports.postgres
        with pgbouncer(self._folder / "pgbouncer", port, passwords, **self.mode) as pooler:
            self._stack.pooler = pooler
            try:
                self._stack.start(background=True)
                asyncio.run(self._use())
            finally:
                self._stack.stop()

    async def _use(self) -> None:
        with Client(self._stack.base_url) as client:
            user = client.create_user("Ann")
        loads = [Load(name, self._stack.ports.of(name), user) for name in INSTANCES]
        began = time.monotonic()
        say(f"uploads and downloads for {self._seconds:.0f} s …")
        await asyncio.gather(*(load.run(lambda: time.monotonic() > began + self._seconds) for load in loads))
        until = time.monotonic()
        for load in loads:
            lost = await load.count_lost()
            self.rows.append((f"{load.name}: lost", str(lost), f"of {len(load.records):,} acknowledged"))
            for kind, moments in load.moments.items():
                gap_began, gap_ended = load.longest_gap(kind, began, until)
                failed = sum(not each.is_good for each in moments)
                self.rows.append(
                    (
                        f"{load.name}: {kind}",
                        f"{len(moments):,}",
                        f"{load.statuses(kind)}; longest pause {gap_ended - gap_began:.1f} s",
                    )
                )
                if failed:
                    self.violations.append(f"{load.name}: {failed} {kind} failed")
            if lost:
                self.violations.append(f"{load.name}: {lost} acknowledged records are lost")
            self.violations += load.unexpected[:5]


def main(arguments: list[str]) -> int:
    """Runs the drill. Returns the exit status: 1 if anything is violated."""
    parser = argparse.ArgumentParser(prog="just drill-pooler", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="how long the clients work")
    parser.add_argument("--keep", action="store_true", help="write the summary to tests/bench/RESULTS.md")
    options = parser.parse_args(arguments)
    command = " ".join(["./just drill-pooler", *arguments])
    return run_drill(
        lambda folder: Drill(folder, options.seconds),
        (TITLE, command, NOTE) if options.keep else None,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
