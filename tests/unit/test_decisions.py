"""Every decision has the form, the index lists all of them, and nothing cites a file that is not there."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "decisions"
AREAS = "audio|uploads|downloads|database|store|security|operation|deployment|API|page|tests|docs"
SECTIONS = ["Context", "Decision", "Consequences"]
# What `Status` may say in front of the decisions that it names.
STATUSES = ("accepted", "withdrawn", "replaced by", "replaced in part by", "merged into")
# Of a decision with one of these, nothing holds any more under its own number.
GONE = ("withdrawn", "replaced by", "merged into")
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)\s]*)?\)")
# A path in backticks names a file if it begins with a folder of the repository.
PATH = re.compile(r"`((?:deploy|docs|libs|services|tests)/[\w./-]+)(?:::\w+)?`")
PATH_OF_PAGE = re.compile(r"\bdocs/[\w/-]+\.md\b")
NUMBER = re.compile(r"\bdecisions? (\d+)", re.IGNORECASE)
TEXT_SUFFIXES = {".py", ".js", ".html", ".yaml", ".yml", ".toml", ".template", ".conf", ".sh", ".in", ".mako"}


class Decision:
    """A decision as its file has it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.text = path.read_text(encoding="utf-8")
        head, *sections = re.split(r"^## (.+)\n", self.text, flags=re.M)
        self.title = head.partition("\n")[0]
        self.fields: dict[str, str] = dict(re.findall(r"^- (\w+): (.+)$", head, re.M))
        self.sections: dict[str, str] = dict(zip(sections[::2], sections[1::2], strict=True))

    @property
    def status(self) -> str:
        return self.fields["Status"].partition(" [")[0]

    @property
    def is_gone(self) -> bool:
        return self.status in GONE

    @property
    def index_line(self) -> str:
        line = f"- [{self.title.removeprefix('# ')}]({self.path.name})"
        return line if self.status == "accepted" else f"{line} ({self.fields['Status']})"


DECISIONS = {path.name: Decision(path) for path in sorted(FOLDER.glob("[0-9]*.md"))}


def pages() -> Iterator[Path]:
    """Yields every page of the repository, and none of an installed package."""
    yield from ROOT.glob("*.md")
    for folder in ("deploy", "docs", "libs", "services", "tests"):
        yield from (path for path in (ROOT / folder).rglob("*.md") if "node_modules" not in path.parts)


def texts() -> Iterator[Path]:
    """Yields every page and every file with code or settings, except for this one."""
    yield from pages()
    yield from (ROOT / name for name in ("just", "justfile", "docker-compose.yml", "pyproject.toml"))
    for folder in ("deploy", "docs", "libs", "services", "tests"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in TEXT_SUFFIXES and "node_modules" not in path.parts and path != Path(__file__):
                yield path


@pytest.mark.parametrize("name", DECISIONS)
def test_a_decision_has_the_form(name: str) -> None:
    decision = DECISIONS[name]
    number = int(re.fullmatch(r"(\d{4})-[a-z0-9-]+\.md", name)[1])  # type: ignore[index]
    assert re.fullmatch(rf"# {number}\. \S.*\S", decision.title)
    assert list(decision.fields) in (["Status", "Date", "Area"], ["Status", "Date", "Area", "Replaces"])
    assert decision.status in STATUSES
    # A status that names other decisions has links to them, and the other two have none.
    assert bool(LINK.findall(decision.fields["Status"])) == decision.status.endswith((" by", " into"))
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", decision.fields["Date"])
    assert re.fullmatch(AREAS, decision.fields["Area"])
    assert list(decision.sections) == ([] if decision.status == "merged into" else SECTIONS)
    assert all(text.strip() for text in decision.sections.values())


def test_no_number_is_used_twice_or_left_out() -> None:
    numbers = [int(name[:4]) for name in DECISIONS]
    assert len(numbers) >= 130
    assert len(set(numbers)) == len(numbers)
    # The parts of one version take their numbers at the same time, so only the last ones may have gaps.
    assert numbers[:130] == list(range(1, 131))


def test_what_replaces_and_what_is_replaced_name_each_other() -> None:
    replaced = {(name, by) for name, each in DECISIONS.items() for by in LINK.findall(each.fields["Status"])}
    replacing = {
        (old, name)
        for name, each in DECISIONS.items()
        for old in LINK.findall(each.fields.get("Replaces", ""))
    }
    assert replaced == replacing


@pytest.mark.parametrize("name", [name for name, each in DECISIONS.items() if not each.is_gone])
def test_a_decision_that_holds_cites_none_that_is_gone(name: str) -> None:
    lines = [line for line in DECISIONS[name].text.splitlines() if not line.startswith("- Replaces: ")]
    cited = LINK.findall("\n".join(lines))
    assert [each for each in cited if each in DECISIONS and DECISIONS[each].is_gone] == []


def test_the_index_lists_every_decision_once_under_its_area() -> None:
    index = (FOLDER / "index.md").read_text(encoding="utf-8")
    _, *parts = re.split(r"^## (.+)\n", index, flags=re.M)
    listed = {
        area: [line for line in lines.splitlines() if line]
        for area, lines in zip(parts[::2], parts[1::2], strict=True)
    }
    expected: dict[str, list[str]] = {}
    for decision in DECISIONS.values():
        area = decision.fields["Area"]
        expected.setdefault(area[0].upper() + area[1:], []).append(decision.index_line)
    assert listed == expected


def test_every_file_that_a_page_cites_exists() -> None:
    missing = []
    for page in pages():
        text = page.read_text(encoding="utf-8")
        linked = [page.parent / link for link in LINK.findall(text) if not re.match(r"[a-z]+:|/", link)]
        named = [ROOT / path for path in PATH.findall(text)]
        missing += [f"{page.relative_to(ROOT)}: {path}" for path in (*linked, *named) if not path.exists()]
    assert missing == []


def test_every_decision_and_page_that_code_or_a_page_cites_exists() -> None:
    numbers = {str(int(name[:4])) for name in DECISIONS}
    missing = []
    for path in texts():
        text = path.read_text(encoding="utf-8")
        wrong = [f"decision {number}" for number in NUMBER.findall(text) if number not in numbers]
        wrong += [page for page in PATH_OF_PAGE.findall(text) if not (ROOT / page).exists()]
        missing += [f"{path.relative_to(ROOT)}: {each}" for each in wrong]
    assert missing == []
