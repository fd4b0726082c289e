"""Finds a MinIO, or builds one from its Go module.

`./just` runs this module as a program while pip installs, so it imports only the standard library.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from deploy.local.go_build import GoBuild, build_once, cache_folder

# The last commit of upstream, which makes no releases any more.
MODULE = "github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c"
_HELP_SECONDS = 20
_DOTENV = Path(__file__).parents[2] / ".env"


def find_or_build(settings: Mapping[str, str], say: Callable[[str], None]) -> Path:
    """Returns the MinIO to run: `MINIO_BIN`, or an earlier build, or one in PATH, or a new build."""
    if found := find(settings, say):
        return found
    build = _make_build(settings)
    build_once(build, say)
    return build.programs[0]


def find(settings: Mapping[str, str], say: Callable[[str], None]) -> Path | None:
    """Returns a MinIO that is there already: `MINIO_BIN`, an earlier build, or one in PATH."""
    if settings.get("MINIO_BIN"):
        own = Path(settings["MINIO_BIN"]).expanduser()
        if not os.access(own, os.X_OK) or own.is_dir():
            raise FileNotFoundError(f"MINIO_BIN={own} is not a program that can be run")
        return own.absolute()
    build = _make_build(settings)
    if build.is_there:
        return build.programs[0]
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


def _make_build(settings: Mapping[str, str]) -> GoBuild:
    return GoBuild(
        title="MinIO",
        folder=cache_folder(settings) / MODULE.rpartition("@")[2],
        packages=(MODULE,),
        duration="about 4 minutes on two cores",
        advice="set MINIO_BIN to a MinIO of your own, or S3_ENDPOINT to an object store",
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
