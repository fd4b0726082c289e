"""The meter finds the levels and the waveform that numpy computes on the whole recording at once."""

import numpy as np
import pytest
from numpy.typing import NDArray

from records.audio.levels import MAX_PIXELS, SAMPLES_PER_PIXEL, Levels, Meter, Waveform
from tests import wavs

Samples = NDArray[np.int16]


def measure(samples: Samples, block_sample_frames: int = 4096) -> Levels:
    """Measures int16 samples of shape (sample frames, channels)."""
    meter = Meter(samples.shape[1])
    for start in range(0, len(samples), block_sample_frames):
        meter.feed(samples[start : start + block_sample_frames].tobytes())
    return meter.finish()


def as_16_bit(sound: wavs.Sound) -> Samples:
    return np.frombuffer(wavs.pcm(sound, 16), dtype="<i2").reshape(sound.shape)


def expected_waveform(samples: Samples, samples_per_pixel: int) -> list[int]:
    """Returns what audiowaveform's WaveformGenerator makes: the channels' average, then its upper byte."""
    average = np.trunc(samples.astype(np.int64).sum(axis=1) / samples.shape[1])
    upper = np.trunc(average / 256).astype(int)
    starts = np.arange(0, len(upper), samples_per_pixel)
    pixels = [extreme.reduceat(upper, starts) for extreme in (np.minimum, np.maximum)]
    return [int(value) for value in np.stack(pixels, axis=1).flat]


def noise(sample_frames: int, channels: int) -> Samples:
    return np.random.default_rng(seed=2).integers(-32768, 32768, (sample_frames, channels), dtype=np.int16)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("kind", ["music", "noise", "sine"])
def test_levels_and_waveform_are_those_of_the_whole_recording(kind: str, channels: int) -> None:
    samples = {
        "music": lambda: as_16_bit(wavs.music(1)[:, :channels]),
        "noise": lambda: noise(50_000, channels),
        "sine": lambda: as_16_bit(wavs.sine(seconds=1, channels=channels)),
    }[kind]()
    levels = measure(samples)
    exact = samples.astype(np.float64)
    assert levels.peak_dbfs == pytest.approx(20 * np.log10(np.abs(exact).max() / 32768), abs=0.0051)
    assert levels.rms_dbfs == pytest.approx(20 * np.log10(np.sqrt(np.mean(exact**2)) / 32768), abs=0.0051)
    assert levels.waveform.samples_per_pixel == SAMPLES_PER_PIXEL
    assert levels.waveform.values() == expected_waveform(samples, SAMPLES_PER_PIXEL)
    for block_sample_frames in (1, 777, len(samples)):
        assert measure(samples, block_sample_frames) == levels


def test_a_level_between_two_hundredths_does_not_depend_on_the_blocks() -> None:
    random = np.random.default_rng(seed=0)
    samples = (random.integers(-32768, 32768, (131_072, 1), dtype=np.int16) * 0.62).astype(np.int16)
    squares = samples.astype(np.int64) ** 2
    # Silence the largest samples until the power lies on the border of -9.05 and -9.06 dB.
    while (excess := squares.sum() - 10**-0.9055 * 32768**2 * len(squares)) > 0:
        index = np.where(squares <= excess, squares, 0).argmax()
        if not squares[index]:
            break
        samples[index] = squares[index] = 0
    found = {
        measure(samples, block_sample_frames).rms_dbfs
        for block_sample_frames in (128, 777, 4096, 32768, 131_072)
    }
    assert len(found) == 1
    assert found < {-9.05, -9.06}


@pytest.mark.parametrize("channels", [1, 2])
def test_digital_silence_has_no_level_and_a_flat_waveform(channels: int) -> None:
    levels = measure(np.zeros((1000, channels), dtype=np.int16))
    assert (levels.peak_dbfs, levels.rms_dbfs) == (None, None)
    assert levels.waveform == Waveform(SAMPLES_PER_PIXEL, bytes(16))


def test_a_square_wave_at_full_scale_has_a_level_of_zero() -> None:
    square = np.tile(np.repeat(np.array([32767, -32768], dtype=np.int16), 50), 441)[:, np.newaxis]
    levels = measure(square)
    assert (str(levels.peak_dbfs), str(levels.rms_dbfs)) == ("0.0", "0.0")
    assert set(levels.waveform.values()) == {-128, 127}


