"""GET /records, and GET and DELETE /records/{id}: a user's records."""

from typing import Any
from uuid import UUID

from litestar import Request, delete, route
from litestar.di import NamedDependency
from litestar.params import FromPath

from records import openapi
from records.documents import RecordDocument, RecordPage
from records.requests import make_cursor, read_page, reject_query
from records.routes.running_service import RunningService
from records.sql import delete_record, find_own_record, list_records


@route("/records", http_method=["GET", "HEAD"], operation_class=openapi.GET_RECORDS)
async def get_records(
    request: Request[Any, Any, Any], service: NamedDependency[RunningService]
) -> RecordPage:
    """Lists the records of the user, newest first, one page at a time."""
    user_id = await service.authenticate(request)
    limit, after = read_page(request)
    # One record more than the page shows whether there is another page.
    found = await list_records(service.engine, user_id, limit + 1, after)
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


@delete("/records/{record_id:uuid}", operation_class=openapi.REMOVE_RECORD)
async def remove_record(
    request: Request[Any, Any, Any], record_id: FromPath[UUID], service: NamedDependency[RunningService]
) -> None:
    """Deletes a record for good: from this response on, its link is 404."""
    reject_query(request)
    await delete_record(service.engine, record_id, await service.authenticate(request, to_write=True))
