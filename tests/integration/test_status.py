"""One screen shows how everything is, also while parts are away; and the database remembers the last runs."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from common.db import writes_wait
from deploy.client import Client
from deploy.local.ports import LOOPBACK, Ports, free_ports
from deploy.local.stack import Stack, StackError
from deploy.local.supervision import ROOT
from records import commands, sql
from records.sweeper import _measure
from tests.integration.records_service import RecordsService
from tests.integration.waiting import wait_until, wait_until_async
from tests.raw_connection import make_request_head, open_raw_connection
from tests.upload_requests import TINY_WAV, WAV_TYPE, bearer

# Runs `./just status` and returns its exit status and what it prints.
Show = Callable[..., tuple[int, str]]


@pytest.fixture
def show_as_a_process(stack: Stack, capfd: pytest.CaptureFixture[str]) -> Show:
    def show(*arguments: str) -> tuple[int, str]:
        capfd.readouterr()
        status = stack.show_status(list(arguments))
        printed = capfd.readouterr()
        assert printed.err == ""
        return status, printed.out

    return show


@pytest.fixture
def show(stack: Stack, show_as_a_process: Show, monkeypatch: pytest.MonkeyPatch) -> Show:
    """The command runs in this process, because a process of its own loads its libraries for two seconds."""

    def run_command(service: str, arguments: list[str]) -> int:
        assert service == "records"
        # In a thread, because an event loop may run in this one.
        with ThreadPoolExecutor() as thread:
            return thread.submit(commands.main, arguments, stack.environment(service)).result()

    def show(*arguments: str) -> tuple[int, str]:
        with monkeypatch.context() as patch:
            patch.setattr(stack, "run_command", run_command)
            return show_as_a_process(*arguments)

    return show


def read_status(show: Show, *arguments: str) -> tuple[int, dict[str, Any]]:
    status, printed = show("--json", *arguments)
    return status, json.loads(printed)


def test_the_screen_shows_every_part_and_what_is_stored(
    stack: Stack, client: Client, owner: dict[str, Any], show_as_a_process: Show
) -> None:
    client.upload_stream([TINY_WAV], owner["token"])
    status, found = read_status(show_as_a_process)
    assert status == 0
    assert [part["name"] for part in found["parts"]] == ["gateway", "users", "records", "postgres", "store"]
    assert {part["state"] for part in found["parts"]} == {"ready"}
    assert all(part["version"] and part["uptime_seconds"] is not None for part in found["parts"])
    assert found["upload_slots"] == 32
    assert found["contents"]["records"] >= 1
    assert found["contents"]["users"] >= 1
    assert found["contents"]["mp3_bytes"] > 0
    assert found["store_free_bytes"] > 0
    assert found["cache_free_bytes"] > 0
    status, screen = show_as_a_process()
    lines = [line.split()[:2] for line in screen.splitlines()]
    assert ["records", "ready"] in lines
    assert ["disk", "free"] in lines


def test_the_screen_counts_what_keeps_its_original_apart(
    client: Client, owner: dict[str, Any], show: Show
) -> None:
    before = read_status(show)[1]["contents"]
    kept = client.http.post(
        "/records?keep_original=true", content=TINY_WAV, headers={**bearer(owner), **WAV_TYPE}
    )
    assert kept.status_code == 201
    after = read_status(show)[1]["contents"]
    growth = {name: after[name] - before[name] for name in ("mp3_bytes", "original_bytes")}
    assert growth == {"mp3_bytes": kept.json()["size_bytes"], "original_bytes": len(TINY_WAV)}


def test_the_screen_counts_uploads_under_way(stack: Stack, owner: dict[str, Any], show: Show) -> None:
    token = f"Authorization: Bearer {owner['token']}"
    head = make_request_head(
        "POST", "/records", stack.base_url, token, "Content-Type: audio/wav", "Content-Length: 1000000"
    )
    with open_raw_connection(stack.base_url) as connection:
        connection.send(head, TINY_WAV[:60])
        wait_until(lambda: read_status(show)[1]["uploads_under_way"] == 1)
    wait_until(lambda: read_status(show)[1]["uploads_under_way"] == 0)


@pytest.mark.parametrize("part", ["gateway", "users", "records"])
def test_a_part_that_does_not_answer_is_away(show: Show, part: str) -> None:
    (port,) = free_ports(1)
    status, found = read_status(show, f"--{part}={LOOPBACK}:{port}")
    assert status == 1
    assert [each["name"] for each in found["parts"] if each["state"] == "away"] == [part]


def test_a_host_name_without_an_address_is_a_part_that_is_away(show: Show) -> None:
    status, found = read_status(show, "--users=users.invalid:8000")
    assert status == 1
    (users,) = [part for part in found["parts"] if part["name"] == "users"]
    assert (users["state"], users["detail"]) == ("away", "users.invalid has no address")


@pytest.mark.parametrize("setting", ["DATABASE_URL", "S3_ENDPOINT"])
def test_the_screen_shows_the_rest_while_a_store_is_away(stack: Stack, setting: str) -> None:
    (port,) = free_ports(1)
    away = {
        "DATABASE_URL": f"postgresql://nobody@{LOOPBACK}:{port}/waxwing",
        "S3_ENDPOINT": f"http://{LOOPBACK}:{port}",
    }
    environment = {**stack.environment("records"), setting: away[setting]}
    options = [
        f"--users={LOOPBACK}:{stack.ports.users}",
        f"--records={LOOPBACK}:{stack.ports.records}",
        f"--gateway={LOOPBACK}:{stack.ports.gateway_status}",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "records", "status", "--json", *options],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, "")
    found = json.loads(done.stdout)
    name = {"DATABASE_URL": "postgres", "S3_ENDPOINT": "store"}[setting]
    assert [each["name"] for each in found["parts"] if each["state"] == "away"] == [name]
    assert (found["contents"] is None) == (name == "postgres")


async def test_the_screen_and_a_metric_say_that_writes_wait_for_a_standby(
    stack_service: RecordsService, show: Show
) -> None:
    def metric() -> float | None:
        return REGISTRY.get_sample_value("waxwing_database_writes_wait")

    await stack_service.query("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    try:
        await stack_service.query("SELECT pg_reload_conf()")
        await wait_until_async(lambda: writes_wait(stack_service.engine))
        status, found = await asyncio.to_thread(read_status, show)
        await _measure(stack_service.engine)
        assert metric() == 1
    finally:
        await stack_service.query("ALTER SYSTEM RESET synchronous_standby_names")
        await stack_service.query("SELECT pg_reload_conf()")
    assert status == 1
    (postgres,) = [part for part in found["parts"] if part["name"] == "postgres"]
    assert postgres["state"] == "not ready"
    assert postgres["detail"].startswith("PostgreSQL's writes wait for the synchronous standby")
    assert found["contents"]
    await wait_until_async(lambda: are_writes_done(stack_service))
    await _measure(stack_service.engine)
    assert metric() == 0


async def are_writes_done(service: RecordsService) -> bool:
    return not await writes_wait(service.engine)


def test_a_stack_that_does_not_run_says_how_to_start_it(tmp_path: Path) -> None:
    with pytest.raises(StackError, match=r"does not run: `\./just up -d` starts it"):
        Stack(tmp_path / "stack", Ports.free()).show_status([])


def test_the_last_backup_and_the_last_doctor_are_remembered(stack: Stack, show: Show, tmp_path: Path) -> None:
    assert stack.back_up([str(tmp_path / "backup")]) == 0
    assert stack.run_command("records", ["doctor"]) in (0, 1)
    runs = read_status(show)[1]["contents"]["runs"]
    assert runs["backup"]["result"] == "complete"
    assert str(tmp_path / "backup") in runs["backup"]["summary"]
    assert runs["doctor"]["result"] in ("clean", "found")
    assert all(run["began_at"] <= run["ended_at"] == run["succeeded_at"] for run in runs.values())
    (tmp_path / "file").touch()
    assert stack.back_up([str(tmp_path / "file")]) == 2
    failed = read_status(show)[1]["contents"]["runs"]["backup"]
    assert failed["result"] == "failed"
    assert "FileExistsError" in failed["summary"]
    assert failed["succeeded_at"] == runs["backup"]["succeeded_at"]
    assert "; the last that succeeded: " in show()[1]


async def test_prometheus_sees_when_the_last_backup_succeeded(isolated_service: RecordsService) -> None:
    engine = isolated_service.engine

    async def measure() -> float | None:
        await _measure(engine)
        return REGISTRY.get_sample_value("waxwing_last_run_timestamp_seconds", {"command": "backup"})

    assert await measure() == 0
    began_at = datetime.now(UTC)
    await sql.note_run(engine, "backup", began_at, "failed", "no room")
    assert await measure() == 0
    await sql.note_run(engine, "backup", began_at, "incomplete", "3 objects, 1 is missing")
    succeeded_at = await measure()
    assert succeeded_at is not None
    assert succeeded_at >= began_at.timestamp()
    await sql.note_run(engine, "backup", began_at, "failed", "no room")
    assert await measure() == succeeded_at


async def test_nothing_is_noted_while_postgres_has_an_older_schema(isolated_service: RecordsService) -> None:
    await isolated_service.query("ALTER TABLE runs RENAME TO other_runs")
    try:
        await sql.note_run(isolated_service.engine, "doctor", datetime.now(UTC), "clean", "0 objects")
    finally:
        await isolated_service.query("ALTER TABLE other_runs RENAME TO runs")
    assert "doctor" not in await sql.find_runs(isolated_service.engine)
    await _measure(isolated_service.engine)
