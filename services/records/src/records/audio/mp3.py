"""The header of an MP3 frame, after ISO/IEC 11172-3 (MPEG-1), 13818-3 (MPEG-2) and "MPEG-2.5"."""

from dataclasses import dataclass

HEADER_BYTES = 4

# Indexed by the header's fields; None marks what is reserved, and "free format", which has no stated bitrate.
_VERSIONS = ("2.5", None, "2", "1")
_SYNC = 0x7FF
_LAYER_3 = 1
_BITRATES_KBPS = {
    "1": (None, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, None),
    "2": (None, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, None),
    "2.5": (None, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, None),
}
_SAMPLE_RATES = {
    "1": (44100, 48000, 32000, None),
    "2": (22050, 24000, 16000, None),
    "2.5": (11025, 12000, 8000, None),
}
_MODE_MONO = 3
_NO_CRC, _NEXT_BITRATE, _PADDED = 1 << 16, 1 << 12, 1 << 9

SAMPLE_RATES = tuple(sorted(rate for rates in _SAMPLE_RATES.values() for rate in rates if rate))
"""Every sample rate that MP3 has, in Hz, the lowest first."""


def samples_per_frame(sample_rate: int) -> int:
    """Sample frames that one MP3 frame holds at this rate: two granules in MPEG-1, one in MPEG-2 and 2.5."""
    return 1152 if sample_rate in _SAMPLE_RATES["1"] else 576


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """What the four bytes at the start of a Layer III frame say."""

    version: str
    """The version of MPEG: "1", "2" or "2.5"."""
    bitrate_kbps: int
    sample_rate: int
    channels: int
    padded: bool

    @property
    def samples(self) -> int:
        """Sample frames that one MP3 frame holds."""
        return samples_per_frame(self.sample_rate)

    @property
    def side_info_bytes(self) -> int:
        """Bytes of the side information, which stand behind the header."""
        mono, stereo = (17, 32) if self.version == "1" else (9, 17)
        return mono if self.channels == 1 else stereo

    @property
    def frame_bytes(self) -> int:
        """Bytes from this header to the next."""
        return self.samples // 8 * self.bitrate_kbps * 1000 // self.sample_rate + self.padded


def read_frame_header(data: bytes) -> FrameHeader:
    """Reads the frame header that `data` starts with.

    Raises ValueError when there is none, or one of another layer, of reserved values or of free format.
    """
    word = int.from_bytes(data[:HEADER_BYTES], "big")
    version = _VERSIONS[word >> 19 & 0b11]
    if len(data) < HEADER_BYTES or word >> 21 != _SYNC or version is None or word >> 17 & 0b11 != _LAYER_3:
        raise ValueError(f"no Layer III frame header: {data[:HEADER_BYTES].hex()}")
    bitrate_kbps = _BITRATES_KBPS[version][word >> 12 & 0b1111]
    sample_rate = _SAMPLE_RATES[version][word >> 10 & 0b11]
    if bitrate_kbps is None or sample_rate is None:
        raise ValueError(f"reserved or free-format values in the frame header {data[:HEADER_BYTES].hex()}")
    return FrameHeader(
        version=version,
        bitrate_kbps=bitrate_kbps,
        sample_rate=sample_rate,
        channels=1 if word >> 6 & 0b11 == _MODE_MONO else 2,
        padded=bool(word >> 9 & 1),
    )


def make_frame_header(like: bytes, least_bytes: int) -> bytes:
    """Returns the header of an unpadded frame beside those of the header `like`, without a CRC.

    Its bitrate is the lowest, from that of `like` on, at which the frame has `least_bytes`. Raises ValueError
    where none has.
    """
    word = int.from_bytes(like[:HEADER_BYTES], "big") & ~_PADDED | _NO_CRC
    while read_frame_header(header := word.to_bytes(HEADER_BYTES, "big")).frame_bytes < least_bytes:
        word += _NEXT_BITRATE
    return header
