"""A WAV in, an MP3 out, while it arrives: parser, then PCM windows, then encoder."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .encoder import Encoder
from .errors import BrokenAudio
from .mp3 import HEADER_BYTES, read_frame_header
from .wav import WavParser
from .windows import Windows

if TYPE_CHECKING:
    from pydub import AudioSegment

DEFAULT_MAX_DURATION_SECONDS = 24 * 60 * 60

# A byte of WAV can be a second of MP3 (at 1 Hz), so what a large piece gives comes in pieces too.
_PIECE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Properties:
    """What a finished MP3 is; rate, channels and bitrate are read from its first frame, not as asked for."""

    duration_seconds: float
    """Sample frames of the source by its sample rate: without the encoder's delay and padding."""
    sample_rate: int
    channels: int
    bitrate_kbps: int
    truncated: bool = False
    """The WAV ended before the audio that its header announces; the MP3 is complete as far as that goes."""


class Converter:
    """Turns a WAV that arrives in pieces into MP3 bytes, which depend on the WAV alone and not on the pieces.

    Memory is bounded whatever the input: besides a piece, some windows of PCM and 64 KiB of MP3. The
    iterators block, as they encode, but leave the GIL free meanwhile: drain each in a thread before the next
    call. An exception ends the converter.
    """

    def __init__(
        self, bitrate_kbps: int = 128, *, max_duration_seconds: int = DEFAULT_MAX_DURATION_SECONDS
    ) -> None:
        """Asks for a bitrate of 8 to 320 kbit/s; LAME takes the nearest that the sample rate has."""
        self._bitrate_kbps = bitrate_kbps
        self._max_duration_seconds = max_duration_seconds
        self._parser = WavParser()
        self._pipeline: tuple[Windows, Encoder] | None = None
        self._mp3 = bytearray()
        self._first_header = b""
        self._properties: Properties | None = None

    @property
    def properties(self) -> Properties:
        """What the MP3 is, once `finish` has ended; a RuntimeError before."""
        if self._properties is None:
            raise RuntimeError("the MP3 is not finished")
        return self._properties

    @property
    def metadata(self) -> list[tuple[bytes, bytes]]:
        """Name and raw body of the WAV's LIST, bext and ID3 chunks so far: see WavParser.metadata."""
        return self._parser.metadata

    def feed(self, data: bytes | memoryview) -> Iterator[bytes]:
        """Takes the next piece of the WAV, of any size, and yields the MP3 bytes that are ready, often none.

        Raises UnsupportedAudio, BrokenAudio or TooLong as soon as the bytes that show it are there.
        """
        for audio in self._parser.feed(data):
            windows, encoder = self._open()
            yield from self._encode(windows.feed(audio), encoder)

    def finish(self) -> Iterator[bytes]:
        """Says that the WAV has ended and yields the rest of the MP3, after which `properties` holds.

        Raises BrokenAudio when there was no audio, and UnsupportedAudio for a few bytes that are no WAV.
        """
        self._parser.finish()
        windows, encoder = self._open()
        yield from self._encode(windows.finish(), encoder)
        if windows.frames == 0:
            raise BrokenAudio("The WAV holds no audio: its data chunk has not one whole sample frame.")
        self._mp3 += encoder.finish()
        rest = self._take_mp3()
        header = read_frame_header(self._first_header)
        self._properties = Properties(
            duration_seconds=windows.frames / self._parser.format.sample_rate,
            sample_rate=header.sample_rate,
            channels=header.channels,
            bitrate_kbps=header.bitrate_kbps,
            truncated=self._parser.truncated,
        )
        yield rest

    def _open(self) -> tuple[Windows, Encoder]:
        if self._pipeline is None:
            windows = Windows(self._parser.format, self._parser.frames, self._max_duration_seconds)
            self._pipeline = windows, Encoder(windows.sample_rate, windows.channels, self._bitrate_kbps)
        return self._pipeline

    def _encode(self, windows: "Iterable[AudioSegment]", encoder: Encoder) -> Iterator[bytes]:
        """Encodes windows; every window of the recording comes by here, in order."""
        for window in windows:
            self._mp3 += encoder.encode(window)
            if len(self._mp3) >= _PIECE_BYTES:
                yield self._take_mp3()

    def _take_mp3(self) -> bytes:
        mp3 = bytes(self._mp3)
        self._mp3.clear()
        self._first_header = self._first_header or mp3[:HEADER_BYTES]
        return mp3
