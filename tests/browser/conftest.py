"""The Chromium that the system has installed."""

import os
import shutil
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.browser.people import Person

ARGUMENTS = [
    *("--disable-gpu", "--disable-background-networking", "--autoplay-policy=no-user-gesture-required"),
    # Chromium's own microphone beeps once a second, and asks nobody.
    *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
    # /dev/shm is small in a container.
    "--disable-dev-shm-usage",
]


@pytest.fixture(scope="session")
def browser(base_url: str) -> Iterator[Browser]:
    """One Chromium for all tests. It can resolve no host but Waxwing's."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if not chromium:
        pytest.fail("Install Chromium (Debian: apt-get install chromium), or set CHROMIUM to its path.")
    rules = f"--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE {urlsplit(base_url).hostname}"
    with sync_playwright() as playwright:
        # CI runs as root, where Chromium cannot use its sandbox.
        browser = playwright.chromium.launch(
            executable_path=chromium, args=[*ARGUMENTS, rules], chromium_sandbox=os.geteuid() != 0
        )
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A new tab without cookies or cache."""
    with browser.new_context() as context:
        yield context.new_page()


@pytest.fixture
def person(browser: Browser, base_url: str) -> Iterator[Person]:
    """Somebody who speaks English and opens the page for people. At the end, the page has logged no error."""
    with browser.new_context(locale="en-GB", permissions=["clipboard-read", "clipboard-write"]) as context:
        person = Person(context.new_page(), base_url)
        yield person
        assert not person.errors
