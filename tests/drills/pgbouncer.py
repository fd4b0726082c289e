"""Runs PgBouncer: the one that PGBOUNCER names, or the one in PATH (Debian: apt-get install pgbouncer)."""

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil

from deploy.local import postgres
from deploy.local.ports import LOOPBACK, free_ports
from tests.integration.waiting import wait_until

# The first version that prepares a client's statements in each session.
PREPARES_SINCE = (1, 21)


class PgBouncer(NamedTuple):
    """A PgBouncer that runs."""

    port: int
    process: psutil.Popen


def program() -> str:
    """Returns the program to run."""
    return os.environ.get("PGBOUNCER") or "pgbouncer"


def find_version() -> tuple[int, ...]:
    """Returns the version, such as (1, 24, 1)."""
    shown = subprocess.run([program(), "--version"], capture_output=True, text=True, check=True).stdout
    found = re.match(r"PgBouncer (\d+(?:\.\d+)*)", shown)
    assert found, shown
    return tuple(map(int, found[1].split(".")))


@contextmanager
def pgbouncer(
    folder: Path, port_of_postgres: int, passwords: Mapping[str, str], **settings: object
) -> Iterator[PgBouncer]:
    """Runs PgBouncer in front of a PostgreSQL on this machine. `passwords`: one for each login."""
    (port,) = free_ports(1)
    folder.mkdir()
    users, ini, log = folder / "users.txt", folder / "pgbouncer.ini", folder / "pgbouncer.log"
    users.write_text("".join(f'"{user}" "{password}"\n' for user, password in passwords.items()))
    chosen = {
        "listen_addr": LOOPBACK,
        "listen_port": port,
        "unix_socket_dir": "",
        "auth_type": "scram-sha-256",
        "auth_file": users,
        **settings,
    }
    lines = "\n".join(f"{name} = {value}" for name, value in chosen.items())
    ini.write_text(f"[databases]\n* = host={LOOPBACK} port={port_of_postgres}\n[pgbouncer]\n{lines}\n")
    with log.open("w") as output:
        # As PostgreSQL, it does not run as root.
        command = [*postgres.as_ordinary_user(), program(), str(ini)]
        process = psutil.Popen(command, stdout=output, stderr=output)
        try:
            wait_until(lambda: process.poll() is not None or postgres.is_ready(port))
            assert process.poll() is None, log.read_text()
            yield PgBouncer(port, process)
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait()
