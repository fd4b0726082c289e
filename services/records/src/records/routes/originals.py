"""GET and DELETE /records/{id}/original: the WAV that a record has kept, for its user alone."""

from functools import partial
from typing import Any
from uuid import UUID

from litestar import Request, delete, route
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.types import ASGIApp

from common.problems import UserBlocked
from records import openapi
from records.conditions import Representation
from records.file_names import make_content_disposition
from records.problems import NoOriginal, UnknownRecord
from records.requests import reject_query
from records.routes.downloads import Download, refuse_lost_object, send_download
from records.routes.running_service import RunningService
from records.sql import delete_original, find_own_record, find_record
from records.storage import make_original_key

WAV_TYPE = "audio/wav"


async def find_original(
    request: Request[Any, Any, Any], service: RunningService, record_id: UUID
) -> Download:
    """Returns the original of a record of the user.

    Raises UnknownRecord, UserBlocked, or NoOriginal.
    """
    user_id = await service.authenticate(request)
    try:
        record, object_key = await find_record(service.reader, record_id, user_id)
    except UnknownRecord:
        # A user who is blocked has records, too.
        await find_own_record(service.reader, record_id, user_id)
        raise UserBlocked from None
    if not record.original:
        raise NoOriginal
    return Download(
        record.id,
        make_original_key(object_key),
        Representation.of_original(record, record.original),
        WAV_TYPE,
        make_content_disposition(record.title, ".wav", is_attachment=True),
        # An original is about eleven times its MP3, and only its user asks for it.
        is_cached=False,
    )


@route(
    "/records/{record_id:uuid}/original",
    http_method=["GET", "HEAD"],
    operation_class=openapi.GET_RECORD_ORIGINAL,
)
async def get_record_original(
    request: Request[Any, Any, Any], record_id: FromPath[UUID], service: NamedDependency[RunningService]
) -> ASGIApp:
    """Sends the WAV as it was uploaded, whole or a range of it."""
    reject_query(request)
    return await send_download(request, service, partial(find_original, request, service, record_id))


@delete("/records/{record_id:uuid}/original", operation_class=openapi.REMOVE_RECORD_ORIGINAL)
async def remove_record_original(
    request: Request[Any, Any, Any], record_id: FromPath[UUID], service: NamedDependency[RunningService]
) -> None:
    """Deletes the WAV of a record for good, and keeps the record."""
    reject_query(request)
    user_id = await service.authenticate(request, to_write=True)
    if not await delete_original(service.engine, record_id, user_id):
        await find_own_record(service.reader, record_id, user_id)
        raise NoOriginal


# The gateway sends this request when the store does not have the object of an original, as /_lost for a link.
@route("/_lost/{record_id:uuid}", http_method="GET", include_in_schema=False)
async def get_lost_original(
    request: Request[Any, Any, Any], record_id: FromPath[UUID], service: NamedDependency[RunningService]
) -> ASGIApp:
    """Refuses an original whose object the gateway did not find."""
    await refuse_lost_object(service, partial(find_original, request, service, record_id))
