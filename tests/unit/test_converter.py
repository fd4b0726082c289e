"""The Converter keeps length and sound of every format; FFmpeg's decoder is the reference."""

import asyncio
import tracemalloc
from collections.abc import AsyncIterator
from threading import Event

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from records.audio import (
    BrokenAudio,
    Converter,
    EncoderThreads,
    OutOfProportion,
    Properties,
    TooLong,
    UnsupportedAudio,
)
from records.audio.converter import MAX_FIXED_GROWTH_BYTES, MAX_GROWTH
from records.audio.mp3 import SAMPLE_RATES, read_mp3_frame_header
from tests import decoding, wavs
from tests.decoding import Comparison, Decoded
from tests.unit import run_converter
from tests.unit.run_converter import drain, feed_all
from tests.wavs import FLOAT, UNKNOWN_SIZE, Wav


def convert(
    *pieces: bytes, bitrate_kbps: int = 128, max_duration_seconds: int = 3600
) -> tuple[bytes, Properties]:
    converter, mp3 = run_converter.convert(
        *pieces, bitrate_kbps=bitrate_kbps, max_duration_seconds=max_duration_seconds
    )
    return converter.make_head() + mp3, converter.properties


@pytest.fixture
async def threads() -> AsyncIterator[EncoderThreads]:
    threads = EncoderThreads(2)
    yield threads
    threads.close()


def assert_right_length_and_sound(comparison: Comparison, correlation: float = 0.99) -> None:
    assert (comparison.lag, comparison.seconds) == (0, 0)
    assert comparison.correlation > correlation
    # Up to 160 kbit/s LAME lowers the level by 0.45 dB, as headroom for what it leaves out.
    assert abs(comparison.level_db) < 0.5


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("bits", [8, 16, 24, 32])
@pytest.mark.parametrize("extensible", [False, True])
def test_music_of_every_width_keeps_its_length_and_sound(channels: int, bits: int, extensible: bool) -> None:
    music = wavs.music(seconds=3)[:, :channels]
    wav = Wav(bits=bits, channels=channels, extensible=extensible).build(music)
    mp3, properties = convert(wav)
    found = (
        properties.duration_seconds,
        properties.sample_rate,
        properties.channels,
        properties.bitrate_kbps,
    )
    assert found == (3.0, 44100, channels, 128)
    assert_right_length_and_sound(decoding.compare(Decoded(music, 44100), decoding.decode(mp3)))
    assert_right_length_and_sound(decoding.compare(decoding.decode(wav, "wav"), decoding.decode(mp3)))


@pytest.mark.parametrize(
    ("rate", "mp3_rate"),
    [
        *((rate, rate) for rate in SAMPLE_RATES),
        (4000, 8000),
        (5512, 8000),
        (7000, 8000),
        (10000, 11025),
        (18000, 22050),
        (24001, 32000),
        (37800, 44100),
        (44056, 44100),
        (64000, 48000),
        (88200, 48000),
        (96000, 48000),
        (176400, 48000),
        (192000, 48000),
    ],
)
def test_every_sample_rate_keeps_its_length_and_sound(rate: int, mp3_rate: int) -> None:
    wav = Wav(rate=rate, channels=1).build(wavs.sweep(2, rate, channels=1, highest=12000))
    mp3, properties = convert(wav)
    assert (properties.sample_rate, properties.duration_seconds) == (mp3_rate, 2.0)
    comparison = decoding.compare(decoding.decode(wav, "wav"), decoding.decode(mp3))
    assert_right_length_and_sound(comparison, 0.999)


@pytest.mark.parametrize("rate", [768001, 0x7FFFFFFF])
def test_a_sample_rate_beyond_the_limit_is_refused_by_name(rate: int) -> None:
    with pytest.raises(UnsupportedAudio) as refusal:
        convert(Wav(rate=rate).build(wavs.sine()))
    assert f"{rate} Hz; 1 to 768000 Hz are supported" in str(refusal.value)
    assert "ffmpeg -i in.wav -ar 48000" in str(refusal.value)


