"""The gateway itself: its health, its errors, which are problems too, and the paths that it hides."""

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


def send_bytes(base_url: str, *pieces: bytes) -> httpx.Response:
    """Sends these bytes and reads the response."""
    with open_raw_connection(base_url) as connection:
        connection.send(*pieces)
        return connection.read_response()


# Health


def test_healthz_says_that_the_gateway_is_alive(client: Client) -> None:
    assert assert_json(client.http.get("/healthz"), 200) == {"status": "ok"}


@pytest.mark.parametrize("service", ["users", "records"])
def test_readyz_says_that_a_service_is_ready(client: Client, service: str) -> None:
    assert assert_json(client.http.get(f"/readyz/{service}"), 200) == {"status": "ready"}


def test_head_of_healthz_has_no_body(client: Client) -> None:
    response = client.http.head("/healthz")
    assert (response.status_code, response.headers["Content-Type"], response.content) == (
        200,
        "application/json",
        b"",
    )
    assert request_id_of(response)


@pytest.mark.parametrize("header", ["If-Match", "If-None-Match", "If-Unmodified-Since", "If-Modified-Since"])
def test_a_condition_on_healthz_gets_a_problem_or_the_health(client: Client, header: str) -> None:
    response = client.http.get("/healthz", headers={header: formatdate(0, usegmt=True)})
    if header in ("If-Match", "If-Unmodified-Since"):
        assert_problem(response, 412, "precondition-failed")
    else:
        assert assert_json(response, 200) == {"status": "ok"}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_root_is_the_page_for_people_whose_policy_allows_nothing_unsafe(
    client: Client, method: str
) -> None:
    response = client.http.request(method, "/")
    assert (response.status_code, response.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert request_id_of(response)
    policy = response.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert response.headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("app.js", "text/javascript; charset=utf-8"),
        ("recorder_worklet.js", "text/javascript; charset=utf-8"),
        ("style.css", "text/css; charset=utf-8"),
        ("icon.svg", "image/svg+xml; charset=utf-8"),
    ],
)
def test_a_file_of_the_page_is_sent_again_only_if_it_has_changed(
    client: Client, name: str, media_type: str
) -> None:
    response = client.http.get(f"/site/{name}")
    assert (response.status_code, response.headers["Content-Type"]) == (200, media_type)
    unchanged = client.http.get(f"/site/{name}", headers={"If-None-Match": response.headers["ETag"]})
    assert unchanged.status_code == 304


# Requests that nginx refuses


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/nothing/at/all",
        "/.env",
        "/.git/config",
        "/favicon.ico",
        "/index.html",
        "/site",
        "/site/",
    ],
)
def test_an_unknown_path_is_a_problem(client: Client, method: str, path: str) -> None:
    assert_problem(client.http.request(method, path), 404, "unknown-route")


def test_a_head_for_an_unknown_path_has_the_headers_of_a_problem(client: Client) -> None:
    response = client.http.head("/nothing")
    assert (response.status_code, response.headers["Content-Type"]) == (404, "application/problem+json")
    assert response.content == b""
    assert request_id_of(response)


@pytest.mark.parametrize("path", ["/users", "/records", "/record", "/nothing", "/healthz"])
def test_a_url_that_is_too_long_is_a_problem(client: Client, path: str) -> None:
    assert_problem(client.http.get(f"{path}?{'x' * 40_000}"), 414, "uri-too-long", "8 KiB")


@pytest.mark.parametrize("path", ["/users", "/records", "/record", "/nothing"])
def test_a_url_of_four_kilobytes_is_accepted(client: Client, path: str) -> None:
    response = client.http.put(f"{path}?{'x' * 4000}")
    assert response.status_code in (404, 405)
    assert response.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("path", ["/users", "/users/me/token"])
def test_a_body_that_is_too_large_is_a_problem(base_url: str, path: str) -> None:
    head = make_request_head(
        "POST", path, base_url, "Content-Type: application/json", "Content-Length: 70000"
    )
    assert_problem(send_bytes(base_url, head), 413, "too-large", "65536")


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


def test_a_single_valued_header_that_is_sent_twice_is_a_problem(client: Client) -> None:
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
            b"GET /records?limit=\xc3\xa9 HTTP/1.1\r\nHost: localhost\r\n\r\n", id="raw UTF-8 in the query"
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
    assert_problem(send_bytes(base_url, request_bytes), 400, "invalid-request")


# nginx passes this header on, and the service refuses it.
CONTROL_CHARACTER = "X: a\x01b"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_control_character_in_a_header_is_a_problem(base_url: str, method: str) -> None:
    with open_raw_connection(base_url) as connection:
        connection.send(make_request_head(method, "/record", base_url, CONTROL_CHARACTER))
        response = connection.read_response(method)
        assert (response.status_code, response.headers["Content-Type"]) == (400, PROBLEM)
        if method == "GET":
            assert_problem(response, 400, "invalid-request")
        # nginx closes its connection to the service and keeps the client's.
        connection.send(make_request_head("GET", "/record", base_url))
        assert_problem(connection.read_response(), 400, "invalid-request", "'id'")


