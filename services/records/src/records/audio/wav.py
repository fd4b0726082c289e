"""A WAV file that arrives in pieces: its format first, then its audio, with nothing else kept.

The layout is that of the "Multimedia Programming Interface and Data Specifications 1.0" (IBM and Microsoft,
1991) and of Microsoft's "Multiple channel audio data and WAVE files" (WAVEFORMATEXTENSIBLE). What writers to
a pipe leave behind is taken as they mean it: a `data` size of 0xFFFFFFFF, or of 0 in an unfinished header,
runs to the end of the input, and audio that ends early is complete as far as it goes. What follows the
announced audio is ignored.
"""

import struct
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from enum import Enum, auto

from .errors import BrokenAudio, UnsupportedAudio

MAX_CHANNELS = 32
MAX_FMT_BYTES = 1024
MAX_CHUNKS_BEFORE_AUDIO = 4096
MAX_BYTES_BEFORE_AUDIO = 64 * 1024 * 1024

_RIFF_HEADER_BYTES = 12
_CHUNK_HEADER_BYTES = 8
_FMT_BYTES = 16
_FMT_EXTENSIBLE_BYTES = 40
_UNKNOWN_SIZE = 0xFFFFFFFF
_ENDLESS = 1 << 63

_PCM = 0x0001
_EXTENSIBLE = 0xFFFE
# A sub-format is a GUID whose first bytes are the codec's tag; these are the families that carry one.
_MEDIA_SUBTYPE = bytes.fromhex("000000001000800000aa00389b71")
_AMBISONIC_SUBTYPE = bytes.fromhex("00002107d3118644c8c1ca000000")

_CODECS = {
    0x0002: "Microsoft ADPCM",
    0x0003: "IEEE float",
    0x0005: "IBM CVSD",
    0x0006: "A-law",
    0x0007: "µ-law",
    0x0008: "DTS",
    0x0010: "OKI ADPCM",
    0x0011: "IMA ADPCM",
    0x0014: "G.723 ADPCM",
    0x0017: "Dialogic OKI ADPCM",
    0x0020: "Yamaha ADPCM",
    0x0022: "DSP Group TrueSpeech",
    0x0031: "GSM 6.10",
    0x0040: "G.721 ADPCM",
    0x0042: "G.723.1",
    0x0045: "G.726 ADPCM",
    0x0050: "MPEG Layer I or II",
    0x0055: "MP3",
    0x0064: "G.726 ADPCM",
    0x0092: "Dolby AC-3 over S/PDIF",
    0x00FF: "AAC",
    0x0160: "Windows Media Audio 1",
    0x0161: "Windows Media Audio",
    0x0162: "Windows Media Audio Professional",
    0x0163: "Windows Media Audio Lossless",
    0x0270: "ATRAC3",
    0x1600: "AAC",
    0x1610: "HE-AAC",
    0x2000: "AC-3",
    0x2001: "DTS",
    0x674F: "Ogg Vorbis",
    0x6771: "Ogg Vorbis",
    0x704F: "Opus",
    0xF1AC: "FLAC",
}

# How other files begin: offset, bytes, name, and the usual ending of the name for the way out.
_OTHER_FILES = (
    (0, b"RIFX", "a big-endian WAV (RIFX)", "wav"),
    (0, b"RF64", "an RF64 WAV", "wav"),
    (0, b"BW64", "a BW64 WAV", "wav"),
    (0, b"riff\x2e\x91\xcf\x11", "Sony Wave64", "w64"),
    (8, b"AIFF", "AIFF", "aiff"),
    (8, b"AIFC", "AIFF-C", "aiff"),
    (8, b"AVI ", "AVI", "avi"),
    (4, b"ftyp", "MP4, M4A or MOV", "m4a"),
    (0, b"ID3", "MP3", "mp3"),
    (0, b"OggS", "Ogg", "ogg"),
    (0, b"fLaC", "FLAC", "flac"),
    (0, b"caff", "Apple CAF", "caf"),
    (0, b".snd", "Sun AU", "au"),
    (0, b"wvpk", "WavPack", "wv"),
    (0, b"MAC ", "Monkey's Audio", "ape"),
    (0, b"#!AMR", "AMR", "amr"),
    (0, b"\x1aE\xdf\xa3", "Matroska or WebM", "webm"),
    (0, b"0&\xb2u", "Windows Media", "wma"),
    (0, b"\xff\xf1", "AAC", "aac"),
    (0, b"\xff\xf9", "AAC", "aac"),
    (0, b"\xff\xe3", "MP3", "mp3"),
    (0, b"\xff\xf2", "MP3", "mp3"),
    (0, b"\xff\xf3", "MP3", "mp3"),
    (0, b"\xff\xfa", "MP3", "mp3"),
    (0, b"\xff\xfb", "MP3", "mp3"),
)


