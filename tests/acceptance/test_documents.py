"""What describes the API is served with it: the documents, their page, and what each problem means."""

import json
import re
from pathlib import Path

import pytest

from deploy.client import Client
from tests.acceptance.answers import assert_json, assert_problem

FOLDER = Path(__file__).parents[2] / "docs" / "openapi"
SERVICES = ["users", "records"]


@pytest.mark.parametrize("service", SERVICES)
def test_a_document_is_served_as_it_stands_in_the_repository(client: Client, service: str) -> None:
    served = assert_json(client.http.get(f"/openapi/{service}.json"), 200)
    assert served == json.loads((FOLDER / f"{service}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("service", SERVICES)
def test_every_type_of_problem_leads_to_its_paragraph(client: Client, service: str) -> None:
    types = set(re.findall(r'"(/problems/[^"]+)"', client.http.get(f"/openapi/{service}.json").text))
    assert len(types) > 5
    for one in types:
        answer = client.http.get(one)
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert one in answer.text


@pytest.mark.parametrize(
    "path",
    ["/problems", "/problems/", "/problems/nothing", "/docs/nothing", "/docs/a/b", "/openapi/nothing.json"],
)
def test_what_is_not_described_is_a_problem(client: Client, path: str) -> None:
    assert_problem(client.http.get(path), 404, "unknown-route")


@pytest.mark.parametrize("path", ["/docs", "/docs/"])
def test_the_page_consists_of_what_is_served_here(client: Client, path: str) -> None:
    page = client.http.get(path)
    assert (page.status_code, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert page.headers["Content-Security-Policy"].startswith("default-src 'self';")
    parts = re.findall('(?:src|href)="(/[^"]*)"', page.text)
    assert len(parts) == 4
    for part in parts:
        answer = client.http.get(part)
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].split(";")[0] in ("text/css", "text/javascript")
