"""Finds compressed audio that a WAV carries as if it were PCM: DTS, and the bursts of IEC 61937.

Sources: ETSI TS 102 114 for DTS, in words of 16 or 14 bit; IEC 61937-1 and -2 for the bursts that S/PDIF
carries.
"""

import numpy as np
from numpy.typing import NDArray

from .errors import UnsupportedAudio
from .formats import Codec, Format

# Such a stream repeats its sync words long before this.
_SEARCHED_WORDS = 256 * 1024
_WORD_BYTES = 2
# DTS frames and bursts last a multiple of 128 sample frames of stereo.
_PERIOD_WORDS = 256

# Two sync words, and the bits of the third word that every DTS frame or burst has, as mask and value. In DTS
# these bits say that the frame is a normal one, because a square wave could contain the sync words. In a
# burst they are zeros.
_DTS = (0x7FFE, 0x8001, 0xFC00, 0xFC00)
_DTS_OF_14_BIT = (0x1FFF, 0xE800, 0xFFF0, 0x07F0)
_BURST = (0xF872, 0x4E1F, 0xE000, 0x0000)
_SYNC_WORDS = 3
_BURST_TYPE_MASK = 0x1F
_BURST_TYPES = {
    1: "Dolby AC-3",
    **dict.fromkeys((4, 5, 6, 8, 9), "MPEG audio"),
    **dict.fromkeys((7, 19, 20), "AAC"),
    **dict.fromkeys((11, 12, 13, 17), "DTS"),
    21: "Dolby E-AC-3",
    22: "Dolby TrueHD",
}


class BitstreamSearch:
    """Looks for sync words at a constant distance, behind the silence with which the audio may begin."""

    def __init__(self, source: Format) -> None:
        is_searched = source.codec is Codec.INTEGER and source.sample_bytes >= _WORD_BYTES
        self._source = source
        self._left_words = _SEARCHED_WORDS if is_searched else 0
        self._position = 0
        self._held: NDArray[np.uint8] = np.empty((0, _WORD_BYTES), dtype=np.uint8)
        self._last: dict[tuple[tuple[int, ...], str], int] = {}

    def feed(self, audio: bytes | bytearray | memoryview) -> None:
        """Takes whole sample frames. Raises UnsupportedAudio once it has found two sync words."""
        if not self._left_words:
            return
        octets = np.frombuffer(audio, dtype=np.uint8)
        if self._left_words == _SEARCHED_WORDS and not octets.any():
            return
        # Of wider samples, the upper 16 bit are the words.
        samples = octets.reshape(-1, self._source.sample_bytes)
        upper = samples[:, :_WORD_BYTES] if self._source.is_big_endian else samples[:, -_WORD_BYTES:]
        words = np.concatenate([self._held, upper])
        for order in "<>":
            self._search(words.view(f"{order}u2").ravel(), order)
        self._held = words[1 - _SYNC_WORDS :]
        self._position += len(words) - len(self._held)
        self._left_words = max(0, self._left_words - len(samples))

    def _search(self, words: NDArray[np.uint16], order: str) -> None:
        first, second, third = words[:-2], words[1:-1], words[2:]
        for sync in (_DTS, _DTS_OF_14_BIT, _BURST):
            found = (first == sync[0]) & (second == sync[1]) & (third & sync[2] == sync[3])
            for at in np.flatnonzero(found).tolist():
                position = self._position + at
                distance = position - self._last.get((sync, order), position)
                if distance and distance % _PERIOD_WORDS == 0:
                    raise self._refusal(int(third[at]) if sync is _BURST else None, order)
                self._last[sync, order] = position

    def _refusal(self, burst_type: int | None, order: str) -> UnsupportedAudio:
        if burst_type is None:
            name, demuxer = "DTS", "dts"
        else:
            codec = _BURST_TYPES.get(burst_type & _BURST_TYPE_MASK, "compressed audio")
            name, demuxer = f"{codec} in bursts of IEC 61937", "spdif"
        # FFmpeg finds bursts only in the order of bytes that a WAV has, and nothing in wider samples.
        is_readable = self._source.sample_bytes == _WORD_BYTES and (order == "<" or burst_type is None)
        line = f"Decode it with: ffmpeg -f {demuxer} -i in.wav -c:a pcm_s16le out.wav"
        return UnsupportedAudio(
            f"The WAV says integer PCM, but it carries {name}, which would sound as noise. "
            f"{line if is_readable else 'Decode it first, and send the result.'}"
        )
