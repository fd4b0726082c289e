"""Encodes with a single LAME encoder and in segments with cuts at chosen places, and measures the errors."""

import io
from functools import cache

import av
import numpy as np
from numpy.typing import NDArray

from records.audio.encoder import Encoder
from records.audio.join import LEAD_OUT_MP3_FRAMES, Mp3Frames, join, lead_in_mp3_frames
from records.audio.mp3 import sample_frames_per_mp3_frame
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


def encode_in_segments(samples: Samples, stream: Stream, cuts: list[int]) -> tuple[bytes, list[int]]:
    """Encodes with a cut before each of these MP3 frames. Returns the MP3, and the MP3 frames
    at which segments took over.

    Where no MP3 frame fits, the segment goes on, as in the service.
    """
    mp3_frame_samples = sample_frames_per_mp3_frame(stream[0])
    lead_in = lead_in_mp3_frames(stream[0], stream[2])
    encoder, mp3_frames, fed, mp3 = Encoder(*stream), Mp3Frames(0), 0, b""
    joins: list[int] = []
    for cut in cuts:
        end = (cut + LEAD_OUT_MP3_FRAMES) * mp3_frame_samples
        mp3_frames.append(encoder.encode(samples[fed:end].tobytes()))
        next_encoder, next_mp3_frames = Encoder(*stream), Mp3Frames(cut - lead_in)
        start = (cut - lead_in) * mp3_frame_samples
        next_mp3_frames.append(next_encoder.encode(samples[start:end].tobytes()))
        joined = join(mp3_frames, next_mp3_frames, cut - lead_in // 2)
        if joined is not None:
            mp3 += joined
            encoder, mp3_frames = next_encoder, next_mp3_frames
            joins.append(mp3_frames.first)
        fed = end
    mp3_frames.append(encoder.encode(samples[fed:].tobytes()) + encoder.finish())
    return mp3 + mp3_frames.take_all(), joins


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
