"""Reads the fmt chunk of a WAV: codec, channels, sample rate and layout of the samples.

Sources: "Multimedia Programming Interface and Data Specifications 1.0" (IBM and Microsoft, 1991);
Microsoft's "New Multimedia Data Types and Data Techniques" (1994, ADPCM) and "Multiple channel audio data and
WAVE files" (WAVEFORMATEXTENSIBLE).
"""

import struct
from dataclasses import dataclass, field
from enum import Enum

from .errors import SAVE_AS_PCM, WRITE_AGAIN, BrokenAudio, UnsupportedAudio

MIN_FMT_BYTES = 14
MAX_CHANNELS = 32
MAX_SAMPLE_RATE = 768_000
# Writers use 256 to 4096 bytes. The samples of an ADPCM block depend on each other, so large ones decode
# slowly.
MAX_ADPCM_BLOCK_BYTES = 8 * 1024

_FMT_PCM_BYTES = 16
_FMT_EX_BYTES = 18
_FMT_EXTENSIBLE_BYTES = 40
_EXTENSIBLE = 0xFFFE
_STEREO = 2
_MAX_MS_ADPCM_CHANNELS = 2
_MAX_INTEGER_BYTES = 8
# Integers of these bits have one layout, so the block align cannot change it.
_PLAIN_BITS = (8, 16, 32, 64)
# The largest containers of samples up to 32 and up to 64 bit.
_CONTAINER_BYTES = (4, 8)
_FLOAT_BITS = (32, 64)
# Samples of 64 bit are floats more often than integers, so they need the sub-format.
_MAX_BITS_WITHOUT_SUBTYPE = 32
_LAW_BITS = 8
_ADPCM_BITS = 4

# A sub-format is a GUID. In two families its first two bytes are the codec's tag, and the rest is:
_MEDIA_SUBTYPE = bytes.fromhex("000000001000800000aa00389b71")
_AMBISONIC_SUBTYPE = bytes.fromhex("00002107d3118644c8c1ca000000")

_SUPPORTED = "integer PCM, IEEE float, A-law, µ-law, IMA, Xbox and Microsoft ADPCM are supported"
_CONVERT = "Convert it with: ffmpeg -i in.wav -c:a pcm_s16le out.wav"
# FFmpeg numbers sample rates with 31 bits, and cannot mix more channels than this.
_MAX_FFMPEG_SAMPLE_RATE = (1 << 31) - 1
_MAX_FFMPEG_CHANNELS = 64


class Codec(Enum):
    """The codecs that are converted, by their tag in the fmt chunk."""

    INTEGER = 0x0001
    MS_ADPCM = 0x0002
    FLOAT = 0x0003
    A_LAW = 0x0006
    MU_LAW = 0x0007
    IMA_ADPCM = 0x0011
    XBOX_ADPCM = 0x0069
    """IMA ADPCM whose blocks have a sample less: the last four bits of a channel are not used."""


# Bytes at the start of an ADPCM block, for each channel.
ADPCM_HEAD_BYTES = {Codec.IMA_ADPCM: 4, Codec.XBOX_ADPCM: 4, Codec.MS_ADPCM: 7}
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
    0x0065: "G.722",
    0x0069: "Xbox ADPCM",
    0x0083: "G.729",
    0x0092: "Dolby AC-3 over S/PDIF",
    0x00FF: "AAC",
    0x0160: "Windows Media Audio 1",
    0x0161: "Windows Media Audio",
    0x0162: "Windows Media Audio Professional",
    0x0163: "Windows Media Audio Lossless",
    0x0165: "XMA",
    0x0166: "XMA 2",
    0x0270: "ATRAC3",
    0x028F: "G.722",
    0x1600: "AAC",
    0x1610: "HE-AAC",
    0x2000: "AC-3",
    0x2001: "DTS",
    0x674F: "Ogg Vorbis",
    0x6771: "Ogg Vorbis",
    0x704F: "Opus",
    0xF1AC: "FLAC",
    0xFFFF: "Wwise Vorbis",
}
# Of these, FFmpeg's command works. It knows the others by name at most.
_FFMPEG_TAGS = (
    *(0x0010, 0x0017, 0x0020, 0x0022, 0x0031, 0x0042, 0x0045, 0x0050, 0x0055, 0x0083, 0x00FF, 0x0160, 0x0161),
    *(0x028F, 0x2000, 0x2001),
)
# For FFmpeg, integer PCM of these bits where the header does not say the codec.
_FFMPEG_PCM = {8: "pcm_u8", 16: "pcm_s16le", 24: "pcm_s24le", 32: "pcm_s32le"}
_FFMPEG_IMA_BITS = (2, 3, 5)
# The layouts that FFmpeg reads: bytes of samples, and the channels of ADPCM.
_FFMPEG_SAMPLE_BYTES = (1, 2, 3, 4, 8)
_MAX_FFMPEG_ADPCM_CHANNELS = {Codec.IMA_ADPCM: 2, Codec.XBOX_ADPCM: 2, Codec.MS_ADPCM: 6}


