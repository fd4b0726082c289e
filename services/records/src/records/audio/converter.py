"""A WAV in, an MP3 out, while it arrives: parser, windows of PCM, meter, encoders, and at last the head."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .errors import BrokenAudio
from .info import Stream
from .levels import Meter, Waveform
from .parallel import EncoderThreads, ParallelEncoder
from .tags import make_id3
from .wav import WavParser
from .windows import Windows

if TYPE_CHECKING:
    from pydub import AudioSegment

DEFAULT_MAX_DURATION_SECONDS = 24 * 60 * 60

# A byte of WAV can be a second of MP3 (at 1 Hz), so what a large piece gives comes in blocks too.
_BLOCK_BYTES = 128 * 1024


@dataclass(frozen=True, slots=True)
class Properties:
    """What a finished MP3 is; sample rate, channels and bitrate are those of its first frame, as it is."""

    duration_seconds: float
    """Sample frames of the source by its sample rate: without the encoder's delay and padding."""
    sample_rate: int
    channels: int
    bitrate_kbps: int
    peak_dbfs: float | None
    """The loudest sample of what was encoded, below full scale; None where all is digital silence."""
    rms_dbfs: float | None
    """The mean level of what was encoded, below a full-scale square wave; None as above."""
    truncated: bool
    """The WAV ended before the audio that its header announces; the MP3 is complete as far as that goes."""


@dataclass(frozen=True, slots=True)
class _Pipeline:
    """What stands behind the parser, once the format is known."""

    windows: Windows
    meter: Meter
    encoder: ParallelEncoder


class Converter:
    """Turns a WAV that arrives in pieces into MP3 bytes.

    Memory is bounded whatever the input: besides a piece, the PCM that may wait for an encoder. To be used in
    one event loop, one call at a time; what takes long is done in threads. An exception ends it.
    """

    def __init__(
        self,
        threads: EncoderThreads,
        bitrate_kbps: int = 128,
        *,
        max_duration_seconds: int = DEFAULT_MAX_DURATION_SECONDS,
    ) -> None:
        """Asks for a bitrate of 8 to 320 kbit/s; LAME takes the nearest that the sample rate has."""
        self._threads = threads
        self._bitrate_kbps = bitrate_kbps
        self._max_duration_seconds = max_duration_seconds
        self._parser = WavParser()
        self._pipeline: _Pipeline | None = None
        self._stream = Stream()
        self._properties: Properties | None = None
        self._waveform: Waveform | None = None

    @property
    def properties(self) -> Properties:
        """What the MP3 is, once `finish` has ended; a RuntimeError before."""
        if self._properties is None:
            raise RuntimeError("the MP3 is not finished")
        return self._properties

    @property
    def waveform(self) -> Waveform:
        """The peaks of what was encoded, once `finish` has ended; a RuntimeError before."""
        if self._waveform is None:
            raise RuntimeError("the MP3 is not finished")
        return self._waveform

    async def feed(self, data: bytes) -> AsyncIterator[bytes]:
        """Takes the next piece of the WAV, of any size, and yields the MP3 bytes that are ready, often none.

        Raises UnsupportedAudio, BrokenAudio or TooLong as soon as the bytes that show it are there.
        """
        async for mp3 in self._encode(self._read(data)):
            yield mp3

    async def finish(self) -> AsyncIterator[bytes]:
        """Says that the WAV has ended and yields the rest of the MP3, to which the head is still missing.

        Afterwards `properties` and `waveform` hold, and `make_head` can be called.
        Raises BrokenAudio when there was no audio, and UnsupportedAudio for a few bytes that are no WAV.
        """
        self._parser.finish()
        windows = self._open().windows
        async for mp3 in self._encode(windows.finish()):
            yield mp3
        if windows.frames == 0:
            raise BrokenAudio("The WAV holds no audio: its data chunk has not one whole sample frame.")
        await self._open().encoder.finish()
        yield self._take()
        levels = self._open().meter.finish()
        header = self._stream.header
        self._waveform = levels.waveform
        self._properties = Properties(
            duration_seconds=windows.frames / self._parser.format.sample_rate,
            sample_rate=header.sample_rate,
            channels=header.channels,
            bitrate_kbps=header.bitrate_kbps,
            peak_dbfs=levels.peak_dbfs,
            rms_dbfs=levels.rms_dbfs,
            truncated=self._parser.truncated,
        )

    def make_head(self, title: str | None = None) -> bytes:
        """Returns what belongs in front of all that `feed` and `finish` have yielded: the tags, if there are
        any, and the Info frame, by which players know the length and leave out what the codec adds.

        `title` wins over that of the WAV.
        """
        encoder = self._open().encoder
        return make_id3(self._parser.metadata, title) + self._stream.make_info_frame(
            encoder.samples, encoder.frames
        )

    def close(self) -> None:
        """Lets its threads and its memory go, at the end or before."""
        if self._pipeline:
            self._pipeline.encoder.close()

    def _read(self, data: bytes) -> "Iterator[AudioSegment]":
        for audio in self._parser.feed(data):
            yield from self._open().windows.feed(audio)

    def _open(self) -> _Pipeline:
        if self._pipeline is None:
            announced = self._parser.frames
            windows = Windows(self._parser.format, announced, self._max_duration_seconds)
            expected = announced and announced * windows.sample_rate // self._parser.format.sample_rate
            encoder = ParallelEncoder(
                self._threads, windows.sample_rate, windows.channels, self._bitrate_kbps, expected
            )
            self._pipeline = _Pipeline(windows, Meter(windows.channels), encoder)
        return self._pipeline

    async def _encode(self, windows: "Iterator[AudioSegment]") -> AsyncIterator[bytes]:
        """Measures and encodes windows; every window of the recording comes by here, in order."""
        while pcm := await self._next_block(windows):
            await self._open().encoder.write(pcm)
            if mp3 := self._take():
                yield mp3
            if len(pcm) < _BLOCK_BYTES:
                return

    async def _next_block(self, windows: "Iterator[AudioSegment]") -> bytes:
        # To hand over what needs no decoding would take longer than to do it.
        if self._pipeline and self._pipeline.windows.is_plain:
            return self._measure(windows)
        return await asyncio.to_thread(self._measure, windows)

    def _measure(self, windows: "Iterator[AudioSegment]") -> bytes:
        """Returns the next windows as one block, measured; only the last one is short."""
        pieces: list[bytes] = []
        size = 0
        for window in windows:
            pieces.append(window.raw_data)
            size += len(window.raw_data)
            if size >= _BLOCK_BYTES:
                break
        block = b"".join(pieces)
        if block:
            self._open().meter.feed(block)
        return block

    def _take(self) -> bytes:
        mp3 = self._open().encoder.take()
        self._stream.add(mp3)
        return mp3
