"""GET and HEAD /record: the MP3 behind a link, whole or in ranges, and nothing of anybody else's."""

import hashlib
from collections.abc import Iterator
from email.utils import formatdate, parsedate_to_datetime
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import pytest

from deploy.client import Client
from tests import decoding, wavs
from tests.response_checks import assert_json, assert_problem, request_id_of
from tests.upload_requests import FORM_TYPE, TINY_WAV, WAV_TYPE, audio, bearer, make_form, token, user_id
from tests.wavs import Wav

PART_BYTES = 5 << 20
# The first part of an object has its head besides: of an MP3 of 44.1 kHz and 128 kbit/s one frame.
BORDER = 417 + PART_BYTES

# Everything that may be told of a download, and nothing of what the store says of its object.
COMMON = {"server", "date", "connection", "x-request-id"}
VALIDATORS = {"etag", "last-modified", "cache-control", "accept-ranges", "x-content-type-options"}
WHOLE = COMMON | VALIDATORS | {"content-type", "content-length", "content-disposition"}


class Published(NamedTuple):
    """A record, what its link gives, and the headers of that answer."""

    record: dict[str, Any]
    mp3: bytes
    headers: httpx.Headers

    @property
    def url(self) -> str:
        return str(self.record["url"])


@pytest.fixture(scope="module")
def published(base_url: str) -> Iterator[Published]:
    """Three seconds of music behind a link."""
    with Client(base_url) as client:
        user = client.create_user("Owner")
        record = client.upload_stream([Wav().build(wavs.music(3))], user["token"])
        response = client.http.get(record["url"])
        yield Published(record, response.content, response.headers)


@pytest.fixture(scope="module")
def long_published(base_url: str) -> Iterator[Published]:
    """Twelve minutes of music, which the store takes in parts."""
    with Client(base_url) as client:
        user = client.create_user("Owner")
        seconds, music = 720, wavs.music(60)
        pieces = Wav().stream(44 + seconds * 44100 * 4, music)
        record = client.upload_stream(pieces, user["token"])
        response = client.http.get(record["url"])
        yield Published(record, response.content, response.headers)


def assert_mp3(response: httpx.Response, status: int, content: bytes) -> None:
    assert (response.status_code, response.headers["Content-Type"]) == (status, "audio/mpeg"), (
        response.content[:500]
    )
    assert response.content == content
    assert response.headers["Content-Length"] == str(len(content))
    assert request_id_of(response)


def assert_not_modified(response: httpx.Response, published: Published) -> None:
    assert response.status_code == 304
    assert response.content == b""
    assert "Content-Type" not in response.headers
    assert {*response.headers} == COMMON | VALIDATORS
    assert response.headers["ETag"] == published.headers["ETag"]


def names_of(response: httpx.Response) -> list[str]:
    """The names of all headers; one that is there twice is there twice."""
    return sorted(name.decode().lower() for name, _ in response.headers.raw)


# Whole


def test_the_link_gives_the_mp3_as_it_was_announced(client: Client, published: Published) -> None:
    response = client.http.get(published.url)
    assert_mp3(response, 200, published.mp3)
    assert hashlib.sha256(response.content).hexdigest() == published.record["sha256"]
    assert len(response.content) == published.record["size_bytes"]
    decoded = decoding.decode(response.content)
    assert decoded.seconds == pytest.approx(published.record["duration_seconds"], abs=1e-9)
    assert (decoded.rate, decoded.channels) == (44100, 2)


def test_the_headers_of_a_download_are_ours_alone(client: Client, published: Published) -> None:
    response = client.http.get(published.url)
    assert_mp3(response, 200, published.mp3)
    assert names_of(response) == sorted(WHOLE)
    assert response.headers["Server"] == "nginx"
    assert response.headers["ETag"] == f'"{published.record["sha256"]}"'
    assert response.headers["Accept-Ranges"] == "bytes"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Cache-Control"].startswith("private")
    modified = parsedate_to_datetime(response.headers["Last-Modified"]).isoformat()
    assert published.record["created_at"].startswith(modified.removesuffix("+00:00"))


def test_the_headers_of_a_range_are_ours_alone(client: Client, published: Published) -> None:
    response = client.http.get(published.url, headers={"Range": "bytes=0-99"})
    assert_mp3(response, 206, published.mp3[:100])
    assert names_of(response) == sorted(WHOLE | {"content-range"})


