"""Builds README, docs and the other pages of the repository as a site in .docs/site: `just docs`.

The site has the folders of the repository, so links between pages are the same in both. The site has no code.
With REPOSITORY_URL, such as https://github.com/OWNER/waxwing, links to code lead there. Without it they are
plain text.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
# The generator writes only below the folder of its configuration.
WORK = ROOT / ".docs"
PAGES = WORK / "pages"
SOURCES = ("*.md", "docs/**/*", "tests/**/*.md")
SUFFIXES = {".md", ".png", ".svg", ".webp"}
MERMAID = WORK / "node_modules" / "@mermaid-js" / "tiny" / "dist" / "mermaid.tiny.js"
# A link, but no picture, to a file or folder here.
LINK = re.compile(r"(?<!!)\[([^\[\]]+)\]\((?!https?:)([^()#\s]+)(#[^()\s]*)?\)")


def main() -> int:
    """Copies the pages, lets Zensical build the site, and returns its exit status."""
    shutil.rmtree(PAGES, ignore_errors=True)
    files = {file for source in SOURCES for file in ROOT.glob(source) if file.suffix in SUFFIXES}
    for file in files:
        copy = PAGES / file.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".md":
            text = file.read_text(encoding="utf-8")
            copy.write_text(point_at_repository(text, file, files), encoding="utf-8")
        else:
            shutil.copy(file, copy)
    shutil.copy(MERMAID, PAGES / "mermaid.js")
    shutil.copy(ROOT / "docs" / "zensical.toml", WORK)
    shutil.copytree(ROOT / "docs" / "theme", WORK / "theme", dirs_exist_ok=True)
    build = [str(WORK / "bin" / "zensical"), "build", "--strict", "--clean"]
    return subprocess.run(build, cwd=WORK, check=False).returncode


def point_at_repository(text: str, page: Path, files: set[Path]) -> str:
    """Returns the text of a page with other links in place of those to code, which the site does not have.

    A link to a file that does not exist stays, so that the build fails.
    """
    url = os.environ.get("REPOSITORY_URL", "").rstrip("/")

    def replace(link: re.Match[str]) -> str:
        words, target, anchor = link.groups(default="")
        path = (page.parent / target).resolve()
        if path in files or not path.exists():
            return link[0]
        return f"[{words}]({url}/blob/HEAD/{path.relative_to(ROOT).as_posix()}{anchor})" if url else words

    return LINK.sub(replace, text)


if __name__ == "__main__":
    sys.exit(main())
