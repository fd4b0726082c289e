"""How smoothly the page for people scrolls through a long list of records, in Chromium."""

import statistics
from collections.abc import Iterator

from playwright.sync_api import Page

from deploy.local.stack import Stack
from tests.bench.results import Row
from tests.bench.rows import psql
from tests.browser.chromium import open_chromium
from tests.browser.people import Person

RECORDS = 10_000
STRETCH = 2_000
# As the page asks for them (api.js).
PAGE_RECORDS = 25
# They have no objects, so their waveforms are flat.
FILL = """\
INSERT INTO records (id, user_id, state, object_key, size_bytes, sha256, duration_seconds, sample_rate,
                     channels, bitrate_kbps, published_at, title, created_at)
SELECT gen_random_uuid(), '{user_id}', 'ready', gen_random_uuid(), 160000, sha256('x'), number / 3.0, 44100,
       2, 128, now(), 'Take ' || number, now() - number * interval '1 minute'
FROM generate_series(1, {count}) AS number
"""
COUNT_FRAMES = """() => {
    window.frames_ms = [];
    let last = performance.now();
    const next = (now) => { frames_ms.push(now - last); last = now; requestAnimationFrame(next); };
    requestAnimationFrame(next);
}"""
WHEEL_PIXELS = 1500
WHEEL_TURNS = 40
WHEEL_MS = 40


def measure_long_list(stack: Stack) -> Iterator[list[Row]]:
    """Scrolls to the end of the list and back, and yields the frames of each stretch."""
    with open_chromium(stack.base_url) as browser, browser.new_context(locale="en-GB") as context:
        person = Person(context.new_page(), stack.base_url)
        user = person.sign_up()
        psql(stack, FILL.format(user_id=user["id"], count=RECORDS))
        page = person.page
        page.reload()
        page.evaluate(COUNT_FRAMES)
        first: list[float] = []
        for loaded in range(STRETCH, RECORDS + 1, STRETCH):
            frames, seconds = _scroll_until(page, loaded)
            yield [
                _describe(
                    f"frames while records {loaded - STRETCH:,} to {loaded:,} come", frames, first, seconds
                )
            ]
            first = first or frames
        _take_frames(page)
        for _ in range(WHEEL_TURNS):
            page.mouse.wheel(0, -WHEEL_PIXELS)
            page.wait_for_timeout(WHEEL_MS)
        yield [_describe(f"frames while scrolling back, {RECORDS:,} loaded", _take_frames(page), first)]


def _scroll_until(page: Page, loaded: int) -> tuple[list[float], float]:
    """Scrolls down until so many records have come. Returns the frames in ms, and their sum in seconds."""
    _take_frames(page)
    while page.locator("#record-rows ul").count() * PAGE_RECORDS < loaded:
        page.mouse.wheel(0, 4 * WHEEL_PIXELS)
        page.wait_for_timeout(WHEEL_MS)
    frames = _take_frames(page)
    return frames, sum(frames) / 1000


def _take_frames(page: Page) -> list[float]:
    return list(page.evaluate("frames_ms.splice(0)"))


def _describe(what: str, frames: list[float], first: list[float], seconds: float | None = None) -> Row:
    median = statistics.median(frames)
    slowest = statistics.quantiles(frames, n=20)[-1]
    ratio = f"{median / statistics.median(first):.2f}" if first else "1"
    origin = f"median {median:.0f} ms, 95 % within {slowest:.0f} ms"
    return what, ratio, origin + (f"; {seconds:.0f} s" if seconds else "")