def test_head_tells_what_get_tells_but_sends_nothing(client: Client, published: Published) -> None:
    get, head = (client.http.request(method, published.url) for method in ("GET", "HEAD"))
    assert (head.status_code, head.headers["Content-Type"], head.content) == (200, "audio/mpeg", b"")
    differing = {"date", "x-request-id"}
    assert names_of(head) == names_of(get)
    assert {name: get.headers[name] for name in WHOLE - differing} == {
        name: head.headers[name] for name in WHOLE - differing
    }


def test_a_client_is_believed_nothing_about_the_encoding(client: Client, published: Published) -> None:
    headers = {"Accept-Encoding": "gzip, br", "Accept": "text/html", "Cookie": "a=b", "Origin": "null"}
    response = client.http.get(published.url, headers=headers)
    assert_mp3(response, 200, published.mp3)
    assert names_of(response) == sorted(WHOLE)


@pytest.mark.parametrize("authorization", ["Bearer x", "Basic eDp5", "AWS4-HMAC-SHA256 x"])
def test_the_link_needs_no_credentials_and_ignores_wrong_ones(
    client: Client, published: Published, authorization: str
) -> None:
    response = client.http.get(published.url, headers={"Authorization": authorization})
    assert_mp3(response, 200, published.mp3)


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
        ("\u65e5\u672c", "filename=recording.mp3; filename*=UTF-8''%E6%97%A5%E6%9C%AC.mp3"),
        ("NUL", "filename=NUL_.mp3"),
        ("CON .", "filename=CON_.mp3"),
        # Letters of full width, of which ASCII makes what a file name may not have.
        (
            "..\uff0f..\uff0fetc\uff0fpasswd",
            "filename=etcpasswd.mp3; filename*=UTF-8''%EF%BC%8F..%EF%BC%8Fetc%EF%BC%8Fpasswd.mp3",
        ),
        ("a\uff02\uff1ab", "filename=ab.mp3; filename*=UTF-8''a%EF%BC%82%EF%BC%9Ab.mp3"),
        ("\uff23\uff2f\uff2e", "filename=CON_.mp3; filename*=UTF-8''%EF%BC%A3%EF%BC%AF%EF%BC%AE.mp3"),
    ],
)
def test_an_mp3_is_saved_under_its_title_as_every_system_takes_it(
    client: Client, user: dict[str, Any], title: str, names: str
) -> None:
    headers = {**bearer(user), **WAV_TYPE}
    record = client.http.post("/records", params={"title": title}, content=TINY_WAV, headers=headers).json()
    for query, kind in (("", "inline"), ("&download=0", "inline"), ("&download=1", "attachment")):
        for method in ("GET", "HEAD"):
            response = client.http.request(method, record["url"] + query)
            assert response.headers["Content-Disposition"] == f"{kind}; {names}"


@pytest.mark.parametrize("query", ["download=yes", "download=", "download=1&download=1"])
def test_it_must_be_clear_whether_the_mp3_is_to_be_saved(
    client: Client, published: Published, query: str
) -> None:
    for condition in ({}, {"If-None-Match": "*"}, {"If-Match": '"1"'}):
        response = client.http.get(f"{published.url}&{query}", headers=condition)
        assert_problem(response, 400, "invalid-request", "'download'")


# Conditions


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("given", ["{}", "W/{}", '"x", {}', '{}, "x"', "*"])
def test_a_known_etag_is_answered_without_the_mp3(
    client: Client, published: Published, method: str, given: str
) -> None:
    headers = {"If-None-Match": given.format(published.headers["ETag"])}
    assert_not_modified(client.http.request(method, published.url, headers=headers), published)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_known_date_is_answered_without_the_mp3(client: Client, published: Published, method: str) -> None:
    headers = {"If-Modified-Since": published.headers["Last-Modified"]}
    assert_not_modified(client.http.request(method, published.url, headers=headers), published)


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"If-None-Match": '"x"'}, id="another ETag"),
        pytest.param({"If-Modified-Since": formatdate(0, usegmt=True)}, id="an earlier date"),
        pytest.param({"If-Modified-Since": "yesterday"}, id="no date"),
        pytest.param({"If-Match": "*"}, id="any ETag"),
        pytest.param({"If-Unmodified-Since": "Fri, 31 Dec 2100 00:00:00 GMT"}, id="a later date"),
        pytest.param({"If-Range": '"x"'}, id="If-Range without a range"),
    ],
)
def test_a_condition_that_holds_gives_the_mp3(
    client: Client, published: Published, headers: dict[str, str]
) -> None:
    assert_mp3(client.http.get(published.url, headers=headers), 200, published.mp3)


