"""The summaries in RESULTS.md."""

import os
import platform
import re
from datetime import UTC, datetime
from pathlib import Path

# What was measured, its result, and where the result comes from.
Row = tuple[str, str, str]
RESULTS = Path(__file__).with_name("RESULTS.md")


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


def write_results(rows: list[Row], title: str, command: str, note: str) -> None:
    """Replaces the section `title` of RESULTS.md, or adds it."""
    lines = [
        f"# {title}",
        "",
        f"`{command}` on {datetime.now(UTC):%Y-%m-%d}, {_describe_machine()}.",
        "",
        note,
        "| what | result | from |",
        "|---|---|---|",
        *(f"| {what} | {result} | {origin} |" for what, result, origin in rows),
        "",
    ]
    sections = re.split(r"^(?=# )", RESULTS.read_text(encoding="utf-8"), flags=re.MULTILINE)
    others = [section.strip() for section in sections if not section.startswith(f"# {title}\n")]
    RESULTS.write_text("\n\n".join([*filter(None, others), "\n".join(lines)]), encoding="utf-8")
