"""Runs a service: settings from the environment, one uvicorn process, logs."""

import asyncio
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from socket import socket
from typing import TypeVar

import uvicorn
from litestar import Litestar
from litestar.types import ASGIApp

from common.http_protocol import HttpProtocol
from common.logs import RequestLog, configure_logs
from common.poolers import refuse_wrong_pooler
from common.servers import Servers
from common.settings import ServiceSettings, SettingsError, load
from common.version import VERSION

S = TypeVar("S", bound=ServiceSettings)

# Longer than the gateway keeps idle connections to a service, so that the gateway closes them first.
KEEP_ALIVE_SECONDS = 75
# The service cancels its requests so long before SHUTDOWN_SECONDS are over. Then they have 10 s to clean up
# and to respond. The gateway closes its connections 5 s later. After 5 s more, processes that still run are
# killed.
CANCELLED_BEFORE_END_SECONDS = 20
CANCELLED_REQUEST_SECONDS = 10


class Server(uvicorn.Server):
    """Cancels the requests that still run `request_seconds` after SIGTERM, so that they respond with 503.

    uvicorn would cancel them too, but it does not wait for their responses.
    """

    def __init__(self, config: uvicorn.Config, request_seconds: int) -> None:
        super().__init__(config)
        self._request_seconds = request_seconds

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """Accepts no more connections, waits for the requests, and cancels them after a while."""
        timer = asyncio.get_running_loop().call_later(self._request_seconds, self._cancel_requests)
        try:
            await super().shutdown(sockets)
        finally:
            timer.cancel()

    def _cancel_requests(self) -> None:
        for request in self.server_state.tasks:
            request.cancel()


def serve(create_app: Callable[[S], Litestar], kind: type[S]) -> None:
    """Runs a service until SIGTERM or SIGINT. Exits with a message if a setting is wrong."""
    try:
        settings = load(kind, os.environ)
        # The first connection is opened much later, where a wrong URL would be a traceback.
        servers = Servers(settings.database_url, settings.database_password)
        configure_logs(settings.log_level, settings.log_format)
        served: ASGIApp = RequestLog(create_app(settings), settings.log_format)
        if settings.otel_exporter_otlp_endpoint:
            served = _trace(served, kind.__module__.partition(".")[0])
        asyncio.run(refuse_wrong_pooler(servers))
    except SettingsError as error:
        sys.exit(f"waxwing: wrong setting: {error}")
    request_seconds = settings.shutdown_seconds - CANCELLED_BEFORE_END_SECONDS
    config = uvicorn.Config(
        served,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http=HttpProtocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=request_seconds + CANCELLED_REQUEST_SECONDS,
    )
    server = Server(config, request_seconds)
    # After uvicorn has handled a SIGINT, it raises the signal again.
    with suppress(KeyboardInterrupt):
        server.run()
    if not server.started:
        sys.exit("waxwing: the service could not start; the log above says why")


def _trace(app: ASGIApp, service: str) -> ASGIApp:
    """Returns the same app with traces. Exits with a message if the packages for traces are missing."""
    try:
        from common.tracing import Tracing  # noqa: PLC0415 (most deployments do not have the packages)
    except ModuleNotFoundError as error:
        sys.exit(
            f"waxwing: OTEL_EXPORTER_OTLP_ENDPOINT is set, but {error.name} is not installed: install"
            " deploy/requirements-otel.txt (in Docker: build with TRACING=yes), or unset the variable"
        )
    return Tracing(app, service, VERSION)
