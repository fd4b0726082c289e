"""GET /record and GET /records/{id}/waveform: what anyone with a record's link gets."""

from hashlib import sha256
from typing import Any, NoReturn
from urllib.parse import quote
from uuid import UUID

import msgspec
import structlog
from litestar import Request, Response, route
from litestar.background_tasks import BackgroundTask
from litestar.di import NamedDependency
from litestar.openapi import ResponseSpec
from litestar.params import FromPath
from litestar.response.base import ASGIResponse
from litestar.response.streaming import ASGIStreamingResponse
from litestar.types import ASGIApp

from common.problems import Unavailable
from records import openapi
from records.conditions import (
    Representation,
    format_date,
    is_not_modified,
    join_header_lines,
    make_validators,
)
from records.documents import WaveformDocument
from records.file_names import make_content_disposition
from records.metrics import LOST_OBJECTS
from records.problems import LostRecord
from records.ranges import ByteRange, choose_download_mode, select_range
from records.requests import read_is_attachment, read_link, read_listener, read_resolution
from records.routes.running_service import RunningService
from records.sql import find_record, find_user, find_waveform
from records.storage import LISTENER_TIMEOUT_SECONDS, LOST_OBJECT, STORE_AWAY, ObjectStore, means_lost

log = structlog.get_logger()

MP3_TYPE = "audio/mpeg"
WAVEFORM_TYPE = "application/json"


@route("/record", http_method=["GET", "HEAD"], operation_class=openapi.GET_RECORD_AUDIO)
async def get_record_audio(
    request: Request[Any, Any, Any], service: NamedDependency[RunningService]
) -> ASGIApp:
    """Sends the MP3 of a link, whole or a range of it."""
    # Every play runs this handler, so it makes the ASGI responses itself. Litestar would make one of each
    # Response.
    is_attachment = read_is_attachment(request)
    record, object_key = await find_record(service.reader, *read_link(request))
    if record.lost_at:
        raise LostRecord
    mp3 = Representation.of_mp3(record)
    request_headers = join_header_lines(request.scope["headers"])
    headers = {**make_validators(mp3), "Accept-Ranges": "bytes"}
    if is_not_modified(request_headers, mp3):
        return ASGIResponse(status_code=304, headers=headers)
    disposition = make_content_disposition(record.title, is_attachment=is_attachment)
    selected = select_range(request_headers, mp3) if request.method == "GET" else None
    if request.method == "GET" and service.settings.downloads == "accel":
        redirect = await make_internal_redirect(service.store, object_key, mp3, request_headers, selected)
        # The gateway adds the other headers. If the service sent them, nginx would also send them with the
        # problem for a store that is away.
        accel_headers = {"X-Accel-Redirect": redirect, "X-Blob-Disposition": disposition}
        return ASGIResponse(headers=accel_headers, media_type=MP3_TYPE)
    first, length = selected or ByteRange(0, mp3.size_bytes)
    headers |= {"Content-Disposition": disposition, "Content-Length": str(length)}
    if selected:
        headers["Content-Range"] = f"bytes {selected}/{mp3.size_bytes}"
    if request.method == "HEAD":
        return ASGIResponse(headers=headers, media_type=MP3_TYPE)
    try:
        pieces = await service.store.open(object_key, first, length, LISTENER_TIMEOUT_SECONDS)
    except Unavailable as problem:
        if means_lost(problem):
            await refuse_lost_object(request, service)
        raise
    return ASGIStreamingResponse(
        iterator=pieces,
        status_code=206 if selected else 200,
        headers=headers,
        media_type=MP3_TYPE,
        # Closed here, because a listener who leaves between two pieces does not end the generator.
        background=BackgroundTask(pieces.aclose),
    )


# The gateway sends this request when the store does not have the object of a download. No client can reach
# the path through the gateway, and nobody can forge a log line, because the service looks for the object
# itself.
@route("/_lost", http_method="GET", include_in_schema=False)
async def get_lost_object(
    request: Request[Any, Any, Any], service: NamedDependency[RunningService]
) -> ASGIApp:
    """Refuses a link whose object the gateway did not find."""
    await refuse_lost_object(request, service)


async def refuse_lost_object(request: Request[Any, Any, Any], service: RunningService) -> NoReturn:
    """Raises the problem for a link whose object the store did not have, and logs it if it is lost.

    Each listener who meets a lost object leaves one log line. The record may have been deleted since the link
    was checked.
    """
    record, object_key = await find_record(service.reader, *read_link(request))
    if record.lost_at:
        raise LostRecord
    if await service.store.find(object_key):
        raise Unavailable(STORE_AWAY)
    LOST_OBJECTS.inc()
    log.error("object lost", record=hash_id(record.id))
    raise Unavailable(LOST_OBJECT)


def hash_id(record_id: UUID) -> str:
    """Returns 16 digits for a log line: they tell records apart, and nobody can make a link of them."""
    return sha256(str(record_id).encode()).hexdigest()[:16]


async def make_internal_redirect(
    store: ObjectStore,
    object_key: str,
    mp3: Representation,
    request_headers: dict[str, str],
    selected: ByteRange | None,
) -> str:
    """Returns the X-Accel-Redirect for the gateway's location /_blob: what nginx sends, and what it
    fetches.
    """
    mode, fetched = choose_download_mode(request_headers, selected, mp3)
    presigned = (await store.presign(object_key)).lstrip("/")
    return f"/_blob/{mode}/{mp3.etag}/{quote(format_date(mp3.last_modified))}/{fetched}/{presigned}"


@route(
    "/records/{record_id:uuid}/waveform",
    http_method=["GET", "HEAD"],
    operation_class=openapi.GET_RECORD_WAVEFORM,
    responses={200: ResponseSpec(WaveformDocument, generate_examples=False)},
)
async def get_record_waveform(
    request: Request[Any, Any, Any], record_id: FromPath[UUID], service: NamedDependency[RunningService]
) -> Response[Any]:
    """Sends the waveform of a record to its user, and to anyone who has its link."""
    resolution = read_resolution(request)
    listener = read_listener(request)
    user_id = listener if isinstance(listener, UUID) else await find_user(service.engine, listener)
    record, stored = await find_waveform(service.reader, record_id, user_id)
    waveform = stored.coarsen(**resolution)
    content = msgspec.json.encode(WaveformDocument.from_waveform(waveform, record.sample_rate))
    representation = Representation.of_mp3(record)._replace(
        etag=f"{record.sha256}-{waveform.samples_per_pixel}", size_bytes=len(content)
    )
    # Ranges are ignored, because the document is small.
    headers = {**make_validators(representation), "Accept-Ranges": "none"}
    if is_not_modified(join_header_lines(request.scope["headers"]), representation):
        return Response(b"", status_code=304, headers=headers)
    headers["Content-Length"] = str(len(content))
    return Response(b"" if request.method == "HEAD" else content, headers=headers, media_type=WAVEFORM_TYPE)
