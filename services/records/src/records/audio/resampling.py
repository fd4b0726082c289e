"""Resamples recordings whose sample rate MP3 does not have, with the SoX resampler."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import soxr
from numpy.typing import NDArray

from .mp3 import SAMPLE_RATES

# soxr's filter spans hundreds of source samples, and returns their whole result at once: 26 MB from 1 Hz to
# 8 kHz. With a step at 100 Hz in between it is 0.3 MB.
_STEP_BELOW_HZ = 100
# How many sample frames one call may make, besides those that the filter has held back.
_CALL_SAMPLE_FRAMES = 4096


def mp3_sample_rate(sample_rate: int) -> int:
    """Returns the sample rate in Hz at which a recording of `sample_rate` Hz is encoded.

    It is the lowest rate of MP3 that is not below `sample_rate`, so that nothing audible is lost; 48 kHz at
    most.
    """
    return next((rate for rate in SAMPLE_RATES if rate >= sample_rate), SAMPLE_RATES[-1])


class Resampler:
    """Resamples one recording without delay: sample frame n of the result belongs to second n / `rate`."""

    def __init__(self, source_rate: int, rate: int, channels: int) -> None:
        self._rates = source_rate, rate
        steps = (source_rate, _STEP_BELOW_HZ, rate) if source_rate < _STEP_BELOW_HZ else (source_rate, rate)
        self._streams = [
            (
                soxr.ResampleStream(low, high, channels, dtype="float32", quality="HQ"),
                _call_sample_frames(low, high),
            )
            for low, high in pairwise(steps)
        ]
        self._channels = channels
        self._fed_sample_frames = 0
        self._made_sample_frames = 0

    def feed(self, samples: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
        """Takes float32 of shape (sample frames, channels), and yields the blocks that are ready."""
        self._fed_sample_frames += len(samples)
        for made in self._pass_on(samples, 0):
            self._made_sample_frames += len(made)
            yield made

    def finish(self) -> Iterator[NDArray[np.float32]]:
        """Yields the rest. The result lasts as long as the source, to the nearest sample frame.

        It has at least one sample frame.
        """
        source_rate, rate = self._rates
        rounded = (2 * self._fed_sample_frames * rate + source_rate) // (2 * source_rate)
        missing = max(1, rounded) - self._made_sample_frames
        for number, (stream, _) in enumerate(self._streams):
            rest = stream.resample_chunk(_silence(0, self._channels), last=True)
            for made in self._pass_on(rest, number + 1):
                yield made[:missing]
                missing -= len(made[:missing])
        yield _silence(missing, self._channels)

    def _pass_on(self, samples: NDArray[np.float32], number: int) -> Iterator[NDArray[np.float32]]:
        """Resamples with stream `number` and all that follow it."""
        if number == len(self._streams):
            yield samples
            return
        stream, call_sample_frames = self._streams[number]
        for start in range(0, len(samples), call_sample_frames):
            made = stream.resample_chunk(samples[start : start + call_sample_frames])
            yield from self._pass_on(made, number + 1)


def _silence(sample_frames: int, channels: int) -> NDArray[np.float32]:
    return np.zeros((sample_frames, channels), dtype=np.float32)


def _call_sample_frames(source_rate: int, rate: int) -> int:
    return max(1, _CALL_SAMPLE_FRAMES * source_rate // rate)
