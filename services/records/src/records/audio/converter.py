"""Converts a WAV into an MP3 while it arrives: parser, PCM blocks, meter, encoders, and at last the head."""

from collections.abc import AsyncIterator, Hashable, Iterator
from dataclasses import dataclass
from functools import partial

from .blocks import BlockMaker
from .errors import BrokenAudio, OutOfProportion
from .info import Stream
from .levels import Meter, Waveform, dbfs
from .parallel import EncoderThreads, ParallelEncoder
from .pcm import FULL_SCALE
from .tags import make_id3
from .wav import WavParser

DEFAULT_MAX_DURATION_SECONDS = 24 * 60 * 60

# At 1 Hz a byte of WAV becomes a second of MP3. So even the PCM of one piece is measured and encoded in
# blocks of about this size.
_BLOCK_BYTES = 128 * 1024
# An MP3 may have at most 64 times the bytes of its WAV, and 1 MiB more. A usual WAV is larger than its MP3.
MAX_GROWTH = 64
MAX_FIXED_GROWTH_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Properties:
    """The properties of a finished MP3. Sample rate, channels and bitrate come from its first MP3 frame."""

    duration_seconds: float
    """Sample frames of the source divided by its sample rate: without the encoder's delay and padding."""
    sample_rate: int
    channels: int
    bitrate_kbps: int
    peak_dbfs: float | None
    """The loudest sample that was encoded, in dB below full scale; None for digital silence.

    If floats were clipped, the loudest of them.
    """
    rms_dbfs: float | None
    """The mean level of what was encoded, in dB below a full-scale square wave; None for digital silence."""
    truncated: bool
    """Whether the WAV ended before the announced audio did. The MP3 has all the audio that arrived."""
    clipped: bool
    """Whether the WAV had floats over full scale, which were cut off."""


@dataclass(frozen=True, slots=True)
class _Pipeline:
    """The stages behind the parser, which need the format."""

    block_maker: BlockMaker
    meter: Meter
    encoder: ParallelEncoder


