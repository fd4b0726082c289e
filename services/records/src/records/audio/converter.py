"""A WAV in, an MP3 out, while it arrives: parser, PCM windows, meter and encoder, and at last the head."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .encoder import Encoder
from .errors import BrokenAudio
from .info import Stream
from .levels import Meter, Waveform
from .tags import make_id3
from .wav import WavParser
from .windows import Windows

if TYPE_CHECKING:
    from pydub import AudioSegment

DEFAULT_MAX_DURATION_SECONDS = 24 * 60 * 60

# A byte of WAV can be a second of MP3 (at 1 Hz), so what a large piece gives comes in pieces too.
_PIECE_BYTES = 64 * 1024


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
    truncated: bool = False
    """Whether the WAV ended before the audio that it announces."""


class Converter:
    """Turns a WAV that arrives in pieces into MP3 bytes, which depend on the WAV alone and not on the pieces.

    Memory is bounded whatever the input: besides a piece, some windows of PCM for the encoder, sixteen for
    the meter, and 64 KiB of MP3. The iterators block, as they encode, but leave the GIL free meanwhile: drain
    each in a thread before the next call. An exception ends the converter.
    """

    def __init__(
        self, bitrate_kbps: int = 128, *, max_duration_seconds: int = DEFAULT_MAX_DURATION_SECONDS
    ) -> None:
        """Asks for a bitrate of 8 to 320 kbit/s; LAME takes the nearest that the sample rate has."""
        self._bitrate_kbps = bitrate_kbps
        self._max_duration_seconds = max_duration_seconds
        self._parser = WavParser()
        self._pipeline: tuple[Windows, Meter, Encoder] | None = None
        self._mp3 = bytearray()
        self._stream = Stream()
        self._properties: Properties | None = None
        self._waveform: Waveform | None = None

    @property
    def metadata(self) -> list[tuple[bytes, bytes]]:
        """Name and raw body of the WAV's LIST, bext and ID3 chunks so far: see WavParser.metadata."""
        return self._parser.metadata

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

    def feed(self, data: bytes | memoryview) -> Iterator[bytes]:
        """Takes the next piece of the WAV, of any size, and yields the MP3 bytes that are ready, often none.

        Raises UnsupportedAudio, BrokenAudio or TooLong as soon as the bytes that show it are there.
        """
        for audio in self._parser.feed(data):
            windows, meter, encoder = self._open()
            yield from self._encode(windows.feed(audio), meter, encoder)

    def finish(self) -> Iterator[bytes]:
        """Says that the WAV has ended and yields the rest of the MP3, to which the head is still missing.

        Afterwards `properties` and `waveform` hold, and `make_head` can be called.

        Raises BrokenAudio when there was no audio, and UnsupportedAudio for a few bytes that are no WAV.
        """
        self._parser.finish()
        windows, meter, encoder = self._open()
        yield from self._encode(windows.finish(), meter, encoder)
        if windows.frames == 0:
            raise BrokenAudio("The WAV holds no audio: its data chunk has not one whole sample frame.")
        self._mp3 += encoder.finish()
        rest = self._take_mp3()
        header = self._stream.header
        levels = meter.finish()
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
        yield rest

    def make_head(self, title: str | None = None) -> bytes:
        """Returns what belongs in front of all that `feed` and `finish` have returned: the tags, if there are
        any, and the Info frame, by which players know the length and leave out what the codec adds.

        `title` wins over that of the WAV.
        """
        windows, _, _ = self._open()
        return make_id3(self.metadata, title) + self._stream.make_info_frame(windows.made_frames)

    def _open(self) -> tuple[Windows, Meter, Encoder]:
        if self._pipeline is None:
            windows = Windows(self._parser.format, self._parser.frames, self._max_duration_seconds)
            encoder = Encoder(windows.sample_rate, windows.channels, self._bitrate_kbps)
            self._pipeline = windows, Meter(windows.channels), encoder
        return self._pipeline

    def _encode(self, windows: "Iterable[AudioSegment]", meter: Meter, encoder: Encoder) -> Iterator[bytes]:
        """Measures and encodes windows; every window of the recording comes by here, in order."""
        for window in windows:
            meter.feed(window.raw_data)
            self._mp3 += encoder.encode(window.raw_data)
            if len(self._mp3) >= _PIECE_BYTES:
                yield self._take_mp3()

    def _take_mp3(self) -> bytes:
        """Returns the MP3 that has come together, after noting for the head what it is."""
        mp3 = bytes(self._mp3)
        self._mp3.clear()
        self._stream.add(mp3)
        return mp3
