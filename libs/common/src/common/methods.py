"""OPTIONS: tells which methods a path supports (RFC 9110 section 9.3.7)."""

from litestar import Response, route
from litestar.handlers import HTTPRouteHandler


def with_options(*handlers: HTTPRouteHandler) -> list[HTTPRouteHandler]:
    """Returns the handlers, after one OPTIONS handler for each path, which lists all methods of the path.

    Litestar's own OPTIONS handler lists only the methods of a path's first handler.
    """
    allowed: dict[str, set[str]] = {}
    for handler in handlers:
        for path in handler.paths:
            allowed.setdefault(path, {"OPTIONS"}).update(handler.http_methods)
    return [
        *(_make_options_handler(path, ", ".join(sorted(methods))) for path, methods in allowed.items()),
        *handlers,
    ]


def _make_options_handler(path: str, allow: str) -> HTTPRouteHandler:
    @route(path, http_method="OPTIONS", status_code=204, sync_to_thread=False, include_in_schema=False)
    def get_options() -> Response[None]:
        return Response(None, headers={"Allow": allow})

    return get_options
