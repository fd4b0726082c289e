"""Reads the queries and headers of requests. Every reader raises InvalidRequest for a value that is not
allowed.
"""

import re
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl
from uuid import UUID

from litestar import Request

from common.credentials import Credentials, parse_authorization
from common.problems import InvalidCredentials, InvalidRequest
from common.requests import reject_unknown_parameters
from common.text import normalise_text, parse_uuid
from records import openapi
from records.documents import RecordDocument
from records.form import MAX_TITLE_LENGTH
from records.links import read_link_values

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
CURSOR = re.compile(openapi.CURSOR)
IDEMPOTENCY_KEY = re.compile(openapi.IDEMPOTENCY_KEY)
PAGE_PARAMETERS = ("limit", "cursor", "q")
# The query parameters of a waveform, and the parameter of Waveform.coarsen that each of them sets.
RESOLUTIONS = {"samples_per_pixel": "samples_per_pixel", "points": "max_pixels"}
# The values of `download`, and whether each of them saves the MP3.
DOWNLOAD = {"1": True, "true": True, "0": False, "false": False}
# Nine digits keep every count of a waveform below 2**31, on which readers of waveforms may rely.
COUNT = re.compile("[1-9][0-9]{0,8}", re.ASCII)


def reject_query(request: Request[Any, Any, Any]) -> None:
    """Accepts no query parameters at all."""
    reject_unknown_parameters(request.query_params.multi_items())


def read_query(request: Request[Any, Any, Any]) -> list[tuple[str, str]]:
    """Returns the query parameters that may hold any text. Litestar would put U+FFFD for bytes that are not
    UTF-8.
    """
    try:
        text = request.scope["query_string"].decode("ascii")
        return parse_qsl(text, keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        raise InvalidRequest("The query is not percent-encoded UTF-8. Encode it again.") from None


def read_idempotency_key(request: Request[Any, Any, Any]) -> str | None:
    """Returns the Idempotency-Key of an upload, or None without one."""
    keys = request.headers.getall("idempotency-key", [])
    if len(keys) > 1 or not all(IDEMPOTENCY_KEY.fullmatch(key) for key in keys):
        raise InvalidRequest(
            f"The header Idempotency-Key is {', '.join(keys)[:100]!r}. Send it once, with 1 to 255 visible"
            " ASCII characters, such as a UUID."
        )
    return keys[0] if keys else None


def read_page(request: Request[Any, Any, Any]) -> tuple[int, tuple[datetime, UUID] | None]:
    """Returns how many records to list, and the creation time and id behind which the page begins."""
    query = request.query_params
    reject_unknown_parameters(query.multi_items(), PAGE_PARAMETERS)
    limit = query.get("limit", str(openapi.DEFAULT_PAGE_RECORDS))
    if not COUNT.fullmatch(limit) or int(limit) > openapi.MAX_PAGE_RECORDS:
        raise InvalidRequest(
            f"The parameter 'limit' is {limit[:100]!r}. It must be a whole number from 1 to"
            f" {openapi.MAX_PAGE_RECORDS}."
        )
    if "cursor" not in query:
        return int(limit), None
    cursor = CURSOR.fullmatch(query["cursor"])
    if not cursor:
        raise InvalidRequest(
            f"The parameter 'cursor' is not the next_cursor of a page: {query['cursor'][:100]!r}. Leave it"
            " out for the first page."
        )
    return int(limit), (EPOCH + timedelta(microseconds=int(cursor[1])), UUID(cursor[2]))


def read_title_part(request: Request[Any, Any, Any]) -> str:
    """Returns the part of a title that the listed records have, or "" for all records."""
    if "q" not in request.query_params:
        return ""
    return normalise_text("parameter 'q'", dict(read_query(request))["q"], 0, MAX_TITLE_LENGTH)


def make_cursor(last: RecordDocument) -> str:
    """Returns the cursor of the page behind this record; `read_page` reads it."""
    return f"{(last.created_at - EPOCH) // timedelta(microseconds=1)}-{last.id}"


def read_link(request: Request[Any, Any, Any]) -> tuple[UUID, UUID]:
    """Returns the record's id and the user's id of a link."""
    values = _read_link_values(request)
    return _read_uuid("id", values["id"]), _read_uuid("user", values["user"])


def read_is_attachment(request: Request[Any, Any, Any]) -> bool:
    """Returns whether the browser shall save the MP3 instead of playing it."""
    values = [value.lower() for value in _read_link_values(request)["download"]] or ["0"]
    if len(values) > 1 or values[0] not in DOWNLOAD:
        raise InvalidRequest(
            f"The parameter 'download' is {', '.join(values)[:100]!r}. Send it at most once: 1 saves the MP3,"
            " 0 plays it."
        )
    return DOWNLOAD[values[0]]


def read_listener(request: Request[Any, Any, Any]) -> Credentials | UUID:
    """Returns who asks for a waveform: the header's credentials, or the `user` of the record's link.

    Raises InvalidCredentials without either.
    """
    header = request.headers.get("authorization")
    if header and "user" in request.query_params:
        raise InvalidRequest(
            "The request names the user twice. Send either an Authorization header or the parameter 'user'."
        )
    if credentials := parse_authorization(header):
        return credentials
    if "user" not in request.query_params:
        raise InvalidCredentials(
            "The request names no user. Send an Authorization header, or the parameter 'user' of the record's"
            " link."
        )
    return _read_uuid("user", request.query_params.getall("user"))


def read_resolution(request: Request[Any, Any, Any]) -> dict[str, int]:
    """Returns the keyword argument for Waveform.coarsen, or none."""
    parameters = list(request.query_params.multi_items())
    reject_unknown_parameters(parameters, (*RESOLUTIONS, "user"))
    given = [(name, value) for name, value in parameters if name in RESOLUTIONS]
    if len(given) > 1:
        raise InvalidRequest("The query has both 'samples_per_pixel' and 'points'. Send only one of them.")
    for name, value in given:
        if not COUNT.fullmatch(value):
            raise InvalidRequest(
                f"The parameter {name!r} is {value[:100]!r}. It must be a whole number from 1 to"
                f" {openapi.MAX_COUNT}."
            )
    return {RESOLUTIONS[name]: int(value) for name, value in given}


def _read_link_values(request: Request[Any, Any, Any]) -> defaultdict[str, list[str]]:
    return read_link_values(request.scope["query_string"].decode("latin-1"))


def _read_uuid(name: str, values: list[str]) -> UUID:
    try:
        (value,) = values
        return parse_uuid(value)
    except ValueError:
        raise InvalidRequest(
            f"The link needs the parameter {name!r} once, and it must be a UUID. Use the link exactly"
            " as it was given."
        ) from None
