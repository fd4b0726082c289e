"""The processes of the local stack under supervisor: its configuration, its control, and their logs.

supervisor starts and stops the parts, writes and rotates their logs and runs in the background. What it does
not do is to stop everything when one part dies: for that it runs this file beside them, as an event listener.
"""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any, TextIO, cast
from xmlrpc.client import Fault, ServerProxy

from supervisor import childutils
from supervisor.xmlrpc import SupervisorTransport

ROOT = Path(__file__).parents[2]
_STOPPED = ("STOPPED", "EXITED", "FATAL", "BACKOFF", "UNKNOWN")
# Longer than a service takes to finish its requests (GRACEFUL_SHUTDOWN_SECONDS of common.server).
_STOP_SECONDS = 40
# Five parts and the watch, one after the other.
_SHUTDOWN_SECONDS = 6 * _STOP_SECONDS


class AlreadyRunningError(Exception):
    """The folder's stack runs, or is being started."""


@dataclass(frozen=True)
class Part:
    """One process of the stack. Parts are stopped one by one, the highest `order` first."""

    name: str
    order: int
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_signal: str = "TERM"


class Supervisor:
    """The supervisor daemon of one folder, whether this process has started it or another one did.

    It holds the lock of the folder as long as it lives: the lock tells whether it runs, also after a crash.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock_file = folder / "lock"
        self._socket_file = folder / "supervisor.json"
        self._obituary = folder / "obituary"
        self._log_starts: dict[str, int] = {}

    def is_running(self) -> bool:
        """Whether a supervisor runs in this folder, or is being started."""
        if not self._lock_file.exists():
            return False
        with self._lock_file.open("a") as lock:
            return not _locked(lock)

    @contextmanager
    def starting(self) -> Iterator[TextIO]:
        """Hold the folder's lock. Raises AlreadyRunningError when a stack runs or starts there."""
        with self._lock_file.open("a") as lock:
            if not _locked(lock):
                raise AlreadyRunningError("the stack runs already: `just ps` shows it, `just down` stops it")
            self._obituary.unlink(missing_ok=True)
            yield lock

    def start(
        self, lock: TextIO, parts: Sequence[Part], environment: Mapping[str, str], *, one_dies_all_stop: bool
    ) -> None:
        """Start the daemon with every part at rest. Raises RuntimeError when it does not start."""
        # A stack that has stopped itself could not tidy up.
        self._remove_socket()
        # The path of a unix socket may have 107 bytes at most, and the folder's may be longer.
        socket = Path(tempfile.mkdtemp(prefix="waxwing-")) / "supervisor.sock"
        self._socket_file.write_text(json.dumps(str(socket)))
        configuration = self._folder / "supervisor.conf"
        configuration.touch(mode=0o600)
        configuration.write_text(self._render(socket, parts, one_dies_all_stop))
        done = subprocess.run(
            [sys.executable, "-m", "supervisor.supervisord", "-c", str(configuration)],
            pass_fds=[lock.fileno()],
            env=dict(environment),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"supervisor did not start: {done.stderr.strip() or done.stdout.strip()}")

    def stop(self, meanwhile: Callable[[], None]) -> None:
        """Stop all parts in order, then the daemon; return when they are gone. Raises TimeoutError if not.

        `meanwhile` is called over and over until then.
        """
        # It may be gone already, or on its way.
        with suppress(OSError, HTTPException, Fault):
            self._call("shutdown")
        deadline = time.monotonic() + _SHUTDOWN_SECONDS
        while self.is_running():
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"the stack did not stop within {_SHUTDOWN_SECONDS} seconds: see `ps` and `logs`"
                )
            meanwhile()
            time.sleep(0.05)
            # It looks for parts that ended once a second, and whenever it is asked something.
            with suppress(OSError, HTTPException, Fault):
                self._call("getState")
        self._remove_socket()

    def start_part(self, name: str) -> None:
        """Start one part that is at rest; it need not be ready yet."""
        log = self.log(name)
        self._log_starts[name] = log.stat().st_size if log.exists() else 0
        try:
            self._call("startProcess", name, False)
        except Fault as fault:
            raise RuntimeError(f"{name} did not start: {fault.faultString}") from fault

    def stop_part(self, name: str) -> None:
        """Stop one part and return when it is gone; the others go on."""
        self._call("stopProcess", name, True)

    def parts(self) -> list[dict[str, Any]]:
        """What supervisor knows of each part: `name`, `statename`, `pid`, `description`, `exitstatus` …"""
        found = cast("list[dict[str, Any]]", self._call("getAllProcessInfo"))
        return [part for part in found if part["group"] != "watch"]

    def pid(self, name: str) -> int:
        """The process id of a part; 0 when it does not run."""
        return int(self._info(name)["pid"])

    def death(self) -> str | None:
        """Which part died and took the stack along, as a sentence; None when none did."""
        return self._obituary.read_text() if self._obituary.exists() else None

    def has_died(self, name: str) -> bool:
        """Whether a part that was started is not running any more."""
        try:
            return self._info(name)["statename"] in _STOPPED
        except (OSError, HTTPException, Fault):
            return True

    def log(self, name: str) -> Path:
        """The log file of a part."""
        return self._folder / "logs" / f"{name}.log"

    def last_words(self, name: str) -> str:
        """The last lines that a part has logged since its start by this process."""
        log, start = self.log(name), self._log_starts.get(name, 0)
        with log.open(encoding="utf-8", errors="replace") as file:
            # A log that was rotated since begins anew.
            file.seek(start if start <= log.stat().st_size else 0)
            return "".join(deque(file, maxlen=20)).rstrip() or "(it has logged nothing)"

    def _info(self, name: str) -> dict[str, Any]:
        return cast("dict[str, Any]", self._call("getProcessInfo", name))

    def _socket(self) -> Path:
        return Path(json.loads(self._socket_file.read_text()))

    def _remove_socket(self) -> None:
        if self._socket_file.exists():
            shutil.rmtree(self._socket().parent, ignore_errors=True)
            self._socket_file.unlink()

    def _call(self, method: str, *arguments: object) -> object:
        transport = SupervisorTransport(None, None, f"unix://{self._socket()}")
        with ServerProxy("http://127.0.0.1", transport=transport) as proxy:
            return getattr(proxy.supervisor, method)(*arguments)

    def _render(self, socket: Path, parts: Sequence[Part], one_dies_all_stop: bool) -> str:
        sections: dict[str, dict[str, object]] = {
            "supervisord": {
                "identifier": "waxwing",
                "directory": ROOT,
                "logfile": self.log("supervisor"),
                "logfile_backups": 1,
                "pidfile": self._folder / "supervisor.pid",
                "umask": "077",
                "nocleanup": "true",
                # Without this line it warns when it runs as root.
                **({"user": "root"} if os.geteuid() == 0 else {}),
            },
            "unix_http_server": {"file": socket, "chmod": "0700"},
            "rpcinterface:supervisor": {
                "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
            },
            **{f"program:{part.name}": self._program(part) for part in parts},
        }
        if one_dies_all_stop:
            sections["eventlistener:watch"] = {
                "command": shlex.join([sys.executable, "-m", __name__, str(self._obituary)]),
                "events": "PROCESS_STATE_EXITED,PROCESS_STATE_FATAL",
                # What it writes there is its talk with supervisor, no log.
                "stdout_logfile": "NONE",
                "stderr_logfile": _escaped(self.log("watch")),
                # The first to be started and the last to be stopped.
                "priority": 0,
            }
        return "\n".join(
            f"[{name}]\n" + "".join(f"{key}={_escaped(value)}\n" for key, value in section.items())
            for name, section in sections.items()
        )

    def _program(self, part: Part) -> dict[str, object]:
        return {
            "command": shlex.join(part.command),
            "environment": ",".join(f'{name}="{value}"' for name, value in part.environment.items()),
            "priority": part.order,
            "autostart": "false",
            "autorestart": "false",
            # Whether a part is up is asked of the part itself.
            "startsecs": 0,
            "startretries": 0,
            "stopsignal": part.stop_signal,
            "stopwaitsecs": _STOP_SECONDS,
            "redirect_stderr": "true",
            # Of a program these are expanded twice.
            "stdout_logfile": _escaped(self.log(part.name)),
            "stdout_logfile_maxbytes": "20MB",
            "stdout_logfile_backups": 2,
        }


