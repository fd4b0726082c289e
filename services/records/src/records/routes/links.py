"""GET /record and GET /records/{id}/waveform: what anyone with a record's link gets."""

from functools import partial
from typing import Any
from uuid import UUID

import msgspec
from litestar import Request, Response, route
from litestar.di import NamedDependency
from litestar.openapi import ResponseSpec
from litestar.params import FromPath
from litestar.types import ASGIApp

from common.problems import Unavailable
from records import openapi
from records.audio import Waveform
from records.conditions import Representation, is_not_modified, join_header_lines, make_validators
from records.documents import RecordDocument, WaveformDocument
from records.file_names import make_content_disposition
from records.problems import LostRecord
from records.requests import read_is_attachment, read_link, read_listener, read_resolution
from records.routes.downloads import Download, refuse_lost_object, send_download
from records.routes.running_service import RunningService
from records.sql import find_record, find_user, find_waveform
from records.storage import means_lost

MP3_TYPE = "audio/mpeg"
WAVEFORM_TYPE = "application/json"


async def find_mp3(request: Request[Any, Any, Any], service: RunningService) -> Download:
    """Returns the MP3 of a link. Raises UnknownRecord, or LostRecord."""
    is_attachment = read_is_attachment(request)
    record, object_key = await find_record(service.reader, *read_link(request))
    if record.lost_at:
        raise LostRecord
    return Download(
        record.id,
        object_key,
        Representation.of_mp3(record),
        MP3_TYPE,
        make_content_disposition(record.title, is_attachment=is_attachment),
        is_cached=True,
    )


@route("/record", http_method=["GET", "HEAD"], operation_class=openapi.GET_RECORD_AUDIO)
async def get_record_audio(
    request: Request[Any, Any, Any], service: NamedDependency[RunningService]
) -> ASGIApp:
    """Sends the MP3 of a link, whole or a range of it."""
    return await send_download(request, service, partial(find_mp3, request, service))


# The gateway sends this request when the store does not have the object of a download. No client can reach
# the path through the gateway, and nobody can forge a log line, because the service looks for the object
# itself.
@route("/_lost", http_method="GET", include_in_schema=False)
async def get_lost_object(
    request: Request[Any, Any, Any], service: NamedDependency[RunningService]
) -> ASGIApp:
    """Refuses a link whose object the gateway did not find."""
    await refuse_lost_object(service, partial(find_mp3, request, service))


async def read_waveform(
    service: RunningService, record_id: UUID, user_id: UUID
) -> tuple[RecordDocument, Waveform]:
    """Returns a record and its waveform. Raises UnknownRecord or NoWaveform."""
    find = partial(find_waveform, service.reader, record_id, user_id)
    found = await find()
    peaks = found.peaks
    if peaks is None:
        try:
            peaks = await service.store.read(found.object_key, found.sha256)
        except Unavailable as problem:
            if means_lost(problem):
                await refuse_lost_object(service, find)
            raise
    return found.record, Waveform(found.samples_per_pixel, peaks)


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
    record, stored = await read_waveform(service, record_id, user_id)
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
