"""Finds compressed audio that a WAV carries as if it were PCM: DTS, and the bursts of IEC 61937.

Sources: ETSI TS 102 114 for DTS, in words of 16 or 14 bit; IEC 61937-1 and -2 for the bursts that S/PDIF
carries.
"""

import numpy as np
from numpy.typing import NDArray

from .errors import UnsupportedAudio
from .formats import Codec, Format
from .pcm import FULL_SCALE, decode_samples

# Such a stream repeats its sync words long before this. Audio whose samples are all below _LOUD counts less,
# and silence at the beginning does not count.
_SEARCHED_WORDS = 256 * 1024
_LOUD = 4096
_QUIET_WEIGHT = 16
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
    """Looks for sync words at a constant distance, behind the quiet audio with which a recording may begin.

    All tracks may carry the stream together, or two of several.
    """

    def __init__(self, source: Format) -> None:
        is_wide = source.codec is Codec.INTEGER and source.sample_bytes >= _WORD_BYTES
        pairs = source.channels // 2 if source.channels > 2 else 0  # noqa: PLR2004 - two tracks are a pair
        self._source = source
        self._is_begun = False
        # In a pair of tracks, a stream of all tracks can look like another one.
        self._lanes = [_Lane(slice(None)), *(_Lane(slice(2 * pair, 2 * pair + 2)) for pair in range(pairs))]
        self._left_words = _SEARCHED_WORDS * max(1, pairs) if is_wide or source.codec is Codec.FLOAT else 0

    def feed(self, audio: bytes | bytearray | memoryview) -> None:
        """Takes whole sample frames. Raises UnsupportedAudio once it has found two sync words."""
        if not self._left_words:
            return
        if not self._is_begun and not np.frombuffer(audio, dtype=np.uint8).any():
            return
        self._is_begun = True
        words = self._read_words(audio)
        samples = (words.byteswap() if self._source.is_big_endian else words).view("<i2")
        is_loud = samples.size > 0 and max(int(samples.max()), -int(samples.min())) >= _LOUD
        for lane in self._lanes:
            if found := lane.feed(words.reshape(-1, self._source.channels), is_searched=is_loud):
                raise self._refusal(*found, is_whole=lane is self._lanes[0])
        self._left_words = max(0, self._left_words - (len(words) if is_loud else len(words) // _QUIET_WEIGHT))

    def _read_words(self, audio: bytes | bytearray | memoryview) -> NDArray[np.uint16]:
        """Returns the upper 16 bit of each sample, in the order of bytes of the WAV."""
        if self._source.codec is Codec.FLOAT:
            scaled = np.rint(decode_samples(audio, self._source)).clip(-FULL_SCALE, FULL_SCALE - 1)
            words = scaled.astype(">i2" if self._source.is_big_endian else "<i2")
            return words.view("<u2").ravel()
        samples = np.frombuffer(audio, dtype=np.uint8).reshape(-1, self._source.sample_bytes)
        upper = samples[:, :_WORD_BYTES] if self._source.is_big_endian else samples[:, -_WORD_BYTES:]
        return np.ascontiguousarray(upper).view("<u2").ravel()

    def _refusal(self, burst_type: int | None, is_swapped: bool, *, is_whole: bool) -> UnsupportedAudio:
        if burst_type is None:
            name, demuxer = "DTS", "dts"
        else:
            codec = _BURST_TYPES.get(burst_type & _BURST_TYPE_MASK, "compressed audio")
            name, demuxer = f"{codec} in bursts of IEC 61937", "spdif"
        # FFmpeg finds bursts only in the order of bytes that a WAV has, and nothing in wider samples or in a
        # part of the tracks.
        is_readable = self._source.sample_bytes == _WORD_BYTES and is_whole
        is_readable &= burst_type is None or not is_swapped
        line = f"Decode it with: ffmpeg -f {demuxer} -i in.wav -c:a pcm_s16le out.wav"
        said = "IEEE float" if self._source.codec is Codec.FLOAT else "integer PCM"
        return UnsupportedAudio(
            f"The WAV says {said}, but it carries {name}, which would sound as noise. "
            f"{line if is_readable else 'Decode it first, and send the result.'}"
        )


class _Lane:
    """The words of some tracks, one after the other."""

    def __init__(self, tracks: slice) -> None:
        self._tracks = tracks
        self._position = 0
        self._held: NDArray[np.uint16] = np.empty(0, dtype="<u2")
        # Where each sync word was found last, and with which type of burst.
        self._last: dict[tuple[tuple[int, ...], bool], tuple[int, int | None]] = {}

    def feed(self, words: NDArray[np.uint16], *, is_searched: bool) -> tuple[int | None, bool] | None:
        """Takes words of shape (sample frames, channels). Returns what it has found, None until then.

        That is the type of a burst, None for DTS, and whether the bytes are swapped.
        """
        joined = np.concatenate([self._held, words[:, self._tracks].ravel()])
        found = None
        if is_searched:
            found = self._search(joined, is_swapped=False) or self._search(joined.byteswap(), is_swapped=True)
        self._held = joined[1 - _SYNC_WORDS :]
        self._position += len(joined) - len(self._held)
        return found

    def _search(self, words: NDArray[np.uint16], *, is_swapped: bool) -> tuple[int | None, bool] | None:
        first, second, third = words[:-2], words[1:-1], words[2:]
        for sync in (_DTS, _DTS_OF_14_BIT, _BURST):
            found = (first == sync[0]) & (second == sync[1]) & (third & sync[2] == sync[3])
            for at in np.flatnonzero(found).tolist():
                burst_type = int(third[at]) if sync is _BURST else None
                if burst_type is not None and not burst_type & _BURST_TYPE_MASK:
                    # A burst without audio, or the silence of another track.
                    continue
                position = self._position + at
                last, last_type = self._last.get((sync, is_swapped), (position, None))
                if position > last and (position - last) % _PERIOD_WORDS == 0 and burst_type == last_type:
                    return burst_type, is_swapped
                self._last[sync, is_swapped] = position, burst_type
        return None
