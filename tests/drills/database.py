"""`just drill-database`: kills a primary and stops the next one under load, and looks for lost records.

One instance of the records service reaches PostgreSQL through haproxy, the other one has both hosts in
DATABASE_URL. Both have clients of their own at the same time.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from deploy.client import Client
from deploy.local import postgres
from deploy.local.ports import LOOPBACK, Ports
from deploy.local.stack import Stack
from tests.bench.results import Row
from tests.drills.load import Load
from tests.drills.patroni import Cluster, Node, running_cluster
from tests.drills.report import run_drill, say
from tests.integration.waiting import wait_until

TITLE = "The last database drill"
NOTE = """\
Patroni with etcd, a primary and a synchronous standby (ttl 20 s, loop_wait 1 s). Away: the longest time
without a success. Death: SIGKILL of the primary and its Patroni, as if the machine had died; hang: SIGSTOP of
both, and SIGCONT after the failover; crash: SIGKILL of PostgreSQL alone. Without its standby the primary ends
no write, until Patroni lets it go on alone.
"""
MAX_AWAY_SECONDS = 25
# /readyz may take 3 s to find out, and is then asked again.
AGREES_WITHIN_SECONDS = 5
SETTLED_SECONDS = 2
CRASH, DEATH, HANG, STANDBY = "crash", "death", "hang", "standby's death"
ACTS = (DEATH, HANG, STANDBY)
WAYS = {"through haproxy": "records", "both hosts in the URL": "records-2"}
SETTINGS = {
    "RECORDS": str(len(WAYS)),
    # The clients download from the services themselves.
    "DOWNLOADS": "stream",
    "SIGN_UPS_PER_MINUTE": "1000000",
    "FAILURES_PER_MINUTE": "1000000",
}


class DrillStack(Stack):
    """A stack whose services use the cluster. Its own PostgreSQL is idle."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, Ports.free(), SETTINGS)
        self.cluster: Cluster | None = None

    def _own_environment(self, service: str, process: str = "") -> dict[str, str]:
        own = super()._own_environment(service, process)
        if self.cluster:
            hosts = ",".join(f"{LOOPBACK}:{node.port}" for node in self.cluster.nodes)
            has_haproxy = service == "users" or process == "records"
            where = f"{LOOPBACK}:{self.cluster.haproxy}" if has_haproxy else hosts
            own["DATABASE_URL"] = own["DATABASE_URL"].replace(f"{LOOPBACK}:{self.ports.postgres}", where)
            if not has_haproxy:
                own["DATABASE_URL"] += "?target_session_attrs=primary"
        return own


