"""A MinIO of several nodes on this machine: each is a process with a folder of its own, and can be killed."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from common.settings import load
from deploy.client import load_certificates
from deploy.local import minio
from deploy.local.ports import LOOPBACK, free_ports
from deploy.setup import SetupSettings, make_admin, make_bucket, make_bucket_key
from records.storage import make_client, make_session
from tests.integration.waiting import wait_until

NODES = 4
ROOT_USER, ROOT_PASSWORD = "waxwing", "only-for-this-test"
# An object needs two of four drives to be read, and three to be written.
PARITY = "EC:2"
# The settings of the set-up that the bucket does not need.
NO_DATABASE = {
    "DATABASE_URL": "postgresql://nobody@nowhere/nothing",
    "POSTGRES_PASSWORD": "none",
    "USERS_DATABASE_PASSWORD": "none",
    "RECORDS_DATABASE_PASSWORD": "none",
}
# In a container, MinIO waits until a node has an address of another machine. It looks for these files.
CONTAINER_MARKS = (Path("/.dockerenv"), Path("/run/.containerenv"))


class MinioNodes:
    """The nodes of one store, four or only one. Numbers of nodes count from 0."""

    def __init__(self, folder: Path, count: int = NODES) -> None:
        self._folder = folder
        self.count = count
        program = minio.find_or_build(os.environ, print)
        self._command, self._drives = [str(program)], str(folder)
        if any(mark.exists() for mark in CONTAINER_MARKS):
            self._command, self._drives = _hide_container(program, folder), ""
        self._ports = free_ports(2 * count)
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    @property
    def endpoints(self) -> list[str]:
        """The endpoint of each node."""
        return [f"http://{LOOPBACK}:{port}" for port in self._ports[: self.count]]

    @property
    def settings(self) -> dict[str, str]:
        """The settings of a stack that uses this store and makes its bucket there."""
        return {
            "S3_ENDPOINT": ",".join(self.endpoints),
            "S3_ACCESS_KEY": "waxwing-records",
            "S3_SECRET_KEY": "only-for-this-stack",
            "MINIO_ROOT_USER": ROOT_USER,
            "MINIO_ROOT_PASSWORD": ROOT_PASSWORD,
        }

    def start(self, number: int) -> None:
        """Starts a node. The first nodes are ready when enough of the others run."""
        address, console = (f"{LOOPBACK}:{self._ports[each]}" for each in (number, self.count + number))
        drives = [f"{endpoint}{self._drives}/{each}" for each, endpoint in enumerate(self.endpoints)]
        if self.count == 1:
            drives = [f"{self._drives}/0"]
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": f"{self._drives}/home-{number}",
            "MINIO_ROOT_USER": ROOT_USER,
            "MINIO_ROOT_PASSWORD": ROOT_PASSWORD,
            **({"MINIO_STORAGE_CLASS_STANDARD": PARITY} if self.count > 1 else {}),
            "MINIO_PROMETHEUS_AUTH_TYPE": "public",
            # Otherwise MinIO refuses drives that are on the disk of the operating system.
            "MINIO_CI_CD": "on",
        }
        command = [*self._command, "server", "--address", address, "--console-address", console, *drives]
        with (self._folder / f"node-{number}.log").open("ab") as log:
            self._processes[number] = subprocess.Popen(
                command, env=environment, stdout=log, stderr=subprocess.STDOUT
            )

    def kill(self, number: int) -> None:
        """Ends a node with SIGKILL."""
        process = self._processes.pop(number)
        process.kill()
        process.wait()

    def is_ready(self, number: int) -> bool:
        """Whether the node takes part in a store that can be read and written."""
        return _responds_200(f"{self.endpoints[number]}/minio/health/cluster")

    def are_ready(self) -> bool:
        """Whether all nodes are ready."""
        return all(map(self.is_ready, range(self.count)))

    def wait_until_ready(self) -> None:
        """Waits until all nodes are ready."""
        wait_until(self.are_ready)

    def read_log(self, number: int) -> str:
        """Returns what the node has said."""
        return (self._folder / f"node-{number}.log").read_text(errors="replace")

    def kill_all(self) -> None:
        """Ends every node."""
        for number in list(self._processes):
            self.kill(number)


@contextmanager
def minio_nodes(folder: Path, count: int = NODES) -> Iterator[MinioNodes]:
    """Starts the nodes with the bucket and the key of `settings`, and kills them at the end."""
    nodes = MinioNodes(folder, count)
    with ExitStack() as opened:
        opened.callback(nodes.kill_all)
        for number in range(count):
            nodes.start(number)
        nodes.wait_until_ready()
        # In a thread, because an event loop may run in this one.
        with ThreadPoolExecutor() as thread:
            thread.submit(asyncio.run, _make_bucket(nodes)).result()
        yield nodes


async def _make_bucket(nodes: MinioNodes) -> None:
    settings = load(SetupSettings, {**NO_DATABASE, **nodes.settings})
    async with make_session() as session:
        root = {"access_key": ROOT_USER, "secret_key": ROOT_PASSWORD}
        await make_bucket(make_client(settings.store, session, **root), settings.store.s3_bucket)
        await make_bucket_key(make_admin(settings, session), settings)


def _hide_container(program: Path, root: Path) -> list[str]:
    """Returns the command of a MinIO for which `root` is the whole file system."""
    (root / "proc").mkdir()
    # MinIO looks there for drives inside other drives.
    (root / "proc" / "mounts").touch()
    shutil.copy(program, root / "minio")
    return ["unshare", "--user", "--map-root-user", f"--root={root}", "/minio"]


def _responds_200(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False, verify=load_certificates()).status_code == 200
    except httpx.TransportError:
        return False
