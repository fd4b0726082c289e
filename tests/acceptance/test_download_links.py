"""The link of an upload names the host and port that the client used, whatever headers it forged."""

from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from deploy.client import Client
from tests.raw_connection import open_raw_connection
from tests.response_checks import assert_json, assert_problem
from tests.upload_requests import FORM_TYPE, TINY_WAV, WAV_TYPE, audio, bearer, make_form, token, user_id


@pytest.fixture(scope="module")
def record(base_url: str) -> dict[str, Any]:
    with Client(base_url) as client:
        return client.upload_stream([TINY_WAV], client.create_user("Links")["token"])


def upload(client: Client, user: dict[str, Any], headers: dict[str, str]) -> httpx.Response:
    form = make_form(user_id(user), token(user), audio())
    return client.http.post("/records", content=form, headers={**FORM_TYPE, **headers})


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "[::1]", "waxwing.localhost", "192.0.2.7", "LOCALHOST"]
)
@pytest.mark.parametrize("port", [":1234", ""])
def test_a_link_has_the_host_and_port_that_the_client_used(
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
def test_a_forged_header_does_not_change_the_link(
    client: Client, user: dict[str, Any], base_url: str, forged: dict[str, str]
) -> None:
    record = assert_json(upload(client, user, forged), 201)
    assert record["url"] == f"{base_url}/record?id={record['id']}&user={user['id']}"
    mp3 = client.http.get(record["url"], headers=forged)
    assert (mp3.status_code, mp3.headers["Content-Type"]) == (200, "audio/mpeg")


def test_the_link_of_a_bare_wav_has_the_host_and_port_that_the_client_used(
    client: Client, user: dict[str, Any]
) -> None:
    headers = {**WAV_TYPE, **bearer(user), "Host": "localhost:8080"}
    record = assert_json(client.http.post("/records", content=TINY_WAV, headers=headers), 201)
    assert urlsplit(record["url"]).netloc == "localhost:8080"


@pytest.mark.parametrize(
    "rest",
    [
        ")",
        ".",
        ",",
        ">",
        '"',
        "*",
        "_",
        "%E2%80%8B",
        "%22%3E",
        ").",
        "&utm_source=x",
        "%00",
        "/../x",
        "'--",
        "%20and%20more",
    ],
)
def test_a_link_works_with_what_a_text_left_behind_it(
    client: Client, record: dict[str, Any], rest: str
) -> None:
    assert client.http.get(record["url"] + rest).status_code == 200
    other_order = f"/record?user={record['user_id']}&id={record['id']}{rest}"
    assert client.http.get(other_order).status_code == 200


def get_unescaped(base_url: str, target: str) -> httpx.Response:
    """Sends a target with bytes that most clients would escape; curl, ffmpeg and many players do not."""
    with open_raw_connection(base_url) as connection:
        connection.send(f"GET {target} HTTP/1.1\r\nHost: {urlsplit(base_url).netloc}\r\n\r\n".encode())
        return connection.read_response()


@pytest.mark.parametrize("rest", ["\u200b", "\u201d", "\u2026", "\u00a0", " ", "\u3002&utm_source=\u00fc"])
def test_what_a_text_left_behind_a_link_need_not_be_escaped(
    base_url: str, record: dict[str, Any], rest: str
) -> None:
    link = urlsplit(record["url"])
    for download in ("", "&download=1"):
        response = get_unescaped(base_url, f"{link.path}?{link.query}{download}{rest}")
        assert (response.status_code, response.headers["Content-Type"]) == (200, "audio/mpeg")
        kind = "attachment" if download else "inline"
        assert response.headers["Content-Disposition"].startswith(kind)


@pytest.mark.parametrize("value", ["1)", "1.", "true,", "True", "TRUE", "1%E2%80%8B", "1#x"])
def test_a_link_that_saves_works_with_what_a_text_left_behind_it(
    client: Client, record: dict[str, Any], value: str
) -> None:
    response = client.http.get(f"{record['url']}&download={value}")
    assert (response.status_code, response.headers["Content-Type"]) == (200, "audio/mpeg")
    assert response.headers["Content-Disposition"].startswith("attachment")


@pytest.mark.parametrize("rest", ["0", "f", "-", "F0", "x"])
def test_a_link_with_more_than_an_id_is_refused(client: Client, record: dict[str, Any], rest: str) -> None:
    assert_problem(client.http.get(record["url"] + rest), 400, "invalid-request", "'user'")


@pytest.mark.parametrize(
    "ampersand", ["&amp;", "&amp;amp;", "&AMP;", "&amp%3B", "\\u0026", "%5Cu0026", "%5cU0026"]
)
def test_a_link_may_be_copied_out_of_html_or_json(
    client: Client, base_url: str, record: dict[str, Any], ampersand: str
) -> None:
    link = f"{record['url']}&download=1".replace("&", ampersand)
    for response in (client.http.get(link), get_unescaped(base_url, link)):
        assert (response.status_code, response.headers["Content-Type"]) == (200, "audio/mpeg")
        assert response.headers["Content-Disposition"].startswith("attachment")


def test_a_link_out_of_html_has_each_id_once(client: Client, record: dict[str, Any]) -> None:
    twice = record["url"] + f"&amp;user={record['user_id']}"
    assert_problem(client.http.get(twice), 400, "invalid-request", "'user'")


def test_only_a_link_ignores_what_follows_an_id(client: Client, record: dict[str, Any]) -> None:
    waveform = client.http.get(f"/records/{record['id']}/waveform?user={record['user_id']})")
    assert_problem(waveform, 400, "invalid-request", "'user'")


@pytest.mark.parametrize(
    "name",
    [
        *("recording.mp3", "A%20walk%20%C3%BC.mp3", "a.b.mp3", "%2e%2e.mp3", "RECORDING.MP3", ".mp3"),
        *("a%2Fb.mp3", "a/b.mp3", "a%0Ab.mp3", "100%25.mp3", "a%3Fb.mp3"),
    ],
)
def test_a_link_may_have_a_file_name_with_the_extension_that_some_players_want(
    client: Client, record: dict[str, Any], name: str
) -> None:
    named = record["url"].replace("/record?", f"/record/{name}?")
    whole = client.http.get(named)
    assert (whole.status_code, whole.content) == (200, client.download(record["url"]))
    plain = client.http.get(record["url"], headers={"Range": "bytes=10-19"})
    part = client.http.get(named, headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, whole.content[10:20])
    for header in ("ETag", "Content-Range", "Content-Disposition", "Last-Modified"):
        assert part.headers[header] == plain.headers[header]
    assert client.http.head(named).headers["ETag"] == whole.headers["ETag"]


def test_the_file_name_of_a_link_need_not_be_escaped(base_url: str, record: dict[str, Any]) -> None:
    for name in ("Gr\u00f6\u00dfe", "a\u200bb", "\U0001f3b5", "\u00fc/\u00fc"):
        response = get_unescaped(base_url, f"/record/{name}.mp3?{urlsplit(record['url']).query}\u200b")
        assert (response.status_code, response.headers["Content-Type"]) == (200, "audio/mpeg")


@pytest.mark.parametrize(
    "path", ["/record/", "/record/a.wav", "/record/.mp3/", "/recorda.mp3", "/record.mp3", "/record/../a.mp3"]
)
def test_nothing_else_is_a_name_of_a_link(client: Client, record: dict[str, Any], path: str) -> None:
    response = client.http.get(record["url"].replace("/record?", f"{path}?"))
    assert_problem(response, 404, "unknown-route")
