"""The Chromium that the system has installed."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from playwright.sync_api import Browser, sync_playwright

ARGUMENTS = [
    *("--disable-gpu", "--disable-background-networking", "--autoplay-policy=no-user-gesture-required"),
    # Chromium's own microphone beeps once a second, and asks nobody.
    *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
    # /dev/shm is small in a container.
    "--disable-dev-shm-usage",
]


@contextmanager
def open_chromium(base_url: str) -> Iterator[Browser]:
    """Opens a Chromium that can resolve no host but Waxwing's. Raises FileNotFoundError without one."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if not chromium:
        raise FileNotFoundError(
            "Install Chromium (Debian: apt-get install chromium), or set CHROMIUM to its path."
        )
    rules = f"--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE {urlsplit(base_url).hostname}"
    with sync_playwright() as playwright:
        # CI runs as root, where Chromium cannot use its sandbox.
        browser = playwright.chromium.launch(
            executable_path=chromium, args=[*ARGUMENTS, rules], chromium_sandbox=os.geteuid() != 0
        )
        yield browser
        browser.close()
