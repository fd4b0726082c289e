"""The audio of a WAV, cut, decoded, mixed and resampled into windows of 16-bit PCM that the encoder takes."""

import warnings
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from .adpcm import decode_blocks
from .errors import TooLong
from .formats import Codec, Format
from .mixing import downmix_matrix
from .pcm import FULL_SCALE, decode_samples
from .resampling import Resampler, mp3_sample_rate

# Importing pydub warns of escapes in its source (when it is compiled), of the audioop that left Python in
# 3.13 (the package audioop-lts replaces it there) and of a missing ffmpeg (which is never called here).
with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="invalid escape sequence|.* is an invalid escape sequence")
    warnings.filterwarnings("ignore", message="'audioop' is deprecated", category=DeprecationWarning)
    warnings.filterwarnings("ignore", message="Couldn't find ffmpeg or avconv", category=RuntimeWarning)
    from pydub import AudioSegment

# One and a half seconds of CD sound, at most.
WINDOW_FRAMES = 65_536
# So many bytes of the source are decoded at once, at most: blocks of ADPCM side by side, of PCM one window.
_BATCH_BYTES = 128 * 1024
# What needs no work is handed on as it comes, but in pieces that are worth a step.
_LEAST_PLAIN_BYTES = 32 * 1024

_SAMPLE_BYTES = 2
_MAX_OUTPUT_CHANNELS = 2


class Windows:
    """Turns the audio of one WAV into windows of mono or stereo at a sample rate that MP3 has.

    `frames` counts the sample frames of the source so far; `is_plain` says that they need no work. What is
    held is one batch of the source at most, and what the resampler holds back.
    """

    def __init__(self, source: Format, frames: int | None, max_duration_seconds: int) -> None:
        """Prepares for `source`, whose audio ends after `frames` sample frames, if that is known."""
        self.channels = min(source.channels, _MAX_OUTPUT_CHANNELS)
        self.sample_rate = mp3_sample_rate(source.sample_rate)
        self.frames = 0
        self._source = source
        self._last_frame = frames
        self._max_duration_seconds = max_duration_seconds
        self._is_adpcm = source.codec in (Codec.IMA_ADPCM, Codec.MS_ADPCM)
        self._held = bytearray()
        self._matrix = downmix_matrix(source) if source.channels > _MAX_OUTPUT_CHANNELS else None
        self._resampler = (
            Resampler(source.sample_rate, self.sample_rate, self.channels)
            if self.sample_rate != source.sample_rate
            else None
        )
        # Nearly all WAVs are 16-bit PCM as the encoder takes it, which then is not touched.
        self.is_plain = (
            source.codec is Codec.INTEGER
            and source.sample_bytes == _SAMPLE_BYTES
            and not source.is_big_endian
            and self._matrix is None
            and self._resampler is None
        )
        blocks = WINDOW_FRAMES if self.is_plain else min(WINDOW_FRAMES, _BATCH_BYTES // source.block_bytes)
        self._batch_bytes = blocks * source.block_bytes

    def feed(self, audio: memoryview) -> Iterator[AudioSegment]:
        """Yields the windows for which `audio`, of any length, suffices; raises TooLong over the limit."""
        while batch_bytes := self._next_batch(len(self._held) + len(audio)):
            missing = batch_bytes - len(self._held)
            batch = b"".join((self._held, audio[:missing])) if self._held else audio[:missing]
            self._held.clear()
            audio = audio[missing:]
            yield from self._convert(batch)
        self._held += audio

    def finish(self) -> Iterator[AudioSegment]:
        """Yields the last windows, if there are any; a frame that was cut short is dropped."""
        if not self._is_adpcm:
            del self._held[len(self._held) - len(self._held) % self._source.block_bytes :]
        if self._held:
            yield from self._convert(self._held)
        if self._resampler is not None and self.frames:
            for samples in self._resampler.finish():
                yield from self._cut(samples)

    def _next_batch(self, size_bytes: int) -> int:
        """Returns how many of the bytes that are there are converted next; 0: they must be more."""
        if size_bytes >= self._batch_bytes:
            return self._batch_bytes
        if self.is_plain and size_bytes >= _LEAST_PLAIN_BYTES:
            return size_bytes - size_bytes % self._source.block_bytes
        return 0

    def _convert(self, audio: bytes | bytearray | memoryview) -> Iterator[AudioSegment]:
        if self.is_plain:
            self._count(len(audio) // self._source.block_bytes)
            yield self._segment(bytes(audio))
            return
        samples = (decode_blocks if self._is_adpcm else decode_samples)(audio, self._source)
        if self._last_frame is not None:
            samples = samples[: self._last_frame - self.frames]
        self._count(len(samples))
        if self._matrix is not None:
            samples = samples @ self._matrix
        for resampled in [samples] if self._resampler is None else self._resampler.feed(samples):
            yield from self._cut(resampled)

    def _count(self, frames: int) -> None:
        self.frames += frames
        if self.frames > self._max_duration_seconds * self._source.sample_rate:
            raise TooLong(
                f"The recording is longer than {self._max_duration_seconds} seconds, which is the limit. "
                f"Cut it with: ffmpeg -i in.wav -t {self._max_duration_seconds} -c copy out.wav"
            )

    def _cut(self, samples: NDArray[np.float32]) -> Iterator[AudioSegment]:
        # In place: whoever made these samples has no more use for them.
        np.rint(samples, out=samples)
        np.maximum(samples, -FULL_SCALE, out=samples)
        np.minimum(samples, FULL_SCALE - 1, out=samples)
        pcm = samples.astype("<i2")
        for start in range(0, len(pcm), WINDOW_FRAMES):
            yield self._segment(pcm[start : start + WINDOW_FRAMES].tobytes())

    def _segment(self, pcm: bytes) -> AudioSegment:
        return AudioSegment(
            pcm, sample_width=_SAMPLE_BYTES, frame_rate=self.sample_rate, channels=self.channels
        )