def test_left_and_right_stay_apart() -> None:
    sound = np.concatenate([wavs.sine(440, channels=1), wavs.sine(1000, channels=1)], axis=1)
    mp3, _ = convert(Wav().build(sound))
    assert_right_length_and_sound(decoding.compare(Decoded(sound, 44100), decoding.decode(mp3)))


def test_surround_becomes_stereo_with_every_speaker_on_its_side() -> None:
    tones = np.concatenate(
        [wavs.sine(hertz, channels=1) for hertz in (400, 600, 900, 60, 1400, 2000)], axis=1
    )
    mp3, properties = convert(Wav(bits=24, channels=6, extensible=True, mask=0x3F).build(tones))
    left, right, centre, _, back_left, back_right = tones.T
    half = 0.5**0.5
    stereo = np.stack([left + half * (centre + back_left), right + half * (centre + back_right)], axis=1)
    stereo /= 1 + 2 * half
    assert properties.channels == 2
    assert_right_length_and_sound(decoding.compare(Decoded(stereo, 44100), decoding.decode(mp3)))


def test_silence_stays_silent() -> None:
    mp3, _ = convert(Wav().build(wavs.silence()))
    assert np.abs(decoding.decode(mp3).samples).max() == 0


def test_a_recording_may_have_one_sample() -> None:
    mp3, properties = convert(Wav(channels=1).build(wavs.sine(channels=1)[:1]))
    assert properties.duration_seconds == 1 / 44100
    assert len(decoding.decode(mp3).samples) == 1


@pytest.mark.parametrize(
    "wav",
    [
        Wav(),
        Wav(after=((b"LIST", b"INFO"),)),
        Wav(riff_size=0, data_size=0),
        Wav(riff_size=UNKNOWN_SIZE, data_size=UNKNOWN_SIZE),
    ],
)
def test_a_wav_without_a_whole_sample_frame_is_broken(wav: Wav) -> None:
    with pytest.raises(BrokenAudio, match="holds no audio"):
        convert(wav.header(0))
    with pytest.raises(BrokenAudio, match="holds no audio"):
        convert(wav.build(wavs.silence()[:0]))


def test_truncated_audio_is_complete_as_far_as_it_goes() -> None:
    _, properties = convert(Wav().build(wavs.sine(seconds=2))[: 44 + 4 * 44100 + 3])
    assert properties.duration_seconds == 1.0
    assert properties.truncated


@pytest.mark.parametrize(
    ("rate", "channels", "asked_kbps", "kbps"),
    [
        (44100, 2, 320, 320),
        (44100, 2, 64, 64),
        (44100, 1, 8, 32),
        (22050, 1, 128, 128),
        (22050, 2, 320, 160),
        (8000, 1, 128, 64),
        (96000, 2, 192, 192),
    ],
)
def test_the_properties_are_those_of_every_mp3_frame(
    rate: int, channels: int, asked_kbps: int, kbps: int
) -> None:
    wav = Wav(rate=rate, channels=channels).build(wavs.noise(1, rate, channels))
    mp3, properties = convert(wav, bitrate_kbps=asked_kbps)
    assert properties.bitrate_kbps == kbps
    decoded = decoding.decode(mp3)
    assert (properties.sample_rate, properties.channels) == (decoded.rate, decoded.channels)
    # Start behind the Info frame, whose bitrate may be higher.
    position = read_mp3_frame_header(mp3).mp3_frame_bytes
    mp3_frames = 0
    while position < len(mp3):
        header = read_mp3_frame_header(mp3[position:])
        assert (header.bitrate_kbps, header.sample_rate, header.channels) == (kbps, decoded.rate, channels)
        position += header.mp3_frame_bytes
        mp3_frames += 1
    assert position == len(mp3)
    assert 0 < mp3_frames * header.sample_frames - len(decoded.samples) <= 3 * header.sample_frames


@pytest.mark.parametrize(
    "header",
    ["", "fffb90", "ff0b9064", "fff39864"[:6], "ffeb9064", "fff99064", "fffb0064", "fffbf064", "fffb9c64"],
)
def test_four_bytes_that_are_no_mp3_frame_header_are_refused(header: str) -> None:
    with pytest.raises(ValueError, match="frame header"):
        read_mp3_frame_header(bytes.fromhex(header))


