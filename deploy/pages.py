"""Makes the folder of pages that the gateway serves: `python -m deploy.pages FOLDER`.

It has the page for people (`index.html` and `site/`), the page of the API (`docs/`, with Swagger UI), and one
page for each type of problem (`problems/`).
"""

import re
import shutil
import sys
from html import escape
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

_SOURCE = Path(__file__).parent / "gateway"
# Swagger UI's files that the page of the API loads.
_SWAGGER_UI = ("swagger-ui.css", "swagger-ui-bundle.js", "swagger-ui-standalone-preset.js")
_HEADING_AND_TEXT = re.compile(
    r"^## (?P<name>\S+) \((?P<status>\d+)\): (?P<title>.+)\n\n(?P<text>(?:.+\n)+)", re.M
)
PROBLEMS = {
    found["name"]: found.groupdict()
    for found in _HEADING_AND_TEXT.finditer((files("common") / "problems.md").read_text(encoding="utf-8"))
}


def make_pages(folder: Path) -> None:
    """Writes all pages into the folder, over older ones.

    Raises ModuleNotFoundError without the wheel `flask-swagger-ui`.
    """
    shutil.copytree(_SOURCE / "site", folder / "site", dirs_exist_ok=True)
    (folder / "site" / "index.html").replace(folder / "index.html")
    shutil.copytree(_SOURCE / "docs", folder / "docs", dirs_exist_ok=True)
    # The wheel `flask-swagger-ui` is located but never imported, so it needs no Flask.
    wheel = find_spec("flask_swagger_ui")
    if not wheel or not wheel.origin:
        raise ModuleNotFoundError("flask_swagger_ui")
    for name in _SWAGGER_UI:
        shutil.copy(Path(wheel.origin).parent / "dist" / name, folder / "docs")
    (folder / "problems").mkdir(exist_ok=True)
    for name, problem in PROBLEMS.items():
        (folder / "problems" / f"{name}.html").write_text(_explain(problem), encoding="utf-8")


def _explain(problem: dict[str, str]) -> str:
    shown = {key: escape(text) for key, text in problem.items()}
    text = re.sub("`([^`]+)`", r"<code>\1</code>", shown["text"])
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="stylesheet" href="/site/style.css">\n<link rel="icon" href="/site/icon.svg">\n'
        f"<title>{shown['title']}</title>\n"
        f'<main class="page prose">\n<h1>{shown["title"]}</h1>\n'
        f"<p><code>/problems/{shown['name']}</code>, status {shown['status']}</p>\n<p>{text}</p>\n"
        '<p><a href="/docs">The API</a></p>\n</main>\n</html>\n'
    )


if __name__ == "__main__":
    make_pages(Path(sys.argv[1]))
