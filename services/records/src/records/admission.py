"""Admits uploads: a bounded number at once, so that their memory is bounded."""

import asyncio
from contextlib import AsyncExitStack

from records.problems import Busy


class Admission:
    """The slots of one instance. An upload holds its slot until it ends."""

    def __init__(self, max_uploads: int, max_late_credentials: int) -> None:
        """Allows `max_uploads` at once. `max_late_credentials` of them may send their audio first."""
        self._slots = asyncio.Semaphore(max_uploads)
        self._late_slots = asyncio.Semaphore(max_late_credentials)

    async def admit(self, resources: AsyncExitStack) -> None:
        """Takes a slot, which `resources` gives back when it closes. Raises Busy if no slot is free."""
        await _take_slot(resources, self._slots, "this instance has no free slot for another upload")

    async def admit_late(self, resources: AsyncExitStack) -> None:
        """Takes a slot for an upload whose credentials follow its audio. Raises Busy if no slot is free."""
        await _take_slot(resources, self._late_slots, "too many uploads sent their audio before credentials")
        await self.admit(resources)


async def _take_slot(resources: AsyncExitStack, slots: asyncio.Semaphore, reason: str) -> None:
    if slots.locked():
        raise Busy(f"Too many uploads at once: {reason}")
    await resources.enter_async_context(slots)
