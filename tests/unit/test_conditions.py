"""Conditional requests, as RFC 9110 section 13 defines them, without any server."""

import pytest

from records.conditions import is_not_modified, join_header_lines
from records.problems import PreconditionFailed
from tests.unit.mp3_representation import EARLIER, ETAG, HUGE, LATER, MP3, SAME

CONDITIONS = [
    ({}, False),
    # If-None-Match wins over If-Modified-Since.
    ({"if-none-match": f'"{ETAG}"'}, True),
    ({"if-none-match": f'W/"{ETAG}"'}, True),
    ({"if-none-match": f'"other", "{ETAG}"'}, True),
    ({"if-none-match": "*"}, True),
    ({"if-none-match": "\t* "}, True),
    ({"if-none-match": f'"a,b",, ,W/"c","{ETAG}" ,'}, True),
    # Text that is no entity tag matches nothing.
    ({"if-none-match": ETAG}, False),
    ({"if-none-match": f'w/"{ETAG}"'}, False),
    ({"if-none-match": f'x"{ETAG}"'}, False),
    ({"if-none-match": f'"x"{ETAG}"'}, False),
    ({"if-none-match": f'",{ETAG},"'}, False),
    ({"if-none-match": '"*"'}, False),
    ({"if-none-match": ""}, False),
    ({"if-none-match": '"other"'}, False),
    ({"if-none-match": '"other"', "if-modified-since": SAME}, False),
    ({"if-none-match": f'"{ETAG}"', "range": "bytes=0-1"}, True),
    ({"if-modified-since": SAME}, True),
    ({"if-modified-since": LATER}, True),
    ({"if-modified-since": EARLIER}, False),
    ({"if-modified-since": "nonsense"}, False),
    # If-Match and If-Unmodified-Since that hold.
    ({"if-match": f'"{ETAG}"'}, False),
    ({"if-match": "*"}, False),
    ({"if-match": f'"{ETAG}"', "if-unmodified-since": EARLIER}, False),
    ({"if-unmodified-since": SAME}, False),
    ({"if-unmodified-since": "nonsense"}, False),
    # A date with numbers too large for a computer is no date.
    ({"if-modified-since": HUGE}, False),
    ({"if-unmodified-since": HUGE}, False),
]


@pytest.mark.parametrize(("headers", "expected"), CONDITIONS)
def test_a_record_is_not_modified_when_the_conditions_say_so(headers: dict[str, str], expected: bool) -> None:
    assert is_not_modified(headers, MP3) is expected


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
def test_a_precondition_that_fails_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(PreconditionFailed):
        is_not_modified(headers, MP3)


def test_header_lines_of_one_name_are_one_list() -> None:
    lines = [(b"if-none-match", b'"x"'), (b"range", b"bytes=0-1"), (b"if-none-match", f'"{ETAG}"'.encode())]
    headers = join_header_lines(lines)
    assert headers == {"if-none-match": f'"x", "{ETAG}"', "range": "bytes=0-1"}
    assert is_not_modified(headers, MP3)
