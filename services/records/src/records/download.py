"""Decides what a download is answered with: conditional requests and ranges (RFC 9110 sections 13 and 14).

The decision is taken here for both ways of sending the bytes, since here are the ETag, the time and the size.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote

from pathvalidate import sanitize_filename
from werkzeug.http import dump_options_header, http_date, parse_date

from records.problems import PreconditionFailed, RangeNotSatisfiable

# werkzeug's own reading of ranges answers 416 to a suffix longer than the MP3, and the whole to the suffix 0.
# Elements of the list may be empty (RFC 9110 section 5.6.1). Numbers may have as many digits as Python reads.
SINGLE_RANGE = re.compile(
    r"bytes=[ \t,]*((?P<first>[0-9]{1,4300})-(?P<last>[0-9]{0,4300})|-(?P<suffix>[0-9]{1,4300}))[ \t,]*",
    re.IGNORECASE,
)
# What nginx reads in the same way: no comma, and numbers up to which it can count.
NGINX_RANGE = re.compile(r"bytes= *([0-9]{1,18}-[0-9]{0,18}|-[0-9]{1,18}) *", re.IGNORECASE)
# One entity tag of a list, with its quotes (RFC 9110 section 8.8.3).
TAG = re.compile(r'(?:^|,)[ \t]*(?P<weak>W/)?"(?P<tag>[^"]*)"[ \t]*(?=,|$)')
WHITE_SPACE = " \t"
# What a record is asked for again and again is made of the same dates and names.
KEPT = 1024
MAX_STEM_BYTES = 200
DEFAULT_STEM = "recording"


class Representation(NamedTuple):
    """The MP3 as HTTP sees it: the bare entity tag (strong), its time in whole seconds, and its size."""

    etag: str
    last_modified: datetime
    size_bytes: int


class Selection(NamedTuple):
    """What to send: 304 without bytes, 200 with all, or 206 with `length` bytes from `first` on."""

    status: int
    first: int
    length: int

    @property
    def span(self) -> str:
        """The first and the last byte, as headers name them."""
        return f"{self.first}-{self.first + self.length - 1}"


def join_lines(lines: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Header lines by name; several of one name are one list (RFC 9110 section 5.3)."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in lines:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def select_bytes(method: str, headers: Mapping[str, str], mp3: Representation) -> Selection:
    """Evaluates the preconditions, in the order of RFC 9110 section 13.2.2, and then the range.

    Raises PreconditionFailed (412) and RangeNotSatisfiable (416).
    """
    _check_preconditions(headers, mp3)
    if _is_known(headers, mp3):
        return Selection(304, 0, 0)
    span = SINGLE_RANGE.fullmatch(headers.get("range", ""))
    # A range that is malformed, of another unit, or of several parts may be ignored (section 14.2).
    if method != "GET" or not span or not _range_is_of_this(headers.get("if-range"), mp3):
        return Selection(200, 0, mp3.size_bytes)
    if span["suffix"]:
        length = min(int(span["suffix"]), mp3.size_bytes)
        first = mp3.size_bytes - length
    else:
        first, last = int(span["first"]), int(span["last"] or mp3.size_bytes - 1)
        if span["last"] and last < first:
            return Selection(200, 0, mp3.size_bytes)
        length = min(last + 1, mp3.size_bytes) - first
    if length <= 0:
        raise RangeNotSatisfiable(
            f"The MP3 has {mp3.size_bytes} bytes.", headers={"Content-Range": f"bytes */{mp3.size_bytes}"}
        )
    return Selection(206, first, length)


def make_headers(selection: Selection, mp3: Representation) -> dict[str, str]:
    """The headers that go with 200, 206 and 304."""
    headers = {
        "ETag": f'"{mp3.etag}"',
        "Last-Modified": make_date(mp3.last_modified),
        "Cache-Control": "private, no-cache",
        "Accept-Ranges": "bytes",
        "X-Content-Type-Options": "nosniff",
    }
    if selection.status == 206:  # noqa: PLR2004
        headers["Content-Range"] = f"bytes {selection.span}/{mp3.size_bytes}"
    return headers


def choose_way(headers: Mapping[str, str], selection: Selection, mp3: Representation) -> tuple[str, str]:
    """How nginx, which sees the same request, is to send a selection: way and span for its location /_blob.

    - `whole`: from its cache, without a look at the client's range.
    - `range`: what the client's range says, cut from what is in its cache. Of what is not there it fetches the
      span, and for `0-` everything, which it keeps.
    - `direct`: the span (or all) past the cache, on which nginx would decide otherwise: it knows no ETag of
      ours when it looks at If-Match and If-Unmodified-Since, and refuses some ranges.

    In no way does nginx itself announce ranges: the location says it as make_headers does.
    """
    is_part = selection.status == 206  # noqa: PLR2004
    span = selection.span if is_part else ""
    if "if-match" in headers or "if-unmodified-since" in headers:
        return "direct", span
    if not is_part:
        return "whole", span
    if not NGINX_RANGE.fullmatch(headers["range"]):
        return "direct", span
    return "range", span if selection.length < mp3.size_bytes else "0-"


@lru_cache(KEPT)
def make_date(time: datetime) -> str:
    """An HTTP date (RFC 9110 section 5.6.7)."""
    return http_date(time)


@lru_cache(KEPT)
def make_disposition(title: str | None, *, is_attachment: bool) -> str:
    """Content-Disposition (RFC 6266), with a file name that every system takes.

    The name in ASCII is for clients that do not read the other one (RFC 8187).
    """
    kind = "attachment" if is_attachment else "inline"
    stem = _make_stem(title or "")
    # Of letters of full width and the like this makes what a file name may not have.
    ascii_stem = _make_stem(unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode())
    names = {"filename": f"{ascii_stem}.mp3"}
    if ascii_stem != stem or "%" in stem:
        names["filename*"] = "UTF-8''" + quote(f"{stem}.mp3", safe="")
    return dump_options_header(kind, names)


def _make_stem(text: str) -> str:
    stem = sanitize_filename(text, max_len=MAX_STEM_BYTES).strip(". ")
    # Without what stood around it, it may be a reserved name.
    return sanitize_filename(stem) or DEFAULT_STEM


def _read_date(value: str | None) -> datetime | None:
    """An HTTP date, or None for what is none; werkzeug's own reading overflows on huge numbers."""
    try:
        return parse_date(value)
    except (OverflowError, ValueError):
        return None


