"""A WAV that was read or sent as text is refused for what it is, and no other audio is."""

from collections.abc import Callable

import numpy as np
import pytest

from records.audio.sent_as_text import TextSearch, is_in_header
from tests import wavs
from tests.fuzz import hostile
from tests.wavs import FLOAT, Wav

WAVS = {
    "44.1 kHz": Wav(),
    "16 kHz": Wav(rate=16000, channels=1),
    "48 kHz, 24 bit": Wav(rate=48000, bits=24, extensible=True, mask=3),
    "floats": Wav(rate=32000, tag=FLOAT, bits=32, channels=1),
    # Nothing of these headers is beyond ASCII, except perhaps the sizes.
    "8 kHz": Wav(rate=8000, bits=8, channels=1),
    "11.025 kHz": Wav(rate=11025, channels=1),
    "8 kHz in stereo": Wav(rate=8000, channels=2),
    "a fact chunk": Wav(rate=8000, bits=8, channels=1, before_data=((b"fact", b"\x80\xbb\0\0"),)),
    "big-endian": Wav(magic=b"RIFX"),
}
READERS: dict[str, Callable[[bytes], bytes]] = {
    "UTF-8": lambda data: data.decode(errors="replace").encode(),
    "Latin-1": lambda data: data.decode("latin-1").encode(),
    "Windows": lambda data: data.decode("cp1252", errors="replace").encode(),
    "text mode": lambda data: data.replace(b"\n", b"\r\n"),
    "Latin-1 in text mode": lambda data: data.replace(b"\r\n", b"\n").decode("latin-1").encode(),
    "curl -d": lambda data: data.translate(None, b"\0\r\n"),
}
REFUSAL = (
    "This WAV was read or sent as text, which changed its bytes. Send it as bytes: curl -F audio=@in.wav"
)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", WAVS)
@pytest.mark.parametrize("sample_frames", [16010, 30011])
def test_a_wav_that_was_sent_as_text_is_told_so(reader: str, name: str, sample_frames: int) -> None:
    wav = WAVS[name]
    sound = np.tile(2 * wavs.noise(0.5, wav.rate, wav.channels), (10, 1))[:sample_frames]
    sound[:100] = 0
    data = READERS[reader](wav.build(sound))
    for pieces in ([data], [data[at : at + 7] for at in range(0, 700, 7)] + [data[700:]]):
        assert hostile.convert(pieces, 60).refusal.startswith(REFUSAL)


@pytest.mark.parametrize("size", [0x0A, 0x0D0A, 0xC3A4, 0x80C2, 0xBDBFEF, 0x45564157])
@pytest.mark.parametrize("form", [b"AVI LIST", b"WEBPVP8 ", b"WAVEfmt "])
def test_a_size_that_looks_like_text_is_none(size: int, form: bytes) -> None:
    assert not is_in_header(b"RIFF" + size.to_bytes(4, "little") + form)


@pytest.mark.parametrize(
    "audio",
    [
        Wav().audio(wavs.music(5)),
        Wav(bits=8).audio(wavs.music(5)),
        *(Wav(bits=bits).audio(wavs.noise(2)) for bits in (8, 16, 24, 32)),
        *(Wav(bits=bits).audio(0.01 * wavs.sine(seconds=2)) for bits in (8, 16, 24)),
        bytes(200_000),
        b"\x0d\x0a" * 10_000,
        b"\x80" * 10_000,
        b"\0\n" * 10_000,
        bytes(10_000) + b"\xff\xff\0\0" * 1000,
    ],
    # Otherwise pytest makes ids of megabytes from the audio, and every process sends them.
    ids=lambda audio: f"{len(audio)} bytes",
)
def test_audio_is_no_text(audio: bytes) -> None:
    for piece_bytes in (1000, len(audio)):
        search_all(audio, piece_bytes)


def search_all(audio: bytes, piece_bytes: int) -> None:
    search = TextSearch()
    for at in range(0, len(audio), piece_bytes):
        search.feed(audio[at : at + piece_bytes])


@pytest.mark.parametrize(
    "wav",
    [
        *(Wav(bits=bits, channels=channels) for bits in (8, 16, 24, 32) for channels in (1, 2)),
        *(Wav(bits=bits, magic=b"RIFX") for bits in (16, 24)),
        *(Wav(tag=FLOAT, bits=bits) for bits in (32, 64)),
    ],
    ids=repr,
)
def test_a_square_wave_whose_levels_look_like_characters_is_no_text(wav: Wav) -> None:
    square = np.tile(np.repeat([1, -1], 20), 20)
    # Three levels, of which two may be characters.
    shapes = square, square * np.repeat([1, 0.5], 400), np.full(400, -1)
    for level in np.linspace(0, 1, 250):
        for shape in shapes:
            search_all(wav.audio(level * np.repeat(shape[:, np.newaxis], wav.channels, axis=1)), 1000)
