"""Which bytes a download gets: RFC 9110 sections 13 (conditions) and 14 (ranges), without any server."""

from datetime import UTC, datetime

import pytest

from records.download import (
    Representation,
    Selection,
    choose_way,
    join_lines,
    make_headers,
    select_bytes,
)
from records.problems import PreconditionFailed, RangeNotSatisfiable

ETAG = "ab" * 32
MP3 = Representation(ETAG, datetime(2026, 11, 21, 12, 0, tzinfo=UTC), 1000)
SAME, LATER, EARLIER = (f"Sat, 21 Nov 2026 {hour}:00:00 GMT" for hour in (12, 13, 11))
HUGE = "Mon, 01 Jan 2020 00:00:99999999999999999999999999 GMT"

WHOLE = Selection(200, 0, 1000)
KNOWN = Selection(304, 0, 0)

SELECTIONS = [
    ({}, WHOLE),
    # Ranges.
    ({"range": "bytes=0-1"}, Selection(206, 0, 2)),
    ({"range": "bytes=0-0"}, Selection(206, 0, 1)),
    ({"range": "bytes=0-"}, Selection(206, 0, 1000)),
    ({"range": "bytes=999-"}, Selection(206, 999, 1)),
    ({"range": "bytes=10-20"}, Selection(206, 10, 11)),
    ({"range": "bytes=990-99999"}, Selection(206, 990, 10)),
    ({"range": "bytes=-1"}, Selection(206, 999, 1)),
    ({"range": "bytes=-1000"}, Selection(206, 0, 1000)),
    ({"range": "bytes=-99999"}, Selection(206, 0, 1000)),
    ({"range": f"bytes=990-{'9' * 30}"}, Selection(206, 990, 10)),
    ({"range": f"bytes=-{'9' * 30}"}, Selection(206, 0, 1000)),
    ({"range": f"bytes={'0' * 30}10-20"}, Selection(206, 10, 11)),
    ({"range": "bytes=0-1,"}, Selection(206, 0, 2)),
    ({"range": "bytes= ,\t,0-1 ,\t"}, Selection(206, 0, 2)),
    # Malformed, of another unit, or of several parts: the range is ignored.
    ({"range": "bytes=5-2"}, WHOLE),
    ({"range": "bytes=a-b"}, WHOLE),
    ({"range": "bytes"}, WHOLE),
    ({"range": "bytes=--5"}, WHOLE),
    ({"range": "seconds=0-1"}, WHOLE),
    ({"range": "bytes=0-1,5-6"}, WHOLE),
    ({"range": "bytes=,"}, WHOLE),
    ({"range": f"bytes={'9' * 30}-5"}, WHOLE),
    ({"range": f"bytes=0-{'9' * 8000}"}, WHOLE),
    # If-Range.
    ({"range": "bytes=0-1", "if-range": f'"{ETAG}"'}, Selection(206, 0, 2)),
    ({"range": "bytes=0-1", "if-range": f'W/"{ETAG}"'}, WHOLE),
    ({"range": "bytes=0-1", "if-range": '"other"'}, WHOLE),
    ({"range": "bytes=0-1", "if-range": SAME}, Selection(206, 0, 2)),
    ({"range": "bytes=0-1", "if-range": f'"{ETAG}" \t'}, Selection(206, 0, 2)),
    ({"range": "bytes=0-1", "if-range": LATER}, WHOLE),
    ({"range": "bytes=0-1", "if-range": EARLIER}, WHOLE),
    ({"range": "bytes=9999-", "if-range": '"other"'}, WHOLE),
    # If-None-Match wins over If-Modified-Since, and both over a range.
    ({"if-none-match": f'"{ETAG}"'}, KNOWN),
    ({"if-none-match": f'W/"{ETAG}"'}, KNOWN),
    ({"if-none-match": f'"other", "{ETAG}"'}, KNOWN),
    ({"if-none-match": "*"}, KNOWN),
    ({"if-none-match": "\t* "}, KNOWN),
    ({"if-none-match": f'"a,b",, ,W/"c","{ETAG}" ,'}, KNOWN),
    # What is no entity tag matches none.
    ({"if-none-match": ETAG}, WHOLE),
    ({"if-none-match": f'w/"{ETAG}"'}, WHOLE),
    ({"if-none-match": f'x"{ETAG}"'}, WHOLE),
    ({"if-none-match": f'"x"{ETAG}"'}, WHOLE),
    ({"if-none-match": f'",{ETAG},"'}, WHOLE),
    ({"if-none-match": '"*"'}, WHOLE),
    ({"if-none-match": ""}, WHOLE),
    ({"if-none-match": '"other"'}, WHOLE),
    ({"if-none-match": '"other"', "if-modified-since": SAME}, WHOLE),
    ({"if-none-match": f'"{ETAG}"', "range": "bytes=0-1"}, KNOWN),
    ({"if-modified-since": SAME}, KNOWN),
    ({"if-modified-since": LATER}, KNOWN),
    ({"if-modified-since": EARLIER}, WHOLE),
    ({"if-modified-since": "nonsense"}, WHOLE),
    # If-Match and If-Unmodified-Since that hold.
    ({"if-match": f'"{ETAG}"'}, WHOLE),
    ({"if-match": "*"}, WHOLE),
    ({"if-match": f'"{ETAG}"', "if-unmodified-since": EARLIER}, WHOLE),
    ({"if-unmodified-since": SAME}, WHOLE),
    ({"if-unmodified-since": "nonsense"}, WHOLE),
    # A date whose numbers no computer holds is no date.
    ({"if-modified-since": HUGE}, WHOLE),
    ({"if-unmodified-since": HUGE}, WHOLE),
    ({"range": "bytes=0-1", "if-range": HUGE}, WHOLE),
]


