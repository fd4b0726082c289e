"""Pages for people: /docs with Swagger UI for both services, and /problems/<name> for a type of problem."""

import re
from html import escape
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from litestar import MediaType, Request, Response, Router, route
from litestar.params import FromPath
from litestar.response import File

from common.methods import with_options
from common.problems import UnknownRoute

HEADERS = {
    # The pages load files only from this origin. Swagger UI writes styles into its elements.
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; media-src 'self' blob:;"
    " style-src 'self' 'unsafe-inline'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}
# The URL of a file stays the same when its content changes with a new version.
MAX_AGE_SECONDS = 600
HEADING_AND_TEXT = re.compile(
    r"^## (?P<name>\S+) \((?P<status>\d+)\): (?P<title>.+)\n\n(?P<text>(?:.+\n)+)", re.M
)
PROBLEMS = {
    found["name"]: found.groupdict()
    for found in HEADING_AND_TEXT.finditer((files("common") / "problems.md").read_text(encoding="utf-8"))
}


def make_pages() -> Router:
    """Returns the routes of the pages.

    Swagger UI's files are in the package flask_swagger_ui, which is located but never imported.
    """
    swagger_ui = find_spec("flask_swagger_ui")
    if not swagger_ui or not swagger_ui.origin:
        raise ModuleNotFoundError("flask_swagger_ui")
    folders = Path(swagger_ui.origin).parent / "dist", Path(__file__).parent / "page"
    files = {file.name: file for folder in folders for file in folder.iterdir()}

    @route(["/docs", "/docs/{name:str}"], http_method=["GET", "HEAD"], sync_to_thread=False)
    def get_page(request: Request[Any, Any, Any], name: FromPath[str] = "index.html") -> File:
        """Sends the page /docs, or one of its files."""
        if name not in files:
            raise UnknownRoute(request.url.path)
        headers = {**HEADERS, "Cache-Control": f"max-age={MAX_AGE_SECONDS}"}
        return File(files[name], filename=name, content_disposition_type="inline", headers=headers)

    return Router("/", route_handlers=with_options(get_page, get_problem), include_in_schema=False)


@route("/problems/{name:str}", http_method=["GET", "HEAD"], sync_to_thread=False)
def get_problem(request: Request[Any, Any, Any], name: FromPath[str]) -> Response[str]:
    """Sends the page that explains a type of problem."""
    problem = PROBLEMS.get(name)
    if not problem:
        raise UnknownRoute(request.url.path)
    shown = {key: escape(text) for key, text in problem.items()}
    text = re.sub("`([^`]+)`", r"<code>\1</code>", shown["text"])
    page = (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{shown['title']}</title>\n<h1>{shown['title']}</h1>\n"
        f"<p><code>/problems/{shown['name']}</code>, status {shown['status']}</p>\n<p>{text}</p>\n"
        '<p><a href="/docs">The API</a></p>\n</html>\n'
    )
    return Response(page, media_type=MediaType.HTML, headers=HEADERS)
