"""Says in one sentence why `docker compose up` would fail on this machine.

Docker itself says "unknown flag: --build" if Compose is absent, and names no version if it is too old.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

# Of `start_interval` in docker-compose.yml. Both came out in January 2024.
_OLDEST_ENGINE = (25, 0)
_OLDEST_COMPOSE = (2, 24)
_NEEDED = "Docker Engine 25 and Docker Compose 2.24 or newer"


def find_flaw() -> str | None:
    """Returns what is wrong with Docker here, and what to do; None if nothing is."""
    docker = shutil.which("docker")
    if docker is None:
        return f"no `docker` is in PATH: install {_NEEDED}, or start without Docker: `./just up`"
    compose = _ask(docker, "compose", "version", "--short")
    if compose.returncode:
        return f"this Docker has no `docker compose`: install {_NEEDED}, or start without Docker: `./just up`"
    engine = _ask(docker, "version", "--format", "{{.Server.Version}}")
    if engine.returncode:
        reason = (engine.stderr.strip().splitlines() or ["no reason given"])[-1]
        return f"Docker Engine does not respond, so start it, or let this user use it: {reason}"
    for name, told, oldest in (
        ("Docker Engine", engine.stdout, _OLDEST_ENGINE),
        ("Docker Compose", compose.stdout, _OLDEST_COMPOSE),
    ):
        version = re.match(r"v?(\d+)\.(\d+)", told)
        if version and (int(version[1]), int(version[2])) < oldest:
            return (
                f"{name} {told.strip()} is too old: install {_NEEDED}, or start without Docker: `./just up`"
            )
    return None


def _ask(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


if __name__ == "__main__":
    if flaw := find_flaw():
        sys.exit(f"waxwing: {flaw}")
