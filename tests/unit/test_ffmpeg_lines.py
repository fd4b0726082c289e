"""Every command that a refusal offers is run by the real ffmpeg, and Waxwing converts what it makes."""

import shlex
import struct
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from records.audio import BrokenAudio, OutOfProportion, TooLong, UnsupportedAudio
from records.audio.pcm import FULL_SCALE, decode_samples
from records.audio.wav import WavParser
from tests import decoding, wavs
from tests.decoding import Decoded
from tests.fuzz import hostile
from tests.unit import run_converter
from tests.wavs import FLOAT, Sound, Wav, chunk

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
NOISE = np.random.default_rng(seed=1).integers(0, 256, 65_536, dtype=np.uint8).tobytes()


def tone(rate: int = 44100) -> list[str]:
    """Returns the beginning of a command that encodes 0.3 s of a tone."""
    return [FFMPEG, "-loglevel", "error", "-f", "lavfi", "-i", f"sine=r={rate}:d=0.3", "-strict", "-2"]


def made_by_ffmpeg(
    codec: str, muxer: str = "wav", *options: str, rate: int = 44100, channels: int = 1
) -> bytes:
    """Returns a tone in another format."""
    command = [*tone(rate), "-ac", str(channels), "-c:a", codec, *options, "-f", muxer, "pipe:1"]
    return subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout


def seekable(codec: str, muxer: str, folder: Path) -> bytes:
    """Returns a tone in a format whose muxer goes back to its header."""
    path = folder / "made"
    subprocess.run([*tone(), "-c:a", codec, "-f", muxer, str(path)], check=True)
    return path.read_bytes()


def offered(data: bytes, max_duration_seconds: int = 3600) -> tuple[str, str]:
    """Returns the refusal, and the ffmpeg command that it offers; "" for none."""
    with pytest.raises((UnsupportedAudio, BrokenAudio, OutOfProportion, TooLong)) as refusal:
        run_converter.convert(data, max_duration_seconds=max_duration_seconds)
    words = str(refusal.value)
    return words, words[words.find("ffmpeg ") :] if "ffmpeg " in words else ""


def run(command: str, data: bytes, folder: Path) -> bytes:
    """Runs the command as a shell would, and returns the WAV that it makes."""
    words = shlex.split(command)
    assert words[0] == "ffmpeg"
    (folder / words[words.index("-i") + 1]).write_bytes(data)
    subprocess.run([FFMPEG, "-y", "-loglevel", "error", *words[1:]], cwd=folder, check=True)
    return (folder / words[-1]).read_bytes()


def sound_of(wav: bytes) -> Sound:
    """Returns the sound of a WAV that ffmpeg has made."""
    parser = WavParser()
    audio = b"".join(parser.feed(wav)) + b"".join(parser.finish())
    return decode_samples(audio, parser.format) / FULL_SCALE


def assert_the_offered_command_works(data: bytes, folder: Path, max_duration_seconds: int = 3600) -> None:
    words, command = offered(data, max_duration_seconds)
    assert command, words
    converter, _ = run_converter.convert(
        run(command, data, folder), max_duration_seconds=max_duration_seconds
    )
    assert converter.properties.duration_seconds > 0.01


