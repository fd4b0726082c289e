"""How a service runs: settings from the environment, one uvicorn process, JSON logs."""

import os
import sys
from collections.abc import Callable
from typing import TypeVar

import uvicorn
from litestar import Litestar

from common.logs import RequestLog, configure_logs
from common.settings import ServiceSettings, SettingsError, load

S = TypeVar("S", bound=ServiceSettings)

# Longer than the gateway keeps its connections to us: the side that closes first must be the gateway.
KEEP_ALIVE_SECONDS = 75
GRACEFUL_SHUTDOWN_SECONDS = 30


def serve(create_app: Callable[[S], Litestar], kind: type[S]) -> None:
    """Runs a service until SIGTERM or SIGINT; exits with a message where a setting is wrong."""
    try:
        settings = load(kind, os.environ)
        configure_logs(settings.log_level)
    except (SettingsError, ValueError) as error:
        sys.exit(f"waxwing: wrong setting: {error}")
    uvicorn.run(
        RequestLog(create_app(settings)),
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http="httptools",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACEFUL_SHUTDOWN_SECONDS,
    )
