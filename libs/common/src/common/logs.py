"""The logs: one line for each event, with the id of its request and of the user who sent it."""

import asyncio
import logging
import re
import sys
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import msgspec
import structlog
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from structlog.typing import Processor

from common.metrics import count_request
from common.problems import Unavailable, send_problem
from common.settings import LogFormat

log = structlog.get_logger()

REQUEST_ID = re.compile(rb"[0-9a-f]{32}")
# No id in a path may get into a log: anyone who knows a record's id can use its link. A user's id alone opens
# nothing, so lines name the user who sent the request.
UUID_TEXT = re.compile(r"[0-9a-f]{8}(?:-?[0-9a-f]{4}){3}-?[0-9a-f]{12}", re.IGNORECASE)
QUIET_PATHS = {"/healthz", "/readyz", "/metrics"}


def configure_logs(level: str, log_format: LogFormat = "json") -> None:
    """Writes Waxwing's events and those of the libraries to standard output.

    `level`: a level of the logging module, in capitals.
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if log_format == "text":
        own_renderer: Processor = structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty(), sort_keys=False)
        renderer_of_libraries = own_renderer
        factory: Any = structlog.WriteLoggerFactory(sys.stdout)
    else:
        shared.append(structlog.processors.format_exc_info)
        own_renderer = structlog.processors.JSONRenderer(_to_json)
        renderer_of_libraries = structlog.processors.JSONRenderer()
        factory = structlog.BytesLoggerFactory(sys.stdout.buffer)
    # Waxwing's events bypass the logging module, which takes as long as the check of a download.
    structlog.configure(
        processors=[*shared, own_renderer],
        logger_factory=factory,
        wrapper_class=structlog.make_filtering_bound_logger(level.lower()),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer_of_libraries],
        )
    )
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("asyncio").addFilter(_lower_refused_connection)


def _lower_refused_connection(record: logging.LogRecord) -> bool:
    """Makes a warning of a refused connection that nobody waits for. Whoever waited has logged the outage.

    If the time-out of a connection hits in the moment in which PostgreSQL refuses it, asyncpg forgets the
    refusal, and asyncio reports it as an error.
    """
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, ConnectionError) and record.getMessage().startswith("Future exception was never"):
        record.levelno, record.levelname = logging.WARNING, "WARNING"
    return True


def _to_json(event: structlog.typing.EventDict, default: Callable[[Any], Any]) -> bytes:
    return msgspec.json.encode(event, enc_hook=default)


def hide_ids(path: str) -> str:
    """Returns the path with `*` in place of every UUID."""
    return UUID_TEXT.sub("*", path)


def name_user(user_id: UUID) -> None:
    """Puts the id of the user whose credentials are right into every further log line of this request."""
    structlog.contextvars.bind_contextvars(user_id=str(user_id))


def read_request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Returns the request id that the gateway sent in X-Request-ID, or a new one."""
    given = dict(headers).get(b"x-request-id", b"")
    return given.decode() if REQUEST_ID.fullmatch(given) else uuid4().hex


class RequestLog:
    """ASGI middleware: gives every request and its response the request id, and logs one line for it.

    Responds with 503 to a request that is cancelled because the service ends.
    The line has no query, and `*` for ids in the path: the ids in a link let anyone listen.
    """

    def __init__(self, app: ASGIApp, log_format: LogFormat = "json") -> None:
        self.app = app
        self._is_enabled = log.is_enabled_for(logging.INFO)
        self._write = _log_text if log_format == "text" else _make_json_writer()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request; passes the lifespan through."""
        if scope["type"] != ScopeType.HTTP:
            await self.app(scope, receive, send)
            return
        request_id = read_request_id(scope["headers"])
        scope.setdefault("state", {})["request_id"] = request_id
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        # uvicorn runs every request in a task of its own, so these variables end with the request.
        structlog.contextvars.bind_contextvars(request_id=request_id)
        started = time.perf_counter()
        try:
            await self.app(scope, receive, send_with_id)
        except asyncio.CancelledError:
            if status:
                raise
            await send_problem(
                send_with_id, request_id, Unavailable("The service is stopping and gave up this request")
            )
        finally:
            seconds = time.perf_counter() - started
            count_request(scope["method"], scope.get("path_template"), status, seconds)
            if scope["path"] not in QUIET_PATHS and self._is_enabled:
                self._write(
                    {
                        "method": scope["method"],
                        "path": hide_ids(scope["path"]),
                        "status": status,
                        "seconds": round(seconds, 4),
                    }
                )


def _make_json_writer() -> Callable[[dict[str, Any]], None]:
    """Returns a function that writes the line of a request past structlog's processors, which take six times
    as long.
    """
    write = structlog.BytesLogger(sys.stdout.buffer).msg

    def write_json(fields: dict[str, Any]) -> None:
        line = {
            "event": "request",
            **fields,
            # The request id, and the user's id if the request had credentials.
            **structlog.contextvars.get_contextvars(),
            "level": "info",
            "timestamp": datetime.now(UTC),
        }
        write(msgspec.json.encode(line))

    return write_json


def _log_text(fields: dict[str, Any]) -> None:
    log.info("request", **fields)
