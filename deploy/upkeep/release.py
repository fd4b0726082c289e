"""Makes a release: `just release VERSION` writes the version into its files, commits and tags."""

import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parents[2]
CHANGELOG = "CHANGELOG.md"
SOURCE = "libs/common/src/common/version.py"
# Files that repeat the version, because no Python reads them, and what stands in front of it there.
COPIES = {
    "deploy/Dockerfile": "ARG VERSION=",
    "deploy/gateway/Dockerfile": "ARG VERSION=",
    "deploy/kubernetes/release/release.yaml": 'version: "',
    "docker-compose.yml": "waxwing/[a-z-]+:",
    "docs/kubernetes.md": "waxwing/[a-z-]+:|job/set-up-",
    "docs/openapi/records.json": '"version": "',
    "docs/openapi/users.json": '"version": "',
}
_NUMBERS = r"\d+[.-]\d+[.-]\d+"


class ReleaseError(Exception):
    """A release is refused. The message says what to do."""


def read_versions(root: Path, file: str) -> list[str]:
    """Returns every version of Waxwing in a file."""
    text = (root / file).read_text(encoding="utf-8")
    before = COPIES.get(file, 'VERSION = "')
    return [found.replace("-", ".") for found in re.findall(rf"(?:{before})({_NUMBERS})", text)]


def make_release(root: Path, version: str, date: str) -> None:
    """Prints what it does, and does it. Raises ReleaseError before it has changed anything."""
    changelog = root / CHANGELOG
    dated = _check(root, version, date)
    print(f"{CHANGELOG}: the section {version} gets the date {date}")
    changelog.write_text(dated, encoding="utf-8")
    for file, before in {SOURCE: 'VERSION = "', **COPIES}.items():
        if (found := set(read_versions(root, file))) != {version}:
            print(f"{file}: {', '.join(sorted(found))} becomes {version}")
            _write(root / file, before, version)
    _git(root, "commit", "--quiet", "--all", "--message", f"Release {version}")
    _git(root, "tag", "--annotate", f"v{version}", "--message", f"Waxwing {version}")
    print(f"committed, with the tag v{version}; nothing was pushed: git push origin HEAD v{version}")


def _check(root: Path, version: str, date: str) -> str:
    """Returns the changelog with the date of the release. Raises ReleaseError if there can be no release."""
    if not re.fullmatch(r"(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}", version):
        raise ReleaseError(f"{version!r} is no version: write MAJOR.MINOR.PATCH, such as 0.2.0")
    (present,) = read_versions(root, SOURCE)
    if _numbers(version) < _numbers(present):
        raise ReleaseError(f"{version} is older than {present}, the version in {SOURCE}")
    if _git(root, "tag", "--list", f"v{version}"):
        raise ReleaseError(f"the tag v{version} is there already: choose the next version")
    if changed := _git(root, "status", "--porcelain"):
        raise ReleaseError(f"commit or stash these changes first:\n{changed}")
    text = (root / CHANGELOG).read_text(encoding="utf-8")
    section = re.search(rf"^## {re.escape(version)}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    if not section or not section[1].strip():
        raise ReleaseError(
            f"{CHANGELOG} has no section `## {version}` with text: give what stands under `## Unreleased`"
            " this heading, and put a new, empty `## Unreleased` above"
        )
    heading_end = section.start() + len(f"## {version}")
    return f"{text[:heading_end]} - {date}{text[heading_end:]}"


def _numbers(version: str) -> list[int]:
    return [int(number) for number in version.split(".")]


def _write(file: Path, before: str, version: str) -> None:
    def renew(found: re.Match[str]) -> str:
        # The name of a Job in Kubernetes has no dots.
        return found[1] + (version.replace(".", "-") if "-" in found[2] else version)

    text = file.read_text(encoding="utf-8")
    file.write_text(re.sub(rf"({before})({_NUMBERS})", renew, text), encoding="utf-8")


def _git(root: Path, *arguments: str) -> str:
    command = ("git", *arguments)
    done = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.rstrip()


def main(arguments: list[str]) -> int:
    """Returns the exit status."""
    (version,) = arguments
    try:
        make_release(ROOT, version, datetime.now(UTC).date().isoformat())
    except ReleaseError as error:
        print(f"waxwing: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(f"waxwing: `{' '.join(error.cmd)}` failed, as it says above", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
