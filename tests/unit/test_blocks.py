"""PCM blocks: every width and number of channels becomes 16-bit mono or stereo, without clipping."""

import os
import subprocess
import sys
from collections import deque
from fractions import Fraction
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

import records.audio
from records.audio import TooLong
from records.audio.blocks import MAX_BLOCK_SAMPLE_FRAMES, BlockMaker
from records.audio.formats import Codec, Format
from records.audio.mixing import downmix_matrix
from records.audio.resampling import mp3_sample_rate
from records.audio.wav import DataChunk
from tests import wavs

HALF = 0.5**0.5
ALONE = DataChunk(1)


def integers(channels: int, sample_bytes: int = 2, mask: int = 0, rate: int = 48000) -> Format:
    return Format(Codec.INTEGER, channels, rate, channels * sample_bytes, mask)


def make_blocks(audio: bytes, source: Format, piece_bytes: int = 1 << 20) -> list[bytes]:
    maker = BlockMaker(source, max_duration_seconds=10**6)
    blocks: list[bytes] = []
    for start in range(0, len(audio), piece_bytes):
        blocks += maker.feed(memoryview(audio)[start : start + piece_bytes], ALONE)
    return blocks + list(maker.finish())


def sides(channels: int, mask: int = 0) -> list[tuple[float, float]]:
    """Returns what each channel gives to left and right, before scaling prevents clipping."""
    matrix = downmix_matrix(integers(channels, mask=mask))
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
    [block] = make_blocks(bytes.fromhex(audio), integers(1, sample_bytes))
    assert np.frombuffer(block, "<i2").tolist() == expected


@pytest.mark.parametrize("piece_bytes", [1, 7, 4096, 1 << 20])
def test_blocks_are_the_same_however_the_audio_arrives(piece_bytes: int) -> None:
    audio = bytes(3 * 2 * (2 * 21_845 + 3)) + b"\1"
    blocks = make_blocks(audio, integers(2, 3), piece_bytes)
    assert [len(block) for block in blocks] == [4 * 21_845, 4 * 21_845, 12]


@pytest.mark.parametrize("piece_bytes", [1, 7, 4096, 1 << 20])
def test_plain_audio_passes_unchanged_in_whole_sample_frames_as_it_arrives(piece_bytes: int) -> None:
    audio = np.arange(2 * 2 * MAX_BLOCK_SAMPLE_FRAMES + 6, dtype="<i2").tobytes() + b"\1"
    blocks = make_blocks(audio, integers(2), piece_bytes)
    assert b"".join(blocks) == audio[:-1]
    assert {len(block) % 4 for block in blocks} == {0}
    # Small pieces are joined to blocks of 32 KiB. The last block is the rest.
    least = min(4 * MAX_BLOCK_SAMPLE_FRAMES, max(piece_bytes, 32 * 1024))
    assert all(least <= len(block) <= least + 4 for block in blocks[:-1])


def test_mono_and_stereo_keep_their_channels() -> None:
    for channels, expected in ((1, 1), (2, 2), (6, 2)):
        assert BlockMaker(integers(channels), 1).channels == expected


@pytest.mark.parametrize("mask", [0x3F, 0x60F])
def test_surround_5_1_is_mixed_by_bs_775_without_its_lfe_channel(mask: int) -> None:
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
        (7, 0, [(1, 0), (0, 1), (0.707, 0.707), (0.707, 0.707), (0.5, 0.5), (0.707, 0), (0, 0.707)]),
        (8, 0, [(1, 0), (0, 1), (0.707, 0.707), (0.707, 0.707), *[(0.707, 0), (0, 0.707)] * 2]),
        (6, 0, [(1, 0), (0, 1), (0.707, 0.707), (0.707, 0.707), (0.707, 0), (0, 0.707)]),
        (8, 0x0FF, [(1, 0), (0, 1), (0.707, 0.707), (0, 0), (0.707, 0), (0, 0.707), (1, 0), (0, 1)]),
    ],
)
def test_each_speaker_goes_to_its_side(channels: int, mask: int, expected: list[tuple[float, float]]) -> None:
    assert sides(channels, mask) == expected