@dataclass(frozen=True, slots=True)
class Format:
    """The layout of the audio of a WAV that can be converted."""

    codec: Codec
    channels: int
    sample_rate: int
    block_align_bytes: int
    """Bytes of the smallest unit that decodes by itself: a sample frame, or an ADPCM block."""
    channel_mask: int = 0
    """The speakers of more than two channels as bits of `dwChannelMask`, 0 if the file does not say."""
    is_big_endian: bool = False
    is_known_to_ffmpeg: bool = field(default=True, compare=False)
    """Whether FFmpeg reads this layout right. It takes big-endian samples for little-endian, for example."""

    def offer(self, command: str, otherwise: str = SAVE_AS_PCM) -> str:
        """Returns the sentence with a command of FFmpeg if FFmpeg reads this format, or the other one."""
        return command if self.is_known_to_ffmpeg else otherwise

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample of one channel, not for ADPCM. One byte is unsigned, more are signed."""
        return self.block_align_bytes // self.channels

    def sample_frames(self, audio_bytes: int) -> int:
        """Returns how many sample frames so many bytes hold. The last ADPCM block may be short."""
        units, rest = divmod(audio_bytes, self.block_align_bytes)
        return units * self._sample_frames_of_unit(self.block_align_bytes) + self._sample_frames_of_unit(rest)

    def _sample_frames_of_unit(self, size: int) -> int:
        # An ADPCM block starts with one sample (IMA) or two (Microsoft) of every channel. The other samples
        # follow with four bits each: of each channel eight in turn (IMA), or one in turn (Microsoft).
        if self.codec in (Codec.IMA_ADPCM, Codec.XBOX_ADPCM):
            groups = size // (ADPCM_HEAD_BYTES[self.codec] * self.channels)
            return 8 * (groups - 1) + (self.codec is Codec.IMA_ADPCM) if groups else 0
        if self.codec is Codec.MS_ADPCM:
            body_bytes = size - ADPCM_HEAD_BYTES[self.codec] * self.channels
            return 2 + 2 * body_bytes // self.channels if body_bytes >= 0 else 0
        return size // self.block_align_bytes


def read_format(fmt: bytes, *, is_big_endian: bool = False) -> Format:
    """Reads the body of a fmt chunk, which has at least MIN_FMT_BYTES.

    It is a WAVEFORMAT, PCMWAVEFORMAT, WAVEFORMATEX or WAVEFORMATEXTENSIBLE.
    Raises UnsupportedAudio for a codec, width, rate or number of channels that is not converted, and
    BrokenAudio if fields contradict each other.
    """
    order = ">" if is_big_endian else "<"
    tag, channels, sample_rate, _, block_align = struct.unpack_from(f"{order}HHIIH", fmt)
    bits = struct.unpack_from(f"{order}H", fmt, 14)[0] if len(fmt) >= _FMT_PCM_BYTES else 0
    mask = 0
    shown_codec = f"0x{tag:04X}"
    if tag == _EXTENSIBLE and len(fmt) <= _FMT_EX_BYTES and 0 < bits <= _MAX_BITS_WITHOUT_SUBTYPE:
        # The extension with the sub-format is missing. Plain headers of these bits mean integers.
        tag = Codec.INTEGER.value
    elif tag == _EXTENSIBLE:
        if len(fmt) < _FMT_EXTENSIBLE_BYTES:
            raise BrokenAudio(
                f"The extensible fmt chunk has {len(fmt)} bytes; it needs {_FMT_EXTENSIBLE_BYTES}. "
                f"{WRITE_AGAIN}"
            )
        valid_bits, mask, *subtype = struct.unpack_from(f"{order}HIIHH8s", fmt, 18)
        tag, shown_codec = _read_subtype(struct.pack("<IHH8s", *subtype))
        # Fewer valid bits are left-justified, with zeros below them, so they need no code of their own.
        if tag == Codec.INTEGER.value and valid_bits > bits:
            raise BrokenAudio(
                f"The fmt chunk says {valid_bits} valid bits in samples of {bits} bit; at most {bits} fit. "
                f"{WRITE_AGAIN}"
            )
    if tag not in _TAGS:
        is_readable = 0 < channels <= _MAX_FFMPEG_CHANNELS and 0 < sample_rate <= _MAX_FFMPEG_SAMPLE_RATE
        raise _unknown_codec(tag, shown_codec, bits, is_readable=is_readable and not is_big_endian)
    mask = mask if channels > _STEREO else 0
    codec = Codec(tag)
    if channels == 0:
        raise BrokenAudio(f"The fmt chunk says 0 channels; 1 to {MAX_CHANNELS} are supported. {WRITE_AGAIN}")
    if codec in ADPCM_HEAD_BYTES:
        is_known = channels <= _MAX_FFMPEG_ADPCM_CHANNELS[codec]
    else:
        sample_bytes = _sample_bytes(codec, channels, bits, block_align)
        block_align = channels * sample_bytes
        is_packed = sample_bytes == -(-bits // 8) and sample_bytes in _FFMPEG_SAMPLE_BYTES
        is_known = is_packed or codec in (Codec.A_LAW, Codec.MU_LAW)
    source = Format(
        codec, channels, sample_rate, block_align, mask, is_big_endian, is_known and not is_big_endian
    )
    _check_channels_and_rate(source)
    if codec in ADPCM_HEAD_BYTES:
        # Writers that leave out the bits mean the only ones that are usual.
        _check_adpcm(source, bits or _ADPCM_BITS)
    return source


def _read_subtype(subtype: bytes) -> tuple[int | None, str]:
    """Returns the codec's tag, None if the GUID's family is unknown, and the codec's name for a person."""
    tag = int.from_bytes(subtype[:2], "little")
    if subtype[2:] == _MEDIA_SUBTYPE:
        return tag, f"0x{tag:04X}"
    first, second, third = struct.unpack_from("<IHH", subtype)
    guid = f"{first:08x}-{second:04x}-{third:04x}-{subtype[8:10].hex()}-{subtype[10:].hex()}"
    if subtype[2:] == _AMBISONIC_SUBTYPE:
        return None, f"{guid} (ambisonic B-format)"
    return (None if any(subtype) else 0), guid


