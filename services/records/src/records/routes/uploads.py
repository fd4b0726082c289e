"""POST /records: an upload."""

from typing import Any

from litestar import Request, Response, post
from litestar.di import NamedDependency

from common.credentials import parse_authorization
from common.problems import InvalidCredentials
from common.requests import read_client_network, read_content_type, stream_body
from records import openapi
from records.documents import RecordDocument
from records.form import WAV_TYPES, read_upload
from records.pace import enforce_pace
from records.requests import read_idempotency_key, read_query
from records.routes.running_service import RunningService
from records.uploads import Replayed


@post("/records", operation_class=openapi.POST_RECORD)
async def post_record(
    request: Request[Any, Any, Any], service: NamedDependency[RunningService]
) -> Response[RecordDocument]:
    """Converts the WAV to MP3 while it arrives, stores it, and returns its link.

    If the user has used the Idempotency-Key before, returns the record of that upload and reads no audio.
    """
    idempotency_key = read_idempotency_key(request)
    credentials = parse_authorization(request.headers.get("authorization"))
    content_type = read_content_type(request)
    paced = enforce_pace(stream_body(request), service.settings)
    body = read_upload(paced, content_type, read_query(request))
    if content_type[0] in WAV_TYPES and not credentials:
        raise InvalidCredentials(
            "A bare WAV needs an Authorization header: Bearer TOKEN, or Basic with user id and token."
        )
    address = read_client_network(request)
    result = await service.uploads.store_record(body, credentials, idempotency_key, address)
    record = result.record.with_origin(service.link_origin(request))
    headers = {"Location": record.url}
    if isinstance(result, Replayed):
        headers["Idempotency-Replayed"] = "true"
    return Response(record, headers=headers)