@pytest.mark.parametrize("channels", range(1, 33))
def test_no_track_is_dropped_where_no_mask_says_that_it_is_an_lfe(channels: int) -> None:
    for mask in (0, 0x8, 0xF, 0x80000000):
        if mask.bit_count() != channels:
            assert all(max(track) >= 0.5 for track in sides(channels, mask))


@pytest.mark.parametrize("mask", [0x7, 0x8000001F, 0xFFFFFFFF])
def test_a_mask_that_does_not_fit_is_ignored(mask: int) -> None:
    assert sides(6, mask) == sides(6)


def test_channels_without_a_known_speaker_go_left_and_right_in_turn() -> None:
    assert sides(9) == [(1, 0), (0, 1)] * 4 + [(1, 0)]
    assert sides(32) == [(1, 0), (0, 1)] * 16


@pytest.mark.parametrize("channels", range(3, 33))
def test_a_downmix_at_full_scale_does_not_clip(channels: int) -> None:
    for value in (-32768, 32767):
        audio = np.full(channels * 5, value, dtype="<i2").tobytes()
        [block] = make_blocks(audio, integers(channels))
        mixed = np.frombuffer(block, "<i2").reshape(-1, 2)
        assert len(mixed) == 5
        assert np.abs(mixed.astype(int)).max() == abs(value)
        assert (np.sign(mixed) == np.sign(value)).all()


@pytest.mark.parametrize(
    ("codec", "sample_bytes", "big_endian", "audio", "expected"),
    [
        (Codec.INTEGER, 1, True, "00 80 ff", [-32768, 0, 32512]),
        (Codec.INTEGER, 2, True, "8000 0000 7fff 0001", [-32768, 0, 32767, 1]),
        (Codec.INTEGER, 3, True, "800000 7fffff 000100", [-32768, 32767, 1]),
        (Codec.INTEGER, 5, False, "0000000080 ffffffff7f 0000000100", [-32768, 32767, 1]),
        (Codec.INTEGER, 5, True, "8000000000 7fffffffff 0001000000", [-32768, 32767, 1]),
        (Codec.INTEGER, 8, False, "0000000000000080 ffffffffffffff7f", [-32768, 32767]),
        (Codec.INTEGER, 8, True, "8000000000000000 7fffffffffffffff", [-32768, 32767]),
        (Codec.FLOAT, 4, False, "000080bf 0000803f 0000003f 00000040", [-32768, 32767, 16384, 32767]),
        (Codec.FLOAT, 4, True, "bf800000 3f000000", [-32768, 16384]),
        # Quiet and signalling NaN, both infinities, and the largest number.
        (Codec.FLOAT, 4, False, "0000c07f 0100807f 0000807f 000080ff ffff7f7f", [0, 0, 0, 0, 32767]),
        (Codec.FLOAT, 8, False, "000000000000f07f ffffffffffffefff 000000000000e03f", [0, -32768, 16384]),
        (Codec.A_LAW, 1, False, "d5 55 2a aa", [8, -8, -32256, 32256]),
        (Codec.MU_LAW, 1, False, "ff 7f 00 80", [0, 0, -32124, 32124]),
    ],
)
def test_every_coding_becomes_16_bit_samples(
    codec: Codec, sample_bytes: int, big_endian: bool, audio: str, expected: list[int]
) -> None:
    source = Format(codec, 1, 48000, sample_bytes, is_big_endian=big_endian)
    [block] = make_blocks(bytes.fromhex(audio), source)
    assert np.frombuffer(block, "<i2").tolist() == expected


def test_a_downmix_rounds_to_16_bit_only_at_the_end() -> None:
    # Each channel is 2.5 steps of 16 bit; a sum of truncated channels would lose a step.
    audio = np.array([0x00027FFF, 0x00027FFF, 0x00027FFF], dtype="<i4").tobytes()
    [block] = make_blocks(audio, integers(3, sample_bytes=4))
    assert np.frombuffer(block, "<i2").tolist() == [2, 2]
    [block] = make_blocks(np.full(3, 0x0002C000, dtype="<i4").tobytes(), integers(3, sample_bytes=4))
    assert np.frombuffer(block, "<i2").tolist() == [3, 3]


