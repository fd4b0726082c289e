"""The Info frame in front of an MP3: a silent MP3 frame that tells players the length of the stream.

Its layout is Xing's header with the extension of "MP3 Info Tag rev 1" (Gabriel Bouvigne, the LAME project).
A decoder that honours its delay and padding returns exactly the sample frames that were encoded.
"""

import struct
from typing import NamedTuple

from fastcrc import crc16

from . import id3_sizes
from .mp3 import HEADER_BYTES, Mp3FrameHeader, make_mp3_frame_header, read_mp3_frame_header

# Sample frames by which LAME's polyphase filter and MDCT delay the sound. A decoder adds 529 of its own.
ENCODER_DELAY = 576

_XING_AND_LAME_BYTES = 120 + 36
_HAS_MP3_FRAMES_BYTES_TOC_AND_QUALITY = 0b1111
# LAME computes it from its default VBR quality (4) and the quality that it is asked for (5).
_QUALITY = 100 - 10 * 4 - 5
# At constant bitrate, each hundredth of the time begins at the same hundredth of the bytes.
_SEEK_TABLE = bytes(256 * percent // 100 for percent in range(100))
_VERSION = b"LAME3.100"
_CONSTANT_BITRATE = 1
_MONO, _JOINT_STEREO = 0, 3
# Delay and padding share three bytes.
_DELAY_SHIFT = 12
# The source rate shares a byte with the stereo mode.
_SOURCE_RATE_SHIFT, _STEREO_MODE_SHIFT = 6, 2
_MAX_12_BITS, _MAX_32_BITS = 0xFFF, 0xFFFFFFFF

# From "Info" on: delay and padding stand behind Xing's header, LAME's version and 12 bytes of settings.
_DELAY_OFFSET = 120 + len(_VERSION) + 12


class InfoFrame(NamedTuple):
    """What an MP3 says of itself in its Info frame."""

    sample_rate: int
    channels: int
    sample_frames: int
    """How many sample frames a decoder returns that honours delay and padding."""
    id3_bytes: int
    """How many bytes of ID3 tag stand in front of the Info frame."""
    stream_bytes: int
    """The bytes of the Info frame and all further MP3 frames."""


def read_info_frame(start: bytes) -> InfoFrame:
    """Reads the Info frame of an MP3 that this package has made, from the first bytes of the MP3.

    Raises ValueError if the MP3 has none, or if it lies behind `start`.
    """
    id3_bytes = _read_id3_bytes(start)
    header = read_mp3_frame_header(start[id3_bytes:])
    tag = start[id3_bytes + HEADER_BYTES + header.side_info_bytes :][:_XING_AND_LAME_BYTES]
    if not tag.startswith(b"Info") or len(tag) < _XING_AND_LAME_BYTES:
        raise ValueError(f"no Info frame: {tag[:4].hex()}")
    mp3_frames, stream_bytes = struct.unpack_from(">II", tag, 8)
    delay_and_padding = int.from_bytes(tag[_DELAY_OFFSET : _DELAY_OFFSET + 3], "big")
    delay, padding = delay_and_padding >> _DELAY_SHIFT, delay_and_padding & _MAX_12_BITS
    sample_frames = mp3_frames * header.sample_frames - delay - padding
    return InfoFrame(header.sample_rate, header.channels, sample_frames, id3_bytes, stream_bytes)


def _read_id3_bytes(start: bytes) -> int:
    """Returns the length of the ID3v2 tag that an MP3 starts with or 0."""
    if not start.startswith(b"ID3") or len(start) < id3_sizes.HEADER_BYTES:
        return 0
    return id3_sizes.read_tag_bytes(start)


class Stream:
    """Gathers what the Info frame says about an MP3 stream of constant bitrate, while the stream is made."""

    def __init__(self) -> None:
        self._first_header = b""
        self.size_bytes = 0
        """How large the stream is so far."""
        self._crc = 0

    def add(self, mp3: bytes) -> None:
        """Counts the next bytes of the stream."""
        self._first_header += mp3[: HEADER_BYTES - len(self._first_header)]
        self.size_bytes += len(mp3)
        self._crc = crc16.arc(mp3, self._crc)

    @property
    def header(self) -> Mp3FrameHeader:
        """The header of the first MP3 frame; raises ValueError if the stream does not start with one."""
        return read_mp3_frame_header(self._first_header)

    def make_info_frame(self, sample_frames: int, mp3_frames: int) -> bytes:
        """Returns the Info frame of the stream, which holds so many sample frames in so many MP3 frames."""
        stream = self.header
        mpeg_header = make_mp3_frame_header(
            self._first_header, HEADER_BYTES + stream.side_info_bytes + _XING_AND_LAME_BYTES
        )
        mp3_frame_bytes = read_mp3_frame_header(mpeg_header).mp3_frame_bytes
        padding = min(max(mp3_frames * stream.sample_frames - ENCODER_DELAY - sample_frames, 0), _MAX_12_BITS)
        # A size over the field's limit is rare and harmless: players take the duration from the MP3 frames.
        size_bytes = min(mp3_frame_bytes + self.size_bytes, _MAX_32_BITS)
        tag = mpeg_header + bytes(stream.side_info_bytes)
        tag += struct.pack(">4sIII", b"Info", _HAS_MP3_FRAMES_BYTES_TOC_AND_QUALITY, mp3_frames, size_bytes)
        tag += _SEEK_TABLE + struct.pack(">I", _QUALITY)
        # Revision and method. The zeros say that low-pass, peak, gains and LAME's tuning are unknown.
        tag += _VERSION + bytes([_CONSTANT_BITRATE]) + bytes(1 + 8 + 1)
        tag += bytes([min(stream.bitrate_kbps, 255)])
        tag += ((ENCODER_DELAY << _DELAY_SHIFT) | padding).to_bytes(3, "big")
        source_rate = _source_rate_code(stream.sample_rate) << _SOURCE_RATE_SHIFT
        stereo_mode = (_MONO, _JOINT_STEREO)[stream.channels - 1] << _STEREO_MODE_SHIFT
        tag += bytes([source_rate | stereo_mode])
        # The zeros say that there is no MP3Gain, no surround and no preset.
        tag += bytes(1 + 2) + struct.pack(">IH", size_bytes, self._crc)
        return (tag + crc16.arc(tag).to_bytes(2, "big")).ljust(mp3_frame_bytes, b"\0")


def _source_rate_code(sample_rate: int) -> int:
    return {44100: 1, 48000: 2}.get(sample_rate, 0)
