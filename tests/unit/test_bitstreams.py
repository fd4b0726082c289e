"""Compressed audio that a WAV carries as if it were PCM is refused by name, and music never is."""

import subprocess
from functools import cache

import imageio_ffmpeg
import numpy as np
import pytest
from numpy.typing import NDArray

from records.audio import UnsupportedAudio
from records.audio.bitstreams import BitstreamSearch
from records.audio.formats import Codec, Format
from tests import wavs
from tests.unit import run_converter
from tests.wavs import FLOAT, Wav

BURSTS = {"Dolby AC-3": "ac3", "Dolby E-AC-3": "eac3", "MPEG audio": "mp2"}
PLAIN = Wav()
STEREO = Format(Codec.INTEGER, 2, 44100, 4)


@cache
def stream(codec: str, muxer: str, rate: int, bitrate: int) -> NDArray[np.uint16]:
    """Returns 0.2 s of a tone that the real ffmpeg has encoded, as words."""
    encoded = subprocess.run(
        [
            *(
                imageio_ffmpeg.get_ffmpeg_exe(),
                "-loglevel",
                "error",
                "-f",
                "lavfi",
                "-i",
                f"sine=r={rate}:d=0.2",
            ),
            *("-ac", "2", "-strict", "-2", "-c:a", codec, "-b:a", str(bitrate), "-f", muxer, "-"),
        ],
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
    # The muxer of DTS writes big-endian words.
    return np.frombuffer(encoded, dtype=">u2" if muxer == "dts" else "<u2").astype(np.uint16)


def dts(bits: int = 16) -> NDArray[np.uint16]:
    """Returns the words of DTS as they are on a CD, of 16 or 14 bit."""
    if bits == 16:
        return stream("dca", "dts", 44100, 1_411_200)
    octets = stream("dca", "dts", 44100, 1_234_800).astype(">u2").view(np.uint8)
    fourteen = np.unpackbits(octets).reshape(-1, 14)
    # The highest bit fills the two bits above it.
    whole = np.concatenate([fourteen[:, :1], fourteen[:, :1], fourteen], axis=1)
    return np.packbits(whole, axis=1).view(">u2").ravel().astype(np.uint16)


STREAMS = ["DTS", "DTS of 14 bit", *(f"{codec} in bursts of IEC 61937" for codec in BURSTS)]


def words_of(name: str) -> NDArray[np.uint16]:
    """Returns the words of a stream of STREAMS."""
    if name.startswith("DTS"):
        return dts(14 if "14" in name else 16)
    return stream(BURSTS[name.partition(" in ")[0]], "spdif", 48000, 256_000)


def refusal(wav: bytes) -> str:
    with pytest.raises(UnsupportedAudio) as refused:
        run_converter.convert(wav)
    return str(refused.value)


def wav_of(words: NDArray[np.uint16], wav: Wav = PLAIN, silence_bytes: int = 0) -> bytes:
    """Returns a WAV with the words as the upper 16 bit of its samples."""
    samples = words.astype(">u2").view(np.uint8).reshape(-1, 2)
    lower = np.zeros((len(samples), (wav.sample_bytes or wav.bits // 8) - 2), dtype=np.uint8)
    octets = np.concatenate([samples, lower], axis=1)
    audio = bytes(silence_bytes) + (octets if wav.order == ">" else octets[:, ::-1]).tobytes()
    return wav.header(len(audio)) + audio


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize(
    "wav",
    [
        Wav(rate=48000),
        Wav(rate=44100, extensible=True, mask=3),
        Wav(rate=48000, channels=8),
        Wav(rate=48000, bits=24),
        Wav(rate=48000, bits=24, sample_bytes=4),
        Wav(rate=44100, magic=b"RIFX"),
    ],
    ids=repr,
)
def test_compressed_audio_in_the_guise_of_pcm_is_refused_by_name(name: str, wav: Wav) -> None:
    words = words_of(name)[:26_000]
    expected = f"carries {name.removesuffix(' of 14 bit')}, which"
    assert expected in refusal(wav_of(words, wav))
    assert expected in refusal(wav_of(words.byteswap(), wav, silence_bytes=600_000))


@pytest.mark.parametrize("name", STREAMS)
def test_the_refusal_does_not_depend_on_how_the_audio_is_cut(name: str) -> None:
    audio = words_of(name)[:13_000].astype("<u2").tobytes()
    for piece_bytes in (52, 1000):
        search = BitstreamSearch(STEREO)
        with pytest.raises(UnsupportedAudio):
            for at in range(0, len(audio), piece_bytes):
                search.feed(audio[at : at + piece_bytes])


def test_a_stream_behind_a_little_music_is_found() -> None:
    music = np.frombuffer(Wav().audio(wavs.music(1)), dtype="<u2").astype(np.uint16)
    assert "carries DTS" in refusal(wav_of(np.concatenate([music, dts()])))


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("bits", [32, 64])
def test_a_stream_whose_words_became_floats_is_refused_by_name(name: str, bits: int) -> None:
    floats = words_of(name).view(np.int16)[:26_000] / 32768
    words = refusal(Wav(tag=FLOAT, bits=bits).build(floats.reshape(-1, 2)))
    assert words.startswith(
        f"The WAV says IEEE float, but it carries {name.removesuffix(' of 14 bit')}, which"
    )
    assert words.endswith("Decode it first, and send the result.")


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("channels", [4, 5, 8])
@pytest.mark.parametrize("first", [0, 2])
def test_a_stream_in_two_of_several_tracks_is_refused_by_name(name: str, channels: int, first: int) -> None:
    words = words_of(name).view(np.int16)[:26_000].reshape(-1, 2)
    samples = wavs.noise(len(words) / 44100, channels=channels)[: len(words)]
    samples[:, first : first + 2] = words / 32768
    words_of_refusal = refusal(Wav(channels=channels).build(samples))
    assert f"carries {name.removesuffix(' of 14 bit')}, which" in words_of_refusal
    assert words_of_refusal.endswith("Decode it first, and send the result.")


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_behind_a_long_quiet_beginning_is_found(name: str) -> None:
    quiet = np.random.default_rng(seed=1).integers(-30, 30, 700_000, dtype=np.int16)
    quiet[:3000] *= 1000
    data = wav_of(np.concatenate([quiet.view(np.uint16), words_of(name)]))
    assert f"carries {name.removesuffix(' of 14 bit')}, which" in refusal(data)


def test_two_sync_words_suffice() -> None:
    words = dts()[: 2 * 1024]
    assert "carries DTS" in refusal(wav_of(words))
    run_converter.convert(wav_of(words[:1024]))


def _square(high: int, low: int, period: int) -> NDArray[np.int16]:
    return np.tile(np.repeat(np.array([high, low], dtype=np.int16), period // 2), 100_000 // period)


@pytest.mark.parametrize(
    "samples",
    [
        # A square wave of full scale has the sync words of DTS at a constant distance.
        *(_square(0x7FFE, -0x7FFF, period) for period in (2, 4, 256, 512, 1024, 2048)),
        *(_square(0x1FFF, -0x1800, period) for period in (2, 512, 2048)),
        np.tile(np.array([0x7FFE, -0x7FFF] + [0] * 1022, dtype=np.int16), 100),
        np.tile(np.array([0x1FFF, -0x1800] + [-0x1800] * 1022, dtype=np.int16), 100),
        np.frombuffer(Wav().audio(wavs.music(5)), dtype="<i2"),
        np.frombuffer(Wav().audio(wavs.noise(5)), dtype="<i2"),
        np.zeros(200_000, dtype=np.int16),
    ],
)
def test_music_noise_and_square_waves_are_no_stream(samples: NDArray[np.int16]) -> None:
    BitstreamSearch(STEREO).feed(samples.astype("<i2").tobytes())
    BitstreamSearch(STEREO).feed(samples.astype(">i2").tobytes())
