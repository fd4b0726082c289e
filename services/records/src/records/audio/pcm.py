"""Samples of every width and coding that stand one after the other: integer PCM, IEEE float, A-law, µ-law."""

import warnings

import numpy as np
from numpy.typing import NDArray

from .formats import Codec, Format

with warnings.catch_warnings():
    # The package audioop-lts takes its place where Python has none any more, from 3.13 on.
    warnings.filterwarnings("ignore", message="'audioop' is deprecated", category=DeprecationWarning)
    import audioop

__all__ = ["FULL_SCALE", "audioop", "decode_samples"]

FULL_SCALE = 32768
_WIDEST_BYTES = 4  # of what audioop takes


def decode_samples(audio: bytes | bytearray | memoryview, source: Format) -> NDArray[np.float32]:
    """Returns whole sample frames as float32 of shape (frames, channels), where full scale is FULL_SCALE.

    A float beyond full scale is clipped, and one that is no number is silence.
    """
    if source.codec is Codec.FLOAT:
        samples = _read_floats(audio, source)
    else:
        samples = _read_integers(audio, source).astype(np.float32)
        # Integers come with 32 bit.
        samples *= np.float32(2**-16)
    return samples.reshape(-1, source.channels)


def _read_floats(audio: bytes | bytearray | memoryview, source: Format) -> NDArray[np.float32]:
    order = ">" if source.is_big_endian else "<"
    floats = np.frombuffer(audio, dtype=f"{order}f{source.sample_bytes}")
    return (np.where(np.isfinite(floats), floats, 0).clip(-1, 1) * FULL_SCALE).astype(np.float32)


def _read_integers(audio: bytes | bytearray | memoryview, source: Format) -> NDArray[np.int32]:
    """Returns integers and what the laws stand for, as 32 bit whatever their width."""
    width = source.sample_bytes
    if width > _WIDEST_BYTES:
        octets = np.frombuffer(audio, dtype=np.uint8).reshape(-1, width)
        high = octets[:, _WIDEST_BYTES - 1 :: -1] if source.is_big_endian else octets[:, -_WIDEST_BYTES:]
        return np.ascontiguousarray(high).view("<i4")
    if source.codec is Codec.A_LAW:
        audio = audioop.alaw2lin(audio, _WIDEST_BYTES)
    elif source.codec is Codec.MU_LAW:
        audio = audioop.ulaw2lin(audio, _WIDEST_BYTES)
    else:
        if width == 1:
            # Samples of one byte are unsigned in a WAV, and signed in audioop.
            audio = audioop.bias(audio, 1, 128)
        elif source.is_big_endian:
            audio = audioop.byteswap(audio, width)
        audio = audioop.lin2lin(audio, width, _WIDEST_BYTES)
    return np.frombuffer(audio, dtype="<i4")
