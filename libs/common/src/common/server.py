"""Runs a service: settings from the environment, one uvicorn process, JSON logs."""

import os
import sys
from collections.abc import Callable
from typing import TypeVar

import uvicorn
from litestar import Litestar

from common.http_protocol import HttpProtocol
from common.logs import RequestLog, configure_logs
from common.settings import ServiceSettings, SettingsError, load

S = TypeVar("S", bound=ServiceSettings)

# Longer than the gateway keeps idle connections to a service, so that the gateway closes them first.
KEEP_ALIVE_SECONDS = 75
GRACEFUL_SHUTDOWN_SECONDS = 30


def serve(create_app: Callable[[S], Litestar], kind: type[S]) -> None:
    """Runs a service until SIGTERM or SIGINT. Exits with a message if a setting is wrong."""
    try:
        settings = load(kind, os.environ)
        configure_logs(settings.log_level)
    except SettingsError as error:
        sys.exit(f"waxwing: wrong setting: {error}")
    uvicorn.run(
        RequestLog(create_app(settings)),
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http=HttpProtocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACEFUL_SHUTDOWN_SECONDS,
    )
