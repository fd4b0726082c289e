"""`just charts`: draws the charts of RESULTS.md into docs/images/charts, each for light and for dark pages.

A chart reads nothing but RESULTS.md. So it never contradicts the tables, and needs no new measurement.
"""

import io
import re
from collections.abc import Callable
from pathlib import Path
from textwrap import fill
from typing import NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.bench.results import Section, read_results

FOLDER = Path(__file__).parents[2] / "docs" / "images" / "charts"
MINUTES = {"10 s": 10 / 60, "60 s": 1, "10 min": 10, "60 min": 60}

# All lengths are points. A screen of 390 CSS pixels shows a chart at three quarters of its size.
WIDTH = 360
LINE = 16
# Readers have one of these fonts. DejaVu Sans is wider than these, so every text fits.
FONTS = "system-ui, -apple-system, 'Segoe UI', 'Liberation Sans', Arial, sans-serif"


class Colours(NamedTuple):
    """The colours of one scheme. Texts have a contrast of 4.5:1 or more to the page, and the rest 3:1."""

    text: str
    soft: str
    ours: str
    other: str


# `ours` is the accent of the page for people. It differs from the grey in every kind of colour blindness.
SCHEMES = {
    "light": Colours("#1f2328", "#59636e", "#c67c00", "#868c96"),
    "dark": Colours("#f0f6fc", "#9198a1", "#f2b237", "#6e7681"),
}


class Chart(NamedTuple):
    title: str
    # Two lines of 56 characters at most.
    subtitle: str
    section: Section
    draw: Callable[[Axes, Colours], None]
    height: float
    scale: str = ""


class Bar(NamedTuple):
    name: str
    # As RESULTS.md has it, such as "0.061 s".
    label: str
    is_ours: bool = True


def number(label: str) -> float:
    return float(label.split(maxsplit=1)[0])


def quantities(section: Section, what: str, count: int) -> list[str]:
    """Returns the numbers with units that a result comes from."""
    _, origin = section.row(what)
    found = re.findall(r"[\d.]+ (?:ms|s|/s)\b", origin)
    if len(found) != count:
        raise ValueError(f'RESULTS.md: "{what}" needs {count} quantities, and has "{origin}"')
    return found


def bar_chart(title: str, subtitle: str, section: Section, groups: dict[str, list[Bar]]) -> Chart:
    """Puts groups of bars below each other. The longest bar of each group fills the width."""
    name_width = 15 + 6 * max(len(bar.name) for bars in groups.values() for bar in bars)
    full_width = WIDTH - name_width - 60

    def draw(axes: Axes, colours: Colours) -> None:
        y = LINE / 2
        for group, bars in groups.items():
            axes.text(0, y, group, weight="bold", color=colours.text, va="center_baseline")
            longest = max(number(bar.label) for bar in bars)
            for bar in bars:
                y += LINE
                length = full_width * number(bar.label) / longest
                colour = colours.ours if bar.is_ours else colours.other
                axes.barh(y, length, 10, left=name_width, color=colour, clip_on=False)
                axes.text(0, y, bar.name, color=colours.text, va="center_baseline")
                axes.text(name_width + length + 5, y, bar.label, color=colours.text, va="center_baseline")
            y += 1.5 * LINE

    height = sum(LINE * (len(bars) + 1.5) for bars in groups.values())
    return Chart(title, subtitle, section, draw, height, "Each group of bars has its own scale. ")


def upload_time(full: Section) -> Chart:
    groups = {}
    for length in MINUTES:
        ours, ffmpeg = quantities(full, f"{length}: request → 201 / ffmpeg", 2)
        _, pydub = quantities(full, f"{length}: request → 201 / pydub", 2)
        bars = [Bar("Waxwing", ours), Bar("ffmpeg", ffmpeg, False), Bar("pydub", pydub, False)]
        groups[f"{length} of audio"] = bars
    return bar_chart(
        "Time from WAV to MP3",
        "Waxwing: the whole upload, from the request to the response. ffmpeg and pydub: only the conversion.",
        full,
        groups,
    )


