"""Reads what the handlers of both services need from a request: its body, media type, query and client."""

import codecs
import json
from collections.abc import AsyncIterator, Iterable, Sequence
from ipaddress import IPv6Network, ip_address
from typing import Any, TypeVar

import msgspec
from litestar import Request
from litestar.exceptions import InternalServerException

from common.problems import ClientGone, InvalidRequest, UnsupportedMediaType

Body = TypeVar("Body", bound=msgspec.Struct)

# Far more than a JSON body needs. The gateway has the same limit.
MAX_JSON_BYTES = 64 * 1024
# msgspec's message names an unknown field, which may be as long as the body.
MAX_REASON_LENGTH = 200


async def stream_body(request: Request[Any, Any, Any]) -> AsyncIterator[bytes]:
    """Yields the body in pieces, as they arrive.

    Raises ClientGone if the client disconnects; Litestar would answer 500.
    """
    try:
        async for piece in request.stream():
            yield piece
    except InternalServerException:
        raise ClientGone("The request body ended early.") from None


def read_client_network(request: Request[Any, Any, Any]) -> str:
    """Returns the client's IPv4 address, or the /64 of its IPv6 address, which belongs to one customer.

    uvicorn takes the address from the gateway's X-Forwarded-For.
    """
    text = request.client.host if request.client else ""
    try:
        address = ip_address(text)
    except ValueError:
        return text
    if address.version == 4:  # noqa: PLR2004
        return text
    # A proxy may write an IPv4 address as ::ffff:192.0.2.7; all of these are in one /64.
    return str(address.ipv4_mapped or IPv6Network((address, 64), strict=False))


def read_content_type(request: Request[Any, Any, Any]) -> tuple[str, str]:
    """Returns the media type of the body, and the whole Content-Type header.

    Raises InvalidRequest for two such headers, and UnsupportedMediaType for a compressed body.
    """
    if len(request.headers.getall("content-type", [])) > 1:
        raise InvalidRequest("The request has the header Content-Type twice. Send it once.")
    encoding = request.headers.get("content-encoding", "")
    if encoding.lower() not in ("", "identity"):
        raise UnsupportedMediaType(
            f"The body has the Content-Encoding {encoding[:100]!r}. Send it without one, uncompressed."
        )
    return request.content_type[0], request.headers.get("content-type", "")


async def read_json(request: Request[Any, Any, Any], kind: type[Body], example: object) -> Body:
    """Reads a JSON body.

    Litestar's own reader accepts any content type, and answers 500 to a body that is not UTF-8.
    Raises UnsupportedMediaType if the body is not announced as JSON, and InvalidRequest, which shows the
    example, if it is not of this kind.
    """
    media_type, _ = read_content_type(request)
    if media_type != "application/json":
        raise UnsupportedMediaType(f"The content type is {media_type!r}. Send the body as application/json.")
    advice = f"Send a body such as {json.dumps(example)}."
    try:
        text = b"".join([piece async for piece in stream_body(request)]).removeprefix(codecs.BOM_UTF8)
        body = msgspec.json.decode(text, type=kind)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"{str(error)[:MAX_REASON_LENGTH]}. {advice}") from None
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"The body is not JSON: {error}. {advice}") from None
    except UnicodeDecodeError:
        raise InvalidRequest(f"The body is not UTF-8. {advice}") from None
    # msgspec would take the last of several fields with the same name.
    names = [name for name, _ in json.loads(text, object_pairs_hook=list)]
    if len({*names}) < len(names):
        raise InvalidRequest(f"The body has a field twice. {advice}")
    return body


def reject_unknown_parameters(query: Iterable[tuple[str, str]], allowed: Sequence[str] = ()) -> None:
    """Raises InvalidRequest for a query parameter that is not allowed or is repeated."""
    names = [name for name, _ in query]
    for name in names:
        if name not in allowed or names.count(name) > 1:
            rule = f"allowed, once each: {', '.join(allowed)}" if allowed else "no parameter is allowed here"
            raise InvalidRequest(f"The query has the parameter {name[:100]!r}; {rule}.")
