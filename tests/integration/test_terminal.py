"""The commands for the terminal find Waxwing and the user, try transfers again, and explain failures."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import io
import json
import os
import pty
import re
import shlex
import signal
import socket
import stat
import struct
import subprocess
import sys
import termios
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from deploy.client import Client
from deploy.local.ports import LOOPBACK, free_ports
from deploy.local.stack import Stack
from deploy.local.supervision import ROOT
from deploy.terminal import transfers
from deploy.terminal.__main__ import main
from deploy.terminal.demo import make_tune
from records.settings import DEFAULT_LEASE_SECONDS
from tests.integration.records_service import RecordsService


def run(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs a command from `folder`, as the recipes run it. Users of a URL are kept in the folder, too.

    It runs in this process, because a process of its own would spend most of its time on imports.
    """
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.chdir(folder)
        for name in ("BASE_URL", "WAXWING_FOLDER", "WAXWING_USER", "WAXWING_TOKEN"):
            patch.delenv(name, raising=False)
        for name, value in {"XDG_CONFIG_HOME": str(folder / "configuration"), **variables}.items():
            patch.setenv(name, value)
        try:
            status = main([*arguments])
        except SystemExit as wrong_usage:
            status = int(wrong_usage.code or 0)
    for stream in (out, err):
        stream.seek(0)
    return subprocess.CompletedProcess(arguments, status, out.read(), err.read())


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
    arguments = ["upload", "tune.wav", "--title", "A tune", "--bitrate", "192", "--keep-original"]
    who = {"WAXWING_USER": user["id"], "WAXWING_TOKEN": user["token"]}
    done = just(tmp_path, *arguments, BASE_URL=stack.base_url, **who)
    assert done.returncode == 0, done.stderr
    (row,) = await stack_service.rows(UUID(user["id"]))
    assert (row.title, row.bitrate_kbps) == ("A tune", 192)
    assert row.original_size_bytes == len(make_tune(1))


REFUSALS = {
    "busy": b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\n"
    b'Retry-After: 0\r\nContent-Length: 36\r\nConnection: close\r\n\r\n{"title": "Busy", "detail": "Later"}',
    # The client has paused for too long.
    "slept": b"HTTP/1.1 408 Request Timeout\r\nContent-Type: application/problem+json\r\n"
    b'Content-Length: 36\r\nConnection: close\r\n\r\n{"title": "Slow", "detail": "Again"}',
}


@contextlib.asynccontextmanager
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
        # So that the end of the response is the end of its connection.
        head = head.replace(b"keep-alive", b"close")
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        request = head + await reader.readexactly(int(length[1]) if length else 0)
        trouble = remaining.pop(0) if remaining else ""
        response = REFUSALS.get(trouble) or await forward(request)
        if trouble == "last byte wrong":
            response = response[:-1] + bytes([response[-1] ^ 1])
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
    return ["upload", "tune.wav", "--user", user["id"], "--token", user["token"]]


