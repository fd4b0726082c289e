"""Measures how loud a recording is, and its waveform, on the 16-bit PCM that is encoded."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# The finest waveform has 2.9 ms a pixel at 44.1 kHz. When it is full, neighbouring pixels are merged.
SAMPLES_PER_PIXEL = 128
MAX_PIXELS = 16_384

_FULL_SCALE = 32_768
_SAMPLE_BYTES = 2
_STEREO = 2


@dataclass(frozen=True, slots=True)
class Waveform:
    """Peaks of the average of all channels, in 8 bit and rounded towards zero, like BBC audiowaveform's."""

    samples_per_pixel: int
    """Sample frames of the MP3, at its sample rate, in one pixel. The last pixel may have fewer."""
    peaks: bytes
    """The minimum and the maximum of each pixel in turn, as int8."""

    @property
    def length(self) -> int:
        """The number of pixels."""
        return len(self.peaks) // 2

    def coarsen(self, samples_per_pixel: int = 1, max_pixels: int = MAX_PIXELS) -> "Waveform":
        """Returns the finest waveform with at least so many samples a pixel and at most so many pixels.

        It merges whole pixels, so the result has a multiple of this waveform's samples a pixel.
        """
        factor = max(-(-samples_per_pixel // self.samples_per_pixel), -(-self.length // max_pixels))
        pixels = np.frombuffer(self.peaks, dtype=np.int8).reshape(-1, 2)
        return Waveform(self.samples_per_pixel * factor, _merge_pixels(pixels, factor).tobytes())

    def values(self) -> list[int]:
        """Returns the minimum and the maximum of each pixel in turn, from -128 to 127."""
        return [*memoryview(self.peaks).cast("b")]


@dataclass(frozen=True, slots=True)
class Levels:
    """What was measured. Levels are in dB below a full-scale square wave (dBFS), None for digital silence."""

    peak_dbfs: float | None
    """The level of the loudest sample of any channel."""
    rms_dbfs: float | None
    """The mean level of all samples of all channels together."""
    waveform: Waveform


class Meter:
    """Measures one recording of any length in bounded memory. The result does not depend on how it is fed.

    Long blocks are best, because every call of numpy has a cost of its own.
    The waveform has fewer than MAX_PIXELS, with the smallest SAMPLES_PER_PIXEL * 2**n that allows it.
    """

    def __init__(self, channels: int) -> None:
        self._channels = channels
        self._pixel_bytes = SAMPLES_PER_PIXEL * channels * _SAMPLE_BYTES
        # PCM of less than a pixel.
        self._held = b""
        self._samples = 0
        self._peak = 0
        self._sum_of_squares = 0.0
        # Fresh pixels have SAMPLES_PER_PIXEL samples each; the settled pixels before them have `_factor`
        # times as many.
        self._fresh: list[NDArray[np.int8]] = []
        self._fresh_pixels = 0
        self._pixels: NDArray[np.int8] = np.empty((0, 2), dtype=np.int8)
        self._factor = 1

    def feed(self, pcm: bytes) -> None:
        """Measures the next 16-bit PCM, which has whole sample frames."""
        pcm = self._held + pcm
        whole_bytes = len(pcm) - len(pcm) % self._pixel_bytes
        if whole_bytes:
            self._measure(np.frombuffer(pcm, "<i2", whole_bytes // _SAMPLE_BYTES))
        self._held = pcm[whole_bytes:]

    def finish(self) -> Levels:
        """Returns the levels. Something must have been fed before, and nothing can be fed afterwards."""
        if self._held:
            self._measure(np.frombuffer(self._held, "<i2"))
        if self._fresh_pixels:
            self._settle(self._fresh_pixels)
        rms = math.sqrt(self._sum_of_squares / self._samples)
        waveform = Waveform(SAMPLES_PER_PIXEL * self._factor, self._pixels.tobytes())
        return Levels(dbfs(self._peak), dbfs(rms), waveform)

    def _measure(self, samples: NDArray[np.int16]) -> None:
        self._samples += len(samples)
        self._peak = max(self._peak, int(samples.max()), -int(samples.min()))
        floats = samples.astype(np.float32)
        # The sum is exact in 64 bits, so it does not depend on how the recording is fed.
        self._sum_of_squares += float(np.square(floats, out=floats).sum(dtype=np.float64))
        added = _add_channels(samples) if self._channels == _STEREO else samples.astype(np.int32)
        pixels = _merge(added, added, SAMPLES_PER_PIXEL)
        # Like audiowaveform: the average, then its upper byte, both rounded towards zero.
        self._fresh.append(np.trunc(pixels / (256 * self._channels)).astype(np.int8))
        self._fresh_pixels += len(pixels)
        # Settle a multiple of the factor, so that merging leaves no rest: both numbers are powers of two.
        while self._fresh_pixels >= (count := max(self._factor, MAX_PIXELS // 2)):
            self._settle(count)

    def _settle(self, count: int) -> None:
        """Moves so many fresh pixels to the settled ones, and halves the resolution when these are full."""
        fresh = np.concatenate(self._fresh)
        self._fresh, self._fresh_pixels = [fresh[count:]], len(fresh) - count
        self._pixels = np.concatenate([self._pixels, _merge_pixels(fresh[:count], self._factor)])
        if len(self._pixels) == MAX_PIXELS:
            self._pixels = _merge_pixels(self._pixels, 2)
            self._factor *= 2


def _add_channels(stereo: NDArray[np.int16]) -> NDArray[np.int32]:
    """Returns left plus right of every sample frame.

    Seen as 32 bits, a sample frame has left in its lower half and right in its upper half.
    """
    sample_frames = stereo.view("<i4")
    added: NDArray[np.int32] = sample_frames << 16
    added >>= 16
    added += sample_frames >> 16
    return added


def _merge(lows: NDArray[Any], highs: NDArray[Any], factor: int) -> NDArray[Any]:
    """Returns minimum and maximum of every `factor` values, as shape (pixels, 2). The last may have fewer."""
    starts = np.arange(0, len(lows), factor)
    return np.stack([np.minimum.reduceat(lows, starts), np.maximum.reduceat(highs, starts)], axis=1)


def _merge_pixels(pixels: NDArray[np.int8], factor: int) -> NDArray[np.int8]:
    return _merge(pixels[:, 0], pixels[:, 1], factor)


def dbfs(amplitude: float) -> float | None:
    """Returns the level of an amplitude, whose full scale is 32768, to a hundredth of a dB."""
    # The sum turns -0.0 into 0.0.
    return round(20 * math.log10(amplitude / _FULL_SCALE), 2) + 0.0 if amplitude else None
