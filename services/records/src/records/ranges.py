"""Selects the bytes of a download (RFC 9110 section 14), and the download mode in which nginx sends them.

docs/downloads.md has the table of the download modes.
"""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from records.conditions import Representation, if_range_holds
from records.problems import RangeNotSatisfiable

# werkzeug's own range parser returns 416 for a suffix longer than the MP3, and the whole MP3 for the suffix
# 0. A list may have empty elements (RFC 9110 section 5.6.1). Python reads integers of at most 4300 digits.
SINGLE_RANGE = re.compile(
    r"bytes=[ \t,]*((?P<first>[0-9]{1,4300})-(?P<last>[0-9]{0,4300})|-(?P<suffix>[0-9]{1,4300}))[ \t,]*",
    re.IGNORECASE,
)
# The ranges that nginx reads as this module does: no commas, and numbers that fit into nginx's integers.
NGINX_RANGE = re.compile(r"bytes= *([0-9]{1,18}-[0-9]{0,18}|-[0-9]{1,18}) *", re.IGNORECASE)


class ByteRange(NamedTuple):
    """`length` bytes from byte `first` on."""

    first: int
    length: int

    def __str__(self) -> str:
        """The first and the last byte, as Range and Content-Range write them."""
        return f"{self.first}-{self.first + self.length - 1}"


class DownloadMode(StrEnum):
    """How nginx sends the bytes of a download: the first name in the path of the gateway's location
    /_blob.
    """

    WHOLE = "whole"
    """nginx sends the whole MP3 through its cache and ignores the client's range."""
    RANGE = "range"
    """nginx cuts the client's range out of its cache. What is not cached, nginx fetches as that range."""
    DIRECT = "direct"
    """nginx fetches the range, or the whole MP3, past its cache."""


def select_range(headers: Mapping[str, str], wanted: Representation) -> ByteRange | None:
    """Returns the range that a GET asks for (206), or None for the whole MP3 or original (200).

    Ignores a malformed range, another unit, and several ranges (RFC 9110 section 14.2).
    Raises RangeNotSatisfiable (416).
    """
    found = SINGLE_RANGE.fullmatch(headers.get("range", ""))
    if not found or not if_range_holds(headers, wanted):
        return None
    if found["suffix"]:
        length = min(int(found["suffix"]), wanted.size_bytes)
        first = wanted.size_bytes - length
    else:
        first, last = int(found["first"]), int(found["last"] or wanted.size_bytes - 1)
        if found["last"] and last < first:
            return None
        length = min(last + 1, wanted.size_bytes) - first
    if length <= 0:
        raise RangeNotSatisfiable(
            f"The range {headers['range'][:100]!r} lies outside the recording, which has"
            f" {wanted.size_bytes} bytes.",
            headers={"Content-Range": f"bytes */{wanted.size_bytes}"},
        )
    return ByteRange(first, length)


def choose_download_mode(
    headers: Mapping[str, str], selected: ByteRange | None, mp3: Representation
) -> tuple[DownloadMode, str]:
    """Returns the download mode, and the range that nginx fetches if the MP3 is not in its cache ("": all).

    nginx sees the same request headers as the service. It would decide wrongly about If-Match and
    If-Unmodified-Since, because it does not know our ETag at that moment, and it refuses some valid ranges.
    """
    fetched = str(selected) if selected else ""
    if "if-match" in headers or "if-unmodified-since" in headers:
        return DownloadMode.DIRECT, fetched
    if not selected:
        return DownloadMode.WHOLE, fetched
    if not NGINX_RANGE.fullmatch(headers["range"]):
        return DownloadMode.DIRECT, fetched
    # nginx keeps what it fetches for `0-`, and nothing that it fetches for other ranges.
    return DownloadMode.RANGE, fetched if selected.length < mp3.size_bytes else "0-"
