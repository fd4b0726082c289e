"""Admits uploads: a bounded number at once, so that their memory is bounded."""

import asyncio
from collections import Counter
from collections.abc import Hashable
from contextlib import AsyncExitStack
from uuid import UUID

from records.problems import Busy, CredentialsTooLate, TooManyUploads
from records.settings import Settings
from records.turns import Turns


class Admission:
    """The slots of one instance, and the uploads that wait for them. An upload has its slot until it ends."""

    def __init__(self, settings: Settings) -> None:
        self._free_slots = settings.max_uploads
        self._turns = Turns[asyncio.Future[None]]()
        self._max_waiting_uploads = settings.max_waiting_uploads
        self._wait_seconds = settings.upload_wait_seconds
        self._late_slots = AddressShares(settings.max_late_credentials)
        self._late_bytes = AddressShares(settings.max_held_bytes)
        self._max_uploads_per_user = settings.max_uploads_per_user
        self._uploads_of: Counter[UUID] = Counter()

    def refuse_if_full(self) -> None:
        """Raises Busy if there is neither a free slot nor a free place to wait for one."""
        if not self._free_slots and len(self._turns) >= self._max_waiting_uploads:
            raise Busy("Too many uploads at once: this instance has no free slot for another upload")

    async def admit(self, resources: AsyncExitStack, user: Hashable) -> None:
        """Takes a slot, which `resources` gives back when it closes. Waits for one, in turn with other users.

        Raises Busy at once if too many uploads wait already, or if no slot becomes free in time.
        """
        self.refuse_if_full()
        turn = asyncio.get_running_loop().create_future()
        self._turns.add(user, turn)
        self._give_slots()
        try:
            async with asyncio.timeout(self._wait_seconds):
                await turn
        except TimeoutError:
            raise Busy(
                f"Too many uploads at once: no slot became free within {self._wait_seconds} seconds"
            ) from None
        finally:
            if turn.cancelled():
                self._turns.remove(user, turn)
            else:
                resources.callback(self._release_slot, user)

    async def admit_late(self, resources: AsyncExitStack, address: str) -> "HeldMp3":
        """Takes a slot for an upload whose credentials follow its audio. Raises Busy if no slot is free."""
        if not self._late_slots.take(address, 1):
            raise Busy("Too many uploads at once: too many sent their audio before credentials")
        resources.callback(self._late_slots.give_back, address, 1)
        await self.admit(resources, address)
        held_mp3 = HeldMp3(self._late_bytes, address)
        resources.callback(held_mp3.close)
        return held_mp3

    def admit_user(self, resources: AsyncExitStack, user_id: UUID) -> None:
        """Counts an upload as the user's until `resources` closes. Raises TooManyUploads for one too many."""
        if self._uploads_of[user_id] >= self._max_uploads_per_user:
            raise TooManyUploads(self._max_uploads_per_user)
        self._uploads_of[user_id] += 1
        resources.callback(self._release_user, user_id)

    def _give_slots(self) -> None:
        while self._free_slots and self._turns:
            _, turn = self._turns.take()
            self._free_slots -= 1
            turn.set_result(None)

    def _release_slot(self, user: Hashable) -> None:
        self._turns.give_back(user)
        self._free_slots += 1
        self._give_slots()

    def _release_user(self, user_id: UUID) -> None:
        self._uploads_of[user_id] -= 1
        if not self._uploads_of[user_id]:
            del self._uploads_of[user_id]


class AddressShares:
    """An amount of which each address gets at most half of what the others leave.

    So the first address gets a half of it, the second a quarter, and so on. However much a few addresses
    take, something is left for another one.
    """

    def __init__(self, amount: int) -> None:
        self._free = amount
        self._taken: Counter[str] = Counter()

    def take(self, address: str, amount: int) -> bool:
        """Takes an amount if the address may have it. Returns whether the address got it."""
        if self._taken[address] + amount > self._free:
            return False
        self._taken[address] += amount
        self._free -= amount
        return True

    def give_back(self, address: str, amount: int) -> None:
        """Gives back what was taken."""
        self._free += amount
        self._taken[address] -= amount
        if not self._taken[address]:
            del self._taken[address]


class HeldMp3:
    """The MP3 that one upload holds in memory until its credentials come."""

    def __init__(self, shares: AddressShares, address: str) -> None:
        self._shares = shares
        self._address = address
        self._held_bytes = 0

    def hold(self, held_bytes: int) -> None:
        """Notes how much MP3 the upload holds now. Raises CredentialsTooLate if its address has too much."""
        if not self._shares.take(self._address, held_bytes - self._held_bytes):
            raise CredentialsTooLate(
                f"{self._held_bytes} bytes of MP3 wait for the credentials, and there is no memory for more."
                " Put the fields user_id and token in front of the audio, or send them in a header."
            )
        self._held_bytes = held_bytes

    def close(self) -> None:
        """Gives the memory back."""
        self._shares.give_back(self._address, self._held_bytes)
