"""GET /records, and GET, PATCH and DELETE /records/{id}: a user's records."""

from typing import Any
from uuid import UUID

from litestar import Request, delete, patch, route
from litestar.di import NamedDependency
from litestar.params import FromPath

from common.requests import MAX_JSON_BYTES, read_json
from common.text import normalise_text
from records import openapi
from records.documents import NewTitle, RecordDocument, RecordPage
from records.form import MAX_TITLE_LENGTH
from records.requests import make_cursor, read_page, read_title_part, reject_query
from records.routes.running_service import RunningService
from records.sql import delete_record, find_own_record, list_records, rename_record


@route("/records", http_method=["GET", "HEAD"], operation_class=openapi.GET_RECORDS)
async def get_records(
    request: Request[Any, Any, Any], service: NamedDependency[RunningService]
) -> RecordPage:
    """Lists the records of the user, or those with a part of a title, newest first, one page at a time."""
    user_id = await service.authenticate(request)
    limit, after = read_page(request)
    title_part = read_title_part(request)
    # One record more than the page shows whether there is another page.
    found = await list_records(service.engine, user_id, limit + 1, after, title_part)
    page = found[:limit]
    next_cursor = make_cursor(page[-1]) if len(found) > limit else None
    origin = service.link_origin(request)
    return RecordPage([record.with_origin(origin) for record in page], next_cursor)


@route("/records/{record_id:uuid}", http_method=["GET", "HEAD"], operation_class=openapi.GET_RECORD)
async def get_record(
    request: Request[Any, Any, Any], record_id: FromPath[UUID], service: NamedDependency[RunningService]
) -> RecordDocument:
    """Shows one record of the user."""
    reject_query(request)
    record = await find_own_record(service.reader, record_id, await service.authenticate(request))
    return record.with_origin(service.link_origin(request))


@patch(
    "/records/{record_id:uuid}", operation_class=openapi.PATCH_RECORD, request_max_body_size=MAX_JSON_BYTES
)
async def patch_record(
    request: Request[Any, Any, Any], record_id: FromPath[UUID], service: NamedDependency[RunningService]
) -> RecordDocument:
    """Gives a record another title, or none. The MP3 stays as it is; only its file name follows the title."""
    reject_query(request)
    user_id = await service.authenticate(request, to_write=True)
    new = await read_json(request, NewTitle, openapi.NEW_TITLE)
    title = normalise_text("title", new.title or "", 0, MAX_TITLE_LENGTH) or None
    record = await rename_record(service.engine, record_id, user_id, title)
    return record.with_origin(service.link_origin(request))


@delete("/records/{record_id:uuid}", operation_class=openapi.REMOVE_RECORD)
async def remove_record(
    request: Request[Any, Any, Any], record_id: FromPath[UUID], service: NamedDependency[RunningService]
) -> None:
    """Deletes a record for good: from this response on, its link is 404."""
    reject_query(request)
    await delete_record(service.engine, record_id, await service.authenticate(request, to_write=True))
