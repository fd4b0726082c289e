"""Decides where to cut a recording, so that an idle thread can encode what follows."""

import math
from typing import NamedTuple

MIN_UNREAD_SECONDS = 1.5
"""Less audio than this behind the last segment's encoder does not pay for a lead-in."""
MAX_SEGMENT_SECONDS = 26.0
"""A long recording is cut at most this far ahead of the last segment's encoder.

Once two segments take turns, each becomes twice as long as this.
"""


class Progress(NamedTuple):
    """How far a recording and its last segment have come.

    Positions are in MP3 frames since the start of the recording, with fractions.
    """

    arrived_mp3_frames: float
    fed_mp3_frames: float
    """Audio before this position was given to the last segment's encoder, and may have been forgotten."""
    encoded_mp3_frames: float
    """The last segment's encoder has encoded everything before this position."""
    expected_mp3_frames: float
    """The length of the recording; infinite if the header does not announce it."""
    lead_in_mp3_frames: int
    mp3_frame_seconds: float
    idle_threads: int
    """Threads that this recording may use and does not use yet."""


def plan_cut(progress: Progress) -> int | None:
    """Returns the number of the MP3 frame at which to end the last segment, or None to leave it open.

    The new segment starts one lead-in before this MP3 frame.
    """
    arrived, fed, encoded, expected, lead_in, mp3_frame_seconds, idle_threads = progress
    if idle_threads < 1 or arrived - fed < MIN_UNREAD_SECONDS / mp3_frame_seconds:
        return None
    # Share what is left evenly: every idle thread encodes a lead-in on top of its share.
    fair_share = (expected - encoded + idle_threads * lead_in) / (idle_threads + 1)
    length = min(MAX_SEGMENT_SECONDS / mp3_frame_seconds, fair_share)
    # The new segment starts with a lead-in, which must not have been fed: fed audio may be forgotten.
    cut = max(int(encoded + length), math.ceil(fed) + lead_in)
    # Cut only if at least a lead-in of audio remains behind the cut.
    is_worth_it = expected - cut >= lead_in
    # The first MP3 frame of the lead-in must have arrived, so that the new segment can start at once.
    has_arrived = arrived >= cut - lead_in + 1
    return cut if is_worth_it and has_arrived else None
