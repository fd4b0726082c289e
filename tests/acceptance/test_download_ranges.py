"""GET /record with Range and If-Range: exactly the bytes that the range names."""

from email.utils import formatdate

import httpx
import pytest

from deploy.client import Client
from tests.acceptance.mp3_checks import (
    FIRST_UPLOAD_PART_BYTES,
    UPLOAD_PART_BYTES,
    VALIDATORS,
    WHOLE,
    Published,
    assert_mp3,
    assert_not_modified,
    header_names,
)
from tests.response_checks import assert_problem


def get_range(client: Client, published: Published, span: str, **headers: str) -> httpx.Response:
    return client.http.get(published.url, headers={"Range": span, **headers})


def assert_range(response: httpx.Response, published: Published, first: int, last: int) -> None:
    """Checks that a response has the bytes from `first` to `last`, both included, and all validators."""
    assert_mp3(response, 206, published.mp3[first : last + 1])
    assert response.headers["Content-Range"] == f"bytes {first}-{last}/{len(published.mp3)}"
    for name in VALIDATORS:
        assert response.headers[name] == published.headers[name]


@pytest.mark.parametrize(
    ("span", "first", "last"),
    [
        ("bytes=0-1", 0, 1),
        ("bytes=0-0", 0, 0),
        ("bytes=100-199", 100, 199),
        ("bytes=0-", 0, -1),
        ("bytes=1000-", 1000, -1),
        ("bytes=-1", -1, -1),
        ("bytes=-500", -500, -1),
        ("bytes=-99999999", 0, -1),
        ("bytes=100-99999999", 100, -1),
        ("bytes=0-99999999", 0, -1),
        ("bytes= 5-9", 5, 9),
        ("Bytes=5-9", 5, 9),
    ],
)
def test_a_range_gives_exactly_its_bytes(
    client: Client, published: Published, span: str, first: int, last: int
) -> None:
    size = len(published.mp3)
    first, last = (position + size if position < 0 else position for position in (first, last))
    assert_range(get_range(client, published, span), published, first, last)


def test_a_range_has_no_header_of_the_store(client: Client, published: Published) -> None:
    response = client.http.get(published.url, headers={"Range": "bytes=0-99"})
    assert_mp3(response, 206, published.mp3[:100])
    assert header_names(response) == sorted(WHOLE | {"content-range"})


def test_the_last_byte_can_be_named_by_its_position(client: Client, published: Published) -> None:
    last = len(published.mp3) - 1
    assert_range(get_range(client, published, f"bytes={last}-{last}"), published, last, last)
    assert_range(get_range(client, published, f"bytes={last}-"), published, last, last)


def test_all_ranges_joined_are_the_whole_mp3(client: Client, published: Published) -> None:
    step, size = 10_007, len(published.mp3)
    pieces = [
        get_range(client, published, f"bytes={first}-{first + step - 1}") for first in range(0, size, step)
    ]
    for number, piece in enumerate(pieces):
        assert_range(piece, published, number * step, min((number + 1) * step, size) - 1)
    assert b"".join(piece.content for piece in pieces) == published.mp3


@pytest.mark.parametrize(
    ("first", "last"),
    [
        (FIRST_UPLOAD_PART_BYTES - 10, FIRST_UPLOAD_PART_BYTES + 9),
        (FIRST_UPLOAD_PART_BYTES - 1, FIRST_UPLOAD_PART_BYTES - 1),
        (FIRST_UPLOAD_PART_BYTES, FIRST_UPLOAD_PART_BYTES),
        (FIRST_UPLOAD_PART_BYTES - 1, FIRST_UPLOAD_PART_BYTES),
        (0, FIRST_UPLOAD_PART_BYTES),
        (1, FIRST_UPLOAD_PART_BYTES + UPLOAD_PART_BYTES),
        (FIRST_UPLOAD_PART_BYTES, FIRST_UPLOAD_PART_BYTES + UPLOAD_PART_BYTES + 100_000),
    ],
)
def test_ranges_across_the_border_of_upload_parts_are_exact(
    client: Client, long_published: Published, first: int, last: int
) -> None:
    assert_range(get_range(client, long_published, f"bytes={first}-{last}"), long_published, first, last)


def test_a_range_past_the_end_gets_416_with_the_size(client: Client, published: Published) -> None:
    size = len(published.mp3)
    for span in (f"bytes={size}-", f"bytes={size}-{size + 9}", "bytes=999999999999999999-", "bytes=-0"):
        response = get_range(client, published, span)
        assert_problem(response, 416, "range-not-satisfiable", str(size))
        assert response.headers["Content-Range"] == f"bytes */{size}"


@pytest.mark.parametrize(
    "span",
    [
        *(
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "bytes=5-2",
            "bytes=1.5-3",
            "bytes=--5",
            "bytes=0x1-",
        ),
        *("5-9", "items=5-9", "seconds=1-2", "bytes=1-2-3", "bytes:1-2", "bytes=\u0661-\u0662"),
    ],
)
def test_a_malformed_range_is_ignored(client: Client, published: Published, span: str) -> None:
    response = client.http.get(published.url, headers=[(b"Range", span.encode())])
    assert_mp3(response, 200, published.mp3)


@pytest.mark.parametrize("span", ["bytes=0-1,5-9", "bytes=0-0,-1", "bytes=" + ",".join(["0-"] * 1000)])
def test_several_ranges_get_the_whole_mp3(client: Client, published: Published, span: str) -> None:
    assert_mp3(get_range(client, published, span), 200, published.mp3)


def test_if_range_with_the_current_validator_gets_the_range(client: Client, published: Published) -> None:
    for validator in (published.headers["ETag"], published.headers["Last-Modified"]):
        response = get_range(client, published, "bytes=10-19", **{"If-Range": validator})
        assert_range(response, published, 10, 19)


def test_if_range_with_another_validator_gets_the_whole_mp3(client: Client, published: Published) -> None:
    for validator in (
        '"x"',
        "W/" + published.headers["ETag"],
        formatdate(0, usegmt=True),
        "Fri, 31 Dec 2100 00:00:00 GMT",
        "nonsense",
    ):
        for span in ("bytes=10-19", "bytes=99999999-"):
            response = get_range(client, published, span, **{"If-Range": validator})
            assert_mp3(response, 200, published.mp3)


def test_head_ignores_a_range(client: Client, published: Published) -> None:
    response = client.http.head(published.url, headers={"Range": "bytes=0-1"})
    assert (response.status_code, response.headers["Content-Type"]) == (200, "audio/mpeg")
    assert response.headers["Content-Length"] == str(len(published.mp3))


def test_if_none_match_wins_over_a_range(client: Client, published: Published) -> None:
    response = get_range(client, published, "bytes=0-1", **{"If-None-Match": published.headers["ETag"]})
    assert_not_modified(response, published)
