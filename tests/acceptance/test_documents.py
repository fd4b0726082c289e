"""The API serves its own description: OpenAPI documents, the page /docs, and a page for each problem."""

import json
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import httpx
import pytest
from openapi_schema_validator import OAS31Validator

from deploy.client import Client
from tests.response_checks import assert_json, assert_problem
from tests.upload_requests import TINY_WAV, WAV_TYPE, basic, bearer

FOLDER = Path(__file__).parents[2] / "docs" / "openapi"
SERVICES = ["users", "records"]
# Headers that HTTP has on every response, and headers for browsers; the documents do not list them.
UNDOCUMENTED = {
    *("server", "date", "connection", "content-type", "content-length", "vary"),
    *("x-content-type-options", "content-security-policy", "referrer-policy", "x-robots-tag"),
}
OPTIONAL = {"idempotency-replayed"}
UNKNOWN_HOST = {"Host": "elsewhere.example"}


@pytest.mark.parametrize("service", SERVICES)
def test_a_served_document_is_the_one_in_the_repository(client: Client, service: str) -> None:
    served = assert_json(client.http.get(f"/openapi/{service}.json"), 200)
    assert served == json.loads((FOLDER / f"{service}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("service", SERVICES)
def test_the_type_of_every_problem_is_a_page_that_explains_it(client: Client, service: str) -> None:
    types = set(re.findall("/problems/[a-z-]+", client.http.get(f"/openapi/{service}.json").text))
    assert len(types) > 5
    for one in types:
        response = client.http.get(one)
        assert (response.status_code, response.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert one in response.text


@pytest.mark.parametrize(
    "path",
    [
        *("/problems", "/problems/", "/problems/nothing", "/docs/nothing", "/docs/a/b", "/site/nothing"),
        *("/openapi/nothing.json", "/site/index.html"),
    ],
)
def test_an_unknown_page_is_a_problem(client: Client, path: str) -> None:
    assert_problem(client.http.get(path), 404, "unknown-route")


PAGES = ["/", "/docs", "/docs/", "/docs/page.js", "/problems/unavailable", "/site/app.js"]
DOCUMENTS = ["/openapi/users.json", "/openapi/records.json"]


@pytest.mark.parametrize("path", DOCUMENTS)
def test_a_document_names_its_methods(client: Client, path: str) -> None:
    options, put = client.http.options(path), client.http.put(path)
    assert options.status_code == 204
    assert_problem(put, 405, "method-not-allowed")
    for response in (options, put):
        assert {*response.headers["Allow"].split(", ")} == {"GET", "HEAD", "OPTIONS"}


@pytest.mark.parametrize("path", PAGES + DOCUMENTS)
def test_head_has_the_headers_of_get(client: Client, path: str) -> None:
    head, get = client.http.head(path), client.http.get(path)
    assert (head.status_code, head.content) == (200, b"")
    # nginx compresses a page while it sends the page, so only the response to GET says how it is sent.
    own = {"date", "x-request-id", "transfer-encoding"}
    received, expected = ({k: v for k, v in one.headers.items() if k not in own} for one in (head, get))
    assert received == expected


@pytest.mark.parametrize("path", ["/docs", "/docs/"])
def test_the_page_loads_nothing_from_other_hosts(client: Client, path: str) -> None:
    page = client.http.get(path)
    assert (page.status_code, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert page.headers["Content-Security-Policy"].startswith("default-src 'self';")
    paths = re.findall('(?:src|href)="(/[^"]*)"', page.text)
    assert len(paths) == 4
    for loaded in paths:
        response = client.http.get(loaded)
        assert response.status_code == 200
        assert response.headers["Content-Type"].split(";")[0] in ("text/css", "text/javascript")


def send_request(client: httpx.Client, request: str, variables: dict[str, str]) -> httpx.Response:
    """Sends one request of requests.http as an editor does; the WAV stands in for `< file`."""
    filled = re.sub(r"\{\{(\w+)\}\}", lambda name: variables[name[1]], request.strip())
    head, _, body = filled.partition("\n\n")
    first, *headers = head.splitlines()
    method, url = first.split()
    content = TINY_WAV if body.startswith("< ") else body.encode()
    return client.request(method, url, headers=dict(line.split(": ") for line in headers), content=content)


def test_the_requests_in_requests_http_succeed_from_top_to_bottom(client: Client) -> None:
    preface, *requests = (FOLDER / "requests.http").read_text(encoding="utf-8").split("\n### ")
    variables = dict(re.findall("^@(\\w+) = ?(.*)$", preface, re.MULTILINE))
    variables["gateway"] = str(client.http.base_url).rstrip("/")
    for request in requests:
        name, _, lines = request.partition("\n")
        response = send_request(client.http, lines, variables)
        assert response.is_success, (name, response.text)
        # The preface asks the reader to fill in these variables.
        if name == "Create a user":
            variables |= {"user": response.json()["id"], "token": response.json()["token"]}
        elif name == "Upload a WAV":
            variables["record"] = response.json()["id"]
        elif name == "Get a new token":
            variables["new_token"] = response.json()["token"]
    assert len(requests) >= 10


def request_users(client: httpx.Client, user: dict[str, Any]) -> Iterator[tuple[str, httpx.Response]]:
    """Yields responses, each with its path in the document; the last request deletes the user."""
    for body in (b'{"name": "Ann"}', b"{}", b" " * 70_000):
        yield "/users", client.post("/users", content=body, headers={"Content-Type": "application/json"})
    yield "/users", client.post("/users", content=b"Ann")
    for headers in ({}, UNKNOWN_HOST, basic(user)):
        for method in ("GET", "HEAD"):
            yield "/users/me", client.request(method, "/users/me", headers=headers)
    renewed = client.post("/users/me/token", headers=bearer(user))
    yield "/users/me/token", renewed
    yield "/users/me/token", client.post("/users/me/token", headers=bearer(user))
    for _ in range(2):
        yield "/users/me", client.delete("/users/me", headers=bearer(renewed.json()))


def request_records(client: httpx.Client, user: dict[str, Any]) -> Iterator[tuple[str, httpx.Response]]:
    """Yields responses, each with its path in the document; the last request deletes the record."""
    mine = bearer(user)
    made = client.post("/records?keep_original=true", content=TINY_WAV, headers=WAV_TYPE | mine)
    yield "/records", made
    link, path = made.json()["url"], f"/records/{made.json()['id']}"
    for body in (b"RIFF", b"This is no WAV. " * 9):
        yield "/records", client.post("/records", content=body, headers=WAV_TYPE | mine)
    yield "/records", client.post("/records", content=TINY_WAV, headers=WAV_TYPE)
    yield "/records", client.post("/records?x=1", content=TINY_WAV, headers=WAV_TYPE | mine)
    yield "/records", client.post("/records", content=TINY_WAV, headers=mine)
    for method in ("GET", "HEAD"):
        for query in ("", "?limit=0"):
            yield "/records", client.request(method, f"/records{query}", headers=mine)
        for other in (path, f"/records/{user['id']}", "/records/1"):
            yield "/records/{record_id}", client.request(method, other, headers=mine)
        for headers in ({}, {"If-None-Match": "*"}, {"If-Match": '"1"'}, UNKNOWN_HOST):
            yield "/record", client.request(method, link, headers=headers)
            waveform = client.request(method, f"{path}/waveform?user={user['id']}", headers=headers)
            yield "/records/{record_id}/waveform", waveform
        for span in ("0-9", "999999-"):
            yield "/record", client.request(method, link, headers={"Range": f"bytes={span}"})
        for query in ("", f"?id={user['id']}&user={user['id']}"):
            yield "/record", client.request(method, f"/record{query}")
        for other in (path, "/records/1"):
            waveform = client.request(method, f"{other}/waveform?points=0", headers=mine)
            yield "/records/{record_id}/waveform", waveform
        yield "/records/{record_id}/waveform", client.request(method, f"{path}/waveform")
    yield from request_page(client, user, link)
    yield from request_rename(client, user, path)
    yield from request_original(client, user, path)
    for _ in range(2):
        yield "/records/{record_id}", client.delete(path, headers=mine)


def request_page(
    client: httpx.Client, user: dict[str, Any], link: str
) -> Iterator[tuple[str, httpx.Response]]:
    """Does the same for the page behind a link, and for its picture."""
    for method, path in product(("GET", "HEAD"), ("/listen", "/listen.png")):
        conditions = ({"If-None-Match": "*"}, {"If-Match": '"1"'}) if path == "/listen.png" else ()
        for headers in ({}, UNKNOWN_HOST, *conditions):
            yield path, client.request(method, link.replace("/record", path), headers=headers)
        for query in ("", f"?id={user['id']}&user={user['id']}"):
            yield path, client.request(method, f"{path}{query}")


def request_rename(
    client: httpx.Client, user: dict[str, Any], record: str
) -> Iterator[tuple[str, httpx.Response]]:
    """Does the same for the title of a record."""
    path, mine = "/records/{record_id}", bearer(user)
    for body in (b'{"title": "A title"}', b"{}"):
        yield path, client.patch(record, content=body, headers={"Content-Type": "application/json"} | mine)
    yield path, client.patch(record, content=b"A title", headers=mine)
    for other in (record, f"/records/{user['id']}", "/records/1"):
        headers = {} if other == record else mine
        yield path, client.patch(other, json={"title": "A title"}, headers=headers)


def request_original(
    client: httpx.Client, user: dict[str, Any], record: str
) -> Iterator[tuple[str, httpx.Response]]:
    """Does the same for the original of a record, and deletes it."""
    path, mine = "/records/{record_id}/original", bearer(user)
    for method in ("GET", "HEAD"):
        for headers in (
            *({}, {"If-None-Match": "*"}, {"If-Match": '"1"'}, UNKNOWN_HOST),
            *({"Range": "bytes=0-9"}, {"Range": "bytes=999999-"}),
        ):
            yield path, client.request(method, f"{record}/original", headers=mine | headers)
        yield path, client.request(method, f"{record}/original")
        for other in (f"{record}/original?x=1", f"/records/{user['id']}/original", "/records/1/original"):
            yield path, client.request(method, other, headers=mine)
    for headers in ({}, mine, mine):
        yield path, client.delete(f"{record}/original", headers=headers)
    yield path, client.get(f"{record}/original", headers=mine)


@pytest.mark.parametrize(("service", "requests"), [("users", request_users), ("records", request_records)])
def test_status_headers_and_body_of_responses_are_as_documented(
    client: Client, user: dict[str, Any], service: str, requests: Any
) -> None:
    document = json.loads((FOLDER / f"{service}.json").read_text(encoding="utf-8"))
    seen = set()
    for path, response in requests(client.http, user):
        method = response.request.method.lower()
        seen.add((path, method))
        documented = document["paths"][path][method]["responses"][str(response.status_code)]
        headers = {name.lower() for name in documented["headers"]} - OPTIONAL
        assert {*response.headers} - UNDOCUMENTED - OPTIONAL == headers, response.request
        if "content" in documented:
            content = documented["content"][response.headers["Content-Type"].partition(";")[0]]
            if "json" in response.headers["Content-Type"]:
                schema = {**content["schema"], "components": document["components"]}
                OAS31Validator(schema, format_checker=OAS31Validator.FORMAT_CHECKER).validate(response.json())
        else:
            assert response.content == b""
    assert seen == {(path, method) for path, methods in document["paths"].items() for method in methods}