CODECS: dict[str, Callable[[], bytes]] = {
    "G.726": lambda: made_by_ffmpeg("g726", rate=8000),
    "G.722": lambda: made_by_ffmpeg("g722", rate=16000),
    "G.723.1": lambda: made_by_ffmpeg("g723_1", rate=8000),
    "Yamaha ADPCM": lambda: made_by_ffmpeg("adpcm_yamaha"),
    "MPEG Layer II": lambda: made_by_ffmpeg("mp2"),
    "MP3": lambda: made_by_ffmpeg("libmp3lame"),
    "AAC": lambda: made_by_ffmpeg("aac"),
    "AC-3": lambda: made_by_ffmpeg("ac3"),
    "DTS": lambda: made_by_ffmpeg("dca", channels=2),
    "Windows Media Audio 1": lambda: made_by_ffmpeg("wmav1"),
    "Windows Media Audio": lambda: made_by_ffmpeg("wmav2"),
    # ffmpeg has no encoders for these, but decodes any bytes.
    "GSM 6.10": lambda: (
        Wav(tag=0x31, bits=0, channels=1, rate=8000, block_align=65).header(6500) + NOISE[:6500]
    ),
    "OKI ADPCM": lambda: (
        Wav(tag=0x10, bits=4, channels=1, rate=8000, block_align=1).header(6500) + NOISE[:6500]
    ),
    "Dialogic OKI ADPCM": lambda: (
        Wav(tag=0x17, bits=4, channels=1, block_align=1).header(6500) + NOISE[:6500]
    ),
    "TrueSpeech": lambda: (
        Wav(tag=0x22, bits=1, channels=1, rate=8000, block_align=32).header(6400) + NOISE[:6400]
    ),
    "G.729": lambda: Wav(tag=0x83, bits=0, channels=1, rate=8000, block_align=10).header(6400) + NOISE[:6400],
}
VALUES = {
    "33 channels": Wav(channels=33),
    "64 channels": Wav(channels=64),
    "a rate over the limit": Wav(channels=1, rate=768_001),
    "IMA ADPCM of 3 bit": Wav(tag=0x11, bits=3, channels=1, block_align=1024),
    "IMA ADPCM of 5 bit": Wav(tag=0x11, bits=5, channels=1, block_align=1024),
    "large ADPCM blocks": Wav(tag=0x11, bits=4, channels=1, block_align=16384),
    "large blocks of Microsoft's": Wav(tag=2, bits=4, channels=1, block_align=16384),
    "codec 0 of 8 bit": Wav(tag=0, bits=8, channels=1),
    "codec 0 of 16 bit": Wav(tag=0, bits=16, channels=2),
    "codec 0 of 24 bit": Wav(tag=0, bits=24, channels=1),
    "codec 0 of 32 bit": Wav(tag=0, bits=32, channels=1),
    "a GUID of zeros": Wav(extensible=True, subtype=bytes(16)),
}
OTHER_FILES = {
    "w64": ("pcm_s16le", "w64"),
    "Creative Voice": ("pcm_u8", "voc"),
    "AIFF": ("pcm_s16be", "aiff"),
    "AIFF-C": ("pcm_alaw", "aiff"),
    "AVI": ("pcm_s16le", "avi"),
    "M4A": ("aac", "ipod"),
    "MP3": ("libmp3lame", "mp3"),
    "Ogg": ("libvorbis", "ogg"),
    "Opus": ("libopus", "ogg"),
    "FLAC": ("flac", "flac"),
    "CAF": ("pcm_s16be", "caf"),
    "AU": ("pcm_s16be", "au"),
    "WavPack": ("wavpack", "wv"),
    "WebM": ("libopus", "webm"),
    "Windows Media": ("wmav2", "asf"),
    "AAC": ("aac", "adts"),
}


@pytest.mark.parametrize("name", CODECS)
def test_the_command_for_another_codec_works(name: str, tmp_path: Path) -> None:
    assert_the_offered_command_works(CODECS[name](), tmp_path)


@pytest.mark.parametrize("name", VALUES)
def test_the_command_for_a_value_beyond_its_limit_works(name: str, tmp_path: Path) -> None:
    wav = VALUES[name]
    # Noise is no audio of Microsoft's ADPCM; zeros are.
    audio = bytes(len(NOISE)) if wav.tag == 2 else NOISE[: len(NOISE) - len(NOISE) % wav.sample_frame_bytes]
    data = wav.header(len(audio)) + audio
    assert_the_offered_command_works(data, tmp_path)


@pytest.mark.parametrize("wav", [Wav(), Wav(channels=1), Wav(bits=24), Wav(tag=FLOAT, bits=32)])
def test_the_command_for_a_size_in_sample_frames_makes_the_whole_sound(wav: Wav, tmp_path: Path) -> None:
    sound = wavs.sweep(0.3, channels=wav.channels)
    wrong = replace(wav, riff_size=len(sound) + 36, data_size=len(sound))
    data = wrong.build(sound)
    converter, _ = run_converter.convert(run(offered(data)[1], data, tmp_path))
    assert converter.properties.duration_seconds == len(sound) / wav.rate


