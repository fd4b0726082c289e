"""How loud a recording is, and its waveform, measured on the 16-bit windows that are encoded."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# The finest waveform: 2.9 ms a pixel at 44.1 kHz. When it is full, neighbours are merged.
SAMPLES_PER_PIXEL = 128
MAX_PIXELS = 16_384

_FULL_SCALE = 32_768
_SAMPLE_BYTES = 2
_STEREO = 2


@dataclass(frozen=True, slots=True)
class Waveform:
    """Peaks as BBC audiowaveform draws them: of all channels' average, in 8 bit, rounded towards zero."""

    samples_per_pixel: int
    """Sample frames of the MP3, at its sample rate, that one pixel stands for; the last may have fewer."""
    peaks: bytes
    """Minimum and maximum of each pixel in turn, as int8."""

    @property
    def length(self) -> int:
        """The number of pixels."""
        return len(self.peaks) // 2

    def coarsen(self, samples_per_pixel: int = 1, max_pixels: int = MAX_PIXELS) -> "Waveform":
        """Returns the finest waveform of at least so many samples a pixel and at most so many pixels.

        Whole pixels are merged, so its resolution is a multiple of this one.
        """
        factor = max(-(-samples_per_pixel // self.samples_per_pixel), -(-self.length // max_pixels))
        pixels = np.frombuffer(self.peaks, dtype=np.int8).reshape(-1, 2)
        return Waveform(self.samples_per_pixel * factor, _merge_pixels(pixels, factor).tobytes())

    def values(self) -> list[int]:
        """Returns minimum and maximum of each pixel in turn, from -128 to 127."""
        return [*memoryview(self.peaks).cast("b")]


@dataclass(frozen=True, slots=True)
class Levels:
    """What was measured. Levels are in dB below a full-scale square wave (dBFS), None for digital silence."""

    peak_dbfs: float | None
    """Of the loudest sample of any channel."""
    rms_dbfs: float | None
    """Of all samples of all channels together."""
    waveform: Waveform


class Meter:
    """Measures one recording in bounded memory, whatever its length, and however it is cut.

    Each of numpy's calls has a price of its own, so it is best fed with long pieces.
    The waveform has fewer than MAX_PIXELS, at the smallest 128 * 2**n samples a pixel that allow it.
    """

    def __init__(self, channels: int) -> None:
        self._channels = channels
        self._pixel_bytes = SAMPLES_PER_PIXEL * channels * _SAMPLE_BYTES
        # Less than a pixel.
        self._held = b""
        self._samples = 0
        self._peak = 0
        self._sum_of_squares = 0.0
        # Pixels of SAMPLES_PER_PIXEL that came last, and those before, each of `_factor` times as much.
        self._fresh: list[NDArray[np.int8]] = []
        self._fresh_pixels = 0
        self._pixels: NDArray[np.int8] = np.empty((0, 2), dtype=np.int8)
        self._factor = 1

    def feed(self, pcm: bytes) -> None:
        """Takes the next 16-bit PCM, of whole frames."""
        pcm = self._held + pcm
        whole = len(pcm) - len(pcm) % self._pixel_bytes
        if whole:
            self._measure(np.frombuffer(pcm, "<i2", whole // _SAMPLE_BYTES))
        self._held = pcm[whole:]

    def finish(self) -> Levels:
        """Returns the levels; nothing can be fed afterwards, and something must have been before."""
        if self._held:
            self._measure(np.frombuffer(self._held, "<i2"))
        if self._fresh_pixels:
            self._settle(self._fresh_pixels)
        rms = math.sqrt(self._sum_of_squares / self._samples)
        waveform = Waveform(SAMPLES_PER_PIXEL * self._factor, self._pixels.tobytes())
        return Levels(_dbfs(self._peak), _dbfs(rms), waveform)

    def _measure(self, samples: NDArray[np.int16]) -> None:
        self._samples += len(samples)
        self._peak = max(self._peak, int(samples.max()), -int(samples.min()))
        floats = samples.astype(np.float32)
        # Exact in 64 bits, so it does not matter how the recording is cut.
        self._sum_of_squares += float(np.square(floats, out=floats).sum(dtype=np.float64))
        added = _add_channels(samples) if self._channels == _STEREO else samples.astype(np.int32)
        pixels = _merge(added, added, SAMPLES_PER_PIXEL)
        # Averaging and then taking the upper byte, both towards zero, as audiowaveform does.
        self._fresh.append(np.trunc(pixels / (256 * self._channels)).astype(np.int8))
        self._fresh_pixels += len(pixels)
        # So many that they make whole pixels, whatever the factor: both are powers of two.
        while self._fresh_pixels >= (count := max(self._factor, MAX_PIXELS // 2)):
            self._settle(count)

    def _settle(self, count: int) -> None:
        """Moves so many of the fresh pixels to the others, and halves the resolution when these are full."""
        fresh = np.concatenate(self._fresh)
        self._fresh, self._fresh_pixels = [fresh[count:]], len(fresh) - count
        self._pixels = np.concatenate([self._pixels, _merge_pixels(fresh[:count], self._factor)])
        if len(self._pixels) == MAX_PIXELS:
            self._pixels = _merge_pixels(self._pixels, 2)
            self._factor *= 2


def _add_channels(stereo: NDArray[np.int16]) -> NDArray[np.int32]:
    """Returns left plus right of every frame, which are the lower and the upper half of 32 bits."""
    frames = stereo.view("<i4")
    added: NDArray[np.int32] = frames << 16
    added >>= 16
    added += frames >> 16
    return added


def _merge(lows: NDArray[Any], highs: NDArray[Any], factor: int) -> NDArray[Any]:
    """Returns minimum and maximum of every `factor` values, of shape (pixels, 2); the last may have fewer."""
    starts = np.arange(0, len(lows), factor)
    return np.stack([np.minimum.reduceat(lows, starts), np.maximum.reduceat(highs, starts)], axis=1)


def _merge_pixels(pixels: NDArray[np.int8], factor: int) -> NDArray[np.int8]:
    return _merge(pixels[:, 0], pixels[:, 1], factor)


def _dbfs(amplitude: float) -> float | None:
    """Returns the level of an amplitude of 0 to 32768, to a hundredth of a dB."""
    # The sum makes the zero of what rounds to -0.0.
    return round(20 * math.log10(amplitude / _FULL_SCALE), 2) + 0.0 if amplitude else None