async def upload_by(url: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(run, folder, *arguments, BASE_URL=url)


async def test_the_client_repeats_a_lost_or_refused_upload_and_makes_one_record(
    stack: Stack, stack_service: RecordsService, tmp_path: Path, upload_line: list[str]
) -> None:
    async with open_unreliable_proxy(stack, "response lost", "busy", "slept") as url:
        done = await upload_by(url, tmp_path, *upload_line)
    assert done.returncode == 0, done.stderr
    (row,) = await stack_service.rows(UUID(upload_line[3]))
    assert done.stdout == f"{url}/record?id={row.id}&user={row.user_id}\n"
    for pause in (1, 2, 4):
        assert done.stderr.count(f"; trying again in {pause} s with --key {row.idempotency_key}\n") == 1
    # The key that the client prints works in a later run, too.
    again = await upload_by(stack.base_url, tmp_path, *upload_line, "--key", row.idempotency_key)
    assert again.stdout == f"{stack.base_url}/record?id={row.id}&user={row.user_id}\n"


def test_the_client_tries_for_longer_than_the_lease_of_a_killed_service() -> None:
    assert sum(transfers.PAUSES_SECONDS) > DEFAULT_LEASE_SECONDS


async def test_the_client_gives_up_and_tries_only_once_after_a_permanent_failure(
    stack: Stack,
    stack_service: RecordsService,
    tmp_path: Path,
    upload_line: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transfers, "PAUSES_SECONDS", (0, 0))
    async with open_unreliable_proxy(stack, "busy", "busy", "busy") as url:
        refused = await upload_by(url, tmp_path, *upload_line)
        assert refused.stderr.endswith("client: tune.wav: 503 Busy: Later\n")
        wrong = await upload_by(url, tmp_path, *upload_line, "--key", "\u00e9")
        assert "client: tune.wav: 400" in wrong.stderr
        assert "Idempotency-Key" in wrong.stderr
    for response, tries in ((refused, 3), (wrong, 1)):
        assert response.returncode == 1
        assert response.stderr.count("trying again") == tries - 1
    assert await stack_service.rows(UUID(upload_line[3])) == []


def test_without_a_stack_the_client_says_how_to_start_one(tmp_path: Path) -> None:
    refused = run(tmp_path, "user", "Ada", WAXWING_FOLDER=str(tmp_path / "none"))
    assert refused.returncode == 1
    assert refused.stderr == "client: nothing was started here yet: `./just up` starts the stack\n"


def test_the_client_names_the_url_at_which_nothing_responds(tmp_path: Path) -> None:
    url = f"http://{LOOPBACK}:{free_ports(1)[0]}"
    refused = just(tmp_path, "user", "Ada", BASE_URL=url)
    assert refused.returncode == 1
    assert refused.stderr == f"client: nothing answers at {url}: `./just up` starts the stack\n"


def test_the_demo_names_the_url_of_a_link_at_which_nothing_responds(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a PUBLIC_URL whose name leads nowhere yet."""
    nowhere = f"http://{LOOPBACK}:{free_ports(1)[0]}"
    send = Client.upload

    def upload(*arguments: Any, **options: Any) -> dict[str, Any]:
        record = send(*arguments, **options)
        return {**record, "url": record["url"].replace(stack.base_url, nowhere)}

    monkeypatch.setattr(Client, "upload", upload)
    refused = run(tmp_path, "demo", BASE_URL=stack.base_url)
    assert (refused.returncode, refused.stderr) == (1, f"client: nothing answers at {nowhere}\n")


def test_the_client_names_the_url_at_which_something_else_responds(stack: Stack, tmp_path: Path) -> None:
    url = f"http://{LOOPBACK}:{stack.ports.minio}"
    refused = run(tmp_path, "user", "Ada", BASE_URL=url)
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"client: {url}/users answered 4")
    assert "not Waxwing" in refused.stderr


def test_one_user_is_made_and_then_commands_need_neither_id_nor_token(stack: Stack, tmp_path: Path) -> None:
    here = {"BASE_URL": stack.base_url}
    made = run(tmp_path, "user", "Ada", "--json", **here)
    user = json.loads(made.stdout)
    (kept,) = tmp_path.glob("configuration/waxwing/*")
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    for name in ("a.wav", "b.wav"):
        (tmp_path / name).write_bytes(make_tune(1))
    done = run(tmp_path, "upload", "a.wav", "b.wav", "--title", "Zo\u00eb/1", "--keep-original", **here)
    assert (done.returncode, done.stderr) == (0, "")
    first, second = done.stdout.splitlines()
    listed = run(tmp_path, "records", **here).stdout.splitlines()
    assert [line.split()[0] for line in listed[1:]] == [link.split("=")[1][:36] for link in (second, first)]
    assert all(line.endswith("Zo\u00eb/1") for line in listed[1:])
    records = [
        json.loads(line)
        for line in run(tmp_path, "records", "zo\u00eb", "--json", **here).stdout.splitlines()
    ]
    assert [record["url"] for record in records] == [second, first]
    assert {record["user_id"] for record in records} == {user["id"]}
    assert run(tmp_path, "records", "nothing", "--json", **here).stdout == ""

    assert run(tmp_path, "get", first, **here).stdout == "Zo\u00eb1.mp3\n"
    mp3 = (tmp_path / "Zo\u00eb1.mp3").read_bytes()
    assert hashlib.sha256(mp3).hexdigest() == records[1]["sha256"]
    # A file is never overwritten.
    again = run(tmp_path, "get", first, **here)
    assert (again.returncode, again.stderr) == (
        1,
        "client: Zo\u00eb1.mp3 is there already: name another FILE\n",
    )
    assert run(tmp_path, "get", records[0]["id"], "x.wav", "--original", **here).returncode == 0
    assert (tmp_path / "x.wav").read_bytes() == make_tune(1)

    # A record that is not there does not keep the next one.
    absent = str(uuid4())
    gone = run(tmp_path, "delete", first, absent, records[0]["id"], **here)
    assert (gone.returncode, gone.stdout.splitlines()) == (1, [records[1]["id"], records[0]["id"]])
    assert gone.stderr.startswith(f"client: {absent}: 404 ")
    none = run(tmp_path, "records", **here)
    assert (none.returncode, none.stdout, none.stderr) == (0, "", "client: there are no records\n")
    missing = run(tmp_path, "get", first, "gone.mp3", **here)
    assert (missing.returncode, missing.stderr[:12]) == (1, "client: 404 ")
    names = {file.name for file in tmp_path.iterdir()}
    assert names == {"a.wav", "b.wav", "configuration", "Zo\u00eb1.mp3", "x.wav"}


def test_options_and_the_environment_win_over_the_user_who_was_made_last(
    stack: Stack, tmp_path: Path
) -> None:
    here = {"BASE_URL": stack.base_url}
    users = [json.loads(run(tmp_path, "user", name, "--json", **here).stdout) for name in ("Ada", "Ben")]
    for user in users:
        with Client(stack.base_url) as client:
            client.upload_stream([make_tune(1)], user["token"])
    by_token = {"WAXWING_TOKEN": users[0]["token"]}
    both = {"WAXWING_USER": users[0]["id"], **by_token}
    for options, environment, expected in [
        ([], {}, users[1]),
        ([], by_token, users[0]),
        ([], both, users[0]),
        (["--user", users[0]["id"]], {}, users[0]),
        (["--token", users[0]["token"]], {}, users[0]),
        (["--user", users[1]["id"], "--token", users[1]["token"]], both, users[1]),
    ]:
        listed = run(tmp_path, "records", "--json", *options, **here, **environment)
        assert json.loads(listed.stdout)["user_id"] == expected["id"]
    unknown = run(tmp_path, "records", "--user", str(uuid4()), **here)
    assert unknown.returncode == 1
    assert unknown.stderr.endswith("is kept here: add --token TOKEN\n")


def test_the_users_of_one_place_are_not_those_of_another(stack: Stack, tmp_path: Path) -> None:
    assert run(tmp_path, "user", "Ada", BASE_URL=stack.base_url).returncode == 0
    elsewhere = stack.base_url.replace(LOOPBACK, "localhost")
    refused = run(tmp_path, "records", BASE_URL=elsewhere)
    assert refused.returncode == 1
    assert refused.stderr == (
        "client: no user is kept here: `./just user NAME` makes one; or use --user and --token\n"
    )


def test_a_file_that_is_refused_does_not_stop_the_next_one(stack: Stack, tmp_path: Path) -> None:
    here = {"BASE_URL": stack.base_url}
    run(tmp_path, "user", "Ada", **here)
    (tmp_path / "notes.txt").write_text("no sound")
    (tmp_path / "tune.wav").write_bytes(make_tune(1))
    done = run(tmp_path, "upload", "notes.txt", "missing.wav", "tune.wav", "--json", **here)
    assert done.returncode == 1
    assert json.loads(done.stdout)["duration_seconds"] == 1
    refused, missing = done.stderr.splitlines()
    assert refused.startswith("client: notes.txt: 415 ")
    assert missing == "client: missing.wav: No such file or directory"
    assert run(tmp_path, "upload", "a", "b", "--key", "k", **here).returncode == 2


def test_an_interrupted_upload_says_how_to_repeat_it_with_all_its_options(tmp_path: Path) -> None:
    (tmp_path / "a walk.wav").write_bytes(make_tune(1))
    options = ["--title", "Ann's walk", "--bitrate", "64", "--keep-original"]
    arguments = ["upload", *options, "a walk.wav", "b.wav", "--token", "none"]
    command = [sys.executable, "-m", "deploy.terminal", *arguments]
    # Nothing behind this socket responds.
    with socket.create_server((LOOPBACK, 0)) as silent:
        url = f"http://{LOOPBACK}:{silent.getsockname()[1]}"
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "BASE_URL": url}
        with subprocess.Popen(
            command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
        ) as process:
            connection, _ = silent.accept()
            with connection:
                connection.recv(1)
                process.send_signal(signal.SIGINT)
                _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    repeat, rest = said.splitlines()
    line = re.fullmatch(r"client: interrupted; `(.+)` repeats this upload safely", repeat)
    assert line
    just, *words, key = shlex.split(line[1])
    assert [just, *words] == ["./just", "upload", "a walk.wav", *options, "--key"]
    assert str(UUID(key)) == key
    assert rest == "client: not sent: b.wav"


def test_an_upload_without_a_title_has_the_name_of_its_file(stack: Stack, tmp_path: Path) -> None:
    here = {"BASE_URL": stack.base_url}
    run(tmp_path, "user", "Ada", **here)
    for name in ("A walk.wav", "x" * 201 + ".wav"):
        (tmp_path / name).write_bytes(make_tune(1))
    (tmp_path / "hello.wav").write_bytes(make_tune(1))
    made = run(tmp_path, "upload", "A walk.wav", "x" * 201 + ".wav", "--json", **here)
    made.stdout += run(tmp_path, "upload", "hello.wav", "--title", "", "--json", **here).stdout
    assert [json.loads(line)["title"] for line in made.stdout.splitlines()] == ["A walk", None, None]


def test_a_line_that_was_cut_loses_no_other_user(stack: Stack, tmp_path: Path) -> None:
    here = {"BASE_URL": stack.base_url}
    run(tmp_path, "user", "Ada", **here)
    run(tmp_path, "user", "Ben", **here)
    (kept,) = tmp_path.glob("configuration/waxwing/*")
    kept.write_bytes(kept.read_bytes()[:-20])
    assert run(tmp_path, "records", **here).returncode == 0
    cleo = json.loads(run(tmp_path, "user", "Cleo", "--json", **here).stdout)
    with Client(stack.base_url) as client:
        client.upload_stream([make_tune(1)], cleo["token"])
    assert json.loads(run(tmp_path, "records", "--json", **here).stdout)["user_id"] == cleo["id"]


def test_what_cannot_be_done_is_said_in_a_sentence(stack: Stack, tmp_path: Path) -> None:
    here = {"BASE_URL": stack.base_url}
    run(tmp_path, "user", "Ada", **here)
    with Client(stack.base_url) as client:
        token = client.create_user("Ben")["token"]
        record = client.upload_stream([make_tune(1)], token)
    os.mkfifo(tmp_path / "pipe")
    # Somebody writes into the pipe; otherwise the command would wait.
    writer = os.open(tmp_path / "pipe", os.O_RDWR)
    for arguments, environment, reason in [
        (["get", record["url"]], here, f"{record['id']}: this link is another user's; curl downloads it"),
        (["get", record["id"], "new/a.mp3"], here, "404 There is no such record"),
        (["upload", "pipe"], here, "pipe: it cannot be read twice; `curl -T -` uploads a stream"),
        (["upload", "none.wav"], here, "none.wav: No such file or directory"),
        # Not even root can make a file there.
        (["get", record["id"], "/proc/a.mp3", "--token", token], here, "/proc/a.mp3: No such file or"),
        (["records"], {"BASE_URL": "127.0.0.1"}, "BASE_URL is '127.0.0.1': write it like http://127."),
    ]:
        done = run(tmp_path, *arguments, **environment)
        assert done.returncode == 1
        assert done.stderr.startswith(f"client: {reason}"), done.stderr
    os.close(writer)
    assert run(tmp_path, "get", record["id"], "new/", **here).returncode == 2


def test_a_user_who_cannot_be_kept_is_shown_and_the_reason_too(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "configuration").write_text("no folder")
    made = run(tmp_path, "user", "Ada", BASE_URL=stack.base_url)
    assert made.returncode == 0
    assert made.stdout.startswith("id ")
    assert made.stderr.endswith("so the other commands need --user and --token\n")


async def test_a_download_that_differs_from_its_record_leaves_no_file(stack: Stack, tmp_path: Path) -> None:
    with Client(stack.base_url) as client:
        user = client.create_user("Ada")
        record = client.upload_stream([make_tune(1)], user["token"])
    arguments = ["get", record["id"], "tune.mp3", "--token", user["token"]]
    async with open_unreliable_proxy(stack, "", "response lost", "last byte wrong") as url:
        done = await asyncio.to_thread(run, tmp_path, *arguments, BASE_URL=url)
    assert done.returncode == 1
    assert done.stderr.endswith("client: the downloaded bytes are not those of the record: try again\n")
    assert "; trying again in 1 s\n" in done.stderr
    assert not await asyncio.to_thread(lambda: list(tmp_path.iterdir()))


def test_a_terminal_shows_how_far_an_upload_is_how_fast_and_how_long_it_takes(
    stack: Stack, tmp_path: Path
) -> None:
    with Client(stack.base_url) as client:
        user = client.create_user("Ada")
    (tmp_path / "tune.wav").write_bytes(make_tune(1))
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 25, 100, 0, 0))
    command = [sys.executable, "-m", "deploy.terminal", "upload", "tune.wav", "--token", user["token"]]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "BASE_URL": stack.base_url}
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=terminal,
        timeout=60,
        check=True,
    )
    os.close(terminal)
    shown = os.read(controller, 65536).decode()
    os.close(controller)
    assert done.stdout.startswith(stack.base_url.encode())
    assert re.search(r"tune.wav: 100%\S+ \d+\.?\dk/\d+\.?\dk \[\S+<\S+, \S+B/s\]", shown)


def test_the_usage_names_the_command_that_people_type(tmp_path: Path) -> None:
    assert run(tmp_path, "upload").stderr.startswith("usage: just upload ")
