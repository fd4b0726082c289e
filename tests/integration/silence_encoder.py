"""Encodes digital silence as LAME does, without LAME's work.

The tests of failures need hundreds of MP3s of several upload parts. LAME would take a seventh of the time of
all tests for their silence, and every MP3 frame of it is the same.
"""

from functools import cache

from records.audio.encoder import Encoder

# The format of the large recordings (recordings.py).
SAMPLE_RATE, CHANNELS, BITRATE_KBPS = 32000, 1, 320
SAMPLE_BYTES = 2
MP3_FRAME_SAMPLES = 1152
MP3_FRAME_BYTES = 1440
# LAME reads so far ahead, and keeps back the end of the last MP3 frame, which the next one may still fill.
LOOKAHEAD_SAMPLES = 1376 - MP3_FRAME_SAMPLES
KEPT_BYTES = 480
# LAME puts at least so much silence around the sound.
PADDING_SAMPLES = 1152


class SilenceEncoder:
    """Stands for a LAME encoder of the format above. Raises ValueError if the PCM is not silent."""

    def __init__(self) -> None:
        self._samples = 0
        self._sent_bytes = 0

    def encode(self, pcm: bytes | memoryview) -> bytes:
        """Takes PCM, and returns the MP3 bytes that are ready."""
        if bytes(pcm) != bytes(len(pcm)):
            raise ValueError("the PCM is not silent")
        self._samples += len(pcm) // SAMPLE_BYTES
        mp3_frames = (self._samples - LOOKAHEAD_SAMPLES) // MP3_FRAME_SAMPLES
        return self._take(mp3_frames * MP3_FRAME_BYTES - KEPT_BYTES)

    def finish(self) -> bytes:
        """Returns the rest of the MP3."""
        return self._take(-(-(self._samples + PADDING_SAMPLES) // MP3_FRAME_SAMPLES) * MP3_FRAME_BYTES)

    def _take(self, end: int) -> bytes:
        start, self._sent_bytes = self._sent_bytes, max(end, self._sent_bytes)
        length, offset = self._sent_bytes - start, start % MP3_FRAME_BYTES
        return (silent_mp3_frame() * (length // MP3_FRAME_BYTES + 2))[offset : offset + length]


@cache
def silent_mp3_frame() -> bytes:
    """Returns the first MP3 frame that LAME makes of silence; all others are the same."""
    lame = Encoder(SAMPLE_RATE, CHANNELS, BITRATE_KBPS)
    return (lame.encode(bytes(8 * MP3_FRAME_SAMPLES * SAMPLE_BYTES)) + lame.finish())[:MP3_FRAME_BYTES]


def make_encoder(sample_rate: int, channels: int, bitrate_kbps: int) -> Encoder | SilenceEncoder:
    """Returns an encoder: for the format of the large recordings, which are silent, without LAME."""
    if (sample_rate, channels, bitrate_kbps) == (SAMPLE_RATE, CHANNELS, BITRATE_KBPS):
        return SilenceEncoder()
    return Encoder(sample_rate, channels, bitrate_kbps)
