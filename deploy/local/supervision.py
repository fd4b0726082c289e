"""Runs the processes of the local stack under supervisor, and reads their logs.

supervisor runs in the background, starts and stops the processes, and writes and rotates their logs. It
cannot stop everything when one process dies, so it also runs this file, as an event listener that does so.
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
# Longer than a service takes to finish its requests (SHUTDOWN_SECONDS and CANCELLED_REQUEST_SECONDS).
_STOP_SECONDS = 50
# For five processes and the event listener, one after the other.
_SHUTDOWN_SECONDS = 6 * _STOP_SECONDS


class AlreadyRunningError(Exception):
    """The stack of this folder runs already, or is being started."""


@dataclass(frozen=True)
class StackProcess:
    """One process of the stack. supervisor stops the processes one by one, the highest `order` first."""

    name: str
    order: int
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_signal: str = "TERM"


class Supervisor:
    """Controls the supervisor daemon of one folder, even if another process started it.

    The daemon holds the lock of the folder while it lives, so the lock shows whether it runs, even after a
    crash.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock_file = folder / "lock"
        self._socket_file = folder / "supervisor.json"
        self._death_file = folder / "death_file"
        self._log_starts: dict[str, int] = {}

    def is_running(self) -> bool:
        """Whether a daemon runs in this folder, or is being started."""
        if not self._lock_file.exists():
            return False
        with self._lock_file.open("a") as lock:
            return not _locked(lock)

    @contextmanager
    def starting(self) -> Iterator[TextIO]:
        """Holds the folder's lock while the `with` statement runs.

        Raises AlreadyRunningError if a stack runs or starts there.
        """
        with self._lock_file.open("a") as lock:
            if not _locked(lock):
                raise AlreadyRunningError("the stack runs already: `just ps` shows it, `just down` stops it")
            self._death_file.unlink(missing_ok=True)
            yield lock

    def start(
        self,
        lock: TextIO,
        processes: Sequence[StackProcess],
        environment: Mapping[str, str],
        *,
        stop_all_on_death: bool,
    ) -> None:
        """Starts the daemon and no process yet. Raises RuntimeError if the daemon does not start."""
        # A stack that stopped itself has left its socket behind.
        self._remove_socket()
        # The path of a unix socket has at most 107 bytes, and the path of the folder can be longer.
        socket = Path(tempfile.mkdtemp(prefix="waxwing-")) / "supervisor.sock"
        self._socket_file.write_text(json.dumps(str(socket)))
        configuration = self._folder / "supervisor.conf"
        configuration.touch(mode=0o600)
        configuration.write_text(self._render(socket, processes, stop_all_on_death))
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
        """Stops all processes in order, then the daemon, and returns when all are gone.

        Calls `meanwhile` again and again until then. Raises TimeoutError if they do not stop in time.
        """
        # The daemon may be gone already, or be stopping.
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
            # supervisor looks for ended processes once a second, and at every call.
            with suppress(OSError, HTTPException, Fault):
                self._call("getState")
        self._remove_socket()

    def start_process(self, name: str) -> None:
        """Starts one process that does not run. Returns before it is ready."""
        log = self.log(name)
        self._log_starts[name] = log.stat().st_size if log.exists() else 0
        try:
            self._call("startProcess", name, False)
        except Fault as fault:
            raise RuntimeError(f"{name} did not start: {fault.faultString}") from fault

    def stop_process(self, name: str) -> None:
        """Stops one process and returns when it is gone. The other processes go on."""
        self._call("stopProcess", name, True)

    def process_infos(self) -> list[dict[str, Any]]:
        """Returns what supervisor knows of each process: `name`, `statename`, `pid`, `description` …"""
        found = cast("list[dict[str, Any]]", self._call("getAllProcessInfo"))
        return [process for process in found if process["group"] != "watch"]

    def pid(self, name: str) -> int:
        """Returns the process id of a process, or 0 if it does not run."""
        return int(self._info(name)["pid"])

    def find_death(self) -> str | None:
        """Returns which process died and how, such as "users was killed"; None if no process died."""
        return self._death_file.read_text() if self._death_file.exists() else None

    def has_died(self, name: str) -> bool:
        """Whether a process that was started has ended."""
        try:
            return self._info(name)["statename"] in _STOPPED
        except (OSError, HTTPException, Fault):
            return True

    def log(self, name: str) -> Path:
        """Returns the log file of a process."""
        return self._folder / "logs" / f"{name}.log"

    def last_log_lines(self, name: str) -> str:
        """Returns the last lines that a process has logged since we started it."""
        log, start = self.log(name), self._log_starts.get(name, 0)
        with log.open(encoding="utf-8", errors="replace") as file:
            # If supervisor has rotated the log since, the file starts with newer lines.
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

    def _render(self, socket: Path, processes: Sequence[StackProcess], stop_all_on_death: bool) -> str:
        sections: dict[str, dict[str, object]] = {
            "supervisord": {
                "identifier": "waxwing",
                "directory": ROOT,
                "logfile": self.log("supervisor"),
                "logfile_backups": 1,
                "pidfile": self._folder / "supervisor.pid",
                "umask": "077",
                "nocleanup": "true",
                # Without this line supervisor warns when it runs as root.
                **({"user": "root"} if os.geteuid() == 0 else {}),
            },
            "unix_http_server": {"file": socket, "chmod": "0700"},
            "rpcinterface:supervisor": {
                "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
            },
            **{f"program:{process.name}": self._program(process) for process in processes},
        }
        if stop_all_on_death:
            sections["eventlistener:watch"] = {
                "command": shlex.join([sys.executable, "-m", __name__, str(self._death_file)]),
                "events": "PROCESS_STATE_EXITED,PROCESS_STATE_FATAL",
                # The listener talks to supervisor through its standard output, so its output is no log.
                "stdout_logfile": "NONE",
                "stderr_logfile": _escaped(self.log("watch")),
                # supervisor starts the listener first and stops it last.
                "priority": 0,
            }
        return "\n".join(
            f"[{name}]\n" + "".join(f"{key}={_escaped(value)}\n" for key, value in section.items())
            for name, section in sections.items()
        )

    def _program(self, process: StackProcess) -> dict[str, object]:
        return {
            "command": shlex.join(process.command),
            "environment": ",".join(f'{name}="{value}"' for name, value in process.environment.items()),
            "priority": process.order,
            "autostart": "false",
            "autorestart": "false",
            # The stack asks each process itself whether it is ready.
            "startsecs": 0,
            "startretries": 0,
            "stopsignal": process.stop_signal,
            "stopwaitsecs": _STOP_SECONDS,
            "redirect_stderr": "true",
            # supervisor expands percent signs in this value twice.
            "stdout_logfile": _escaped(self.log(process.name)),
            "stdout_logfile_maxbytes": "20MB",
            "stdout_logfile_backups": 2,
        }