@dataclass(frozen=True, slots=True)
class Format:
    """How the audio of a WAV is laid out; only what can be converted gets one."""

    channels: int
    sample_rate: int
    sample_bytes: int
    """Bytes of one sample of one channel, 1 to 4, little-endian; one byte is unsigned, more are signed."""
    channel_mask: int
    """The speaker of each channel as bits of `dwChannelMask`, 0 when the file does not say."""

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of every channel: the block align of the specification."""
        return self.channels * self.sample_bytes


class _Kind(Enum):
    TAKE = auto()
    SKIP = auto()
    AUDIO = auto()


@dataclass(frozen=True, slots=True)
class _Want:
    """What the parser asks of the input next: so many bytes to keep, to pass over or to hand out."""

    kind: _Kind
    size: int
    what: str


class WavParser:
    """Finds format and audio in a WAV that is fed in pieces of any size.

    At most MAX_FMT_BYTES are ever held. An exception ends the parser: nothing more may be fed to it.
    """

    def __init__(self) -> None:
        self._format: Format | None = None
        self._held = bytearray()
        self._fed_bytes = 0
        self._steps = self._parse()
        self._want = next(self._steps)

    @property
    def format(self) -> Format:
        """The format, known when the first audio is handed out and after `finish`; a RuntimeError before."""
        if self._format is None:
            raise RuntimeError("the fmt chunk has not been read")
        return self._format

    def feed(self, data: bytes | memoryview) -> Iterator[memoryview]:
        """Yields the audio in `data`, as views of it that may end inside a sample.

        Raises UnsupportedAudio or BrokenAudio as soon as the bytes that show it are there.
        """
        rest = memoryview(data)
        while rest:
            part = rest[: self._want.size - len(self._held)]
            rest = rest[len(part) :]
            self._fed_bytes += len(part)
            if self._want.kind is _Kind.TAKE:
                self._held += part
                if len(self._held) == self._want.size:
                    taken = bytes(self._held)
                    self._held.clear()
                    self._want = self._steps.send(taken)
            else:
                if self._want.kind is _Kind.AUDIO:
                    yield part
                left = self._want.size - len(part)
                self._want = replace(self._want, size=left) if left else next(self._steps)

    def finish(self) -> None:
        """Says that the input has ended; raises BrokenAudio or UnsupportedAudio where no audio was found."""
        if self._fed_bytes == 0:
            raise BrokenAudio("The recording is empty: 0 bytes arrived.")
        if self._fed_bytes < _RIFF_HEADER_BYTES and self._held[:4] != b"RIFF"[: len(self._held)]:
            raise _not_a_wav(bytes(self._held))
        if self._format is not None and self._want.what == "chunk header" and not self._held:
            raise BrokenAudio(
                f"The WAV of {self._fed_bytes} bytes has no data chunk, which would hold the audio."
            )
        if self._want.what != "audio":
            raise BrokenAudio(
                f"The WAV ends after {self._fed_bytes} bytes, inside its {self._want.what}, before any audio."
            )

    def _parse(self) -> Generator[_Want, bytes, None]:
        riff_header = yield _Want(_Kind.TAKE, _RIFF_HEADER_BYTES, "RIFF header")
        if riff_header[:4] != b"RIFF" or riff_header[8:] != b"WAVE":
            raise _not_a_wav(riff_header)
        riff_size = int.from_bytes(riff_header[4:8], "little")

        for _ in range(MAX_CHUNKS_BEFORE_AUDIO):
            chunk_header = yield _Want(_Kind.TAKE, _CHUNK_HEADER_BYTES, "chunk header")
            name, size = chunk_header[:4], int.from_bytes(chunk_header[4:], "little")
            if name == b"data":
                yield from self._pass_audio(size, riff_size)
                return
            if name == b"fmt ":
                yield from self._take_format(size)
            elif self._fed_bytes + size > MAX_BYTES_BEFORE_AUDIO:
                raise BrokenAudio(
                    f"Chunk {_shown(name)} says {size} bytes; "
                    f"at most {MAX_BYTES_BEFORE_AUDIO} may come before the audio."
                )
            elif size:
                yield _Want(_Kind.SKIP, size, f"chunk {_shown(name)}")
            if size % 2:
                yield _Want(_Kind.SKIP, 1, "chunk padding")
        raise BrokenAudio(f"The WAV has {MAX_CHUNKS_BEFORE_AUDIO} chunks and none of them is a data chunk.")

    def _take_format(self, size: int) -> Generator[_Want, bytes, None]:
        if self._format is not None:
            raise BrokenAudio("The WAV has two fmt chunks, so its format is not certain.")
        if not _FMT_BYTES <= size <= MAX_FMT_BYTES:
            raise BrokenAudio(f"The fmt chunk says {size} bytes; {_FMT_BYTES} to {MAX_FMT_BYTES} make sense.")
        self._format = read_format((yield _Want(_Kind.TAKE, size, "fmt chunk")))

    def _pass_audio(self, size: int, riff_size: int) -> Generator[_Want, bytes, None]:
        if self._format is None:
            raise BrokenAudio(
                "The data chunk comes before any fmt chunk, so the format of the audio is not known."
            )
        # A writer that cannot go back leaves an empty file's header; a file that is truly empty and goes on
        # after its data chunk says so in the size of the RIFF chunk.
        unfinished = riff_size == _UNKNOWN_SIZE or riff_size + _CHUNK_HEADER_BYTES <= self._fed_bytes
        if size == _UNKNOWN_SIZE or (size == 0 and unfinished):
            size = _ENDLESS
        if size:
            yield _Want(_Kind.AUDIO, size, "audio")
        yield _Want(_Kind.SKIP, _ENDLESS, "audio")


def read_format(fmt: bytes) -> Format:
    """Reads the body of a fmt chunk of at least 16 bytes: PCMWAVEFORMAT, -FORMATEX or -FORMATEXTENSIBLE.

    Raises UnsupportedAudio for a codec, depth or number of channels that is not converted, and BrokenAudio
    where fields contradict each other.
    """
    tag, channels, sample_rate, _, block_align, bits = struct.unpack_from("<HHIIHH", fmt)
    mask = 0
    codec = f"0x{tag:04X}"
    valid_bits = bits
    if tag == _EXTENSIBLE:
        if len(fmt) < _FMT_EXTENSIBLE_BYTES:
            raise BrokenAudio(
                f"The extensible fmt chunk has {len(fmt)} bytes; it needs {_FMT_EXTENSIBLE_BYTES}."
            )
        valid_bits, mask, subtype = struct.unpack_from("<HI16s", fmt, 18)
        tag, codec = _read_subtype(subtype)
    if tag != _PCM:
        name = f"{codec} ({_CODECS[tag]})" if tag in _CODECS else codec
        raise UnsupportedAudio(
            f"fmt chunk says codec {name}; integer PCM of 8, 16, 24 or 32 bit is supported. "
            "Convert it with: ffmpeg -i in.wav -c:a pcm_s16le out.wav"
        )
    _check_pcm(channels, bits, valid_bits, block_align)
    if sample_rate == 0:
        raise BrokenAudio("fmt chunk says a sample rate of 0 Hz.")
    return Format(channels, sample_rate, bits // 8, mask)


def _read_subtype(subtype: bytes) -> tuple[int | None, str]:
    """Returns the codec's tag, None where the GUID is of no known family, and how to name it to a person."""
    tag = int.from_bytes(subtype[:2], "little")
    if subtype[2:] == _MEDIA_SUBTYPE:
        return tag, f"0x{tag:04X}"
    first, second, third = struct.unpack_from("<IHH", subtype)
    guid = f"{first:08x}-{second:04x}-{third:04x}-{subtype[8:10].hex()}-{subtype[10:].hex()}"
    if subtype[2:] == _AMBISONIC_SUBTYPE:
        return None, f"{guid} (ambisonic B-format)"
    return None, guid


