"""docs/limits.md names a test for each of its rows."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TIMES_AND_AMOUNTS, _, TESTS = (ROOT / "docs/limits.md").read_text().partition("## Which test provokes it")
UNTESTED = "No test provokes"


def numbers_of(rows: list[str]) -> set[str]:
    return {number for row in rows for number in re.findall(r"\d+", row)}


def test_every_row_has_a_test_or_is_said_to_have_none() -> None:
    rows = re.findall(r"^\| (\d+) \|", TIMES_AND_AMOUNTS, re.M)
    tested = numbers_of(re.findall(r"^\| ([\d, ]+) \|", TESTS, re.M))
    untested = numbers_of(re.findall(rf"^{UNTESTED} ([^:]*):", TESTS, re.M))
    assert len(rows) == len(set(rows)) > 30
    assert tested | untested == set(rows)
    assert not tested & untested


def test_every_named_test_exists() -> None:
    named = re.findall(r"`(tests/\S+\.py)::(\w+)`", TESTS)
    assert len(named) > 30
    for path, name in named:
        assert f"def {name}(" in (ROOT / path).read_text(), name
