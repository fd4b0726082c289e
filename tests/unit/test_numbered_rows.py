"""docs/limits.md and docs/how-it-works.md name a test for each of their numbered rows."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

each_page = pytest.mark.parametrize(
    ("page", "heading", "least_rows"),
    [
        ("docs/limits.md", "## Which test provokes it", 30),
        ("docs/how-it-works.md", "## Which test shows it", 15),
    ],
)


@each_page
def test_every_row_has_a_test(page: str, heading: str, least_rows: int) -> None:
    told, _, tests = (ROOT / page).read_text(encoding="utf-8").partition(heading)
    rows = re.findall(r"^\| (\d+) \|", told, re.M)
    tested = re.findall(r"^\| ([\d, ]+) \|", tests, re.M)
    assert len(rows) == len(set(rows)) > least_rows
    assert {number for numbers in tested for number in re.findall(r"\d+", numbers)} == set(rows)


@each_page
def test_every_named_test_exists(page: str, heading: str, least_rows: int) -> None:
    tests = (ROOT / page).read_text(encoding="utf-8").partition(heading)[2]
    named = re.findall(r"`(tests/\S+\.py)::(\w+)`", tests)
    assert len(named) > least_rows
    for path, name in named:
        assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8"), name
