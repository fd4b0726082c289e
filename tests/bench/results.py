"""The summaries in RESULTS.md. Its head, with the index, is written by hand."""

import os
import platform
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

# What was measured, its result, and where the result comes from.
Row = tuple[str, str, str]
RESULTS = Path(__file__).with_name("RESULTS.md")


class Section(NamedTuple):
    """One run in RESULTS.md."""

    title: str
    command: str
    # Such as "2026-11-29".
    date: str
    # Such as "2 cores (…), Python 3.11.7, Linux 6.18".
    machine: str
    rows: list[Row]

    def row(self, what: str) -> tuple[str, str]:
        """Returns the result of a row and where it comes from, or raises LookupError."""
        for row, result, origin in self.rows:
            if row == what:
                return result, origin
        raise LookupError(f'RESULTS.md: "{self.title}" has no row "{what}"')


def _describe_machine() -> str:
    model = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    return f"{os.cpu_count()} cores ({model}), Python {platform.python_version()}, Linux {platform.release()}"


def _split(text: str) -> list[str]:
    """Returns the head and the sections."""
    return re.split(r"^(?=## )", text, flags=re.MULTILINE)


def read_results() -> dict[str, Section]:
    """Returns the sections by their titles."""
    sections = {}
    for text in _split(RESULTS.read_text(encoding="utf-8"))[1:]:
        found = re.match(r"## (.+)\n\n`(.+)` on (\S+), (.+)\.\n", text)
        if not found:
            raise ValueError(f"RESULTS.md: this section does not begin as written: {text[:200]}")
        title, command, date, machine = found.groups()
        rows = re.findall(r"^\| (.+?) \| (.+?) \| (.*?) ?\|$", text, flags=re.MULTILINE)[1:]
        sections[title] = Section(title, command, date, machine, rows)
    return sections


def write_results(rows: list[Row], title: str, command: str, note: str) -> None:
    """Replaces the section `title` of RESULTS.md, or adds it at the end."""
    lines = [
        f"## {title}",
        "",
        f"`{command}` on {datetime.now(UTC):%Y-%m-%d}, {_describe_machine()}.",
        "",
        note,
        "| what | result | from |",
        "|---|---|---|",
        *(f"| {what} | {result} | {origin} |" for what, result, origin in rows),
        "",
    ]
    texts = {text.partition("\n")[0]: text for text in _split(RESULTS.read_text(encoding="utf-8"))}
    texts[lines[0]] = "\n".join(lines)
    RESULTS.write_text("\n".join(text.strip() + "\n" for text in texts.values()), encoding="utf-8")
