"""The command-line client finds Waxwing, retries uploads, and explains failures."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import pytest

from deploy.client import Client, make_tune
from deploy.local.ports import LOOPBACK, free_ports
from deploy.local.stack import Stack
from deploy.local.supervision import ROOT
from tests.integration.records_service import RecordsService


def run(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs the client from `folder`, as the recipes run it."""
    neutral = {
        name: value for name, value in os.environ.items() if name not in ("BASE_URL", "WAXWING_FOLDER")
    }
    return subprocess.run(
        [sys.executable, "-m", "deploy.client", *arguments],
        cwd=folder,
        env={**neutral, "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def just(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs a recipe from `folder`."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [str(Path(sys.executable).with_name("just")), "--justfile", str(ROOT / "justfile"), *arguments],
        cwd=folder,
        env={**os.environ, "PATH": path, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_client_finds_the_stack_of_waxwing_folder_from_any_folder(stack: Stack, tmp_path: Path) -> None:
    folder = os.path.relpath(stack.supervisor.log("users").parents[1], ROOT)
    made = run(tmp_path, "user", "Ada", WAXWING_FOLDER=folder)
    assert made.returncode == 0, made.stderr
    assert made.stdout.startswith("id ")


async def test_upload_takes_a_file_in_the_caller_s_folder_a_title_a_bitrate_and_the_original(
    stack: Stack, stack_service: RecordsService, tmp_path: Path
) -> None:
    with Client(stack.base_url) as client:
        user = client.create_user("Ada")
    (tmp_path / "tune.wav").write_bytes(make_tune(1))
    arguments = ["upload", "tune.wav", user["id"], user["token"], "--title", "A tune", "--bitrate", "192"]
    arguments.append("--keep-original")
    done = just(tmp_path, *arguments, BASE_URL=stack.base_url)
    assert done.returncode == 0, done.stderr
    (row,) = await stack_service.rows(UUID(user["id"]))
    assert (row.title, row.bitrate_kbps) == ("A tune", 192)
    assert row.original_size_bytes == len(make_tune(1))


BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nRetry-After: 0\r\n"
    b'Content-Length: 36\r\nConnection: close\r\n\r\n{"title": "Busy", "detail": "Later"}'
)


@asynccontextmanager
async def open_unreliable_proxy(stack: Stack, *troubles: str) -> AsyncIterator[str]:
    """Yields the URL of a proxy whose connections have these troubles, one after the other, and then none."""
    remaining = list(troubles)

    async def forward(request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(LOOPBACK, stack.ports.gateway)
        writer.write(request)
        response = await reader.read()
        writer.close()
        return response

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        assert length
        request = head + await reader.readexactly(int(length[1]))
        trouble = remaining.pop(0) if remaining else ""
        response = BUSY if trouble == "busy" else await forward(request)
        if trouble != "response lost":
            writer.write(response)
        writer.close()

    async with await asyncio.start_server(serve, LOOPBACK) as server:
        yield f"http://{LOOPBACK}:{server.sockets[0].getsockname()[1]}"


@pytest.fixture
def upload_line(stack: Stack, tmp_path: Path) -> list[str]:
    """Returns the arguments to upload a second of sound as a new user."""
    with Client(stack.base_url) as client:
        user = client.create_user("Ada")
    (tmp_path / "tune.wav").write_bytes(make_tune(1))
    return ["upload", "tune.wav", user["id"], user["token"]]


async def upload_by(url: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(run, folder, *arguments, BASE_URL=url)


async def test_the_client_repeats_a_lost_or_refused_upload_and_makes_one_record(
    stack: Stack, stack_service: RecordsService, tmp_path: Path, upload_line: list[str]
) -> None:
    async with open_unreliable_proxy(stack, "response lost", "busy") as url:
        done = await upload_by(url, tmp_path, *upload_line)
    assert done.returncode == 0, done.stderr
    (row,) = await stack_service.rows(UUID(upload_line[2]))
    assert done.stdout == f"{url}/record?id={row.id}&user={row.user_id}\n"
    for pause in (1, 0):
        assert done.stderr.count(f"; trying again in {pause} s with --key {row.idempotency_key}\n") == 1
    # The key that the client prints works in a later run, too.
    again = await upload_by(stack.base_url, tmp_path, *upload_line, "--key", row.idempotency_key)
    assert again.stdout == f"{stack.base_url}/record?id={row.id}&user={row.user_id}\n"


async def test_the_client_tries_three_times_but_only_once_after_a_permanent_failure(
    stack: Stack, stack_service: RecordsService, tmp_path: Path, upload_line: list[str]
) -> None:
    async with open_unreliable_proxy(stack, "busy", "busy", "busy") as url:
        refused = await upload_by(url, tmp_path, *upload_line)
        assert refused.stderr.endswith("client: 503 Busy: Later\n")
        wrong = await upload_by(url, tmp_path, *upload_line, "--key", "\u00e9")
        assert "client: 400" in wrong.stderr
        assert "Idempotency-Key" in wrong.stderr
    for response, tries in ((refused, 3), (wrong, 1)):
        assert response.returncode == 1
        assert response.stderr.count("trying again") == tries - 1
    assert await stack_service.rows(UUID(upload_line[2])) == []


def test_without_a_stack_the_client_says_how_to_start_one(tmp_path: Path) -> None:
    refused = run(tmp_path, "user", "Ada", WAXWING_FOLDER=str(tmp_path / "none"))
    assert refused.returncode == 1
    assert refused.stderr == "client: nothing was started here yet: `./just up` starts the stack\n"


def test_the_client_names_the_url_at_which_nothing_responds(tmp_path: Path) -> None:
    url = f"http://{LOOPBACK}:{free_ports(1)[0]}"
    refused = just(tmp_path, "user", "Ada", BASE_URL=url)
    assert refused.returncode == 1
    assert refused.stderr == f"client: nothing answers at {url}: `./just up` starts the stack\n"


def test_the_client_names_the_url_at_which_something_else_responds(stack: Stack, tmp_path: Path) -> None:
    url = f"http://{LOOPBACK}:{stack.ports.minio}"
    refused = run(tmp_path, "user", "Ada", BASE_URL=url)
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"client: {url}/users answered 4")
    assert "not Waxwing" in refused.stderr


def test_the_usage_names_the_command_that_people_type(tmp_path: Path) -> None:
    assert run(tmp_path, "upload").stderr.startswith("usage: just upload ")
