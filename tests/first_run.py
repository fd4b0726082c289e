"""Does what a stranger does, from a clone to an MP3, and shows minutes and megabytes: `just first-run`.

Each way starts with a fresh clone, an empty HOME and no caches, in an environment that has only PATH,
proxies, certificates, the choice of ports, and Docker. The commands are those of README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from deploy.docker_versions import find_flaw
from tests.bench.results import Row, write_results
from tests.wavs import Wav, music

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
# The first three create a user, upload hello.wav and fetch its MP3.
CURL_LINES = re.findall(r"^curl .*$", README, re.MULTILINE)[:3]
# Of a login to Linux. The PATH of this process has .venv.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# A machine may have its network, its ports and its Docker only with these.
INHERITED = re.compile(
    r"(?i)(https?|all|no)_proxy|.*_(cert|ca_bundle|cainfo|cert_file|cert_dir)|pip_.*|docker_.*|.*_port"
)
NOTE = """\
A fresh clone, an empty HOME and no caches. The megabytes are what the whole machine received meanwhile.
Images that Docker had already are not in them.
"""


class Way(NamedTuple):
    """One of the two ways to start."""

    title: str
    start: tuple[str, ...]
    stop: str
    """Also deletes the data, where they are outside the clone."""


WAYS = {
    "local": Way("without Docker", ("./just up -d", "./just demo"), "./just down"),
    "docker": Way("with Docker", ("docker compose up --build --wait",), "docker compose down -v"),
}


class FailedCommandError(Exception):
    """A command of the README has failed; the message has its last lines."""


class Stranger:
    """Runs commands in a fresh clone, and measures each."""

    def __init__(self, folder: Path, inherited: Mapping[str, str]) -> None:
        self.clone, self.home = folder / "waxwing", folder / "home"
        self.home.mkdir()
        self.commands, self.seconds, self.received = 0, 0.0, 0
        self.environment = {
            **{name: value for name, value in inherited.items() if INHERITED.fullmatch(name)},
            "PATH": PATH,
            "HOME": str(self.home),
        }
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(self.clone)], check=True)  # noqa: S607

    def run(self, command: str) -> tuple[Row, str]:
        """Runs a command. Returns what it cost, and its output."""
        print(f"$ {command}", file=sys.stderr, flush=True)
        started, cpu, received = time.monotonic(), cpu_seconds(), received_bytes()
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            cwd=self.clone,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        if done.returncode:
            raise FailedCommandError(
                f"`{command}` ended with status {done.returncode}: {done.stdout[-2000:]}"
            )
        seconds, cpu = time.monotonic() - started, cpu_seconds() - cpu
        self.commands += 1
        self.seconds += seconds
        self.received += received_bytes() - received
        return (f"`{command}`", f"{seconds:.1f} s", f"{cpu:.1f} s of CPU of the command itself"), done.stdout

    def use(self) -> list[Row]:
        """Runs the three curl lines, each with what the one before has returned."""
        (self.clone / "hello.wav").write_bytes(Wav().build(music(10)))
        port = self.environment.get("GATEWAY_PORT", "8080")
        rows = []
        for line in CURL_LINES:
            row, output = self.run(line.replace("127.0.0.1:8080", f"127.0.0.1:{port}"))
            rows.append(row)
            if output:
                response = json.loads(output)
                self.environment |= {
                    name: response[field]
                    for name, field in (("ID", "id"), ("TOKEN", "token"), ("URL", "url"))
                    if field in response and name not in self.environment
                }
        size = (self.clone / "hello.mp3").stat().st_size
        (self.clone / "hello.wav").unlink()
        return [*rows, ("the MP3", f"{size:,} bytes", "of a WAV of 10 s")]


def cpu_seconds() -> float:
    """Returns the CPU time of all commands that have ended, without what runs on or runs in Docker."""
    times = os.times()
    return times.children_user + times.children_system


def received_bytes() -> int:
    """Returns how many bytes this machine has received at the interface of its default route."""
    routes = [line.split() for line in Path("/proc/net/route").read_text().splitlines()[1:]]
    default = next((name for name, destination, *_ in routes if destination == "00000000"), None)
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, counts = line.partition(":")
        if name.strip() == default:
            return int(counts.split()[0])
    return 0


def megabytes(folder: Path) -> float:
    """Returns the space that a folder takes on the disk, as `du` counts it."""
    if not folder.exists():
        return 0
    done = subprocess.run(["du", "-sk", str(folder)], capture_output=True, text=True, check=True)  # noqa: S607
    return int(done.stdout.split()[0]) * 1024 / 1e6


def docker_megabytes(stranger: Stranger) -> dict[str, float]:
    """Returns the space that Docker's images, volumes and build cache take."""
    command = ["docker", "system", "df", "--format", "{{.Type}}={{.Size}}"]
    done = subprocess.run(command, env=stranger.environment, capture_output=True, text=True, check=True)
    units = {"B": 1e-6, "kB": 1e-3, "MB": 1.0, "GB": 1e3, "TB": 1e6}
    sizes = re.findall(r"^(.+)=([\d.]+)(\w+)$", done.stdout, re.MULTILINE)
    return {name: float(size) * units[unit] for name, size, unit in sizes if name != "Containers"}