def test_another_etag_wins_over_a_known_date(client: Client, published: Published) -> None:
    headers = {"If-None-Match": '"x"', "If-Modified-Since": published.headers["Last-Modified"]}
    assert_mp3(client.http.get(published.url, headers=headers), 200, published.mp3)


def test_the_right_etag_is_matched(client: Client, published: Published) -> None:
    headers = {"If-Match": published.headers["ETag"]}
    assert_mp3(client.http.get(published.url, headers=headers), 200, published.mp3)


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"If-Match": '"x"'}, id="another ETag"),
        pytest.param({"If-Match": 'W/"x"'}, id="a weak ETag"),
        pytest.param({"If-Unmodified-Since": formatdate(0, usegmt=True)}, id="an earlier date"),
        pytest.param({"If-Match": '"x"', "Range": "bytes=0-1"}, id="another ETag with a range"),
    ],
)
def test_a_condition_that_fails_is_refused(
    client: Client, published: Published, headers: dict[str, str]
) -> None:
    response = client.http.get(published.url, headers=headers)
    assert_problem(response, 412, "precondition-failed")


def test_the_right_etag_made_weak_is_not_matched(client: Client, published: Published) -> None:
    response = client.http.get(published.url, headers={"If-Match": f"W/{published.headers['ETag']}"})
    assert_problem(response, 412, "precondition-failed")


# Ranges


def ask(client: Client, published: Published, wanted: str, **headers: str) -> httpx.Response:
    return client.http.get(published.url, headers={"Range": wanted, **headers})


def assert_range(response: httpx.Response, published: Published, first: int, last: int) -> None:
    """Checks that an answer is the bytes from `first` to `last`, both included, of the whole."""
    assert_mp3(response, 206, published.mp3[first : last + 1])
    assert response.headers["Content-Range"] == f"bytes {first}-{last}/{len(published.mp3)}"
    for name in VALIDATORS:
        assert response.headers[name] == published.headers[name]


@pytest.mark.parametrize(
    ("wanted", "first", "last"),
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
    client: Client, published: Published, wanted: str, first: int, last: int
) -> None:
    size = len(published.mp3)
    first, last = (place + size if place < 0 else place for place in (first, last))
    assert_range(ask(client, published, wanted), published, first, last)


def test_the_last_byte_can_be_had_by_its_number(client: Client, published: Published) -> None:
    last = len(published.mp3) - 1
    assert_range(ask(client, published, f"bytes={last}-{last}"), published, last, last)
    assert_range(ask(client, published, f"bytes={last}-"), published, last, last)


def test_ranges_put_together_are_the_whole(client: Client, published: Published) -> None:
    step, size = 10_007, len(published.mp3)
    pieces = [ask(client, published, f"bytes={first}-{first + step - 1}") for first in range(0, size, step)]
    for number, piece in enumerate(pieces):
        assert_range(piece, published, number * step, min((number + 1) * step, size) - 1)
    assert b"".join(piece.content for piece in pieces) == published.mp3


def test_a_range_past_the_end_is_refused_with_the_size(client: Client, published: Published) -> None:
    size = len(published.mp3)
    for wanted in (f"bytes={size}-", f"bytes={size}-{size + 9}", "bytes=999999999999999999-", "bytes=-0"):
        response = ask(client, published, wanted)
        assert_problem(response, 416, "range-not-satisfiable", str(size))
        assert response.headers["Content-Range"] == f"bytes */{size}"


