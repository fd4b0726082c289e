"""The whole of Waxwing on this machine without Docker.

PostgreSQL, MinIO, both services and nginx run under one supervisor. Their data, logs, passwords and
configuration stand in one folder, `.local` or WAXWING_FOLDER, so several stacks can run side by side.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict
from functools import cached_property
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import urlsplit

from deploy.local import gateway, minio, postgres
from deploy.local.ports import LOOPBACK, Ports, Wish, complaints
from deploy.local.supervision import ROOT, AlreadyRunningError, Part, Supervisor

_READY_SECONDS = 60
_DEFAULTS = {
    "DOWNLOADS": "accel",
    "MAX_UPLOAD_BYTES": str(4 * 1024**3),
    "CACHE_MAX_BYTES": str(1024**3),
    "CACHE_SECONDS": "600",
    # Nobody: no address is so.
    "TRUSTED_PROXY": "255.255.255.255",
    "S3_BUCKET": "records",
    "S3_REGION": "us-east-1",
}
_OWN_STORE = ("S3_ENDPOINT", "S3_ACCESS_KEY", "S3_SECRET_KEY")
_NEUTRAL = (
    "PATH",
    "HOME",
    "TMPDIR",
    "LANG",
    "LC_ALL",
    "XDG_CACHE_HOME",
    "LD_LIBRARY_PATH",
    "MINIO_BIN",
    "PYTHONDONTWRITEBYTECODE",
)


class StackError(Exception):
    """The stack cannot do what was asked; the message says why and what to do."""


class Stack:
    """The stack of one folder.

    `ports`: those that the settings name, unless given. `settings`: an environment, whose variables reach the
    services; only what programs need to run is taken from this process, so that a test sees the defaults.
    With `one_dies_all_stop` false the others go on when a part dies, and `start_part` brings it back.
    """

    def __init__(
        self,
        folder: Path,
        ports: Ports | None = None,
        settings: Mapping[str, str] | None = None,
        *,
        one_dies_all_stop: bool = True,
    ) -> None:
        self._folder = folder.absolute()
        neutral = {name: os.environ[name] for name in _NEUTRAL if name in os.environ}
        # What is set to nothing is not set, as in Docker.
        chosen = {name: value for name, value in (settings or {}).items() if value}
        self._settings = {**_DEFAULTS, **neutral, **chosen}
        self._given_ports = ports
        self._one_dies_all_stop = one_dies_all_stop
        self._state_file = self._folder / "state.json"
        self._secrets_file = self._folder / "secrets.json"
        self.supervisor = Supervisor(self._folder)

    def start(self, say: Callable[[str], None] = lambda _: None) -> None:
        """Start everything and return when it is ready; after a failure nothing is left running.

        Raises AlreadyRunningError, or StackError, which names who holds a port or which part failed, with its
        last lines.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            with self.supervisor.starting() as lock:
                self._start(lock, say)
        except AlreadyRunningError:
            raise
        except BaseException as error:
            self.stop()
            death = self.supervisor.death()
            # One part's end stops everything: the error may be another part's.
            if death and isinstance(error, Exception):
                words = self.supervisor.last_words(death.split()[0])
                raise StackError(f"{death} instead of starting:\n{words}") from error
            raise

    def _start(self, lock: TextIO, say: Callable[[str], None]) -> None:
        self._choose_ports()
        minio_binary = None if self._own_store else minio.find_or_build(self._settings, say)
        for name in ("logs", "minio"):
            (self._folder / name).mkdir(mode=0o700, exist_ok=True)
        gateway.render(self._folder / "gateway", self._gateway_variables())
        self.supervisor.start(
            lock, self._parts(minio_binary), self._settings, one_dies_all_stop=self._one_dies_all_stop
        )

        say("starting …")
        # Most of the time goes into loading programs: whatever touches nothing until it is asked starts now.
        for name in (*(["minio"] if minio_binary else []), "users", "gateway"):
            self.supervisor.start_part(name)
        postgres.create_cluster(self._folder / "postgres", self.secrets["postgres"])
        self.start_part("postgres")
        postgres.create_database(self.ports.postgres, self.secrets["postgres"])
        if minio_binary:
            self._wait_until_ready("minio")

        say("setting up bucket, keys, roles and schema …")
        self._set_up()

        say("waiting for the services …")
        # Its sweeper works from the first moment, so it comes after the set-up.
        self.supervisor.start_part("records")
        for name in ("users", "records", "gateway"):
            self._wait_until_ready(name)

    def stop(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Stop everything in order and return when it is gone; nothing happens when nothing runs.

        `meanwhile` is called over and over until then.
        """
        self.supervisor.stop(meanwhile)

    def start_part(self, name: str) -> None:
        """Start one part (`postgres`, `minio`, `users`, `records`, `gateway`) and return when it is ready."""
        self.supervisor.start_part(name)
        self._wait_until_ready(name)

    def stop_part(self, name: str) -> None:
        """Stop one part and return when it is gone; the others go on."""
        self.supervisor.stop_part(name)

    def pid(self, name: str) -> int:
        """The process id of a part; 0 when it does not run."""
        return self.supervisor.pid(name)

    @property
    def base_url(self) -> str:
        """Where the gateway answers."""
        host = self._state["host"]
        return f"http://{LOOPBACK if host in ('0.0.0.0', '::') else _bracketed(host)}:{self.ports.gateway}"  # noqa: S104

    @property
    def ports(self) -> Ports:
        """The ports of the stack's latest start."""
        return Ports(**self._state["ports"])

    @property
    def part_names(self) -> list[str]:
        """The parts in the order of their start."""
        return ["postgres", *([] if self._state["own_store"] else ["minio"]), "users", "records", "gateway"]

    @cached_property
    def secrets(self) -> dict[str, str]:
        """The generated passwords and keys, made at the first start."""
        file = self._secrets_file
        if not file.exists():
            made = {name: secrets.token_hex(16) for name in ("postgres", "users", "records", "minio")}
            # MinIO takes access keys of 20 and secret keys of 40 characters at most.
            made |= {"s3_access_key": secrets.token_hex(10), "s3_secret_key": secrets.token_hex(20)}
            with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
                json.dump(made, opened, indent=4)
        return dict(json.loads(file.read_text()))

    def environment(self, service: str) -> dict[str, str]:
        """The whole environment of `users`, `records` or `setup`."""
        return {**self._settings, **self._own_environment(service)}

    def _own_environment(self, service: str) -> dict[str, str]:
        """What no setting changes: addresses, roles and passwords."""
        user = postgres.SUPERUSER if service == "setup" else f"waxwing_{service}_login"
        password = self.secrets["postgres" if service == "setup" else service]
        own = {
            "DATABASE_URL": f"postgresql://{user}@{LOOPBACK}:{self.ports.postgres}/{postgres.DATABASE}",
            "POSTGRES_PASSWORD" if service == "setup" else "DATABASE_PASSWORD": password,
        }
        if service != "setup":
            own |= {"HOST": LOOPBACK, "PORT": str(getattr(self.ports, service))}
            # As in deploy/Dockerfile (DECISIONS, 23).
            own |= {"MALLOC_ARENA_MAX": "1"}
        if service != "users" and not self._own_store:
            own |= {
                "S3_ENDPOINT": f"http://{LOOPBACK}:{self.ports.minio}",
                "S3_ACCESS_KEY": self.secrets["s3_access_key"],
                "S3_SECRET_KEY": self.secrets["s3_secret_key"],
            }
        if service == "setup":
            own |= {
                "USERS_DATABASE_PASSWORD": self.secrets["users"],
                "RECORDS_DATABASE_PASSWORD": self.secrets["records"],
            }
            if not self._own_store:
                own |= {"MINIO_ROOT_USER": "waxwing", "MINIO_ROOT_PASSWORD": self.secrets["minio"]}
        return own

    @cached_property
    def _own_store(self) -> bool:
        """Whether the settings name an object store of the user's own."""
        if not self._settings.get("S3_ENDPOINT"):
            return False
        missing = [name for name in _OWN_STORE if not self._settings.get(name)]
        if missing:
            raise StackError(
                f"S3_ENDPOINT names an object store of your own; {' and '.join(missing)} must be set too"
            )
        return True

    @property
    def _state(self) -> dict[str, Any]:
        if not self._state_file.exists():
            raise StackError("nothing has been started here yet: `./just up` does it")
        return dict(json.loads(self._state_file.read_text()))

    def _choose_ports(self) -> None:
        remembered = self.ports.postgres if self._state_file.exists() else None
        host = self._settings.get("GATEWAY_HOST") or LOOPBACK
        try:
            ports = self._given_ports or Ports.chosen(self._settings, remembered)
        except ValueError as error:
            raise StackError(str(error)) from error
        wanted = [
            Wish("the gateway", host, ports.gateway, "GATEWAY_PORT"),
            Wish("PostgreSQL", LOOPBACK, ports.postgres, "POSTGRES_PORT"),
        ]
        if not self._own_store:
            wanted += [
                Wish("MinIO", LOOPBACK, ports.minio, "MINIO_PORT"),
                Wish("MinIO's console", LOOPBACK, ports.console, "CONSOLE_PORT"),
            ]
        found = complaints(wanted)
        if found:
            raise StackError("\n".join(found))
        state = {"ports": asdict(ports), "host": host, "own_store": self._own_store}
        self._state_file.write_text(json.dumps(state))

    def _parts(self, minio_binary: Path | None) -> list[Part]:
        ports = self.ports
        parts = [
            # SIGINT is PostgreSQL's fast shutdown: it does not wait for its clients.
            Part("postgres", 1, postgres.command(self._folder / "postgres", ports.postgres), {}, "INT"),
            Part("users", 3, [sys.executable, "-m", "users"], self._own_environment("users")),
            Part("records", 4, [sys.executable, "-m", "records"], self._own_environment("records")),
            Part("gateway", 5, gateway.command(self._folder / "gateway")),
        ]
        if minio_binary:
            # It makes a folder for certificates in HOME.
            environment = {
                "HOME": str(self._folder),
                "MINIO_ROOT_USER": "waxwing",
                "MINIO_ROOT_PASSWORD": self.secrets["minio"],
            }
            command = minio.command(
                minio_binary,
                self._folder / "minio",
                f"{LOOPBACK}:{ports.minio}",
                f"{LOOPBACK}:{ports.console}",
            )
            parts.append(Part("minio", 2, command, environment))
        return parts

    def _gateway_variables(self) -> dict[str, str]:
        ports = self.ports
        store = urlsplit(self.environment("records")["S3_ENDPOINT"])
        return {
            "WAXWING_LISTEN": f"{_bracketed(self._state['host'])}:{ports.gateway}",
            "WAXWING_USERS": f"{LOOPBACK}:{ports.users}",
            "WAXWING_RECORDS": f"{LOOPBACK}:{ports.records}",
            "WAXWING_S3": f"{store.hostname}:{store.port or {'http': 80, 'https': 443}[store.scheme]}",
            # As it stands in the endpoint: presigned addresses are valid for this Host only.
            "WAXWING_S3_HOST": store.netloc,
            "WAXWING_S3_SCHEME": store.scheme,
            # Nothing has a name here that could change its address.
            "WAXWING_RESOLVER": LOOPBACK,
            "WAXWING_RESOLVE": "",
            **{
                f"WAXWING_{name}": self._settings[name]
                for name in ("MAX_UPLOAD_BYTES", "CACHE_MAX_BYTES", "CACHE_SECONDS", "TRUSTED_PROXY")
            },
            "WAXWING_CACHE_FOLDER": "cache",
        }

    def _set_up(self) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "deploy.setup"],
            cwd=ROOT,
            env=self.environment("setup"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        self.supervisor.log("setup").write_text(done.stdout)
        if done.returncode:
            raise StackError(
                f"the set-up ended with status {done.returncode}:\n{self.supervisor.last_words('setup')}"
            )

    def _wait_until_ready(self, name: str) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while not self._is_ready(name):
            if self.supervisor.has_died(name):
                raise StackError(f"{name} ended instead of starting:\n{self.supervisor.last_words(name)}")
            if time.monotonic() > deadline:
                raise StackError(
                    f"{name} is not ready after {_READY_SECONDS} seconds:\n{self.supervisor.last_words(name)}"
                )
            time.sleep(0.05)

    def _is_ready(self, name: str) -> bool:
        if name == "postgres":
            return postgres.is_ready(self.ports.postgres)
        if name == "minio":
            # Its `health/ready` says so before buckets and keys are loaded, and requests are answered 503.
            return _answers(self.ports.minio, "/minio/health/cluster")
        if name == "gateway":
            host = urlsplit(self.base_url).hostname or LOOPBACK
            return _answers(self.ports.gateway, "/healthz", host)
        return _answers(getattr(self.ports, name), "/readyz")

    def describe(self) -> str:
        """The table of addresses."""
        ports = self.ports
        rows = [("Waxwing", self.base_url)]
        if not self._state["own_store"]:
            login = f"user waxwing, password {self.secrets['minio']}"
            rows.append(("MinIO console", f"http://{LOOPBACK}:{ports.console}  {login}"))
        address = f"postgresql://{postgres.SUPERUSER}@{LOOPBACK}:{ports.postgres}/{postgres.DATABASE}"
        rows.append(("PostgreSQL", f"./just psql  ({address}, password {self.secrets['postgres']})"))
        return "\n".join(f"  {name:<15}{value}" for name, value in rows)

    def processes(self) -> str:
        """The table of what runs, where and since when."""
        known = {part["name"]: part for part in self.supervisor.parts()}
        rows = [("PART", "PORT", "STATE", "")]
        for name in self.part_names:
            part = known[name]
            rows.append(
                (name, str(getattr(self.ports, name)), part["statename"].lower(), part["description"])
            )
        return "\n".join(
            f"{name:<10}{port:<7}{state:<10}{about}".rstrip() for name, port, state, about in rows
        )

    def psql(self, arguments: list[str]) -> int:
        """Run psql on the stack's database with the terminal of this process; its exit status."""
        command = [*postgres.psql_command(self.ports.postgres), *arguments]
        environment = postgres.psql_environment(self.secrets["postgres"])
        return subprocess.run(command, env=environment, check=False).returncode

    def reset(self) -> bool:
        """Stop the stack and delete its folder; False when there was none.

        Raises StackError for a folder that holds something else.
        """
        if not self._folder.exists() or {file.name for file in self._folder.iterdir()} <= {"lock"}:
            return False
        if not self._state_file.exists() and not self._secrets_file.exists():
            raise StackError(f"{self._folder} is not the folder of a stack, so nothing is deleted")
        self.stop()
        shutil.rmtree(self._folder)
        return True


def find_stack() -> Stack:
    """The stack of WAXWING_FOLDER or `.local`, seen from the repository's root wherever the caller is."""
    return Stack(ROOT / (os.environ.get("WAXWING_FOLDER") or ".local"), settings=os.environ)


def check_gateway() -> str:
    """Render the gateway's configuration with the defaults and have nginx check it."""
    with tempfile.TemporaryDirectory() as folder:
        stack = Stack(Path(folder), Ports.free())
        stack._choose_ports()
        gateway.render(Path(folder) / "gateway", stack._gateway_variables())
        return gateway.check(Path(folder) / "gateway")


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _answers(port: int, path: str, host: str = LOOPBACK) -> bool:
    """Whether a GET is answered with 200."""
    with closing(HTTPConnection(host, port, timeout=5)) as connection:
        try:
            connection.request("GET", path)
            return connection.getresponse().status == HTTPStatus.OK
        except (OSError, HTTPException):
            return False
