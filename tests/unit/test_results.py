"""RESULTS.md keeps its head and its other sections as they are when a section is written again."""

import re
from pathlib import Path

import pytest

from tests.bench import results as module

HEAD = "# Results\n\n| question |\n|---|\n"
OTHERS = "## The first\n\nwords\n\n| a | b | c |\n", "## The last\n\nmore words\n"


def test_a_section_is_replaced_in_its_place_and_no_other_line_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / "RESULTS.md"
    results.write_text("\n".join((HEAD, "## A run\n\nan old one\n", *OTHERS)), encoding="utf-8")
    monkeypatch.setattr(module, "RESULTS", results)
    for speed in ("slow", "fast", "faster"):
        module.write_results([("upload", speed, "once")], "A run", "./just bench", "A note.\n")
        head, written, first, last = results.read_text(encoding="utf-8").split("\n## ")
        assert (f"{head}", f"## {first}", f"## {last}") == (HEAD, *OTHERS)
        assert written.endswith(f"|---|---|---|\n| upload | {speed} | once |\n")


def test_a_new_section_stands_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = tmp_path / "RESULTS.md"
    results.write_text(HEAD, encoding="utf-8")
    monkeypatch.setattr(module, "RESULTS", results)
    for title in ("One", "Another"):
        module.write_results(
            [("upload", "1 s", ""), ("start", "2 s", "once")], title, "./just x", "A note.\n"
        )
    one, another = module.read_results().values()
    assert (one.title, another.title) == ("One", "Another")
    assert one.command == "./just x"
    assert one.rows == [("upload", "1 s", ""), ("start", "2 s", "once")]


def test_the_index_names_every_section_in_its_order_with_its_command() -> None:
    head, _, _ = module.RESULTS.read_text(encoding="utf-8").partition("\n## ")
    index = re.findall(r"\| \[(.+)\]\(#(.+)\) \| `(.+)` \|", head)
    sections = module.read_results()
    assert [title for title, _, _ in index] == list(sections)
    for title, anchor, command in index:
        assert anchor == title.lower().replace(" ", "-")
        assert sections[title].command.startswith(command)
