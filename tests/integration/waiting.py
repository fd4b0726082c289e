"""Waits for conditions outside the test process, such as the end of another process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import psutil

T = TypeVar("T")

# Only ends a test that waits for something that never comes; it promises no speed.
MAX_WAIT_SECONDS = 60


def wait_until(condition: Callable[[], T], max_seconds: float = MAX_WAIT_SECONDS) -> T:
    """Calls `condition` until it returns something true, and returns that."""
    deadline = time.monotonic() + max_seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, f"the condition is still false after {max_seconds} seconds"
        time.sleep(0.02)
    return result


async def wait_until_async(condition: Callable[[], Awaitable[T]]) -> T:
    """Awaits `condition` until it returns something true, and returns that."""
    async with asyncio.timeout(MAX_WAIT_SECONDS):
        while not (result := await condition()):  # noqa: ASYNC110 (no event tells what other processes do)
            await asyncio.sleep(0.02)
        return result


def has_ended(process: psutil.Process | int) -> bool:
    """Returns whether a process, or the process with this id, has ended. A zombie has."""
    try:
        found = psutil.Process(process) if isinstance(process, int) else process
        return bool(found.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
