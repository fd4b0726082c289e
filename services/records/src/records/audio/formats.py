"""The fmt chunk of a WAV: codec, channels, rate and layout of the samples.

After the "Multimedia Programming Interface and Data Specifications 1.0" (IBM and Microsoft, 1991),
Microsoft's "New Multimedia Data Types and Data Techniques" (1994, ADPCM) and "Multiple channel audio data and
WAVE files" (WAVEFORMATEXTENSIBLE).
"""

import struct
from dataclasses import dataclass
from enum import Enum

from .errors import BrokenAudio, UnsupportedAudio

MIN_FMT_BYTES = 14
MAX_CHANNELS = 32
HIGHEST_SAMPLE_RATE = 768_000
# Writers use 256 to 4096 bytes. Samples of a block depend on each other, so larger ones are slow to decode.
MAX_ADPCM_BLOCK_BYTES = 8 * 1024

_FMT_PCM_BYTES = 16
_FMT_EXTENSIBLE_BYTES = 40
_EXTENSIBLE = 0xFFFE
_MAX_MS_ADPCM_CHANNELS = 2
_MAX_INTEGER_BYTES = 8
_FLOAT_BYTES = (4, 8)
_ADPCM_BITS = 4

# A sub-format is a GUID whose first bytes are the codec's tag; these are the families that carry one.
_MEDIA_SUBTYPE = bytes.fromhex("000000001000800000aa00389b71")
_AMBISONIC_SUBTYPE = bytes.fromhex("00002107d3118644c8c1ca000000")

_SUPPORTED = "integer PCM, IEEE float, A-law, µ-law, IMA ADPCM and Microsoft ADPCM are supported"
_WAY_OUT = "Convert it with: ffmpeg -i in.wav -c:a pcm_s16le out.wav"


class Codec(Enum):
    """How samples are written, by the tag of the fmt chunk."""

    INTEGER = 0x0001
    MS_ADPCM = 0x0002
    FLOAT = 0x0003
    A_LAW = 0x0006
    MU_LAW = 0x0007
    IMA_ADPCM = 0x0011


