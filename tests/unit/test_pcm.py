"""PCM windows: every width and number of channels becomes 16-bit mono or stereo, without clipping."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import records.audio
from records.audio.pcm import WINDOW_FRAMES, Windows, downmix_matrix
from records.audio.wav import Format

HALF = 0.5**0.5


def windowed(audio: bytes, source: Format, piece_bytes: int = 1 << 20) -> list[bytes]:
    windows = Windows(source)
    out = []
    for start in range(0, len(audio), piece_bytes):
        out += [segment.raw_data for segment in windows.feed(memoryview(audio)[start : start + piece_bytes])]
    return out + [segment.raw_data for segment in windows.finish()]


def sides(channels: int, mask: int = 0) -> list[tuple[float, float]]:
    """Returns what each channel gives to left and right, before it is scaled so that the sum cannot clip."""
    matrix = downmix_matrix(Format(channels, 48000, 2, mask))
    assert matrix.sum(axis=0).max() == pytest.approx(1)
    return [(round(float(left), 3), round(float(right), 3)) for left, right in matrix / matrix.max()]


@pytest.mark.parametrize(
    ("sample_bytes", "audio", "expected"),
    [
        (1, "00 80 ff 7f", [-32768, 0, 32512, -256]),
        (2, "0080 0000 ff7f 0100", [-32768, 0, 32767, 1]),
        (3, "000080 000000 ffff7f 000100", [-32768, 0, 32767, 1]),
        (4, "00000080 00000000 ffffff7f 00000100", [-32768, 0, 32767, 1]),
    ],
)
def test_every_width_becomes_the_same_16_bit_samples(
    sample_bytes: int, audio: str, expected: list[int]
) -> None:
    [window] = windowed(bytes.fromhex(audio), Format(1, 48000, sample_bytes, 0))
    assert np.frombuffer(window, "<i2").tolist() == expected


@pytest.mark.parametrize("piece_bytes", [1, 7, 4096, 1 << 20])
def test_windows_are_the_same_however_the_audio_arrives(piece_bytes: int) -> None:
    audio = np.arange(2 * 2 * WINDOW_FRAMES + 6, dtype="<i2").tobytes() + b"\1"
    windows = windowed(audio, Format(2, 48000, 2, 0), piece_bytes)
    assert [len(window) for window in windows] == [4 * WINDOW_FRAMES, 4 * WINDOW_FRAMES, 12]
    assert b"".join(windows) == audio[:-1]


def test_mono_and_stereo_keep_their_channels() -> None:
    assert Windows(Format(1, 48000, 2, 0)).channels == 1
    assert Windows(Format(2, 48000, 2, 0)).channels == 2
    assert Windows(Format(6, 48000, 2, 0)).channels == 2


@pytest.mark.parametrize("mask", [0, 0x3F])
def test_surround_5_1_is_mixed_as_bs_775_says_and_lfe_is_left_out(mask: int) -> None:
    half = round(HALF, 3)
    assert sides(6, mask) == [(1, 0), (0, 1), (half, half), (0, 0), (half, 0), (0, half)]


@pytest.mark.parametrize(
    ("channels", "mask", "expected"),
    [
        (3, 0, [(1, 0), (0, 1), (0.707, 0.707)]),
        (3, 0x00B, [(1, 0), (0, 1), (0, 0)]),
        (4, 0, [(1, 0), (0, 1), (0.707, 0.707), (0.5, 0.5)]),
        (4, 0x033, [(1, 0), (0, 1), (0.707, 0), (0, 0.707)]),
        (5, 0, [(1, 0), (0, 1), (0.707, 0.707), (0.707, 0), (0, 0.707)]),
        (7, 0, [(1, 0), (0, 1), (0.707, 0.707), (0, 0), (0.5, 0.5), (0.707, 0), (0, 0.707)]),
        (8, 0, [(1, 0), (0, 1), (0.707, 0.707), (0, 0), *[(0.707, 0), (0, 0.707)] * 2]),
        (8, 0x0FF, [(1, 0), (0, 1), (0.707, 0.707), (0, 0), (0.707, 0), (0, 0.707), (1, 0), (0, 1)]),
    ],
)
def test_each_speaker_goes_to_its_side(channels: int, mask: int, expected: list[tuple[float, float]]) -> None:
    assert sides(channels, mask) == expected


@pytest.mark.parametrize("mask", [0x7, 0x8000001F, 0xFFFFFFFF])
def test_a_mask_that_does_not_fit_counts_as_none(mask: int) -> None:
    assert sides(6, mask) == sides(6)


def test_channels_of_no_known_speaker_go_left_and_right_in_turn() -> None:
    assert sides(9) == [(1, 0), (0, 1)] * 4 + [(1, 0)]
    assert sides(32) == [(1, 0), (0, 1)] * 16


@pytest.mark.parametrize("channels", range(3, 33))
def test_a_downmix_at_full_scale_does_not_clip(channels: int) -> None:
    for value in (-32768, 32767):
        audio = np.full(channels * 5, value, dtype="<i2").tobytes()
        [window] = windowed(audio, Format(channels, 48000, 2, 0))
        mixed = np.frombuffer(window, "<i2").reshape(-1, 2)
        assert len(mixed) == 5
        assert np.abs(mixed.astype(int)).max() == abs(value)
        assert (np.sign(mixed) == np.sign(value)).all()


def test_importing_the_package_says_nothing_even_where_warnings_are_errors(tmp_path: Path) -> None:
    source = Path(records.audio.__file__).parents[2]
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", "import records.audio"],
        env={
            **os.environ,
            "PYTHONPATH": str(source),
            # Nothing is compiled yet here, as after an installation without bytecode.
            "PYTHONPYCACHEPREFIX": str(tmp_path),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
