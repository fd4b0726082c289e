"""Without a collector nothing of OpenTelemetry is loaded, and without its packages the service says so."""

import subprocess
import sys

import pytest

# Runs a service, which says what it has imported instead of listening.
SAY_MODULES = """
import runpy, sys
from common.server import Server
own = ("opentelemetry", "common.tracing")
Server.run = lambda _: print([name for name in sys.modules if name.startswith(own)])
service, sys.argv[1:] = sys.argv[1], []
runpy.run_module(service, run_name="__main__")
"""
SETTINGS = {
    "PATH": "",
    "DATABASE_URL": "postgresql://somebody@127.0.0.1:1/waxwing",
    "S3_ENDPOINT": "http://127.0.0.1:1",
    "S3_ACCESS_KEY": "key",
    "S3_SECRET_KEY": "secret",
}


def run(service: str, endpoint: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SAY_MODULES, service],
        env={**SETTINGS, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("service", ["users", "records"])
def test_without_a_collector_nothing_of_opentelemetry_is_imported(service: str) -> None:
    assert run(service, "").stdout.splitlines()[-1] == "[]"


def test_missing_packages_are_named_with_the_way_to_install_them() -> None:
    done = run("users", "http://127.0.0.1:1")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "waxwing: OTEL_EXPORTER_OTLP_ENDPOINT is set, but opentelemetry is not installed: install"
        " deploy/requirements-otel.txt (in Docker: build with TRACING=yes), or unset the variable\n"
    )
