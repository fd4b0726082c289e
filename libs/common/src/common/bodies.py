"""The body of a request, as it arrives."""

from collections.abc import AsyncIterator
from typing import Any

from litestar import Request
from litestar.exceptions import InternalServerException

from common.problems import ClientGone


async def stream_body(request: Request[Any, Any, Any]) -> AsyncIterator[bytes]:
    """Yields the body in the pieces in which it comes.

    Raises ClientGone where the client has vanished; Litestar would make that a 500.
    """
    try:
        async for piece in request.stream():
            yield piece
    except InternalServerException:
        raise ClientGone("The request body ended early.") from None