class LogReader:
    """The log files of some parts, read as they grow and across their rotation."""

    def __init__(self, supervisor: Supervisor, names: Sequence[str]) -> None:
        self._paths = {name: supervisor.log(name) for name in names}
        self._width = max(map(len, names))
        self._files: dict[str, TextIO] = {}
        self._unfinished = dict.fromkeys(names, "")
        self._closer = ExitStack()
        for name, path in self._paths.items():
            path.touch()
            self._open(name)
            self._files[name].seek(0, os.SEEK_END)

    def __enter__(self) -> LogReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._closer.close()

    def last_lines(self, count: int) -> Iterator[str]:
        """The last lines of each part, with the part's name before them."""
        for name, path in self._paths.items():
            with path.open(encoding="utf-8", errors="replace") as file:
                yield from (self._prefixed(name, line) for line in deque(file, maxlen=count))

    def new_lines(self) -> Iterator[str]:
        """The lines that came since the last call, with the part's name before them."""
        for name, path in self._paths.items():
            chunk = self._files[name].read()
            if not chunk and path.stat().st_ino != os.fstat(self._files[name].fileno()).st_ino:
                self._open(name)
                chunk = self._files[name].read()
            *lines, self._unfinished[name] = (self._unfinished[name] + chunk).split("\n")
            yield from (self._prefixed(name, line) for line in lines)

    def _open(self, name: str) -> None:
        self._files[name] = self._closer.enter_context(
            self._paths[name].open(encoding="utf-8", errors="replace")
        )

    def _prefixed(self, name: str, line: str) -> str:
        return f"{name:<{self._width}} | {line.rstrip()}"


def _locked(lock: TextIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _escaped(value: object) -> str:
    """In supervisor's configuration a percent sign begins an expansion."""
    return str(value).replace("%", "%%")


def _watch(obituary: Path) -> None:
    """Wait until a part dies; write down which and how, and have supervisor stop everything."""
    while True:
        _, payload = childutils.listener.wait()
        name = childutils.get_headers(payload)["processname"]
        supervisor = childutils.getRPCInterface(os.environ).supervisor
        status = supervisor.getProcessInfo(name)["exitstatus"]
        # A second one that dies on the way down is not the reason.
        if not obituary.exists():
            how = "was killed" if status < 0 else f"ended with status {status}"
            obituary.write_text(f"{name} {how}")
            supervisor.shutdown()
        childutils.listener.ok()


if __name__ == "__main__":
    _watch(Path(sys.argv[1]))
