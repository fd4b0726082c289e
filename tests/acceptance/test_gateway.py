"""The gateway by itself: its errors are problems too, it tells its health, and what is inside stays there."""

from email.utils import formatdate
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import pytest

from deploy.client import Client
from tests.raw_connection import make_request_head, open_raw_connection
from tests.response_checks import PROBLEM, assert_json, assert_problem, request_id_of
from tests.upload_requests import NOBODY, TINY_WAV

LARGE_BODY = b"x" * 3_000_000


def ask(base_url: str, *pieces: bytes) -> httpx.Response:
    """Sends bytes as they are and reads the answer."""
    with open_raw_connection(base_url) as wire:
        wire.send(*pieces)
        return wire.read_response()


# Health


def test_the_gateway_says_that_it_is_alive(client: Client) -> None:
    assert assert_json(client.http.get("/healthz"), 200) == {"status": "ok"}


@pytest.mark.parametrize("service", ["users", "records"])
def test_the_gateway_says_that_a_service_is_ready(client: Client, service: str) -> None:
    assert assert_json(client.http.get(f"/readyz/{service}"), 200) == {"status": "ready"}


def test_the_gateway_can_be_asked_by_head(client: Client) -> None:
    response = client.http.head("/healthz")
    assert (response.status_code, response.headers["Content-Type"], response.content) == (
        200,
        "application/json",
        b"",
    )
    assert request_id_of(response)


@pytest.mark.parametrize("header", ["If-Match", "If-None-Match", "If-Unmodified-Since", "If-Modified-Since"])
def test_a_condition_on_health_is_answered_in_our_words(client: Client, header: str) -> None:
    response = client.http.get("/healthz", headers={header: formatdate(0, usegmt=True)})
    if header in ("If-Match", "If-Unmodified-Since"):
        assert_problem(response, 412, "precondition-failed")
    else:
        assert assert_json(response, 200) == {"status": "ok"}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_address_itself_leads_to_the_page(client: Client, method: str) -> None:
    response = client.http.request(method, "/")
    assert (response.status_code, response.headers["Content-Type"]) == (302, "text/html")
    # Relative, so that it holds behind any name and port.
    assert response.headers["Location"] == "/docs"
    assert request_id_of(response)
    page = client.http.request(method, "/", follow_redirects=True)
    assert (page.status_code, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")


# What nginx itself refuses


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize(
    "path", ["/nothing", "/nothing/at/all", "/.env", "/.git/config", "/favicon.ico", "/index.html"]
)
def test_an_unknown_path_is_a_problem(client: Client, method: str, path: str) -> None:
    assert_problem(client.http.request(method, path), 404, "unknown-route")


def test_a_head_for_an_unknown_path_has_the_headers_of_a_problem(client: Client) -> None:
    response = client.http.head("/nothing")
    assert (response.status_code, response.headers["Content-Type"]) == (404, "application/problem+json")
    assert response.content == b""
    assert request_id_of(response)


@pytest.mark.parametrize("path", ["/users", "/records", "/record", "/nothing", "/healthz"])
def test_an_address_that_is_too_long_is_a_problem(client: Client, path: str) -> None:
    assert_problem(client.http.get(f"{path}?{'x' * 40_000}"), 414, "uri-too-long", "8 KiB")


@pytest.mark.parametrize("path", ["/users", "/records", "/record", "/nothing"])
def test_an_address_of_four_kilobytes_is_read(client: Client, path: str) -> None:
    response = client.http.put(f"{path}?{'x' * 4000}")
    assert response.status_code in (404, 405)
    assert response.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("path", ["/users", "/nothing"])
def test_a_body_that_is_too_large_is_a_problem(base_url: str, path: str) -> None:
    head = make_request_head(
        "POST", path, base_url, "Content-Type: application/json", "Content-Length: 70000"
    )
    assert_problem(ask(base_url, head), 413, "too-large", "65536")


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"X-Header": "x" * 9000}, id="one line"),
        pytest.param({f"X-{number}": "x" * 7000 for number in range(5)}, id="all lines"),
    ],
)
def test_headers_that_are_too_large_are_a_problem(client: Client, headers: dict[str, str]) -> None:
    response = client.http.get("/healthz", headers=headers)
    assert_problem(response, 400, "invalid-request", "8 KiB or the whole over 32 KiB")


def test_a_header_that_is_there_twice_and_may_be_there_once_is_a_problem(client: Client) -> None:
    headers = [("If-None-Match", '"1"'), ("If-None-Match", '"2"')]
    assert_problem(client.http.get("/record", headers=headers), 400, "invalid-request", "twice")


