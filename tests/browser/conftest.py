"""Chromium, as the system has it."""

import os
import shutil
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

ARGUMENTS = [
    *("--disable-gpu", "--disable-background-networking", "--autoplay-policy=no-user-gesture-required"),
    # In a container it is small.
    "--disable-dev-shm-usage",
]


@pytest.fixture(scope="session")
def browser(base_url: str) -> Iterator[Browser]:
    """One Chromium for all tests, for which there is no other host than Waxwing's."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if not chromium:
        pytest.fail("Install Chromium (Debian: apt-get install chromium), or name it in CHROMIUM.")
    rules = f"--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE {urlsplit(base_url).hostname}"
    with sync_playwright() as playwright:
        # As root, which CI is, Chromium has no sandbox.
        browser = playwright.chromium.launch(
            executable_path=chromium, args=[*ARGUMENTS, rules], chromium_sandbox=os.geteuid() != 0
        )
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A new tab of a new visitor."""
    with browser.new_context() as context:
        yield context.new_page()
