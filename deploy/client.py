"""A small client of Waxwing with three commands: demo, user NAME, and upload FILE USER TOKEN.

It sends HTTP requests to BASE_URL or to the local stack. The acceptance tests use it too.
"""

import argparse
import hashlib
import io
import os
import ssl
import sys
import time
import wave
from collections.abc import Iterable
from functools import cache, partial
from pathlib import Path
from typing import Any, BinaryIO, cast
from uuid import UUID, uuid4

import av
import httpx
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from deploy.local.stack import StackError, find_stack

# The service converts while the upload arrives, so the response comes soon after the last byte.
TIMEOUT = httpx.Timeout(60, read=300)
# The errors of an upload that breaks off. A ConnectError means that no server answers, so the client does not
# try again.
BROKEN = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError, httpx.ReadTimeout, httpx.WriteTimeout)
TRIES = 3
PAUSE_SECONDS = 1


class Refused(Exception):  # noqa: N818 (named for what happened, like the problems of the services)
    """Waxwing responded with a problem; the message contains its detail."""

    def __init__(self, response: httpx.Response) -> None:
        if response.headers.get("content-type") == "application/problem+json":
            problem = response.json()
            super().__init__(f"{response.status_code} {problem['title']}: {problem['detail']}")
        else:
            super().__init__(f"{response.url} answered {response.status_code}, but it is not Waxwing")
        self.response = response

    @property
    def pause_seconds(self) -> int | None:
        """The seconds after which another try can succeed; None if the response has no Retry-After."""
        pause = self.response.headers.get("Retry-After", "")
        return int(pause) if pause.isdecimal() else None


@cache
def load_certificates() -> ssl.SSLContext:
    """Loads the CA certificates, once: it takes longer than many requests, and all clients may share them."""
    return httpx.create_ssl_context(trust_env=False)


class Client:
    """Calls Waxwing's API. `http` sends any other request."""

    def __init__(self, base_url: str, signup_key: str | None = None) -> None:
        """Every request has the `signup_key`, by default SIGNUP_KEY of the environment.

        Only sign-ups need it.
        """
        key = signup_key or os.environ.get("SIGNUP_KEY")
        self.http = httpx.Client(
            base_url=base_url,
            timeout=TIMEOUT,
            # A proxy from the environment must not see the tokens of a local service.
            trust_env=False,
            verify=load_certificates(),
            headers={"X-Signup-Key": key} if key else None,
        )

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def create_user(self, name: str) -> dict[str, Any]:
        """Creates a user and returns id, name, token and created_at. Raises Refused."""
        return _read_document(self.http.post("/users", json={"name": name}))

    def upload(
        self, audio: BinaryIO, user_id: str, token: str, key: str | None = None, **options: str | int | None
    ) -> dict[str, Any]:
        """Uploads a WAV as a form and returns the record with its `url`. Raises Refused.

        With a `key` (Idempotency-Key) the upload may be sent again. `options` are `title`, `bitrate_kbps` and
        `keep_original`; an option that is None is left out.
        """
        # As bytes, so that Waxwing and not the client library judges the key.
        headers = {b"Idempotency-Key": os.fsencode(key)} if key is not None else None
        given = {name: str(value) for name, value in options.items() if value is not None}
        fields = {"user_id": user_id, "token": token, **given}
        files = {"audio": ("audio.wav", audio, "audio/wav")}
        return _read_document(self.http.post("/records", data=fields, files=files, headers=headers))

    def upload_stream(
        self,
        pieces: Iterable[bytes],
        token: str,
        bitrate_kbps: int | None = None,
        *,
        keep_original: bool = False,
    ) -> dict[str, Any]:
        """Uploads a WAV of unknown length piece by piece, and returns the record. Raises Refused."""
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "audio/wav"}
        query: dict[str, str | int] = {"bitrate_kbps": bitrate_kbps} if bitrate_kbps else {}
        if keep_original:
            query["keep_original"] = "true"
        return _read_document(self.http.post("/records", content=pieces, headers=headers, params=query))

    def download(self, url: str) -> bytes:
        """Returns the whole MP3 of a link. Raises Refused."""
        response = self.http.get(url)
        if response.is_error:
            raise Refused(response)
        return response.content


def _read_document(response: httpx.Response) -> dict[str, Any]:
    if response.is_error:
        raise Refused(response)
    return cast(dict[str, Any], response.json())


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


