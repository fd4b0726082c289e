"""Bodies and headers of uploads: multipart forms written byte by byte, bare WAVs, and credentials."""

from base64 import b64encode
from collections.abc import Mapping
from typing import Any, NamedTuple

from tests.raw_connection import header_lines, make_request_head
from tests.wavs import Wav, sine

BOUNDARY = "waxwing-test-boundary"
FORM_TYPE = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
WAV_TYPE = {"Content-Type": "audio/wav"}
# An id, or a token, that nobody has. It is constant, so that the name of a test is the same in every run.
NOBODY = "00000000-0000-4000-8000-000000000000"
# 0.1 seconds, 8 kHz, mono.
TINY_WAV = Wav(channels=1, rate=8000).build(sine(seconds=0.1, rate=8000, channels=1))


class FormPart(NamedTuple):
    """One form part: a form field, or with a file name the audio."""

    name: str
    body: str | bytes
    filename: str | None = None

    def write(self) -> bytes:
        """Returns the form part as it stands between two boundaries."""
        file = f'; filename="{self.filename}"\r\nContent-Type: audio/wav' if self.filename else ""
        head = f'Content-Disposition: form-data; name="{self.name}"{file}\r\n\r\n'
        body = self.body.encode() if isinstance(self.body, str) else self.body
        return head.encode() + body


def make_form(*parts: FormPart, boundary: str = BOUNDARY) -> bytes:
    """Returns a whole multipart body (RFC 7578)."""
    begun = b"".join(f"--{boundary}\r\n".encode() + part.write() + b"\r\n" for part in parts)
    return begun + f"--{boundary}--\r\n".encode()


def begin_form(*fields: FormPart) -> bytes:
    """Returns a form with these fields and the audio, cut before the first byte of audio."""
    form = make_form(*fields, audio(b""))
    return form[: form.index(b"\r\n\r\n", form.index(b"recording.wav")) + 4]


def audio(wav: bytes = TINY_WAV) -> FormPart:
    """The form part with the WAV."""
    return FormPart("audio", wav, "recording.wav")


def user_id(user: dict[str, Any]) -> FormPart:
    """The form field with the user's id."""
    return FormPart("user_id", user["id"])


def token(user: dict[str, Any]) -> FormPart:
    """The form field with the user's token."""
    return FormPart("token", user["token"])


def make_bare_upload(base_url: str, user: dict[str, Any], headers: Mapping[str, str] | None = None) -> bytes:
    """Returns the request, head and body, that uploads TINY_WAV as a bare WAV."""
    headers = {**bearer(user), **WAV_TYPE, "Content-Length": str(len(TINY_WAV)), **(headers or {})}
    return make_request_head("POST", "/records", base_url, *header_lines(headers)) + TINY_WAV


def bearer(user: dict[str, Any]) -> dict[str, str]:
    """The Authorization header with the token (RFC 6750)."""
    return {"Authorization": f"Bearer {user['token']}"}


def basic(user: dict[str, Any]) -> dict[str, str]:
    """The Authorization header with id and token (RFC 7617), as `curl -u ID:TOKEN` sends it."""
    return encode_basic(user["id"].encode(), user["token"].encode())


def encode_basic(user_id: bytes, token: bytes) -> dict[str, str]:
    """The Authorization header of `basic`, for any bytes."""
    return {"Authorization": "Basic " + b64encode(user_id + b":" + token).decode()}