@pytest.mark.parametrize("framing", [f"Content-Length: {len(LARGE_BODY)}", "Transfer-Encoding: chunked"])
def test_a_malformed_request_gets_its_response_while_its_body_arrives(base_url: str, framing: str) -> None:
    body = LARGE_BODY
    if "chunked" in framing:
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(LARGE_BODY), LARGE_BODY)
    head = make_request_head("POST", "/records", base_url, CONTROL_CHARACTER, framing)
    for _ in range(10):
        assert_problem(send_bytes(base_url, head, body), 400, "invalid-request")


@pytest.mark.parametrize("path", ["/%72ecords", f"/records/{NOBODY.replace('4', '%34')}", "/user%73/me"])
def test_a_percent_escaped_path_is_unknown(client: Client, path: str) -> None:
    assert_problem(client.http.get(path), 404, "unknown-route")


@pytest.mark.parametrize("path", ["/openapi/users.json", "/openapi/records.json"])
def test_documents_of_the_services_are_read_only(client: Client, path: str) -> None:
    for method in ("PUT", "POST", "DELETE", "BREW"):
        response = client.http.request(method, path)
        assert_problem(response, 405, "method-not-allowed")
        assert {*response.headers["Allow"].split(", ")} == {"GET", "HEAD", "OPTIONS"}


@pytest.mark.parametrize(
    "path", ["/", "/healthz", "/docs", "/docs/", "/docs/page.js", "/problems/busy", "/site/app.js"]
)
def test_pages_of_the_gateway_are_read_only(client: Client, path: str) -> None:
    for method in ("GET", "HEAD"):
        assert client.http.request(method, path).status_code == 200
    for method in ("PUT", "POST", "DELETE", "OPTIONS", "BREW"):
        response = client.http.request(method, path)
        assert_problem(response, 405, "method-not-allowed")
        assert response.headers["Allow"] == "GET, HEAD"


@pytest.mark.parametrize("method", ["TRACE", "BREW"])
@pytest.mark.parametrize("path", ["/nothing", "/users/x", "/records/x"])
def test_an_unknown_path_names_no_allowed_methods(client: Client, method: str, path: str) -> None:
    response = client.http.request(method, path)
    assert_problem(response, 405, "method-not-allowed")
    assert "Allow" not in response.headers


@pytest.mark.parametrize("path", ["/users", "/records", "/record", "/readyz/users"])
def test_an_unknown_method_is_a_problem(client: Client, path: str) -> None:
    assert_problem(client.http.request("BREW", path), 405, "method-not-allowed")


@pytest.mark.parametrize(("method", "target"), [("TRACE", "/users"), ("CONNECT", "localhost:80")])
def test_a_method_that_nginx_refuses_is_a_problem(base_url: str, method: str, target: str) -> None:
    assert_problem(
        send_bytes(base_url, make_request_head(method, target, base_url)), 405, "method-not-allowed"
    )


def test_an_http_version_that_nginx_does_not_support_is_a_problem(base_url: str) -> None:
    response = send_bytes(base_url, b"GET /healthz HTTP/3.7\r\nHost: localhost\r\n\r\n")
    assert response.status_code == 505
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json()["request_id"] == request_id_of(response)


def test_a_transfer_coding_that_nginx_does_not_support_is_a_problem(base_url: str) -> None:
    response = send_bytes(base_url, make_request_head("POST", "/users", base_url, "Transfer-Encoding: gzip"))
    assert response.status_code == 501
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json()["request_id"] == request_id_of(response)


# Request ids


def test_every_response_has_a_request_id_that_the_client_cannot_choose(client: Client) -> None:
    given = "0123456789abcdef" * 2
    paths = ["/healthz", "/readyz/users", "/readyz/records", "/users", "/records", "/record", "/nothing"]
    responses = [client.http.get(path, headers={"X-Request-ID": given}) for path in paths]
    ids = [request_id_of(response) for response in responses]
    assert len({given, *ids}) == len(paths) + 1
    kinds = {response.headers["Content-Type"] for response in responses}
    assert kinds == {"application/json", "application/problem+json"}
    assert [response.status_code for response in responses] == [200, 200, 200, 405, 401, 400, 404]


@pytest.mark.parametrize("path", ["/healthz", "/readyz/users", "/users", "/record", "/nothing"])
def test_no_header_tells_more_about_the_server_than_nginx(client: Client, path: str) -> None:
    response = client.http.get(path)
    assert response.headers["Content-Type"] in ("application/json", "application/problem+json")
    assert response.status_code in (200, 400, 404, 405)
    assert response.headers.get_list("Server") == ["nginx"]
    assert not {"Via", "X-Powered-By", "Strict-Transport-Security", "Vary"} & {*response.headers}