def _unknown_codec(tag: int | None, shown_codec: str, bits: int, *, is_readable: bool) -> UnsupportedAudio:
    """Names the codec. `is_readable` says whether FFmpeg reads the rest of the fmt chunk."""
    name = f"{shown_codec} ({_CODEC_NAMES[tag]})" if tag in _CODEC_NAMES else shown_codec
    what_to_do = SAVE_AS_PCM
    if tag in _FFMPEG_TAGS and is_readable:
        what_to_do = _CONVERT
    elif tag == 0 and bits in _FFMPEG_PCM and is_readable:
        what_to_do = (
            "If it is integer PCM, convert it with: "
            f"ffmpeg -c:a {_FFMPEG_PCM[bits]} -i in.wav -c:a pcm_s16le out.wav"
        )
    return UnsupportedAudio(f"The fmt chunk says codec {name}; {_SUPPORTED}. {what_to_do}")


def _check_channels_and_rate(source: Format) -> None:
    said = f"The fmt chunk says a sample rate of {source.sample_rate} Hz"
    allowed = f"1 to {MAX_SAMPLE_RATE} Hz are supported"
    if source.sample_rate == 0:
        raise BrokenAudio(f"{said}; {allowed}. {WRITE_AGAIN}")
    if source.channels > MAX_CHANNELS:
        what_to_do = "Send fewer channels."
        if source.channels <= _MAX_FFMPEG_CHANNELS:
            what_to_do = source.offer(
                "Take the first two with: "
                'ffmpeg -i in.wav -af "pan=stereo|c0=c0|c1=c1" -c:a pcm_s16le out.wav',
                what_to_do,
            )
        raise UnsupportedAudio(
            f"The fmt chunk says {source.channels} channels; 1 to {MAX_CHANNELS} are supported. {what_to_do}"
        )
    if source.sample_rate > MAX_SAMPLE_RATE:
        what_to_do = WRITE_AGAIN
        if source.sample_rate <= _MAX_FFMPEG_SAMPLE_RATE:
            what_to_do = source.offer(
                "Convert it with: ffmpeg -i in.wav -ar 48000 -c:a pcm_s16le out.wav",
                "Send a lower sample rate.",
            )
        raise UnsupportedAudio(f"{said}; {allowed}. {what_to_do}")


