"""/healthz tells that the process runs, /readyz that everything that the service needs is available."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import structlog
from litestar import route
from litestar.handlers import HTTPRouteHandler

from common.problems import Unavailable

log = structlog.get_logger()

TIMEOUT_SECONDS = 3


class NotReady(Unavailable):
    """Something that this service needs is away."""

    title = "The service is not ready"


def make_health_routes(checks: Mapping[str, Callable[[], Awaitable[None]]]) -> list[HTTPRouteHandler]:
    """Returns the two routes.

    `checks` maps the name of each thing that the service needs to a function, which raises an exception if
    the thing is away. /readyz runs all checks at the same time.
    """

    @route("/healthz", http_method=["GET", "HEAD"], sync_to_thread=False, include_in_schema=False)
    def get_healthz() -> dict[str, str]:
        return {"status": "ok"}

    @route("/readyz", http_method=["GET", "HEAD"], include_in_schema=False)
    async def get_readyz() -> dict[str, str]:
        available = await asyncio.gather(*(_is_available(check) for check in checks.values()))
        if away := [name for name, is_available in zip(checks, available, strict=True) if not is_available]:
            raise NotReady(f"The service cannot reach: {', '.join(away)}")
        return {"status": "ready"}

    return [get_healthz, get_readyz]


async def _is_available(check: Callable[[], Awaitable[None]]) -> bool:
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await check()
    except Exception as error:
        log.warning("not ready", cause=repr(error))
        return False
    return True