def test_levels_and_waveform_are_those_of_what_is_encoded() -> None:
    converter, _ = run_converter.convert(Wav(bits=24, channels=1).build(wavs.sine(channels=1)))
    assert (converter.properties.peak_dbfs, converter.properties.rms_dbfs) == (-6.02, -9.03)
    assert (converter.waveform.samples_per_pixel, converter.waveform.length) == (128, 345)
    assert set(converter.waveform.values()[100:110]) <= {-64, -63, 63, 64}


def test_before_the_end_there_are_no_properties_and_no_waveform(threads: EncoderThreads) -> None:
    converter = Converter(threads)
    with pytest.raises(RuntimeError, match="not finished"):
        _ = converter.properties
    with pytest.raises(RuntimeError, match="not finished"):
        _ = converter.waveform


DECODED_WAV = Wav(bits=24, rate=96000, before_data=((b"odd ", b"1"),))


@pytest.mark.parametrize(
    ("wav", "seconds", "piece_bytes"),
    [
        (Wav(rate=48000), 0.2, 1),
        (Wav(rate=48000), 0.2, 1001),
        # A thread decodes each piece, so single bytes take long. The longer one has more than a batch.
        (DECODED_WAV, 0.005, 1),
        (DECODED_WAV, 0.3, 1001),
    ],
)
def test_the_mp3_does_not_depend_on_how_the_wav_was_cut(wav: Wav, seconds: float, piece_bytes: int) -> None:
    data = wav.build(wavs.sweep(seconds=seconds, rate=wav.rate))
    pieces = (data[start : start + piece_bytes] for start in range(0, len(data), piece_bytes))
    assert convert(*pieces) == convert(data)


@given(cut=st.integers(0, 800), another=st.integers(0, 800))
def test_any_two_cuts_give_the_same_mp3(cut: int, another: int) -> None:
    data = Wav(bits=24, channels=3, extensible=True).build(wavs.sine(seconds=0.002, channels=3))
    first, second = sorted((cut, another))
    assert convert(data[:first], data[first:second], data[second:]) == convert(data)


@given(
    changes=st.dictionaries(st.integers(0, 75), st.integers(0, 255), min_size=1, max_size=4),
    wav=st.sampled_from(
        [
            Wav(),
            Wav(extensible=True),
            Wav(magic=b"RIFX", bits=64, tag=FLOAT, extensible=True),
            Wav(bits=4, tag=0x0002, block_align=512, fmt_bytes=20),
            Wav(bits=4, tag=0x0011, block_align=512, fmt_bytes=20),
        ]
    ),
)
def test_a_damaged_wav_is_converted_or_refused_and_nothing_else(changes: dict[int, int], wav: Wav) -> None:
    data = bytearray(wav.build(wavs.noise(seconds=0.05)))
    for at, value in changes.items():
        data[at] = value
    try:
        mp3, properties = convert(bytes(data), max_duration_seconds=60)
    except (BrokenAudio, TooLong, UnsupportedAudio) as refusal:
        assert str(refusal)
    else:
        assert read_mp3_frame_header(mp3).sample_rate == properties.sample_rate


@pytest.mark.parametrize(
    ("wav", "mebibytes"),
    [
        (Wav(), 12),
        (Wav(bits=32, channels=32, rate=192000), 12),
        (Wav(bits=64, channels=32, rate=768000, tag=FLOAT), 12),
        # Four times as much as float32.
        (Wav(bits=8, channels=1, rate=192000), 6),
        # Four times as much when it is decoded.
        (Wav(bits=4, channels=2, tag=0x0002, block_align=256), 2),
        (Wav(bits=4, channels=32, tag=0x0011, block_align=8192), 3),
    ],
)
async def test_memory_does_not_grow_with_the_recording(
    threads: EncoderThreads, wav: Wav, mebibytes: int
) -> None:
    # Less than a default budget, so that a few megabytes would already be too much.
    threads.budget_bytes = 1 << 20
    pieces = list(wav.stream(mebibytes << 20, wavs.silence(0.1, wav.rate, wav.channels)))
    converter = Converter(threads)
    await drain(converter.feed(pieces[0]))
    tracemalloc.start()
    try:
        for piece in pieces[1:]:
            await drain(converter.feed(piece))
        held_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    converter.close()
    # The limit allows twice the PCM that may wait for the threads, and a batch of ADPCM: a quarter of a
    # million samples of four bytes each.
    assert held_bytes < 2 * threads.budget_bytes + (6 << 20)


