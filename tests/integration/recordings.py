"""WAVs for uploads, and the pieces in which the records service receives them."""

from collections.abc import AsyncIterator
from functools import cache
from typing import Any

from deploy.client import Client
from deploy.local.stack import Stack
from records.form import AudioBegins, FormItem
from tests.wavs import Wav, silence, sine

SMALL, LARGE = "one PUT", "a multipart upload"


@cache
def make_wav(kind: str) -> bytes:
    """Returns a WAV whose MP3 fits one PUT, or whose MP3 (14 MB, cheap to make) needs three upload parts."""
    if kind == SMALL:
        return Wav().build(sine(seconds=1.0))
    # The first two upload parts are complete even if the client vanishes at the end of the audio and the
    # last minutes still wait for LAME.
    return Wav(bits=8, channels=1, rate=8000).build(silence(1760.0, rate=8000, channels=1))


async def wav_pieces(kind: str, count: int = 4) -> AsyncIterator[FormItem]:
    """Yields the start of the audio and then a whole WAV in `count` pieces."""
    yield AudioBegins()
    wav = make_wav(kind)
    size = -(-len(wav) // count)
    for start in range(0, len(wav), size):
        yield wav[start : start + size]


def upload_recording(stack: Stack, user: dict[str, Any], kind: str = SMALL) -> dict[str, Any]:
    """Uploads a WAV to a stack and returns the record."""
    with Client(stack.base_url) as client:
        return client.upload_stream([make_wav(kind)], user["token"])
