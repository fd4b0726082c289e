"""The Info frame that stands in front of an MP3: a silent frame from which players learn what follows.

Its layout is Xing's header with the extension of "MP3 Info Tag rev 1" (Gabriel Bouvigne, the LAME project).
With its delay and padding a decoder returns exactly the samples that were encoded.
"""

import struct

from fastcrc import crc16

from .mp3 import HEADER_BYTES, FrameHeader, make_frame_header, read_frame_header

# LAME's polyphase filter and MDCT; the decoder's own 529 samples are not counted here.
ENCODER_DELAY = 576

_XING_AND_LAME_BYTES = 120 + 36
_HAS_FRAMES_BYTES_TOC_AND_QUALITY = 0b1111
# As LAME computes it, from its default VBR quality (4) and the quality that it is asked for (5).
_QUALITY = 100 - 10 * 4 - 5
# Constant bitrate: every hundredth of the time begins at as many hundredths of the bytes.
_SEEK_TABLE = bytes(256 * percent // 100 for percent in range(100))
_VERSION = b"LAME3.100"
_CONSTANT_BITRATE = 1
_MONO, _JOINT_STEREO = 0, 3
_MAX_12_BITS, _MAX_32_BITS = 0xFFF, 0xFFFFFFFF


class Stream:
    """What is to be said in front of an MP3 stream of constant bitrate, gathered while the stream is made."""

    def __init__(self) -> None:
        self._first_header = b""
        self._size_bytes = 0
        self._crc = 0

    def add(self, mp3: bytes) -> None:
        """Takes the next bytes of the stream."""
        self._first_header += mp3[: HEADER_BYTES - len(self._first_header)]
        self._size_bytes += len(mp3)
        self._crc = crc16.arc(mp3, self._crc)

    @property
    def header(self) -> FrameHeader:
        """The header of the first frame; a ValueError where the stream does not begin with one."""
        return read_frame_header(self._first_header)

    def make_info_frame(self, samples: int) -> bytes:
        """Returns the frame that belongs in front of the stream, which holds `samples` at the MP3's rate."""
        stream = self.header
        mpeg_header = make_frame_header(
            self._first_header, HEADER_BYTES + stream.side_info_bytes + _XING_AND_LAME_BYTES
        )
        frame_bytes = read_frame_header(mpeg_header).frame_bytes
        # Frames of one bitrate differ in size by a byte of padding, so their number is that of their mean.
        frames = round(
            self._size_bytes * 8 * stream.sample_rate / (stream.bitrate_kbps * 1000 * stream.samples)
        )
        padding = min(max(frames * stream.samples - ENCODER_DELAY - samples, 0), _MAX_12_BITS)
        # Longer than the fields can say is rare and harmless: the number of frames gives the duration.
        size_bytes = min(frame_bytes + self._size_bytes, _MAX_32_BITS)
        tag = mpeg_header + bytes(stream.side_info_bytes)
        tag += struct.pack(">4sIII", b"Info", _HAS_FRAMES_BYTES_TOC_AND_QUALITY, frames, size_bytes)
        tag += _SEEK_TABLE + struct.pack(">I", _QUALITY)
        # Revision and method; unknown are low-pass, peak, gains, and how LAME was tuned.
        tag += _VERSION + bytes([_CONSTANT_BITRATE]) + bytes(1 + 8 + 1)
        tag += bytes([min(stream.bitrate_kbps, 255)])
        tag += (ENCODER_DELAY << 12 | padding).to_bytes(3, "big")
        # Source rate and stereo mode; then nothing of MP3Gain, surround and presets.
        tag += bytes(
            [_source_rate(stream.sample_rate) << 6 | (_MONO, _JOINT_STEREO)[stream.channels - 1] << 2]
        )
        tag += bytes(1 + 2) + struct.pack(">IH", size_bytes, self._crc)
        return (tag + crc16.arc(tag).to_bytes(2, "big")).ljust(frame_bytes, b"\0")


def _source_rate(sample_rate: int) -> int:
    return {44100: 1, 48000: 2}.get(sample_rate, 0)
