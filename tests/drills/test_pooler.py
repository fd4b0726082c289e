"""A service starts behind a pooler over which it works, and names the setting of another one."""

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from common.db import check_database, make_engine
from common.settings import SettingsError
from deploy.client import Client
from deploy.local import postgres
from deploy.local.ports import LOOPBACK, free_ports
from deploy.local.stack import Stack
from tests.drills.pgbouncer import PREPARES_SINCE, find_version, pgbouncer
from tests.integration.waiting import wait_until

PREPARES = find_version() >= PREPARES_SINCE
FORGETS = "leads to a pooler that shares sessions of PostgreSQL and does not prepare"
NO_PREPARING: dict[str, object] = {"max_prepared_statements": 0} if PREPARES else {}
WRONG: list[tuple[dict[str, object], str]] = [
    ({"pool_mode": "transaction", **NO_PREPARING}, FORGETS),
    ({"pool_mode": "transaction", "server_round_robin": 1, **NO_PREPARING}, FORGETS),
    ({"pool_mode": "transaction", "default_pool_size": 1, **NO_PREPARING}, FORGETS),
    ({"pool_mode": "statement"}, "leads to a pooler that takes no transactions"),
]
PREPARING: dict[str, object] = {"pool_mode": "transaction", "max_prepared_statements": 200}
# An older PgBouncer does not start with a setting that it does not know.
RIGHT: list[dict[str, object]] = [
    {"pool_mode": "session"},
    *([PREPARING, {**PREPARING, "default_pool_size": 1}] if PREPARES else []),
    *([{**PREPARING, "server_round_robin": 1}] if PREPARES else []),
]


@pytest.fixture
def passwords(stack: Stack) -> dict[str, str]:
    names = {postgres.SUPERUSER: "postgres"}
    names |= {f"waxwing_{service}_login": service for service in ("users", "records")}
    return {login: stack.secrets[name] for login, name in names.items()}


def through(stack: Stack, service: str, port: int) -> dict[str, str]:
    """Returns the environment of a service, or of the set-up, whose database is at this port."""
    environment = stack.environment(service)
    environment["DATABASE_URL"] = environment["DATABASE_URL"].replace(
        f":{stack.ports.postgres}/", f":{port}/"
    )
    (free,) = free_ports(1)
    return {**os.environ, **environment, "PORT": str(free)}


def run(environment: dict[str, str], *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *command], env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("service", "settings", "says"), [("records", *WRONG[0]), *(("users", *each) for each in WRONG)]
)
def test_a_service_does_not_start_behind_a_wrong_pooler_and_says_why_in_one_line(
    stack: Stack,
    passwords: dict[str, str],
    tmp_path: Path,
    service: str,
    settings: dict[str, object],
    says: str,
) -> None:
    with pgbouncer(tmp_path / "pgbouncer", stack.ports.postgres, passwords, **settings) as pooler:
        done = run(through(stack, service, pooler.port), service)
    assert done.returncode == 1
    assert done.stderr.startswith("waxwing: wrong setting: DATABASE_URL leads to a pooler")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("settings", RIGHT)
def test_a_service_starts_behind_a_right_pooler_and_works(
    stack: Stack, passwords: dict[str, str], tmp_path: Path, settings: dict[str, object]
) -> None:
    with pgbouncer(tmp_path / "pgbouncer", stack.ports.postgres, passwords, **settings) as pooler:
        environment = through(stack, "users", pooler.port)
        url = f"http://{LOOPBACK}:{environment['PORT']}"
        with (tmp_path / "log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "users"], env=environment, stdout=log, stderr=log
            )
        try:
            wait_until(lambda: process.poll() is not None or is_ready(url))
            assert process.poll() is None, (tmp_path / "log").read_text()
            with Client(stack.base_url) as client:
                user = client.create_user("Ann")
            shown = httpx.get(f"{url}/users/me", headers={"Authorization": f"Bearer {user['token']}"})
            assert shown.status_code == 200
        finally:
            process.terminate()
            process.wait()


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.TransportError:
        return False


async def test_a_service_that_started_before_its_wrong_pooler_is_not_ready(
    stack: Stack, passwords: dict[str, str], tmp_path: Path
) -> None:
    settings = WRONG[0][0]
    with pgbouncer(tmp_path / "pgbouncer", stack.ports.postgres, passwords, **settings) as pooler:
        environment = through(stack, "users", pooler.port)
        engine = make_engine(environment["DATABASE_URL"], environment["DATABASE_PASSWORD"])
        try:
            with pytest.raises(SettingsError, match=FORGETS):
                await check_database(engine)
        finally:
            await engine.dispose()


@pytest.mark.parametrize("settings", [WRONG[0][0], RIGHT[-1]])
def test_what_needs_a_whole_session_asks_for_a_direct_connection(
    stack: Stack, passwords: dict[str, str], tmp_path: Path, settings: dict[str, object]
) -> None:
    with pgbouncer(tmp_path / "pgbouncer", stack.ports.postgres, passwords, **settings) as pooler:
        set_up = run(through(stack, "setup", pooler.port), "deploy.setup")
        doctor = run(through(stack, "records", pooler.port), "records", "doctor")
        backup = run(
            through(stack, "setup", pooler.port), "deploy.backup", "back-up", str(tmp_path / "backup")
        )
    if settings["pool_mode"] == "session":
        assert (set_up.returncode, doctor.returncode, backup.returncode) == (0, 0, 0)
        return
    for done, who in ((set_up, "the set-up"), (doctor, "the doctor"), (backup, "the backup")):
        assert done.returncode != 0
        assert done.stderr.splitlines()[-1].startswith("waxwing: ")
        assert f"and {who} needs one session to the end" in done.stderr
