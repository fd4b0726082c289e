"""Admits uploads: a bounded number at once, so that their memory is bounded."""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from uuid import UUID

from records.problems import Busy, TooManyUploads


class Admission:
    """The slots of one instance. An upload holds its slot until it ends."""

    def __init__(self, max_uploads: int, max_uploads_per_user: int, max_late_credentials: int) -> None:
        """Allows `max_uploads` at once. `max_late_credentials` of them may send their audio first."""
        self._slots = asyncio.Semaphore(max_uploads)
        self._late_slots = asyncio.Semaphore(max_late_credentials)
        self._max_uploads_per_user = max_uploads_per_user
        self._uploads_of: Counter[UUID] = Counter()

    async def admit(self, resources: AsyncExitStack) -> None:
        """Takes a slot, which `resources` gives back when it closes. Raises Busy if no slot is free."""
        await _take_slot(resources, self._slots, "this instance has no free slot for another upload")

    async def admit_late(self, resources: AsyncExitStack) -> None:
        """Takes a slot for an upload whose credentials follow its audio. Raises Busy if no slot is free."""
        await _take_slot(resources, self._late_slots, "too many uploads sent their audio before credentials")
        await self.admit(resources)

    def admit_user(self, resources: AsyncExitStack, user_id: UUID) -> None:
        """Counts an upload as the user's until `resources` closes. Raises TooManyUploads for one too many."""
        if self._uploads_of[user_id] >= self._max_uploads_per_user:
            raise TooManyUploads(self._max_uploads_per_user)
        self._uploads_of[user_id] += 1
        resources.callback(self._release_user, user_id)

    def _release_user(self, user_id: UUID) -> None:
        self._uploads_of[user_id] -= 1
        if not self._uploads_of[user_id]:
            del self._uploads_of[user_id]


async def _take_slot(resources: AsyncExitStack, slots: asyncio.Semaphore, reason: str) -> None:
    if slots.locked():
        raise Busy(f"Too many uploads at once: {reason}")
    await resources.enter_async_context(slots)