_TAGS = [codec.value for codec in Codec]
_CODEC_NAMES = {
    0x0001: "integer PCM",
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


@dataclass(frozen=True, slots=True)
class Format:
    """How the audio of a WAV is laid out; only what can be converted gets one."""

    codec: Codec
    channels: int
    sample_rate: int
    block_bytes: int
    """Bytes of the smallest unit that decodes by itself: a sample of every channel, or a block of ADPCM."""
    channel_mask: int = 0
    """The speaker of each channel as bits of `dwChannelMask`, 0 when the file does not say."""
    is_big_endian: bool = False

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample of one channel (not of ADPCM): one byte is unsigned, more are signed."""
        return self.block_bytes // self.channels

    def frames(self, audio_bytes: int) -> int:
        """Returns how many sample frames there are in so many bytes, where the last block may be short."""
        blocks, rest = divmod(audio_bytes, self.block_bytes)
        return blocks * self._frames_of_block(self.block_bytes) + self._frames_of_block(rest)

    def _frames_of_block(self, size: int) -> int:
        # A block of ADPCM begins with one sample (IMA) or two (Microsoft) of every channel; the others follow
        # with four bits each, eight of one channel at a time (IMA) or in turn.
        if self.codec is Codec.IMA_ADPCM:
            groups, _ = divmod(size, 4 * self.channels)
            return 8 * (groups - 1) + 1 if groups else 0
        if self.codec is Codec.MS_ADPCM:
            octets = size - 7 * self.channels
            return 2 + 2 * octets // self.channels if octets >= 0 else 0
        return size // self.block_bytes


def read_format(fmt: bytes, *, is_big_endian: bool = False) -> Format:
    """Reads the body of a fmt chunk of at least 14 bytes: WAVEFORMAT, PCM-, -EX or -EXTENSIBLE.

    Raises UnsupportedAudio for a codec, depth, rate or number of channels that is not converted, and
    BrokenAudio where fields contradict each other.
    """
    order = ">" if is_big_endian else "<"
    tag, channels, sample_rate, _, block_align = struct.unpack_from(f"{order}HHIIH", fmt)
    bits = struct.unpack_from(f"{order}H", fmt, 14)[0] if len(fmt) >= _FMT_PCM_BYTES else 0
    mask = 0
    shown_codec = f"0x{tag:04X}"
    if tag == _EXTENSIBLE:
        if len(fmt) < _FMT_EXTENSIBLE_BYTES:
            raise BrokenAudio(
                f"The extensible fmt chunk has {len(fmt)} bytes; it needs {_FMT_EXTENSIBLE_BYTES}."
            )
        valid_bits, mask, *subtype = struct.unpack_from(f"{order}HIIHH8s", fmt, 18)
        tag, shown_codec = _read_subtype(struct.pack("<IHH8s", *subtype))
        # Fewer valid bits are left-justified, with zeros below them, so they need no treatment of their own.
        if tag == Codec.INTEGER.value and valid_bits > bits:
            raise BrokenAudio(f"fmt chunk says {valid_bits} valid bits in samples of {bits}.")
    if tag not in _TAGS:
        name = f"{shown_codec} ({_CODEC_NAMES[tag]})" if tag in _CODEC_NAMES else shown_codec
        raise UnsupportedAudio(f"fmt chunk says codec {name}; {_SUPPORTED}. {_WAY_OUT}")
    _check_channels_and_rate(channels, sample_rate)
    source = Format(Codec(tag), channels, sample_rate, block_align, mask, is_big_endian)
    if source.codec in (Codec.IMA_ADPCM, Codec.MS_ADPCM):
        _check_blocks(source, bits)
    else:
        _check_samples(source, bits or 8 * block_align // channels)
    return source


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


def _check_channels_and_rate(channels: int, sample_rate: int) -> None:
    if channels == 0:
        raise BrokenAudio("fmt chunk says 0 channels.")
    if channels > MAX_CHANNELS:
        raise UnsupportedAudio(
            f"fmt chunk says {channels} channels; 1 to {MAX_CHANNELS} are supported. "
            "Convert it with: ffmpeg -i in.wav -ac 2 -c:a pcm_s16le out.wav"
        )
    if sample_rate == 0:
        raise BrokenAudio("fmt chunk says a sample rate of 0 Hz.")
    if sample_rate > HIGHEST_SAMPLE_RATE:
        raise UnsupportedAudio(
            f"fmt chunk says a sample rate of {sample_rate} Hz; 1 to {HIGHEST_SAMPLE_RATE} Hz are supported. "
            "Convert it with: ffmpeg -i in.wav -ar 48000 -c:a pcm_s16le out.wav"
        )


def _check_samples(source: Format, bits: int) -> None:
    """Checks samples that stand one after the other, perhaps left-justified in containers that are larger."""
    name = _CODEC_NAMES[source.codec.value]
    if source.codec is Codec.INTEGER and bits > 8 * _MAX_INTEGER_BYTES:
        raise UnsupportedAudio(f"fmt chunk says {name} of {bits} bit; 1 to 64 bit are supported. {_WAY_OUT}")
    if source.codec is Codec.FLOAT and bits not in [8 * size for size in _FLOAT_BYTES]:
        raise UnsupportedAudio(
            f"fmt chunk says {name} of {bits} bit; 32 and 64 bit are supported. {_WAY_OUT}"
        )
    if source.codec in (Codec.A_LAW, Codec.MU_LAW):
        bits = 8
    least_bytes = -(-bits // 8)
    most_bytes = _MAX_INTEGER_BYTES if source.codec is Codec.INTEGER and least_bytes > 1 else least_bytes
    sample_bytes, rest = divmod(source.block_bytes, source.channels)
    if rest or not max(1, least_bytes) <= sample_bytes <= most_bytes:
        raise BrokenAudio(
            f"fmt chunk says a block align of {source.block_bytes} bytes, "
            f"but {source.channels} channels of {bits} bit take {source.channels * least_bytes}."
        )


def _check_blocks(source: Format, bits: int) -> None:
    name = _CODEC_NAMES[source.codec.value]
    if bits != _ADPCM_BITS:
        raise UnsupportedAudio(
            f"fmt chunk says {name} of {bits} bit; {_ADPCM_BITS} bit are supported. {_WAY_OUT}"
        )
    if source.codec is Codec.MS_ADPCM and source.channels > _MAX_MS_ADPCM_CHANNELS:
        raise UnsupportedAudio(
            f"fmt chunk says {name} of {source.channels} channels; it has 1 or 2. {_WAY_OUT}"
        )
    if source.block_bytes > MAX_ADPCM_BLOCK_BYTES:
        raise UnsupportedAudio(
            f"fmt chunk says {name} in blocks of {source.block_bytes} bytes; "
            f"at most {MAX_ADPCM_BLOCK_BYTES} are supported. {_WAY_OUT}"
        )
    if not source.block_bytes or not source.frames(source.block_bytes):
        raise BrokenAudio(
            f"fmt chunk says a block align of {source.block_bytes} bytes, "
            f"too few for the start of a block of {name} with {source.channels} channels."
        )
