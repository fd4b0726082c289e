"""The HTTP face of the records service."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote
from uuid import UUID

import msgspec
from litestar import Request, Response, delete, post, route
from litestar.background_tasks import BackgroundTask
from litestar.di import NamedDependency
from litestar.openapi import ResponseSpec
from litestar.params import FromPath
from litestar.response.base import ASGIResponse
from litestar.response.streaming import ASGIStreamingResponse
from litestar.types import ASGIApp
from sqlalchemy.ext.asyncio import AsyncEngine

from common.bodies import read_content_type, stream_body
from common.credentials import parse_authorization, require_credentials
from common.db import Reader
from common.problems import InvalidCredentials, InvalidRequest
from common.queries import refuse_others
from common.text import parse_uuid
from records import openapi
from records.download import (
    Representation,
    choose_way,
    join_lines,
    make_date,
    make_disposition,
    make_headers,
    select_bytes,
)
from records.form import WAV_TYPES, read_upload
from records.service import (
    Published,
    Replayed,
    delete_record,
    find_record,
    find_user,
    find_waveform,
    list_records,
)
from records.settings import Settings
from records.storage import LISTENER_TIMEOUT_SECONDS, ObjectStore
from records.uploads import Uploads

MP3_TYPE = "audio/mpeg"
WAVEFORM_TYPE = "application/json"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
CURSOR = re.compile(openapi.CURSOR)
DEFAULT_PAGE, MAX_PAGE = 50, 100
PAGE_PARAMETERS = ("limit", "cursor")
# Nine digits: what is counted in a waveform stays below 2**31, which its readers may count on.
COUNT = re.compile("[1-9][0-9]{0,8}", re.ASCII)
IDEMPOTENCY_KEY = re.compile(openapi.IDEMPOTENCY_KEY)


class Backend(NamedTuple):
    """What the routes work with."""

    engine: AsyncEngine
    reader: Reader
    store: ObjectStore
    uploads: Uploads
    settings: Settings


class RecordDocument(msgspec.Struct, frozen=True):
    """A record with its link. `sha256` is the digest of the MP3, in hexadecimal; properties are the MP3's.

    Levels are of what was encoded, null for digital silence; `truncated`: the WAV ended before its audio did.
    """

    id: UUID
    url: str
    user_id: UUID
    title: str | None
    duration_seconds: float
    sample_rate: int
    channels: int
    bitrate_kbps: int
    peak_dbfs: float | None
    rms_dbfs: float | None
    truncated: bool
    size_bytes: int
    sha256: str
    created_at: datetime


class RecordPage(msgspec.Struct, frozen=True):
    """A page of records; `next_cursor` leads to the next one, null on the last."""

    records: list[RecordDocument]
    next_cursor: str | None


class WaveformDocument(msgspec.Struct, frozen=True):
    """BBC audiowaveform's JSON format, version 2: `data` has minimum and maximum of each pixel in turn."""

    version: int
    channels: int
    sample_rate: int
    samples_per_pixel: int
    bits: int
    length: int
    data: list[int]


@post("/records", operation_class=openapi.POST_RECORD)
async def post_record(
    request: Request[Any, Any, Any], backend: NamedDependency[Backend]
) -> Response[RecordDocument]:
    """Converts the WAV to MP3 while it arrives, stores it, and answers with its link.

    An Idempotency-Key that the user has used is answered with the record that it made, without the audio.
    """
    key = read_idempotency_key(request)
    credentials = parse_authorization(request.headers.get("authorization"))
    content_type = read_content_type(request)
    body = read_upload(stream_body(request), content_type, read_query(request))
    if content_type[0] in WAV_TYPES and not credentials:
        raise InvalidCredentials("A bare WAV needs an Authorization header: Bearer TOKEN, or Basic.")
    record = await backend.uploads.store_record(body, credentials, key)
    url = make_link(request, backend.settings, record)
    headers = {"Location": url}
    if isinstance(record, Replayed):
        headers["Idempotency-Replayed"] = "true"
    return Response(describe(record, url), headers=headers)


