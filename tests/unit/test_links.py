"""Every link and picture in a page of the repository leads to a file, and to a heading of it."""

import re
from collections import Counter
from itertools import chain
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from deploy.upkeep.docs_site import point_at_repository

ROOT = Path(__file__).parents[2]
PAGES = [
    *ROOT.glob("*.md"),
    *ROOT.glob("docs/**/*.md"),
    *ROOT.glob("tests/**/*.md"),
    *ROOT.glob(".github/**/*.md"),
]
CODE = re.compile(r"^```.*?^```$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^()\s]+)\)|(?:src|srcset|href)=\"([^\"]+)\"")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def read_without_blocks(page: Path) -> str:
    """Returns the text of a page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def find_anchors(page: Path) -> set[str]:
    """Returns the anchors that forges and the site make of a page's headings."""
    text = read_without_blocks(page)
    anchors = set()
    seen = Counter[str]()
    for heading in HEADING.findall(text):
        words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
        anchors.add(f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor)
        seen[anchor] += 1
    return anchors


def find_broken_links(page: Path) -> list[str]:
    """Returns the links of a page that lead nowhere. Links to other hosts are not followed."""
    broken = []
    for link in LINK.findall(CODE.sub("", page.read_text(encoding="utf-8"))):
        url = "".join(link)
        name, _, anchor = url.partition("#")
        if re.match(r"[a-z]+:", url):
            continue
        target = page.parent / name if name else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in find_anchors(target)):
            broken.append(url)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    assert find_broken_links(page) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_list_in_a_list_has_four_spaces(page: Path) -> None:
    """With fewer the site shows one list, and forges two."""
    text = read_without_blocks(page)
    assert re.findall(r"^ {1,3}(?:[-*]|\d+\.) .*", text, re.MULTILINE) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_word_vanishes_as_an_unknown_element(page: Path) -> None:
    """Forges and the site take `<id>` outside of code for HTML, and show nothing."""
    tokens = MarkdownIt().enable("table").parse(page.read_text(encoding="utf-8"))
    html = [
        token.content
        for token in (*tokens, *chain.from_iterable(token.children or () for token in tokens))
        if token.type in ("html_block", "html_inline")
    ]
    elements = re.findall(r"</?([a-zA-Z][\w-]*)", " ".join(html))
    assert set(elements) <= {"picture", "source", "img"}


def test_a_broken_link_a_broken_anchor_and_a_missing_picture_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A `b`, and c\n[1](#a-b-and-c) [2](page.md#a-b-and-c) [3](https://example.org/) `[4](code)`\n"
        '[5](other.md) [6](#a) ![7](picture.svg) <img src="picture.webp">\n',
        encoding="utf-8",
    )
    assert find_broken_links(page) == ["other.md", "#a", "picture.svg", "picture.webp"]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://github.com/a/b/", "[the recipes](https://github.com/a/b/blob/HEAD/justfile#L1)"),
        ("", "the recipes"),
    ],
)
def test_on_the_site_links_to_code_lead_to_the_repository_or_are_plain_text(
    monkeypatch: pytest.MonkeyPatch, url: str, expected: str
) -> None:
    monkeypatch.setenv("REPOSITORY_URL", url)
    page, other = ROOT / "docs" / "operate.md", ROOT / "docs" / "limits.md"
    # Links to pages stay, and so do broken ones, which the generator refuses.
    rest = "[limits](limits.md) [broken](nowhere.md) [elsewhere](https://example.org/)"
    text = point_at_repository(f"[the recipes](../justfile#L1) {rest}", page, {page, other})
    assert text == f"{expected} {rest}"
