"""Ends uploads whose clients send too slowly, because an upload holds a slot and memory until it ends."""

import asyncio
from collections.abc import AsyncIterator

from common.problems import RequestTimeout
from records.settings import Settings


async def enforce_pace(body: AsyncIterator[bytes], settings: Settings) -> AsyncIterator[bytes]:
    """Yields the pieces of a body.

    Counts only the time in which the service waits for the client, because the client is not to blame for a
    busy service. Raises RequestTimeout if the client sends too slowly (`min_upload_bytes_per_second`), or if
    the whole upload takes too long (`max_upload_seconds`).
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + settings.max_upload_seconds
    needed_bytes = settings.min_upload_bytes_per_second * settings.slow_upload_seconds
    waited_seconds, received_bytes = 0.0, 0
    while True:
        started = loop.time()
        slow_at = started + settings.slow_upload_seconds - waited_seconds
        try:
            async with asyncio.timeout_at(min(slow_at, end)):
                piece = await anext(body)
        except StopAsyncIteration:
            return
        except TimeoutError:
            if slow_at < end:
                raise RequestTimeout(
                    f"In {settings.slow_upload_seconds} seconds only {received_bytes} bytes of the upload"
                    f" arrived. Send at least {settings.min_upload_bytes_per_second} bytes per second."
                ) from None
            raise RequestTimeout(
                f"The upload took longer than {settings.max_upload_seconds} seconds, which is the limit."
                " Send it faster, or in several recordings."
            ) from None
        waited_seconds += loop.time() - started
        received_bytes += len(piece)
        if received_bytes >= needed_bytes:
            waited_seconds, received_bytes = 0.0, 0
        yield piece