def read_query(request: Request[Any, Any, Any]) -> list[tuple[str, str]]:
    """The parameters of an upload's query. Raises InvalidRequest where they are not UTF-8.

    Litestar's own reading has U+FFFD there.
    """
    try:
        text = request.scope["query_string"].decode("ascii")
        return parse_qsl(text, keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        raise InvalidRequest("The query is not UTF-8 with everything else escaped.") from None


def read_idempotency_key(request: Request[Any, Any, Any]) -> str | None:
    """The key of an upload, or None without one. Raises InvalidRequest where it is none, or there twice."""
    keys = request.headers.getall("idempotency-key", [])
    if len(keys) > 1 or not all(IDEMPOTENCY_KEY.fullmatch(key) for key in keys):
        raise InvalidRequest(
            "The header Idempotency-Key is 1 to 255 visible ASCII characters, once; a UUID is a good one."
        )
    return keys[0] if keys else None


@route("/records", http_method=["GET", "HEAD"], operation_class=openapi.GET_RECORDS)
async def get_records(request: Request[Any, Any, Any], backend: NamedDependency[Backend]) -> RecordPage:
    """The records of the user, newest first, a page at a time."""
    user_id = await authenticate(request, backend)
    limit, before = read_page(request)
    # One more tells whether there is another page.
    found = await list_records(backend.engine, user_id, limit + 1, before)
    page = found[:limit]
    cursor = make_cursor(page[-1]) if len(found) > limit else None
    return RecordPage(
        [describe(record, make_link(request, backend.settings, record)) for record in page], cursor
    )


@route("/records/{record_id:uuid}", http_method=["GET", "HEAD"], operation_class=openapi.GET_RECORD)
async def get_record(
    request: Request[Any, Any, Any], record_id: FromPath[UUID], backend: NamedDependency[Backend]
) -> RecordDocument:
    """One record of the user."""
    refuse_others(request.query_params.multi_items())
    record, _ = await find_record(backend.reader, record_id, await authenticate(request, backend))
    return describe(record, make_link(request, backend.settings, record))


@delete("/records/{record_id:uuid}", operation_class=openapi.REMOVE_RECORD)
async def remove_record(
    request: Request[Any, Any, Any], record_id: FromPath[UUID], backend: NamedDependency[Backend]
) -> None:
    """Deletes a record for good: its link is 404 from the answer on."""
    refuse_others(request.query_params.multi_items())
    await delete_record(backend.engine, record_id, await authenticate(request, backend))


async def authenticate(request: Request[Any, Any, Any], backend: Backend) -> UUID:
    """The user whose credentials are in the header. Raises InvalidCredentials."""
    credentials = require_credentials(request.headers.get("authorization"))
    return await find_user(backend.engine, credentials)


def describe(record: Published, url: str) -> RecordDocument:
    """A record as the client sees it."""
    return RecordDocument(url=url, **{**msgspec.structs.asdict(record), "sha256": record.sha256.hex()})


def make_cursor(last: Published) -> str:
    """Where the next page begins: after the last record of this one."""
    return f"{(last.created_at - EPOCH) // timedelta(microseconds=1)}-{last.id}"


def read_page(request: Request[Any, Any, Any]) -> tuple[int, tuple[datetime, UUID] | None]:
    """How many records are asked for, and after which. Raises InvalidRequest where that makes no sense."""
    query = request.query_params
    refuse_others(query.multi_items(), PAGE_PARAMETERS)
    limit = query.get("limit", str(DEFAULT_PAGE))
    if not COUNT.fullmatch(limit) or int(limit) > MAX_PAGE:
        raise InvalidRequest(f"The parameter 'limit' is a whole number from 1 to {MAX_PAGE}.")
    if "cursor" not in query:
        return int(limit), None
    cursor = CURSOR.fullmatch(query["cursor"])
    if not cursor:
        raise InvalidRequest(
            "The parameter 'cursor' is no next_cursor of an earlier page; leave it out for the first."
        )
    return int(limit), (EPOCH + timedelta(microseconds=int(cursor[1])), UUID(cursor[2]))


def make_link(request: Request[Any, Any, Any], settings: Settings, record: Published) -> str:
    """The link of a record, with the scheme, host and port that the client used, or PUBLIC_URL."""
    base = settings.public_url.rstrip("/") or f"{request.url.scheme}://{request.headers['host']}"
    return f"{base}/record?id={record.id}&user={record.user_id}"


@route("/record", http_method=["GET", "HEAD"], operation_class=openapi.GET_RECORD_AUDIO)
async def get_record_audio(request: Request[Any, Any, Any], backend: NamedDependency[Backend]) -> ASGIApp:
    """The MP3 behind a link, whole or a range of it."""
    # Every play comes by here, so these are the responses that Litestar would make of its own.
    is_attachment = read_download(request)
    record, object_key = await find_record(backend.reader, *read_link(request))
    mp3 = represent(record)
    asked = join_lines(request.scope["headers"])
    selection = select_bytes(request.method, asked, mp3)
    if selection.status == 304:  # noqa: PLR2004
        return ASGIResponse(status_code=304, headers=make_headers(selection, mp3))
    disposition = make_disposition(record.title, is_attachment=is_attachment)
    if request.method == "GET" and backend.settings.downloads == "accel":
        # Only the bytes are left to nginx.
        way, span = choose_way(asked, selection, mp3)
        link = await make_internal_link(backend.store, object_key, way, span, mp3)
        # The rest of make_headers the gateway says itself: nginx would keep it where the store is away, too.
        headers = {"X-Accel-Redirect": link, "X-Blob-Disposition": disposition}
        return ASGIResponse(headers=headers, media_type=MP3_TYPE)
    headers = make_headers(selection, mp3)
    headers |= {"Content-Disposition": disposition, "Content-Length": str(selection.length)}
    if request.method == "HEAD":
        return ASGIResponse(status_code=selection.status, headers=headers, media_type=MP3_TYPE)
    pieces = await backend.store.open(object_key, selection.first, selection.length, LISTENER_TIMEOUT_SECONDS)
    return ASGIStreamingResponse(
        iterator=pieces,
        status_code=selection.status,
        headers=headers,
        media_type=MP3_TYPE,
        # A listener who leaves may do so between two pieces, of which the generator hears nothing.
        background=BackgroundTask(pieces.aclose),
    )


@route(
    "/records/{record_id:uuid}/waveform",
    http_method=["GET", "HEAD"],
    operation_class=openapi.GET_RECORD_WAVEFORM,
    responses={200: ResponseSpec(WaveformDocument, generate_examples=False)},
)
async def get_record_waveform(
    request: Request[Any, Any, Any], record_id: FromPath[UUID], backend: NamedDependency[Backend]
) -> Response[Any]:
    """The waveform of a record, for its user and for whoever has its link."""
    resolution = read_resolution(request)
    record, stored = await find_waveform(backend.reader, record_id, await identify(request, backend.engine))
    waveform = stored.coarsen(**resolution)
    document = WaveformDocument(
        version=2,
        channels=1,
        sample_rate=record.sample_rate,
        samples_per_pixel=waveform.samples_per_pixel,
        bits=8,
        length=waveform.length,
        data=waveform.values(),
    )
    content = msgspec.json.encode(document)
    etag = f"{record.sha256.hex()}-{waveform.samples_per_pixel}"
    representation = represent(record)._replace(etag=etag, size_bytes=len(content))
    # As for a HEAD: a range of a document so small is of no use, and may be ignored.
    selection = select_bytes("HEAD", join_lines(request.scope["headers"]), representation)
    headers = {**make_headers(selection, representation), "Accept-Ranges": "none"}
    if selection.status == 304:  # noqa: PLR2004
        return Response(b"", status_code=304, headers=headers)
    headers["Content-Length"] = str(len(content))
    return Response(b"" if request.method == "HEAD" else content, headers=headers, media_type=WAVEFORM_TYPE)


async def identify(request: Request[Any, Any, Any], engine: AsyncEngine) -> UUID:
    """The user whose record is asked for: by credentials, or by `user` as in the record's link.

    Raises InvalidCredentials, and InvalidRequest where both are given or `user` is no UUID.
    """
    header = request.headers.get("authorization")
    if header and "user" in request.query_params:
        raise InvalidRequest("The user is given twice; send an Authorization header or the parameter 'user'.")
    if credentials := parse_authorization(header):
        return await find_user(engine, credentials)
    if "user" not in request.query_params:
        raise InvalidCredentials(
            "Send an Authorization header, or the parameter 'user' of the record's link."
        )
    return _read_uuid(request, "user")


def read_resolution(request: Request[Any, Any, Any]) -> dict[str, int]:
    """What Waveform.coarsen is asked for, from the query. Raises InvalidRequest where it makes no sense."""
    names = {"samples_per_pixel": "samples_per_pixel", "points": "max_pixels"}
    refuse_others(request.query_params.multi_items(), (*names, "user"))
    given = [(name, value) for name, value in request.query_params.multi_items() if name in names]
    if len(given) > 1:
        raise InvalidRequest("Give one of 'samples_per_pixel' and 'points'.")
    for name, value in given:
        if not COUNT.fullmatch(value):
            raise InvalidRequest(f"The parameter {name!r} needs a whole number from 1 to 999999999.")
    return {names[name]: int(value) for name, value in given}


async def make_internal_link(
    store: ObjectStore, object_key: str, way: str, span: str, mp3: Representation
) -> str:
    """Where nginx finds the bytes, and what it says of them: the gateway's location /_blob reads it."""
    presigned = (await store.presign(object_key)).lstrip("/")
    return f"/_blob/{way}/{mp3.etag}/{quote(make_date(mp3.last_modified))}/{span}/{presigned}"


def read_download(request: Request[Any, Any, Any]) -> bool:
    """Whether the MP3 is to be saved instead of played. Raises InvalidRequest where that is not clear."""
    values = request.query_params.getall("download", ["0"])
    if values not in (["0"], ["1"]):
        raise InvalidRequest("The parameter 'download' is 1, once, to save the MP3 instead of playing it.")
    return values == ["1"]


def read_link(request: Request[Any, Any, Any]) -> tuple[UUID, UUID]:
    """The record's and the user's id from the query. Raises InvalidRequest where they are no UUIDs."""
    return _read_uuid(request, "id"), _read_uuid(request, "user")


def _read_uuid(request: Request[Any, Any, Any], name: str) -> UUID:
    values = request.query_params.getall(name, [])
    try:
        (value,) = values
        return parse_uuid(value)
    except ValueError:
        raise InvalidRequest(f"The link needs one parameter {name!r} that is a UUID.") from None


def represent(record: Published) -> Representation:
    """A record as HTTP sees it; objects never change, so the creation is the last modification."""
    created = record.created_at.astimezone(UTC).replace(microsecond=0)
    return Representation(record.sha256.hex(), created, record.size_bytes)