RATES = [
    *[
        1,
        2,
        7,
        99,
        100,
        101,
        1234,
        3999,
        4000,
        5512,
        7999,
        8001,
        11024,
        37800,
        44056,
        44099,
        44101,
        47999,
        48001,
    ],
    *[64000, 88200, 96000, 176400, 192000, 384000, 767999, 768000],
]


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("sample_frames", [1, 2, 1000, 12345])
def test_the_length_is_kept_to_the_nearest_sample_frame_at_every_rate(rate: int, sample_frames: int) -> None:
    sample_frames = min(sample_frames, 30 * rate)
    blocks = make_blocks(bytes(2 * sample_frames), integers(1, rate=rate))
    out_rate = mp3_sample_rate(rate)
    exact = Fraction(sample_frames * out_rate, rate)
    made = sum(len(block) for block in blocks) // 2
    assert made == max(1, int(exact + Fraction(1, 2)))
    assert max(len(block) for block in blocks) <= 2 * MAX_BLOCK_SAMPLE_FRAMES


@pytest.mark.parametrize("rate", RATES)
def test_every_rate_keeps_its_sound_in_place(rate: int) -> None:
    seconds = max(0.5, 1000 / rate)
    hertz = 0.3 * min(rate, 48000)
    out_rate = mp3_sample_rate(rate)
    audio = wavs.pcm(wavs.sine(hertz, seconds, rate, channels=1), 16)
    samples = np.frombuffer(b"".join(make_blocks(audio, integers(1, rate=rate))), "<i2") / 32768
    expected = wavs.sine(hertz, seconds, out_rate, channels=1)[:, 0]
    middle = slice(len(expected) // 4, 3 * len(expected) // 4)
    error = samples[middle] - expected[: len(samples)][middle]
    # 16 bits have a noise of -98 dBFS, once from the source and once from the result.
    assert 20 * np.log10(np.sqrt(np.mean(np.square(error)))) < -92


@pytest.mark.parametrize("rate", [64000, 96000, 176400, 384000, 768000])
def test_tones_above_half_the_new_rate_are_not_folded_back(rate: int) -> None:
    out_rate = mp3_sample_rate(rate)
    tones = [hertz for hertz in (25000, 28000, 31000, 60000, 90000, 190000, 380000) if hertz < rate / 2]
    for hertz in tones:
        audio = wavs.pcm(wavs.sine(hertz, 0.2, rate, channels=1), 16)
        samples = np.frombuffer(b"".join(make_blocks(audio, integers(1, rate=rate))), "<i2") / 32768
        middle = samples[out_rate // 20 : -out_rate // 20]
        assert np.abs(middle).max() < 2 / 32768


@pytest.mark.parametrize("piece_bytes", [1, 999, 1 << 20])
@pytest.mark.parametrize("rate", [50, 44099, 96000])
def test_resampled_blocks_are_the_same_however_the_audio_arrives(rate: int, piece_bytes: int) -> None:
    audio = wavs.pcm(wavs.noise(0.1 if rate > 50 else 30, rate), 16)
    source = integers(2, rate=rate)
    assert make_blocks(audio, source, piece_bytes) == make_blocks(audio, source, len(audio))


def test_a_recording_is_refused_as_soon_as_it_is_too_long() -> None:
    maker = BlockMaker(integers(1, sample_bytes=1, rate=10), max_duration_seconds=60)
    deque(maker.feed(memoryview(bytes(600)), ALONE), maxlen=0)
    with pytest.raises(TooLong, match="longer than 60 seconds"):
        deque(chain(maker.feed(memoryview(bytes(1)), ALONE), maker.finish()), maxlen=0)


def test_importing_the_package_raises_no_warning(tmp_path: Path) -> None:
    source = Path(records.audio.__file__).parents[2]
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", "import records.audio"],
        env={
            **os.environ,
            "PYTHONPATH": str(source),
            # Here nothing is compiled yet, as after an installation without bytecode.
            "PYTHONPYCACHEPREFIX": str(tmp_path),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
