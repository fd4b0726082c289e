"""Sample rates that MP3 does not have become one that it has, by the SoX resampler."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import soxr
from numpy.typing import NDArray

from .mp3 import SAMPLE_RATES

# soxr's filter spans hundreds of samples of the source, and what it makes of them comes at once: from 1 Hz to
# 8 kHz that is 26 MB. With a step in between it is 0.3 MB.
_STEP_BELOW_HZ = 100
# How many samples one call may make, but for what the filter has held back.
_CALL_FRAMES = 4096


def mp3_sample_rate(sample_rate: int) -> int:
    """Returns the rate, in Hz, at which a recording of `sample_rate` Hz is encoded.

    It is the lowest rate of MP3 that is not below the source's, so that nothing audible is lost, and at most
    48 kHz.
    """
    return next((rate for rate in SAMPLE_RATES if rate >= sample_rate), SAMPLE_RATES[-1])


class Resampler:
    """Resamples one recording, without delay: sample n of the result stands where n / rate seconds are."""

    def __init__(self, source_rate: int, rate: int, channels: int) -> None:
        self._rates = source_rate, rate
        steps = (source_rate, _STEP_BELOW_HZ, rate) if source_rate < _STEP_BELOW_HZ else (source_rate, rate)
        self._streams = [
            (soxr.ResampleStream(low, high, channels, dtype="float32", quality="HQ"), _call_frames(low, high))
            for low, high in pairwise(steps)
        ]
        self._channels = channels
        self._fed_frames = 0
        self._made_frames = 0

    def feed(self, samples: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
        """Yields what float32 `samples` of shape (frames, channels) give, if anything yet, piece by piece."""
        self._fed_frames += len(samples)
        for made in self._pass_on(samples, 0):
            self._made_frames += len(made)
            yield made

    def finish(self) -> Iterator[NDArray[np.float32]]:
        """Yields the rest: the result lasts as long as the source to the nearest frame, and one at least."""
        source_rate, rate = self._rates
        missing = max(1, (2 * self._fed_frames * rate + source_rate) // (2 * source_rate)) - self._made_frames
        for number, (stream, _) in enumerate(self._streams):
            rest = stream.resample_chunk(_silence(0, self._channels), last=True)
            for made in self._pass_on(rest, number + 1):
                yield made[:missing]
                missing -= len(made[:missing])
        yield _silence(missing, self._channels)

    def _pass_on(self, samples: NDArray[np.float32], number: int) -> Iterator[NDArray[np.float32]]:
        if number == len(self._streams):
            yield samples
            return
        stream, call_frames = self._streams[number]
        for start in range(0, len(samples), call_frames):
            yield from self._pass_on(stream.resample_chunk(samples[start : start + call_frames]), number + 1)


def _silence(frames: int, channels: int) -> NDArray[np.float32]:
    return np.zeros((frames, channels), dtype=np.float32)


def _call_frames(source_rate: int, rate: int) -> int:
    return max(1, _CALL_FRAMES * source_rate // rate)
