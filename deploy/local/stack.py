"""The whole of Waxwing on this machine without Docker.

PostgreSQL, MinIO, both services and nginx run under one supervisor. Their data, logs, passwords and
configuration are in one folder, `.local` or WAXWING_FOLDER, so several stacks can run side by side.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, fields
from datetime import timedelta
from functools import cached_property
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Annotated, Any, TextIO, TypeVar
from urllib.parse import urlsplit

import msgspec
import psutil

from common.host_names import choose_sign_up
from common.settings import SettingsError, load
from deploy.gateway_settings import GatewaySettings, StopSettings
from deploy.local import gateway, minio, postgres, prometheus, tracing
from deploy.local.ports import LOOPBACK, PortRequest, Ports, explain_port_conflicts
from deploy.local.supervision import (
    ROOT,
    AlreadyRunningError,
    StackProcess,
    Supervisor,
    try_lock,
)
from records.settings import Settings as RecordsSettings
from records.settings import StoreSettings
from users.settings import Settings as UsersSettings

S = TypeVar("S", bound=msgspec.Struct)

_READY_SECONDS = 60
_DEFAULTS = {
    "DOWNLOADS": "accel",
    "S3_BUCKET": "records",
    "S3_REGION": "us-east-1",
}
TRACES_TO = "OTEL_EXPORTER_OTLP_ENDPOINT"
_OWN_STORE_SETTINGS = ("S3_ENDPOINT", "S3_ACCESS_KEY", "S3_SECRET_KEY")
_INHERITED_VARIABLES = (
    "PATH",
    "HOME",
    "TMPDIR",
    "LANG",
    "LC_ALL",
    "XDG_CACHE_HOME",
    "LD_LIBRARY_PATH",
    "MINIO_BIN",
)


class StackError(Exception):
    """The stack cannot run the command; the message says why and what to do."""


class Instances(msgspec.Struct, frozen=True, kw_only=True):
    """How many instances of each service the stack has."""

    users: Annotated[int, msgspec.Meta(ge=1, le=16)] = 1
    records: Annotated[int, msgspec.Meta(ge=1, le=16)] = 1


class Stack:
    """The stack of one folder.

    Without `ports`, the settings choose the ports. `settings` are environment variables for the processes.
    The environment of this process gives them only what programs need to run, so that a test sees the
    defaults.
    """

    def __init__(
        self,
        folder: Path,
        ports: Ports | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self._folder = folder.absolute()
        # As in Docker, an empty variable counts as not set.
        chosen = {name: value for name, value in (settings or {}).items() if value}
        self._settings = {**_DEFAULTS, **inherit_environment(), **chosen}
        self._given_ports = ports
        self._state_file = self._folder / "state.json"
        self._secrets_file = self._folder / "secrets.json"
        self._command_lock = self._folder / "command.lock"
        self.logins_file = self._folder / "logins.jsonl"
        self._stop_seconds = _load(StopSettings, self._settings).shutdown_seconds
        self._instances = _load(Instances, self._settings)
        self.supervisor = Supervisor(self._folder, self._stop_seconds)

    def start(
        self,
        say: Callable[[str], None] = lambda _: None,
        *,
        background: bool = False,
        with_prometheus: bool = False,
    ) -> bool:
        """Starts everything and returns when it is ready. After a failure, nothing is left running.

        In the background, a process that dies is started again; if the stack runs already, `start` starts
        what is missing and returns False. Otherwise the death of one process stops all, and `start` raises
        AlreadyRunningError if the stack runs already.

        Raises a StackError that names the holder of a port, or the process that failed and its last log
        lines.
        """
        prometheus_program = prometheus.find() if with_prometheus else None
        if with_prometheus and not prometheus_program:
            raise StackError("no `prometheus` is in PATH: install it (Debian: `apt-get install prometheus`)")
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._changing(say):
            state = self.supervisor.state()
            if state == "hanging":
                raise StackError(self._describe_hanging_supervisor())
            # No other command starts the stack now, so a daemon that cannot be reached is about to end.
            if state in ("starting", "stopping"):
                say("waiting until the stack has stopped …")
                self.supervisor.wait_until_stopped()
            if background and self.supervisor.is_running():
                self._check_that_it_has(self._instances)
                if with_prometheus and "prometheus" not in self.process_names:
                    raise StackError("the stack runs without Prometheus: stop it first (`./just down`)")
                self._warn_of_changed_settings(say)
                self._mend(say)
                return False
            try:
                with self.supervisor.starting() as lock:
                    self._start(lock, say, background, prometheus_program)
            except AlreadyRunningError:
                raise
            except BaseException as error:
                self.supervisor.stop()
                death = self.supervisor.find_death()
                # The death of one process stops the others, so the error can come from another process.
                if death and isinstance(error, Exception):
                    lines = self.supervisor.last_log_lines(death.split()[0])
                    raise StackError(f"{death} instead of starting:\n{lines}") from error
                if self.supervisor.was_killed() and isinstance(error, Exception):
                    raise StackError(
                        "the supervisor was killed while the stack started, so everything was stopped:"
                        " `./just up -d` starts it again"
                    ) from error
                raise
            return True

    def _start(
        self, lock: TextIO, say: Callable[[str], None], background: bool, prometheus_program: str | None
    ) -> None:
        if self.supervisor.processes.find_all():
            say("ending the processes of a supervisor that was killed …")
        self.supervisor.end_left_over()
        self._choose_ports(has_prometheus=bool(prometheus_program))
        # Each process reads its own settings, but then the others run already.
        _load(UsersSettings, self.environment("users"))
        _load(RecordsSettings, self.environment("records"))
        gateway_variables = self._gateway_variables()
        if self._settings.get(TRACES_TO):
            tracing.install(say)
        minio_binary = None if self._has_own_store else minio.find_or_build(self._settings, say)
        for name in ("logs", "minio"):
            (self._folder / name).mkdir(mode=0o700, exist_ok=True)
        gateway.render(self._folder / "gateway", gateway_variables, self._stop_seconds)
        processes = self._make_processes(minio_binary)
        if prometheus_program:
            processes.append(self._make_prometheus(prometheus_program))
        self.supervisor.start(lock, processes, self._settings, background=background)
        say("starting …")
        self._start_processes(say)

    def _check_that_it_has(self, instances: Instances) -> None:
        """Raises StackError if the stack runs with fewer or more instances than the settings ask for."""
        for service, count in msgspec.structs.asdict(instances).items():
            running = len(self.ports.instances(service))
            if service.upper() in self._settings and running != count:
                raise StackError(
                    f"the stack runs with {running} of {service}, not {count}: stop it first (`./just down`)"
                )

    def _warn_of_changed_settings(self, say: Callable[[str], None]) -> None:
        """Says which settings have other values than those with which the stack was started."""
        changed: set[str] = set()
        # The gateway's process is left out: nginx writes its title over its environment.
        for kind, service in (
            (UsersSettings, "users"),
            (RecordsSettings, "records"),
            (GatewaySettings, "records"),
        ):
            with suppress(psutil.Error, SettingsError):
                then = _flatten(load(kind, psutil.Process(self.pid(service)).environ()))
                now = _flatten(_load(kind, self.environment(service)))
                changed |= {name.upper() for name in now if now[name] != then[name]}
        if (self._settings.get("GATEWAY_HOST") or LOOPBACK) != self._state["host"]:
            changed.add("GATEWAY_HOST")
        for name in ("gateway", "minio", "console", "postgres"):
            variable = f"{name.upper()}_PORT"
            if self._settings.get(variable) not in (None, str(getattr(self.ports, name))):
                changed.add(variable)
        if changed:
            say(
                f"the stack runs with other values of {', '.join(sorted(changed))}: `./just down` and then"
                " `./just up -d` apply the new ones"
            )

    def _mend(self, say: Callable[[str], None]) -> None:
        """Starts the processes that do not run, and returns when all are ready."""
        missing = [name for name in self.process_names if not self.supervisor.processes.find(name)]
        if missing:
            say(f"starting what does not run: {', '.join(missing)} …")
            self._start_processes(say)
        for name in self.process_names:
            if not self._is_ready(name):
                say(f"waiting for {name} …")
                self._wait_until_ready(name)

    def _start_processes(self, say: Callable[[str], None]) -> None:
        """Starts the processes that do not run, sets up what they need, and returns when they are ready."""
        names = self.process_names
        users, records = self.ports.instances("users"), self.ports.instances("records")
        # Loading programs takes most of the time. These need no other program before the first request, so
        # they load while PostgreSQL is set up.
        for name in ("minio", *users, "gateway", "prometheus"):
            if name in names:
                self.supervisor.start_process(name)
        postgres.create_cluster(self._folder / "postgres", self.secrets["postgres"])
        self.start_process("postgres")
        postgres.create_database(self.ports.postgres, self.secrets["postgres"])
        if "minio" in names:
            self._wait_until_ready("minio")

        say("setting up bucket, keys, roles and schema …")
        self._set_up()

        say("waiting for the services …")
        # The sweeper of this service works from the first moment, so the service starts after the set-up.
        for name in records:
            self.supervisor.start_process(name)
        for name in (*users, *records, "gateway", "prometheus"):
            if name in names:
                self._wait_until_ready(name)

    def stop(
        self, meanwhile: Callable[[], None] = lambda: None, say: Callable[[str], None] = lambda _: None
    ) -> None:
        """Stops everything in order and returns when it is gone. Does nothing if nothing runs.

        Calls `meanwhile` again and again until everything is gone.
        """
        if self._command_lock.exists():
            with self._changing(say):
                self.supervisor.stop(meanwhile)

    @contextmanager
    def _changing(self, say: Callable[[str], None]) -> Iterator[None]:
        """Waits until no other command starts or stops this stack, and keeps others waiting meanwhile."""
        with self._command_lock.open("a") as lock:
            if not try_lock(lock):
                say("waiting for another command that starts or stops the stack …")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _is_changing(self) -> bool:
        with self._command_lock.open("a") as lock:
            return not try_lock(lock)

    def is_left_over(self) -> bool:
        """Whether the supervisor was killed, so that its processes live on."""
        return not self.supervisor.is_running() and bool(self.supervisor.processes.find_all())

    def has_processes(self) -> bool:
        """Whether the supervisor or any other process of the stack lives."""
        return self.supervisor.is_running() or bool(self.supervisor.processes.find_all())

    def start_process(self, name: str) -> None:
        """Starts `postgres`, `minio`, `users`, `records` or `gateway`, and returns when it is ready."""
        self.supervisor.start_process(name)
        self._wait_until_ready(name)

    def stop_process(self, name: str) -> None:
        """Stops one process and returns when it is gone. The other processes go on."""
        self.supervisor.stop_process(name)

    def pid(self, name: str) -> int:
        """Returns the process id of a process, or 0 if it does not run."""
        return self.supervisor.pid(name)

    @property
    def base_url(self) -> str:
        """The URL of the gateway."""
        host = self._state["host"]
        # nginx takes no IPv4 at `::`.
        host = {"0.0.0.0": LOOPBACK, "::": "::1"}.get(host, host)  # noqa: S104
        return f"http://{_bracketed(host)}:{self.ports.gateway}"

    @property
    def ports(self) -> Ports:
        """The ports of the latest start."""
        # A later version, from which somebody goes back to this one, may know more ports.
        known = {field.name for field in fields(Ports)}
        return Ports(**{name: port for name, port in self._state["ports"].items() if name in known})

    @property
    def process_names(self) -> list[str]:
        """The names of the processes, in the order in which supervisor knows them."""
        store = [] if self._state["own_store"] else ["minio"]
        # A stack that an older version started knows nothing of Prometheus.
        observer = ["prometheus"] if self._state.get("has_prometheus") else []
        return ["postgres", *store, *self._services, "gateway", *observer]

    @property
    def _services(self) -> list[str]:
        return [*self.ports.instances("users"), *self.ports.instances("records")]

    @cached_property
    def secrets(self) -> dict[str, str]:
        """The passwords and keys. The first start generates them, and an upgrade generates new ones."""
        file = self._secrets_file
        kept = dict(json.loads(file.read_text())) if file.exists() else {}
        names = ("postgres", "users", "records", "minio", "signup_key")
        made = {name: secrets.token_hex(16) for name in names}
        # MinIO accepts access keys of at most 20 and secret keys of at most 40 characters.
        made |= {"s3_access_key": secrets.token_hex(10), "s3_secret_key": secrets.token_hex(20)}
        if made.keys() <= kept.keys():
            return kept
        made |= kept
        unfinished = file.with_suffix(".unfinished")
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as opened:
            json.dump(made, opened, indent=4)
        unfinished.rename(file)
        return made

    @property
    def signup_key(self) -> str:
        """The setting SIGNUP_KEY, or the key that the first start generated."""
        return self._settings.get("SIGNUP_KEY") or self.secrets["signup_key"]

    def environment(self, service: str) -> dict[str, str]:
        """Returns the whole environment of `users`, `records` or `setup`."""
        return {**self._settings, **self._own_environment(service)}

    def _own_environment(self, service: str, process: str = "") -> dict[str, str]:
        """Returns what no setting changes: addresses, roles and passwords.

        `process` is an instance of the service, by default the first one.
        """
        # First, because it raises StackError if nothing was started here yet.
        ports = self.ports
        user = postgres.SUPERUSER if service == "setup" else f"waxwing_{service}_login"
        password = self.secrets["postgres" if service == "setup" else service]
        own = {
            "DATABASE_URL": f"postgresql://{user}@{LOOPBACK}:{ports.postgres}/{postgres.DATABASE}",
            "POSTGRES_PASSWORD" if service == "setup" else "DATABASE_PASSWORD": password,
        }
        if service != "setup":
            own |= {"HOST": LOOPBACK, "PORT": str(ports.of(process or service))}
            # As in deploy/Dockerfile (decision 23).
            own |= {"MALLOC_ARENA_MAX": "1"}
            if self._settings.get(TRACES_TO):
                own |= {"PYTHONPATH": str(tracing.find_folder())}
            own |= {"AUDIT_FILE": str(self.supervisor.log(process or service))}
        if service == "users" and not self._settings.get("SIGNUP_KEY_FILE"):
            own |= {"SIGNUP_KEY": self.signup_key}
        if service != "users" and not self._has_own_store:
            own |= {
                "S3_ENDPOINT": f"http://{LOOPBACK}:{ports.minio}",
                "S3_ACCESS_KEY": self.secrets["s3_access_key"],
                "S3_SECRET_KEY": self.secrets["s3_secret_key"],
            }
        if service == "setup":
            own |= {
                "USERS_DATABASE_PASSWORD": self.secrets["users"],
                "RECORDS_DATABASE_PASSWORD": self.secrets["records"],
            }
            if not self._has_own_store:
                own |= {"MINIO_ROOT_USER": "waxwing", "MINIO_ROOT_PASSWORD": self.secrets["minio"]}
        return own

    @cached_property
    def _has_own_store(self) -> bool:
        """Whether the settings name an object store, so that no MinIO is started."""
        if not self._settings.get("S3_ENDPOINT"):
            return False
        missing = [name for name in _OWN_STORE_SETTINGS if not self._settings.get(name)]
        if missing:
            raise StackError(
                f"S3_ENDPOINT names an object store of your own: set {' and '.join(missing)} too"
            )
        return True

    @property
    def _state(self) -> dict[str, Any]:
        if not self._state_file.exists():
            raise StackError("nothing was started here yet: `./just up` starts the stack")
        return dict(json.loads(self._state_file.read_text()))

    def _choose_ports(self, *, has_prometheus: bool = False) -> None:
        remembered = self.ports.postgres if self._state_file.exists() else None
        host = self._settings.get("GATEWAY_HOST") or LOOPBACK
        try:
            ports = self._given_ports or Ports.chosen(self._settings, remembered)
        except ValueError as error:
            raise StackError(str(error)) from error
        ports = ports.with_instances(self._instances.users, self._instances.records)
        requests = [
            PortRequest("the gateway", host, ports.gateway, "GATEWAY_PORT"),
            PortRequest("PostgreSQL", LOOPBACK, ports.postgres, "POSTGRES_PORT"),
        ]
        if not self._has_own_store:
            requests += [
                PortRequest("MinIO", LOOPBACK, ports.minio, "MINIO_PORT"),
                PortRequest("MinIO's console", LOOPBACK, ports.console, "CONSOLE_PORT"),
            ]
        if has_prometheus:
            requests.append(PortRequest("Prometheus", LOOPBACK, ports.prometheus, "PROMETHEUS_PORT"))
        conflicts = explain_port_conflicts(requests)
        if conflicts:
            raise StackError("\n".join(conflicts))
        state = {
            "ports": asdict(ports),
            "host": host,
            "own_store": self._has_own_store,
            "has_prometheus": has_prometheus,
        }
        self._state_file.write_text(json.dumps(state))

    def _make_processes(self, minio_binary: Path | None) -> list[StackProcess]:
        ports, python = self.ports, sys.executable
        processes = [
            # SIGINT is PostgreSQL's fast shutdown, which does not wait for clients.
            StackProcess(
                "postgres",
                1,
                "database",
                postgres.command(self._folder / "postgres", ports.postgres),
                {},
                "INT",
            ),
            # An upload needs every process until the gateway has sent the response. So the gateway and the
            # services stop together and first. SIGQUIT lets nginx end its requests, as SIGTERM a service.
            *(
                StackProcess(
                    name, order, "front", [python, "-m", service], self._own_environment(service, name)
                )
                for service, order in (("users", 3), ("records", 4))
                for name in ports.instances(service)
            ),
            StackProcess("gateway", 5, "front", gateway.command(self._folder / "gateway"), {}, "QUIT"),
        ]
        if minio_binary:
            # MinIO creates a folder for certificates in HOME.
            environment = {
                "HOME": str(self._folder),
                "MINIO_ROOT_USER": "waxwing",
                "MINIO_ROOT_PASSWORD": self.secrets["minio"],
                # Prometheus and `status` read MinIO's metrics without a token. They have no names of objects.
                "MINIO_PROMETHEUS_AUTH_TYPE": "public",
            }
            command = minio.command(
                minio_binary,
                self._folder / "minio",
                f"{LOOPBACK}:{ports.minio}",
                f"{LOOPBACK}:{ports.console}",
            )
            processes.append(StackProcess("minio", 2, "store", command, environment))
        return processes

    def _make_prometheus(self, program: str) -> StackProcess:
        folder = self._folder / "prometheus"
        prometheus.configure(folder, self.ports, has_minio=not self._has_own_store)
        return StackProcess(
            "prometheus", 6, "front", prometheus.command(program, folder, self.ports.prometheus)
        )

    def _gateway_variables(self) -> dict[str, str]:
        ports = self.ports
        nodes = _load(StoreSettings, self.environment("records")).endpoints
        store = urlsplit(nodes[0])
        return {
            "WAXWING_LISTEN": f"{_bracketed(self._state['host'])}:{ports.gateway}",
            "WAXWING_STATUS_LISTEN": f"{LOOPBACK}:{ports.gateway_status}",
            # The nginx of the wheel is built without stub_status.
            "WAXWING_STATUS": "return 204",
            **{
                f"WAXWING_{service.upper()}_SERVERS": gateway.list_servers(
                    [f"{LOOPBACK}:{ports.of(name)}" for name in ports.instances(service)]
                )
                for service in ("users", "records")
            },
            "WAXWING_S3_SERVERS": gateway.list_servers(
                [_host_and_port(node) for node in nodes],
                # nginx never leaves out a server that is alone.
                with_backups=len(nodes) > 1,
            ),
            # Exactly as in the first endpoint, because a presigned URL is valid for this Host only.
            "WAXWING_S3_HOST": store.netloc,
            "WAXWING_S3_SCHEME": store.scheme,
            # No name here can change its address, so nginx resolves none.
            "WAXWING_RESOLVER": LOOPBACK,
            **_load(GatewaySettings, self._settings).variables,
            "WAXWING_CACHE_FOLDER": "cache",
            "WAXWING_PAGES_FOLDER": "pages",
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
                f"the set-up ended with status {done.returncode}:\n{self.supervisor.last_log_lines('setup')}"
            )

    def _wait_until_ready(self, name: str) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while not self._is_ready(name):
            if self.supervisor.has_died(name):
                raise StackError(f"{name} ended instead of starting:\n{self.supervisor.last_log_lines(name)}")
            if time.monotonic() > deadline:
                lines = self.supervisor.last_log_lines(name)
                raise StackError(f"{name} is not ready after {_READY_SECONDS} seconds:\n{lines}")
            time.sleep(0.05)

    def _is_ready(self, name: str) -> bool:
        if name == "postgres":
            return postgres.is_ready(self.ports.postgres)
        if name == "minio":
            # MinIO's `health/ready` is 200 before buckets and keys are loaded, while requests still get 503.
            return _responds_200(self.ports.minio, "/minio/health/cluster")
        if name == "gateway":
            host = urlsplit(self.base_url).hostname or LOOPBACK
            return _responds_200(self.ports.gateway, "/healthz", host)
        if name == "prometheus":
            return _responds_200(self.ports.prometheus, "/-/ready")
        return _responds_200(self.ports.of(name), "/readyz")

    def describe_addresses(self) -> str:
        """Returns the table of addresses."""
        ports = self.ports
        rows = [("Waxwing", self.base_url)]
        if not self._state["own_store"]:
            login = f"user waxwing, password {self.secrets['minio']}"
            rows.append(("MinIO console", f"http://{LOOPBACK}:{ports.console}  {login}"))
        if "prometheus" in self.process_names:
            rows.append(("Prometheus", f"http://{LOOPBACK}:{ports.prometheus}"))
        hosts = [self._settings.get(name, "") for name in ("PUBLIC_URL", "ALLOWED_HOSTS")]
        if (self._settings.get("SIGNUP") or choose_sign_up(None, *hosts)) == "key":
            rows.append(("Sign-up", f"with the key {self.signup_key}"))
        address = f"postgresql://{postgres.SUPERUSER}@{LOOPBACK}:{ports.postgres}/{postgres.DATABASE}"
        rows.append(("PostgreSQL", f"./just psql  ({address}, password {self.secrets['postgres']})"))
        return "\n".join(f"  {name:<15}{value}" for name, value in rows)

    def describe_processes(self) -> tuple[str, str | None]:
        """Returns the table of processes, and a sentence about it unless everything runs."""
        daemon = self.supervisor.state()
        rows = [("PROCESS", "PORT", "STATE", "")]
        for name in self.process_names:
            process = self.supervisor.processes.find(name)
            about = [f"pid {process.pid}, uptime {timedelta(seconds=process.age_seconds)}"] if process else []
            if restarts := self.supervisor.processes.count_restarts(name):
                about.append(f"{restarts} restart{'s' if restarts > 1 else ''}")
            if daemon == "running" and process:
                state = "running" if self._is_ready(name) else "not ready"
            elif daemon == "running":
                state = "restarting" if self.supervisor.is_restarting(name) else "stopped"
            else:
                state = {"absent": "left over"}.get(daemon, daemon) if process else "stopped"
            rows.append((name, str(self.ports.of(name)), state, ", ".join(about)))
        table = "\n".join(
            f"{name:<12}{port:<7}{state:<12}{about}".rstrip() for name, port, state, about in rows
        )
        if all(state == "running" for _, _, state, _ in rows[1:]):
            return table, None
        if daemon == "absent":
            return (
                table,
                "the supervisor was killed: `./just up -d` starts all again, `./just down` stops the rest",
            )
        if daemon == "stopping":
            return table, "the stack is stopping"
        if daemon == "hanging":
            return table, self._describe_hanging_supervisor()
        if self._is_changing():
            return table, "the stack is starting"
        return (
            table,
            "not everything runs: `./just logs PROCESS` may say why, `./just up -d` starts what is missing",
        )

    def _describe_hanging_supervisor(self) -> str:
        pid = self.supervisor.daemon_pid
        return (
            f"the supervisor (process {pid}) does not answer: `kill -CONT {pid}` lets it go on if it is"
            " stopped, and `./just down` ends everything"
        )

    def psql(self, arguments: list[str]) -> int:
        """Runs psql on the stack's database in this terminal. Returns its exit status."""
        command = [*postgres.psql_command(self.ports.postgres), *arguments]
        environment = postgres.psql_environment(self.secrets["postgres"])
        return subprocess.run(command, env=environment, check=False).returncode

    def _check_that_it_runs(self) -> None:
        if not self.has_processes():
            raise StackError("the stack does not run: `./just up -d` starts it")

    def run_command(self, service: str, arguments: list[str]) -> int:
        """Runs an operator's command of a service in this terminal. Returns its exit status."""
        self._check_that_it_runs()
        command = [sys.executable, "-m", service, *arguments]
        with subprocess.Popen(command, env=self.environment(service)) as process:
            while True:
                # Ctrl-C reaches the command too, which ends in its own way.
                with suppress(KeyboardInterrupt):
                    return process.wait()

    def show_status(self, arguments: list[str]) -> int:
        """Prints how everything is. Returns 0 if every part is ready, otherwise 1."""
        self._check_that_it_runs()
        ports = self.ports
        options = [f"--gateway={LOOPBACK}:{ports.gateway_status}"]
        for service in ("users", "records"):
            addresses = ",".join(f"{LOOPBACK}:{ports.of(name)}" for name in ports.instances(service))
            options.append(f"--{service}={addresses}")
        options.append(f"--cache-free-bytes={shutil.disk_usage(self._folder).free}")
        if process := self.supervisor.processes.find("gateway"):
            options.append(f"--gateway-uptime-seconds={process.age_seconds}")
        return self.run_command("records", ["status", *options, *arguments])

    def back_up(self, arguments: list[str]) -> int:
        """Copies the database and the bucket to a folder or another bucket. Returns the exit status."""
        return self._run_backup("back-up", *arguments)

    def restore(self, arguments: list[str], say: Callable[[str], None]) -> int:
        """Puts a backup into the stack, which starts if it does not run. Returns the exit status.

        Nobody uses the database meanwhile: the gateway and the services stop, unless a trial shows that the
        backup is refused.
        """
        self.start(say, background=True)
        if refused := self._run_backup("restore", "--trial", *arguments):
            return refused
        for name in ("gateway", *reversed(self._services)):
            self.stop_process(name)
        try:
            return self._run_backup("restore", *arguments)
        finally:
            self.start(say, background=True)

    def _run_backup(self, *arguments: str) -> int:
        command = [sys.executable, "-m", "deploy.backup", *arguments]
        return subprocess.run(command, env=self.environment("setup"), check=False).returncode

    def reset(self) -> bool:
        """Stops the stack and deletes its folder. Returns False if there was none.

        Raises StackError if the folder is not the folder of a stack.
        """
        if not self._folder.exists() or {file.name for file in self._folder.iterdir()} <= {
            "lock",
            "command.lock",
        }:
            return False
        if not self._state_file.exists() and not self._secrets_file.exists():
            raise StackError(f"{self._folder} is not the folder of a stack, so nothing is deleted")
        self.stop()
        shutil.rmtree(self._folder)
        return True


