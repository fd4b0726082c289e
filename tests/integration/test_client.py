"""The command-line client: where it finds Waxwing, and what it says when it cannot."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from uuid import UUID

from deploy.client import Client, make_tune
from deploy.local.ports import LOOPBACK, free_ports
from deploy.local.stack import Stack
from deploy.local.supervision import ROOT
from tests.integration.isolated import Isolated


def run(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The client, called from `folder` as the recipes call it."""
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
    """A recipe, called from `folder`."""
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


def test_it_finds_the_stack_of_waxwing_folder_from_anywhere(stack: Stack, tmp_path: Path) -> None:
    folder = os.path.relpath(stack.supervisor.log("users").parents[1], ROOT)
    made = run(tmp_path, "user", "Ada", WAXWING_FOLDER=folder)
    assert made.returncode == 0, made.stderr
    assert made.stdout.startswith("id ")


async def test_upload_takes_a_file_of_the_caller_s_folder_a_title_and_a_bitrate(
    stack: Stack, inside: Isolated, tmp_path: Path
) -> None:
    with Client(stack.base_url) as client:
        user = client.create_user("Ada")
    (tmp_path / "tune.wav").write_bytes(make_tune(1))
    arguments = ["upload", "tune.wav", user["id"], user["token"], "--title", "A tune", "--bitrate", "192"]
    done = just(tmp_path, *arguments, BASE_URL=stack.base_url)
    assert done.returncode == 0, done.stderr
    (row,) = await inside.rows(UUID(user["id"]))
    assert (row.title, row.bitrate_kbps) == ("A tune", 192)


def test_without_a_stack_it_says_how_to_start_one(tmp_path: Path) -> None:
    refused = run(tmp_path, "user", "Ada", WAXWING_FOLDER=str(tmp_path / "none"))
    assert refused.returncode == 1
    assert refused.stderr == "client: nothing has been started here yet: `./just up` does it\n"


def test_an_address_where_nothing_answers_is_named_and_nothing_is_added(tmp_path: Path) -> None:
    address = f"http://{LOOPBACK}:{free_ports(1)[0]}"
    refused = just(tmp_path, "user", "Ada", BASE_URL=address)
    assert refused.returncode == 1
    assert refused.stderr == f"client: nothing answers at {address}: `./just up` starts the stack\n"


def test_an_address_where_something_else_answers_is_named(stack: Stack, tmp_path: Path) -> None:
    address = f"http://{LOOPBACK}:{stack.ports.minio}"
    refused = run(tmp_path, "user", "Ada", BASE_URL=address)
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"client: {address}/users answered 4")
    assert "not Waxwing" in refused.stderr


def test_its_usage_names_the_command_that_people_type(tmp_path: Path) -> None:
    assert run(tmp_path, "upload").stderr.startswith("usage: just upload ")
