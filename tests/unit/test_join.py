"""The join of segments with encoders of their own: a valid stream that sounds like one encoding."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from records.audio.encoder import Encoder
from records.audio.join import LEAD_OUT_MP3_FRAMES, Mp3Frames, join, lead_in_mp3_frames
from records.audio.mp3 import sample_frames_per_mp3_frame
from tests import wavs
from tests.mp3_walk import assert_valid, walk
from tests.unit.serial_encoding import (
    Samples,
    Stream,
    decode,
    encode,
    encode_in_segments,
    errors,
    music,
    power_db,
    samples_of,
)

# Every layout of side information; reservoirs of no MP3 frame (at 320 kbit/s) to several MP3 frames.
STREAMS = [
    (44100, 2, 128),
    (44100, 1, 64),
    (44100, 2, 320),
    (48000, 2, 192),
    (32000, 1, 32),
    (24000, 2, 160),
    (22050, 2, 64),
    (16000, 1, 24),
    (12000, 2, 32),
    (8000, 1, 8),
]


def worst_excerpt_db(ours: NDArray[np.float64], theirs: NDArray[np.float64], mp3_frame_samples: int) -> float:
    """Returns by how many dB our worst 8 MP3 frames are worse. Errors that nobody can hear count as equal."""
    size = 8 * mp3_frame_samples
    excerpts = [
        (ours[start : start + size], theirs[start : start + size])
        for start in range(0, len(ours) - size, size)
    ]
    return max(max(power_db(a), -75) - max(power_db(b), -75) for a, b in excerpts)


def hush_and_noise(seconds: float, rate: int, channels: int) -> Samples:
    """Returns silence in which noise sets in, again and again: then LAME's decisions change most."""
    sound = wavs.noise(seconds, rate, channels)
    sound[(np.arange(len(sound)) // (rate // 2)) % 2 == 0] = 0
    return samples_of(sound)


def silence(seconds: float, rate: int, channels: int) -> Samples:
    return samples_of(wavs.silence(seconds, rate, channels))


def noise(seconds: float, rate: int, channels: int) -> Samples:
    return samples_of(wavs.noise(seconds, rate, channels))


SOUNDS: dict[str, Callable[[float, int, int], Samples]] = {
    "music": music,
    "noise": noise,
    "silence": silence,
    "hush and noise": hush_and_noise,
}


@pytest.mark.parametrize("stream", STREAMS, ids=str)
@pytest.mark.parametrize("sound", SOUNDS)
def test_a_joined_stream_is_valid_and_sounds_like_one_encoding(stream: Stream, sound: str) -> None:
    rate, channels, bitrate_kbps = stream
    mp3_frame_samples = sample_frames_per_mp3_frame(rate)
    # Each third must be longer than a lead-in.
    seconds = max(3.0, 3.3 * lead_in_mp3_frames(rate, bitrate_kbps) * mp3_frame_samples / rate)
    samples = SOUNDS[sound](seconds, rate, channels)
    mp3_frames = len(samples) // mp3_frame_samples
    serial = encode(samples, stream)
    joined, joins = encode_in_segments(samples, stream, [mp3_frames // 3, 2 * mp3_frames // 3])
    assert joins
    joined_walk = walk(joined)
    assert_valid(joined_walk)
    assert len(joined_walk) == len(walk(serial))
    ours, theirs = errors(samples, joined), errors(samples, serial)
    assert ours.shape == theirs.shape
    assert power_db(ours) - power_db(theirs) <= 0.05
    assert worst_excerpt_db(ours, theirs, mp3_frame_samples) <= 3


@settings(max_examples=25)
@given(st.data())
def test_segments_of_any_length_are_joined_wherever_the_cuts_are(data: st.DataObject) -> None:
    stream = data.draw(st.sampled_from(STREAMS))
    rate, channels, bitrate_kbps = stream
    samples = music(8, rate, channels)[: data.draw(st.integers(6 * rate, 8 * rate))]
    mp3_frames = len(samples) // sample_frames_per_mp3_frame(rate)
    lead_in = lead_in_mp3_frames(rate, bitrate_kbps)
    steps = data.draw(st.lists(st.integers(lead_in, 3 * lead_in), max_size=4))
    cuts = [int(cut) for cut in np.cumsum(steps) if cut + LEAD_OUT_MP3_FRAMES < mp3_frames]
    joined, _ = encode_in_segments(samples, stream, cuts)
    assert_valid(walk(joined))
    assert len(decode(joined)) == len(decode(encode(samples, stream)))


def test_where_no_mp3_frame_fits_nothing_is_changed() -> None:
    stream = (44100, 2, 128)
    samples = music(4, 44100, 2)
    a, b = Mp3Frames(0), Mp3Frames(60)
    a.append(Encoder(*stream).encode(samples[: 50 * 1152].tobytes()))
    b.append(Encoder(*stream).encode(samples[60 * 1152 :].tobytes()))
    before = a.end, b.first, b.end
    assert join(a, b, 61) is None
    assert (a.end, b.first, b.end) == before
    assert a.first == 0


def test_mp3_frames_are_found_however_the_bytes_arrive() -> None:
    mp3 = encode(music(2, 44100, 2), (44100, 2, 128))
    at_once, one_by_one = Mp3Frames(0), Mp3Frames(0)
    at_once.append(mp3)
    for place in range(len(mp3)):
        one_by_one.append(mp3[place : place + 1])
    assert at_once.end == one_by_one.end == len(walk(mp3))
    assert at_once.take_before(10) + at_once.take_all() == mp3
    assert one_by_one.take_before(10) + one_by_one.take_all() == mp3