class Converter:
    """Turns a WAV that arrives in pieces into MP3 bytes.

    Its memory is bounded for any input: it holds a piece, and the PCM that may wait for an encoder. Use it in
    one event loop, one call at a time; threads do the work that takes long. After an exception it is of no
    more use.
    """

    def __init__(
        self,
        threads: EncoderThreads,
        bitrate_kbps: int = 128,
        *,
        max_duration_seconds: int = DEFAULT_MAX_DURATION_SECONDS,
    ) -> None:
        """`bitrate_kbps` is 8 to 320. LAME takes the nearest bitrate that exists at the sample rate."""
        self.user: Hashable = None
        """The user whose turns at the threads the recording uses. Set it before the first `feed`."""
        self._threads = threads
        self._bitrate_kbps = bitrate_kbps
        self._max_duration_seconds = max_duration_seconds
        self._parser = WavParser()
        self._pipeline: _Pipeline | None = None
        self._stream = Stream()
        self._fed_bytes = 0
        self._properties: Properties | None = None
        self._waveform: Waveform | None = None

    @property
    def properties(self) -> Properties:
        """The properties of the MP3, once `finish` has ended; raises RuntimeError before."""
        if self._properties is None:
            raise RuntimeError("the MP3 is not finished")
        return self._properties

    @property
    def waveform(self) -> Waveform:
        """The waveform of what was encoded, once `finish` has ended; raises RuntimeError before."""
        if self._waveform is None:
            raise RuntimeError("the MP3 is not finished")
        return self._waveform

    @property
    def seconds(self) -> float:
        """The length of the audio that has arrived, or that the header announces if that is more."""
        if not self._pipeline:
            return 0.0
        arrived = self._pipeline.block_maker.source_sample_frames
        announced = self._parser.data_chunk.announced_sample_frames
        return max(arrived, announced or 0) / self._parser.format.sample_rate

    @property
    def cuts(self) -> int:
        """How many times the recording has been cut, so that several threads encode it."""
        return self._get_pipeline().encoder.cuts

    @property
    def missed_joins(self) -> int:
        """At how many of the cuts the MP3s could not be joined, so that one thread went on alone."""
        return self._get_pipeline().encoder.missed_joins

    async def feed(self, data: bytes) -> AsyncIterator[bytes]:
        """Takes the next piece of the WAV, of any size, and yields the MP3 bytes that are ready, often none.

        Raises UnsupportedAudio, BrokenAudio, OutOfProportion or TooLong as soon as the reason has arrived.
        """
        self._fed_bytes += len(data)
        async for mp3 in self._encode(self._read(self._parser.feed(data))):
            yield mp3

    async def finish(self) -> AsyncIterator[bytes]:
        """Says that the WAV has ended, and yields the rest of the MP3, which still lacks its head.

        Afterwards `properties` and `waveform` are known, and `make_head` can be called.
        Raises BrokenAudio if the WAV held no audio, and UnsupportedAudio if a few bytes are no WAV.
        """
        async for mp3 in self._encode(self._read_end()):
            yield mp3
        block_maker = self._get_pipeline().block_maker
        if block_maker.source_sample_frames == 0:
            raise BrokenAudio(
                "The WAV holds no audio: its data chunk has no whole sample frame; "
                "at least one is needed. Send the whole WAV."
            )
        await self._get_pipeline().encoder.finish()
        yield self._take_mp3()
        levels = self._get_pipeline().meter.finish()
        header = self._stream.header
        is_clipped = block_maker.peak > FULL_SCALE
        self._waveform = levels.waveform
        self._properties = Properties(
            duration_seconds=block_maker.source_sample_frames / self._parser.format.sample_rate,
            sample_rate=header.sample_rate,
            channels=header.channels,
            bitrate_kbps=header.bitrate_kbps,
            peak_dbfs=dbfs(block_maker.peak) if is_clipped else levels.peak_dbfs,
            rms_dbfs=levels.rms_dbfs,
            truncated=self._parser.truncated,
            clipped=is_clipped,
        )

    def make_head(self, title: str | None = None) -> bytes:
        """Returns the bytes that belong in front of all that `feed` and `finish` have yielded.

        They are the ID3 tag, if there is anything to say, and the Info frame. The Info frame tells players
        the length, the encoder's delay and the padding. `title` replaces the WAV's own title.
        """
        encoder = self._get_pipeline().encoder
        return make_id3(self._parser.metadata, title) + self._stream.make_info_frame(
            encoder.sample_frames, encoder.mp3_frames
        )

    def close(self) -> None:
        """Lets go of its threads and its memory, at the end or before."""
        self._parser.close()
        if self._pipeline:
            self._pipeline.encoder.close()

    def _read(self, audio: Iterator[memoryview]) -> Iterator[bytes]:
        for view in audio:
            yield from self._get_pipeline().block_maker.feed(view, self._parser.data_chunk)

    def _read_end(self) -> Iterator[bytes]:
        yield from self._read(self._parser.finish())
        yield from self._get_pipeline().block_maker.finish()

    def _get_pipeline(self) -> _Pipeline:
        if self._pipeline is None:
            source, announced = self._parser.format, self._parser.data_chunk.announced_sample_frames
            block_maker = BlockMaker(source, self._max_duration_seconds)
            expected = announced and announced * block_maker.sample_rate // source.sample_rate
            encoder = ParallelEncoder(
                self._threads,
                block_maker.sample_rate,
                block_maker.channels,
                self._bitrate_kbps,
                expected,
                self.user,
            )
            self._pipeline = _Pipeline(block_maker, Meter(block_maker.channels), encoder)
        return self._pipeline

    async def _encode(self, blocks: Iterator[bytes]) -> AsyncIterator[bytes]:
        """Measures and encodes all blocks. Every block of the recording passes through here, in order."""
        while pcm := await self._next_block(blocks):
            await self._get_pipeline().encoder.write(pcm)
            if mp3 := self._take_mp3():
                yield mp3
            if len(pcm) < _BLOCK_BYTES:
                return

    async def _next_block(self, blocks: Iterator[bytes]) -> bytes:
        # Plain audio needs no decoding; handing it to a thread would take longer than measuring it here.
        if self._pipeline and self._pipeline.block_maker.is_plain:
            return self._measure(blocks)
        return await self._threads.decoding.run(self.user, partial(self._measure, blocks))

    def _measure(self, blocks: Iterator[bytes]) -> bytes:
        """Measures the next blocks as one, and returns it.

        It has at least _BLOCK_BYTES, except for the last one.
        """
        taken: list[bytes] = []
        size_bytes = 0
        for block in blocks:
            taken.append(block)
            size_bytes += len(block)
            if size_bytes >= _BLOCK_BYTES:
                break
        pcm = b"".join(taken)
        if pcm:
            self._get_pipeline().meter.feed(pcm)
        return pcm

    def _take_mp3(self) -> bytes:
        mp3 = self._get_pipeline().encoder.take()
        self._stream.add(mp3)
        if self._stream.size_bytes > MAX_GROWTH * self._fed_bytes + MAX_FIXED_GROWTH_BYTES:
            source = self._parser.format
            what_to_do = source.offer(
                "Resample it with: ffmpeg -i in.wav -ar 8000 out.wav", "Send it at 8000 Hz or more."
            )
            raise OutOfProportion(
                f"The MP3 is larger than {MAX_GROWTH} times the {self._fed_bytes} bytes of the WAV and"
                f" {MAX_FIXED_GROWTH_BYTES} bytes, because the WAV has {source.sample_rate} Hz. {what_to_do}"
            )
        return mp3
