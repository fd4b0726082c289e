"""A bare connection to the gateway, for requests that no decent HTTP client would send."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPResponse
from urllib.parse import urlsplit

import httpx

# A bound for what never comes, not a promise of speed.
TIMEOUT_SECONDS = 30


class RawConnection:
    """Sends any bytes and reads answers."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection

    def send(self, *pieces: bytes) -> None:
        """Sends the pieces one after the other, each in a packet of its own where the network allows."""
        for piece in pieces:
            self.connection.sendall(piece)

    def read_response(self, method: str = "GET") -> httpx.Response:
        """The next answer, as httpx would show it."""
        answer = HTTPResponse(self.connection, method=method)
        answer.begin()
        return httpx.Response(answer.status, headers=answer.getheaders(), content=answer.read())


@contextmanager
def open_raw_connection(base_url: str) -> Iterator[RawConnection]:
    """A new connection to where `base_url` points."""
    parts = urlsplit(base_url)
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    with socket.create_connection((parts.hostname or "", port), TIMEOUT_SECONDS) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if parts.scheme == "https":
            with ssl.create_default_context().wrap_socket(connection, server_hostname=parts.hostname) as tls:
                yield RawConnection(tls)
        else:
            yield RawConnection(connection)


def make_request_head(method: str, target: str, base_url: str, *lines: str) -> bytes:
    """The head of a request to `base_url`, with further header lines."""
    return "\r\n".join(
        [f"{method} {target} HTTP/1.1", f"Host: {urlsplit(base_url).netloc}", *lines, "", ""]
    ).encode()