def find_base_url() -> tuple[str, str | None]:
    """Returns BASE_URL, or the URL of the local stack with its sign-up key."""
    if base_url := os.environ.get("BASE_URL"):
        return base_url, None
    stack = find_stack()
    return stack.base_url, stack.signup_key


def _upload_safely(
    client: Client, wav: BinaryIO, user_id: str, token: str, key: str, **options: str | int | None
) -> dict[str, Any]:
    """Uploads, and tries again if the upload broke off or can succeed later. The key makes one record."""
    upload = partial(_upload_with_progress, client, wav, user_id, token, key, **options)
    for _ in range(TRIES - 1):
        try:
            return upload()
        except (Refused, *BROKEN) as error:
            pause = error.pause_seconds if isinstance(error, Refused) else PAUSE_SECONDS
            if pause is None:
                raise
            print(
                f"client: {_describe_error(error)}; trying again in {pause} s with --key {key}",
                file=sys.stderr,
            )
            time.sleep(pause)
    return upload()


def _describe_error(error: Exception) -> str:
    """Returns the text of an error. Some errors of httpx have no text, so their class is named."""
    return str(error) or type(error).__name__


def _upload_with_progress(
    client: Client, wav: BinaryIO, user_id: str, token: str, key: str, **options: str | int | None
) -> dict[str, Any]:
    size_bytes = wav.seek(0, io.SEEK_END)
    wav.seek(0)
    with tqdm.wrapattr(wav, "read", total=size_bytes, desc="uploading", unit="B", unit_scale=True) as watched:
        return client.upload(cast(BinaryIO, watched), user_id, token, key, **options)


def run_demo(client: Client) -> None:
    """Creates a user, uploads a tune, downloads it by its link, and checks it."""
    user = client.create_user("Demo")
    print(f"user     {user['name']}, id {user['id']}, token {user['token']}")
    wav = make_tune()
    record = _upload_safely(client, io.BytesIO(wav), user["id"], user["token"], str(uuid4()))
    mp3 = client.download(record["url"])
    seconds = measure_seconds(mp3)
    print(f"upload   {len(wav):,} bytes of WAV, 10 s, became {len(mp3):,} bytes of MP3, {seconds:.2f} s")
    if hashlib.sha256(mp3).hexdigest() != record["sha256"]:
        sys.exit("demo: the downloaded MP3 is not the stored one")
    if abs(seconds - record["duration_seconds"]) > 0.001:  # noqa: PLR2004 (the Info frame makes the length exact)
        sys.exit(f"demo: the MP3 has {seconds} s instead of {record['duration_seconds']} s")
    print(f"link     {record['url']}")


def main(arguments: list[str]) -> None:
    """Runs one command."""
    parser = argparse.ArgumentParser(prog="just", description="A small client of Waxwing.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("demo", help="create a user, upload a tune, download it by its link, and check it")
    commands.add_parser("user", help="create a user").add_argument("name")
    upload = commands.add_parser("upload", help="upload a WAV and print its link")
    upload.add_argument("file", type=Path)
    upload.add_argument("user", type=UUID)
    upload.add_argument("token")
    upload.add_argument("--title", help="a name for the record")
    upload.add_argument("--bitrate", type=int, metavar="KBPS", help="of the MP3, 32 to 320 (default: 128)")
    upload.add_argument(
        "--keep-original",
        action="store_const",
        const="true",
        help="also store the WAV as it is, about eleven times as large as its MP3",
    )
    upload.add_argument(
        "--key",
        default=str(uuid4()),
        help="sent again with this key within a day, the upload makes only one record",
    )
    options = parser.parse_args(arguments)
    base_url = ""
    try:
        base_url, signup_key = find_base_url()
        with Client(base_url, signup_key=signup_key) as client:
            _run(client, options)
    except httpx.ConnectError:
        sys.exit(f"client: nothing answers at {base_url}: `./just up` starts the stack")
    except (Refused, StackError, httpx.TransportError, OSError) as error:
        sys.exit(f"client: {_describe_error(error)}")


def _run(client: Client, options: argparse.Namespace) -> None:
    match options.command:
        case "demo":
            run_demo(client)
        case "user":
            user = client.create_user(options.name)
            print(f"id     {user['id']}\ntoken  {user['token']}  (shown this once)")
        case "upload":
            with options.file.open("rb") as wav:
                record = _upload_safely(
                    client,
                    wav,
                    str(options.user),
                    options.token,
                    options.key,
                    title=options.title,
                    bitrate_kbps=options.bitrate,
                    keep_original=options.keep_original,
                )
            print(record["url"])


if __name__ == "__main__":
    main(sys.argv[1:])