@pytest.mark.parametrize(
    "request_bytes",
    [
        pytest.param(b"nonsense\r\n\r\n", id="no request line"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", id="TLS to a port without it"),
        pytest.param(b"GET /healthz HTTP/1.1\r\n\r\n", id="no Host"),
        pytest.param(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", id="two Hosts"),
        pytest.param(b"GET /healthz HTTP/1.1\r\nHost: local host\r\n\r\n", id="a blank in the Host"),
        pytest.param(b"GET /healthz HTTP/1.1\r\nHost: local/host\r\n\r\n", id="a slash in the Host"),
        pytest.param(b"GET /healthz HTTP/1.1\r\nHost:\r\n\r\n", id="an empty Host"),
        pytest.param(b"GET /%00 HTTP/1.1\r\nHost: localhost\r\n\r\n", id="NUL in the path"),
        pytest.param(b"GET /users%00 HTTP/1.1\r\nHost: localhost\r\n\r\n", id="NUL behind the path"),
        pytest.param(b"GET /%zz HTTP/1.1\r\nHost: localhost\r\n\r\n", id="a wrong escape in the path"),
        pytest.param(
            b"GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n", id="a path above the root"
        ),
        pytest.param(
            b"GET /record?id=\xc3\xa9 HTTP/1.1\r\nHost: localhost\r\n\r\n", id="raw UTF-8 in the query"
        ),
        pytest.param(b"GET healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", id="a path without a slash"),
        pytest.param(b"get /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", id="a method in small letters"),
        pytest.param(
            b"POST /users HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
            id="two lengths",
        ),
        pytest.param(
            b"POST /users HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            id="length and chunks",
        ),
        pytest.param(
            b"POST /users HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", id="a negative length"
        ),
        pytest.param(
            b"POST /users HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
            id="a chunk without a size",
        ),
        pytest.param(
            b"POST /records HTTP/1.1\r\nHost: localhost\r\nContent-Type: audio/wav\r\n"
            b"Authorization: Bearer x\r\nContent-Length: 1x\r\n\r\n",
            id="a length that is no number",
        ),
    ],
)
def test_a_malformed_request_is_a_problem(base_url: str, request_bytes: bytes) -> None:
    assert_problem(ask(base_url, request_bytes), 400, "invalid-request")


# nginx passes it on, and the service refuses it.
CONTROL_CHARACTER = "X: a\x01b"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_control_character_in_a_header_is_a_problem(base_url: str, method: str) -> None:
    with open_raw_connection(base_url) as wire:
        wire.send(make_request_head(method, "/record", base_url, CONTROL_CHARACTER))
        answer = wire.read_response(method)
        assert (answer.status_code, answer.headers["Content-Type"]) == (400, PROBLEM)
        if method == "GET":
            assert_problem(answer, 400, "invalid-request")
        # The connection to the service is not used again, but the client's is.
        wire.send(make_request_head("GET", "/record", base_url))
        assert_problem(wire.read_response(), 400, "invalid-request", "'id'")


@pytest.mark.parametrize("framing", [f"Content-Length: {len(LARGE_BODY)}", "Transfer-Encoding: chunked"])
def test_a_malformed_request_is_answered_while_its_body_arrives(base_url: str, framing: str) -> None:
    body = LARGE_BODY
    if "chunked" in framing:
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(LARGE_BODY), LARGE_BODY)
    head = make_request_head("POST", "/records", base_url, CONTROL_CHARACTER, framing)
    for _ in range(10):
        assert_problem(ask(base_url, head, body), 400, "invalid-request")


@pytest.mark.parametrize("path", ["/%72ecords", f"/records/{NOBODY.replace('4', '%34')}", "/user%73/me"])
def test_an_address_that_is_escaped_is_nowhere(client: Client, path: str) -> None:
    assert_problem(client.http.get(path), 404, "unknown-route")


@pytest.mark.parametrize(
    "path", ["/docs", "/docs/", "/docs/index.css", "/problems/busy", "/openapi/records.json"]
)
def test_what_can_be_read_only_says_so(client: Client, path: str) -> None:
    for method in ("PUT", "POST", "DELETE", "BREW"):
        answer = client.http.request(method, path)
        assert_problem(answer, 405, "method-not-allowed")
        assert {*answer.headers["Allow"].split(", ")} == {"GET", "HEAD", "OPTIONS"}


@pytest.mark.parametrize(("path", "status"), [("/", 302), ("/healthz", 200)])
def test_the_pages_of_the_gateway_itself_can_be_read_only(client: Client, path: str, status: int) -> None:
    for method in ("GET", "HEAD"):
        assert client.http.request(method, path).status_code == status
    for method in ("PUT", "POST", "DELETE", "OPTIONS", "BREW"):
        answer = client.http.request(method, path)
        assert_problem(answer, 405, "method-not-allowed")
        assert answer.headers["Allow"] == "GET, HEAD"


@pytest.mark.parametrize("method", ["TRACE", "BREW"])
@pytest.mark.parametrize("path", ["/nothing", "/users/x", "/records/x"])
def test_no_method_is_named_where_nothing_is(client: Client, method: str, path: str) -> None:
    answer = client.http.request(method, path)
    assert_problem(answer, 405, "method-not-allowed")
    assert "Allow" not in answer.headers


@pytest.mark.parametrize("path", ["/users", "/records", "/record", "/readyz/users"])
def test_a_method_that_nobody_knows_is_a_problem(client: Client, path: str) -> None:
    assert_problem(client.http.request("BREW", path), 405, "method-not-allowed")


@pytest.mark.parametrize(("method", "target"), [("TRACE", "/users"), ("CONNECT", "localhost:80")])
def test_a_method_that_nginx_refuses_is_a_problem(base_url: str, method: str, target: str) -> None:
    assert_problem(ask(base_url, make_request_head(method, target, base_url)), 405, "method-not-allowed")


def test_a_version_of_http_that_nginx_does_not_speak_is_a_problem(base_url: str) -> None:
    response = ask(base_url, b"GET /healthz HTTP/3.7\r\nHost: localhost\r\n\r\n")
    assert response.status_code == 505
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json()["request_id"] == request_id_of(response)


def test_a_transfer_coding_that_nginx_does_not_know_is_a_problem(base_url: str) -> None:
    response = ask(base_url, make_request_head("POST", "/users", base_url, "Transfer-Encoding: gzip"))
    assert response.status_code == 501
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json()["request_id"] == request_id_of(response)


# One id for every request


def test_every_answer_has_an_id_that_the_client_cannot_choose(client: Client) -> None:
    given = "0123456789abcdef" * 2
    paths = ["/healthz", "/readyz/users", "/readyz/records", "/users", "/records", "/record", "/nothing"]
    responses = [client.http.get(path, headers={"X-Request-ID": given}) for path in paths]
    ids = [request_id_of(response) for response in responses]
    assert len({given, *ids}) == len(paths) + 1
    kinds = {response.headers["Content-Type"] for response in responses}
    assert kinds == {"application/json", "application/problem+json"}
    assert [response.status_code for response in responses] == [200, 200, 200, 405, 401, 400, 404]


@pytest.mark.parametrize("path", ["/healthz", "/readyz/users", "/users", "/record", "/nothing"])
def test_the_server_says_nothing_of_itself_but_nginx(client: Client, path: str) -> None:
    response = client.http.get(path)
    assert response.headers["Content-Type"] in ("application/json", "application/problem+json")
    assert response.status_code in (200, 400, 404, 405)
    assert response.headers.get_list("Server") == ["nginx"]
    assert not {"Via", "X-Powered-By", "Strict-Transport-Security", "Vary"} & {*response.headers}


# What is inside stays inside


@pytest.fixture(scope="module")
def record(base_url: str) -> dict[str, Any]:
    with Client(base_url) as client:
        user = client.create_user("Owner")
        record = client.upload_stream([TINY_WAV], user["token"])
        modified = client.http.head(record["url"]).headers["Last-Modified"]
        return {**record, "modified": quote(modified), "key": f"{user['id']}/{record['id']}.mp3"}


@pytest.mark.parametrize(
    "path",
    [
        "/_blob",
        "/_blob/",
        "/_blob/{sha256}/{modified}//records/{key}",
        "/_blob/{sha256}/{modified}/0-1/records/{key}",
        "/_blob/{sha256}/{modified}/-/records/{key}",
        "//_blob/{sha256}/{modified}/0-1/records/{key}",
        "/users/../_blob/{sha256}/{modified}/0-1/records/{key}",
        "/%5fblob/{sha256}/{modified}/0-1/records/{key}",
        "/records/{key}",
        "/records/{key}/waveform",
        "/{key}",
    ],
)
def test_the_bytes_of_a_record_are_reached_by_its_link_only(
    base_url: str, record: dict[str, Any], path: str
) -> None:
    # As near as somebody outside can guess to where the bytes lie for nginx.
    response = ask(base_url, make_request_head("GET", path.format(**record), base_url))
    assert_problem(response, 404, "unknown-route")


@pytest.mark.parametrize(
    "path",
    [
        *("/metrics", "/users/metrics", "/records/metrics", "/readyz", "/readyz/", "/readyz/minio"),
        *("/healthz/", "/minio/health/live", "/minio/", "/_problem", "/@problem", "/problem", "/@store_away"),
        *("/nginx_status", "/stub_status", "/schema", "/schema/openapi.json", "/records/", "/record/"),
        *("//record", "//healthz", "/users//me"),
        *("/record/../metrics", "/users/../readyz", "/users/..;/metrics", "/users%2f..%2fmetrics"),
    ],
)
def test_what_is_for_the_inside_is_not_reached_from_outside(base_url: str, path: str) -> None:
    assert_problem(ask(base_url, make_request_head("GET", path, base_url)), 404, "unknown-route")


def test_a_smuggled_request_is_not_answered(base_url: str) -> None:
    inner = make_request_head("GET", "/metrics", base_url)
    host = urlsplit(base_url).netloc
    request = (
        f"POST /users HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(inner) + 5}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ).encode()
    with open_raw_connection(base_url) as wire:
        wire.send(request + inner)
        response = wire.read_response()
        assert_problem(response, 400, "invalid-request")
        assert response.headers["Connection"] == "close"
