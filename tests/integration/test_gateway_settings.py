"""What settings decide at the gateway: empty ones, TLS in front of it, and the scripts of other sites."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from deploy.local.ports import LOOPBACK
from deploy.local.stack import Stack
from tests.integration.recordings import SMALL, make_wav, upload_recording
from tests.stacks import temporary_stack
from tests.upload_requests import NOBODY

SITE = "https://player.example"


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """A stack behind a proxy that ends TLS, which lets the scripts of one site in. Two settings are empty."""
    settings = {
        "TRUSTED_PROXY": LOOPBACK,
        "CORS_ORIGINS": SITE,
        "MAX_UPLOAD_BYTES": "",
        "DOWNLOADS": "",
    }
    with temporary_stack(settings) as stack:
        yield stack


def test_an_empty_setting_means_its_default(stack: Stack) -> None:
    environment = stack.environment("records")
    assert ("MAX_UPLOAD_BYTES" in environment, environment["DOWNLOADS"]) == (False, "accel")


@pytest.mark.parametrize(("forwarded", "scheme"), [("https", "https"), ("http", "http"), ("gopher", "http")])
def test_a_trusted_proxy_decides_the_scheme_of_the_link(
    stack: Stack, owner: dict[str, Any], http: httpx.Client, forwarded: str, scheme: str
) -> None:
    headers = {
        "Authorization": f"Bearer {owner['token']}",
        "Content-Type": "audio/wav",
        "X-Forwarded-Proto": forwarded,
        "Host": "[2001:db8::1]:8443",
    }
    response = http.post("/records", content=make_wav(SMALL), headers=headers)
    record = response.json()
    link = f"{scheme}://[2001:db8::1]:8443/record?id={record['id']}&user={owner['id']}"
    assert (record["url"], response.headers["Location"]) == (link, link)


def cors_of(response: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in response.headers.items() if name.startswith("access-control-")}


def test_scripts_of_an_allowed_site_may_read_every_response(
    stack: Stack, owner: dict[str, Any], http: httpx.Client
) -> None:
    url = upload_recording(stack, owner)["url"]
    requests: list[dict[str, str]] = [{}, {"Range": "bytes=0-9"}, {"If-Match": "*"}, {"If-None-Match": "*"}]
    responses = [http.get(url, headers={"Origin": SITE, **headers}) for headers in requests]
    responses += [http.get(path, headers={"Origin": SITE}) for path in ("/users/me", "/records", "/record")]
    assert [response.status_code for response in responses] == [200, 206, 200, 304, 401, 401, 400]
    for response in responses:
        cors = cors_of(response)
        assert "Content-Range" in cors.pop("access-control-expose-headers")
        assert cors == {"access-control-allow-origin": SITE}
    # A browser that opens a link gets a page instead of a problem.
    varies = [response.headers.get_list("Vary") for response in responses]
    assert varies == [["Origin"]] * 6 + [["Accept, Accept-Language,Origin"]]


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/users", {"POST", "OPTIONS"}),
        ("/users/me", {"GET", "HEAD", "DELETE", "OPTIONS"}),
        ("/records", {"GET", "HEAD", "POST", "OPTIONS"}),
        ("/record?id=x", {"GET", "HEAD", "OPTIONS"}),
        (f"/records/{NOBODY}", {"GET", "HEAD", "PATCH", "DELETE", "OPTIONS"}),
    ],
)
def test_a_preflight_of_an_allowed_site_lists_the_methods_of_the_path(
    http: httpx.Client, path: str, methods: set[str]
) -> None:
    preflight = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "Range, If-Range"}
    response = http.options(path, headers={"Origin": SITE, **preflight})
    assert (response.status_code, response.content) == (204, b"")
    cors = cors_of(response)
    assert set(cors["access-control-allow-methods"].split(", ")) == methods
    assert {"range", "if-range", "authorization"} <= set(cors["access-control-allow-headers"].split(", "))
    assert cors["access-control-allow-origin"] == SITE
    assert int(cors["access-control-max-age"]) > 0


@pytest.mark.parametrize("origin", [None, "https://evil.example", f"{SITE}.evil.example", "null"])
def test_scripts_of_other_sites_may_read_nothing(
    stack: Stack, owner: dict[str, Any], http: httpx.Client, origin: str | None
) -> None:
    url = upload_recording(stack, owner)["url"]
    headers = {"Origin": origin} if origin else {}
    preflight = headers | {"Access-Control-Request-Method": "PUT"}
    responses = [
        *(http.get(url, headers=headers), http.get(url, headers={**headers, "Range": "bytes=0-9"})),
        *(http.get("/records", headers=headers), http.options(url, headers=headers)),
        *(http.options(url, headers=preflight), http.options("/users", headers=preflight)),
    ]
    assert [response.status_code for response in responses] == [200, 206, 401, 204, 204, 204]
    for response in responses:
        assert cors_of(response) == {}
        # Without Vary a cache could give this response to the allowed site.
        assert response.headers.get_list("Vary") == ["Origin"]


def test_a_preflight_for_another_host_is_refused(http: httpx.Client) -> None:
    headers = {"Origin": SITE, "Access-Control-Request-Method": "GET", "Host": "evil.example"}
    response = http.options("/record", headers=headers)
    assert (response.status_code, response.headers["Content-Type"]) == (421, "application/problem+json")