@pytest.mark.parametrize(
    "wanted",
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
def test_a_range_that_is_malformed_is_ignored(client: Client, published: Published, wanted: str) -> None:
    response = client.http.get(published.url, headers=[(b"Range", wanted.encode())])
    assert_mp3(response, 200, published.mp3)


@pytest.mark.parametrize("wanted", ["bytes=0-1,5-9", "bytes=0-0,-1", "bytes=" + ",".join(["0-"] * 1000)])
def test_several_ranges_are_answered_with_the_whole(
    client: Client, published: Published, wanted: str
) -> None:
    assert_mp3(ask(client, published, wanted), 200, published.mp3)


def test_a_range_is_given_if_the_mp3_is_still_the_same(client: Client, published: Published) -> None:
    for validator in (published.headers["ETag"], published.headers["Last-Modified"]):
        response = ask(client, published, "bytes=10-19", **{"If-Range": validator})
        assert_range(response, published, 10, 19)


def test_the_whole_is_given_if_the_mp3_is_another(client: Client, published: Published) -> None:
    for validator in (
        '"x"',
        "W/" + published.headers["ETag"],
        formatdate(0, usegmt=True),
        "Fri, 31 Dec 2100 00:00:00 GMT",
        "nonsense",
    ):
        for wanted in ("bytes=10-19", "bytes=99999999-"):
            response = ask(client, published, wanted, **{"If-Range": validator})
            assert_mp3(response, 200, published.mp3)


def test_a_range_of_a_head_is_ignored(client: Client, published: Published) -> None:
    response = client.http.head(published.url, headers={"Range": "bytes=0-1"})
    assert (response.status_code, response.headers["Content-Type"]) == (200, "audio/mpeg")
    assert response.headers["Content-Length"] == str(len(published.mp3))


def test_a_known_etag_wins_over_a_range(client: Client, published: Published) -> None:
    response = ask(client, published, "bytes=0-1", **{"If-None-Match": published.headers["ETag"]})
    assert_not_modified(response, published)


# An MP3 that the store took in parts


def test_twelve_minutes_are_downloaded_byte_for_byte_as_hashed(
    client: Client, long_published: Published
) -> None:
    response = client.http.get(long_published.url)
    assert_mp3(response, 200, long_published.mp3)
    assert names_of(response) == sorted(WHOLE)
    assert len(response.content) == long_published.record["size_bytes"] > 2 * PART_BYTES
    assert hashlib.sha256(response.content).hexdigest() == long_published.record["sha256"]
    assert response.headers["ETag"] == f'"{long_published.record["sha256"]}"'


def test_twelve_minutes_have_the_right_length_and_sound(long_published: Published) -> None:
    assert long_published.record["duration_seconds"] == 720
    heard = decoding.decode(long_published.mp3)
    assert heard.seconds == 720
    # The last minute as well as the first, so that nothing is missing or doubled between.
    start = 660 * 44100
    last = decoding.Decoded(heard.samples[start : start + 60 * 44100], 44100)
    comparison = decoding.compare(decoding.Decoded(wavs.music(60), 44100), last)
    assert comparison.lag == 0
    assert comparison.correlation > 0.99


@pytest.mark.parametrize(
    ("first", "last"),
    [
        (BORDER - 10, BORDER + 9),
        (BORDER - 1, BORDER - 1),
        (BORDER, BORDER),
        (BORDER - 1, BORDER),
        (0, BORDER),
        (1, BORDER + PART_BYTES),
        (BORDER, BORDER + PART_BYTES + 100_000),
    ],
)
def test_ranges_across_the_border_of_parts_are_exact(
    client: Client, long_published: Published, first: int, last: int
) -> None:
    assert_range(ask(client, long_published, f"bytes={first}-{last}"), long_published, first, last)


# Who may not


def other_body(response: httpx.Response) -> dict[str, Any]:
    """The problem without what is different in every answer."""
    problem = assert_problem(response, 404, "unknown-record")
    return {name: value for name, value in problem.items() if name != "request_id"}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_wrong_user_and_an_unknown_id_get_one_answer(
    client: Client, published: Published, method: str
) -> None:
    stranger = client.create_user("Stranger")
    ids = {"id": published.record["id"], "user": published.record["user_id"]}
    wrong = [
        ids | {"user": stranger["id"]},
        ids | {"user": str(uuid4())},
        ids | {"id": str(uuid4())},
        {"id": ids["user"], "user": ids["id"]},
    ]
    responses = [client.http.request(method, "/record", params=query) for query in wrong]
    if method == "GET":
        bodies = [other_body(response) for response in responses]
        assert bodies == bodies[:1] * len(wrong)
    for response in responses:
        assert response.status_code == 404
        assert response.headers["Content-Type"] == "application/problem+json"
        assert names_of(response) == names_of(responses[0])


def test_two_users_cannot_reach_each_others_records(client: Client) -> None:
    users = [client.create_user(name) for name in ("Ann", "Bob")]
    records = [client.upload_stream([TINY_WAV], user["token"]) for user in users]
    for mine, his in (records, records[::-1]):
        assert_json(client.http.get("/healthz"), 200)
        own = client.http.get("/record", params={"id": mine["id"], "user": mine["user_id"]})
        assert (own.status_code, own.headers["Content-Type"]) == (200, "audio/mpeg")
        other_body(client.http.get("/record", params={"id": mine["id"], "user": his["user_id"]}))


def test_a_range_of_somebody_elses_record_is_not_found_either(client: Client, published: Published) -> None:
    query = {"id": published.record["id"], "user": str(uuid4())}
    for headers in (
        {"Range": "bytes=0-1"},
        {"Range": "bytes=99999999-"},
        {"If-None-Match": published.headers["ETag"]},
        {"If-Match": '"x"'},
    ):
        other_body(client.http.get("/record", params=query, headers=headers))


GOOD = "8f0a8fd5-3f27-4c3a-8bd4-5ad33e7f2a61"


@pytest.mark.parametrize(
    ("query", "says"),
    [
        pytest.param("", "'id'", id="nothing"),
        pytest.param(f"id={GOOD}", "'user'", id="no user"),
        pytest.param(f"user={GOOD}", "'id'", id="no id"),
        pytest.param(f"id=&user={GOOD}", "'id'", id="an empty id"),
        pytest.param(f"id=1&user={GOOD}", "'id'", id="a number"),
        pytest.param(f"id={GOOD}&user=me", "'user'", id="a word"),
        pytest.param(f"id={GOOD}%00&user={GOOD}", "'id'", id="NUL behind it"),
        pytest.param(f"id={GOOD}/../x&user={GOOD}", "'id'", id="a path"),
        pytest.param(f"id={GOOD}'--&user={GOOD}", "'id'", id="SQL"),
        pytest.param(f"id={GOOD}&id={GOOD}&user={GOOD}", "'id'", id="two ids"),
        pytest.param(f"id={GOOD}&user={GOOD}&user={GOOD}", "'user'", id="two users"),
        pytest.param(f"id=%ff&user={GOOD}", "'id'", id="not UTF-8"),
        pytest.param(f"id={GOOD}x&user={GOOD}", "'id'", id="too long"),
        pytest.param(f"id={GOOD[:-1]}&user={GOOD}", "'id'", id="too short"),
        pytest.param("id=" + "x" * 4000, "'id'", id="much too long"),
    ],
)
def test_a_link_that_is_malformed_is_refused(client: Client, query: str, says: str) -> None:
    assert_problem(client.http.get(f"/record?{query}"), 400, "invalid-request", says)


def test_a_host_that_is_not_ours_is_refused(client: Client, published: Published) -> None:
    response = client.http.get(published.url, headers={"Host": "evil.example"})
    assert_problem(response, 421, "unknown-host", "evil.example")


# Where the link leads


def upload(client: Client, user: dict[str, Any], headers: dict[str, str]) -> httpx.Response:
    form = make_form(user_id(user), token(user), audio())
    return client.http.post("/records", content=form, headers={**FORM_TYPE, **headers})


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "[::1]", "waxwing.localhost", "192.0.2.7", "LOCALHOST"]
)
@pytest.mark.parametrize("port", [":1234", ""])
def test_the_link_has_host_and_port_that_the_client_used(
    client: Client, user: dict[str, Any], host: str, port: str
) -> None:
    response = upload(client, user, {"Host": host + port})
    record = assert_json(response, 201)
    assert record["url"] == f"http://{host}{port}/record?id={record['id']}&user={user['id']}"
    assert response.headers["Location"] == record["url"]


