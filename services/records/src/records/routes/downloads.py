"""Sends the bytes of an object, an MP3 or an original: whole, or a range of it."""

from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Any, NamedTuple, NoReturn
from urllib.parse import quote
from uuid import UUID

import structlog
from litestar import Request
from litestar.background_tasks import BackgroundTask
from litestar.response.base import ASGIResponse
from litestar.response.streaming import ASGIStreamingResponse
from litestar.types import ASGIApp

from common.problems import Unavailable
from records.conditions import (
    Representation,
    format_date,
    is_not_modified,
    join_header_lines,
    make_validators,
)
from records.metrics import LOST_OBJECTS
from records.ranges import ByteRange, DownloadMode, choose_download_mode, select_range
from records.routes.running_service import RunningService
from records.storage import LISTENER_TIMEOUT_SECONDS, LOST_OBJECT, STORE_AWAY, ObjectStore, means_lost

log = structlog.get_logger()


class Download(NamedTuple):
    """An object that a request may have."""

    record_id: UUID
    object_key: str
    representation: Representation
    media_type: str
    disposition: str
    """The Content-Disposition."""
    is_cached: bool
    """Whether the gateway may keep it in its cache."""


# Checks the request and returns what it may have. Raises a Problem for what it may not have.
Find = Callable[[], Awaitable[Download]]


async def send_download(request: Request[Any, Any, Any], service: RunningService, find: Find) -> ASGIApp:
    """Sends what `find` returns, as the request's conditions and its range ask for it."""
    # Every play comes here, so this makes the ASGI responses itself. Litestar would make one of each
    # Response.
    download = await find()
    wanted = download.representation
    request_headers = join_header_lines(request.scope["headers"])
    # Also with a 304: the file name follows the title, which the user can change, and the ETag does not.
    headers = {
        **make_validators(wanted),
        "Accept-Ranges": "bytes",
        "Content-Disposition": download.disposition,
    }
    if is_not_modified(request_headers, wanted):
        return ASGIResponse(status_code=304, headers=headers)
    selected = select_range(request_headers, wanted) if request.method == "GET" else None
    if request.method == "GET" and service.settings.downloads == "accel":
        redirect = await make_internal_redirect(service.store, download, request_headers, selected)
        # The gateway adds the other headers. If the service sent them, nginx would also send them with the
        # problem for a store that is away.
        accel_headers = {"X-Accel-Redirect": redirect, "X-Blob-Disposition": download.disposition}
        return ASGIResponse(headers=accel_headers, media_type=download.media_type)
    first, length = selected or ByteRange(0, wanted.size_bytes)
    headers["Content-Length"] = str(length)
    if selected:
        headers["Content-Range"] = f"bytes {selected}/{wanted.size_bytes}"
    if request.method == "HEAD":
        return ASGIResponse(headers=headers, media_type=download.media_type)
    try:
        pieces = await service.store.open(download.object_key, first, length, LISTENER_TIMEOUT_SECONDS)
    except Unavailable as problem:
        if means_lost(problem):
            await refuse_lost_object(service, find)
        raise
    return ASGIStreamingResponse(
        iterator=pieces,
        status_code=206 if selected else 200,
        headers=headers,
        media_type=download.media_type,
        # Closed here, because a listener who leaves between two pieces does not end the generator.
        background=BackgroundTask(pieces.aclose),
    )


async def refuse_lost_object(service: RunningService, find: Find) -> NoReturn:
    """Raises the problem for an object that the store did not have, and logs it if it is lost.

    Each listener who meets a lost object leaves one log line. The record may have been deleted since the
    request was checked.
    """
    download = await find()
    if await service.store.find(download.object_key):
        raise Unavailable(STORE_AWAY)
    LOST_OBJECTS.inc()
    log.error("object lost", record=hash_id(download.record_id))
    raise Unavailable(LOST_OBJECT)


def hash_id(record_id: UUID) -> str:
    """Returns 16 digits for a log line: they tell records apart, and nobody can make a link of them."""
    return sha256(str(record_id).encode()).hexdigest()[:16]


async def make_internal_redirect(
    store: ObjectStore, download: Download, request_headers: dict[str, str], selected: ByteRange | None
) -> str:
    """Returns the X-Accel-Redirect for the gateway's location /_blob: what nginx sends, and what it
    fetches.
    """
    wanted = download.representation
    if download.is_cached:
        mode, fetched = choose_download_mode(request_headers, selected, wanted)
    else:
        mode, fetched = DownloadMode.DIRECT, str(selected or "")
    presigned = (await store.presign(download.object_key)).lstrip("/")
    return f"/_blob/{mode}/{wanted.etag}/{quote(format_date(wanted.last_modified))}/{fetched}/{presigned}"
