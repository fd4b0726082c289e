"""The recording of `./just demo`, and what the demo does with it."""

import hashlib
import io
import sys
import wave
from uuid import uuid4

import av
import numpy as np
from numpy.typing import NDArray

from deploy.client import Client
from deploy.terminal.logins import Login
from deploy.terminal.transfers import upload


def make_tune(seconds: int = 10, sample_rate: int = 44100) -> bytes:
    """Returns a WAV of plucked notes, 16-bit mono. A listener would hear any fault in it."""
    notes_hz = [261.63, 329.63, 392.0, 523.25, 392.0, 329.63, 293.66, 349.23, 440.0, 587.33]
    time = np.arange(sample_rate) / sample_rate
    envelope = np.minimum(time * 200, 1) * np.exp(-3 * time)
    tune = [_pluck(notes_hz[second % len(notes_hz)] * time) * envelope for second in range(seconds)]
    file = io.BytesIO()
    with wave.open(file, "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(sample_rate)
        wav.writeframes((np.concatenate(tune) * 32767).astype("<i2").tobytes())
    return file.getvalue()


def _pluck(turns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns a tone with two overtones. `turns` are the periods of its fundamental."""
    overtones, volumes = np.array([[1], [2], [3]]), np.array([0.6, 0.25, 0.1])
    return volumes @ np.sin(2 * np.pi * overtones * turns)


def measure_seconds(mp3: bytes) -> float:
    """Decodes an MP3 and returns its length in seconds."""
    with av.open(io.BytesIO(mp3), "r", format="mp3") as container:
        return sum(frame.samples / frame.sample_rate for frame in container.decode(audio=0))


def run_demo(client: Client) -> None:
    """Creates a user, uploads a tune, downloads it by its link, and checks it."""
    user = client.create_user("Demo")
    print(f"user     {user['name']}, id {user['id']}, token {user['token']}")
    wav = make_tune()
    record = upload(client, io.BytesIO(wav), "uploading", Login(user["id"], user["token"]), str(uuid4()))
    mp3 = client.download(record["url"])
    seconds = measure_seconds(mp3)
    print(f"upload   {len(wav):,} bytes of WAV, 10 s, became {len(mp3):,} bytes of MP3, {seconds:.2f} s")
    if hashlib.sha256(mp3).hexdigest() != record["sha256"]:
        sys.exit("demo: the downloaded MP3 is not the stored one")
    if abs(seconds - record["duration_seconds"]) > 0.001:  # noqa: PLR2004 (the Info frame makes the length exact)
        sys.exit(f"demo: the MP3 has {seconds} s instead of {record['duration_seconds']} s")
    print(f"link     {record['url']}")
