"""Encodes 16-bit PCM into MP3 frames with LAME."""

import lameenc

# LAME's scale runs from 0, the slowest, to 9. Its authors recommend 5 for good quality at good speed.
_QUALITY = 5
# LAME keeps buffers for as many samples as one call ever had, with 8 bytes for each sample.
_CALL_BYTES = 32 * 1024


class Encoder:
    """Encodes one MP3 stream of constant bitrate, in joint stereo if there are two channels.

    LAME takes the nearest bitrate that exists at the sample rate: at 8 kHz, 128 kbit/s becomes 64.
    """

    def __init__(self, sample_rate: int, channels: int, bitrate_kbps: int) -> None:
        """Prepares for mono or stereo at `sample_rate` Hz, which must be one of mp3.SAMPLE_RATES."""
        self._lame = lameenc.Encoder()
        self._lame.silence()
        self._lame.set_quality(_QUALITY)
        self._lame.set_bit_rate(bitrate_kbps)
        self._lame.set_channels(channels)
        self._lame.set_in_sample_rate(sample_rate)
        # Otherwise LAME lowers the sample rate by itself at low bitrates.
        self._lame.set_out_sample_rate(sample_rate)

    def encode(self, pcm: bytes | memoryview) -> bytes:
        """Encodes PCM, and returns the MP3 bytes that are ready. LAME runs without the GIL."""
        calls = (pcm[start : start + _CALL_BYTES] for start in range(0, len(pcm), _CALL_BYTES))
        return b"".join([self._lame.encode(bytes(call)) for call in calls])

    def finish(self) -> bytes:
        """Returns the rest of the MP3. Nothing can be encoded afterwards."""
        return bytes(self._lame.flush())
