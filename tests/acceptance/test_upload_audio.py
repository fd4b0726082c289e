"""POST /records: files that are no WAV, and WAVs that are unsupported or broken, are refused."""

from typing import Any

import httpx
import pytest

from deploy.client import Client
from tests import wavs
from tests.acceptance.upload_client import post_form, post_wav
from tests.response_checks import assert_problem
from tests.upload_requests import audio, token, user_id
from tests.wavs import Wav


def post_in_every_way(client: Client, user: dict[str, Any], wav: bytes) -> list[httpx.Response]:
    """Uploads a form with the credentials in front of the audio, one with them behind it, and a bare WAV."""
    fields = user_id(user), token(user)
    forms = [post_form(client, *fields, audio(wav)), post_form(client, audio(wav), *fields)]
    return [*forms, post_wav(client, user, wav)]


@pytest.mark.parametrize(
    ("wav", "says"),
    [
        pytest.param(Wav(tag=0x0045, bits=8), "0x0045 (G.726 ADPCM)", id="G.726"),
        pytest.param(Wav(tag=0x0031, bits=8), "0x0031 (GSM 6.10)", id="GSM"),
        pytest.param(Wav(tag=0x0055, bits=8), "0x0055 (MP3)", id="MP3 in a WAV"),
    ],
)
def test_an_unsupported_codec_is_named_with_the_command_that_converts_it(
    client: Client, user: dict[str, Any], wav: Wav, says: str
) -> None:
    for response in post_in_every_way(client, user, wav.build(wavs.sine())):
        problem = assert_problem(response, 415, "unsupported-audio", says)
        assert "ffmpeg -i in.wav -c:a pcm_s16le out.wav" in problem["detail"]


@pytest.mark.parametrize(
    ("wav", "says"),
    [
        pytest.param(Wav(channels=33), "33 channels", id="33 channels"),
        pytest.param(Wav(rate=768_001), "768001 Hz", id="over 768 kHz"),
    ],
)
def test_an_unsupported_pcm_format_is_named_with_the_command_that_converts_it(
    client: Client, user: dict[str, Any], wav: Wav, says: str
) -> None:
    body = wav.header(100_000) + bytes(100_000)
    for response in post_in_every_way(client, user, body):
        problem = assert_problem(response, 415, "unsupported-audio", says)
        assert "ffmpeg -i in.wav" in problem["detail"]


@pytest.mark.parametrize(
    ("wav", "says"),
    [
        pytest.param(Wav(tag=0x9999), "0x9999", id="a codec nobody knows"),
        pytest.param(Wav(bits=65), "65 bit", id="65 bit"),
        pytest.param(Wav(bits=16, tag=0x0003), "16 bit", id="float of 16 bit"),
    ],
)
def test_a_wav_that_ffmpeg_cannot_convert_either_is_refused_without_a_command(
    client: Client, user: dict[str, Any], wav: Wav, says: str
) -> None:
    for response in post_in_every_way(client, user, wav.header(1000) + bytes(1000)):
        problem = assert_problem(response, 415, "unsupported-audio", says)
        assert "ffmpeg" not in problem["detail"]


PLAYLIST = b"#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:10.0,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        pytest.param(b"\xff\xfb\x90\x64" + bytes(1000), "MP3", id="an MP3"),
        pytest.param(b"ID3\x04" + bytes(1000), "MP3", id="an MP3 with a tag"),
        pytest.param(b"fLaC" + bytes(1000), "FLAC", id="a FLAC"),
        pytest.param(b"OggS" + bytes(1000), "Ogg", id="an Ogg"),
        pytest.param(b"RIFF\0\0\0\0AVI " + bytes(1000), "AVI", id="an AVI"),
    ],
)
def test_another_audio_file_is_refused_with_the_command_that_converts_it(
    client: Client, user: dict[str, Any], body: bytes, says: str
) -> None:
    for response in post_in_every_way(client, user, body):
        problem = assert_problem(response, 415, "unsupported-audio", says)
        assert "ffmpeg -i in" in problem["detail"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        pytest.param(b"This is a text, and not even a short one.", "This is text", id="text"),
        pytest.param(PLAYLIST, "This is text", id="an HLS playlist"),
        pytest.param(b"<html><body>404</body></html>", "This is HTML", id="HTML"),
        pytest.param(b"<svg/>", "This is text", id="an SVG"),
        pytest.param(b"UklGRiQAAABXQVZFZm10IBAAAAA=", "This is base64 text", id="base64"),
        pytest.param(b"\x1f\x8b\x08\0" + bytes(1000), "This is a gzip archive", id="gzip"),
        pytest.param(b"x", "not a WAV", id="one byte"),
        pytest.param(bytes(100_000), "begins with zeros", id="zeros"),
    ],
)
def test_what_is_no_audio_is_refused_by_name(
    client: Client, user: dict[str, Any], body: bytes, says: str
) -> None:
    for response in post_in_every_way(client, user, body):
        problem = assert_problem(response, 415, "unsupported-audio", says)
        assert "ffmpeg" not in problem["detail"]


def test_a_wav_whose_mp3_would_be_far_larger_is_refused(client: Client, user: dict[str, Any]) -> None:
    # An hour at 1 Hz. Its MP3 would have 28.8 MB.
    wav = Wav(rate=1, bits=8, channels=1).build(wavs.silence(3600, 1, 1))
    for response in post_in_every_way(client, user, wav):
        assert_problem(response, 422, "out-of-proportion", "1 Hz", "ffmpeg -i in.wav -ar 8000 out.wav")


WHOLE = Wav()
STREAMED = Wav(riff_size=wavs.UNKNOWN_SIZE, data_size=wavs.UNKNOWN_SIZE)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        pytest.param(b"", "0 bytes", id="nothing"),
        pytest.param(WHOLE.header(0), "no", id="no sample frames"),
        pytest.param(STREAMED.header(0), "", id="no sample frames of a stream"),
        pytest.param(WHOLE.header(4) + bytes(3), "frame", id="less than a sample frame"),
        pytest.param(WHOLE.header(1000)[:8], "8 bytes", id="cut in the RIFF header"),
        pytest.param(WHOLE.header(1000)[:12], "12 bytes", id="cut after the RIFF header"),
        pytest.param(WHOLE.header(1000)[:30], "30 bytes", id="cut in the fmt chunk"),
        pytest.param(WHOLE.header(1000)[:36], "data chunk", id="cut after the fmt chunk"),
        pytest.param(WHOLE.header(1000)[:40], "40 bytes", id="cut in the data chunk's header"),
        pytest.param(Wav(channels=0).header(1000) + bytes(1000), "0 channels", id="no channels"),
        pytest.param(Wav(rate=0).header(1000) + bytes(1000), "0 Hz", id="no rate"),
        pytest.param(Wav(bits=0, block_align=3).header(9) + bytes(9), "block align", id="no bits"),
        pytest.param(
            WHOLE.build(wavs.sine()) * 2 + Wav(rate=8).build(wavs.sine()), "At byte", id="two formats"
        ),
    ],
)
def test_a_broken_wav_is_refused(client: Client, user: dict[str, Any], body: bytes, says: str) -> None:
    for response in post_in_every_way(client, user, body):
        assert_problem(response, 422, "broken-audio", says)
