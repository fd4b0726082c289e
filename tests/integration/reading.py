"""What the integration tests read of a running stack: its log lines; and waiting for a condition."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from deploy.local.stack import Stack

T = TypeVar("T")

BOUND_SECONDS = 60


def until(condition: Callable[[], T]) -> T:
    """Asks until the answer is true, and returns it; fails where it does not become so."""
    deadline = time.monotonic() + BOUND_SECONDS
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"not so within {BOUND_SECONDS} seconds"
        time.sleep(0.02)
    return answer


async def until_awaited(condition: Callable[[], Awaitable[T]]) -> T:
    """The same for a condition that is awaited."""
    async with asyncio.timeout(BOUND_SECONDS):
        while not (answer := await condition()):  # noqa: ASYNC110 (it happens in another process)
            await asyncio.sleep(0.02)
        return answer


class Log:
    """The lines that a part writes from now on."""

    def __init__(self, stack: Stack, part: str) -> None:
        self._path = stack.supervisor.log(part)
        # A line that is being written right now counts as one of those to come.
        self._start = self._path.read_bytes().rfind(b"\n") + 1

    def text(self) -> str:
        with self._path.open("rb") as file:
            file.seek(self._start)
            return file.read().decode()

    def lines(self) -> list[dict[str, Any]]:
        """The complete lines, each of which must be JSON."""
        whole = self.text().rpartition("\n")[0]
        return [self._read(line) for line in whole.split("\n") if line]

    def _read(self, line: str) -> dict[str, Any]:
        try:
            return dict(json.loads(line))
        except ValueError:
            raise AssertionError(f"{self._path.name} has a line that is no JSON: {line!r}") from None

    def requests(self, path: str) -> list[dict[str, Any]]:
        """The lines that the service writes for requests of this path."""
        return [line for line in self.lines() if line.get("event") == "request" and line["path"] == path]
