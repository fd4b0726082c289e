"""Reads what the handlers of both services need from a request: its body, media type, query and client."""

from collections.abc import AsyncIterator, Iterable, Sequence
from ipaddress import IPv6Network, ip_address
from typing import Any

from litestar import Request
from litestar.exceptions import InternalServerException

from common.problems import ClientGone, InvalidRequest, UnsupportedMediaType


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


def reject_unknown_parameters(query: Iterable[tuple[str, str]], allowed: Sequence[str] = ()) -> None:
    """Raises InvalidRequest for a query parameter that is not allowed or is repeated."""
    names = [name for name, _ in query]
    for name in names:
        if name not in allowed or names.count(name) > 1:
            rule = f"allowed, once each: {', '.join(allowed)}" if allowed else "no parameter is allowed here"
            raise InvalidRequest(f"The query has the parameter {name[:100]!r}; {rule}.")