@pytest.mark.parametrize(("headers", "selection"), SELECTIONS)
def test_a_get_is_answered_as_the_standard_says(headers: dict[str, str], selection: Selection) -> None:
    assert select_bytes("GET", headers, MP3) == selection


@pytest.mark.parametrize(
    "headers",
    [
        {"if-match": '"other"'},
        {"if-match": f'W/"{ETAG}"'},
        {"if-match": ETAG},
        {"if-match": ""},
        {"if-match": '"other"', "if-none-match": f'"{ETAG}"'},
        {"if-unmodified-since": EARLIER},
        {"if-match": '"other"', "range": "bytes=9999-"},
    ],
)
def test_a_condition_that_fails_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(PreconditionFailed):
        select_bytes("GET", headers, MP3)


@pytest.mark.parametrize(
    "span", ["bytes=1000-", "bytes=2000-", "bytes=1000-2000", f"bytes={'9' * 30}-", "bytes=-0"]
)
def test_a_range_outside_the_mp3_is_refused_with_its_size(span: str) -> None:
    with pytest.raises(RangeNotSatisfiable) as refused:
        select_bytes("GET", {"range": span}, MP3)
    assert refused.value.headers == {"Content-Range": "bytes */1000"}


def test_lines_of_one_name_are_one_list() -> None:
    lines = [(b"if-none-match", b'"x"'), (b"range", b"bytes=0-1"), (b"if-none-match", f'"{ETAG}"'.encode())]
    headers = join_lines(lines)
    assert headers == {"if-none-match": f'"x", "{ETAG}"', "range": "bytes=0-1"}
    assert select_bytes("GET", headers, MP3) == KNOWN


def test_a_head_ignores_ranges_but_not_conditions() -> None:
    assert select_bytes("HEAD", {"range": "bytes=0-1"}, MP3) == WHOLE
    assert select_bytes("HEAD", {"if-none-match": f'"{ETAG}"'}, MP3) == KNOWN


def test_a_part_says_which_part_it_is() -> None:
    assert make_headers(Selection(206, 10, 11), MP3)["Content-Range"] == "bytes 10-20/1000"
    assert "Content-Range" not in make_headers(WHOLE, MP3)


@pytest.mark.parametrize(
    ("headers", "way", "span"),
    [
        ({}, "whole", ""),
        ({"if-none-match": '"other"', "if-modified-since": EARLIER}, "whole", ""),
        # The client's range, which is ignored, is kept from nginx.
        ({"range": "bytes=5-2"}, "whole", ""),
        ({"range": "bytes=0-1", "if-range": '"other"'}, "whole", ""),
        ({"range": "bytes=10-20"}, "range", "10-20"),
        ({"range": "bytes=-10"}, "range", "990-999"),
        # All of it is kept in the cache, however it was asked for.
        ({"range": "bytes=0-"}, "range", "0-"),
        ({"range": "bytes=-1000"}, "range", "0-"),
        # nginx would refuse these.
        ({"range": f"bytes=0-{'9' * 19}"}, "direct", "0-999"),
        ({"range": "bytes=0-1,"}, "direct", "0-1"),
        ({"if-match": "*"}, "direct", ""),
        ({"if-match": "*", "range": "bytes=0-1"}, "direct", "0-1"),
        ({"if-unmodified-since": SAME, "range": "bytes=0-"}, "direct", "0-999"),
    ],
)
def test_nginx_is_told_which_way_it_decides_alike(headers: dict[str, str], way: str, span: str) -> None:
    assert choose_way(headers, select_bytes("GET", headers, MP3), MP3) == (way, span)
