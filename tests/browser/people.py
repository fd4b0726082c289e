"""Uses the page for people as a person does, and looks at it: with axe, and in screenshots."""

import base64
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import ConsoleMessage, Locator, Page, expect

from deploy.client import Client

# A folder for screenshots (`just screenshots`); without it nobody takes any.
SCREENSHOTS = os.environ.get("SCREENSHOTS")
# The views whose screenshots the documentation shows.
SHOWN = ("welcome", "uploads", "records", "recording")
WIDE = 1280
WIDTHS = {WIDE: 900, 390: 844}
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
# Slower than any file of the tests is sent at once.
SLOW_BYTES_PER_SECOND = 300_000
# An upload that broke off is repeated after pauses of some seconds.
PATIENT = 60_000
expect.set_options(timeout=15_000)


class Person:
    """A person at the page. `errors` is what the browser logged; `expected` are statuses that it may log."""

    def __init__(self, page: Page, base_url: str) -> None:
        self.page = page
        self.base_url = base_url
        self.errors: list[str] = []
        self.expected: set[int] = set()
        page.on("console", self._listen)
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def _listen(self, message: ConsoleMessage) -> None:
        status = re.search(r"the server responded with a status of (\d+)", message.text)
        if message.type == "error" and not (status and int(status[1]) in self.expected):
            self.errors.append(message.text)

    def sign_up(self, name: str = "Ann", *, remember: bool = False) -> dict[str, str]:
        """Creates a user on the page and returns its id and token."""
        self.page.goto(self.base_url)
        self.page.get_by_label("Your name").fill(name)
        self.button("Start").click()
        shown = {key: self.page.locator(f"#new-{key}") for key in ("id", "token")}
        for each in shown.values():
            expect(each).not_to_be_empty()
        user = {key: each.inner_text() for key, each in shown.items()}
        self.page.locator("#credentials").get_by_label("Remember me").set_checked(remember)
        self.page.get_by_label("I have saved both").check()
        self.button("Continue").click()
        expect(self.page.get_by_text("Nothing here yet")).to_be_visible()
        return user

    def sign_in(self, user: dict[str, str]) -> None:
        """Signs in, on the first view of the page."""
        self.page.get_by_label("User id", exact=True).fill(user["id"])
        self.page.get_by_label("Token", exact=True).fill(user["token"])
        self.button("Sign in").click()

    def button(self, name: str) -> Locator:
        """The button of this name."""
        return self.page.get_by_role("button", name=name, exact=True)

    def drop(self, **files: bytes) -> None:
        """Drops files on the page. A name stands for `<name>.wav`."""
        encoded = [[f"{name}.wav", base64.b64encode(octets).decode()] for name, octets in files.items()]
        dropped = self.page.evaluate_handle(
            """(files) => {
                const dropped = new DataTransfer();
                for (const [name, octets] of files) {
                    const bytes = Uint8Array.from(atob(octets), (letter) => letter.charCodeAt(0));
                    dropped.items.add(new File([bytes], name, { type: "audio/wav" }));
                }
                return dropped;
            }""",
            encoded,
        )
        self.page.dispatch_event("#drop", "dragover", {"dataTransfer": dropped})
        expect(self.page.locator("#drop")).to_have_class(re.compile("is-over"))
        self.page.dispatch_event("#drop", "drop", {"dataTransfer": dropped})

    def record(self, title: str) -> Locator:
        """The row of a record."""
        return self.page.locator(".record").filter(
            has=self.page.get_by_role("heading", name=title, exact=True)
        )

    def upload(self, name: str) -> Locator:
        """The row of an upload."""
        return self.page.locator(".upload").filter(has_text=name)

    @contextmanager
    def slow_network(self) -> Iterator[None]:
        """Lets bytes leave slowly meanwhile, so that the page shows uploads under way."""
        network = self.page.context.new_cdp_session(self.page)
        conditions = {"offline": False, "latency": 0, "downloadThroughput": -1}
        for bytes_per_second in (SLOW_BYTES_PER_SECOND, -1):
            network.send(
                "Network.emulateNetworkConditions", {**conditions, "uploadThroughput": bytes_per_second}
            )
            if bytes_per_second > 0:
                yield

    def look(self, view: str) -> None:
        """Asserts that axe finds nothing in this view of the page, light and dark, wide and narrow."""
        for width, height in WIDTHS.items():
            self.page.set_viewport_size({"width": width, "height": height})
            for scheme in SCHEMES:
                # An element that still changes its colours has no contrast to judge.
                self.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
                if width == WIDE:
                    found = Axe().run(self.page)
                    assert not found.violations_count, found.generate_report()
                is_wider = "document.documentElement.scrollWidth > innerWidth"
                assert not self.page.evaluate(is_wider), f"{view} is wider than {width} pixels"
                if SCREENSHOTS and view in SHOWN:
                    self._keep(Path(SCREENSHOTS) / f"{view}-{width}-{scheme}.webp")
        self.page.emulate_media(color_scheme="light", reduced_motion="no-preference")
        self.page.set_viewport_size({"width": WIDE, "height": WIDTHS[WIDE]})

    def _keep(self, file: Path) -> None:
        self.page.evaluate("scrollTo(0, 0)")
        browser = self.page.context.new_cdp_session(self.page)
        shot = browser.send("Page.captureScreenshot", {"format": "webp", "quality": 80})
        file.write_bytes(base64.b64decode(shot["data"]))


def count_records(client: Client, user: dict[str, str]) -> int:
    """Returns how many records the user has."""
    credentials = (user["id"], user["token"])
    return len(client.http.get("/records", auth=credentials).raise_for_status().json()["records"])
