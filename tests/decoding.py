"""Decodes MP3s and WAVs with FFmpeg's libraries (PyAV), which the services do not use; compares sounds."""

import io
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.floating[Any]]

# A level below this many dB of full scale is silence.
_SILENT_DB = -80.0


@dataclass(frozen=True)
class Decoded:
    """Sound as float samples of shape (sample frames, channels) between -1 and 1."""

    samples: Samples
    rate: int

    @property
    def channels(self) -> int:
        return int(self.samples.shape[1])

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate


@dataclass(frozen=True)
class Comparison:
    """How a decoded sound differs from its source."""

    lag: int
    """The delay of the decoded sound, in samples at its rate."""
    correlation: float
    """The correlation of the worst channel over the whole length at that lag; 1 means the same shape."""
    level_db: float
    """The difference in level of the worst channel; positive means that the decoded sound is louder."""
    seconds: float
    """How many seconds longer the decoded sound is."""


def decode(data: bytes, container_format: str = "mp3") -> Decoded:
    """Decodes an MP3, or a file of another format that FFmpeg knows, such as "wav".

    Like players, FFmpeg drops the samples that the codec has added according to the MP3's Info frame.
    """
    with av.open(io.BytesIO(data), mode="r", format=container_format) as container:
        frames = list(container.decode(audio=0))
        rate = container.streams.audio[0].rate
    return Decoded(np.concatenate([_floats(frame) for frame in frames]), rate)


def mix(wav: bytes) -> Decoded:
    """Decodes a WAV of more than two channels and mixes them to stereo by FFmpeg's rules."""
    with av.open(io.BytesIO(wav), mode="r", format="wav") as container:
        rate = container.streams.audio[0].rate
        # FFmpeg scales the mix down for integers, not for floats.
        resampler = av.AudioResampler(format="s16", layout="stereo", rate=rate)
        frames = [mixed for frame in container.decode(audio=0) for mixed in resampler.resample(frame)]
        frames += resampler.resample(None)
    return Decoded(np.concatenate([_floats(frame) for frame in frames]), rate)


def resample(sound: Decoded, rate: int) -> Decoded:
    """Resamples the sound to another rate with FFmpeg's resampler."""
    if sound.rate == rate:
        return sound
    layout = {1: "mono", 2: "stereo"}[sound.channels]
    frame = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(sound.samples.T, dtype=np.float32), format="fltp", layout=layout
    )
    frame.sample_rate = sound.rate
    resampler = av.AudioResampler(format="fltp", layout=layout, rate=rate)
    frames = [*resampler.resample(frame), *resampler.resample(None)]
    return Decoded(np.concatenate([_floats(frame) for frame in frames]), rate)


def compare(source: Decoded, decoded: Decoded) -> Comparison:
    """Compares a decoded sound with its source, after resampling the source to the same rate."""
    if source.channels != decoded.channels:
        raise ValueError(f"{decoded.channels} channels decoded, {source.channels} in the source")
    seconds = decoded.seconds - source.seconds
    source = resample(source, decoded.rate)
    lag = _lag(source.samples, decoded.samples, decoded.rate)
    ours = source.samples[max(0, -lag) :]
    theirs = decoded.samples[max(0, lag) :]
    length = min(len(ours), len(theirs))
    pairs = [(ours[:length, channel], theirs[:length, channel]) for channel in range(source.channels)]
    return Comparison(
        lag=lag,
        correlation=min(_correlation(a, b) for a, b in pairs),
        level_db=max((_level_db(b) - _level_db(a) for a, b in pairs), key=abs),
        seconds=seconds,
    )


def _floats(frame: av.AudioFrame) -> Samples:
    """Returns the samples of PyAV's frame, of any type, as floats of shape (sample frames, channels)."""
    samples: NDArray[Any] = frame.to_ndarray()
    samples = samples.T if frame.format.is_planar else samples.reshape(-1, frame.layout.nb_channels)
    floats: Samples = samples.astype(np.float64)
    if samples.dtype == np.uint8:
        return (floats - 128) / 128
    if samples.dtype.kind == "i":
        return floats / float(1 << 8 * samples.dtype.itemsize - 1)
    return floats


def _lag(source: Samples, decoded: Samples, rate: int) -> int:
    """Finds the lag at which the first ten seconds match best, by cross-correlation of all channels' sums."""
    ours, theirs = (sound[: 10 * rate].sum(axis=1) for sound in (source, decoded))
    size = 1 << (len(ours) + len(theirs)).bit_length()
    product = np.fft.rfft(theirs, size) * np.conj(np.fft.rfft(ours, size))
    best = int(np.argmax(np.fft.irfft(product, size)))
    return best - size if best > size // 2 else best


def _correlation(source: Samples, decoded: Samples) -> float:
    if _level_db(source) < _SILENT_DB or _level_db(decoded) < _SILENT_DB:
        return float(_level_db(source) < _SILENT_DB and _level_db(decoded) < _SILENT_DB)
    return float(np.corrcoef(source, decoded)[0, 1])


def _level_db(samples: Samples) -> float:
    """Returns the level in dB below full scale; silence is -120."""
    return float(20 * np.log10(max(1e-6, np.sqrt(np.mean(np.square(samples))))))
