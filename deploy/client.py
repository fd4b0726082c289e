"""A client of Waxwing's API, for the commands of the terminal and for the tests."""

import os
import ssl
from base64 import b64encode
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from functools import cache
from http import HTTPStatus
from typing import Any, BinaryIO, cast
from uuid import UUID

import httpx

# The service converts while the upload arrives, so the response comes soon after the last byte.
TIMEOUT = httpx.Timeout(60, read=300)
# The errors of a transfer that breaks off. A ConnectError means that no server answers, so the client does
# not try again.
BROKEN = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError, httpx.ReadTimeout, httpx.WriteTimeout)
PAGE_RECORDS = 100


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
        """The seconds after which another try can succeed, or None if it cannot."""
        # The client has paused for too long, such as a laptop that slept.
        if self.response.status_code == HTTPStatus.REQUEST_TIMEOUT:
            return 0
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
        self,
        audio: BinaryIO,
        user_id: str | None,
        token: str,
        key: str | None = None,
        **options: str | int | None,
    ) -> dict[str, Any]:
        """Uploads a WAV as a form and returns the record with its `url`. Raises Refused.

        With a `key` (Idempotency-Key) the upload may be sent again. `options` are `title`, `bitrate_kbps` and
        `keep_original`; an option that is None is left out.
        """
        # As bytes, so that Waxwing and not the client library judges the key.
        headers = {b"Idempotency-Key": os.fsencode(key)} if key is not None else {}
        fields = {name: str(value) for name, value in options.items() if value is not None}
        if user_id is None:
            headers[b"Authorization"] = authorize(token).encode()
        else:
            fields |= {"user_id": user_id, "token": token}
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

    def list_records(self, authorization: str, title_part: str = "") -> Iterator[dict[str, Any]]:
        """Yields the user's records, newest first: all of them, or those with this part of a title.

        Raises Refused.
        """
        query: dict[str, str | int] = {"limit": PAGE_RECORDS}
        if title_part:
            query["q"] = title_part
        while True:
            page = _read_document(self.http.get("/records", params=query, headers=_sign(authorization)))
            yield from page["records"]
            if not page["next_cursor"]:
                return
            query["cursor"] = page["next_cursor"]

    def get_record(self, record_id: UUID, authorization: str) -> dict[str, Any]:
        """Returns a record. Raises Refused."""
        return _read_document(self.http.get(f"/records/{record_id}", headers=_sign(authorization)))

    def delete_record(self, record_id: UUID, authorization: str) -> None:
        """Deletes a record. Raises Refused."""
        _accept(self.http.delete(f"/records/{record_id}", headers=_sign(authorization)))

    def stream_mp3(self, record: dict[str, Any]) -> AbstractContextManager[httpx.Response]:
        """Opens the download of a record's MP3."""
        # Not its `url`, which names the host that the world uses.
        query = {"id": record["id"], "user": record["user_id"], "download": "1"}
        return self.http.stream("GET", "/record", params=query)

    def stream_original(
        self, record: dict[str, Any], authorization: str
    ) -> AbstractContextManager[httpx.Response]:
        """Opens the download of the WAV that a record has kept."""
        path = f"/records/{record['id']}/original"
        return self.http.stream("GET", path, headers=_sign(authorization))

    def download(self, url: str) -> bytes:
        """Returns the whole MP3 of a link. Raises Refused."""
        return _accept(self.http.get(url)).content


def authorize(token: str, user_id: str | None = None) -> str:
    """Returns the Authorization header of a user. The token alone is enough."""
    if user_id is None:
        return f"Bearer {token}"
    return f"Basic {b64encode(f'{user_id}:{token}'.encode()).decode()}"


def _sign(authorization: str) -> dict[str, str]:
    return {"Authorization": authorization}


def _read_document(response: httpx.Response) -> dict[str, Any]:
    return cast(dict[str, Any], _accept(response).json())


def _accept(response: httpx.Response) -> httpx.Response:
    if response.is_error:
        raise Refused(response)
    return response