def _check_pcm(channels: int, bits: int, valid_bits: int, block_align: int) -> None:
    if channels == 0:
        raise BrokenAudio("fmt chunk says 0 channels.")
    if channels > MAX_CHANNELS:
        raise UnsupportedAudio(
            f"fmt chunk says {channels} channels; 1 to {MAX_CHANNELS} are supported. "
            "Convert it with: ffmpeg -i in.wav -ac 2 -c:a pcm_s16le out.wav"
        )
    if bits not in (8, 16, 24, 32):
        raise UnsupportedAudio(
            f"fmt chunk says PCM of {bits} bit; integer PCM of 8, 16, 24 or 32 bit is supported. "
            "Convert it with: ffmpeg -i in.wav -c:a pcm_s16le out.wav"
        )
    if block_align != channels * bits // 8:
        raise BrokenAudio(
            f"fmt chunk says a block align of {block_align} bytes, "
            f"but {channels} channels of {bits} bit take {channels * bits // 8}."
        )
    # Fewer valid bits are left-justified, with zeros below them, so they need no treatment of their own.
    if valid_bits > bits:
        raise BrokenAudio(f"fmt chunk says {valid_bits} valid bits in samples of {bits}.")


def _not_a_wav(start: bytes) -> UnsupportedAudio:
    for offset, mark, name, ending in _OTHER_FILES:
        if start.startswith(mark, offset):
            return UnsupportedAudio(
                f"This is {name}, which is not supported; send a WAV (RIFF) of integer PCM. "
                f"Convert it with: ffmpeg -i in.{ending} -c:a pcm_s16le out.wav"
            )
    return UnsupportedAudio(
        f"This is not a WAV: it starts with {_shown(start)}, not with 'RIFF', a size and 'WAVE'. "
        "Convert it with: ffmpeg -i in -c:a pcm_s16le out.wav"
    )


def _shown(name: bytes) -> str:
    """Returns bytes of the sender's as quoted ASCII, whatever they are."""
    return ascii(name.decode("latin-1"))
