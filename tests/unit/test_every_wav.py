"""Every kind of WAV becomes an MP3 that sounds like FFmpeg's decoding of the WAV, or is refused by name."""

import struct
from collections import deque
from dataclasses import replace
from itertools import chain

import numpy as np
import pytest

from records.audio import BrokenAudio, Properties
from records.audio.blocks import BlockMaker
from records.audio.mixing import downmix_matrix
from records.audio.wav import WavParser
from tests import decoding, wavs
from tests.decoding import Decoded
from tests.unit import run_converter
from tests.wavs import EXTENSIBLE, FLOAT, UNKNOWN_SIZE, Sound, Wav, ds64, encoded

IMA, MS = "adpcm_ima_wav", "adpcm_ms"
MP3_RATES = [8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000]
OTHER_RATES = [
    *[4000, 5512, 7999, 8001, 11024, 18900, 37800, 44056, 44099, 47999, 48001, 50000, 64000, 88200, 96000],
    *[176400, 192000, 352800, 384000, 705600, 767999, 768000],
]


def voices(rate: int = 44100, channels: int = 2, seconds: float = 0.5) -> Sound:
    """Returns a sweep that starts elsewhere in every channel, so that no two channels are alike."""
    sweep = wavs.sweep(seconds, rate, 1, highest=12000)[:, 0]
    return np.stack([np.roll(sweep, -len(sweep) * c // channels) for c in range(channels)], axis=1)


def convert(wav: bytes) -> tuple[bytes, Properties]:
    # At 320 kbit/s LAME leaves out so little that losses before it show.
    converter, frames = run_converter.convert(wav, bitrate_kbps=320)
    return converter.make_head() + frames, converter.properties


def pcm_of(wav: bytes) -> Decoded:
    """Returns the PCM that the encoder would get."""
    parser = WavParser()
    maker: BlockMaker | None = None
    blocks: list[bytes] = []
    for audio in chain(parser.feed(wav), parser.finish()):
        maker = maker or BlockMaker(parser.format, max_duration_seconds=60)
        blocks += maker.feed(audio, parser.data_chunk)
    maker = maker or BlockMaker(parser.format, max_duration_seconds=60)
    blocks += maker.finish()
    pcm = b"".join(blocks)
    samples = np.frombuffer(pcm, dtype="<i2").reshape(-1, maker.channels) / 32768
    return Decoded(samples, maker.sample_rate)


def assert_right(wav: bytes, source: Decoded) -> None:
    mp3, properties = convert(wav)
    decoded = decoding.decode(mp3)
    comparison = decoding.compare(source, decoded)
    assert properties.duration_seconds == source.seconds
    assert (properties.sample_rate, properties.channels) == (decoded.rate, decoded.channels)
    assert comparison.lag == 0
    assert comparison.correlation > 0.99
    assert abs(comparison.level_db) < 0.5
    # Resampling rounds to the nearest sample frame.
    assert abs(comparison.seconds) <= 0.501 / decoded.rate


LIST = (b"LIST", b"INFOINAM\x05\0\0\0Song\0\0")
ODD = (b"odd ", b"123")
AUDIO_BYTES = voices().size * 2

# The reference for each is FFmpeg's own decoding of it.
CONTAINERS = {
    "plain": Wav(),
    "fmt of 14 bytes, 8 bit": Wav(bits=8, fmt_bytes=14),
    "fmt of 18 bytes": Wav(fmt_bytes=18),
    "fmt of 40 bytes": Wav(extensible=True, mask=3),
    "fmt of 64 bytes": Wav(extensible=True, mask=3, fmt_bytes=64),
    "sizes of 0": Wav(riff_size=0, data_size=0),
    "sizes of a pipe": Wav(riff_size=UNKNOWN_SIZE, data_size=UNKNOWN_SIZE),
    "sizes of SoX in a pipe": Wav(riff_size=0x7FFFF024, data_size=0x7FFFF000),
    "more announced than there is": Wav(data_size=AUDIO_BYTES + 999),
    "chunks before fmt": Wav(before_fmt=((b"JUNK", bytes(28)), LIST, ODD)),
    "chunks before data": Wav(before_data=((b"fact", b"\1\0\0\0"), (b"bext", bytes(602)), ODD, LIST)),
    "chunks after data": Wav(after=(LIST, (b"id3 ", b"ID3\x04"), (b"cue ", bytes(28)))),
    "audio of an odd size": Wav(bits=8, channels=1, after=(LIST,)),
    "RF64": Wav(
        magic=b"RF64", before_fmt=(ds64(AUDIO_BYTES),), riff_size=UNKNOWN_SIZE, data_size=UNKNOWN_SIZE
    ),
    "RF64 with chunks after data": Wav(
        magic=b"RF64",
        before_fmt=(ds64(AUDIO_BYTES),),
        after=(LIST,),
        riff_size=UNKNOWN_SIZE,
        data_size=UNKNOWN_SIZE,
    ),
    "BW64": Wav(
        magic=b"BW64", before_fmt=(ds64(AUDIO_BYTES),), riff_size=UNKNOWN_SIZE, data_size=UNKNOWN_SIZE
    ),
}
SAMPLES = {
    **{f"{bits} bit": Wav(bits=bits) for bits in (4, 5, 8, 12, 14, 16, 18, 20, 24, 32)},
    "20 bit in 24, extensible": Wav(bits=24, valid_bits=20, extensible=True),
    "float 32": Wav(tag=FLOAT, bits=32),
    "float 64": Wav(tag=FLOAT, bits=64),
    "float 32, extensible": Wav(tag=FLOAT, bits=32, extensible=True),
    "float 64, mono": Wav(tag=FLOAT, bits=64, channels=1),
}


@pytest.mark.parametrize("wav", [*CONTAINERS.values(), *SAMPLES.values()], ids=[*CONTAINERS, *SAMPLES])
def test_every_container_and_width_sounds_like_ffmpegs_decoding(wav: Wav) -> None:
    data = wav.build(voices(channels=wav.channels))
    assert_right(data, decoding.decode(data, "wav"))


@pytest.mark.parametrize(
    "wav",
    [
        # FFmpeg and PyAV read these wrongly or not at all. They take RIFX for little-endian, or refuse it
        # with more than 16 bytes of fmt. FFmpeg has no decoder for odd widths over 32 bit, PyAV no array of
        # 64 bit. FFmpeg reads 24 bit in 32 as Cool Edit's floats.
        *(Wav(magic=b"RIFX", bits=bits) for bits in (8, 12, 16, 24, 32, 40, 64)),
        Wav(magic=b"RIFX", bits=24, extensible=True),
        Wav(magic=b"RIFX", tag=FLOAT, bits=32, fmt_bytes=18),
        Wav(magic=b"RIFX", tag=FLOAT, bits=64),
        Wav(bits=24, sample_bytes=4),
        Wav(bits=32, valid_bits=24, extensible=True),
        Wav(bits=12, sample_bytes=3),
        Wav(bits=36),
        Wav(bits=48),
        Wav(bits=53),
        Wav(bits=64),
        Wav(bits=16, fmt_bytes=14),
        Wav(bits=24, fmt_bytes=14),
        # An extensible header without its extension.
        *(Wav(bits=bits, tag=EXTENSIBLE) for bits in (8, 12, 16, 20, 24, 32)),
        Wav(bits=24, tag=EXTENSIBLE, fmt_bytes=18, magic=b"RIFX"),
    ],
    ids=repr,
)
def test_a_wav_that_ffmpeg_cannot_read_sounds_as_it_was_written(wav: Wav) -> None:
    sound = voices(channels=wav.channels)
    assert_right(wav.build(sound), Decoded(sound, 44100))


@pytest.mark.parametrize(
    "wav",
    [
        *(Wav(channels=1, block_align=align) for align in (0, 1, 3, 4, 8, 16, 65535)),
        *(Wav(channels=2, block_align=align) for align in (0, 2, 3, 6, 8, 16, 18)),
        *(Wav(bits=8, channels=channels, block_align=align) for channels in (1, 2) for align in (0, 3, 4, 8)),
        Wav(bits=24, channels=1, block_align=24),
        Wav(bits=24, channels=1, block_align=6),
        *(Wav(bits=24, channels=2, block_align=align) for align in (0, 3, 4, 7, 12, 24, 48)),
        Wav(bits=24, channels=2, extensible=True, mask=3, block_align=3),
        Wav(bits=24, channels=2, block_align=8, sample_bytes=4),
        Wav(bits=20, channels=1, block_align=20),
        Wav(bits=12, channels=1, block_align=12),
        Wav(bits=48, channels=1, block_align=4),
        *(Wav(bits=32, channels=2, block_align=align) for align in (0, 4, 16, 32)),
        Wav(bits=64, channels=1, block_align=4),
        *(Wav(bits=32, tag=FLOAT, channels=1, block_align=align) for align in (0, 1, 8, 32)),
        Wav(bits=32, tag=FLOAT, channels=2, block_align=16),
        Wav(bits=64, tag=FLOAT, channels=2, block_align=8),
        Wav(bits=32, tag=FLOAT, channels=2, extensible=True, block_align=4),
        Wav(channels=2, magic=b"RIFX", block_align=2),
    ],
    ids=repr,
)
def test_a_wrong_block_align_changes_nothing(wav: Wav) -> None:
    sound = voices(channels=wav.channels, seconds=0.1)
    right = pcm_of(replace(wav, block_align=None).build(sound))
    assert abs(decoding.compare(Decoded(sound, 44100), right).level_db) < 0.1
    assert np.array_equal(pcm_of(wav.build(sound)).samples, right.samples)


BEHIND = (LIST, (b"id3 ", b"ID3\x04\0\0\0\0\0\0"))
BEHIND_BYTES = sum(len(wavs.chunk(*each)) for each in BEHIND)


@pytest.mark.parametrize(
    "wav", [Wav(), Wav(bits=8), Wav(bits=24, channels=1), Wav(tag=FLOAT, bits=32), Wav(magic=b"RIFX")]
)
@pytest.mark.parametrize(
    ("riff_size", "more_bytes"),
    [
        *((riff, unknown) for riff in (None, 0, 36, UNKNOWN_SIZE) for unknown in (0, UNKNOWN_SIZE)),
        *((None, more) for more in (8, 36, 44, BEHIND_BYTES, BEHIND_BYTES + 8, BEHIND_BYTES + 44)),
        (36, BEHIND_BYTES),
        (UNKNOWN_SIZE, BEHIND_BYTES),
    ],
)
def test_wrong_sizes_in_front_of_real_chunks_change_nothing(
    wav: Wav, riff_size: int | None, more_bytes: int
) -> None:
    sound = voices(channels=wav.channels, seconds=0.1)
    is_unknown = more_bytes in (0, UNKNOWN_SIZE)
    size = more_bytes if is_unknown else len(wav.audio(sound)) + more_bytes
    wrong = replace(wav, after=BEHIND, riff_size=riff_size, data_size=size)
    assert np.array_equal(pcm_of(wrong.build(sound)).samples, pcm_of(wav.build(sound)).samples)


@pytest.mark.parametrize(
    "wav",
    [
        *(Wav(after=BEHIND, riff_size=size, data_size=size) for size in (0, UNKNOWN_SIZE)),
        Wav(after=BEHIND, data_size=0),
        *(Wav(after=BEHIND, data_size=AUDIO_BYTES + more) for more in (8, BEHIND_BYTES, BEHIND_BYTES + 44)),
        *(Wav(data_size=AUDIO_BYTES + more) for more in (8, 36, 44)),
    ],
    ids=repr,
)
def test_a_wav_with_wrong_sizes_sounds_as_it_was_written_and_is_not_truncated(wav: Wav) -> None:
    data = wav.build(voices())
    assert_right(data, Decoded(voices(), 44100))
    assert not convert(data)[1].truncated


@pytest.mark.parametrize("wav", [Wav(), Wav(bits=24), Wav(tag=FLOAT, bits=32), Wav(channels=1)])
@pytest.mark.parametrize("riff_size", [0, 36, UNKNOWN_SIZE])
def test_garbage_behind_a_header_whose_riff_size_was_never_written_is_not_heard(
    wav: Wav, riff_size: int
) -> None:
    sound = voices(channels=wav.channels, seconds=0.1)
    garbage = np.random.default_rng(seed=1).bytes(30_001)
    data = replace(wav, riff_size=riff_size).build(sound) + garbage
    assert np.array_equal(pcm_of(data).samples, pcm_of(wav.build(sound)).samples)


@pytest.mark.parametrize("bits", [8, 16, 24, 32])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_an_extensible_header_without_its_extension_means_integers(bits: int, channels: int) -> None:
    sound = voices(channels=channels, seconds=0.1)
    for fmt_bytes in (16, 18):
        wav = Wav(bits=bits, channels=channels, tag=EXTENSIBLE, fmt_bytes=fmt_bytes)
        right = Wav(bits=bits, channels=channels).build(sound)
        assert np.array_equal(pcm_of(wav.build(sound)).samples, pcm_of(right).samples)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("codec", ["pcm_alaw", "pcm_mulaw"])
@pytest.mark.parametrize("align", [0, 1, 2, 3, 4, 8, 16])
@pytest.mark.parametrize("bits", [0, 8, 16])
def test_a_law_and_mu_law_have_one_byte_a_sample_whatever_the_header_says(
    codec: str, channels: int, align: int, bits: int
) -> None:
    data = encoded(voices(8000, channels, 0.1), codec, 8000)
    at = data.index(b"fmt ") + 8
    lying = data[: at + 12] + struct.pack("<HH", align, bits) + data[at + 16 :]
    assert np.array_equal(pcm_of(lying).samples, decoding.decode(data, "wav").samples)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("codec", ["pcm_alaw", "pcm_mulaw", IMA, MS])
@pytest.mark.parametrize(("rate", "block_bytes"), [(8000, 256), (44100, 1024), (96000, 4096), (22050, 8192)])
def test_every_codec_sounds_like_ffmpegs_decoding(
    codec: str, channels: int, rate: int, block_bytes: int
) -> None:
    data = encoded(voices(rate, channels), codec, rate, block_bytes)
    assert_right(data, decoding.decode(data, "wav"))


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("codec", [IMA, MS])
@pytest.mark.parametrize("cut_bytes", [0, 1, 57, 300, 1010, 1024, 5 * 1024 + 500])
def test_adpcm_and_its_short_last_block_decode_to_ffmpegs_samples(
    codec: str, channels: int, cut_bytes: int
) -> None:
    data = encoded(voices(channels=channels), codec)
    data = data[: len(data) - cut_bytes]
    assert np.array_equal(pcm_of(data).samples, decoding.decode(data, "wav").samples)


@pytest.mark.parametrize("codec", [IMA, MS])
def test_the_padding_of_the_last_adpcm_block_is_dropped_where_the_fact_chunk_says_so(codec: str) -> None:
    data = encoded(voices(), codec)
    whole = pcm_of(data).samples
    at = data.index(b"fact") + 8
    data = data[:at] + struct.pack("<I", len(whole) - 100) + data[at + 4 :]
    assert np.array_equal(pcm_of(data).samples, whole[:-100])
    assert convert(data)[1].duration_seconds == (len(whole) - 100) / 44100


@pytest.mark.parametrize("codec", [IMA, MS])
@pytest.mark.parametrize("cut_bytes", [0, 300])
def test_adpcm_goes_on_in_another_data_chunk_behind_a_short_or_padded_adpcm_block(
    codec: str, cut_bytes: int
) -> None:
    data = encoded(voices(seconds=0.1), codec)
    start = data.index(b"data") + 8
    audio = data[start : len(data) - cut_bytes]
    at = data.index(b"fact") + 8
    one = pcm_of(data[: start - 4] + struct.pack("<I", len(audio)) + audio).samples
    fact = struct.pack("<I", len(one) - 10)
    shortened = data[:at] + fact + data[at + 4 : start - 4] + struct.pack("<I", len(audio)) + audio
    assert np.array_equal(pcm_of(shortened).samples, one[:-10])
    twice = pcm_of(shortened + shortened).samples
    assert np.array_equal(twice, np.concatenate([one[:-10], one[:-10]]))


@pytest.mark.parametrize(
    "wav", [Wav(), Wav(bits=24), Wav(tag=FLOAT, bits=32), Wav(rate=96000), Wav(channels=6)]
)
def test_two_wavs_in_one_sound_like_one_after_the_other(wav: Wav) -> None:
    sound = voices(wav.rate, wav.channels, 0.2)
    half = len(sound) // 2
    # The first WAV ends inside a sample frame.
    first = wav.audio(sound[:half]) + b"x"
    joined = wav.header(len(first)) + first + b"\0" * (len(first) % 2) + wav.build(sound[half:])
    assert np.array_equal(pcm_of(joined).samples, pcm_of(wav.build(sound)).samples)


@pytest.mark.parametrize("codec", [IMA, MS])
def test_adpcm_of_any_bytes_decodes_to_something(codec: str) -> None:
    data = encoded(voices(), codec)
    at = data.index(b"data") + 8
    noise = np.random.default_rng(seed=1).integers(0, 256, len(data) - at, dtype=np.uint8).tobytes()
    assert len(pcm_of(data[:at] + noise).samples) == len(pcm_of(data).samples)
    assert len(pcm_of(data[:at] + b"\x77" * len(noise)).samples) == len(pcm_of(data).samples)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("cut_bytes", [0, 3, 36])
def test_xbox_adpcm_decodes_like_ffmpegs(channels: int, cut_bytes: int) -> None:
    sound = voices(22050, channels, 0.1)
    data = encoded(sound, IMA, 22050, 128)
    audio = np.frombuffer(data[data.index(b"data") + 8 :], dtype=np.uint8)
    # A block of Xbox ADPCM has 36 bytes a channel.
    adpcm_blocks = audio[: len(audio) // 128 * 128].reshape(-1, 128)[:, : 36 * channels]
    audio_bytes = adpcm_blocks.size - cut_bytes
    wav = Wav(tag=0x69, bits=4, channels=channels, rate=22050, block_align=36 * channels)
    data = wav.header(audio_bytes) + adpcm_blocks.tobytes()[:audio_bytes]
    theirs, ours = decoding.decode(data, "wav").samples, pcm_of(data).samples
    whole = len(theirs) - len(theirs) % 64
    # Their rounding differs by a step or two.
    assert np.abs(ours[:whole] - theirs[:whole]).max() < 40 / 32768
    assert len(ours) // 64 == len(theirs) // 64


@pytest.mark.parametrize("codec", [IMA, MS])
def test_adpcm_whose_header_has_no_bits_is_decoded(codec: str) -> None:
    data = encoded(voices(seconds=0.1), codec)
    at = data.index(b"fmt ") + 8 + 14
    assert np.array_equal(pcm_of(data[:at] + b"\0\0" + data[at + 2 :]).samples, pcm_of(data).samples)


@pytest.mark.parametrize("channels", [3, 5, 8, 32])
def test_ima_adpcm_may_have_more_channels(channels: int) -> None:
    sound = voices(channels=channels, seconds=0.1)
    mono = [encoded(sound[:, [c]], IMA, block_bytes=256) for c in range(channels)]
    blocks = [np.frombuffer(data[data.index(b"data") + 8 :], dtype="<u4").reshape(-1, 64) for data in mono]
    audio = np.stack(blocks, axis=2).astype("<u4").tobytes()
    wav = Wav(tag=0x11, bits=4, channels=channels, block_align=256 * channels)
    together = pcm_of(wav.header(len(audio)) + audio).samples
    alone = np.stack([pcm_of(data).samples[:, 0] for data in mono], axis=1)
    mixed = Wav(bits=16, channels=channels).build(alone)
    sample_frames = min(len(together), len(alone))
    assert np.abs(together[:sample_frames] - pcm_of(mixed).samples[:sample_frames]).max() <= 1 / 32768


@pytest.mark.parametrize("rate", [*MP3_RATES, *OTHER_RATES])
def test_every_sample_rate_sounds_like_ffmpegs_decoding(rate: int) -> None:
    data = Wav(rate=rate, channels=1).build(voices(rate, 1))
    assert_right(data, decoding.decode(data, "wav"))


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize(
    ("peak", "peak_dbfs"),
    [(2.0, 6.02), (-2.0, 6.02), (1.01, 0.09), (8.0, 18.06), (1e20, 400.0), (-1e38, 600.0)],
)
def test_a_float_over_full_scale_is_clipped_and_the_record_says_it(
    bits: int, channels: int, peak: float, peak_dbfs: float
) -> None:
    sound = voices(channels=channels, seconds=0.05)
    sound[1000, channels - 1] = peak
    _, properties = convert(Wav(tag=FLOAT, bits=bits, channels=channels).build(sound))
    assert (properties.clipped, properties.peak_dbfs) == (True, peak_dbfs)
    limited = pcm_of(Wav(tag=FLOAT, bits=bits, channels=channels).build(sound)).samples
    assert np.array_equal(
        limited, pcm_of(Wav(tag=FLOAT, bits=bits, channels=channels).build(sound.clip(-1, 1))).samples
    )


@pytest.mark.parametrize("peak", [1.0, -1.0, np.inf, -np.inf, np.nan])
def test_a_float_of_full_scale_is_not_clipped(peak: float) -> None:
    sound = voices(channels=1, seconds=0.05)
    sound[1000] = peak
    _, properties = convert(Wav(tag=FLOAT, bits=32, channels=1).build(sound))
    assert not properties.clipped
    assert properties.peak_dbfs is not None
    assert properties.peak_dbfs <= 0
    assert not convert(Wav(bits=24, channels=1).build(np.nan_to_num(sound).clip(-1, 1)))[1].clipped


@pytest.mark.parametrize("rate", [500, 1000, 1234, 2000])
def test_a_low_sample_rate_keeps_its_sound(rate: int) -> None:
    top = 0.35 * rate
    data = Wav(rate=rate, channels=1).build(wavs.sweep(3, rate, 1, highest=top))
    assert_right(data, Decoded(wavs.sweep(3, 8000, 1, highest=top), 8000))


def test_one_hertz_becomes_eight_thousand() -> None:
    _, properties = convert(Wav(rate=1, bits=8, channels=1).build(np.zeros((60, 1))))
    assert properties == Properties(60.0, 8000, 1, 64, None, None, truncated=False, clipped=False)


@pytest.mark.parametrize("mask", [0x007, 0x107, 0x033, 0x037, 0x607, 0x03F, 0x60F, 0x70F, 0x63F, 0x0FF])
def test_surround_sounds_like_ffmpegs_mix(mask: int) -> None:
    channels = mask.bit_count()
    data = Wav(bits=24, channels=channels, extensible=True, mask=mask).build(voices(channels=channels))
    assert_right(data, decoding.mix(data))


@pytest.mark.parametrize(("channels", "mask"), [(3, 0x007), (4, 0x107), (5, 0x037)])
def test_channels_without_a_mask_have_the_layout_of_their_number(channels: int, mask: int) -> None:
    sound = voices(channels=channels, seconds=0.1)
    with_mask = Wav(channels=channels, extensible=True, mask=mask).build(sound)
    assert convert(Wav(channels=channels).build(sound)) == convert(with_mask)


@pytest.mark.parametrize(
    "wav", [Wav(bits=24), Wav(bits=24, extensible=True), Wav(tag=FLOAT, bits=32)], ids=repr
)
@pytest.mark.parametrize("channels", [4, 5, 6, 7, 8])
def test_every_track_of_a_field_recorder_is_heard(wav: Wav, channels: int) -> None:
    for track in range(channels):
        sound = np.zeros((2000, channels))
        sound[:, track] = voices(channels=1, seconds=0.1)[2000:4000, 0]
        left_and_right = pcm_of(replace(wav, channels=channels).build(sound)).samples
        heard = left_and_right[:, int(np.argmax(np.abs(left_and_right).max(axis=0)))]
        assert np.corrcoef(heard, sound[:, track])[0, 1] > 0.999
        # In the mix of all tracks, each is at most 18 dB softer than alone.
        assert np.abs(heard).max() > np.abs(sound).max() / 8


@pytest.mark.parametrize("channels", range(9, 33))
def test_a_multitrack_recording_goes_left_and_right_in_turn(channels: int) -> None:
    sound = voices(channels=channels, seconds=0.3)
    mixed = np.stack([sound[:, side::2].sum(axis=1) for side in (0, 1)], axis=1) / -(-channels // 2)
    ours = pcm_of(Wav(channels=channels).build(sound)).samples
    assert np.abs(ours - mixed).max() < 1.5 / 32768


LIKE_24_BIT = "test-8000Hz-le-3ch-5S-24bit.wav"
REFUSED = {
    "test-44100Hz-le-1ch-4bytes-early-eof-no-data.wav": "has no data chunk",
    "test-44100Hz-le-1ch-4bytes-incomplete-chunk.wav": "ends after 13 bytes, inside its chunk header",
}
# FFmpeg cannot read these, but it can read a twin of each.
TWINS = {
    "test-44100Hz-2ch-32bit-float-be.wav": "test-44100Hz-2ch-32bit-float-le.wav",
    "test-44100Hz-be-1ch-4bytes.wav": "test-44100Hz-le-1ch-4bytes.wav",
    "test-8000Hz-be-3ch-5S-24bit.wav": LIKE_24_BIT,
    "test-8000Hz-le-3ch-5S-24bit-inconsistent.wav": LIKE_24_BIT,
    "test-8000Hz-le-3ch-5S-36bit.wav": LIKE_24_BIT,
    "test-8000Hz-le-3ch-5S-45bit.wav": LIKE_24_BIT,
    "test-8000Hz-le-3ch-5S-53bit.wav": LIKE_24_BIT,
    "test-8000Hz-le-3ch-5S-64bit.wav": LIKE_24_BIT,
}
OF_SCIPY = wavs.of_scipy()


@pytest.mark.parametrize("name", sorted(OF_SCIPY.keys() - REFUSED.keys()))
def test_the_wavs_of_scipys_own_tests_are_read_to_the_sample(name: str) -> None:
    data, twin = OF_SCIPY[name], OF_SCIPY[TWINS.get(name, name)]
    theirs, ours = decoding.decode(twin, "wav"), pcm_of(data)
    _, properties = convert(data)
    assert properties.duration_seconds == theirs.seconds
    assert properties.truncated == ("early-eof" in name)
    if theirs.rate != ours.rate:
        assert len(ours.samples) == round(theirs.seconds * ours.rate)
        return
    samples = theirs.samples
    if theirs.channels > 2:
        parser = WavParser()
        deque(parser.feed(data), maxlen=0)
        samples = samples @ downmix_matrix(parser.format)
    assert samples.shape == ours.samples.shape
    assert np.abs(samples - ours.samples).max() <= 1 / 32768


@pytest.mark.parametrize(("name", "words"), REFUSED.items())
def test_the_broken_wavs_of_scipys_own_tests_are_refused_with_the_reason(name: str, words: str) -> None:
    with pytest.raises(BrokenAudio, match=words):
        convert(OF_SCIPY[name])
