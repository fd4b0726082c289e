"""The header of an MP3 frame, after ISO/IEC 11172-3 (MPEG-1), 13818-3 (MPEG-2) and "MPEG-2.5"."""

from dataclasses import dataclass

HEADER_BYTES = 4

# Field by field: how far the field lies above the lowest bit of the 32-bit header, and its mask.
_SYNC_SHIFT, _SYNC = 21, 0x7FF
_VERSION_SHIFT, _VERSION_MASK = 19, 0b11
_LAYER_SHIFT, _LAYER_MASK = 17, 0b11
_BITRATE_SHIFT, _BITRATE_MASK = 12, 0b1111
_SAMPLE_RATE_SHIFT, _SAMPLE_RATE_MASK = 10, 0b11
_MODE_SHIFT, _MODE_MASK = 6, 0b11
# Fields of one bit.
_NO_CRC, _PADDED = 1 << 16, 1 << 9

_LAYER_3 = 1
_MODE_MONO = 3
# Indexed by a field's value. None marks reserved values, and "free format", which states no bitrate.
_VERSIONS = ("2.5", None, "2", "1")
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

SAMPLE_RATES = tuple(sorted(rate for rates in _SAMPLE_RATES.values() for rate in rates if rate))
"""Every sample rate of MP3 in Hz, the lowest first."""


def sample_frames_per_mp3_frame(sample_rate: int) -> int:
    """Returns how many sample frames an MP3 frame holds: two granules in MPEG-1, one in MPEG-2 and 2.5."""
    return 1152 if sample_rate in _SAMPLE_RATES["1"] else 576


@dataclass(frozen=True, slots=True)
class Mp3FrameHeader:
    """The four bytes at the start of an MP3 frame (MPEG Layer III)."""

    version: str
    """The version of MPEG: "1", "2" or "2.5"."""
    bitrate_kbps: int
    sample_rate: int
    channels: int
    padded: bool

    @property
    def sample_frames(self) -> int:
        """How many sample frames the MP3 frame holds."""
        return sample_frames_per_mp3_frame(self.sample_rate)

    @property
    def side_info_bytes(self) -> int:
        """Bytes of the side information, which follows the header."""
        mono, stereo = (17, 32) if self.version == "1" else (9, 17)
        return mono if self.channels == 1 else stereo

    @property
    def mp3_frame_bytes(self) -> int:
        """Bytes from this header to the next."""
        return self.sample_frames // 8 * self.bitrate_kbps * 1000 // self.sample_rate + self.padded


def read_mp3_frame_header(data: bytes) -> Mp3FrameHeader:
    """Reads the MP3 frame header that `data` starts with.

    Raises ValueError if `data` starts with no header, or with one of another layer, with reserved values
    or of free format.
    """
    word = int.from_bytes(data[:HEADER_BYTES], "big")
    version = _VERSIONS[(word >> _VERSION_SHIFT) & _VERSION_MASK]
    layer = (word >> _LAYER_SHIFT) & _LAYER_MASK
    has_sync = len(data) >= HEADER_BYTES and word >> _SYNC_SHIFT == _SYNC
    if not has_sync or version is None or layer != _LAYER_3:
        raise ValueError(f"no MP3 frame header of Layer III: {data[:HEADER_BYTES].hex()}")
    bitrate_kbps = _BITRATES_KBPS[version][(word >> _BITRATE_SHIFT) & _BITRATE_MASK]
    sample_rate = _SAMPLE_RATES[version][(word >> _SAMPLE_RATE_SHIFT) & _SAMPLE_RATE_MASK]
    mode = (word >> _MODE_SHIFT) & _MODE_MASK
    if bitrate_kbps is None or sample_rate is None:
        raise ValueError(
            f"reserved or free-format values in the MP3 frame header {data[:HEADER_BYTES].hex()}"
        )
    return Mp3FrameHeader(
        version=version,
        bitrate_kbps=bitrate_kbps,
        sample_rate=sample_rate,
        channels=1 if mode == _MODE_MONO else 2,
        padded=bool(word & _PADDED),
    )


def make_mp3_frame_header(like: bytes, min_bytes: int) -> bytes:
    """Returns the header of an MP3 frame of the same stream as the header `like`, without padding and CRC.

    Takes the bitrate of `like`, or the next higher one at which the MP3 frame has `min_bytes`. Raises
    ValueError if no bitrate makes the MP3 frame that large.
    """
    word = (int.from_bytes(like[:HEADER_BYTES], "big") & ~_PADDED) | _NO_CRC
    while read_mp3_frame_header(header := word.to_bytes(HEADER_BYTES, "big")).mp3_frame_bytes < min_bytes:
        word += 1 << _BITRATE_SHIFT
    return header
