"""Installs the packages that OTEL_EXPORTER_OTLP_ENDPOINT needs, apart from .venv.

Litestar imports OpenTelemetry wherever it is installed, so in .venv it would cost every service memory.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_REQUIREMENTS = _ROOT / "deploy" / "requirements-otel.txt"


def find_folder() -> Path:
    """Returns the folder for PYTHONPATH that has the packages after `install`."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    digest = hashlib.sha256(_REQUIREMENTS.read_bytes()).hexdigest()
    return _ROOT / ".otel" / f"{version}-{digest[:16]}"


def install(say: Callable[[str], None]) -> None:
    """Installs the packages unless they are there. Raises RuntimeError if pip fails."""
    folder = find_folder()
    if folder.exists():
        return
    say("installing OpenTelemetry into .otel …")
    unfinished = folder.with_suffix(f".{os.getpid()}")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
    done = subprocess.run(
        [*pip, "--target", str(unfinished), "-r", str(_REQUIREMENTS)],
        env={**os.environ, "PIP_USER": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"OpenTelemetry could not be installed:\n{done.stderr.strip()}")
    if folder.exists():  # Another process was faster.
        shutil.rmtree(unfinished)
    else:
        unfinished.rename(folder)


if __name__ == "__main__":
    install(lambda message: print(message, file=sys.stderr))
    print(find_folder())
