"""docs/limits.md names a test for each of its rows."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TIMES_AND_AMOUNTS, _, TESTS = (ROOT / "docs/limits.md").read_text().partition("## Which test provokes it")


def test_every_row_has_a_test() -> None:
    rows = re.findall(r"^\| (\d+) \|", TIMES_AND_AMOUNTS, re.M)
    tested = re.findall(r"^\| ([\d, ]+) \|", TESTS, re.M)
    assert len(rows) == len(set(rows)) > 30
    assert {number for numbers in tested for number in re.findall(r"\d+", numbers)} == set(rows)


def test_every_named_test_exists() -> None:
    named = re.findall(r"`(tests/\S+\.py)::(\w+)`", TESTS)
    assert len(named) > 30
    for path, name in named:
        assert f"def {name}(" in (ROOT / path).read_text(), name
