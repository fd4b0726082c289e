"""16-bit PCM into MP3 frames, by LAME."""

import lameenc

from .errors import UnsupportedAudio
from .mp3 import SAMPLE_RATES

# LAME resamples what lies between MP3's own rates, and does it well in this range: over 192 kHz its filter is
# too short (384 kHz loses 2 dB at 15 kHz and folds 33 kHz back at -13 dB). Below 4 kHz the MP3 outgrows its
# source.
LOWEST_SAMPLE_RATE = 4_000
HIGHEST_SAMPLE_RATE = 192_000

# LAME's scale runs from 0, the slowest, to 9; 5 is what its authors recommend for speed with good quality.
_QUALITY = 5


def mp3_sample_rate(sample_rate: int) -> int:
    """Returns the rate, in Hz, at which a recording of `sample_rate` Hz is encoded.

    It is the lowest rate of MP3 that is not below the source's, so that nothing audible is lost, and at most
    48 kHz. LAME takes rates that differ by less than 0.05 % (a hundredth of a semitone) as equal and does not
    resample. Raises UnsupportedAudio for a rate that LAME cannot do well.
    """
    if not LOWEST_SAMPLE_RATE <= sample_rate <= HIGHEST_SAMPLE_RATE:
        raise UnsupportedAudio(
            f"fmt chunk says a sample rate of {sample_rate} Hz; "
            f"{LOWEST_SAMPLE_RATE} to {HIGHEST_SAMPLE_RATE} Hz are supported. "
            "Convert it with: ffmpeg -i in.wav -ar 44100 -c:a pcm_s16le out.wav"
        )
    return next((rate for rate in SAMPLE_RATES if rate >= sample_rate), SAMPLE_RATES[-1])


class Encoder:
    """One MP3 stream of constant bitrate, in joint stereo where there are two channels.

    LAME takes the nearest bitrate that exists at the MP3's rate: 128 kbit/s at 8 kHz becomes 64.
    """

    def __init__(self, sample_rate: int, channels: int, bitrate_kbps: int) -> None:
        """Prepares for mono or stereo of `sample_rate` Hz; raises UnsupportedAudio for other rates."""
        out_sample_rate = mp3_sample_rate(sample_rate)
        self._lame = lameenc.Encoder()
        self._lame.silence()
        self._lame.set_quality(_QUALITY)
        self._lame.set_bit_rate(bitrate_kbps)
        self._lame.set_channels(channels)
        self._lame.set_in_sample_rate(sample_rate)
        # Without this LAME lowers the rate by itself where it finds the bitrate small.
        self._lame.set_out_sample_rate(out_sample_rate)

    def encode(self, pcm: bytes) -> bytes:
        """Encodes a window and returns the MP3 bytes that are ready; the GIL is free meanwhile."""
        return bytes(self._lame.encode(pcm))

    def finish(self) -> bytes:
        """Returns the rest of the MP3; nothing can be encoded afterwards."""
        return bytes(self._lame.flush())
