"""GET /listen and GET /listen.png: the page behind a link, its picture, and the page of a link that fails."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

from litestar import Request, Response, route
from litestar.di import NamedDependency
from litestar.params import FromPath
from werkzeug.datastructures import LanguageAccept, MIMEAccept
from werkzeug.http import parse_accept_header

from records import openapi
from records.conditions import Representation, is_not_modified, join_header_lines, make_validators
from records.pages import HTML_TYPE, LANGUAGES, PAGE_HEADERS, Language, make_record_page, make_refusal_page
from records.pictures import PNG_TYPE, draw_waveform
from records.problems import LostRecord
from records.requests import read_link
from records.routes.links import read_waveform
from records.routes.running_service import RunningService
from records.sql import find_record

PROBLEM_TYPE = "application/problem+json"
# Where a link leads. The gateway asks for /_lost when the store does not have the MP3.
PATHS_OF_LINKS = ("/record", "/listen", "/_lost")
# A picture takes 20 ms of one core, which the uploads need too: so one picture at a time.
PAINTER = ThreadPoolExecutor(1, "painter")

Render = Callable[[Request[Any, Any, Any], Exception], Response[Any]]


@route("/listen", http_method=["GET", "HEAD"], operation_class=openapi.GET_RECORD_PAGE)
async def get_record_page(
    request: Request[Any, Any, Any], service: NamedDependency[RunningService]
) -> Response[bytes]:
    """Shows the page of a link: title, waveform and player."""
    record, _ = await find_record(service.reader, *read_link(request))
    if record.lost_at:
        raise LostRecord
    page = make_record_page(record.with_origin(service.link_origin(request)), choose_language(request))
    return Response(page, media_type=HTML_TYPE, headers={**PAGE_HEADERS, "Vary": "Accept-Language"})


@route("/listen.png", http_method=["GET", "HEAD"], operation_class=openapi.GET_RECORD_PICTURE)
async def get_record_picture(
    request: Request[Any, Any, Any], service: NamedDependency[RunningService]
) -> Response[bytes]:
    """Shows the waveform of a link as a picture, for previews of the page."""
    record_id, user_id = read_link(request)
    record, _ = await find_record(service.reader, record_id, user_id)
    if record.lost_at:
        raise LostRecord
    picture = Representation.of_mp3(record)._replace(etag=f"{record.sha256}-picture")
    if is_not_modified(join_header_lines(request.scope["headers"]), picture):
        return Response(b"", status_code=304, headers={**make_validators(picture), "Accept-Ranges": "none"})
    if service.settings.downloads == "accel":
        # The gateway has the picture in its cache, or asks for it at this path.
        redirect = f"/_picture/{user_id}/{record_id}"
        return Response(b"", media_type=PNG_TYPE, headers={"X-Accel-Redirect": redirect})
    return await draw_picture(record_id, user_id, service)


# Only the gateway sends this request, after the service has checked a request for the picture.
@route("/_picture/{user_id:uuid}/{record_id:uuid}", http_method="GET", include_in_schema=False)
async def get_unchecked_picture(
    user_id: FromPath[UUID], record_id: FromPath[UUID], service: NamedDependency[RunningService]
) -> Response[bytes]:
    """Draws a picture for the cache of the gateway."""
    return await draw_picture(record_id, user_id, service)


async def draw_picture(record_id: UUID, user_id: UUID, service: RunningService) -> Response[bytes]:
    """Draws the waveform. Raises UnknownRecord, NoWaveform, or Unavailable."""
    record, waveform = await read_waveform(service, record_id, user_id)
    picture = await asyncio.get_running_loop().run_in_executor(PAINTER, draw_waveform, waveform)
    shown = Representation.of_mp3(record)._replace(etag=f"{record.sha256}-picture", size_bytes=len(picture))
    headers = {**make_validators(shown), "Accept-Ranges": "none", "X-Robots-Tag": "noindex"}
    return Response(picture, media_type=PNG_TYPE, headers=headers)


def with_pages(render_problem: Render) -> Render:
    """Returns an exception handler that makes a page, and no problem, for a browser that opens a link."""

    def render(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
        response = render_problem(request, error)
        if request.url.path not in PATHS_OF_LINKS or not isinstance(response.content, dict):
            return response
        vary = {"Vary": "Accept, Accept-Language"}
        if not prefers_page(request):
            response.headers |= vary
            return response
        page = make_refusal_page(
            response.status_code or 500, response.content["request_id"] or "", choose_language(request)
        )
        headers = {**response.headers, **PAGE_HEADERS, **vary}
        return Response(page, status_code=response.status_code, media_type=HTML_TYPE, headers=headers)

    return render


def prefers_page(request: Request[Any, Any, Any]) -> bool:
    """Returns whether the client prefers HTML to a problem, as only a browser does that opens a page."""
    accept = parse_accept_header(request.headers.get("accept"), MIMEAccept)
    return accept.best_match([PROBLEM_TYPE, "application/json", "text/html"]) == "text/html"


def choose_language(request: Request[Any, Any, Any]) -> Language:
    """Returns the language of Accept-Language that a page has; English without one."""
    accept = parse_accept_header(request.headers.get("accept-language"), LanguageAccept)
    # Not best_match, which prefers a later `ru` to an earlier `en-GB`.
    for name, quality in accept:
        for language in LANGUAGES:
            if quality and name.lower().partition("-")[0] == language:
                return language
    return "en"
