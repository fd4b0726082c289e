"""Which processes of the stack live, as the operating system shows it.

supervisor knows its processes only while it lives itself. So each process writes a line into the file
`processes` before its program begins: its name, its stop signal, the id of the machine's boot, and its line
of /proc/<pid>/stat. Linux gives a process id to another process later, but never with the same start time.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# Writes the line and becomes the program, which keeps process id and start time.
_WRITE_LINE = (
    f'read -r boot <{_BOOT_ID} && read -r stat </proc/$$/stat && echo "$1 $2 $boot $stat" >>"$0" && '
    'shift 2 && exec "$@"'
)


class LivingProcess(NamedTuple):
    """A process as /proc shows it. `started` is in clock ticks since the machine's boot."""

    pid: int
    parent: int
    group: int
    session: int
    started: int

    @property
    def age_seconds(self) -> int:
        """Returns how long the process has lived."""
        return int(time.clock_gettime(time.CLOCK_BOOTTIME) - self.started / os.sysconf("SC_CLK_TCK"))


class _Start(NamedTuple):
    name: str
    stop_signal: str
    process: LivingProcess


class StackProcesses:
    """The processes that the supervisor of one folder has started, and their children."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "processes"

    def command(self, name: str, stop_signal: str, program: Sequence[str]) -> list[str]:
        """Returns a command line that writes the line and then becomes the program."""
        return ["/bin/sh", "-c", _WRITE_LINE, str(self.file), name, stop_signal, *program]

    def find(self, name: str) -> LivingProcess | None:
        """Returns the process of this name, or None if it does not live."""
        starts = [start.process for start in self._read_starts() if start.name == name]
        return starts[-1] if starts and _lives(starts[-1]) else None

    def count_restarts(self, name: str) -> int:
        """Returns how often the process was started after its first start."""
        return max(0, sum(start.name == name for start in self._read_starts()) - 1)

    def find_all(self) -> list[LivingProcess]:
        """Returns every process that lives: those that were started, orphans, and the children of both."""
        found = [*(start.process for start in self._read_starts() if _lives(start.process)), *self._orphans()]
        living = _read_all()
        for process in found:
            found += [child for child in living if child.parent == process.pid and child not in found]
        return found

    def end_all(self, seconds: int, meanwhile: Callable[[], None]) -> None:
        """Sends each process its stop signal and returns when all have ended. Kills them after `seconds`.

        Calls `meanwhile` again and again until all have ended.
        """
        for start in self._read_starts():
            _send(f"SIG{start.stop_signal}", start.process)
        self.end_orphans()
        deadline = time.monotonic() + seconds
        while living := self.find_all():
            if time.monotonic() > deadline:
                for process in living:
                    _send("SIGKILL", process)
            meanwhile()
            time.sleep(0.05)
        self.file.unlink(missing_ok=True)

    def end_orphans(self) -> None:
        """Ends the children of ended processes. nginx's workers outlive a killed nginx, and keep its port."""
        for process in self._orphans():
            _send("SIGKILL", process)

    def _orphans(self) -> list[LivingProcess]:
        """Returns the processes in the group of a process that has ended.

        Linux gives no new process an id that a group or a session still has.
        """
        # Read the starts first. A process that starts afterwards is not among them, so it cannot count as
        # ended.
        starts = self._read_starts()
        living = {process.pid: process for process in _read_all()}
        ended = [start.process for start in starts if start.process.pid not in living]
        groups = {(process.pid, process.session) for process in ended}
        return [process for process in living.values() if (process.group, process.session) in groups]

    def _read_starts(self) -> list[_Start]:
        if not self.file.exists():
            return []
        boot_id = _BOOT_ID.read_text().strip()
        lines = (line.split(" ", 3) for line in self.file.read_text().splitlines())
        return [
            _Start(name, stop_signal, process)
            for name, stop_signal, boot, stat in lines
            if boot == boot_id and (process := _parse(stat))
        ]


def _parse(stat: str) -> LivingProcess | None:
    """Reads a line of /proc/<pid>/stat (proc_pid_stat(5)). Returns None for a zombie, which has ended."""
    pid, _, rest = stat.partition(" (")
    # The name of the program stands in parentheses and can have any characters.
    fields = rest.rpartition(")")[2].split()
    if fields[0] in ("Z", "X"):
        return None
    return LivingProcess(int(pid), int(fields[1]), int(fields[2]), int(fields[3]), int(fields[19]))


def _read(pid: str) -> LivingProcess | None:
    try:
        return _parse(Path("/proc", pid, "stat").read_text())
    except (FileNotFoundError, ProcessLookupError):
        return None


def _read_all() -> list[LivingProcess]:
    folders = Path("/proc").glob("[0-9]*")
    return [process for folder in folders if (process := _read(folder.name))]


def _lives(process: LivingProcess) -> bool:
    """Whether the process lives and its id does not belong to another process now."""
    living = _read(str(process.pid))
    return living is not None and living.started == process.started


def _send(signal_name: str, process: LivingProcess) -> None:
    if _lives(process):
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.Signals[signal_name])
