"""Decodes, mixes and resamples the audio of a WAV into blocks of the 16-bit PCM that the encoder takes."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from .adpcm import decode_adpcm
from .bitstreams import BitstreamSearch
from .errors import TooLong
from .formats import ADPCM_HEAD_BYTES, Codec, Format
from .mixing import downmix_matrix
from .pcm import FULL_SCALE, decode_samples
from .resampling import Resampler, mp3_sample_rate
from .sent_as_text import TextSearch
from .wav import DataChunk

# At 44.1 kHz a block of this length lasts one and a half seconds.
MAX_BLOCK_SAMPLE_FRAMES = 65_536
# At most so many bytes of the source are decoded at once.
_BATCH_BYTES = 128 * 1024
# Plain audio passes as it arrives, but in blocks of at least this size, so that each is worth its overhead.
_MIN_PLAIN_BYTES = 32 * 1024

_SAMPLE_BYTES = 2
_MAX_OUTPUT_CHANNELS = 2


class BlockMaker:
    """Turns the audio of one WAV into blocks of mono or stereo at a sample rate that MP3 has.

    It holds at most one batch of the source, and what the resampler holds back.
    """

    def __init__(self, source: Format, max_duration_seconds: int) -> None:
        """Prepares for audio of the format `source`."""
        self.channels = min(source.channels, _MAX_OUTPUT_CHANNELS)
        self.sample_rate = mp3_sample_rate(source.sample_rate)
        self.source_sample_frames = 0
        """How many sample frames of the source have been converted."""
        self.peak = 0.0
        """The loudest float of the source; full scale is FULL_SCALE. 0 if the source has no floats."""
        self._source = source
        self._text_search = TextSearch()
        self._bitstream_search = BitstreamSearch(source)
        self._data_chunk: DataChunk | None = None
        self._end_sample_frames: int | None = None
        self._max_duration_seconds = max_duration_seconds
        self._is_adpcm = source.codec in ADPCM_HEAD_BYTES
        self._held = bytearray()
        self._matrix = downmix_matrix(source) if source.channels > _MAX_OUTPUT_CHANNELS else None
        self._resampler = (
            Resampler(source.sample_rate, self.sample_rate, self.channels)
            if self.sample_rate != source.sample_rate
            else None
        )
        # Nearly all WAVs hold 16-bit PCM that the encoder takes as it is.
        self.is_plain = (
            source.codec is Codec.INTEGER
            and source.sample_bytes == _SAMPLE_BYTES
            and not source.is_big_endian
            and self._matrix is None
            and self._resampler is None
        )
        """Whether blocks are the source's bytes, unchanged."""
        batch_units = MAX_BLOCK_SAMPLE_FRAMES
        if not self.is_plain:
            batch_units = min(batch_units, _BATCH_BYTES // source.block_align_bytes)
        self._batch_bytes = batch_units * source.block_align_bytes

    def feed(self, audio: memoryview, data_chunk: DataChunk) -> Iterator[bytes]:
        """Takes audio of any length from a data chunk, and yields the blocks that are complete.

        Audio beyond the data chunk's `announced_sample_frames`, if the header announces them, fills up the
        last ADPCM block and is dropped. Raises TooLong as soon as the recording exceeds its limit, and
        UnsupportedAudio if it is compressed audio in the guise of PCM, or was sent as text.
        """
        if data_chunk is not self._data_chunk:
            yield from self._end_data_chunk()
            self._data_chunk = data_chunk
            announced = data_chunk.announced_sample_frames
            self._end_sample_frames = None if announced is None else self.source_sample_frames + announced
        while batch_bytes := self._next_batch(len(self._held) + len(audio)):
            missing = batch_bytes - len(self._held)
            batch = b"".join((self._held, audio[:missing])) if self._held else audio[:missing]
            self._held.clear()
            audio = audio[missing:]
            yield from self._convert(batch)
        self._held += audio

    def finish(self) -> Iterator[bytes]:
        """Yields the last blocks, if there are any."""
        yield from self._end_data_chunk()
        if self._resampler is not None and self.source_sample_frames:
            for samples in self._resampler.finish():
                yield from self._cut(samples)

    def _end_data_chunk(self) -> Iterator[bytes]:
        """Drops a sample frame that was cut short. An ADPCM block decodes as far as it goes."""
        if not self._is_adpcm:
            del self._held[len(self._held) - len(self._held) % self._source.block_align_bytes :]
        held, self._held = self._held, bytearray()
        if held:
            yield from self._convert(held)

    def _next_batch(self, size_bytes: int) -> int:
        """Returns how many of `size_bytes` are converted next; 0 if more bytes must arrive first."""
        if size_bytes >= self._batch_bytes:
            return self._batch_bytes
        if self.is_plain and size_bytes >= _MIN_PLAIN_BYTES:
            return size_bytes - size_bytes % self._source.block_align_bytes
        return 0

    def _convert(self, audio: bytes | bytearray | memoryview) -> Iterator[bytes]:
        self._text_search.feed(audio)
        self._bitstream_search.feed(audio)
        if self.is_plain:
            self._count(len(audio) // self._source.block_align_bytes)
            yield bytes(audio)
            return
        samples = (decode_adpcm if self._is_adpcm else decode_samples)(audio, self._source)
        if self._end_sample_frames is not None:
            samples = samples[: self._end_sample_frames - self.source_sample_frames]
        self._count(len(samples))
        if self._source.codec is Codec.FLOAT and samples.size:
            self.peak = max(self.peak, float(samples.max()), -float(samples.min()))
            np.clip(samples, -FULL_SCALE, FULL_SCALE, out=samples)
        if self._matrix is not None:
            samples = samples @ self._matrix
        for resampled in [samples] if self._resampler is None else self._resampler.feed(samples):
            yield from self._cut(resampled)

    def _count(self, sample_frames: int) -> None:
        self.source_sample_frames += sample_frames
        if self.source_sample_frames > self._max_duration_seconds * self._source.sample_rate:
            command = f"ffmpeg -i in.wav -t {self._max_duration_seconds} -c:a pcm_s16le out.wav"
            what_to_do = self._source.offer(f"Shorten it with: {command}", "Send a shorter one.")
            raise TooLong(
                f"The recording is longer than {self._max_duration_seconds} seconds, which is the limit. "
                f"{what_to_do}"
            )

    def _cut(self, samples: NDArray[np.float32]) -> Iterator[bytes]:
        # Work in place: nobody else uses these samples any more.
        np.rint(samples, out=samples)
        np.maximum(samples, -FULL_SCALE, out=samples)
        np.minimum(samples, FULL_SCALE - 1, out=samples)
        pcm = samples.astype("<i2")
        for start in range(0, len(pcm), MAX_BLOCK_SAMPLE_FRAMES):
            yield pcm[start : start + MAX_BLOCK_SAMPLE_FRAMES].tobytes()
