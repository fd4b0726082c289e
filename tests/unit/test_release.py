"""`just release` makes a release of a clean clone, and changes nothing where there can be none."""

import re
import subprocess
from pathlib import Path

import pytest

from common.version import VERSION
from deploy.upkeep.release import CHANGELOG, COPIES, ROOT, SOURCE, ReleaseError, make_release, read_versions

DATE = "2030-01-02"
NEXT = "1000.0.0"


def git(folder: Path, *arguments: str) -> str:
    command = ("git", "-c", "user.name=Ann", "-c", "user.email=ann@example.com", *arguments)
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.rstrip()


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with the files of a release as they are now, and a section for the next one."""
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "Ann")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "ann@example.com")
    for file in (SOURCE, CHANGELOG, *COPIES):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes((ROOT / file).read_bytes())
    changelog = tmp_path / CHANGELOG
    text = changelog.read_text(encoding="utf-8")
    changelog.write_text(text.replace("## Unreleased\n", f"## Unreleased\n\n## {NEXT}\n\n- All is new.\n", 1))
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "As it is")
    return tmp_path


@pytest.mark.parametrize("file", [SOURCE, *COPIES])
def test_every_file_has_the_same_version(file: str) -> None:
    assert set(read_versions(ROOT, file)) == {VERSION}


def test_a_release_writes_the_version_everywhere_and_tags_its_commit(
    clone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_release(clone, NEXT, DATE)

    for file in (SOURCE, *COPIES):
        assert set(read_versions(clone, file)) == {NEXT}, file
    assert f"## Unreleased\n\n## {NEXT} - {DATE}\n" in (clone / CHANGELOG).read_text(encoding="utf-8")
    assert git(clone, "log", "--format=%s") == f"Release {NEXT}\nAs it is"
    assert git(clone, "rev-parse", f"v{NEXT}^{{commit}}") == git(clone, "rev-parse", "HEAD")
    assert git(clone, "status", "--porcelain") == ""
    assert f"{SOURCE}: {VERSION} becomes {NEXT}" in capsys.readouterr().out


def test_the_present_version_can_be_released_once(clone: Path) -> None:
    changelog = clone / CHANGELOG
    changelog.write_text(f"## Unreleased\n\n## {VERSION}\n\n- A link.\n", encoding="utf-8")
    git(clone, "commit", "--quiet", "--all", "--message", "The first one")
    make_release(clone, VERSION, DATE)
    with pytest.raises(ReleaseError, match=f"the tag v{re.escape(VERSION)} is there already"):
        make_release(clone, VERSION, DATE)


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("next", "no version"),
        ("1.2", "no version"),
        ("01.2.3", "no version"),
        ("0.0.1", "older"),
        ("1000.0.1", "no section"),
    ],
)
def test_a_refused_release_says_why_and_changes_nothing(clone: Path, version: str, words: str) -> None:
    with pytest.raises(ReleaseError, match=words):
        make_release(clone, version, DATE)
    assert git(clone, "status", "--porcelain") == ""
    assert git(clone, "tag") == ""


def test_a_release_needs_a_clean_clone(clone: Path) -> None:
    (clone / "left.txt").touch()
    with pytest.raises(ReleaseError, match=r"left\.txt"):
        make_release(clone, NEXT, DATE)
    assert git(clone, "tag") == ""


def test_a_section_without_text_is_no_section(clone: Path) -> None:
    (clone / CHANGELOG).write_text(f"## Unreleased\n\n## {NEXT}\n\n## 0.0.1\n\n- Text.\n", encoding="utf-8")
    git(clone, "commit", "--quiet", "--all", "--message", "Nothing new")
    with pytest.raises(ReleaseError, match="no section"):
        make_release(clone, NEXT, DATE)