# Internal paths


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
        "/_blob/whole/{sha256}/{modified}//records/{key}",
        "/_blob/range/{sha256}/{modified}/0-1/records/{key}",
        "/_blob/direct/{sha256}/{modified}/-/records/{key}",
        "//_blob/range/{sha256}/{modified}/0-1/records/{key}",
        "/users/../_blob/range/{sha256}/{modified}/0-1/records/{key}",
        "/%5fblob/range/{sha256}/{modified}/0-1/records/{key}",
        "/records/{key}",
        "/records/{key}/waveform",
        "/records/{key}/original",
        "/_lost/{id}",
        "/{key}",
    ],
)
def test_only_the_link_leads_to_the_bytes_of_a_record(
    base_url: str, record: dict[str, Any], path: str
) -> None:
    # The internal location of the bytes, as nginx sees it, and paths that come close to it.
    response = send_bytes(base_url, make_request_head("GET", path.format(**record), base_url))
    assert_problem(response, 404, "unknown-route")


@pytest.mark.parametrize(
    "path",
    [
        *("/metrics", "/users/metrics", "/records/metrics", "/readyz", "/readyz/", "/readyz/minio"),
        *("/healthz/", "/minio/health/live", "/minio/", "/_problem", "/@problem", "/problem", "/@store_away"),
        *(
            "/_upload",
            "/nginx_status",
            "/stub_status",
            "/schema",
            "/schema/openapi.json",
            "/records/",
            "/record/",
        ),
        *("//record", "//healthz", "/users//me"),
        *("/record/../metrics", "/users/../readyz", "/users/..;/metrics", "/users%2f..%2fmetrics"),
    ],
)
def test_internal_paths_cannot_be_reached_from_outside(base_url: str, path: str) -> None:
    assert_problem(send_bytes(base_url, make_request_head("GET", path, base_url)), 404, "unknown-route")


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT"])
@pytest.mark.parametrize(
    "path",
    ["/healthz", "/", "/docs", "/users/me", "/records", "/record", "/record/x.mp3", "/nothing", "/%41"],
)
def test_the_connection_is_kept_for_the_next_request(base_url: str, method: str, path: str) -> None:
    with open_raw_connection(base_url) as connection:
        connection.send(make_request_head(method, path, base_url))
        assert connection.read_response(method).headers["Connection"] == "keep-alive"
        connection.send(make_request_head("GET", "/healthz", base_url))
        assert assert_json(connection.read_response(), 200) == {"status": "ok"}


def test_only_the_path_of_uploads_itself_takes_uploads(base_url: str) -> None:
    for path in ("/x/../records", "//records", "/./records", "/_upload"):
        head = make_request_head("POST", path, base_url, "Content-Length: 0")
        assert_problem(send_bytes(base_url, head), 404, "unknown-route")


def test_a_smuggled_request_gets_no_response(base_url: str) -> None:
    inner = make_request_head("GET", "/metrics", base_url)
    host = urlsplit(base_url).netloc
    request = (
        f"POST /users HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(inner) + 5}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ).encode()
    with open_raw_connection(base_url) as connection:
        connection.send(request + inner)
        response = connection.read_response()
        assert_problem(response, 400, "invalid-request")
        assert response.headers["Connection"] == "close"


@pytest.mark.parametrize(
    ("method", "path", "status", "says"),
    [
        ("POST", "/records/", 404, "POST it to /records"),
        ("POST", "/upload", 404, "POST it to /records"),
        ("PUT", "/x", 404, "/docs"),
        ("POST", "/users/", 404, "POST it to /users"),
        ("POST", "/user", 404, "POST it to /users"),
        ("GET", f"/record/?id={NOBODY}", 404, "without the slash"),
        ("DELETE", f"/records/{NOBODY}/", 404, "without the slash"),
        ("GET", "/users/me/", 404, "without the slash"),
        ("GET", "/x/", 404, "/docs"),
        ("POST", "/", 405, "POST it to /records"),
        ("POST", "/record", 405, "POST it to /records"),
        ("POST", "/record/x.mp3", 405, "POST it to /records"),
        ("PUT", "/records", 405, "POST it to /records"),
        ("PATCH", "/records", 405, "Allow"),
        ("POST", f"/records/{NOBODY}", 405, "Allow"),
        ("POST", "/healthz", 405, "Allow"),
        ("POST", "/docs", 405, "Allow"),
        ("PATCH", "/users", 405, "Allow"),
    ],
)
def test_a_wrong_path_or_method_is_never_called_too_large(
    client: Client, method: str, path: str, status: int, says: str
) -> None:
    kind = {404: "unknown-route", 405: "method-not-allowed"}[status]
    assert_problem(client.http.request(method, path, content=bytes(3_000_000)), status, kind, says)


@pytest.mark.parametrize("target", ["/records?title=Gr\u00f6\u00dfe", "/r\u00e9cords", "/users?\u200b"])
def test_a_url_with_unescaped_characters_is_told_what_to_do(base_url: str, target: str) -> None:
    # curl sends a URL as it is.
    response = send_bytes(base_url, make_request_head("POST", target, base_url, "Content-Length: 0"))
    assert_problem(response, 400, "invalid-request", "Percent-encode")


def test_a_request_without_a_host_is_told_what_is_missing(base_url: str) -> None:
    response = send_bytes(base_url, b"GET /records HTTP/1.0\r\n\r\n")
    assert_problem(response, 421, "unknown-host", "no Host header")
