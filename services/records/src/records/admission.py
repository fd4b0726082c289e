"""Admits uploads: a bounded number at once, so that their memory is bounded."""

import asyncio
from collections import Counter
from collections.abc import Hashable
from contextlib import AsyncExitStack, suppress
from typing import NamedTuple
from uuid import UUID

from records.problems import Busy, CredentialsTooLate, TooManyUploads
from records.settings import Settings
from records.turns import Turns

# An address has at most three quarters of the slots: it can use most of an instance, but never all of it.
SLOTS_RATIO = 3


class WaitingUpload(NamedTuple):
    """An upload that waits for a slot."""

    address: str
    slot: asyncio.Future[None]
    """Has its result when the upload has a slot, or Busy if an upload of another address took its place."""


class Admission:
    """The slots of one instance, and the uploads that wait for them. An upload has its slot until it ends.

    An address is what `read_client_network` returns.
    """

    def __init__(self, settings: Settings) -> None:
        self._slots = AddressShares(settings.max_uploads, SLOTS_RATIO)
        self._waiting = Turns[WaitingUpload]()
        self._max_waiting_uploads = settings.max_waiting_uploads
        self._wait_seconds = settings.upload_wait_seconds
        self._late_slots = AddressShares(settings.max_late_credentials)
        self._late_bytes = AddressShares(settings.max_held_bytes)
        self._max_uploads_per_user = settings.max_uploads_per_user
        self._uploads_of: Counter[UUID] = Counter()

    @property
    def taken_slots(self) -> int:
        """How many uploads have a slot."""
        return self._slots.taken

    @property
    def waiting(self) -> int:
        """How many uploads wait for a slot."""
        return len(self._waiting)

    @property
    def held_bytes(self) -> int:
        """How much MP3 waits for credentials."""
        return self._late_bytes.taken

    def refuse_if_full(self, address: str) -> None:
        """Raises Busy if an upload of the address could neither have a slot now nor wait for one."""
        if self._is_full(address):
            self._find_displaceable(address)

    async def admit(self, resources: AsyncExitStack, user: Hashable, address: str) -> None:
        """Takes a slot, which `resources` gives back when it closes. Waits for one, in turn with other users.

        If too many uploads wait already, it takes the place of one of the address that has the most. Raises
        Busy if its own address has as many, if its place is taken, or if no slot becomes free in time.
        """
        if self._is_full(address):
            displaced = self._find_displaceable(address)
            self._waiting.remove(*displaced)
            displaced[1].slot.set_exception(_busy())
        upload = WaitingUpload(address, asyncio.get_running_loop().create_future())
        self._waiting.add(user, upload)
        self._give_slots()
        try:
            async with asyncio.timeout(self._wait_seconds):
                await upload.slot
        except TimeoutError:
            raise Busy(
                f"Too many uploads at once: no slot became free within {self._wait_seconds} seconds"
            ) from None
        finally:
            if upload.slot.cancelled():
                self._waiting.remove(user, upload)
            elif not upload.slot.exception():
                resources.callback(self._release_slot, user, address)

    async def admit_late(self, resources: AsyncExitStack, address: str) -> "HeldMp3":
        """Takes a slot for an upload whose credentials follow its audio. Raises Busy if no slot is free."""
        if not self._late_slots.take(address, 1):
            raise Busy("Too many uploads at once: too many sent their audio before credentials")
        resources.callback(self._late_slots.give_back, address, 1)
        await self.admit(resources, address, address)
        held_mp3 = HeldMp3(self._late_bytes, address)
        resources.callback(held_mp3.close)
        return held_mp3

    def admit_user(self, resources: AsyncExitStack, user_id: UUID) -> None:
        """Counts an upload as the user's until `resources` closes. Raises TooManyUploads for one too many."""
        if self._uploads_of[user_id] >= self._max_uploads_per_user:
            raise TooManyUploads(self._max_uploads_per_user)
        self._uploads_of[user_id] += 1
        resources.callback(self._release_user, user_id)

    def _is_full(self, address: str) -> bool:
        return not self._slots.has(address, 1) and len(self._waiting) >= self._max_waiting_uploads

    def _give_slots(self) -> None:
        with suppress(IndexError):
            while True:
                _, upload = self._waiting.take(lambda upload: self._slots.has(upload.address, 1))
                self._slots.take(upload.address, 1)
                upload.slot.set_result(None)

    def _release_slot(self, user: Hashable, address: str) -> None:
        self._waiting.give_back(user)
        self._slots.give_back(address, 1)
        self._give_slots()

    def _find_displaceable(self, address: str) -> tuple[Hashable, WaitingUpload]:
        """Returns an upload of the address that has the most in the queue, and its user.

        Raises Busy if that address would then have no more than the given one.
        """
        counts = Counter(upload.address for _, upload in self._waiting)
        for crowding, count in counts.most_common(1):
            if count > counts[address] + 1:
                return [waiting for waiting in self._waiting if waiting[1].address == crowding][-1]
        raise _busy()

    def _release_user(self, user_id: UUID) -> None:
        self._uploads_of[user_id] -= 1
        if not self._uploads_of[user_id]:
            del self._uploads_of[user_id]


class AddressShares:
    """An amount of which each address gets at most `ratio` times what it leaves to the others.

    With the ratio 1, the first address gets a half of it, the second a quarter, and so on. However much a few
    addresses take, something is left for another one.
    """

    def __init__(self, amount: int, ratio: int = 1) -> None:
        self._free = amount
        self._ratio = ratio
        self._taken: Counter[str] = Counter()

    @property
    def taken(self) -> int:
        """How much all addresses have taken."""
        return self._taken.total()

    def has(self, address: str, amount: int) -> bool:
        """Returns whether the address may have so much."""
        return amount <= self._free and self._taken[address] + amount <= self._ratio * self._free

    def take(self, address: str, amount: int) -> bool:
        """Takes an amount if the address may have it. Returns whether the address got it."""
        if not self.has(address, amount):
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


def _busy() -> Busy:
    return Busy(
        "Too many uploads at once: this instance has no free slot for another upload from your address"
    )
