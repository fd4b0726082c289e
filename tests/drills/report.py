"""What a drill prints and keeps."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from deploy.local.supervision import ROOT
from tests.bench.results import Row, write_results


def say(message: str) -> None:
    """Tells the person at the terminal how far the drill is."""
    print(f"drill: {message}", flush=True)


class Drill(Protocol):
    """A drill on stacks in one folder."""

    rows: list[Row]
    violations: list[str]

    def run(self) -> None:
        """Runs it, and fills the lists."""


def run_drill(make: Callable[[Path], Drill], section: tuple[str, str, str] | None) -> int:
    """Runs a drill in a folder of its own and reports it. Returns the exit status as `report` does."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="waxwing-drill-") as folder:
        drill = make(Path(folder))
        try:
            drill.run()
        except BaseException:
            keep_logs(Path(folder))
            raise
        if drill.violations:
            keep_logs(Path(folder))
    return report(drill.rows, drill.violations, began, section)


def report(rows: list[Row], violations: list[str], began: float, section: tuple[str, str, str] | None) -> int:
    """Prints the rows. Writes them to RESULTS.md if `section` has a title, the command and a note.

    Returns the exit status: 1 if anything is violated.
    """
    rows.insert(0, ("violations", str(len(violations)), "; ".join(violations[:3]) or "none"))
    for what, result, origin in rows:
        print(f"{what:<48} {result:>9}   {origin}")
    for violation in violations:
        print(f"VIOLATED: {violation}")
    say(f"{len(violations)} violations in {time.monotonic() - began:.0f} s")
    if section:
        write_results(rows, *section)
    return 1 if violations else 0


def keep_logs(folder: Path) -> None:
    """Keeps the logs of a drill in `.chaos`."""
    kept = ROOT / ".chaos" / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-drill"
    for log in (*folder.rglob("*.log"), *folder.rglob("log")):
        if log.is_file():
            copy = kept / log.relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(log, copy)
    say(f"the logs are kept in {kept.relative_to(ROOT)}")
