"""A primary and a synchronous standby under Patroni, with etcd, and haproxy that leads to the primary."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from deploy.local import postgres
from deploy.local.ports import LOOPBACK, free_ports
from deploy.local.supervision import ROOT
from deploy.postgres_binaries import binary
from tests.integration.waiting import wait_until

PATRONI = ROOT / ".drills" / "bin" / "patroni"
# The shortest that Patroni allows: a primary that is gone is replaced after so many seconds.
TTL_SECONDS = 20
DYNAMIC = {
    "ttl": TTL_SECONDS,
    "loop_wait": 1,
    "retry_timeout": 3,
    # Patroni does not wait for a primary that has crashed: the standby takes its place at once.
    "primary_start_timeout": 0,
    # A transaction counts as committed when the standby has it, too. Only such a standby becomes the primary.
    "synchronous_mode": True,
    "postgresql": {"use_pg_rewind": True, "parameters": {"max_connections": 60, "shared_buffers": "32MB"}},
}
HAPROXY = """\
global
  maxconn 1000
defaults
  mode tcp
  timeout connect 1s
  timeout check 1s
  timeout client 1h
  timeout server 1h
listen postgres
  bind {host}:{port}
  option httpchk GET /primary
  http-check expect status 200
  # Without the last option, connections to a primary that hangs would stay open.
  default-server inter 1s fall 2 rise 1 on-marked-down shutdown-sessions
{servers}
"""


class Node:
    """A PostgreSQL with its Patroni."""

    def __init__(self, name: str, folder: Path, etcd: int, password: str) -> None:
        self.name = name
        self.port, self.api = free_ports(2)
        self._folder = folder / name
        self._folder.mkdir(mode=0o700)
        self._patroni: psutil.Popen | None = None
        login = {"username": postgres.SUPERUSER, "password": password}
        configuration = {
            "scope": "waxwing",
            "name": name,
            "restapi": {"listen": f"{LOOPBACK}:{self.api}", "connect_address": f"{LOOPBACK}:{self.api}"},
            "etcd3": {"host": f"{LOOPBACK}:{etcd}"},
            "bootstrap": {
                "dcs": DYNAMIC,
                "initdb": [
                    {"encoding": "UTF8"},
                    {"locale": "C"},
                    {"locale-provider": "builtin"},
                    {"builtin-locale": "C.UTF-8"},
                ],
            },
            "postgresql": {
                "listen": f"{LOOPBACK}:{self.port}",
                "connect_address": f"{LOOPBACK}:{self.port}",
                "data_dir": str(self._folder / "data"),
                "bin_dir": str(Path(binary("postgres")).parent),
                "pgpass": str(self._folder / "pgpass"),
                "authentication": {"superuser": login, "replication": login, "rewind": login},
                "parameters": {"unix_socket_directories": ""},
                "pg_hba": [
                    f"host all all {LOOPBACK}/32 scram-sha-256",
                    f"host replication all {LOOPBACK}/32 scram-sha-256",
                ],
            },
        }
        # JSON is YAML.
        (self._folder / "patroni.yml").write_text(json.dumps(configuration))

    def start(self) -> None:
        """Starts Patroni, which starts PostgreSQL."""
        command = [*postgres.as_ordinary_user(), str(PATRONI), str(self._folder / "patroni.yml")]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        with (self._folder / "log").open("a") as log:
            self._patroni = psutil.Popen(command, env=environment, stdout=log, stderr=log)

    def processes(self, *, with_patroni: bool = True) -> list[psutil.Process]:
        """Returns Patroni and all processes of PostgreSQL."""
        found: list[psutil.Process] = [self._patroni] if self._patroni and with_patroni else []
        with suppress(FileNotFoundError, psutil.NoSuchProcess, IndexError, ValueError):
            lines = (self._folder / "data" / "postmaster.pid").read_text().split()
            postmaster = psutil.Process(int(lines[0]))
            # A number may belong to another process by now.
            if str(self._folder) in " ".join(postmaster.cmdline()):
                found += [postmaster, *postmaster.children(recursive=True)]
        return found

    def kill(self) -> None:
        """Ends everything as the death of the machine does."""
        self.crash()
        if self._patroni:
            self._patroni.kill()
            self._patroni.wait()
            # Patroni may have started it again.
            self.crash()

    def crash(self) -> None:
        """Ends PostgreSQL, and not Patroni."""
        for process in self.processes(with_patroni=False):
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def hang(self) -> list[psutil.Process]:
        """Stops everything with SIGSTOP. Returns what was stopped."""
        found = self.processes()
        for process in found:
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        return found

    def ask(self, path: str) -> bool:
        """Returns whether Patroni responds with 200 to `/primary` or `/sync`."""
        try:
            with urllib.request.urlopen(f"http://{LOOPBACK}:{self.api}{path}", timeout=1) as response:
                return bool(response.status == 200)
        except OSError:
            return False

    def last_lines(self) -> str:
        """Returns the end of the log."""
        return (self._folder / "log").read_text()[-2000:]


class Cluster:
    """Two nodes."""

    def __init__(self, nodes: list[Node], haproxy: int) -> None:
        self.nodes = nodes
        self.haproxy = haproxy

    @property
    def primary(self) -> Node:
        """The node that is the primary. Waits until there is one."""
        return wait_until(lambda: next((node for node in self.nodes if node.ask("/primary")), None))  # type: ignore[return-value]

    def wait_for_synchronous_standby(self) -> None:
        """Returns when a standby has everything."""
        wait_until(lambda: any(node.ask("/sync") for node in self.nodes))


@contextmanager
def running_cluster(folder: Path, password: str) -> Iterator[Cluster]:
    """Runs the nodes, etcd and haproxy."""
    folder.mkdir(mode=0o700)
    etcd, peers, haproxy = free_ports(3)
    with ExitStack() as running:
        running.enter_context(_running(folder / "etcd.log", _etcd_command(folder / "etcd", etcd, peers)))
        wait_until(lambda: _is_open(etcd))
        nodes = [Node(name, folder, etcd, password) for name in ("a", "b")]
        cluster = Cluster(nodes, haproxy)
        servers = "\n".join(
            f"  server {node.name} {LOOPBACK}:{node.port} check port {node.api}" for node in nodes
        )
        file = folder / "haproxy.cfg"
        file.write_text(HAPROXY.format(host=LOOPBACK, port=haproxy, servers=servers))
        for node in nodes:
            running.callback(node.kill)
        nodes[0].start()
        try:
            _ = cluster.primary
            nodes[1].start()
            cluster.wait_for_synchronous_standby()
        except AssertionError as error:
            error.add_note("\n".join(node.last_lines() for node in nodes if node.processes()))
            raise
        running.enter_context(_running(folder / "haproxy.log", ["haproxy", "-db", "-f", str(file)]))
        wait_until(lambda: postgres.is_ready(haproxy))
        yield cluster


def _etcd_command(folder: Path, port: int, peers: int) -> list[str]:
    clients_at, peers_at = f"http://{LOOPBACK}:{port}", f"http://{LOOPBACK}:{peers}"
    return [
        *("etcd", f"--data-dir={folder}", f"--listen-client-urls={clients_at}"),
        *(f"--advertise-client-urls={clients_at}", f"--listen-peer-urls={peers_at}"),
        *(f"--initial-advertise-peer-urls={peers_at}", f"--initial-cluster=default={peers_at}"),
    ]


@contextmanager
def _running(log: Path, command: list[str]) -> Iterator[Any]:
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            yield process
        finally:
            process.terminate()
            process.wait()


def _is_open(etcd: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://{LOOPBACK}:{etcd}/health", timeout=1) as response:
            return bool(json.load(response)["health"] == "true")
    except OSError:
        return False
