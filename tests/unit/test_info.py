"""The Info frame: a player that honours it plays exactly what was encoded, and knows its length at once."""

import io
from itertools import pairwise

import numpy as np
import pytest
from mutagen.mp3 import BitrateMode, MPEGInfo

from records.audio import Converter, read_info_frame
from records.audio.mp3 import SAMPLE_RATES, make_mp3_frame_header, read_mp3_frame_header
from tests import decoding, mp3_walk, wavs
from tests.decoding import Decoded
from tests.unit import run_converter
from tests.wavs import Sound, Wav

# LAME takes the nearest bitrate that exists at the sample rate.
BITRATES_KBPS = [16, 32, 48, 128, 192, 320]
DECODER_DELAY = 529


def convert(sound: Sound, rate: int, bitrate_kbps: int = 128) -> tuple[Converter, bytes]:
    """Converts a sound. Returns the finished converter, and the MP3 without its head."""
    wav = Wav(channels=sound.shape[1], rate=rate).build(sound)
    return run_converter.convert(wav, bitrate_kbps=bitrate_kbps)


def crc_16(data: bytes) -> int:
    """CRC-16/ARC, bit by bit: polynomial 0x8005, reflected, from 0."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0xA001 if crc & 1 else 0)
    return crc


def number(data: bytes, start: int, size: int) -> int:
    return int.from_bytes(data[start : start + size], "big")


@pytest.mark.parametrize("bitrate_kbps", BITRATES_KBPS)
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", SAMPLE_RATES)
def test_a_decoder_returns_exactly_the_samples_of_the_source(
    rate: int, channels: int, bitrate_kbps: int
) -> None:
    source = wavs.sweep(0.7, rate, channels, highest=min(2000.0, rate / 4))
    converter, mp3_frames = convert(source, rate, bitrate_kbps)
    for title in (None, "In front"):
        mp3 = converter.make_head(title) + mp3_frames
        assert mp3.startswith(b"ID3") == bool(title)
        decoded = decoding.decode(mp3)
        assert len(decoded.samples) == len(source)
        comparison = decoding.compare(Decoded(source, rate), decoded)
        assert comparison.lag == 0
        assert comparison.correlation > 0.99
        info = MPEGInfo(io.BytesIO(mp3))
        assert info.length == len(source) / rate
        assert not info.sketchy
        assert info.bitrate_mode == BitrateMode.CBR
        assert info.encoder_info == "LAME 3.100.0+"
        assert (info.sample_rate, info.channels) == (rate, channels)
        assert round(info.bitrate / 1000) == converter.properties.bitrate_kbps


@pytest.mark.parametrize("rate", SAMPLE_RATES)
@pytest.mark.parametrize("samples", [48, 575, 576, 577, 1151, 1152, 1153, 2305, 4096, 4097])
def test_the_shortest_recordings_have_exactly_their_samples(rate: int, samples: int) -> None:
    converter, mp3_frames = convert(wavs.noise(1, rate)[:samples], rate)
    head = converter.make_head()
    assert len(decoding.decode(head + mp3_frames).samples) == samples
    assert MPEGInfo(io.BytesIO(head + mp3_frames)).length == samples / rate


@pytest.mark.parametrize("rate", SAMPLE_RATES)
@pytest.mark.parametrize("samples", [1, 2, 47])
def test_fewer_than_48_samples_have_the_right_length_and_at_most_529_are_added(
    rate: int, samples: int
) -> None:
    converter, mp3_frames = convert(wavs.noise(1, rate)[:samples], rate)
    head = converter.make_head()
    assert MPEGInfo(io.BytesIO(head + mp3_frames)).length == samples / rate
    heard = len(decoding.decode(head + mp3_frames).samples)
    # In MPEG-2, FFmpeg does not drop the rest of the start where it also drops the end of the same MP3 frame.
    assert heard == samples or (rate < 32000 and heard == samples + DECODER_DELAY)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(("rate", "bitrate_kbps"), [(44100, 128), (48000, 32), (22050, 16), (8000, 64)])
def test_every_field_has_the_value_of_the_specification(rate: int, channels: int, bitrate_kbps: int) -> None:
    source = wavs.noise(1.3, rate, channels)
    converter, mp3_frames = convert(source, rate, bitrate_kbps)
    head = converter.make_head()
    header, first = read_mp3_frame_header(head), read_mp3_frame_header(mp3_frames)
    assert header.mp3_frame_bytes == len(head)
    assert (header.version, header.sample_rate, header.channels) == (first.version, rate, channels)
    tag = 4 + {("1", 1): 17, ("1", 2): 32, ("2", 1): 9, ("2", 2): 17}[header.version[0], channels]
    assert not any(head[4:tag])
    assert head[tag : tag + 4] == b"Info"
    assert number(head, tag + 4, 4) == 0b1111
    count = len(mp3_walk.walk(mp3_frames))
    assert number(head, tag + 8, 4) == count
    assert number(head, tag + 12, 4) == len(head) + len(mp3_frames)
    lame = tag + 120
    assert head[lame : lame + 9] == b"LAME3.100"
    assert head[lame + 9] == 1
    assert head[lame + 20] == first.bitrate_kbps
    delay, padding = divmod(number(head, lame + 21, 3), 1 << 12)
    assert delay == 576
    assert padding == count * first.sample_frames - 576 - len(source)
    assert number(head, lame + 28, 4) == len(head) + len(mp3_frames)
    assert number(head, lame + 32, 2) == crc_16(mp3_frames)
    assert number(head, lame + 34, 2) == crc_16(head[: lame + 34])
    assert not any(head[lame + 36 :])


@pytest.mark.parametrize("title", [None, "A walk"])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [44100, 8000])
def test_the_info_frame_reads_as_it_was_written(rate: int, channels: int, title: str | None) -> None:
    source = wavs.noise(1.3, rate, channels)
    converter, mp3_frames = convert(source, rate)
    mp3 = converter.make_head(title) + mp3_frames
    info = read_info_frame(mp3)
    assert (info.sample_rate, info.channels, info.sample_frames) == (rate, channels, len(source))
    assert bool(info.id3_bytes) == bool(title)
    assert info.id3_bytes + info.stream_bytes == len(mp3)
    for other in (b"", b"ID3", mp3[: info.id3_bytes], mp3[: info.id3_bytes + 100], mp3_frames, bytes(2000)):
        with pytest.raises(ValueError, match="frame"):
            read_info_frame(other)


def test_the_seek_table_leads_to_its_hundredth_of_the_time() -> None:
    source = wavs.silence(60)
    converter, mp3_frames = convert(source, 44100)
    head = converter.make_head()
    table = head[52:152]
    assert len(table) == 100
    assert table[0] == 0
    assert all(before < after for before, after in pairwise(table))
    size_bytes = len(head) + len(mp3_frames)
    places = np.frombuffer(table, dtype=np.uint8) / 256 * size_bytes
    seconds = (places - len(head)) / (128_000 / 8)
    # An entry has a resolution of a 256th of the file.
    assert np.abs(seconds - np.arange(100) * 0.6).max() <= 60 / 256 + 0.03


def test_an_mp3_over_the_limit_of_the_size_field_still_gets_its_head() -> None:
    converter, _ = convert(wavs.noise(0.1), 44100)
    converter._stream.size_bytes = 1 << 33
    head = converter.make_head()
    assert number(head, 48, 4) == 0xFFFFFFFF


@pytest.mark.parametrize("bitrate_kbps", [32, 64, 320])
def test_the_info_frame_has_the_lowest_bitrate_that_holds_it(bitrate_kbps: int) -> None:
    converter, mp3_frames = convert(wavs.noise(0.1, 48000), 48000, bitrate_kbps)
    head = converter.make_head()
    assert read_mp3_frame_header(mp3_frames).bitrate_kbps == bitrate_kbps
    assert read_mp3_frame_header(head).bitrate_kbps == max(64, bitrate_kbps)


def test_more_bytes_than_any_mp3_frame_holds_are_refused() -> None:
    with pytest.raises(ValueError, match="frame header"):
        make_mp3_frame_header(bytes.fromhex("fffb9064"), 10_000)
