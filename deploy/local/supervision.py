"""Runs the processes of the local stack under supervisor, and reads their logs.

supervisor runs in the background, starts and stops the processes, and writes and rotates their logs. It
also runs this file as an event listener, which does what supervisor cannot do when a process dies: end the
children that the process leaves behind, and stop everything.
"""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import shutil
import signal
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
from typing import Any, Literal, TextIO, cast
from xmlrpc.client import Fault, ServerProxy

from supervisor import childutils
from supervisor.xmlrpc import Faults, SupervisorTransport, UnixStreamHTTPConnection

from deploy.local.log_lines import make_readable
from deploy.local.processes import StackProcesses

ROOT = Path(__file__).parents[2]
_STOPPED = ("STOPPED", "EXITED", "FATAL", "BACKOFF", "UNKNOWN")
DEFAULT_STOP_SECONDS = 50
# The groups of processes and the event listener stop one after the other.
_STOPPING_GROUPS = 4
# The daemon answers every call at once, but one that waits for the end of a process.
_CALL_SECONDS = 5
# A process that lives for less time is started again after a pause, which grows by a second each time.
_SHORT_LIFE_SECONDS = 10
# The pauses grow, so even a year has far fewer restarts.
_MAX_RESTARTS = 1_000_000


class AlreadyRunningError(Exception):
    """The stack of this folder runs already, or is being started."""


@dataclass(frozen=True)
class StackProcess:
    """One process of the stack.

    supervisor stops one group after the other, the highest `order` first. The processes of a group get their
    stop signals at once, also the highest `order` first.
    """

    name: str
    order: int
    group: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_signal: str = "TERM"


