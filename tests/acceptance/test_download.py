"""GET and HEAD /record: the whole MP3 behind a link, its headers and its file name."""

import hashlib
from email.utils import parsedate_to_datetime
from typing import Any

import pytest

from deploy.client import Client
from tests import decoding, wavs
from tests.acceptance.mp3_checks import (
    LONG_SECONDS,
    UPLOAD_PART_BYTES,
    WHOLE,
    Published,
    assert_mp3,
    header_names,
)
from tests.response_checks import assert_problem
from tests.upload_requests import TINY_WAV, WAV_TYPE, bearer


def test_a_link_gives_the_mp3_that_the_record_describes(client: Client, published: Published) -> None:
    response = client.http.get(published.url)
    assert_mp3(response, 200, published.mp3)
    assert hashlib.sha256(response.content).hexdigest() == published.record["sha256"]
    assert len(response.content) == published.record["size_bytes"]
    decoded = decoding.decode(response.content)
    assert decoded.seconds == pytest.approx(published.record["duration_seconds"], abs=1e-9)
    assert (decoded.rate, decoded.channels) == (44100, 2)


def test_an_mp3_of_several_upload_parts_is_downloaded_with_every_byte(
    client: Client, long_published: Published
) -> None:
    response = client.http.get(long_published.url)
    assert_mp3(response, 200, long_published.mp3)
    assert header_names(response) == sorted(WHOLE)
    assert len(response.content) == long_published.record["size_bytes"] > 2 * UPLOAD_PART_BYTES
    assert hashlib.sha256(response.content).hexdigest() == long_published.record["sha256"]
    assert response.headers["ETag"] == f'"{long_published.record["sha256"]}"'


def test_an_mp3_of_several_upload_parts_has_the_right_length_and_sound(long_published: Published) -> None:
    assert long_published.record["duration_seconds"] == LONG_SECONDS
    heard = decoding.decode(long_published.mp3)
    assert heard.seconds == LONG_SECONDS
    # If the last minute is in place, nothing before it is missing or doubled.
    start = (LONG_SECONDS - 60) * 44100
    last = decoding.Decoded(heard.samples[start : start + 60 * 44100], 44100)
    comparison = decoding.compare(decoding.Decoded(wavs.music(60), 44100), last)
    assert comparison.lag == 0
    assert comparison.correlation > 0.99


def test_a_download_whose_request_has_a_body_is_a_download(client: Client, user: dict[str, Any]) -> None:
    record = client.upload_stream([TINY_WAV], user["token"])
    # The first response is not from the cache.
    for range_header in ({"Range": "bytes=1-9"}, {}, {}):
        response = client.http.request("GET", record["url"], content=b"hello", headers=range_header)
        assert response.status_code == (206 if range_header else 200)
        assert response.headers["Content-Type"] == "audio/mpeg"


def test_a_download_has_no_header_of_the_store(client: Client, published: Published) -> None:
    response = client.http.get(published.url)
    assert_mp3(response, 200, published.mp3)
    assert header_names(response) == sorted(WHOLE)
    assert response.headers["Server"] == "nginx"
    assert response.headers["ETag"] == f'"{published.record["sha256"]}"'
    assert response.headers["Accept-Ranges"] == "bytes"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Cache-Control"].startswith("private")
    modified = parsedate_to_datetime(response.headers["Last-Modified"]).isoformat()
    assert published.record["created_at"].startswith(modified.removesuffix("+00:00"))


def test_head_has_the_headers_of_get_and_no_body(client: Client, published: Published) -> None:
    get, head = (client.http.request(method, published.url) for method in ("GET", "HEAD"))
    assert (head.status_code, head.headers["Content-Type"], head.content) == (200, "audio/mpeg", b"")
    differing = {"date", "x-request-id"}
    assert header_names(head) == header_names(get)
    assert {name: get.headers[name] for name in WHOLE - differing} == {
        name: head.headers[name] for name in WHOLE - differing
    }


def test_the_encoding_that_a_client_accepts_changes_nothing(client: Client, published: Published) -> None:
    headers = {"Accept-Encoding": "gzip, br", "Accept": "text/html", "Cookie": "a=b", "Origin": "null"}
    response = client.http.get(published.url, headers=headers)
    assert_mp3(response, 200, published.mp3)
    assert header_names(response) == sorted(WHOLE)


@pytest.mark.parametrize(
    ("title", "names"),
    [
        ("", "filename=recording.mp3"),
        ("Morning song", 'filename="Morning song.mp3"'),
        ("../etc/passwd", "filename=etcpasswd.mp3"),
        ("..hidden..", "filename=hidden.mp3"),
        ('a"b\\c;d=e', 'filename="abc;d=e.mp3"'),
        ("100%20", "filename=100%20.mp3; filename*=UTF-8''100%2520.mp3"),
        ("Zo\u00eb", "filename=Zoe.mp3; filename*=UTF-8''Zo%C3%AB.mp3"),
        ("Gr\u00f6\u00dfe", "filename=Grosse.mp3; filename*=UTF-8''Gr%C3%B6%C3%9Fe.mp3"),
        (
            "\u041f\u0435\u0441\u043d\u044f",
            "filename=Pesnya.mp3; filename*=UTF-8''%D0%9F%D0%B5%D1%81%D0%BD%D1%8F.mp3",
        ),
        ("\u65e5\u672c", "filename=RiBen.mp3; filename*=UTF-8''%E6%97%A5%E6%9C%AC.mp3"),
        ("NUL", "filename=NUL_.mp3"),
        ("CON .", "filename=CON_.mp3"),
        # Full-width letters, which become characters in ASCII that a file name must not have.
        (
            "..\uff0f..\uff0fetc\uff0fpasswd",
            "filename=etcpasswd.mp3; filename*=UTF-8''%EF%BC%8F..%EF%BC%8Fetc%EF%BC%8Fpasswd.mp3",
        ),
        ("a\uff02\uff1ab", "filename=ab.mp3; filename*=UTF-8''a%EF%BC%82%EF%BC%9Ab.mp3"),
        ("\uff23\uff2f\uff2e", "filename=CON_.mp3; filename*=UTF-8''%EF%BC%A3%EF%BC%AF%EF%BC%AE.mp3"),
    ],
)
def test_the_file_name_is_the_title_in_a_form_that_every_system_accepts(
    client: Client, user: dict[str, Any], title: str, names: str
) -> None:
    headers = {**bearer(user), **WAV_TYPE}
    record = client.http.post("/records", params={"title": title}, content=TINY_WAV, headers=headers).json()
    kinds = {
        "": "inline",
        "&download=0": "inline",
        "&download=false": "inline",
        "&download=1": "attachment",
        "&download=true": "attachment",
    }
    for query, kind in kinds.items():
        for method in ("GET", "HEAD"):
            response = client.http.request(method, record["url"] + query)
            assert response.headers["Content-Disposition"] == f"{kind}; {names}"


@pytest.mark.parametrize("query", ["download=yes", "download=", "download=1&download=1"])
def test_the_parameter_download_must_be_0_or_1_and_sent_once(
    client: Client, published: Published, query: str
) -> None:
    for condition in ({}, {"If-None-Match": "*"}, {"If-Match": '"1"'}):
        response = client.http.get(f"{published.url}&{query}", headers=condition)
        assert_problem(response, 400, "invalid-request", "'download'")
