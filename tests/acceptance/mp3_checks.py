"""Checks of downloads against the record and the MP3 that a fixture has published."""

from typing import Any, NamedTuple

import httpx

from tests.response_checks import request_id_of

# Every header that a download may have; the store's own headers must not be among them.
COMMON = {"server", "date", "connection", "x-request-id"}
VALIDATORS = {"etag", "last-modified", "cache-control", "accept-ranges", "x-content-type-options"}
WHOLE = COMMON | VALIDATORS | {"content-type", "content-length", "content-disposition"}

# The MP3 of five minutes at 320 kbit/s has 12 MB, which is three upload parts.
LONG_SECONDS = 300
UPLOAD_PART_BYTES = 5 << 20
# The first upload part also holds the Info frame: one MP3 frame of 320 kbit/s at 44.1 kHz.
FIRST_UPLOAD_PART_BYTES = 144 * 320_000 // 44_100 + UPLOAD_PART_BYTES


class Published(NamedTuple):
    """A record, the MP3 behind its link, and the headers of that download."""

    record: dict[str, Any]
    mp3: bytes
    headers: httpx.Headers

    @property
    def url(self) -> str:
        return str(self.record["url"])


def assert_mp3(response: httpx.Response, status: int, content: bytes) -> None:
    """Checks that a response has this status and these bytes of an MP3."""
    assert (response.status_code, response.headers["Content-Type"]) == (status, "audio/mpeg"), (
        response.content[:500]
    )
    assert response.content == content
    assert response.headers["Content-Length"] == str(len(content))
    assert request_id_of(response)


def assert_not_modified(response: httpx.Response, published: Published) -> None:
    """Checks that a response is a 304 with the headers of the MP3 and no body."""
    assert response.status_code == 304
    assert response.content == b""
    assert "Content-Type" not in response.headers
    assert {*response.headers} == COMMON | VALIDATORS | {"content-disposition"}
    assert response.headers["ETag"] == published.headers["ETag"]


def header_names(response: httpx.Response) -> list[str]:
    """The sorted names of all headers. A header that is sent twice is listed twice."""
    return sorted(name.decode().lower() for name, _ in response.headers.raw)