class Supervisor:
    """Controls the supervisor daemon of one folder, even if another process started it.

    The daemon holds the lock of the folder while it lives, so the lock shows whether it runs, even after a
    crash.
    """

    def __init__(self, folder: Path, stop_seconds: int = DEFAULT_STOP_SECONDS) -> None:
        """A process is killed `stop_seconds` after its stop signal."""
        self._folder = folder
        self._stop_seconds = stop_seconds
        self._lock_file = folder / "lock"
        self._socket_file = folder / "supervisor.json"
        self._pid_file = folder / "supervisor.pid"
        self._death_file = folder / "death_file"
        self._log_starts: dict[str, int] = {}
        self.processes = StackProcesses(folder)

    def is_running(self) -> bool:
        """Whether a daemon runs in this folder, or is being started."""
        if not self._lock_file.exists():
            return False
        with self._lock_file.open("a") as lock:
            return not try_lock(lock)

    def state(self) -> Literal["absent", "starting", "running", "hanging", "stopping"]:
        """Returns what the daemon does."""
        if not self.is_running():
            return "absent"
        try:
            self._call("getState")
        except Fault:  # While it stops, the daemon answers no call.
            return "stopping"
        except TimeoutError:
            return "hanging"
        except (OSError, HTTPException):
            return "starting"
        return "running"

    @contextmanager
    def starting(self) -> Iterator[TextIO]:
        """Holds the folder's lock while the `with` statement runs.

        Raises AlreadyRunningError if a stack runs there.
        """
        with self._lock_file.open("a") as lock:
            if not try_lock(lock):
                raise AlreadyRunningError(
                    "the stack runs already: `./just ps` shows it, `./just down` stops it"
                )
            for file in (self._death_file, self._pid_file):
                file.unlink(missing_ok=True)
            yield lock

    def start(
        self,
        lock: TextIO,
        processes: Sequence[StackProcess],
        environment: Mapping[str, str],
        *,
        background: bool,
    ) -> None:
        """Starts the daemon and no process yet. Raises RuntimeError if the daemon does not start.

        In the background, a process that dies is started again. Otherwise its death stops all processes.
        """
        # A stack that stopped itself has left its socket behind.
        self._remove_socket()
        # The path of a unix socket has at most 107 bytes, and the path of the folder can be longer.
        socket = Path(tempfile.mkdtemp(prefix="waxwing-")) / "supervisor.sock"
        self._socket_file.write_text(json.dumps(str(socket)))
        configuration = self._folder / "supervisor.conf"
        configuration.touch(mode=0o600)
        configuration.write_text(self._render(socket, processes, background))
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

    def stop(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Stops all processes in order, then the daemon, and returns when all are gone.

        Kills a daemon that does not answer, and ends the processes of a daemon that was killed. Calls
        `meanwhile` again and again until all are gone. Raises TimeoutError if the daemon does not stop in
        time.
        """
        # The daemon may be gone already, or be stopping.
        with suppress(OSError, HTTPException, Fault):
            try:
                self._call("shutdown")
            except TimeoutError:
                os.kill(self.daemon_pid, signal.SIGKILL)
        self.wait_until_stopped(meanwhile)
        self._remove_socket()
        self.end_left_over(meanwhile)

    def end_left_over(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Ends the processes of a daemon that was killed."""
        self.processes.end_all(self._stop_seconds, meanwhile)

    def wait_until_stopped(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Returns when a daemon that stops everything is gone."""
        seconds = _STOPPING_GROUPS * self._stop_seconds
        deadline = time.monotonic() + seconds
        while self.is_running():
            if time.monotonic() > deadline:
                raise TimeoutError(f"the stack did not stop within {seconds} seconds: see `ps` and `logs`")
            meanwhile()
            time.sleep(0.05)
            # supervisor looks for ended processes once a second, and at every call.
            with suppress(OSError, HTTPException, Fault):
                self._call("getState")

    def start_process(self, name: str) -> None:
        """Starts one process if it does not run. Returns before it is ready."""
        info = self._info(name)
        if info["pid"]:
            return
        log = self.log(name)
        self._log_starts[name] = log.stat().st_size if log.exists() else 0
        full_name = f"{info['group']}:{name}"
        # supervisor does not start a process that waits for its next start, unless it is stopped first.
        if info["statename"] == "BACKOFF":
            self._call("stopProcess", full_name)
        try:
            self._call("startProcess", full_name, False)
        except Fault as fault:
            if fault.faultCode != Faults.ALREADY_STARTED:
                raise RuntimeError(f"{name} did not start: {fault.faultString}") from fault

    def stop_process(self, name: str) -> None:
        """Stops one process and returns when it is gone. The other processes go on."""
        self._call("stopProcess", f"{self._info(name)['group']}:{name}", True, seconds=2 * self._stop_seconds)

    @property
    def daemon_pid(self) -> int:
        """The process id of the daemon, which must be running."""
        return int(self._pid_file.read_text())

    def pid(self, name: str) -> int:
        """Returns the process id of a process, or 0 if it does not run."""
        return int(self._info(name)["pid"]) if self.is_running() else 0

    def find_death(self) -> str | None:
        """Returns which process died and how, such as "users was killed"; None if no process died."""
        return self._death_file.read_text() if self._death_file.exists() else None

    def was_killed(self) -> bool:
        """Whether the last daemon has ended without removing its own file."""
        return self._pid_file.exists() and not self.is_running()

    def is_restarting(self, name: str) -> bool:
        """Whether a process that has died will be started again."""
        return bool(self._info(name)["statename"] != "STOPPED")

    def has_died(self, name: str) -> bool:
        """Whether a process that was started has ended."""
        try:
            return self._info(name)["statename"] in _STOPPED
        except (OSError, HTTPException, Fault):
            return True

    def watch(self, *, stop_all: bool) -> None:
        """Waits until a process dies, and ends the children that it has left behind.

        With `stop_all`, also writes down which process died and how, and stops everything.
        """
        while True:
            _, payload = childutils.listener.wait()
            self.processes.end_orphans()
            # A second process that dies while the others stop is not the reason.
            if stop_all and not self._death_file.exists():
                name = childutils.get_headers(payload)["processname"]
                status = self._info(name)["exitstatus"]
                how = "was killed" if status < 0 else f"ended with status {status}"
                self._death_file.write_text(f"{name} {how}")
                self._call("shutdown")
            childutils.listener.ok()

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
        """Returns what supervisor knows of a process: `group`, `statename`, `pid` …"""
        infos = cast("list[dict[str, Any]]", self._call("getAllProcessInfo"))
        return next(info for info in infos if info["name"] == name)

    def _socket(self) -> Path:
        return Path(json.loads(self._socket_file.read_text()))

    def _remove_socket(self) -> None:
        if self._socket_file.exists():
            shutil.rmtree(self._socket().parent, ignore_errors=True)
            self._socket_file.unlink()

    def _call(self, method: str, *arguments: object, seconds: int = _CALL_SECONDS) -> object:
        socket = self._socket()
        transport = SupervisorTransport(None, None, f"unix://{socket}")
        transport._get_connection = lambda: _Connection(socket, seconds)
        with ServerProxy("http://127.0.0.1", transport=transport) as proxy:
            return getattr(proxy.supervisor, method)(*arguments)

    def _render(self, socket: Path, processes: Sequence[StackProcess], background: bool) -> str:
        stop_all = [] if background else ["--stop-all"]
        sections: dict[str, dict[str, object]] = {
            "supervisord": {
                "identifier": "waxwing",
                "directory": ROOT,
                "logfile": self.log("supervisor"),
                "logfile_backups": 1,
                "pidfile": self._pid_file,
                "umask": "077",
                "nocleanup": "true",
                # Without this line supervisor warns when it runs as root.
                **({"user": "root"} if os.geteuid() == 0 else {}),
            },
            "unix_http_server": {"file": socket, "chmod": "0700"},
            "rpcinterface:supervisor": {
                "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
            },
            **{f"program:{process.name}": self._program(process, background) for process in processes},
            "eventlistener:watch": {
                "command": shlex.join([sys.executable, "-m", __name__, str(self._folder), *stop_all]),
                "events": "PROCESS_STATE_EXITED,PROCESS_STATE_BACKOFF,PROCESS_STATE_FATAL",
                # The listener talks to supervisor through its standard output, so its output is no log.
                "stdout_logfile": "NONE",
                "stderr_logfile": _escaped(self.log("watch")),
                # supervisor starts the listener first and stops it last.
                "priority": 0,
            },
        }
        for group in {process.group for process in processes}:
            members = [process for process in processes if process.group == group]
            sections[f"group:{group}"] = {
                "programs": ",".join(process.name for process in members),
                "priority": max(process.order for process in members),
            }
        return "\n".join(
            f"[{name}]\n" + "".join(f"{key}={_escaped(value)}\n" for key, value in section.items())
            for name, section in sections.items()
        )

    def _program(self, process: StackProcess, background: bool) -> dict[str, object]:
        return {
            "command": shlex.join(self.processes.command(process.name, process.stop_signal, process.command)),
            "environment": ",".join(f'{name}="{value}"' for name, value in process.environment.items()),
            "priority": process.order,
            "autostart": "false",
            "autorestart": "true" if background else "false",
            # The stack asks each process itself whether it is ready.
            "startsecs": _SHORT_LIFE_SECONDS if background else 0,
            "startretries": _MAX_RESTARTS if background else 0,
            "stopsignal": process.stop_signal,
            "stopwaitsecs": self._stop_seconds,
            # Kills nginx's workers together with nginx.
            "killasgroup": "true",
            "redirect_stderr": "true",
            # supervisor expands percent signs in this value twice.
            "stdout_logfile": _escaped(self.log(process.name)),
            "stdout_logfile_maxbytes": "20MB",
            "stdout_logfile_backups": 2,
        }


class LogReader:
    """Reads the log files of some processes while they grow, and goes on after supervisor rotates them.

    Lines of JSON become readable, each behind the name of its process, unless the reader `is_raw`.
    """

    def __init__(self, supervisor: Supervisor, names: Sequence[str], *, is_raw: bool = False) -> None:
        self._is_raw = is_raw
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
        """Yields the last lines of each process."""
        for name, path in self._paths.items():
            with path.open(encoding="utf-8", errors="replace") as file:
                yield from (self._render(name, line) for line in deque(file, maxlen=count))

    def new_lines(self) -> Iterator[str]:
        """Yields the lines logged since the last call."""
        for name, path in self._paths.items():
            text = self._files[name].read()
            if not text and path.stat().st_ino != os.fstat(self._files[name].fileno()).st_ino:
                self._open(name)
                text = self._files[name].read()
            *lines, self._unfinished[name] = (self._unfinished[name] + text).split("\n")
            yield from (self._render(name, line) for line in lines)

    def _open(self, name: str) -> None:
        self._files[name] = self._closer.enter_context(
            self._paths[name].open(encoding="utf-8", errors="replace")
        )

    def _render(self, name: str, line: str) -> str:
        if self._is_raw:
            return line.rstrip()
        return f"{name:<{self._width}} | {make_readable(line.rstrip())}"


class _Connection(UnixStreamHTTPConnection):  # type: ignore[misc]
    """A connection to the daemon that raises TimeoutError if a response takes too long."""

    def __init__(self, socket: Path, seconds: int) -> None:
        super().__init__("localhost", timeout=seconds)
        self.socketfile = str(socket)

    def connect(self) -> None:
        """Sets the timeout, which the base class ignores."""
        super().connect()
        self.sock.settimeout(self.timeout)


def try_lock(lock: TextIO) -> bool:
    """Locks an open file until it is closed, unless another process has locked it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _escaped(value: object) -> str:
    """Escapes percent signs, which start an expansion in supervisor's configuration."""
    return str(value).replace("%", "%%")


if __name__ == "__main__":
    Supervisor(Path(sys.argv[1])).watch(stop_all="--stop-all" in sys.argv)
