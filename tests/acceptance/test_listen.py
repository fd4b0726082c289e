"""GET /listen and GET /listen.png: the page behind a link, and the page of a link that fails."""

import re
from html.parser import HTMLParser
from io import BytesIO
from typing import Any

import httpx
import pytest
from PIL import Image

from deploy.client import Client
from tests.acceptance.upload_client import post_wav
from tests.response_checks import assert_json, assert_problem, request_id_of
from tests.upload_requests import NOBODY, bearer
from tests.wavs import Wav, music

# As Firefox sends it when it opens a page.
BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
PLAYERS = ("*/*", "audio/webm,audio/ogg,audio/*;q=0.9,*/*;q=0.5", "application/json", "text/html;q=0.5,*/*")
TITLE = """Chor <b>"1" & '2'</b>: Репетиция"""
HTML = "text/html; charset=utf-8"


class Page(HTMLParser):
    """The language, the text and the attributes of a page."""

    def __init__(self, response: httpx.Response) -> None:
        super().__init__()
        self.text, self.tags = "", list[tuple[str, dict[str, str]]]()
        self.feed(response.text)
        self.language = self.tags[0][1]["lang"]
        self.meta = {
            each.get("property", each.get("name", "")): each.get("content", "")
            for tag, each in self.tags
            if tag == "meta"
        }

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text += data


def get_page(client: Client, url: str, status: int = 200, **headers: str) -> Page:
    response = client.http.get(url, headers={**BROWSER, **headers})
    assert (response.status_code, response.headers["Content-Type"]) == (status, HTML)
    policy = response.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert response.headers["X-Robots-Tag"] == "noindex"
    assert response.headers["Referrer-Policy"] == "no-referrer"
    assert "Accept-Language" in response.headers["Vary"]
    assert request_id_of(response)
    page = Page(response)
    assert page.meta["robots"] == "noindex"
    assert not re.search(r"<style|style=|<script(?! type=\"module\" src=\"/site/)", response.text)
    return page


def picture_url(record: dict[str, Any]) -> str:
    return str(record["listen_url"].replace("/listen?", "/listen.png?"))


@pytest.fixture(scope="module")
def record(base_url: str) -> dict[str, Any]:
    with Client(base_url) as client:
        user = client.create_user("Owner")
        return assert_json(post_wav(client, user, Wav().build(music(2.4)), title=TITLE), 201)


def test_the_page_shows_and_plays_the_record_of_its_link(client: Client, record: dict[str, Any]) -> None:
    assert record["listen_url"] == record["url"].replace("/record?", "/listen?")
    page = get_page(client, record["listen_url"])
    assert TITLE in page.text
    assert "0:02" in page.text
    assert record["created_at"][:10] in page.text
    # Under the name by which the page was opened: a policy (CSP) forbids every other one.
    path = record["url"][record["url"].index("/record?") :]
    assert ("audio", {"controls": "", "preload": "none", "src": path}) in page.tags
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert {record["url"], path + "&download=1"} <= {*links}
    for path in [each.get("src", each.get("href")) for tag, each in page.tags if tag in ("script", "link")]:
        assert client.http.get(path or "").status_code == 200


def test_the_page_has_what_a_preview_needs(client: Client, record: dict[str, Any]) -> None:
    meta = get_page(client, record["listen_url"]).meta
    expected = {
        "og:title": TITLE,
        "og:type": "music.song",
        "og:url": record["listen_url"],
        "og:audio": record["url"],
        "og:audio:type": "audio/mpeg",
        "og:image": picture_url(record),
        "music:duration": "2",
        "twitter:card": "summary_large_image",
        "twitter:title": TITLE,
        "twitter:image": picture_url(record),
    }
    assert meta.items() >= expected.items()


@pytest.mark.parametrize(
    ("accepted", "language"),
    [("", "en"), ("*", "en"), ("de", "en"), ("ru-RU,ru;q=0.9,en;q=0.5", "ru"), ("en-GB,ru;q=0.9", "en")],
)
def test_the_page_has_the_reader_s_language(
    client: Client, user: dict[str, Any], accepted: str, language: str
) -> None:
    untitled = assert_json(post_wav(client, user), 201)
    page = get_page(client, untitled["listen_url"], 200, **{"Accept-Language": accepted})
    assert page.language == language
    assert {"en": "Untitled", "ru": "Без названия"}[language] in page.text
    refusal = get_page(client, "/listen", 400, **{"Accept-Language": accepted})
    assert refusal.language == language


