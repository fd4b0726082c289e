"""Two instances of each service are restarted in turn under load, and no client notices but uploads."""

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from signal import SIGTERM
from threading import Event
from typing import Any
from uuid import uuid4

import httpx
import pytest

from deploy.client import Client
from deploy.local.ports import LOOPBACK, free_ports
from deploy.local.stack import Stack
from tests.integration.gateway_configuration import changed_gateway
from tests.integration.recordings import upload_recording
from tests.integration.waiting import MAX_WAIT_SECONDS, wait_until
from tests.stacks import temporary_stack
from tests.upload_requests import TINY_WAV, WAV_TYPE, bearer

SERVICES = ("users", "records")
# Between two restarts each client makes so many requests.
REQUESTS = 3


class Instance:
    """A further instance of a service of a stack."""

    def __init__(self, stack: Stack, service: str) -> None:
        (self.port,) = free_ports(1)
        self._command = [sys.executable, "-m", service]
        self._environment = {**stack.environment(service), "PORT": str(self.port)}

    def start(self) -> None:
        """Starts it, and waits until it is ready."""
        self._process = subprocess.Popen(self._command, env=self._environment, stderr=subprocess.DEVNULL)
        wait_until(lambda: is_ready(self.port))

    def stop(self) -> None:
        """Stops it as a deployment does, and waits until it has ended."""
        self._process.terminate()
        # uvicorn raises the signal again at its end.
        assert self._process.wait(MAX_WAIT_SECONDS) == -SIGTERM


def is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://{LOOPBACK}:{port}/readyz", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    # A fast machine signs up more users in these tests than one address may in a minute by default.
    with temporary_stack({"SIGN_UPS_PER_MINUTE": "1000000"}) as stack:
        yield stack


@pytest.fixture
def second_instances(stack: Stack) -> Iterator[dict[str, Instance]]:
    """An instance of each service that shares the work with the stack's own."""
    instances = {service: Instance(stack, service) for service in SERVICES}

    def add_instances(conf: str) -> str:
        for service, instance in instances.items():
            own = rf"server {LOOPBACK}:{getattr(stack.ports, service)}(.*;)"
            conf, count = re.subn(own, rf"\g<0> server {LOOPBACK}:{instance.port}\1", conf)
            assert count == 2
        return conf

    with ExitStack() as closer:
        for instance in instances.values():
            instance.start()
            closer.callback(instance.stop)
        closer.enter_context(changed_gateway(stack, add_instances))
        yield instances


def test_no_request_fails_while_instances_are_restarted_in_turn(
    stack: Stack, owner: dict[str, Any], second_instances: dict[str, Instance]
) -> None:
    record = upload_recording(stack, owner)
    seen = Counter[tuple[str, int]]()
    is_over = Event()
    requests: dict[str, tuple[str, str, dict[str, Any]]] = {
        "link": ("GET", record["url"], {}),
        "waveform": ("GET", f"/records/{record['id']}/waveform?user={owner['id']}", {}),
        "list": ("GET", "/records", {"headers": bearer(owner)}),
        "me": ("GET", "/users/me", {"headers": bearer(owner)}),
        "sign-up": ("POST", "/users", {"json": {"name": "Ann"}}),
    }

    def repeat(name: str) -> None:
        method, path, options = requests[name]
        with Client(stack.base_url) as client:
            while not is_over.is_set():
                seen[name, client.http.request(method, path, **options).status_code] += 1

    def upload() -> None:
        with Client(stack.base_url) as client:
            while not is_over.is_set():
                headers = {**bearer(owner), **WAV_TYPE, "Idempotency-Key": str(uuid4())}
                status = 0
                while status != 201:
                    status = client.http.post("/records", content=TINY_WAV, headers=headers).status_code
                    seen["upload", status] += 1

    def counts() -> dict[str, int]:
        return {
            name: sum(seen[key] for key in list(seen) if key[0] == name) for name in [*requests, "upload"]
        }

    def wait_for_requests() -> None:
        before = counts()
        wait_until(lambda: all(count >= before[name] + REQUESTS for name, count in counts().items()))

    with ThreadPoolExecutor() as threads:
        running = [threads.submit(repeat, name) for name in requests] + [threads.submit(upload)]
        try:
            wait_for_requests()
            for service, instance in second_instances.items():
                stack.stop_process(service)
                wait_for_requests()
                stack.start_process(service)
                wait_for_requests()
                instance.stop()
                wait_for_requests()
                instance.start()
                wait_for_requests()
        finally:
            is_over.set()
        for each in running:
            each.result()
    assert {key for key in seen if key != ("upload", 503)} == {
        *((name, 200) for name in requests if name != "sign-up"),
        *(("sign-up", 201), ("upload", 201)),
    }
