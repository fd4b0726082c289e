"""The page behind a link, in Chromium: it plays with JavaScript and without, within its policy."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from deploy.client import Client
from tests.browser.test_player import upload
from tests.wavs import Wav, music

IS_DRAWN = """
    () => {
        const canvas = document.querySelector("#player:not([hidden]) canvas");
        if (!canvas?.width) return false;
        const { width, height } = canvas;
        // Of a copy: the browser complains if a canvas that it draws quickly is read again and again.
        const copy = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
        copy.drawImage(canvas, 0, 0);
        const { data } = copy.getImageData(0, 0, width, height);
        return data.some((value) => value);
    }
"""


@pytest.fixture
def faults(page: Page) -> Iterator[list[str]]:
    """What the console of the page says, such as a file that its policy forbids. It must stay empty."""
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    yield said
    assert said == []


@pytest.fixture
def record(client: Client, user: dict[str, Any]) -> dict[str, Any]:
    return upload(client, user, Wav().build(music(3.0)))


@pytest.mark.usefixtures("faults")
@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_the_page_draws_the_waveform_and_plays(
    page: Page, record: dict[str, Any], width: int, scheme: Any
) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme=scheme)
    page.goto(record["listen_url"])
    page.wait_for_function(IS_DRAWN)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    expect(page.locator("audio")).to_be_hidden()
    play = page.locator("#player .play")
    with page.expect_response(lambda response: "/record?" in response.url) as played:
        play.click()
    assert played.value.status in (200, 206)
    expect(play).to_have_class("round play is-playing")
    expect(page.locator(".facts")).to_have_text(re.compile("^0:0[1-3] / 0:03 ·"))


def test_the_page_plays_without_javascript(browser: Browser, record: dict[str, Any]) -> None:
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(record["listen_url"])
        expect(page.locator("audio[controls]")).to_be_visible()
        assert page.locator("audio").evaluate("(audio) => audio.src") == record["url"]


@pytest.mark.parametrize(
    ("locale", "title"), [("ru-RU", "Ссылка неполная"), ("en-GB", "This link is not complete")]
)
def test_a_browser_shows_a_page_for_a_link_that_is_cut(
    browser: Browser, record: dict[str, Any], locale: str, title: str
) -> None:
    with browser.new_context(locale=locale) as context:
        page = context.new_page()
        response = page.goto(record["url"][:-1])
        assert response
        assert response.status == 400
        expect(page.locator("h1")).to_have_text(title)