def find_stack() -> Stack:
    """Returns the stack of WAXWING_FOLDER or `.local`, relative to the repository's root."""
    return Stack(ROOT / (os.environ.get("WAXWING_FOLDER") or ".local"), settings=os.environ)


def check_gateway() -> str:
    """Renders the gateway's configuration with the default settings, and lets nginx check it."""
    with tempfile.TemporaryDirectory() as folder:
        stack = Stack(Path(folder), Ports.free())
        stack._choose_ports()
        gateway.render(Path(folder) / "gateway", stack._gateway_variables(), stack._stop_seconds)
        return gateway.check(Path(folder) / "gateway")


def inherit_environment() -> dict[str, str]:
    """Returns what programs need from the environment of this process: no settings."""
    return {name: os.environ[name] for name in _INHERITED_VARIABLES if name in os.environ}


def _load(kind: type[S], environ: Mapping[str, str]) -> S:
    try:
        return load(kind, environ)
    except SettingsError as error:
        raise StackError(f"wrong setting: {error}") from error


def _flatten(settings: msgspec.Struct) -> dict[str, Any]:
    """Returns the settings of a struct, and of the structs in its fields, by name."""
    flat: dict[str, Any] = {}
    for name, value in msgspec.structs.asdict(settings).items():
        flat |= _flatten(value) if isinstance(value, msgspec.Struct) else {name: value}
    return flat


def _host_and_port(url: str) -> str:
    parts = urlsplit(url)
    default = {"http": 80, "https": 443}[parts.scheme]
    return f"{_bracketed(parts.hostname or '')}:{parts.port or default}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _responds_200(port: int, path: str, host: str = LOOPBACK) -> bool:
    """Whether a GET gets the status 200."""
    with closing(HTTPConnection(host, port, timeout=5)) as connection:
        try:
            connection.request("GET", path)
            return connection.getresponse().status == HTTPStatus.OK
        except (OSError, HTTPException):
            return False
