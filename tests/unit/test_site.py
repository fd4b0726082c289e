"""The page for people is light, and has all its words in each language."""

import gzip
import re
from pathlib import Path

import pytest

from deploy.pages import PROBLEMS

SITE = Path(__file__).parents[2] / "deploy" / "gateway" / "site"
FILES = sorted(SITE.iterdir())
MAX_BYTES = 60_000
LANGUAGES = ["en", "ru"]


def read_words(language: str) -> dict[str, str]:
    """Returns the sentences of a language by their keys; the forms of a plural as one text."""
    text = (SITE / f"{language}.js").read_text(encoding="utf-8")
    entries = re.findall(
        r'^  "?([\w.-]+)"?: ("[^"]*"|\{[^}]*(?:\}[^\n][^}]*)*\n?  ?\}),$', text, re.MULTILINE
    )
    return dict(entries)


def find_values(sentence: str) -> set[str]:
    return set(re.findall(r"\{\w+(?::\w+)?\}", sentence))


def test_the_page_is_sent_with_less_than_60_kb() -> None:
    # The gateway compresses every file but the icon on its way.
    assert sum(len(gzip.compress(file.read_bytes(), 1)) for file in FILES) < MAX_BYTES


def test_the_page_loads_nothing_from_elsewhere_and_has_no_code_in_its_html() -> None:
    for file in FILES:
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|//\w+\.\w+/|innerHTML|insertAdjacentHTML|\beval\(", text), file
    assert not re.search(r"<script>|\son\w+=|\sstyle=", (SITE / "index.html").read_text(encoding="utf-8"))


def test_all_languages_have_the_same_words_with_the_same_values() -> None:
    english, russian = map(read_words, LANGUAGES)
    assert list(english) == list(russian)
    for key, sentence in english.items():
        assert find_values(sentence) == find_values(russian[key]), key


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_problem_has_a_sentence(language: str) -> None:
    assert {f"problem.{name}" for name in PROBLEMS} <= set(read_words(language))


def test_every_word_that_the_page_uses_is_there_and_no_other() -> None:
    code = "".join(file.read_text(encoding="utf-8") for file in FILES if file.stem not in LANGUAGES)
    words = set(read_words("en"))
    used = set(re.findall(r'data-(?:words|label|hint)="([^"]+)"', code))
    assert used <= words
    # Keys such as `problem.${type}` and `${action}.record` are put together.
    composed = re.compile(r"(problem|recorder|upload|announce)\..+|.+\.(record|upload)")
    assert not {key for key in words - used if not composed.fullmatch(key) and f'"{key}"' not in code}
