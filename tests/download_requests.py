"""The table of download requests: each set of range and condition headers, and the status of its response.

Used to compare what the gateway sends with what the records service alone sends (DOWNLOADS=stream).
"""

import re
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any, NamedTuple

import httpx

from tests.raw_connection import make_request_head, open_raw_connection


def link_path(record: dict[str, Any]) -> str:
    """Returns the record's link without scheme and host."""
    return f"/record?id={record['id']}&user={record['user_id']}"


class DownloadRequest(NamedTuple):
    """A request for the MP3 of a record, and the status that its response must have."""

    status: int
    method: str
    headers: dict[str, str]

    def __str__(self) -> str:
        return " ".join([self.method, *map(": ".join, self.headers.items())])

    def needs_store(self) -> bool:
        """Whether the download mode is `direct`: the bytes come from the store even if the gateway has them.

        nginx would evaluate such headers differently from the service.
        """
        if self.method == "HEAD" or self.status not in (200, 206):
            return False
        lines = "".join(self.headers.get(name, "") for name in ("Range", "If-Range"))
        is_odd = self.status == 206 and re.search(r"[\t,]|[0-9]{19}|HUGE", lines)
        return bool(is_odd) or not {"If-Match", "If-Unmodified-Since"}.isdisjoint(self.headers)

    def send(self, base_url: str, record: dict[str, Any], token: str = "") -> httpx.Response:
        """Sends the request, with the words in capitals replaced by their values for this record.

        With a `token` the request is for the record's original.
        """
        path, stored, credentials = link_path(record), record, []
        if token:
            path, stored = f"/records/{record['id']}/original", record["original"]
            credentials = [f"Authorization: Bearer {token}"]
        created = datetime.fromisoformat(record["created_at"])
        meanings = {
            "ETAG": f'"{stored["sha256"]}"',
            "BARE": stored["sha256"],
            "DATE": format_datetime(created.astimezone(UTC), usegmt=True),
            "LIKE": format_datetime(created.astimezone(UTC), usegmt=True).lower(),
            "SIZE": str(stored["size_bytes"]),
            "LAST": str(stored["size_bytes"] - 1),
            "HUGE": "9" * 3000,
        }
        lines = [f"{name}: {value}" for name, value in self.headers.items()]
        for word, meaning in meanings.items():
            lines = [line.replace(word, meaning) for line in lines]
        with open_raw_connection(base_url) as connection:
            connection.send(make_request_head(self.method, path, base_url, *lines, *credentials))
            return connection.read_response(self.method)


LATER, EARLIER = "Fri, 01 Jan 2100 00:00:00 GMT", "Thu, 01 Jan 1970 00:00:00 GMT"

