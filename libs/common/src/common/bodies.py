"""The body of a request, as it arrives."""

from collections.abc import AsyncIterator
from typing import Any

from litestar import Request
from litestar.exceptions import InternalServerException

from common.problems import ClientGone, InvalidRequest


async def stream_body(request: Request[Any, Any, Any]) -> AsyncIterator[bytes]:
    """Yields the body in the pieces in which it comes.

    Raises ClientGone where the client has vanished; Litestar would make that a 500.
    """
    try:
        async for piece in request.stream():
            yield piece
    except InternalServerException:
        raise ClientGone("The request body ended early.") from None


def read_content_type(request: Request[Any, Any, Any]) -> tuple[str, dict[str, str]]:
    """The media type of the body, and its parameters. Raises InvalidRequest where it is given twice."""
    if len(request.headers.getall("content-type", [])) > 1:
        raise InvalidRequest("The header Content-Type is there twice.")
    return request.content_type