@pytest.mark.parametrize(("rate", "seconds"), [(1, 3600), (2, 10_800), (60, 1000)])
async def test_a_wav_whose_mp3_would_be_far_larger_is_refused_early(
    threads: EncoderThreads, rate: int, seconds: int
) -> None:
    wav = Wav(rate=rate, bits=8, channels=1).build(wavs.silence(seconds, rate, 1))
    converter = Converter(threads)
    mp3_bytes = 0
    with pytest.raises(OutOfProportion, match=f"because the WAV has {rate} Hz. Resample it with: ffmpeg"):
        for pieces in (converter.feed(wav), converter.finish()):
            async for mp3 in pieces:
                mp3_bytes += len(mp3)
    converter.close()
    assert mp3_bytes <= MAX_GROWTH * len(wav) + MAX_FIXED_GROWTH_BYTES


async def test_memory_does_not_grow_where_a_few_bytes_become_megabytes_of_mp3(
    threads: EncoderThreads,
) -> None:
    threads.budget_bytes = 1 << 20
    converter = Converter(threads)
    # The lowest sample rate at which so many bytes may become that many more.
    wav = Wav(rate=110, bits=8, channels=1).build(wavs.silence(1000, 110, 1))
    mp3_bytes = 0
    tracemalloc.start()
    try:
        for pieces in (converter.feed(wav), converter.finish()):
            async for mp3 in pieces:
                mp3_bytes += len(mp3)
        held_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert converter.properties.duration_seconds == 1000
    assert mp3_bytes > 1000 * 8000
    assert held_bytes < 2 * threads.budget_bytes + (6 << 20)


async def test_a_recording_over_the_limit_is_refused_at_once_with_the_command_that_shortens_it(
    threads: EncoderThreads,
) -> None:
    converter = Converter(threads, max_duration_seconds=2)
    data = Wav(rate=8000).build(wavs.silence(8, 8000))
    await drain(converter.feed(data[: 44 + 2 * 8000 * 4]))
    with pytest.raises(TooLong) as refusal:
        await drain(converter.feed(data[44 + 2 * 8000 * 4 :]))
    converter.close()
    assert "longer than 2 seconds" in str(refusal.value)
    assert "ffmpeg -i in.wav -t 2" in str(refusal.value)
    exactly = Wav(rate=8000).build(wavs.silence(2, 8000))
    converter = Converter(threads, max_duration_seconds=2)
    await feed_all(converter, [exactly])
    assert converter.properties.duration_seconds == 2


async def test_audio_is_decoded_for_the_users_in_turn() -> None:
    threads = EncoderThreads(1)
    may_begin = Event()
    occupied = threads.decoding.run("x", may_begin.wait)
    order: list[str] = []
    piece = Wav(bits=24).build(wavs.sine(seconds=0.5))

    async def feed(name: str, converter: Converter) -> None:
        converter.user = name[0]
        await drain(converter.feed(piece))
        order.append(name)

    names = ("a1", "a2", "a3", "b1")
    converters = [Converter(threads) for _ in names]
    feeds = [asyncio.create_task(feed(*each)) for each in zip(names, converters, strict=True)]
    await asyncio.sleep(0)
    may_begin.set()
    await asyncio.gather(occupied, *feeds)
    assert order == ["a1", "b1", "a2", "a3"]
    for converter in converters:
        converter.close()
    threads.close()


async def test_a_closed_converter_lets_go_of_its_threads_and_its_memory(threads: EncoderThreads) -> None:
    converter = Converter(threads)
    await drain(converter.feed(Wav().build(wavs.music(30))))
    assert threads.waiting_bytes > 0
    converter.close()
    assert threads.waiting_bytes == 0
    while threads.working:  # noqa: ASYNC110 (the threads announce nothing outside the package)
        await asyncio.sleep(0)
