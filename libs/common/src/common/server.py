"""How a service runs: settings from the environment, one uvicorn process, JSON logs."""

import os
import sys
from collections.abc import Callable
from typing import TypeVar
from uuid import uuid4

import msgspec
import uvicorn
from litestar import Litestar
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from common.logs import RequestLog, configure_logs
from common.problems import InvalidRequest, type_of
from common.settings import ServiceSettings, SettingsError, load

S = TypeVar("S", bound=ServiceSettings)

# Longer than the gateway keeps its connections to us: the side that closes first must be the gateway.
KEEP_ALIVE_SECONDS = 75
GRACEFUL_SHUTDOWN_SECONDS = 30


class Protocol(HttpToolsProtocol):
    """uvicorn's protocol, which answers a request that is not HTTP with a problem instead of plain text."""

    def send_400_response(self, msg: str) -> None:
        """Writes the answer and closes the connection: where the next request begins is not known."""
        problem = {
            "type": type_of(InvalidRequest),
            "title": InvalidRequest.title,
            "status": InvalidRequest.status_code,
            "detail": msg,
            "request_id": uuid4().hex,
        }
        body = msgspec.json.encode(problem)
        head = (
            "HTTP/1.1 400 Bad Request\r\nContent-Type: application/problem+json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()


def serve(create_app: Callable[[S], Litestar], kind: type[S]) -> None:
    """Runs a service until SIGTERM or SIGINT; exits with a message where a setting is wrong."""
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
        http=Protocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACEFUL_SHUTDOWN_SECONDS,
    )
