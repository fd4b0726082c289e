"""The MP3 behind a link has the length and the sound of the WAV, for every format that the API accepts."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy.client import Client
from tests import decoding, wavs
from tests.decoding import Decoded
from tests.response_checks import assert_json
from tests.upload_requests import FORM_TYPE, WAV_TYPE, audio, bearer, make_form, token, user_id
from tests.wavs import UNKNOWN_SIZE, Sound, Wav

SECONDS = 4
HIGHEST_VOICE_HZ = 5000
JUNK = (b"JUNK", bytes(1001))
LIST = (b"LIST", b"INFOISFT\x0e\0\0\0Lavf60.16.100\0")
BEXT = (b"bext", bytes(602))
ODD = (b"odd ", b"\xff" * 7)


@cache
def speech(rate: int) -> Sound:
    """Synthetic speech: a gliding pitch through the formants of four vowels, with pauses."""
    if rate > 48000:
        # Speech has no frequencies above 5 kHz, and computing its harmonics at 768 kHz takes half a minute.
        return decoding.resample(Decoded(speech(48000), 48000), rate).samples.clip(-1, 1)
    times = np.arange(SECONDS * rate) / rate
    pitch_hz = 120 + 25 * np.sin(2 * np.pi * 0.7 * times) + 10 * np.sin(2 * np.pi * 2.3 * times)
    turns = np.cumsum(pitch_hz) / rate
    vowels = np.array([(730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480)])
    formants_hz = vowels[(times * 4).astype(int) % len(vowels)]
    voice = np.zeros(len(times))
    for harmonic in range(1, int(min(0.4 * rate, HIGHEST_VOICE_HZ) / pitch_hz.max())):
        distance_hz = harmonic * pitch_hz[:, np.newaxis] - formants_hz
        gain = np.sum(1 / (1 + (distance_hz / 90) ** 2), axis=1) / harmonic**0.5
        voice += gain * np.sin(2 * np.pi * harmonic * turns)
    syllables = np.clip(np.sin(2 * np.pi * 4 * times) + 0.6, 0, 1) * (times % 2 < 1.7)
    spoken = voice * syllables
    mono: Sound = 0.5 * spoken / np.abs(spoken).max()
    return mono[:, np.newaxis]


@cache
def music(rate: int) -> Sound:
    """Music in stereo at this rate."""
    return decoding.resample(Decoded(wavs.music(SECONDS), 44100), rate).samples.clip(-1, 1)


def upload(client: Client, user: dict[str, Any], wav: bytes) -> tuple[dict[str, Any], Decoded]:
    """Uploads a WAV in a form; returns the record and the decoded MP3."""
    form = make_form(user_id(user), token(user), audio(wav))
    record = assert_json(client.http.post("/records", content=form, headers=FORM_TYPE), 201)
    mp3 = client.http.get(record["url"])
    assert (mp3.status_code, mp3.headers["Content-Type"]) == (200, "audio/mpeg")
    return record, decoding.decode(mp3.content)


def assert_sounds_like(
    source: Sound, rate: int, record: dict[str, Any], heard: Decoded, *, correlation: float
) -> None:
    """Checks length, shape and level of a decoded MP3 against its source of one or two channels."""
    comparison = decoding.compare(Decoded(source, rate), heard)
    assert record["duration_seconds"] == pytest.approx(len(source) / rate, abs=1e-9)
    assert (record["sample_rate"], record["channels"]) == (heard.rate, heard.channels)
    # Decoders drop the samples that the codec adds in front and behind, because the Info frame counts them.
    assert len(heard.samples) == round(len(source) * heard.rate / rate)
    assert comparison.lag == 0
    assert comparison.correlation > correlation
    # LAME lowers the level by 0.45 dB as headroom and drops the frequencies that nobody hears.
    assert comparison.level_db == pytest.approx(-0.45, abs=0.15)


@pytest.mark.parametrize("extensible", [False, True], ids=["plain", "extensible"])
@pytest.mark.parametrize("channels", [1, 2], ids=["mono", "stereo"])
@pytest.mark.parametrize("bits", [8, 16, 24, 32])
def test_music_of_every_bit_depth_sounds_like_its_source(
    client: Client, user: dict[str, Any], bits: int, channels: int, extensible: bool
) -> None:
    source = music(44100)[:, :channels]
    wav = Wav(bits=bits, channels=channels, extensible=extensible).build(source)
    assert_sounds_like(source, 44100, *upload(client, user, wav), correlation=0.99)


RATES = [
    *((rate, rate) for rate in (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)),
    (4000, 8000),
    (44056, 44100),
    (88200, 48000),
    (96000, 48000),
    (192000, 48000),
    (768000, 48000),
]


@pytest.mark.parametrize(("rate", "mp3_rate"), RATES)
def test_speech_of_every_rate_sounds_like_its_source(
    client: Client, user: dict[str, Any], rate: int, mp3_rate: int
) -> None:
    source = speech(rate)
    record, heard = upload(client, user, Wav(channels=1, rate=rate).build(source))
    assert heard.rate == mp3_rate
    assert_sounds_like(source, rate, record, heard, correlation=0.99)


@pytest.mark.parametrize(("rate", "mp3_rate"), RATES)
def test_music_of_every_rate_sounds_like_its_source(
    client: Client, user: dict[str, Any], rate: int, mp3_rate: int
) -> None:
    source = music(rate)
    record, heard = upload(client, user, Wav(rate=rate).build(source))
    assert heard.rate == mp3_rate
    assert_sounds_like(source, rate, record, heard, correlation=0.97)


@pytest.mark.parametrize(
    "codec", ["pcm_f32le", "pcm_f64le", "pcm_alaw", "pcm_mulaw", "adpcm_ima_wav", "adpcm_ms"]
)
def test_music_in_every_codec_sounds_like_its_source(
    client: Client, user: dict[str, Any], codec: str
) -> None:
    wav = wavs.encoded(music(44100), codec)
    record, heard = upload(client, user, wav)
    assert_sounds_like(decoding.decode(wav, "wav").samples, 44100, record, heard, correlation=0.97)


@pytest.mark.parametrize("bits", [8, 16, 24, 32])
def test_speech_of_every_bit_depth_sounds_like_its_source(
    client: Client, user: dict[str, Any], bits: int
) -> None:
    source = speech(16000)
    wav = Wav(bits=bits, channels=1, rate=16000).build(source)
    assert_sounds_like(source, 16000, *upload(client, user, wav), correlation=0.99)


@pytest.mark.parametrize("bits", [16, 24])
@pytest.mark.parametrize("extensible", [False, True], ids=["plain", "extensible"])
def test_six_channels_are_mixed_to_their_side_without_the_effects_that_a_mask_names(
    client: Client, user: dict[str, Any], bits: int, extensible: bool
) -> None:
    # One second each of front left, front right, centre, effects, back left and back right.
    tones_hz = (400, 600, 800, 50, 1000, 1200)
    source = np.zeros((6 * 44100, 6))
    for channel, hertz in enumerate(tones_hz):
        second = slice(channel * 44100, (channel + 1) * 44100)
        source[second, channel] = wavs.sine(hertz, 1, channels=1)[:, 0]
    mask = 0x3F if extensible else 0
    wav = Wav(bits=bits, channels=6, rate=44100, extensible=extensible, mask=mask).build(source)
    record, heard = upload(client, user, wav)
    assert (record["channels"], record["duration_seconds"]) == (2, 6.0)
    left, right = 0, 1
    heard_in = {400: [left], 600: [right], 800: [left, right], 1000: [left], 1200: [right]}
    # ITU-R BS.775 leaves out the effects channel.
    heard_in[50] = [] if extensible else [left, right]
    for channel, hertz in enumerate(tones_hz):
        # The middle of the second is free of the neighbouring tones.
        middle = heard.samples[channel * 44100 + 11025 : channel * 44100 + 33075]
        loud = [side for side in (left, right) if tone_db(middle[:, side], hertz) > -30]
        assert loud == heard_in[hertz]


def tone_db(samples: Sound, hertz: int) -> float:
    """The level of one tone in dB relative to full scale."""
    times = np.arange(len(samples)) / 44100
    return float(20 * np.log10(1e-6 + 2 * abs(np.mean(samples * np.exp(-2j * np.pi * hertz * times)))))


def test_left_stays_left_and_right_stays_right(client: Client, user: dict[str, Any]) -> None:
    source = np.hstack([wavs.sine(440, channels=1), wavs.sine(1000, channels=1)])
    _, heard = upload(client, user, Wav().build(source))
    middle = heard.samples[11025:33075]
    assert tone_db(middle[:, 0], 440) > -7 > -40 > tone_db(middle[:, 0], 1000)
    assert tone_db(middle[:, 1], 1000) > -7 > -40 > tone_db(middle[:, 1], 440)


@pytest.mark.parametrize(
    "wav",
    [
        pytest.param(Wav(data_size=0, riff_size=0), id="sizes of 0"),
        pytest.param(Wav(data_size=UNKNOWN_SIZE, riff_size=UNKNOWN_SIZE), id="sizes of 0xFFFFFFFF"),
        pytest.param(Wav(data_size=UNKNOWN_SIZE), id="data size of 0xFFFFFFFF"),
        pytest.param(Wav(data_size=0, riff_size=36), id="the header of an unfinished file"),
        pytest.param(Wav(riff_size=0), id="RIFF size of 0"),
        pytest.param(Wav(data_size=0), id="data size of 0"),
        pytest.param(Wav(data_size=42, riff_size=42), id="sizes of a writer that never came back"),
        pytest.param(Wav(data_size=100_000_000), id="audio that ends early"),
        pytest.param(Wav(before_fmt=(JUNK, BEXT)), id="chunks before fmt"),
        pytest.param(Wav(before_data=(LIST, ODD)), id="chunks between fmt and data"),
        pytest.param(Wav(after=(LIST, ODD, JUNK)), id="chunks after data"),
        pytest.param(
            Wav(before_fmt=(JUNK,), before_data=(ODD, LIST), after=(BEXT, ODD), extensible=True),
            id="chunks in every place",
        ),
        pytest.param(Wav(magic=b"RIFX", bits=24), id="RIFX"),
        pytest.param(
            Wav(magic=b"RF64", before_fmt=(wavs.ds64(0),), riff_size=UNKNOWN_SIZE, data_size=UNKNOWN_SIZE),
            id="RF64",
        ),
        pytest.param(Wav(fmt_bytes=18), id="a fmt chunk of 18 bytes"),
        pytest.param(Wav(before_data=((b"JUNK", bytes(1 << 20)),)), id="a chunk of 1 MiB"),
    ],
)
def test_music_in_every_layout_of_a_wav_sounds_like_its_source(
    client: Client, user: dict[str, Any], wav: Wav
) -> None:
    source = music(44100)
    assert_sounds_like(source, 44100, *upload(client, user, wav.build(source)), correlation=0.99)


def test_a_recording_that_is_piped_sounds_like_its_source(client: Client, user: dict[str, Any]) -> None:
    source = speech(44100)
    wav = Wav(channels=1, data_size=UNKNOWN_SIZE, riff_size=UNKNOWN_SIZE).build(source)
    pieces = (wav[start : start + 777] for start in range(0, len(wav), 777))
    response = client.http.post("/records", content=pieces, headers={**WAV_TYPE, **bearer(user)})
    record = assert_json(response, 201)
    heard = decoding.decode(client.download(record["url"]))
    assert_sounds_like(source, 44100, record, heard, correlation=0.99)


@pytest.mark.parametrize("name", ["boom", "car_door", "house_lo", "punch", "whiff"])
def test_a_real_recording_sounds_like_its_source(client: Client, user: dict[str, Any], name: str) -> None:
    package = find_spec("pygame")
    assert package is not None
    assert package.origin is not None
    wav = (Path(package.origin).parent / "examples" / "data" / f"{name}.wav").read_bytes()
    source = decoding.decode(wav, "wav")
    record, heard = upload(client, user, wav)
    assert_sounds_like(source.samples, source.rate, record, heard, correlation=0.97)


def test_silence_stays_silent(client: Client, user: dict[str, Any]) -> None:
    _, heard = upload(client, user, Wav().build(wavs.silence(2)))
    assert np.abs(heard.samples).max() < 1e-4
    assert heard.seconds == 2


@pytest.mark.parametrize("sample_frames", [1, 2, 575, 576, 577, 1151, 1152, 1153, 4096])
def test_the_shortest_recordings_keep_their_length(
    client: Client, user: dict[str, Any], sample_frames: int
) -> None:
    record, heard = upload(client, user, Wav().build(wavs.noise(sample_frames / 44100)))
    assert record["duration_seconds"] == pytest.approx(sample_frames / 44100, abs=1e-9)
    assert len(heard.samples) == sample_frames
