"""Bodies of uploads: multipart forms written byte by byte, and the headers that credentials may come in."""

from base64 import b64encode
from typing import Any, NamedTuple

from tests.wavs import Wav, sine

BOUNDARY = "waxwing-test-boundary"
FORM_TYPE = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
WAV_TYPE = {"Content-Type": "audio/wav"}
# An id, or a token, that nobody has; always the same, so that a test has one name.
NOBODY = "00000000-0000-4000-8000-000000000000"
# A tenth of a second, 8 kHz, mono: the smallest that is worth hearing.
TINY_WAV = Wav(channels=1, rate=8000).build(sine(seconds=0.1, rate=8000, channels=1))


class FormPart(NamedTuple):
    """One part of a form: a field, or with a file name a file."""

    name: str
    body: str | bytes
    filename: str | None = None

    def write(self) -> bytes:
        """The part as it stands between two boundaries."""
        file = f'; filename="{self.filename}"\r\nContent-Type: audio/wav' if self.filename else ""
        head = f'Content-Disposition: form-data; name="{self.name}"{file}\r\n\r\n'
        body = self.body.encode() if isinstance(self.body, str) else self.body
        return head.encode() + body


def make_form(*parts: FormPart, boundary: str = BOUNDARY) -> bytes:
    """A whole multipart body (RFC 7578)."""
    begun = b"".join(f"--{boundary}\r\n".encode() + part.write() + b"\r\n" for part in parts)
    return begun + f"--{boundary}--\r\n".encode()


def audio(wav: bytes = TINY_WAV) -> FormPart:
    """The file of an upload."""
    return FormPart("audio", wav, "recording.wav")


def user_id(user: dict[str, Any]) -> FormPart:
    """The field that says who uploads."""
    return FormPart("user_id", user["id"])


def token(user: dict[str, Any]) -> FormPart:
    """The field that proves it."""
    return FormPart("token", user["token"])


def bearer(user: dict[str, Any]) -> dict[str, str]:
    """RFC 6750."""
    return {"Authorization": f"Bearer {user['token']}"}


def basic(user: dict[str, Any]) -> dict[str, str]:
    """RFC 7617, as `curl -u ID:TOKEN` sends it."""
    return encode_basic(user["id"].encode(), user["token"].encode())


def encode_basic(user_id: bytes, token: bytes) -> dict[str, str]:
    """The same of any bytes."""
    return {"Authorization": "Basic " + b64encode(user_id + b":" + token).decode()}
