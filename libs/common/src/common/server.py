"""How a service runs: settings from the environment, one uvicorn process, JSON logs."""

import os
import sys
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import unquote

import msgspec
import structlog
import uvicorn
from litestar import Litestar
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from common.logs import ID, RequestLog, configure_logs, read_request_id
from common.problems import InvalidRequest, make_body
from common.settings import ServiceSettings, SettingsError, load

log = structlog.get_logger()

S = TypeVar("S", bound=ServiceSettings)

# Longer than the gateway keeps its connections to us: the side that closes first must be the gateway.
KEEP_ALIVE_SECONDS = 75
GRACEFUL_SHUTDOWN_SECONDS = 30
# How long a client may go on sending after a request that is not HTTP.
LINGER_SECONDS = 10


class Protocol(HttpToolsProtocol):
    """uvicorn's protocol, which answers a request that is not HTTP with a problem instead of plain text."""

    _is_refused = False

    def data_received(self, data: bytes) -> None:
        """Discards what comes after a request that was refused."""
        if not self._is_refused:
            super().data_received(data)

    def send_400_response(self, msg: str) -> None:
        """Answers, and reads on until the client closes: where the next request begins is not known.

        To close while a body arrives would reset the connection, and the answer could get lost.
        """
        self._is_refused = True
        if not getattr(self.cycle, "response_complete", True):
            # It is the body of a request that is being served, whose handler hears that nothing more comes.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if self.cycle.response_started:
                self.transport.close()
                return
        problem, request_id = InvalidRequest(msg), read_request_id(self.headers)
        path = unquote(self.url.partition(b"?")[0].decode("latin-1"))
        # Without a path there is no method either.
        method = self.parser.get_method().decode() if path else ""
        status = problem.status_code
        log.info("request", method=method, path=ID.sub("*", path), status=status, request_id=request_id)
        body = msgspec.json.encode(make_body(problem, request_id))
        head = (
            "HTTP/1.1 400 Bad Request\r\nContent-Type: application/problem+json\r\n"
            f"Content-Length: {len(body)}\r\nX-Request-ID: {request_id}\r\nConnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.flow.resume_reading()
        self.timeout_keep_alive_task = self.loop.call_later(LINGER_SECONDS, self.timeout_keep_alive_handler)


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
