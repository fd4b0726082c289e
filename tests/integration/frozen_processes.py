"""Stops processes with SIGSTOP, so that they hang instead of being away."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psutil

from deploy.local.stack import Stack


@contextmanager
def frozen(processes: Sequence[psutil.Process]) -> Iterator[None]:
    """Stops the processes until the block ends."""
    try:
        for process in processes:
            process.suspend()
        yield
    finally:
        for process in processes:
            process.resume()


@contextmanager
def frozen_process(stack: Stack, name: str) -> Iterator[None]:
    """Stops one process of a stack until the block ends; not the processes that it has started."""
    with frozen([psutil.Process(stack.pid(name))]):
        yield
