"""Encodes with a single LAME encoder, the reference for segments, and measures the errors of an MP3."""

import io
from functools import cache

import av
import numpy as np
from numpy.typing import NDArray

from records.audio.encoder import Encoder
from tests import wavs
from tests.wavs import Sound

DECODER_DELAY = 1105

Stream = tuple[int, int, int]
"""Sample rate, channels and bitrate in kbit/s."""
Samples = NDArray[np.int16]
Errors = NDArray[np.float64]


def samples_of(sound: Sound) -> Samples:
    return np.rint(sound * 32767).astype("<i2")


@cache
def music(seconds: float, rate: int, channels: int) -> Samples:
    """Returns music as int16. The array cannot be changed, because tests share it."""
    samples = samples_of(wavs.music(seconds * rate / 44100)[:, :channels])
    samples.flags.writeable = False
    return samples


def encode(samples: Samples, stream: Stream) -> bytes:
    encoder = Encoder(*stream)
    return encoder.encode(samples.tobytes()) + encoder.finish()


@cache
def encode_music(seconds: float, stream: Stream) -> bytes:
    """Returns the serial MP3 of `music`."""
    rate, channels, _ = stream
    return encode(music(seconds, rate, channels), stream)


def decode(mp3: bytes) -> NDArray[np.float64]:
    """Decodes to shape (sample frames, channels); AssertionError where FFmpeg complains about the MP3."""
    with av.logging.Capture() as complaints, av.open(io.BytesIO(mp3), "r", format="mp3") as container:
        decoded = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)
    assert not [
        words for level, _, words in complaints if level <= av.logging.WARNING and "bitrate" not in words
    ]
    return decoded.T.astype(np.float64)


def errors(samples: Samples, mp3: bytes) -> Errors:
    """Returns source minus decoded, sample by sample."""
    return errors_of(samples, decode(mp3))


def errors_of(samples: Samples, decoded: NDArray[np.float64]) -> Errors:
    """Returns source minus decoded, sample by sample."""
    decoded = decoded[DECODER_DELAY:]
    count = min(len(samples), len(decoded))
    difference: Errors = samples[:count] / 32768 - decoded[:count]
    return difference


def power_db(signal: NDArray[np.float64]) -> float:
    return float(10 * np.log10(np.mean(np.square(signal)) + 1e-12))


@cache
def music_error_db(seconds: float, stream: Stream) -> float:
    """Returns the power of the errors of the serial MP3 of `music`."""
    rate, channels, _ = stream
    return power_db(errors(music(seconds, rate, channels), encode_music(seconds, stream)))