def sum_up(parts: Mapping[str, float]) -> Row:
    """Returns the row of what stays on the disk."""
    rest = ", ".join(f"{name} {size:.0f}" for name, size in parts.items())
    return ("on disk", f"{sum(parts.values()):.0f} MB", rest)


def measure(name: str, folder: Path) -> list[Row]:
    """Goes one way. Returns a row for each command, and one for the disk."""
    way, stranger = WAYS[name], Stranger(folder, os.environ)
    before: dict[str, float] = {}
    if name == "docker":
        # Docker looks for its plugins in HOME, too, and they are no cache. This run has a project of its own,
        # so it deletes no data of a stack that is there.
        stranger.environment.setdefault("DOCKER_CONFIG", str(Path.home() / ".docker"))
        stranger.environment["COMPOSE_PROJECT_NAME"] = "waxwing-first-run"
        before = docker_megabytes(stranger)
    try:
        rows = [stranger.run(command)[0] for command in way.start]
        rows += stranger.use()
        if name == "docker":
            after = docker_megabytes(stranger)
            rows.append(sum_up({part: size - before.get(part, 0) for part, size in after.items()}))
    finally:
        stop, _ = stranger.run(way.stop)
    whole = f"{stranger.commands} commands, {stranger.seconds / 60:.1f} minutes"
    rows = [("from clone to MP3, and stop", whole, f"{stranger.received / 1e6:.0f} MB received"), *rows, stop]
    if name == "local":
        clone = megabytes(stranger.clone)
        parts = {part: megabytes(stranger.clone / part) for part in (".venv", ".local")}
        rows.append(
            sum_up({**parts, "the clone": clone - sum(parts.values()), "HOME": megabytes(stranger.home)})
        )
    return [(f"{way.title}: {what}", result, origin) for what, result, origin in rows]


def main(arguments: list[str]) -> int:
    """Goes the chosen ways and prints one table. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="just first-run", description=__doc__)
    parser.add_argument("--ways", default="local,docker", help="which of local,docker (both)")
    parser.add_argument("--keep", action="store_true", help="write the table into tests/bench/RESULTS.md")
    parsed = parser.parse_args(arguments)
    ways = parsed.ways.split(",")
    if unknown := set(ways) - set(WAYS):
        parser.error(f"there is no way called {', '.join(unknown)}: choose from {', '.join(WAYS)}")
    load = os.getloadavg()[0]
    rows: list[Row] = []
    for name in ways:
        if name == "docker" and (flaw := find_flaw()):
            rows.append((f"{WAYS[name].title}: not measured", "", flaw))
            continue
        folder = Path(tempfile.mkdtemp(prefix="waxwing-first-run-"))
        try:
            rows += measure(name, folder)
        except FailedCommandError as error:
            print(f"waxwing: {error}", file=sys.stderr)
            return 1
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    print("| what | result | from |\n|---|---|---|")
    print("\n".join(f"| {what} | {result} | {origin} |" for what, result, origin in rows))
    if parsed.keep:
        command = f"./just first-run --ways {parsed.ways} --keep"
        note = f"{NOTE}\nThe load of the machine was {load:.1f} before the start.\n"
        write_results(rows, "The last first run", command, note)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
