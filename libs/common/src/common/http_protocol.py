"""uvicorn's HTTP protocol with one change: it answers a request that is not valid HTTP with a problem.

uvicorn has no setting for this response, so the class below uses internals of uvicorn. They are read from the
source of UVICORN_VERSION. Before you raise the version, compare `send_400_response`, `data_received` and
RequestResponseCycle in uvicorn/protocols/http/httptools_impl.py; tests/unit/test_http_protocol.py fails until
you do.
"""

from urllib.parse import unquote

import msgspec
import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from common.logs import hide_ids, read_request_id
from common.problems import InvalidRequest, make_problem_body

log = structlog.get_logger()

UVICORN_VERSION = "0.54.0"
# The internals that HttpProtocol uses: of the connection, and of the request that it serves (`cycle`).
PROTOCOL_INTERNALS = (
    "cycle",
    "data_received",
    "flow",
    "headers",
    "loop",
    "parser",
    "send_400_response",
    "timeout_keep_alive_handler",
    "timeout_keep_alive_task",
    "transport",
    "url",
)
CYCLE_INTERNALS = ("disconnected", "message_event", "response_complete", "response_started")
# How long a client may go on sending after a request that is not valid HTTP.
LINGER_SECONDS = 10


class HttpProtocol(HttpToolsProtocol):
    """Answers a request that is not valid HTTP with a problem instead of uvicorn's plain text."""

    _is_rejected = False

    def data_received(self, data: bytes) -> None:
        """Parses the bytes, but discards all bytes after a request that is not valid HTTP."""
        if not self._is_rejected:
            super().data_received(data)

    def send_400_response(self, msg: str) -> None:
        """Sends the problem, and reads on until the client closes the connection.

        The parser cannot tell where the next request begins. Closing the connection while the client sends
        would reset it, and the client could lose the response.
        """
        self._is_rejected = True
        if not getattr(self.cycle, "response_complete", True):
            # The invalid bytes are in the body of a request that a handler is serving: end that body.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if self.cycle.response_started:
                self.transport.close()
                return
        problem, request_id = InvalidRequest(msg), read_request_id(self.headers)
        path = unquote(self.url.partition(b"?")[0].decode("latin-1"))
        # Without a path, the parser has no method either.
        method = self.parser.get_method().decode() if path else ""
        status = problem.status_code
        log.info("request", method=method, path=hide_ids(path), status=status, request_id=request_id)
        body = msgspec.json.encode(make_problem_body(problem, request_id))
        head = (
            "HTTP/1.1 400 Bad Request\r\nContent-Type: application/problem+json\r\n"
            f"Content-Length: {len(body)}\r\nX-Request-ID: {request_id}\r\nConnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.flow.resume_reading()
        self.timeout_keep_alive_task = self.loop.call_later(LINGER_SECONDS, self.timeout_keep_alive_handler)
