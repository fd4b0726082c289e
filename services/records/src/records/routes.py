"""The HTTP face of the records service."""

from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote
from uuid import UUID

import msgspec
from litestar import Request, Response, post, route
from litestar.di import NamedDependency
from litestar.response import Stream
from sqlalchemy.ext.asyncio import AsyncEngine
from werkzeug.http import http_date

from common.bodies import stream_body
from common.credentials import parse_authorization
from common.problems import InvalidCredentials, InvalidRequest
from records.download import Representation, Selection, make_headers, select_bytes
from records.service import Published, Uploads, find_record
from records.settings import Settings
from records.storage import ObjectStore
from records.upload import WAV_TYPES, read_upload

MP3_TYPE = "audio/mpeg"


class CreatedRecord(msgspec.Struct, frozen=True):
    """A record with its link. `sha256` is the digest of the MP3, in hexadecimal; properties are the MP3's."""

    id: UUID
    url: str
    user_id: UUID
    title: str | None
    duration_seconds: float
    sample_rate: int
    channels: int
    bitrate_kbps: int
    size_bytes: int
    sha256: str
    created_at: datetime


@post("/records")
async def post_record(
    request: Request[Any, Any, Any], uploads: NamedDependency[Uploads], settings: NamedDependency[Settings]
) -> Response[CreatedRecord]:
    """Converts the WAV to MP3 while it arrives, stores it, and answers with its link."""
    credentials = parse_authorization(request.headers.get("authorization"))
    body = read_upload(stream_body(request), request.content_type, list(request.query_params.multi_items()))
    if request.content_type[0] in WAV_TYPES and not credentials:
        raise InvalidCredentials("A bare WAV needs an Authorization header: Bearer TOKEN, or Basic.")
    record = await uploads.store_record(body, credentials)
    url = make_link(request, settings, record)
    created = CreatedRecord(url=url, **{**msgspec.structs.asdict(record), "sha256": record.sha256.hex()})
    return Response(created, headers={"Location": url})


def make_link(request: Request[Any, Any, Any], settings: Settings, record: Published) -> str:
    """The link of a record, with the scheme, host and port that the client used, or PUBLIC_URL."""
    base = settings.public_url.rstrip("/") or f"{request.url.scheme}://{request.headers['host']}"
    return f"{base}/record?id={record.id}&user={record.user_id}"


@route("/record", http_method=["GET", "HEAD"])
async def get_record_audio(
    request: Request[Any, Any, Any],
    engine: NamedDependency[AsyncEngine],
    store: NamedDependency[ObjectStore],
    settings: NamedDependency[Settings],
) -> Response[Any]:
    """The MP3 behind a link, whole or a range of it; only the bytes of a GET are left to nginx."""
    record, object_key = await find_record(engine, *read_link(request))
    mp3 = represent(record)
    selection = select_bytes(request.method, request.headers, mp3)
    headers = make_headers(selection, mp3)
    if selection.status == 304:  # noqa: PLR2004
        return Response(b"", status_code=304, headers=headers)
    if request.method == "GET" and settings.downloads == "accel":
        headers["X-Accel-Redirect"] = await make_internal_link(store, object_key, selection, mp3)
        return Response(b"", status_code=200, headers=headers, media_type=MP3_TYPE)
    headers["Content-Length"] = str(selection.length)
    if request.method == "HEAD":
        return Response(b"", status_code=selection.status, headers=headers, media_type=MP3_TYPE)
    pieces = await store.open(object_key, selection.first, selection.length)
    return Stream(pieces, status_code=selection.status, headers=headers, media_type=MP3_TYPE)


async def make_internal_link(
    store: ObjectStore, object_key: str, selection: Selection, mp3: Representation
) -> str:
    """Where nginx finds the bytes, and what it says of them: the gateway's location /_blob reads it."""
    last = selection.first + selection.length - 1
    span = f"{selection.first}-{last}" if selection.status == 206 else ""  # noqa: PLR2004
    presigned = (await store.presign(object_key)).lstrip("/")
    return f"/_blob/{mp3.etag}/{quote(http_date(mp3.last_modified))}/{span}/{presigned}"


def read_link(request: Request[Any, Any, Any]) -> tuple[UUID, UUID]:
    """The record's and the user's id from the query. Raises InvalidRequest where they are no UUIDs."""
    return _read_uuid(request, "id"), _read_uuid(request, "user")


def _read_uuid(request: Request[Any, Any, Any], name: str) -> UUID:
    values = request.query_params.getall(name, [])
    try:
        (value,) = values
        return UUID(value)
    except ValueError:
        raise InvalidRequest(f"The link needs one parameter {name!r} that is a UUID.") from None


def represent(record: Published) -> Representation:
    """A record as HTTP sees it; objects never change, so the creation is the last modification."""
    created = record.created_at.astimezone(UTC).replace(microsecond=0)
    return Representation(record.sha256.hex(), created, record.size_bytes)