def memory(full: Section) -> Chart:
    labels = {
        name: [full.row(f"{length}: memory of {what}")[0] for length in MINUTES]
        for name, what in (("pydub", "pydub over its start"), ("Waxwing", "records over idle"))
    }
    highest = max(number(label) for line in labels.values() for label in line)
    height, left, width = 190, 6, WIDTH - 75

    def draw(axes: Axes, colours: Colours) -> None:
        bottom = height - 2 * LINE

        def place(minute: float, mib: float) -> tuple[float, float]:
            return left + width * minute / 60, bottom - (bottom - LINE) * mib / highest

        for minute in range(0, 61, 10):
            x, y = place(minute, 0)
            axes.plot([x, x], [y, y + 4], color=colours.soft, linewidth=1, clip_on=False)
            axes.text(
                x, y + 15, f"{minute} min" if minute == 60 else f"{minute}", color=colours.soft, ha="center"
            )
        axes.plot([left, left + width], [bottom, bottom], color=colours.soft, linewidth=1, clip_on=False)
        for name, line in labels.items():
            points = [
                place(minute, number(label)) for minute, label in zip(MINUTES.values(), line, strict=True)
            ]
            # The label of the lower line must not meet the upper line.
            colour, side = (colours.ours, "left") if name == "Waxwing" else (colours.other, "right")
            axes.plot(*zip(*points, strict=True), color=colour, linewidth=2.5, marker="o", clip_on=False)
            (x_before, y_before), (x, y) = points[-2:]
            axes.text(x_before, y_before - 7, line[-2], color=colours.text, ha=side)
            axes.text(x + 9, y + 5, f"{name}\n{line[-1]}", color=colours.text, va="bottom")

    return Chart(
        "Memory by the length of the recording",
        "What an upload adds to the memory of the records service, and a conversion to the memory of pydub.",
        full,
        draw,
        height,
    )


def downloads(full: Section) -> Chart:
    groups = {}
    for what in ("0.16 MB, cached", "9.60 MB, cached", "9.60 MB, not cached"):
        ours, direct = quantities(full, f"download of {what} / nginx → MinIO direct", 2)
        groups[what] = [Bar("Waxwing", ours), Bar("nginx → MinIO", direct, False)]
    return bar_chart(
        "Downloads a second",
        "Waxwing checks each request. nginx → MinIO: the same nginx and store, without check and cache.",
        full,
        groups,
    )


def overload(section: Section) -> Chart:
    median, origin = section.row("refusal of an upload too many, p50")
    spread = re.fullmatch(r"(\d+) in turn: (\d+) to (\d+) ms", origin)
    if not spread:
        raise ValueError(f'RESULTS.md: refusals need "COUNT in turn: MIN to MAX ms", and have "{origin}"')
    count, fastest, slowest = spread.groups()
    many, few = quantities(section, "300 s upload beside 31 uploads of another user / beside 2", 2)
    p95, p95_alone, p50, p50_alone = quantities(
        section, "download beside 5000 slow connections of one address / alone, p95", 4
    )
    groups = {
        "Upload of 300 s, beside uploads of another user": [
            Bar("beside 2", few, False),
            Bar("beside 31", many),
        ],
        "Download, beside 5000 slow connections": [
            Bar("p50, alone", p50_alone, False),
            Bar("p50, beside them", p50),
            Bar("p95, alone", p95_alone, False),
            Bar("p95, beside them", p95),
        ],
        f"Refusal of an upload too many, {count} in turn": [
            Bar("fastest", f"{fastest} ms"),
            Bar("median", median),
            Bar("slowest", f"{slowest} ms"),
        ],
    }
    return bar_chart(
        "Latency under overload",
        "What others notice of too many uploads and connections, and how soon an upload too many is refused.",
        section,
        groups,
    )


def draw_svg(chart: Chart, colours: Colours) -> str:
    """Returns the same SVG for the same chart on every machine."""
    above, below = 58, LINE
    height = above + chart.height + below
    cores, _, _ = chart.section.machine.partition(" (")
    with mpl.rc_context():
        mpl.rcdefaults()
        # matplotlib brings this font, so the layout is the same on every machine.
        mpl.rc("font", family="DejaVu Sans", size=10)
        # Text stays text, and the ids do not change.
        mpl.rc("svg", fonttype="none", hashsalt="waxwing")
        figure = Figure((WIDTH / 72, height / 72))
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(chart.height + below, -above))
        axes.set_axis_off()
        axes.text(0, 14 - above, chart.title, size=13, weight="bold", color=colours.text)
        axes.text(0, 20 - above, fill(chart.subtitle, 56), color=colours.soft, va="top", linespacing=1.35)
        chart.draw(axes, colours)
        axes.text(
            0, chart.height + 12, f"{chart.scale}{cores}, {chart.section.date}.", size=9, color=colours.soft
        )
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return file.getvalue().replace("'DejaVu Sans'", FONTS)


def draw_charts() -> dict[str, str]:
    """Returns the SVGs of all charts by the names of their files."""
    sections = read_results()
    full, overloaded = sections["The last full run"], sections["The last overload run"]
    charts = {
        "upload-time": upload_time(full),
        "memory": memory(full),
        "downloads": downloads(full),
        "overload": overload(overloaded),
    }
    return {
        f"{name}-{scheme}.svg": draw_svg(chart, colours)
        for name, chart in charts.items()
        for scheme, colours in SCHEMES.items()
    }


def write_charts() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, svg in draw_charts().items():
        (FOLDER / name).write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    write_charts()