class Drill:
    """One run."""

    def __init__(self, folder: Path, acts: Sequence[str]) -> None:
        self._folder = folder
        self._acts = acts
        self.stack = DrillStack(folder / "stack")
        self.rows: list[Row] = []
        self.violations: list[str] = []

    def run(self) -> None:
        """Starts everything, disturbs it and checks it."""
        (self._folder / "stack").mkdir(mode=0o700)
        password = self.stack.secrets["postgres"]
        with running_cluster(self._folder / "cluster", password) as cluster:
            self.stack.cluster = cluster
            postgres.create_database(cluster.primary.port, password)
            say("the cluster runs; now the stack …")
            try:
                self.stack.start(background=True)
                asyncio.run(self._disturb(cluster))
            finally:
                self.stack.stop()

    async def _disturb(self, cluster: Cluster) -> None:
        with Client(self.stack.base_url) as client:
            user = client.create_user("Ann")
        loads = [Load(way, self.stack.ports.of(process), user) for way, process in WAYS.items()]
        is_over = asyncio.Event()
        working = [asyncio.create_task(load.run(is_over.is_set)) for load in loads]
        await asyncio.sleep(SETTLED_SECONDS)
        for act in self._acts:
            began = time.monotonic()
            await self._act(act, cluster, loads)
            await asyncio.sleep(SETTLED_SECONDS)
            for load in loads:
                self._judge(act, load, began, time.monotonic())
        is_over.set()
        await asyncio.gather(*working)
        say("the load is over; everything that was acknowledged is downloaded …")
        for load in loads:
            lost = await load.count_lost()
            self.rows.append((f"{load.name}: lost", str(lost), f"of {len(load.records):,} acknowledged"))
            self.rows += [
                (f"{load.name}: {kind}", f"{len(moments):,}", load.statuses(kind))
                for kind, moments in load.moments.items()
            ]
            if lost:
                self.violations.append(f"{load.name}: {lost} acknowledged records are lost")
            self.violations += load.unexpected[:5]

    async def _act(self, act: str, cluster: Cluster, loads: Sequence[Load]) -> None:
        """Disturbs a node, and returns when the cluster is whole again."""
        primary = await asyncio.to_thread(lambda: cluster.primary)
        (standby,) = (node for node in cluster.nodes if node is not primary)
        say(f"{act}: {primary.name} is the primary …")
        began = time.monotonic()
        if act == HANG:
            stopped = primary.hang()
            try:
                await self._until_primary(standby)
                await asyncio.sleep(SETTLED_SECONDS)
            finally:
                for process in stopped:
                    process.resume()
        elif act == STANDBY:
            await asyncio.to_thread(standby.kill)
            await asyncio.to_thread(wait_until, lambda: all(load.has_stored_since(began) for load in loads))
            standby.start()
        elif act == CRASH:
            primary.crash()
            await self._until_primary(standby)
        else:
            await asyncio.to_thread(primary.kill)
            await self._until_primary(standby)
            await asyncio.sleep(SETTLED_SECONDS)
            primary.start()
        await asyncio.to_thread(cluster.wait_for_synchronous_standby)
        say("a synchronous standby follows again")

    async def _until_primary(self, node: Node) -> None:
        await asyncio.to_thread(wait_until, lambda: node.ask("/primary"))
        say(f"{node.name} is the primary")

    def _judge(self, act: str, load: Load, since: float, until: float) -> None:
        """Notes how long the instance was away, and whether its /readyz was right."""
        gaps = {kind: load.longest_gap(kind, since, until) for kind in ("uploads", "downloads")}
        for kind, (began, ended) in gaps.items():
            self.rows.append(
                (
                    f"{act}, {load.name}: {kind} away",
                    f"{ended - began:.1f} s",
                    f"from {began - since:.1f} s on",
                )
            )
            if ended - began > MAX_AWAY_SECONDS:
                self.violations.append(f"{act}, {load.name}: {kind} away for {ended - began:.1f} s")
        began, ended = gaps["uploads"]
        polls = [each for each in load.moments["readyz"] if since < each.began and each.ended < until]
        wrong = [
            each
            for each in polls
            # An upload that waits for the old primary ends later than /readyz has found the new one.
            if (each.is_good and began + AGREES_WITHIN_SECONDS < each.began < ended - AGREES_WITHIN_SECONDS)
            or (not each.is_good and each.began > ended + AGREES_WITHIN_SECONDS)
        ]
        away = [each for each in polls if not each.is_good]
        when = (
            f"503 from {away[0].ended - since:.1f} s to {away[-1].ended - since:.1f} s"
            if away
            else "always 200"
        )
        self.rows.append((f"{act}, {load.name}: /readyz", f"{len(wrong)} wrong", f"of {len(polls)}; {when}"))
        if wrong:
            self.violations.append(
                f"{act}, {load.name}: /readyz was wrong {len(wrong)} times, the first time"
                f" {wrong[0].status} at {wrong[0].began - since:.1f} s (uploads away from"
                f" {began - since:.1f} s to {ended - since:.1f} s)"
            )


def main(arguments: list[str]) -> int:
    """Runs the drill. Returns the exit status: 1 if anything is violated."""
    parser = argparse.ArgumentParser(prog="just drill-database", description=__doc__)
    parser.add_argument("--short", action="store_true", help="only a crash of the primary")
    parser.add_argument("--keep", action="store_true", help="write the summary to tests/bench/RESULTS.md")
    options = parser.parse_args(arguments)
    command = " ".join(["./just drill-database", *arguments])
    return run_drill(
        lambda folder: Drill(folder, [CRASH] if options.short else ACTS),
        (TITLE, command, NOTE) if options.keep else None,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
