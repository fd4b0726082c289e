"""A WAV in, an MP3 out, while it arrives: parser, PCM windows, meter and encoder, and at last the head."""

from dataclasses import dataclass

from .encoder import Encoder
from .errors import BrokenAudio
from .info import Stream
from .levels import Meter, Waveform
from .pcm import Windows
from .tags import make_id3
from .wav import WavParser


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

    Memory is bounded whatever the input: besides a piece and its MP3, one window of PCM for the encoder and
    sixteen for the meter. The calls block, as they encode, but leave the GIL free meanwhile: make them in a
    thread, one at a time. An exception ends the converter.
    """

    def __init__(self, bitrate_kbps: int = 128) -> None:
        """Asks for a bitrate of 8 to 320 kbit/s; LAME takes the nearest that the sample rate has."""
        self._bitrate_kbps = bitrate_kbps
        self._parser = WavParser()
        self._pipeline: tuple[Windows, Meter, Encoder] | None = None
        self._stream = Stream()
        self._properties: Properties | None = None
        self._waveform: Waveform | None = None

    @property
    def metadata(self) -> list[tuple[bytes, bytes]]:
        """Name and body of the WAV's LIST and bext chunks."""
        return []

    @property
    def properties(self) -> Properties:
        """What the MP3 is, once `finish` has returned; a RuntimeError before."""
        if self._properties is None:
            raise RuntimeError("the MP3 is not finished")
        return self._properties

    @property
    def waveform(self) -> Waveform:
        """The peaks of what was encoded, once `finish` has returned; a RuntimeError before."""
        if self._waveform is None:
            raise RuntimeError("the MP3 is not finished")
        return self._waveform

    def feed(self, data: bytes | memoryview) -> bytes:
        """Takes the next piece of the WAV, of any size, and returns the MP3 bytes that are ready, often none.

        Raises UnsupportedAudio or BrokenAudio as soon as the bytes that show it are there.
        """
        mp3 = bytearray()
        for audio in self._parser.feed(data):
            windows, meter, encoder = self._open()
            for window in windows.feed(audio):
                meter.feed(window.raw_data)
                mp3 += encoder.encode(window.raw_data)
        return self._noted(mp3)

    def finish(self) -> bytes:
        """Says that the WAV has ended and returns the rest of the MP3, to which the head is still missing.

        Afterwards `properties` and `waveform` hold, and `make_head` can be called.

        Raises BrokenAudio when there was no audio, and UnsupportedAudio for a few bytes that are no WAV.
        """
        self._parser.finish()
        windows, meter, encoder = self._open()
        mp3 = bytearray()
        for window in windows.finish():
            meter.feed(window.raw_data)
            mp3 += encoder.encode(window.raw_data)
        if windows.frames == 0:
            raise BrokenAudio("The WAV holds no audio: its data chunk has not one whole sample frame.")
        mp3 += encoder.finish()
        rest = self._noted(mp3)
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
        )
        return rest

    def make_head(self, title: str | None = None) -> bytes:
        """Returns what belongs in front of all that `feed` and `finish` have returned: the tags, if there are
        any, and the Info frame, by which players know the length and leave out what the codec adds.

        `title` wins over that of the WAV.
        """
        windows, _, _ = self._open()
        # LAME resamples, so this is what the encoder took, to within a sample.
        samples = round(windows.frames * self.properties.sample_rate / self._parser.format.sample_rate)
        return make_id3(self.metadata, title) + self._stream.make_info_frame(samples)

    def _open(self) -> tuple[Windows, Meter, Encoder]:
        if self._pipeline is None:
            source = self._parser.format
            windows = Windows(source)
            encoder = Encoder(source.sample_rate, windows.channels, self._bitrate_kbps)
            self._pipeline = windows, Meter(windows.channels), encoder
        return self._pipeline

    def _noted(self, mp3: bytearray) -> bytes:
        """Returns `mp3` after noting for the head what it is."""
        noted = bytes(mp3)
        self._stream.add(noted)
        return noted