LAYOUTS_THAT_FFMPEG_READS = (
    *(Wav(bits=bits, channels=1) for bits in (16, 20, 64)),
    Wav(bits=32, tag=FLOAT, channels=1),
)
# FFmpeg takes RIFX for little-endian, or refuses it, and takes 24 bit in 32 for something else.
OTHER_LAYOUTS = (
    Wav(magic=b"RIFX", channels=1),
    Wav(magic=b"RIFX", channels=1, bits=32, tag=FLOAT, extensible=True),
    Wav(bits=36, channels=1),
    Wav(bits=56, channels=1),
    Wav(bits=24, sample_bytes=4, channels=1),
    Wav(bits=12, sample_bytes=3, channels=1),
    Wav(fmt_bytes=14, channels=1),
)
BEYOND_A_LIMIT: dict[str, Callable[[Wav], Wav]] = {
    "the channels": lambda wav: replace(wav, channels=33),
    "the rate": lambda wav: replace(wav, rate=900_000),
    "the duration": lambda wav: wav,
    "the size": lambda wav: replace(wav, data_size=8000),
    "the chunks": lambda wav: replace(wav, before_data=((b"junk", b""),) * 5000),
}


@pytest.mark.parametrize("limit", BEYOND_A_LIMIT)
@pytest.mark.parametrize("layout", [*LAYOUTS_THAT_FFMPEG_READS, *OTHER_LAYOUTS], ids=repr)
def test_a_command_is_offered_only_for_a_layout_that_ffmpeg_reads_right(
    layout: Wav, limit: str, tmp_path: Path
) -> None:
    wav = BEYOND_A_LIMIT[limit](layout)
    sound = wavs.sweep(8000 / wav.rate, wav.rate, wav.channels, highest=2000)
    data = wav.build(sound)
    words = hostile.convert([data], 0 if limit == "the duration" else 60).refusal
    assert ("ffmpeg" in words) == (layout in LAYOUTS_THAT_FFMPEG_READS), words
    if "ffmpeg" in words and limit != "the duration":
        made = sound_of(run(words[words.index("ffmpeg") :], data, tmp_path))
        expected = decoding.resample(Decoded(sound[:, :2], wav.rate), min(wav.rate, 48000)).samples
        assert abs(len(made) - len(expected)) <= 1
        assert np.corrcoef(made[:, 0], expected[: len(made), 0])[0, 1] > 0.99


def test_the_command_for_a_large_chunk_works(tmp_path: Path) -> None:
    data = Wav(before_data=((b"junk", bytes(65 << 20)),)).build(wavs.sine(seconds=0.1))
    assert_the_offered_command_works(data, tmp_path)


@pytest.mark.parametrize("tag", [0x02, 0x11, 0x69])
@pytest.mark.parametrize("channels", [2, 3, 6, 7, 33])
def test_a_command_for_adpcm_is_offered_only_where_it_works(tag: int, channels: int, tmp_path: Path) -> None:
    for wav in (
        Wav(tag=tag, bits=4, channels=channels, rate=900_000, block_align=36 * channels),
        Wav(tag=tag, bits=4, channels=channels, block_align=9000),
        Wav(
            tag=tag,
            bits=4,
            channels=channels,
            block_align=36 * channels,
            before_data=((b"junk", b""),) * 5000,
        ),
    ):
        data = wav.header(90_000) + bytes(90_000)
        words = hostile.convert([data], 60).refusal
        assert ("ffmpeg" in words) == (channels <= (6 if tag == 0x02 else 2)), words
        if "ffmpeg" in words:
            assert len(sound_of(run(words[words.index("ffmpeg") :], data, tmp_path)))


@pytest.mark.parametrize("name", OTHER_FILES)
def test_the_command_for_another_file_works(name: str, tmp_path: Path) -> None:
    assert_the_offered_command_works(seekable(*OTHER_FILES[name], tmp_path), tmp_path)


def test_the_command_for_xwma_works(tmp_path: Path) -> None:
    wav = made_by_ffmpeg("wmav2")
    # xWMA has the same chunks, and a table of the decoded bytes.
    start, audio = wav.index(b"fmt "), wav[wav.index(b"data") + 8 :]
    fmt = wav[start : start + 8 + wav[start + 4]]
    chunks = fmt + chunk(b"dpds", struct.pack("<I", 0)) + chunk(b"data", audio)
    assert_the_offered_command_works(chunk(b"RIFF", b"XWMA" + chunks), tmp_path)


