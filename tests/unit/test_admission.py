"""Who gets a slot of an instance, and how much of it."""

import asyncio
from contextlib import AsyncExitStack

import msgspec
import pytest

from records.admission import AddressShares, Admission
from records.problems import Busy, CredentialsTooLate
from records.settings import Settings, StoreSettings

STORE = StoreSettings(s3_endpoint="http://localhost", s3_access_key="", s3_secret_key="")
SETTINGS = Settings(database_url="", store=STORE)


def test_each_address_gets_half_of_what_the_others_leave() -> None:
    shares = AddressShares(16)

    def take_all(address: str) -> int:
        taken = 0
        while shares.take(address, 1):
            taken += 1
        return taken

    assert [take_all(address) for address in "abcdef"] == [8, 4, 2, 1, 1, 0]
    shares.give_back("a", 8)
    assert [take_all(address) for address in "abcdef"] == [4, 0, 1, 1, 1, 1]


async def test_what_uploads_hold_for_late_credentials_is_bounded_and_given_back() -> None:
    settings = msgspec.structs.replace(SETTINGS, max_late_credentials=8, max_held_bytes=8000)
    admission = Admission(settings)
    for _ in range(2):
        async with AsyncExitStack() as resources:
            first, second = [await admission.admit_late(resources, "a") for _ in range(2)]
            first.hold(1500)
            first.hold(3000)
            second.hold(1000)
            for upload, held_bytes in [(first, 3001), (second, 1001)]:
                with pytest.raises(CredentialsTooLate, match=f" {held_bytes - 1} bytes"):
                    upload.hold(held_bytes)
            other = await admission.admit_late(resources, "b")
            other.hold(2000)
            with pytest.raises(CredentialsTooLate):
                other.hold(2001)


async def test_an_address_that_sends_its_audio_first_leaves_slots_to_another() -> None:
    admission = Admission(msgspec.structs.replace(SETTINGS, max_late_credentials=8))
    async with AsyncExitStack() as resources:
        for address, slots in [("a", 4), ("b", 2), ("c", 1)]:
            for _ in range(slots):
                await admission.admit_late(resources, address)
            with pytest.raises(Busy):
                await admission.admit_late(resources, address)


async def test_users_get_slots_in_turn() -> None:
    admission = Admission(msgspec.structs.replace(SETTINGS, max_uploads=1))
    order: list[str] = []

    async def upload(name: str) -> None:
        async with AsyncExitStack() as resources:
            await admission.admit(resources, name[0], "")
            order.append(name)
            await asyncio.sleep(0)

    await asyncio.gather(*map(upload, ["a1", "a2", "a3", "b1", "b2", "c1"]))
    assert order == ["a1", "a2", "b1", "c1", "a3", "b2"]


async def test_one_address_leaves_slots_to_others_however_many_users_it_has() -> None:
    admission = Admission(msgspec.structs.replace(SETTINGS, max_uploads=32, upload_wait_seconds=0))
    async with AsyncExitStack() as resources:
        for address, slots in [("a", 24), ("b", 6), ("c", 2)]:
            for user in range(slots):
                await admission.admit(resources, (address, user), address)
            with pytest.raises(Busy, match="no slot became free"):
                await admission.admit(resources, (address, slots), address)


async def test_an_address_that_waits_with_fewer_uploads_takes_the_place_of_one_of_many() -> None:
    admission = Admission(msgspec.structs.replace(SETTINGS, max_uploads=1, max_waiting_uploads=4))
    async with AsyncExitStack() as resources:
        async with AsyncExitStack() as first:
            await admission.admit(first, "a0", "a")
            a1, a2, a3, a4 = [
                asyncio.create_task(admission.admit(resources, f"a{n}", "a")) for n in range(1, 5)
            ]
            await asyncio.sleep(0)
            with pytest.raises(Busy, match="no free slot"):
                admission.refuse_if_full("a")
            b1, b2 = [asyncio.create_task(admission.admit(resources, f"b{n}", "b")) for n in range(2)]
            for displaced in (a4, a3):
                with pytest.raises(Busy, match="no free slot"):
                    await displaced
            with pytest.raises(Busy, match="no free slot"):
                await admission.admit(resources, "b3", "b")
        await a1
        resources.pop_all()
        for task in (a2, b1, b2):
            assert not task.done()
            task.cancel()


async def test_an_upload_that_ends_while_it_waits_leaves_its_place_and_takes_no_slot() -> None:
    admission = Admission(msgspec.structs.replace(SETTINGS, max_uploads=1, max_waiting_uploads=1))
    async with AsyncExitStack() as first:
        await admission.admit(first, "a", "")
        for _ in range(3):
            async with AsyncExitStack() as second:
                waiting = asyncio.create_task(admission.admit(second, "b", ""))
                await asyncio.sleep(0)
                with pytest.raises(Busy, match="no free slot"):
                    admission.refuse_if_full("")
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
            admission.refuse_if_full("")
    async with AsyncExitStack() as last:
        await admission.admit(last, "c", "")


async def test_a_slot_that_comes_in_the_moment_of_a_cancellation_is_not_lost() -> None:
    admission = Admission(msgspec.structs.replace(SETTINGS, max_uploads=1, max_waiting_uploads=1))
    async with AsyncExitStack() as second:
        async with AsyncExitStack() as first:
            await admission.admit(first, "a", "")
            waiting = asyncio.create_task(admission.admit(second, "b", ""))
            await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    async with AsyncExitStack() as last:
        await admission.admit(last, "c", "")
