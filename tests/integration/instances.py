"""Further instances of the services of a stack, which run beside the stack's own."""

import subprocess
import sys
from collections.abc import Mapping
from signal import SIGTERM
from typing import IO

import httpx

from deploy.client import load_certificates
from deploy.local.ports import LOOPBACK, free_ports
from deploy.local.stack import Stack
from tests.integration.waiting import MAX_WAIT_SECONDS, wait_until


class Instance:
    """A further instance of a service of a stack."""

    def __init__(self, stack: Stack, service: str, settings: Mapping[str, str] | None = None) -> None:
        """`settings` replace single settings of the stack."""
        (self.port,) = free_ports(1)
        self._command = [sys.executable, "-m", service]
        self._environment = {**stack.environment(service), **(settings or {}), "PORT": str(self.port)}

    def start(self, log: IO[bytes] | None = None) -> None:
        """Starts it, and waits until it is ready. What it logs goes to `log`, or to the test's output."""
        self._process = subprocess.Popen(
            self._command, env=self._environment, stdout=log, stderr=subprocess.DEVNULL
        )
        wait_until(lambda: is_ready(self.port))

    def stop(self) -> None:
        """Stops it as a deployment does, and waits until it has ended."""
        self._process.terminate()
        # uvicorn raises the signal again at its end.
        assert self._process.wait(MAX_WAIT_SECONDS) == -SIGTERM


def is_ready(port: int, path: str = "/readyz") -> bool:
    """Whether the service on this port is ready."""
    url = f"http://{LOOPBACK}:{port}{path}"
    try:
        # Without `verify` every call loads the certificates, which slows down the service that starts.
        return httpx.get(url, trust_env=False, verify=load_certificates()).status_code == 200
    except httpx.TransportError:
        return False
