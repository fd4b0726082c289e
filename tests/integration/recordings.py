"""WAVs for uploads, and the pieces in which the records service receives them."""

from collections.abc import AsyncIterator
from functools import cache
from typing import Any

from deploy.client import Client
from deploy.local.stack import Stack
from records.form import BITRATE, KEEP_ORIGINAL, AudioBegins, FormField, FormItem
from tests.wavs import Wav, silence, sine

SMALL, LARGE = "one PUT", "a multipart upload"
# One PUT beside the multipart upload of the original, of three upload parts.
KEPT = "with its original"
# 12 MB of MP3 from few sample frames: LAME needs about as long for each sample frame at any bitrate.
LARGE_SECONDS = 290.0
KEPT_SECONDS = 170.0
BITRATES_KBPS = {SMALL: None, LARGE: 320, KEPT: 320}


@cache
def make_wav(kind: str) -> bytes:
    """Returns a WAV whose MP3 fits one PUT, or whose MP3 or original needs three upload parts."""
    if kind == SMALL:
        return Wav().build(sine(seconds=1.0))
    seconds = LARGE_SECONDS if kind == LARGE else KEPT_SECONDS
    # The first two upload parts are complete even if the client vanishes at the end of the audio and the
    # last seconds still wait for an encoder (conftest.py).
    return Wav(bits=16, channels=1, rate=32000).build(silence(seconds, rate=32000, channels=1))


async def wav_pieces(kind: str, count: int = 4) -> AsyncIterator[FormItem]:
    """Yields the options of the kind, the start of the audio, and then a whole WAV in `count` pieces."""
    if kind == KEPT:
        yield FormField(KEEP_ORIGINAL, "true")
    if bitrate_kbps := BITRATES_KBPS[kind]:
        yield FormField(BITRATE, str(bitrate_kbps))
    yield AudioBegins()
    wav = make_wav(kind)
    size = -(-len(wav) // count)
    for start in range(0, len(wav), size):
        yield wav[start : start + size]


def upload_recording(stack: Stack, user: dict[str, Any], kind: str = SMALL) -> dict[str, Any]:
    """Uploads a WAV to a stack and returns the record."""
    with Client(stack.base_url) as client:
        return upload_kind(client, user["token"], kind)


def upload_kind(client: Client, token: str, kind: str) -> dict[str, Any]:
    """Uploads the WAV of the kind at its bitrate and returns the record."""
    return client.upload_stream(iter([make_wav(kind)]), token, BITRATES_KBPS[kind])