@pytest.mark.parametrize(
    ("sample_frame", "peak_dbfs", "rms_dbfs", "waveform"),
    [
        ([-32768], 0.0, 0.0, [-128, -128]),
        ([1], -90.31, -90.31, [0, 0]),
        ([-256], -42.14, -42.14, [-1, -1]),
        ([-255], -42.18, -42.18, [0, 0]),
        ([32767, 0], 0.0, -3.01, [63, 63]),
        ([32767, -32768], 0.0, 0.0, [0, 0]),
        ([-32768, -32768], 0.0, 0.0, [-128, -128]),
        ([-32768, 0], 0.0, -3.01, [-64, -64]),
    ],
)
def test_one_sample_frame_has_its_levels_and_one_pixel(
    sample_frame: list[int], peak_dbfs: float, rms_dbfs: float, waveform: list[int]
) -> None:
    levels = measure(np.array([sample_frame], dtype=np.int16))
    assert (levels.peak_dbfs, levels.rms_dbfs) == (peak_dbfs, rms_dbfs)
    assert levels.waveform.values() == waveform


@pytest.mark.parametrize("block_sample_frames", [1, 127, 1152, 4096, 65_536, 65_537, 1 << 20])
def test_the_result_does_not_depend_on_the_blocks(block_sample_frames: int) -> None:
    samples = noise(200_003, 2)
    assert measure(samples, block_sample_frames) == measure(samples, 200_003)


@pytest.mark.parametrize(
    ("sample_frames", "factor"),
    [
        (SAMPLES_PER_PIXEL * (MAX_PIXELS - 1), 1),
        (SAMPLES_PER_PIXEL * (MAX_PIXELS - 1) + 1, 2),
        (SAMPLES_PER_PIXEL * MAX_PIXELS, 2),
        (SAMPLES_PER_PIXEL * MAX_PIXELS + 1, 2),
        (SAMPLES_PER_PIXEL * (2 * MAX_PIXELS - 2), 2),
        (SAMPLES_PER_PIXEL * (2 * MAX_PIXELS - 2) + 1, 4),
        (SAMPLES_PER_PIXEL * MAX_PIXELS * 5 + 77, 8),
    ],
)
def test_a_long_recording_has_the_finest_waveform_that_fits(sample_frames: int, factor: int) -> None:
    samples = np.resize(noise(1_000_003, 1) // 2, (sample_frames, 1))
    waveform = measure(samples, 1 << 18).waveform
    assert waveform.samples_per_pixel == SAMPLES_PER_PIXEL * factor
    assert waveform.length == -(-sample_frames // waveform.samples_per_pixel) < MAX_PIXELS
    assert waveform.values() == expected_waveform(samples, waveform.samples_per_pixel)


def test_a_pixel_may_be_longer_than_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("records.audio.levels.MAX_PIXELS", 16)
    samples = np.resize(noise(1_000_003, 1), (3_000_001, 1))
    waveform = measure(samples).waveform
    assert (waveform.samples_per_pixel, waveform.length) == (262_144, 12)
    assert waveform.values() == expected_waveform(samples, 262_144)


@pytest.mark.parametrize(
    ("asked", "samples_per_pixel", "length"),
    [
        ({}, 128, 100),
        ({"samples_per_pixel": 1}, 128, 100),
        ({"samples_per_pixel": 128}, 128, 100),
        ({"samples_per_pixel": 129}, 256, 50),
        ({"samples_per_pixel": 3 * 128}, 384, 34),
        ({"samples_per_pixel": 10**9}, 10**9, 1),
        ({"max_pixels": 1000}, 128, 100),
        ({"max_pixels": 100}, 128, 100),
        ({"max_pixels": 99}, 256, 50),
        ({"max_pixels": 3}, 34 * 128, 3),
        ({"max_pixels": 1}, 100 * 128, 1),
    ],
)
def test_a_waveform_is_coarsened_in_whole_pixels(
    asked: dict[str, int], samples_per_pixel: int, length: int
) -> None:
    samples = noise(100 * 128 - 5, 2)
    waveform = measure(samples).waveform.coarsen(**asked)
    assert (waveform.samples_per_pixel, waveform.length) == (samples_per_pixel, length)
    assert waveform.values() == expected_waveform(samples, samples_per_pixel)
