"""Runs a Converter: feeds it all pieces of a WAV, and returns the MP3 without its head."""

import asyncio
from collections.abc import AsyncIterator, Iterable

from records.audio import Converter, EncoderThreads


async def drain(mp3: AsyncIterator[bytes]) -> bytes:
    """Returns all bytes that `mp3` yields."""
    return b"".join([piece async for piece in mp3])


async def feed_all(converter: Converter, pieces: Iterable[bytes]) -> bytes:
    """Feeds the pieces and finishes. Returns the MP3 without its head."""
    mp3 = b"".join([await drain(converter.feed(piece)) for piece in pieces])
    return mp3 + await drain(converter.finish())


def convert(
    *pieces: bytes, bitrate_kbps: int = 128, max_duration_seconds: int = 3600
) -> tuple[Converter, bytes]:
    """Converts a WAV. Returns the finished converter, and the MP3 without its head."""
    threads = EncoderThreads(2)
    converter = Converter(threads, bitrate_kbps, max_duration_seconds=max_duration_seconds)
    try:
        return converter, asyncio.run(feed_all(converter, pieces))
    finally:
        converter.close()
        threads.close()
