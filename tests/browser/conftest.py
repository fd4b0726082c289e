"""Chromium, a new tab, and a person at the page."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from tests.browser.chromium import open_chromium
from tests.browser.people import Person


@pytest.fixture(scope="session")
def browser(base_url: str) -> Iterator[Browser]:
    """One Chromium for all tests. It can resolve no host but Waxwing's."""
    with open_chromium(base_url) as browser:
        yield browser


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