@pytest.mark.parametrize(
    "forged",
    [
        {"X-Forwarded-Host": "evil.example"},
        {"X-Forwarded-Proto": "gopher"},
        {"X-Forwarded-Proto": "https"},
        {"X-Forwarded-Port": "666"},
        {"X-Forwarded-For": "192.0.2.66"},
        {"X-Forwarded-Prefix": "/evil"},
        {"Forwarded": "host=evil.example;proto=https"},
        {"X-Original-Host": "evil.example", "X-Host": "evil.example"},
        {"X-Accel-Redirect": "/healthz"},
    ],
)
def test_a_forged_header_does_not_get_into_the_link(
    client: Client, user: dict[str, Any], base_url: str, forged: dict[str, str]
) -> None:
    record = assert_json(upload(client, user, forged), 201)
    assert record["url"] == f"{base_url}/record?id={record['id']}&user={user['id']}"
    mp3 = client.http.get(record["url"], headers=forged)
    assert (mp3.status_code, mp3.headers["Content-Type"]) == (200, "audio/mpeg")


def test_the_link_of_a_bare_wav_has_host_and_port_too(client: Client, user: dict[str, Any]) -> None:
    headers = {**WAV_TYPE, **bearer(user), "Host": "localhost:8080"}
    record = assert_json(client.http.post("/records", content=TINY_WAV, headers=headers), 201)
    assert urlsplit(record["url"]).netloc == "localhost:8080"
