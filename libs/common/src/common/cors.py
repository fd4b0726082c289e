"""CORS: only scripts of the sites in CORS_ORIGINS may call the API and read its responses."""

from collections.abc import Iterable

from litestar.datastructures import MutableScopeHeaders
from litestar.types import BeforeMessageSendHookHandler, Message, Scope

from common.settings import ServiceSettings

# Response headers of either service that scripts may read, so that a script need not know which service
# responds. The records service adds Idempotency-Replayed.
RESPONSE_HEADERS = (
    *("Accept-Ranges", "Content-Disposition", "Content-Range", "ETag", "Location", "Retry-After"),
    "X-Request-ID",
)
# Some clients send Idempotency-Key with every POST, whether the service reads it or not.
REQUEST_HEADERS = (
    *("authorization", "content-type", "idempotency-key", "if-match", "if-modified-since"),
    *("if-none-match", "if-range", "if-unmodified-since", "range", "x-signup-key"),
)
MAX_AGE_SECONDS = "600"


def make_cors_hooks(
    settings: ServiceSettings,
    response_headers: Iterable[str] = (),
) -> list[BeforeMessageSendHookHandler]:
    """Returns the hook that adds CORS headers to every response, problems too; none if CORS is off.

    Scripts may read `response_headers` besides RESPONSE_HEADERS.
    Litestar's own CORS middleware is not used: it answers an OPTIONS from another origin with 400 in plain
    text, before the host check, and sends no Vary to an origin that is not allowed.
    """
    origins = {origin.strip().encode() for origin in settings.cors_origins.split(",") if origin.strip()}
    exposed = ", ".join(sorted({*RESPONSE_HEADERS, *response_headers}, key=str.lower))
    allowed = ", ".join(REQUEST_HEADERS)

    async def add_cors_headers(message: Message, scope: Scope) -> None:
        if message["type"] != "http.response.start":
            return
        headers = MutableScopeHeaders.from_message(message)
        origin = b"*"
        if origin not in origins:
            # Every response needs Vary: otherwise a cache could give one site's response to another site.
            headers.extend_header_value("Vary", "Origin")
            origin = dict(scope["headers"]).get(b"origin", b"")
            if origin not in origins:
                return
        headers["Access-Control-Allow-Origin"] = origin.decode()
        headers["Access-Control-Expose-Headers"] = exposed
        if scope.get("method") == "OPTIONS" and "Allow" in headers:
            headers["Access-Control-Allow-Methods"] = headers["Allow"]
            headers["Access-Control-Allow-Headers"] = allowed
            headers["Access-Control-Max-Age"] = MAX_AGE_SECONDS

    return [add_cors_headers] if origins else []
