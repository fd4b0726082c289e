"""Ranges of a download, as RFC 9110 section 14 defines them, and the download modes, without any server."""

import re
from pathlib import Path

import pytest

from records.problems import RangeNotSatisfiable
from records.ranges import ByteRange, DownloadMode, choose_download_mode, select_range
from tests.unit.mp3_representation import EARLIER, ETAG, HUGE, LATER, MP3, SAME

RANGES = [
    ({}, None),
    ({"range": "bytes=0-1"}, ByteRange(0, 2)),
    ({"range": "bytes=0-0"}, ByteRange(0, 1)),
    ({"range": "bytes=0-"}, ByteRange(0, 1000)),
    ({"range": "bytes=999-"}, ByteRange(999, 1)),
    ({"range": "bytes=10-20"}, ByteRange(10, 11)),
    ({"range": "bytes=990-99999"}, ByteRange(990, 10)),
    ({"range": "bytes=-1"}, ByteRange(999, 1)),
    ({"range": "bytes=-1000"}, ByteRange(0, 1000)),
    ({"range": "bytes=-99999"}, ByteRange(0, 1000)),
    ({"range": f"bytes=990-{'9' * 30}"}, ByteRange(990, 10)),
    ({"range": f"bytes=-{'9' * 30}"}, ByteRange(0, 1000)),
    ({"range": f"bytes={'0' * 30}10-20"}, ByteRange(10, 11)),
    ({"range": "bytes=0-1,"}, ByteRange(0, 2)),
    ({"range": "bytes= ,\t,0-1 ,\t"}, ByteRange(0, 2)),
    # Ignored: malformed, another unit, or several parts.
    ({"range": "bytes=5-2"}, None),
    ({"range": "bytes=a-b"}, None),
    ({"range": "bytes"}, None),
    ({"range": "bytes=--5"}, None),
    ({"range": "seconds=0-1"}, None),
    ({"range": "bytes=0-1,5-6"}, None),
    ({"range": "bytes=,"}, None),
    ({"range": f"bytes={'9' * 30}-5"}, None),
    ({"range": f"bytes=0-{'9' * 8000}"}, None),
    # If-Range holds only for the strong tag and the exact date.
    ({"range": "bytes=0-1", "if-range": f'"{ETAG}"'}, ByteRange(0, 2)),
    ({"range": "bytes=0-1", "if-range": f'W/"{ETAG}"'}, None),
    ({"range": "bytes=0-1", "if-range": '"other"'}, None),
    ({"range": "bytes=0-1", "if-range": SAME}, ByteRange(0, 2)),
    ({"range": "bytes=0-1", "if-range": f'"{ETAG}" \t'}, ByteRange(0, 2)),
    ({"range": "bytes=0-1", "if-range": LATER}, None),
    ({"range": "bytes=0-1", "if-range": EARLIER}, None),
    ({"range": "bytes=9999-", "if-range": '"other"'}, None),
    ({"range": "bytes=0-1", "if-range": HUGE}, None),
]


@pytest.mark.parametrize(("headers", "expected"), RANGES)
def test_a_get_gets_the_range_that_it_asks_for(headers: dict[str, str], expected: ByteRange | None) -> None:
    assert select_range(headers, MP3) == expected


@pytest.mark.parametrize(
    "span", ["bytes=1000-", "bytes=2000-", "bytes=1000-2000", f"bytes={'9' * 30}-", "bytes=-0"]
)
def test_a_range_outside_the_mp3_is_refused_with_its_size(span: str) -> None:
    with pytest.raises(RangeNotSatisfiable) as refused:
        select_range({"range": span}, MP3)
    assert refused.value.headers == {"Content-Range": "bytes */1000"}


def test_a_range_names_its_first_and_its_last_byte() -> None:
    assert str(ByteRange(10, 11)) == "10-20"


@pytest.mark.parametrize(
    ("headers", "mode", "fetched"),
    [
        ({}, "whole", ""),
        ({"if-none-match": '"other"', "if-modified-since": EARLIER}, "whole", ""),
        # The service ignores these ranges, so nginx must not see them.
        ({"range": "bytes=5-2"}, "whole", ""),
        ({"range": "bytes=0-1", "if-range": '"other"'}, "whole", ""),
        ({"range": "bytes=10-20"}, "range", "10-20"),
        ({"range": "bytes=-10"}, "range", "990-999"),
        # nginx caches the whole MP3, in whatever form the range asks for it.
        ({"range": "bytes=0-"}, "range", "0-"),
        ({"range": "bytes=-1000"}, "range", "0-"),
        # nginx would refuse these ranges.
        ({"range": f"bytes=0-{'9' * 19}"}, "direct", "0-999"),
        ({"range": "bytes=0-1,"}, "direct", "0-1"),
        # nginx would decide these conditions without knowing the ETag.
        ({"if-match": "*"}, "direct", ""),
        ({"if-match": "*", "range": "bytes=0-1"}, "direct", "0-1"),
        ({"if-unmodified-since": SAME, "range": "bytes=0-"}, "direct", "0-999"),
    ],
)
def test_nginx_sends_in_a_mode_in_which_it_decides_as_the_service_does(
    headers: dict[str, str], mode: str, fetched: str
) -> None:
    assert choose_download_mode(headers, select_range(headers, MP3), MP3) == (mode, fetched)


def test_the_table_in_the_docs_and_the_gateway_know_exactly_these_download_modes() -> None:
    root = Path(__file__).parents[2]
    table = re.findall(r"^\| `(\w+)` \|", (root / "docs/downloads.md").read_text(), re.MULTILINE)
    template = (root / "deploy/gateway/waxwing.conf.template").read_text()
    (gateway,) = re.findall(r"/_blob/\(\?<blob_mode>([a-z|]+)\)/", template)
    assert table == gateway.split("|") == list(DownloadMode)
