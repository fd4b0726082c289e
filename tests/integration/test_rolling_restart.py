"""Two instances of each service are restarted in turn under load, and no client notices but uploads."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from threading import Event
from typing import Any
from uuid import uuid4

import pytest

from deploy.client import Client
from deploy.local.ports import LOOPBACK
from deploy.local.stack import Stack
from tests.integration.gateway_configuration import changed_gateway
from tests.integration.instances import Instance
from tests.integration.recordings import upload_recording
from tests.integration.waiting import wait_until
from tests.upload_requests import TINY_WAV, WAV_TYPE, bearer

SERVICES = ("users", "records")
# Between two restarts each client makes so many requests.
REQUESTS = 3
# While an instance starts, each client pauses for so long between two requests.
PAUSE_SECONDS = 0.1


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


class Load:
    """Clients that repeat their requests at full speed, and count the statuses."""

    def __init__(self, stack: Stack, owner: dict[str, Any], record: dict[str, Any]) -> None:
        self.seen = Counter[tuple[str, int]]()
        self._base_url = stack.base_url
        self._owner = owner
        self._is_starting = Event()
        self._is_over = Event()
        self._requests: dict[str, tuple[str, str, dict[str, Any]]] = {
            "link": ("GET", record["url"], {}),
            "waveform": ("GET", f"/records/{record['id']}/waveform?user={owner['id']}", {}),
            "list": ("GET", "/records", {"headers": bearer(owner)}),
            "me": ("GET", "/users/me", {"headers": bearer(owner)}),
            "sign-up": ("POST", "/users", {"json": {"name": "Ann"}}),
        }

    @contextmanager
    def running(self) -> Iterator[None]:
        """Runs one client for each request, and one that uploads."""
        with ThreadPoolExecutor() as threads:
            clients = [threads.submit(self._repeat, name) for name in self._requests]
            clients.append(threads.submit(self._upload))
            try:
                self.wait_for_requests()
                yield
            finally:
                self._is_over.set()
            for client in clients:
                client.result()

    def wait_for_requests(self) -> None:
        """Waits until each client has made some more requests."""
        before = self._counts()
        wait_until(lambda: all(count >= before[name] + REQUESTS for name, count in self._counts().items()))

    def start(self, start_instance: Callable[[], None]) -> None:
        """Starts an instance, which needs the processor. So the clients pause between requests meanwhile."""
        self._is_starting.set()
        start_instance()
        self._is_starting.clear()
        self.wait_for_requests()

    def _counts(self) -> dict[str, int]:
        return {
            name: sum(self.seen[key] for key in list(self.seen) if key[0] == name)
            for name in [*self._requests, "upload"]
        }

    def _goes_on(self) -> bool:
        return not self._is_over.wait(PAUSE_SECONDS if self._is_starting.is_set() else 0)

    def _repeat(self, name: str) -> None:
        method, path, options = self._requests[name]
        with Client(self._base_url) as client:
            while self._goes_on():
                self.seen[name, client.http.request(method, path, **options).status_code] += 1

    def _upload(self) -> None:
        with Client(self._base_url) as client:
            while self._goes_on():
                headers = {**bearer(self._owner), **WAV_TYPE, "Idempotency-Key": str(uuid4())}
                status = 0
                while status != 201:
                    status = client.http.post("/records", content=TINY_WAV, headers=headers).status_code
                    self.seen["upload", status] += 1


def test_no_request_fails_while_instances_are_restarted_in_turn(
    stack: Stack, owner: dict[str, Any], second_instances: dict[str, Instance]
) -> None:
    load = Load(stack, owner, upload_recording(stack, owner))
    with load.running():
        for service, instance in second_instances.items():
            stack.stop_process(service)
            load.wait_for_requests()
            load.start(partial(stack.start_process, service))
            instance.stop()
            load.wait_for_requests()
            load.start(instance.start)
    assert {key for key in load.seen if key != ("upload", 503)} == {
        *((name, 200) for name in ("link", "waveform", "list", "me")),
        *(("sign-up", 201), ("upload", 201)),
    }
