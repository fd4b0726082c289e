"""Threads that the users share fairly."""

import asyncio
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Any, TypeVar

from records.turns import Turns

T = TypeVar("T")


class FairThreads:
    """Does work in threads, and lets the users take turns."""

    def __init__(self, count: int, name: str) -> None:
        self._executor = ThreadPoolExecutor(count, name)
        self._turns = Turns[tuple[Callable[[], Any], Future[Any]]]()
        self._lock = Lock()

    @property
    def busy(self) -> int:
        """How many threads work."""
        with self._lock:
            return self._turns.taken

    def run(self, user: Hashable, work: Callable[[], T]) -> asyncio.Future[T]:
        """Lets a thread do some work, when it is the user's turn. The future has its result."""
        ended = Future[T]()
        with self._lock:
            self._turns.add(user, (work, ended))
        self._executor.submit(self._run_next)
        return asyncio.wrap_future(ended)

    def close(self) -> None:
        """Ends the threads after their current work."""
        self._executor.shutdown()

    def _run_next(self) -> None:
        with self._lock:
            user, (work, ended) = self._turns.take()
        try:
            ended.set_result(work())
        except BaseException as error:
            ended.set_exception(error)
        finally:
            with self._lock:
                self._turns.give_back(user)
            # The exception holds this frame, which must not hold the exception's future.
            del work, ended
