"""The PCM of a WAV, cut into windows of 16-bit mono or stereo."""

import warnings
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from .wav import Format

# Importing pydub warns of escapes in its source (when it is compiled), of the audioop that left Python in
# 3.13 (the package audioop-lts replaces it there) and of a missing ffmpeg (which is never called here).
with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="invalid escape sequence|.* is an invalid escape sequence")
    warnings.filterwarnings("ignore", message="'audioop' is deprecated", category=DeprecationWarning)
    warnings.filterwarnings("ignore", message="Couldn't find ffmpeg or avconv", category=RuntimeWarning)
    import audioop

    from pydub import AudioSegment

# Fixed windows make the MP3 independent of how the bytes arrived. This many frames keep LAME's output within
# the buffer that lameenc gives it, at any rate and bitrate.
WINDOW_FRAMES = 4096

_SAMPLE_BYTES = 2
_MAX_OUTPUT_CHANNELS = 2

# Speakers in the order of the bits of dwChannelMask, each with what it gives to left and right: ITU-R
# BS.775-3, annex 4, where centre and surrounds are mixed in 3 dB down, and the effects channel (LFE) is left
# out. Speakers that it does not know are treated as their neighbours: height as surround, a back centre as a
# surround of both sides.
_HALF = 0.5**0.5
_LEFT, _RIGHT, _CENTRE, _NOWHERE = (1.0, 0.0), (0.0, 1.0), (_HALF, _HALF), (0.0, 0.0)
_SIDE_LEFT, _SIDE_RIGHT, _BACK_CENTRE = (_HALF, 0.0), (0.0, _HALF), (0.5, 0.5)
_SPEAKERS = (
    *(_LEFT, _RIGHT, _CENTRE, _NOWHERE),  # front left, front right, front centre, LFE
    *(_SIDE_LEFT, _SIDE_RIGHT),  # back left, back right
    *(_LEFT, _RIGHT),  # front left of centre, front right of centre
    *(_BACK_CENTRE, _SIDE_LEFT, _SIDE_RIGHT),  # back centre, side left, side right
    *(_BACK_CENTRE, _SIDE_LEFT, _CENTRE, _SIDE_RIGHT),  # top centre, top front left, centre, right
    *(_SIDE_LEFT, _BACK_CENTRE, _SIDE_RIGHT),  # top back left, centre, right
)

# What a file without a mask means by its number of channels: ffmpeg's default layouts, but for three
# channels, where ffmpeg's 2.1 would drop the third for ever and Microsoft's order of speakers makes it the
# centre.
_DEFAULT_MASKS = {3: 0x007, 4: 0x107, 5: 0x037, 6: 0x03F, 7: 0x70F, 8: 0x63F}


class Windows:
    """Cuts the audio of one WAV into windows that the encoder takes.

    `frames` counts the sample frames cut so far. One window is held at most.
    """

    def __init__(self, source: Format) -> None:
        self.channels = min(source.channels, _MAX_OUTPUT_CHANNELS)
        self.frames = 0
        self._source = source
        self._window_bytes = WINDOW_FRAMES * source.frame_bytes
        self._held = bytearray()
        self._matrix = downmix_matrix(source) if source.channels > _MAX_OUTPUT_CHANNELS else None

    def feed(self, audio: memoryview) -> Iterator[AudioSegment]:
        """Yields the windows of 16-bit mono or stereo that `audio`, of any length, completes."""
        if self._held:
            missing = self._window_bytes - len(self._held)
            self._held += audio[:missing]
            audio = audio[missing:]
            if len(self._held) < self._window_bytes:
                return
            yield self._cut(self._held)
            self._held = bytearray()
        whole = len(audio) - len(audio) % self._window_bytes
        for start in range(0, whole, self._window_bytes):
            yield self._cut(audio[start : start + self._window_bytes])
        self._held += audio[whole:]

    def finish(self) -> Iterator[AudioSegment]:
        """Yields the last window, if there is one; a frame that was cut short is dropped."""
        whole = len(self._held) - len(self._held) % self._source.frame_bytes
        if whole:
            yield self._cut(self._held[:whole])

    def _cut(self, window: bytearray | memoryview) -> AudioSegment:
        self.frames += len(window) // self._source.frame_bytes
        pcm = _to_16_bit(window, self._source.sample_bytes)
        if self._matrix is not None:
            pcm = _mix(pcm, self._matrix)
        return AudioSegment(
            pcm, sample_width=_SAMPLE_BYTES, frame_rate=self._source.sample_rate, channels=self.channels
        )


def downmix_matrix(source: Format) -> NDArray[np.float32]:
    """Returns what each of the source's channels gives to left and right, as float32 of shape (channels, 2).

    The larger side adds up to 1, so that the mix can never clip. Channels with no known speaker (a multitrack
    recorder's) go left and right in turn.
    """
    mask = source.channel_mask
    if mask.bit_count() != source.channels or mask >> len(_SPEAKERS):
        mask = _DEFAULT_MASKS.get(source.channels, 0)
    if mask:
        gains = [gain for bit, gain in enumerate(_SPEAKERS) if mask >> bit & 1]
    else:
        gains = [(_LEFT, _RIGHT)[channel % 2] for channel in range(source.channels)]
    loudest = max(sum(side) for side in zip(*gains, strict=True))
    return np.array(gains, dtype=np.float32) / np.float32(loudest)


def _to_16_bit(window: bytearray | memoryview, sample_bytes: int) -> bytes:
    if sample_bytes == _SAMPLE_BYTES:
        return bytes(window)
    if sample_bytes == 1:
        # Samples of one byte are unsigned in a WAV, and signed in audioop.
        return audioop.lin2lin(audioop.bias(window, 1, 128), 1, _SAMPLE_BYTES)
    return audioop.lin2lin(window, sample_bytes, _SAMPLE_BYTES)


def _mix(pcm: bytes, matrix: NDArray[np.float32]) -> bytes:
    samples = np.frombuffer(pcm, dtype="<i2").reshape(-1, len(matrix)).astype(np.float32)
    mixed: bytes = np.rint(samples @ matrix).astype("<i2").tobytes()
    return mixed
