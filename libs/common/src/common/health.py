"""/healthz says that the process runs, /readyz that what it needs is there."""

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
    """The two routes; `checks` are awaited together and raise a Problem where their part is away."""

    @route("/healthz", http_method=["GET", "HEAD"], sync_to_thread=False, include_in_schema=False)
    def get_healthz() -> dict[str, str]:
        return {"status": "ok"}

    @route("/readyz", http_method=["GET", "HEAD"], include_in_schema=False)
    async def get_readyz() -> dict[str, str]:
        passed = await asyncio.gather(*(_passes(check) for check in checks.values()))
        if away := [name for name, ok in zip(checks, passed, strict=True) if not ok]:
            raise NotReady(f"Not there: {', '.join(away)}")
        return {"status": "ready"}

    return [get_healthz, get_readyz]


async def _passes(check: Callable[[], Awaitable[None]]) -> bool:
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await check()
    except Exception as error:
        log.warning("not ready", cause=repr(error))
        return False
    return True
