"""Decodes samples of every width that follow one another: integer PCM, IEEE float, A-law and µ-law."""

import warnings

import numpy as np
from numpy.typing import NDArray

from .formats import Codec, Format

with warnings.catch_warnings():
    # From Python 3.13 on, the package audioop-lts replaces it.
    warnings.filterwarnings("ignore", message="'audioop' is deprecated", category=DeprecationWarning)
    import audioop

__all__ = ["FULL_SCALE", "audioop", "decode_samples"]

FULL_SCALE = 32768
# Samples up to this one fit in float32.
_MAX_FLOAT = 1e30
# The widest sample that audioop takes.
_MAX_BYTES = 4


def decode_samples(audio: bytes | bytearray | memoryview, source: Format) -> NDArray[np.float32]:
    """Decodes whole sample frames to float32 of shape (sample frames, channels). Full scale is FULL_SCALE.

    A float may be beyond full scale, by up to _MAX_FLOAT; infinities and NaN become silence.
    """
    if source.codec is Codec.FLOAT:
        samples = _read_floats(audio, source)
    else:
        samples = _read_integers(audio, source).astype(np.float32)
        # _read_integers returns 32-bit integers; FULL_SCALE belongs to 16 bits.
        samples *= np.float32(2**-16)
    return samples.reshape(-1, source.channels)


def _read_floats(audio: bytes | bytearray | memoryview, source: Format) -> NDArray[np.float32]:
    order = ">" if source.is_big_endian else "<"
    floats = np.frombuffer(audio, dtype=f"{order}f{source.sample_bytes}")
    finite = np.where(np.isfinite(floats), floats, 0).clip(-_MAX_FLOAT, _MAX_FLOAT)
    return (finite * FULL_SCALE).astype(np.float32)


def _read_integers(audio: bytes | bytearray | memoryview, source: Format) -> NDArray[np.int32]:
    """Returns integers of any width, and decoded A-law and µ-law, as integers of 32 bit."""
    width = source.sample_bytes
    if width > _MAX_BYTES:
        octets = np.frombuffer(audio, dtype=np.uint8).reshape(-1, width)
        high = octets[:, _MAX_BYTES - 1 :: -1] if source.is_big_endian else octets[:, -_MAX_BYTES:]
        return np.ascontiguousarray(high).view("<i4")
    if source.codec is Codec.A_LAW:
        audio = audioop.alaw2lin(audio, _MAX_BYTES)
    elif source.codec is Codec.MU_LAW:
        audio = audioop.ulaw2lin(audio, _MAX_BYTES)
    else:
        if width == 1:
            # One-byte samples are unsigned in a WAV, and signed in audioop.
            audio = audioop.bias(audio, 1, 128)
        elif source.is_big_endian:
            audio = audioop.byteswap(audio, width)
        audio = audioop.lin2lin(audio, width, _MAX_BYTES)
    return np.frombuffer(audio, dtype="<i4")
