"""Clients who use a stack all the time, so that a test sees each request that fails meanwhile."""

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import Any
from uuid import uuid4

from deploy.client import Client
from deploy.local.stack import Stack
from tests.integration.recordings import upload_recording
from tests.integration.waiting import wait_until
from tests.upload_requests import TINY_WAV, WAV_TYPE, bearer

# Between two events each client makes so many requests.
REQUESTS = 3
# While a service starts, each client pauses between its requests, and so leaves the processor to the service.
PAUSE_SECONDS = 0.05


class SteadyLoad:
    """Clients who repeat each request of a user until the end, and count the statuses."""

    def __init__(self, stack: Stack, user: dict[str, Any]) -> None:
        self.seen = Counter[tuple[str, int]]()
        self._stack = stack
        self._user = user
        self._is_over = Event()
        self._pause_seconds = 0.0
        record = upload_recording(stack, user)
        self.record_id = record["id"]
        self._requests: dict[str, tuple[str, str, dict[str, Any]]] = {
            "link": ("GET", record["url"], {}),
            "waveform": ("GET", f"/records/{record['id']}/waveform?user={user['id']}", {}),
            "list": ("GET", "/records", {"headers": bearer(user)}),
            "me": ("GET", "/users/me", {"headers": bearer(user)}),
            "sign-up": ("POST", "/users", {"json": {"name": "Ann"}}),
        }

    @contextmanager
    def running(self) -> Iterator[None]:
        """Lets the clients work."""
        with ThreadPoolExecutor() as threads:
            clients = [threads.submit(self._repeat, name) for name in self._requests]
            clients.append(threads.submit(self._upload_and_delete))
            try:
                self.wait()
                yield
            finally:
                self._is_over.set()
            for each in clients:
                each.result()

    def wait(self) -> None:
        """Returns when each client has made some more requests."""
        before = self._counts()
        wait_until(lambda: all(count >= before[name] + REQUESTS for name, count in self._counts().items()))

    def wait_while_starting(self, *starts: Callable[[], None]) -> None:
        """Starts services, and returns when each client has made some more requests afterwards."""
        self._pause_seconds = PAUSE_SECONDS
        for start in starts:
            start()
        self._pause_seconds = 0.0
        self.wait()

    def check(self) -> None:
        """Only uploads may have failed, with 503."""
        assert {key for key in self.seen if key != ("upload", 503)} == {
            *((name, 200) for name in self._requests if name != "sign-up"),
            *(("sign-up", 201), ("upload", 201), ("deletion", 204)),
        }

    def _counts(self) -> dict[str, int]:
        names = [*self._requests, "upload", "deletion"]
        return {name: sum(self.seen[key] for key in list(self.seen) if key[0] == name) for name in names}

    def _repeat(self, name: str) -> None:
        method, path, options = self._requests[name]
        with Client(self._stack.base_url) as client:
            while not self._is_over.wait(self._pause_seconds):
                self.seen[name, client.http.request(method, path, **options).status_code] += 1

    def _upload_and_delete(self) -> None:
        with Client(self._stack.base_url) as client:
            while not self._is_over.wait(self._pause_seconds):
                headers = {**bearer(self._user), **WAV_TYPE, "Idempotency-Key": str(uuid4())}
                status = 0
                while status != 201 and not self._is_over.is_set():
                    response = client.http.post("/records", content=TINY_WAV, headers=headers)
                    status = response.status_code
                    self.seen["upload", status] += 1
                if status == 201:
                    path = f"/records/{response.json()['id']}"
                    deleted = client.http.delete(path, headers=bearer(self._user))
                    self.seen["deletion", deleted.status_code] += 1
