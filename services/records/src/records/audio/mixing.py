"""Mixes more than two channels down to stereo."""

import numpy as np
from numpy.typing import NDArray

from .formats import Format

# Speakers in the order of the bits of dwChannelMask, and what each gives to left and right. ITU-R BS.775-3,
# annex 4, mixes centre and surrounds in 3 dB down and leaves the effects channel (LFE) out. It defines no
# height speakers and no back centre: height is mixed like surround, and back centre into both sides.
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

# The speakers of a file without a mask, by its number of channels: ffmpeg's default layouts, except for three
# channels. There ffmpeg assumes 2.1, so its downmix drops the third channel; Microsoft's order of speakers
# makes it the centre. Field recorders write their tracks without a mask, too, so no channel is an LFE then.
_DEFAULT_MASKS = {3: 0x007, 4: 0x107, 5: 0x037, 6: 0x03F, 7: 0x70F, 8: 0x63F}


def downmix_matrix(source: Format) -> NDArray[np.float32]:
    """Returns what each channel gives to left and right, as float32 of shape (channels, 2).

    The gains of the louder side add up to 1, so the mix never clips. Channels without a known speaker, as a
    multitrack recorder writes them, go left and right in turn. Only a mask that names an LFE silences one.
    """
    mask = source.channel_mask
    nowhere = _NOWHERE
    if mask.bit_count() != source.channels or mask >> len(_SPEAKERS):
        mask, nowhere = _DEFAULT_MASKS.get(source.channels, 0), _CENTRE
    if mask:
        gains = [gain for bit, gain in enumerate(_SPEAKERS) if mask & (1 << bit)]
        gains = [nowhere if gain is _NOWHERE else gain for gain in gains]
    else:
        gains = [(_LEFT, _RIGHT)[channel % 2] for channel in range(source.channels)]
    loudest = max(sum(side) for side in zip(*gains, strict=True))
    return np.array(gains, dtype=np.float32) / np.float32(loudest)
