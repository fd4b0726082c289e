"""16-bit PCM into MP3 frames, by LAME."""

import lameenc

# LAME's scale runs from 0, the slowest, to 9; 5 is what its authors recommend for speed with good quality.
_QUALITY = 5
# LAME keeps buffers for as many samples as it was ever given at once, 8 bytes each.
_CALL_BYTES = 32 * 1024


class Encoder:
    """One MP3 stream of constant bitrate, in joint stereo where there are two channels.

    LAME takes the nearest bitrate that exists at the MP3's rate: 128 kbit/s at 8 kHz becomes 64.
    """

    def __init__(self, sample_rate: int, channels: int, bitrate_kbps: int) -> None:
        """Prepares for mono or stereo of `sample_rate` Hz, which must be one of mp3.SAMPLE_RATES."""
        self._lame = lameenc.Encoder()
        self._lame.silence()
        self._lame.set_quality(_QUALITY)
        self._lame.set_bit_rate(bitrate_kbps)
        self._lame.set_channels(channels)
        self._lame.set_in_sample_rate(sample_rate)
        # Without this LAME lowers the rate by itself where it finds the bitrate small.
        self._lame.set_out_sample_rate(sample_rate)

    def encode(self, pcm: bytes | memoryview) -> bytes:
        """Encodes samples and returns the MP3 bytes that are ready; the GIL is free meanwhile."""
        calls = (pcm[start : start + _CALL_BYTES] for start in range(0, len(pcm), _CALL_BYTES))
        return b"".join([self._lame.encode(bytes(call)) for call in calls])

    def finish(self) -> bytes:
        """Returns the rest of the MP3; nothing can be encoded afterwards."""
        return bytes(self._lame.flush())