def test_the_command_for_nist_sphere_works(tmp_path: Path) -> None:
    fields = "channel_count -i 1\nsample_rate -i 16000\nsample_n_bytes -i 2\nsample_byte_format -s2 01\n"
    fields += f"sample_sig_bits -i 16\nsample_coding -s3 pcm\nsample_count -i {len(NOISE) // 2}\nend_head\n"
    assert_the_offered_command_works(f"NIST_1A\n   1024\n{fields}".encode().ljust(1024) + NOISE, tmp_path)


@pytest.mark.parametrize("codec", ["ac3", "eac3", "mp2"])
def test_the_command_for_bursts_works(codec: str, tmp_path: Path) -> None:
    audio = made_by_ffmpeg(codec, "spdif", "-b:a", "256k", rate=48000, channels=2)
    assert_the_offered_command_works(Wav(rate=48000).header(len(audio)) + audio, tmp_path)


def test_the_command_for_dts_in_the_guise_of_pcm_works(tmp_path: Path) -> None:
    big_endian = made_by_ffmpeg("dca", "dts", "-b:a", "1411200", channels=2)
    for audio in (big_endian, np.frombuffer(big_endian, dtype=">u2").astype("<u2").tobytes()):
        assert_the_offered_command_works(Wav().header(len(audio)) + audio, tmp_path)


def test_the_command_for_too_many_chunks_works(tmp_path: Path) -> None:
    data = Wav(before_data=((b"junk", b""),) * 5000).build(wavs.sine(seconds=0.1))
    assert_the_offered_command_works(data, tmp_path)


def test_the_command_for_a_long_recording_works(tmp_path: Path) -> None:
    data = Wav(rate=8000).build(wavs.sine(seconds=2, rate=8000))
    assert_the_offered_command_works(data, tmp_path, max_duration_seconds=1)


def test_the_command_for_a_wav_whose_mp3_would_be_far_larger_works(tmp_path: Path) -> None:
    data = Wav(rate=1, bits=8, channels=1).build(wavs.noise(150, 1, 1))
    assert_the_offered_command_works(data, tmp_path)


@pytest.mark.parametrize(
    "wav",
    [
        Wav(channels=65),
        Wav(channels=65535),
        Wav(rate=1 << 31, channels=1),
        Wav(bits=65),
        Wav(tag=FLOAT, bits=16),
        Wav(tag=FLOAT, bits=24),
        Wav(tag=0x11, bits=7, block_align=1024),
        Wav(tag=0x02, bits=3, block_align=1024),
        Wav(tag=0, bits=0),
        Wav(tag=0, magic=b"RIFX"),
        Wav(tag=0, channels=0),
        Wav(tag=0, rate=0),
        Wav(tag=0x55, magic=b"RIFX"),
        Wav(channels=33, rate=0),
        Wav(rate=1, bits=8, channels=1, magic=b"RIFX"),
        Wav(tag=0x1234),
        Wav(extensible=True, subtype=bytes(range(16))),
        *(
            Wav(tag=tag)
            for tag in (
                *(0x05, 0x14, 0x40, 0x64, 0x92, 0x162, 0x163, 0x165, 0x166, 0x270, 0x674F, 0x704F, 0xF1AC),
                0xFFFF,
            )
        ),
    ],
    ids=repr,
)
def test_no_command_is_offered_where_none_works(wav: Wav) -> None:
    words, command = offered(wav.header(4000) + NOISE[:4000])
    assert not command
    assert words.endswith((".", "made it."))


@pytest.mark.parametrize(
    "start",
    [
        *(b"\x1f\x8b\x08\0", b"<html>", b"UklGRiQAAABXQVZF", b"hello", bytes(12)),
        *(b"FSB5", b"#!SILK_V3", b"\x02#!SILK_V3", b"--x\r\nContent-", b"[object Blob]", b"version https:"),
    ],
)
def test_no_command_is_offered_for_what_is_no_audio(start: bytes) -> None:
    assert offered(start + bytes(20))[1] == ""
