"""Which sites' scripts may call the API and read its answers: none, unless CORS_ORIGINS names them."""

from litestar.config.cors import CORSConfig

from common.settings import ServiceSettings

MAX_AGE_SECONDS = 600


def make_cors(settings: ServiceSettings) -> CORSConfig | None:
    """What Litestar needs to answer preflights and to mark answers; None where it is off."""
    origins = [origin.strip() for origin in settings.cors_origins.split(",") if origin.strip()]
    if not origins:
        return None
    return CORSConfig(
        allow_origins=origins,
        allow_methods=["GET", "HEAD", "POST", "DELETE"],
        # In small letters, as Litestar compares them.
        allow_headers=[
            *("authorization", "content-type", "idempotency-key", "range", "if-range"),
            *("if-match", "if-none-match", "if-modified-since", "if-unmodified-since"),
        ],
        expose_headers=[
            *("Accept-Ranges", "Content-Disposition", "Content-Range", "ETag", "Idempotency-Replayed"),
            *("Location", "Retry-After", "X-Request-ID"),
        ],
        max_age=MAX_AGE_SECONDS,
    )