# Method and headers of each request, by the status of its response. Words in capitals stand for values of the
# record: ETAG for its entity tag, BARE for the entity tag without quotes, DATE for its last change, LIKE for
# the same date in small letters, SIZE for its number of bytes, LAST for SIZE - 1. HUGE is a number of 3000
# digits.
REQUESTS_BY_STATUS: dict[int, list[tuple[str, dict[str, str]]]] = {
    200: [
        ("GET", {}),
        ("HEAD", {}),
        ("HEAD", {"Range": "bytes=0-1"}),
        ("HEAD", {"Range": "bytes=SIZE-"}),
        # The server ignores ranges that are malformed, of another unit, or several in one header.
        ("GET", {"Range": "bytes=5-2"}),
        ("GET", {"Range": "bytes=a-b"}),
        ("GET", {"Range": "bytes="}),
        ("GET", {"Range": "bytes=-"}),
        ("GET", {"Range": "bytes=1.5-3"}),
        ("GET", {"Range": "items=0-1"}),
        ("GET", {"Range": "0-1"}),
        ("GET", {"Range": "bytes=0-1,5-6"}),
        ("GET", {"Range": "bytes=0-1, -1"}),
        ("GET", {"Range": "bytes=0-,0-,0-"}),
        ("GET", {"Range": "bytes=SIZE-,0-1"}),
        ("GET", {"Range": "bytes=,"}),
        ("GET", {"Range": "bytes=0 -1"}),
        ("GET", {"Range": "\tbytes=5-2"}),
        ("GET", {"Range": "bytes=0-HUGEHUGE"}),
        # Preconditions that are true.
        ("GET", {"If-None-Match": '"other"'}),
        ("GET", {"If-None-Match": '"other", W/"another"'}),
        ("GET", {"If-None-Match": '"other"', "If-Modified-Since": "DATE"}),
        ("GET", {"If-None-Match": "BARE"}),
        ("GET", {"If-Modified-Since": EARLIER}),
        ("GET", {"If-Modified-Since": "yesterday"}),
        ("GET", {"If-Match": "*"}),
        ("GET", {"If-Match": "ETAG"}),
        ("GET", {"If-Match": '"other", ETAG'}),
        ("HEAD", {"If-Match": "ETAG"}),
        ("GET", {"If-Match": "ETAG", "If-Unmodified-Since": EARLIER}),
        ("GET", {"If-Match": "ETAG", "Range": "bytes=5-2"}),
        ("GET", {"If-Unmodified-Since": "DATE"}),
        ("GET", {"If-Unmodified-Since": LATER}),
        ("GET", {"If-Unmodified-Since": "tomorrow"}),
        # A range with an If-Range that does not match: the whole MP3.
        ("GET", {"Range": "bytes=0-1", "If-Range": '"other"'}),
        ("GET", {"Range": "bytes=0-1", "If-Range": "W/ETAG"}),
        ("GET", {"Range": "bytes=0-1", "If-Range": EARLIER}),
        ("GET", {"Range": "bytes=0-1", "If-Range": LATER}),
        ("GET", {"Range": "bytes=0-1", "If-Range": "nonsense"}),
        ("GET", {"Range": "bytes=0-1", "If-Range": ""}),
        # If-Range compares dates byte by byte: a date in small letters does not match.
        ("GET", {"Range": "bytes=0-1", "If-Range": "LIKE"}),
        ("GET", {"Range": "bytes=SIZE-", "If-Range": '"other"'}),
        ("GET", {"If-Range": "ETAG"}),
        ("GET", {"If-Range": "\tETAG"}),
        ("GET", {"Range": "bytes=0-1", "If-Range": '\t"other"'}),
        ("GET", {"Range": "bytes=0-1", "If-Range": "BARE"}),
    ],
    206: [
        # Safari's probe, Chromium's first request, a player that seeks, and a player that resumes.
        ("GET", {"Range": "bytes=0-1"}),
        ("GET", {"Range": "bytes=0-"}),
        ("GET", {"Range": "bytes=1000-4999"}),
        ("GET", {"Range": "bytes=7-"}),
        ("GET", {"Range": "bytes=0-1", "If-Range": "ETAG"}),
        ("GET", {"Range": "bytes=7-", "If-Range": "DATE"}),
        ("GET", {"Range": "bytes=0-0"}),
        ("GET", {"Range": "bytes=LAST-"}),
        ("GET", {"Range": "bytes=LAST-LAST"}),
        ("GET", {"Range": "bytes=0-LAST"}),
        ("GET", {"Range": "bytes=0-SIZE"}),
        ("GET", {"Range": "bytes=0-999999999"}),
        ("GET", {"Range": "bytes=-1"}),
        ("GET", {"Range": "bytes=-100"}),
        ("GET", {"Range": "bytes=-SIZE"}),
        ("GET", {"Range": "bytes=-999999999"}),
        ("GET", {"Range": "Bytes=0-1"}),
        ("GET", {"Range": "bytes= 5-9"}),
        ("GET", {"Range": "bytes=0-1", "If-Match": "ETAG"}),
        ("GET", {"Range": "bytes=0-", "If-Match": "ETAG"}),
        ("GET", {"Range": "bytes=0-1", "If-None-Match": '"other"'}),
        ("GET", {"Range": "bytes=0-1", "If-Modified-Since": EARLIER}),
        ("GET", {"Range": "bytes=0-", "If-Unmodified-Since": "DATE"}),
        # Numbers too large for nginx's integers, or with many digits.
        ("GET", {"Range": f"bytes=0-{'9' * 18}"}),
        ("GET", {"Range": f"bytes=0-{'9' * 19}"}),
        ("GET", {"Range": "bytes=7-HUGE"}),
        ("GET", {"Range": f"bytes=-{'9' * 19}"}),
        ("GET", {"Range": f"bytes={'0' * 30}1-5"}),
        # White space around the range, and empty list elements.
        ("GET", {"Range": "bytes=0-1 "}),
        ("GET", {"Range": "bytes=0-1\t"}),
        ("GET", {"Range": "\tbytes=0-1"}),
        ("GET", {"Range": "\tbytes=0-"}),
        ("GET", {"Range": "bytes=\t0-1"}),
        ("GET", {"Range": "bytes=0-1,"}),
        ("GET", {"Range": "bytes=, ,0-1"}),
        ("GET", {"Range": "bytes=0-1", "If-Range": "\tETAG"}),
        ("GET", {"Range": "bytes=0-", "If-Range": "ETAG \t"}),
        ("GET", {"Range": "bytes=7-", "If-Range": "ETAG "}),
        ("GET", {"Range": "bytes=7-", "If-Range": "\tDATE "}),
    ],
    304: [
        ("GET", {"If-None-Match": "ETAG"}),
        ("HEAD", {"If-None-Match": "ETAG"}),
        ("GET", {"If-None-Match": "W/ETAG"}),
        ("GET", {"If-None-Match": '"other", ETAG'}),
        ("GET", {"If-None-Match": "*"}),
        ("GET", {"If-None-Match": "ETAG", "Range": "bytes=0-1"}),
        ("GET", {"If-None-Match": "ETAG", "If-Modified-Since": EARLIER}),
        ("GET", {"If-Match": "ETAG", "If-None-Match": "ETAG"}),
        ("GET", {"If-Modified-Since": "DATE"}),
        ("HEAD", {"If-Modified-Since": "DATE"}),
        ("GET", {"If-Modified-Since": LATER}),
        ("GET", {"If-Modified-Since": "DATE", "Range": "bytes=0-1"}),
    ],
    412: [
        ("GET", {"If-Match": '"other"'}),
        ("HEAD", {"If-Match": '"other"'}),
        ("GET", {"If-Match": "W/ETAG"}),
        ("GET", {"If-Match": "BARE"}),
        ("GET", {"If-Match": '"other"', "Range": "bytes=0-1"}),
        ("GET", {"If-Match": '"other"', "If-None-Match": "ETAG"}),
        ("GET", {"If-Match": '"other"', "If-Unmodified-Since": LATER}),
        ("GET", {"If-Unmodified-Since": EARLIER}),
        ("GET", {"If-Unmodified-Since": EARLIER, "Range": "bytes=SIZE-"}),
    ],
    416: [
        ("GET", {"Range": "bytes=SIZE-"}),
        ("GET", {"Range": "bytes=SIZE-SIZE"}),
        ("GET", {"Range": "bytes=999999999-"}),
        ("GET", {"Range": f"bytes={'9' * 18}-"}),
        ("GET", {"Range": f"bytes={'9' * 19}-"}),
        ("GET", {"Range": "bytes=HUGE-"}),
        ("GET", {"Range": "\tbytes=SIZE-"}),
        ("GET", {"Range": "bytes=-0"}),
        ("GET", {"Range": "bytes=SIZE-", "If-Range": "ETAG"}),
    ],
}
DOWNLOAD_REQUESTS = [
    DownloadRequest(status, method, headers)
    for status, requests in REQUESTS_BY_STATUS.items()
    for method, headers in requests
]