def _check_preconditions(headers: Mapping[str, str], mp3: Representation) -> None:
    if (if_match := headers.get("if-match")) is not None:
        if not _names(if_match, mp3, is_weak_enough=False):
            raise PreconditionFailed('If-Match names another ETag; this record has "' + mp3.etag + '".')
    elif (since := _read_date(headers.get("if-unmodified-since"))) and mp3.last_modified > since:
        raise PreconditionFailed(f"The record is of {make_date(mp3.last_modified)}, later than asked for.")


def _is_known(headers: Mapping[str, str], mp3: Representation) -> bool:
    if (if_none_match := headers.get("if-none-match")) is not None:
        return _names(if_none_match, mp3, is_weak_enough=True)
    since = _read_date(headers.get("if-modified-since"))
    return since is not None and mp3.last_modified <= since


def _names(condition: str, mp3: Representation, *, is_weak_enough: bool) -> bool:
    """Whether a list of entity tags, or its star, names this one."""
    if condition.strip(WHITE_SPACE) == "*":
        return True
    return any(
        found["tag"] == mp3.etag and (is_weak_enough or not found["weak"])
        for found in TAG.finditer(condition)
    )


def _range_is_of_this(if_range: str | None, mp3: Representation) -> bool:
    # Only the strong tag counts, and only the date as it was given (section 13.1.5).
    return if_range is None or if_range.rstrip(WHITE_SPACE) in (f'"{mp3.etag}"', make_date(mp3.last_modified))
