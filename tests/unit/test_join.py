"""The join of parts that were encoded apart: a valid stream, and the sound of one encoding."""

import io

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from records.audio.encoder import Encoder
from records.audio.join import LEAD_OUT_FRAMES, Frames, join, lead_in_frames
from records.audio.mp3 import samples_per_frame
from tests import wavs
from tests.mp3_walk import assert_valid, walk
from tests.wavs import Sound

DECODER_DELAY = 1105
# Every layout of side information, every kind of reservoir: none (320), large, and hardly a byte a frame.
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


def samples_of(sound: Sound) -> NDArray[np.int16]:
    return np.rint(sound * 32767).astype("<i2")


def encode_in_parts(
    samples: NDArray[np.int16], stream: tuple[int, int, int], cuts: list[int]
) -> tuple[bytes, int]:
    """Encodes with a cut before each of these frames; returns the MP3 and how many joins were found.

    Where no frame fits, the part goes on, as the service does it.
    """
    frame_samples = samples_per_frame(stream[0])
    lead_in = lead_in_frames(stream[0], stream[2])
    encoder, frames, fed, mp3, found = Encoder(*stream), Frames(0), 0, b"", 0
    for cut in cuts:
        end = (cut + LEAD_OUT_FRAMES) * frame_samples
        frames.append(encoder.encode(samples[fed:end].tobytes()))
        next_encoder, next_frames = Encoder(*stream), Frames(cut - lead_in)
        next_frames.append(next_encoder.encode(samples[(cut - lead_in) * frame_samples : end].tobytes()))
        joined = join(frames, next_frames, cut - lead_in // 2)
        if joined is not None:
            mp3 += joined
            encoder, frames, found = next_encoder, next_frames, found + 1
        fed = end
    frames.append(encoder.encode(samples[fed:].tobytes()) + encoder.finish())
    return mp3 + frames.take_all(), found


def encode(samples: NDArray[np.int16], stream: tuple[int, int, int]) -> bytes:
    encoder = Encoder(*stream)
    return encoder.encode(samples.tobytes()) + encoder.finish()


def decode(mp3: bytes) -> NDArray[np.float64]:
    """Decodes to shape (samples, channels); AssertionError where FFmpeg has anything to say about it."""
    with av.logging.Capture() as complaints, av.open(io.BytesIO(mp3), "r", format="mp3") as container:
        decoded = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)
    assert not [
        words for level, _, words in complaints if level <= av.logging.WARNING and "bitrate" not in words
    ]
    return decoded.T.astype(np.float64)


def errors(samples: NDArray[np.int16], mp3: bytes) -> NDArray[np.float64]:
    """Returns source minus decoded, at the same place."""
    decoded = decode(mp3)[DECODER_DELAY:]
    count = min(len(samples), len(decoded))
    difference: NDArray[np.float64] = samples[:count] / 32768 - decoded[:count]
    return difference


def power_db(signal: NDArray[np.float64]) -> float:
    return float(10 * np.log10(np.mean(np.square(signal)) + 1e-12))


def worst_window_db(ours: NDArray[np.float64], theirs: NDArray[np.float64], frame_samples: int) -> float:
    """By how much the worst window of 8 frames is worse; what nobody can hear in both counts as equal."""
    size = 8 * frame_samples
    windows = [
        (ours[start : start + size], theirs[start : start + size])
        for start in range(0, len(ours) - size, size)
    ]
    return max(max(power_db(a), -75) - max(power_db(b), -75) for a, b in windows)


def music(seconds: float, rate: int, channels: int) -> Sound:
    return wavs.music(seconds * rate / 44100)[:, :channels]


def hush_and_noise(seconds: float, rate: int, channels: int) -> Sound:
    """Silence in which noise sets in, again and again: the encoder's hardest change of mind."""
    sound = wavs.noise(seconds, rate, channels)
    sound[(np.arange(len(sound)) // (rate // 2)) % 2 == 0] = 0
    return sound


SOUNDS = {"music": music, "noise": wavs.noise, "silence": wavs.silence, "hush and noise": hush_and_noise}


@pytest.mark.parametrize("stream", STREAMS, ids=str)
@pytest.mark.parametrize("sound", SOUNDS)
def test_a_joined_stream_is_valid_and_sounds_as_if_it_had_been_encoded_in_one(
    stream: tuple[int, int, int], sound: str
) -> None:
    rate, channels, _ = stream
    frame_samples = samples_per_frame(rate)
    samples = samples_of(SOUNDS[sound](20, rate, channels))
    frames = len(samples) // frame_samples
    serial = encode(samples, stream)
    joined, found = encode_in_parts(samples, stream, [frames // 3, 2 * frames // 3])
    assert found
    assert_valid(walk(joined))
    assert len(walk(joined)) == len(walk(serial))
    ours, theirs = errors(samples, joined), errors(samples, serial)
    assert ours.shape == theirs.shape
    assert power_db(ours) - power_db(theirs) <= 0.05
    assert worst_window_db(ours, theirs, frame_samples) <= 3


@settings(max_examples=25)
@given(st.data())
def test_parts_of_any_length_are_joined_wherever_the_cuts_are(data: st.DataObject) -> None:
    stream = data.draw(st.sampled_from(STREAMS))
    rate, channels, _ = stream
    samples = samples_of(music(8, rate, channels))[: data.draw(st.integers(6 * rate, 8 * rate))]
    frames = len(samples) // samples_per_frame(rate)
    lead_in = lead_in_frames(rate, stream[2])
    steps = data.draw(st.lists(st.integers(lead_in, 3 * lead_in), max_size=4))
    cuts = [int(cut) for cut in np.cumsum(steps) if cut + LEAD_OUT_FRAMES < frames]
    joined, _ = encode_in_parts(samples, stream, cuts)
    assert_valid(walk(joined))
    assert len(decode(joined)) == len(decode(encode(samples, stream)))


def test_where_no_frame_fits_nothing_is_changed() -> None:
    stream = (44100, 2, 128)
    samples = samples_of(music(4, 44100, 2))
    a, b = Frames(0), Frames(60)
    a.append(Encoder(*stream).encode(samples[: 50 * 1152].tobytes()))
    b.append(Encoder(*stream).encode(samples[60 * 1152 :].tobytes()))
    before = a.end, b.first, b.end
    assert join(a, b, 61) is None
    assert (a.end, b.first, b.end) == before
    assert a.first == 0


def test_frames_are_found_however_the_bytes_come() -> None:
    mp3 = encode(samples_of(music(2, 44100, 2)), (44100, 2, 128))
    at_once, one_by_one = Frames(0), Frames(0)
    at_once.append(mp3)
    for place in range(len(mp3)):
        one_by_one.append(mp3[place : place + 1])
    assert at_once.end == one_by_one.end == len(walk(mp3))
    assert at_once.take_before(10) + at_once.take_all() == mp3
    assert one_by_one.take_before(10) + one_by_one.take_all() == mp3
