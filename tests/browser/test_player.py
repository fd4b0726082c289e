"""A link that is opened in Chromium plays, seeks, and has the length of the WAV."""

from typing import Any

import pytest
from playwright.sync_api import Page

from deploy.client import Client
from tests.wavs import Wav, music, sweep

# Chromium rounds durations to microseconds.
TOLERANCE_SECONDS = 0.001
PLAYER = "document.querySelector('video, audio')"
KNOWN = f"{PLAYER}?.readyState >= 1"


def upload(client: Client, user: dict[str, Any], wav: bytes, bitrate_kbps: int = 128) -> dict[str, Any]:
    """Uploads a WAV and returns the record."""
    headers = {"Authorization": f"Bearer {user['token']}", "Content-Type": "audio/wav"}
    response = client.http.post(f"/records?bitrate_kbps={bitrate_kbps}", content=wav, headers=headers)
    record: dict[str, Any] = response.raise_for_status().json()
    return record


@pytest.mark.parametrize(
    ("wav", "bitrate_kbps", "seconds"),
    [
        (Wav(), 128, 10.0),
        (Wav(rate=48000, channels=1), 64, 0.5),
        (Wav(rate=22050), 64, 3.21),
        (Wav(rate=8000, channels=1), 32, 7.0),
        (Wav(rate=32000), 320, 60.0),
    ],
)
def test_the_player_shows_the_duration_and_the_samples_of_the_wav(
    client: Client, user: dict[str, Any], page: Page, wav: Wav, bitrate_kbps: int, seconds: float
) -> None:
    sound = sweep(seconds, wav.rate, wav.channels)
    record = upload(client, user, wav.build(sound), bitrate_kbps)
    page.goto(record["url"])
    page.wait_for_function(KNOWN)
    assert page.evaluate(f"{PLAYER}.duration") == pytest.approx(len(sound) / wav.rate, abs=TOLERANCE_SECONDS)
    decoded = page.evaluate(
        """async ([url, rate]) => {
            const mp3 = await (await fetch(url)).arrayBuffer();
            const audio = await new OfflineAudioContext(1, 1, rate).decodeAudioData(mp3);
            return [audio.length, audio.numberOfChannels];
        }""",
        [record["url"], wav.rate],
    )
    assert decoded == [len(sound), wav.channels]


def test_a_link_plays_and_seeks(client: Client, user: dict[str, Any], page: Page) -> None:
    record = upload(client, user, Wav().build(music(60)), 320)
    page.goto(record["url"])
    page.wait_for_function(KNOWN)
    for second in (50, 20, 59):
        page.evaluate(f"{PLAYER}.currentTime = {second}")
        page.wait_for_function(f"!{PLAYER}.seeking")
        page.evaluate(f"{PLAYER}.play()")
        page.wait_for_function(f"{PLAYER}.currentTime > {second} + 0.2")
    page.wait_for_function(f"{PLAYER}.ended")
    assert page.evaluate(f"{PLAYER}.error") is None