class LogReader:
    """Reads the log files of some processes while they grow, and goes on after supervisor rotates them."""

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
        """Yields the last lines of each process, each behind the name of its process."""
        for name, path in self._paths.items():
            with path.open(encoding="utf-8", errors="replace") as file:
                yield from (self._prefixed(name, line) for line in deque(file, maxlen=count))

    def new_lines(self) -> Iterator[str]:
        """Yields the lines logged since the last call, each behind the name of its process."""
        for name, path in self._paths.items():
            text = self._files[name].read()
            if not text and path.stat().st_ino != os.fstat(self._files[name].fileno()).st_ino:
                self._open(name)
                text = self._files[name].read()
            *lines, self._unfinished[name] = (self._unfinished[name] + text).split("\n")
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
    """Escapes percent signs, which start an expansion in supervisor's configuration."""
    return str(value).replace("%", "%%")


def _watch(death_file: Path) -> None:
    """Waits until a process dies, writes down which one and how, and lets supervisor stop everything."""
    while True:
        _, payload = childutils.listener.wait()
        name = childutils.get_headers(payload)["processname"]
        supervisor = childutils.getRPCInterface(os.environ).supervisor
        status = supervisor.getProcessInfo(name)["exitstatus"]
        # A second process that dies while the others stop is not the reason.
        if not death_file.exists():
            how = "was killed" if status < 0 else f"ended with status {status}"
            death_file.write_text(f"{name} {how}")
            supervisor.shutdown()
        childutils.listener.ok()


if __name__ == "__main__":
    _watch(Path(sys.argv[1]))
