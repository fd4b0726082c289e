"""Uploads as the records service sees them once HTTP is done with: pieces of a WAV."""

from collections.abc import AsyncIterator
from functools import cache

from records.form import Field
from tests.wavs import Wav, silence, sine

SMALL, LARGE = "one PUT", "a multipart upload"


@cache
def wav_of(kind: str) -> bytes:
    """A WAV whose MP3 is one PUT, or one whose MP3 (14 MB, cheap to make) needs three parts."""
    if kind == SMALL:
        return Wav().build(sine(seconds=1.0))
    # Two parts are there even when the client vanishes at its end, while the last minutes wait for LAME.
    return Wav(bits=8, channels=1, rate=8000).build(silence(1760.0, rate=8000, channels=1))


async def pieces(kind: str, count: int = 4) -> AsyncIterator[Field | bytes]:
    """A whole upload, in as many pieces."""
    wav = wav_of(kind)
    size = -(-len(wav) // count)
    for start in range(0, len(wav), size):
        yield wav[start : start + size]