def _sample_bytes(codec: Codec, channels: int, bits: int, block_align: int) -> int:
    """Returns the bytes of one sample of one channel, of samples that follow one another.

    Many writers get the block align wrong. It counts only where the bits leave the layout open: for samples
    that may be left-justified in larger containers, such as 24 bit in 32, and for a fmt chunk without bits.
    """
    name = _CODEC_NAMES[codec.value]
    if codec in (Codec.A_LAW, Codec.MU_LAW):
        bits = _LAW_BITS
    aligned_bytes, rest = divmod(block_align, channels)
    if not bits:
        if rest or not 1 <= aligned_bytes <= _MAX_INTEGER_BYTES:
            raise BrokenAudio(
                f"The fmt chunk says a block align of {block_align} bytes for {channels} channels, "
                f"and no bits; a sample has 1 to {_MAX_INTEGER_BYTES} bytes. {WRITE_AGAIN}"
            )
        bits = 8 * aligned_bytes
    if codec is Codec.FLOAT and bits not in _FLOAT_BITS:
        raise UnsupportedAudio(
            f"The fmt chunk says {name} of {bits} bit; 32 and 64 bit are supported. {SAVE_AS_PCM}"
        )
    if bits > 8 * _MAX_INTEGER_BYTES:
        raise UnsupportedAudio(
            f"The fmt chunk says {name} of {bits} bit; 1 to {8 * _MAX_INTEGER_BYTES} bit are supported. "
            f"{SAVE_AS_PCM}"
        )
    packed_bytes = -(-bits // 8)
    if bits > _PLAIN_BITS[0] and bits not in _PLAIN_BITS and not rest:
        largest_bytes = next(size for size in _CONTAINER_BYTES if size >= packed_bytes)
        if packed_bytes <= aligned_bytes <= largest_bytes:
            return aligned_bytes
    return packed_bytes


def _check_adpcm(source: Format, bits: int) -> None:
    name = _CODEC_NAMES[source.codec.value]
    if bits != _ADPCM_BITS:
        is_readable = source.codec is Codec.IMA_ADPCM and bits in _FFMPEG_IMA_BITS
        raise UnsupportedAudio(
            f"The fmt chunk says {name} of {bits} bit; {_ADPCM_BITS} bit are supported. "
            f"{source.offer(_CONVERT) if is_readable else SAVE_AS_PCM}"
        )
    if source.codec is Codec.MS_ADPCM and source.channels > _MAX_MS_ADPCM_CHANNELS:
        raise UnsupportedAudio(
            f"The fmt chunk says {name} of {source.channels} channels; "
            f"1 to {_MAX_MS_ADPCM_CHANNELS} are supported. {source.offer(_CONVERT)}"
        )
    if source.block_align_bytes > MAX_ADPCM_BLOCK_BYTES:
        raise UnsupportedAudio(
            f"The fmt chunk says {name} in blocks of {source.block_align_bytes} bytes; "
            f"at most {MAX_ADPCM_BLOCK_BYTES} are supported. {source.offer(_CONVERT)}"
        )
    head_bytes = ADPCM_HEAD_BYTES[source.codec] * source.channels
    if source.block_align_bytes < head_bytes:
        raise BrokenAudio(
            f"The fmt chunk says a block align of {source.block_align_bytes} bytes, too few for {name}: "
            f"the head of a block takes {head_bytes} with {source.channels} channels. {WRITE_AGAIN}"
        )
