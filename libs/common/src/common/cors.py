"""Which sites' scripts may call the API and read its answers: none, unless CORS_ORIGINS names them."""

from litestar.datastructures import MutableScopeHeaders
from litestar.types import BeforeMessageSendHookHandler, Message, Scope

from common.settings import ServiceSettings

EXPOSED = (
    "Accept-Ranges, Content-Disposition, Content-Range, ETag, Idempotency-Replayed, Location, Retry-After,"
    " X-Request-ID"
)
ALLOWED = (
    "authorization, content-type, idempotency-key, if-match, if-modified-since, if-none-match, if-range,"
    " if-unmodified-since, range"
)
MAX_AGE_SECONDS = "600"


def make_cors(settings: ServiceSettings) -> list[BeforeMessageSendHookHandler]:
    """What marks the app's answers, its errors too: nothing where CORS is off.

    Litestar's own middleware answers an OPTIONS from elsewhere with 400 in plain text, in front of the host
    check, and has no Vary where an origin is not permitted.
    """
    origins = {origin.strip().encode() for origin in settings.cors_origins.split(",") if origin.strip()}

    async def mark(message: Message, scope: Scope) -> None:
        if message["type"] != "http.response.start":
            return
        headers = MutableScopeHeaders.from_message(message)
        origin = b"*"
        if origin not in origins:
            # On every answer: a cache may not give one site's to another.
            headers.extend_header_value("Vary", "Origin")
            origin = dict(scope["headers"]).get(b"origin", b"")
            if origin not in origins:
                return
        headers["Access-Control-Allow-Origin"] = origin.decode()
        headers["Access-Control-Expose-Headers"] = EXPOSED
        if scope.get("method") == "OPTIONS" and "Allow" in headers:
            headers["Access-Control-Allow-Methods"] = headers["Allow"]
            headers["Access-Control-Allow-Headers"] = ALLOWED
            headers["Access-Control-Max-Age"] = MAX_AGE_SECONDS

    return [mark] if origins else []
