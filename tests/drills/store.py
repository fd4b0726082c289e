"""`just drill-store`: kills nodes of a MinIO under load, and then looks whether anything is lost.

First one of four nodes is away, then two, and then both return. MinIO needs three nodes to write and two
to read.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

from deploy.local.stack import Stack
from records.storage import LOST_OBJECT
from tests.bench.results import Row, write_results
from tests.chaos.clients import LARGE, LARGE_BITRATE_KBPS, SMALL
from tests.chaos.final_check import ask_doctor, let_sweeper_finish
from tests.chaos.ledger import Ledger
from tests.integration.waiting import wait_until
from tests.minio_nodes import MinioNodes, minio_nodes
from tests.stacks import temporary_stack
from tests.upload_requests import WAV_TYPE, bearer
from tests.wavs import Wav, silence

UPLOADERS, LISTENERS = 3, 4
# Only ends a drill that goes on for ever.
LONGEST_PHASE_SECONDS = 90
# With these, MinIO can write.
MAX_AWAY_FOR_UPLOADS = 1
# Some of the records that a listener chooses from are always the latest ones, which returning nodes lack.
LATEST = 12
# So the sweeper soon removes what failed uploads leave behind.
SETTINGS = {"SWEEP_SECONDS": "1"}
TIMEOUT = aiohttp.ClientTimeout(total=90)
OK, CREATED, PARTIAL, NOT_FOUND, GONE, NONE = 200, 201, 206, 404, 410, 0


class Kind(NamedTuple):
    """A kind of uploads."""

    wav: bytes
    query: str


# 12 MB of WAV and little to encode.
MUCH_PCM = Wav(bits=32, channels=16, rate=8000).build(silence(24.0, rate=8000, channels=16))
# One PUT for each object; the same with the WAV; and a multipart upload of the WAV.
QUICK_KINDS = (
    Kind(SMALL, ""),
    Kind(SMALL, "?keep_original=true"),
    Kind(MUCH_PCM, "?keep_original=true"),
)
# The last one is a multipart upload of the MP3, too. It takes most of the time.
KINDS = (*QUICK_KINDS, *QUICK_KINDS, Kind(LARGE, f"?keep_original=true&bitrate_kbps={LARGE_BITRATE_KBPS}"))


@dataclass
class Phase:
    """What clients were told while the nodes were in one state."""

    name: str
    nodes_away: int
    uploads: Counter[int] = field(default_factory=Counter)
    downloads: Counter[int] = field(default_factory=Counter)
    slowest_seconds: dict[str, float] = field(default_factory=lambda: {"upload": 0.0, "download": 0.0})

    @property
    def failed_uploads(self) -> int:
        return self.uploads.total() - self.uploads[CREATED]

    @property
    def failed_downloads(self) -> int:
        return self.downloads.total() - self.downloads[OK] - self.downloads[PARTIAL]


class StoreDrill:
    """Clients who use a stack all the time, while nodes of its store are killed and started again.

    The ledger has what is violated.
    """

    def __init__(
        self,
        stack: Stack,
        nodes: MinioNodes,
        kinds: Sequence[Kind],
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._stack = stack
        self._kinds = kinds
        self._nodes = nodes
        self._say = say
        self._records: list[dict[str, Any]] = []
        self._is_over = False
        self.phases: list[Phase] = []
        self.ledger = Ledger()
        # How often a node said that it does not have what another node then had.
        self._corrected = {"gateway": 0, "service": 0}

    async def run(self, uploads: int, downloads: int, failed_uploads: int) -> None:
        """Lets each phase go on until it has so many successful uploads and so many downloads.

        With two nodes away, no upload can end: that phase goes on for so many failed ones.
        """

        def is_enough(phase: Phase) -> bool:
            return phase.uploads[CREATED] >= uploads and phase.downloads.total() >= downloads

        async with aiohttp.ClientSession(self._stack.base_url, timeout=TIMEOUT) as session:
            user = await self._sign_up(session)
            async with asyncio.TaskGroup() as clients:
                self._begin("all nodes", 0)
                for _ in range(UPLOADERS):
                    clients.create_task(self._upload(session, user))
                await self._until(lambda phase: bool(phase.uploads[CREATED]))
                for _ in range(LISTENERS):
                    clients.create_task(self._listen(session, user))
                await self._until(is_enough)

                self._nodes.kill(0)
                self._begin("one node is away", 1)
                await self._until(is_enough)

                self._nodes.kill(1)
                self._begin("two nodes are away", 2)
                await self._until(
                    lambda phase: (
                        phase.failed_uploads >= failed_uploads and phase.downloads.total() >= downloads
                    )
                )

                self._begin("both nodes start", 2)
                self._nodes.start(0)
                self._nodes.start(1)
                await self._until(lambda _: self._nodes.are_ready())
                self._begin("all nodes are back", 0)
                await self._until(is_enough)
                self._is_over = True
            await self._check_everything(session, user)
        self._check_log()

    def _begin(self, name: str, nodes_away: int) -> None:
        self._say(name)
        self.phases.append(Phase(name, nodes_away))

    async def _until(self, condition: Callable[[Phase], bool]) -> None:
        await asyncio.to_thread(wait_until, lambda: condition(self.phases[-1]), LONGEST_PHASE_SECONDS)

    async def _sign_up(self, session: aiohttp.ClientSession) -> dict[str, Any]:
        async with session.post("/users", json={"name": "Ann"}) as response:
            return dict(await response.json())

    async def _upload(self, session: aiohttp.ClientSession, user: dict[str, Any]) -> None:
        for kind in cycle(self._kinds):
            if self._is_over:
                return
            headers = {**WAV_TYPE, **bearer(user)}
            phase, status, body = await self._send(
                "upload", session, "POST", f"/records{kind.query}", headers, BytesIO(kind.wav)
            )
            phase.uploads[status] += 1
            if status == CREATED:
                self._records.append(json.loads(body))
            elif phase.nodes_away <= MAX_AWAY_FOR_UPLOADS:
                self.ledger.violate(f"{phase.name}: an upload got {status} {body[:300]!r}")

    async def _listen(self, session: aiohttp.ClientSession, user: dict[str, Any]) -> None:
        while not self._is_over:
            record = random.choice(random.choice((self._records, self._records[-LATEST:])))
            await self._download(session, record, *random.choice(self._ways(user, record)))

    def _ways(self, user: dict[str, Any], record: dict[str, Any]) -> list[tuple[str, dict[str, str], str]]:
        """Returns what can be downloaded of a record: path, headers and SHA-256.

        With If-Match the gateway does not use its cache.
        """
        url = record["url"].removeprefix(self._stack.base_url)
        path = f"/records/{record['id']}"
        ways = [
            (url, {"If-Match": "*"}, record["sha256"]),
            # The first download of a record fills the cache, and later ones come from it.
            (url, {}, record["sha256"]),
            (url, {"Range": "bytes=1-1000"}, ""),
            (f"{path}/waveform?user={user['id']}", {}, ""),
        ]
        if record["original"]:
            ways.append((f"{path}/original", bearer(user), record["original"]["sha256"]))
        return ways

    async def _download(
        self,
        session: aiohttp.ClientSession,
        record: dict[str, Any],
        path: str,
        headers: Mapping[str, str],
        sha256: str,
    ) -> bool:
        """Returns whether the bytes came and are right."""
        phase, status, body = await self._send("download", session, "GET", path, headers)
        phase.downloads[status] += 1
        what = f"{phase.name}: GET {path.partition('?')[0]} of record {record['id']}"
        if status in (NOT_FOUND, GONE) or LOST_OBJECT in body[:1000].decode(errors="replace"):
            self.ledger.violate(f"{what} says that it is lost: {status} {body[:300]!r}")
        elif status == OK and sha256 and hashlib.sha256(body).hexdigest() != sha256:
            self.ledger.violate(f"{what} has {len(body)} other bytes")
        elif status not in (OK, PARTIAL, NONE, 503):
            self.ledger.violate(f"{what} got {status} {body[:300]!r}")
        return status in (OK, PARTIAL)

    async def _send(
        self,
        what: str,
        session: aiohttp.ClientSession,
        method: str,
        path: str,
        headers: Mapping[str, str],
        data: BytesIO | None = None,
    ) -> tuple[Phase, int, bytes]:
        """Returns the phase with the most nodes away that the request saw, its status, and its body.

        The status is 0 if the response broke off.
        """
        first, began = len(self.phases) - 1, time.monotonic()
        try:
            async with session.request(method, path, headers=headers, data=data) as response:
                status, body = response.status, await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            status, body = NONE, repr(error).encode()
        phase = max(self.phases[first:], key=lambda each: each.nodes_away)
        phase.slowest_seconds[what] = max(phase.slowest_seconds[what], time.monotonic() - began)
        return phase, status, body

    async def _check_everything(self, session: aiohttp.ClientSession, user: dict[str, Any]) -> None:
        """Reads every acknowledged record in every way, and lets the doctor read all objects."""
        self._say(f"reading all {len(self._records)} records …")
        self._begin("everything at the end", 0)
        for record in self._records:
            for way in self._ways(user, record):
                if not await self._download(session, record, *way):
                    self.ledger.violate(f"lost: record {record['id']}, {way[0].partition('?')[0]}")
        await let_sweeper_finish(self._stack, self.ledger)
        await ask_doctor(self._stack, self.ledger)
        self._say(
            f"the doctor has read the objects of {self.ledger.acknowledged['seen by the doctor']} records"
        )

    def _check_log(self) -> None:
        log = self._stack.supervisor.log("records").read_text(errors="replace")
        self._corrected["service"] = log.count("a node of the store lacks what another node has")
        upstream = re.findall(
            r'"upstream_status":"([^"]*)"', self._stack.supervisor.log("gateway").read_text(errors="replace")
        )
        self._corrected["gateway"] = sum("404" in statuses for statuses in upstream)
        if lost := log.count('"object lost"'):
            self.ledger.violate(f"{lost} log lines say that an object is lost")

    def rows(self) -> list[Row]:
        """Returns the summary."""
        rows = [
            (
                "violations",
                str(len(self.ledger.violations)),
                "; ".join(self.ledger.violations[:3]) or "none",
            ),
            (
                "acknowledged records",
                str(len(self._records)),
                "all read at the end in every way; doctor --deep is clean",
            ),
        ]
        false = ", ".join(f"{count} to the {asker}" for asker, count in self._corrected.items())
        rows.append(
            ("false 404s of a node", str(sum(self._corrected.values())), f"{false}; none reached a client")
        )
        for phase in self.phases:
            rows += [
                (f"{phase.name}: failed uploads", f"{phase.failed_uploads}", _describe(phase, "upload")),
                (
                    f"{phase.name}: failed downloads",
                    f"{phase.failed_downloads}",
                    _describe(phase, "download"),
                ),
            ]
        return rows


def _describe(phase: Phase, what: str) -> str:
    counted = phase.uploads if what == "upload" else phase.downloads
    statuses = ", ".join(f"{count:,} x {status or 'broken off'}" for status, count in sorted(counted.items()))
    return f"{statuses or 'none'}; the slowest {phase.slowest_seconds[what]:.1f} s"


NOTE = """\
Three clients upload all the time: small WAVs, small ones with their original, and ones whose MP3 and
original are multipart uploads. Four listeners get MP3s, ranges, waveforms and originals. A request counts for
the worst state that it saw. The nodes end by SIGKILL. With two nodes away, MinIO takes no objects.
"""


def main(arguments: list[str]) -> int:
    """Runs the drill. Returns the exit status: 1 if anything is violated."""
    parser = argparse.ArgumentParser(prog="just drill-store", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="write the summary to tests/bench/RESULTS.md")
    options = parser.parse_args(arguments)
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="waxwing-drill-") as folder,
        minio_nodes(Path(folder)) as nodes,
        temporary_stack({**nodes.settings, **SETTINGS}, say) as stack,
    ):
        drill = StoreDrill(stack, nodes, KINDS, lambda what: say(f"{time.monotonic() - began:.0f} s: {what}"))
        asyncio.run(drill.run(uploads=15, downloads=200, failed_uploads=1))
    for what, result, origin in drill.rows():
        print(f"{what:<44} {result:>6}   {origin}")
    say(f"{len(drill.ledger.violations)} violations in {time.monotonic() - began:.0f} s")
    if options.keep:
        write_results(drill.rows(), "The last drill of the store", "./just drill-store --keep", NOTE)
    return 1 if drill.ledger.violations else 0


def say(message: str) -> None:
    """Tells the person at the terminal how far the drill is."""
    print(f"drill: {message}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
