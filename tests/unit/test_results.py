"""RESULTS.md keeps its other sections as they are when one of them is written again."""

from pathlib import Path

import pytest

from tests.bench import results as module

OTHERS = "# The first\n\nwords\n\n| a | b | c |\n", "# The last\n\nmore words\n"


def test_a_section_is_replaced_and_no_other_line_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / "RESULTS.md"
    results.write_text("\n".join(OTHERS), encoding="utf-8")
    monkeypatch.setattr(module, "RESULTS", results)
    for speed in ("slow", "fast", "faster"):
        module.write_results([("upload", speed, "once")], "A run", "./just bench", "A note.\n")
        first, last, written = results.read_text(encoding="utf-8").split("\n# ")
        assert (first, f"# {last}") == OTHERS
        assert written.endswith(f"|---|---|---|\n| upload | {speed} | once |\n")
