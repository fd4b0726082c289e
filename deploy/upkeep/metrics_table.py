"""Writes the table of metrics in docs/operate.md from the metrics' own definitions: `just metrics`."""

from collections.abc import Iterator
from pathlib import Path

from prometheus_client.metrics import MetricWrapperBase

# Importing them makes the metrics.
from common import metrics as _of_both
from records import metrics as _of_records

PAGE = Path(__file__).parents[2] / "docs" / "operate.md"
BEGIN, END = (
    "<!-- Made by `just metrics` from the code. -->\n",
    "<!-- The end of what `just metrics` makes. -->\n",
)


def make_table() -> str:
    """Returns the table in Markdown."""
    rows = [f"| {' | '.join(row)} |\n" for row in _read_rows()]
    return "| metric | kind | labels | service | what it says |\n|---|---|---|---|---|\n" + "".join(rows)


def _read_rows() -> Iterator[tuple[str, ...]]:
    for module, service in ((_of_both, "both"), (_of_records, "records")):
        for metric in vars(module).values():
            if isinstance(metric, MetricWrapperBase):
                (family,) = metric.describe()
                suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
                labels = ", ".join(f"`{label}`" for label in metric._labelnames)
                yield f"`{family.name}{suffix}`", family.type, labels, service, family.documentation


def put_table_into(page: str) -> str:
    """Returns the text of the page with the table of today."""
    return replace_between(BEGIN, END, page, make_table())


def replace_between(begin: str, end: str, page: str, text: str) -> str:
    """Returns the page with this text between two marks."""
    before, begin, rest = page.partition(begin)
    _, end, after = rest.partition(end)
    return before + begin + text + end + after


if __name__ == "__main__":
    PAGE.write_text(put_table_into(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