def test_the_page_has_the_title_after_a_rename(client: Client, user: dict[str, Any]) -> None:
    record = assert_json(post_wav(client, user, title="First"), 201)
    path = f"/records/{record['id']}"
    assert_json(client.http.patch(path, json={"title": "Second"}, headers=bearer(user)), 200)
    assert get_page(client, record["listen_url"]).meta["og:title"] == "Second"


def test_the_picture_is_the_waveform_and_comes_from_the_cache_unchanged(
    client: Client, record: dict[str, Any]
) -> None:
    first, second = (client.http.get(picture_url(record)) for _ in range(2))
    assert first.content == second.content
    image = Image.open(BytesIO(first.content))
    assert (image.format, image.size) == ("PNG", (1200, 630))
    assert len(image.getcolors(1 << 20) or []) > 2
    for response in (first, second):
        assert (response.status_code, response.headers["Content-Type"]) == (200, "image/png")
        assert response.headers["Cache-Control"] == "private, no-cache"
        assert response.headers["X-Robots-Tag"] == "noindex"
        assert response.headers["ETag"] == f'"{record["sha256"]}-picture"'
    assert request_id_of(first) != request_id_of(second)
    known = {"If-None-Match": first.headers["ETag"]}
    unchanged = client.http.get(picture_url(record), headers=known)
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    other = client.http.get(picture_url(record), headers={"If-Match": '"other"'})
    assert_problem(other, 412, "precondition-failed")


@pytest.mark.parametrize("path", ["/listen", "/listen.png"])
def test_head_has_the_headers_of_get(client: Client, record: dict[str, Any], path: str) -> None:
    url = record["listen_url"].replace("/listen", path)
    get, head = client.http.get(url), client.http.head(url)
    assert (head.status_code, head.content) == (200, b"")
    for name in ("Content-Type", "Content-Length", "Cache-Control", "X-Robots-Tag"):
        assert head.headers[name] == get.headers[name]


def test_page_and_picture_of_a_deleted_record_are_gone(client: Client, user: dict[str, Any]) -> None:
    record = assert_json(post_wav(client, user), 201)
    for _ in range(2):
        assert client.http.get(picture_url(record)).status_code == 200
    assert client.http.delete(f"/records/{record['id']}", headers=bearer(user)).status_code == 204
    for url in (record["url"], record["listen_url"]):
        assert "404" in get_page(client, url, 404).text
        assert_problem(client.http.get(url), 404, "unknown-record")
    assert_problem(client.http.get(picture_url(record)), 404, "unknown-record")


@pytest.mark.parametrize("path", ["/record", "/listen"])
@pytest.mark.parametrize(("query", "status"), [("id=x", 400), (f"id={NOBODY}&user={NOBODY}", 404)])
def test_only_a_browser_that_opens_a_link_gets_a_page_for_a_problem(
    client: Client, path: str, query: str, status: int
) -> None:
    page = get_page(client, f"{path}?{query}", status)
    assert str(status) in page.text
    names = {400: "invalid-request", 404: "unknown-record"}
    for accept in PLAYERS:
        response = client.http.get(f"{path}?{query}", headers={"Accept": accept})
        assert_problem(response, status, names[status])
        assert response.headers["Vary"].startswith("Accept, Accept-Language")
    head = client.http.head(f"{path}?{query}", headers=BROWSER)
    assert (head.status_code, head.headers["Content-Type"], head.content) == (status, HTML, b"")


def test_a_browser_gets_problems_elsewhere_and_the_mp3_of_a_link_that_works(
    client: Client, record: dict[str, Any]
) -> None:
    assert_problem(client.http.get("/records", headers=BROWSER), 401, "invalid-credentials")
    assert_problem(client.http.get("/listen.png", headers=BROWSER), 400, "invalid-request")
    assert client.http.get(record["url"], headers=BROWSER).headers["Content-Type"] == "audio/mpeg"


@pytest.mark.parametrize("behind", [").", "%29", "\u00bb", ">", "&amp;utm_source=x"])
def test_a_pasted_link_opens_its_page_despite_what_the_text_left_behind_it(
    client: Client, record: dict[str, Any], behind: str
) -> None:
    get_page(client, record["listen_url"] + behind)


def test_no_client_gets_a_picture_unchecked(client: Client, record: dict[str, Any]) -> None:
    path = f"/_picture/{record['user_id']}/{record['id']}"
    assert_problem(client.http.get(path), 404, "unknown-route")
