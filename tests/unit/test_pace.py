"""An upload ends if its client is too slow, and not if the service is."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from common.problems import RequestTimeout
from records.pace import enforce_pace
from records.settings import Settings, StoreSettings

STORE = StoreSettings(s3_endpoint="http://localhost", s3_access_key="", s3_secret_key="")
# At least 1000 bytes in every 0.2 s.
SETTINGS = Settings(database_url="", store=STORE, min_upload_bytes_per_second=5000)
SLOW_SECONDS = 0.2


def with_settings(**settings: Any) -> Settings:
    return msgspec.structs.replace(SETTINGS, **{"slow_upload_seconds": SLOW_SECONDS, **settings})


async def body(count: int, size_bytes: int, pause_seconds: float) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield bytes(size_bytes)
        await asyncio.sleep(pause_seconds)


async def receive(pieces: AsyncIterator[bytes], settings: Settings, work_seconds: float = 0) -> int:
    """Returns how many bytes have passed. Works on each piece for a while."""
    received = 0
    async for piece in enforce_pace(pieces, settings):
        received += len(piece)
        await asyncio.sleep(work_seconds)
    return received


@pytest.mark.parametrize(("size_bytes", "pause_seconds"), [(1, 3600), (100_000, 3600), (1, 0.01), (30, 0.01)])
async def test_a_client_that_stops_or_crawls_gets_408(size_bytes: int, pause_seconds: float) -> None:
    async with asyncio.timeout(30):
        with pytest.raises(RequestTimeout, match="Send at least 5000 bytes per second"):
            await receive(body(100_000, size_bytes, pause_seconds), with_settings())


async def test_a_client_that_is_fast_enough_may_send_for_as_long_as_it_likes() -> None:
    pieces = body(60, 1000, 0.01)
    assert await receive(pieces, with_settings()) == 60_000


async def test_the_time_in_which_the_service_works_does_not_count() -> None:
    assert await receive(body(5, 1, 0), with_settings(), work_seconds=1.5 * SLOW_SECONDS) == 5


async def test_an_upload_that_takes_too_long_gets_408_however_fast_it_is() -> None:
    async with asyncio.timeout(30):
        with pytest.raises(RequestTimeout, match=r"longer than 0\.3 seconds, which is the limit"):
            await receive(body(100_000, 10_000, 0.01), with_settings(max_upload_seconds=0.3))
