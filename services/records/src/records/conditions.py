"""Evaluates conditional requests (RFC 9110 section 13).

The service evaluates them whatever DOWNLOADS is, because nginx does not know ETag, time and size.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple

from werkzeug.http import http_date, parse_date

from records.documents import OriginalDocument, RecordDocument
from records.problems import PreconditionFailed

# One entity tag of a list, with its quotes (RFC 9110 section 8.8.3).
TAG = re.compile(r'(?:^|,)[ \t]*(?P<weak>W/)?"(?P<tag>[^"]*)"[ \t]*(?=,|$)')
WHITE_SPACE = " \t"
CACHED_DATES = 1024


class Representation(NamedTuple):
    """An MP3, an original or a waveform as HTTP sees it."""

    etag: str
    """The strong entity tag without its quotes."""
    last_modified: datetime
    """In UTC and whole seconds."""
    size_bytes: int

    @classmethod
    def of_mp3(cls, record: RecordDocument) -> "Representation":
        """The MP3 of a record. Its object never changes, so its creation is its last modification."""
        return cls(record.sha256, _read_creation(record), record.size_bytes)

    @classmethod
    def of_original(cls, record: RecordDocument, original: OriginalDocument) -> "Representation":
        """The original of a record, which never changes either."""
        return cls(original.sha256, _read_creation(record), original.size_bytes)


def _read_creation(record: RecordDocument) -> datetime:
    return record.created_at.astimezone(UTC).replace(microsecond=0)


def join_header_lines(lines: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Returns header values by name. Several lines with one name make one list (RFC 9110 section 5.3)."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in lines:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def is_not_modified(headers: Mapping[str, str], representation: Representation) -> bool:
    """Evaluates the preconditions in the order of RFC 9110 section 13.2.2. True means a response of 304.

    Raises PreconditionFailed (412).
    """
    _check_if_match(headers, representation)
    if (if_none_match := headers.get("if-none-match")) is not None:
        return _lists_tag(if_none_match, representation, accept_weak=True)
    since = _read_date(headers.get("if-modified-since"))
    return since is not None and representation.last_modified <= since


def if_range_holds(headers: Mapping[str, str], representation: Representation) -> bool:
    """Evaluates If-Range: only the strong tag and the exact date count (RFC 9110 section 13.1.5)."""
    if_range = headers.get("if-range")
    valid = f'"{representation.etag}"', format_date(representation.last_modified)
    return if_range is None or if_range.rstrip(WHITE_SPACE) in valid


def make_validators(representation: Representation) -> dict[str, str]:
    """Returns the headers that every 200, 206 and 304 has."""
    return {
        "ETag": f'"{representation.etag}"',
        "Last-Modified": format_date(representation.last_modified),
        "Cache-Control": "private, no-cache",
        "X-Content-Type-Options": "nosniff",
    }


# Cached, because players ask for the same record again and again.
@lru_cache(CACHED_DATES)
def format_date(time: datetime) -> str:
    """Returns an HTTP date (RFC 9110 section 5.6.7)."""
    return http_date(time)


def _check_if_match(headers: Mapping[str, str], representation: Representation) -> None:
    if (if_match := headers.get("if-match")) is not None:
        if not _lists_tag(if_match, representation, accept_weak=False):
            raise PreconditionFailed(
                f'If-Match does not list the ETag of this record, which is "{representation.etag}".'
            )
    elif (since := _read_date(headers.get("if-unmodified-since"))) and representation.last_modified > since:
        raise PreconditionFailed(
            f"The record was last modified on {format_date(representation.last_modified)},"
            " later than If-Unmodified-Since says."
        )


def _read_date(value: str | None) -> datetime | None:
    """Returns None for text that is no HTTP date. On huge numbers werkzeug overflows."""
    try:
        return parse_date(value)
    except (OverflowError, ValueError):
        return None


def _lists_tag(condition: str, representation: Representation, *, accept_weak: bool) -> bool:
    """Whether a list of entity tags contains this one. A star contains all."""
    if condition.strip(WHITE_SPACE) == "*":
        return True
    return any(
        found["tag"] == representation.etag and (accept_weak or not found["weak"])
        for found in TAG.finditer(condition)
    )
