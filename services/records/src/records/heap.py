"""Gives freed memory back to the system when no upload is under way.

glibc keeps freed memory in its heap; `malloc_trim` returns it. Other C libraries return memory by themselves.
"""

import asyncio
import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

# Returning memory and asking for it again takes as long as encoding some seconds of sound. So the heap is
# trimmed only after so long without uploads.
QUIET_SECONDS = 1


class HeapTrimmer:
    """Counts the uploads under way and trims the heap some time after the last one."""

    def __init__(self) -> None:
        self._uploads = 0
        self._timer: asyncio.TimerHandle | None = None

    @contextmanager
    def upload_under_way(self) -> Iterator[None]:
        """Counts an upload as under way while the `with` statement runs."""
        self._uploads += 1
        self.cancel()
        try:
            yield
        finally:
            self._uploads -= 1
            if not self._uploads:
                self._timer = asyncio.get_running_loop().call_later(QUIET_SECONDS, trim_heap)

    def cancel(self) -> None:
        """Cancels a trim that has been scheduled."""
        if self._timer:
            self._timer.cancel()


def trim_heap() -> None:
    """Returns the free memory inside glibc's heap to the system."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
