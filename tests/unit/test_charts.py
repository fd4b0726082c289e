"""The charts in docs/images/charts say what RESULTS.md says."""

import re
from pathlib import Path

import pytest

from tests.bench import charts
from tests.bench import results as module


def test_the_kept_charts_are_those_of_the_kept_results() -> None:
    kept = {path.name: path.read_text(encoding="utf-8") for path in charts.FOLDER.iterdir()}
    assert kept == charts.draw_charts(), "Run `./just charts`, and look at the charts."


@pytest.mark.parametrize(
    "row",
    [
        "60 s: request → 201 / pydub",
        "60 min: memory of records over idle",
        "10 s: memory of pydub over its start",
        "download of 9.60 MB, not cached / nginx → MinIO direct",
        "refusal of an upload too many, p50",
        "download beside 5000 slow connections of one address / alone, p95",
    ],
)
def test_a_chart_without_one_of_its_rows_is_refused(
    row: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_results(tmp_path, monkeypatch, rf"\n\| {re.escape(row)} \| ", "\n| another row | ")
    with pytest.raises(LookupError, match=f'has no row "{row}"'):
        charts.draw_charts()


@pytest.mark.parametrize(
    "row",
    [
        "10 s: request → 201 / pydub",
        "refusal of an upload too many, p50",
        "download beside 5000 slow connections of one address / alone, p95",
    ],
)
def test_a_chart_is_refused_if_a_row_no_longer_says_what_the_chart_shows(
    row: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_results(tmp_path, monkeypatch, rf"(\n\| {re.escape(row)} \| .+ \| ).*( \|\n)", r"\g<1>3 ms\g<2>")
    with pytest.raises(ValueError, match=r"RESULTS\.md: .* need"):
        charts.draw_charts()


def change_results(folder: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str) -> None:
    """Lets the charts read a copy of the results in which the pattern `old` is replaced by `new`."""
    text, count = re.subn(old, new, module.RESULTS.read_text(encoding="utf-8"))
    assert count == 1
    results = folder / "RESULTS.md"
    results.write_text(text, encoding="utf-8")
    monkeypatch.setattr(module, "RESULTS", results)
