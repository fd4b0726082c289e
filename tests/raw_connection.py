"""A bare connection to the gateway, for requests that no HTTP client would send."""

import resource
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPResponse
from urllib.parse import urlsplit

import httpx

# Only ends a test that waits for something that never comes; it promises no speed.
TIMEOUT_SECONDS = 30


@contextmanager
def many_connections() -> Iterator[None]:
    """Lets this process have as many connections as the machine allows; most shells allow 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class RawConnection:
    """Sends any bytes and reads responses."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection

    def send(self, *pieces: bytes) -> None:
        """Sends the pieces one after the other, each in its own packet if the network allows."""
        for piece in pieces:
            self.connection.sendall(piece)

    def read_response(self, method: str = "GET") -> httpx.Response:
        """Reads the next response, which belongs to a request with this method."""
        response = HTTPResponse(self.connection, method=method)
        response.begin()
        return httpx.Response(response.status, headers=response.getheaders(), content=response.read())


@contextmanager
def open_raw_connection(base_url: str, source: str = "") -> Iterator[RawConnection]:
    """Opens a new connection to the host of `base_url`, from the address `source` if there is one."""
    parts = urlsplit(base_url)
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    address = (parts.hostname or "", port)
    with socket.create_connection(address, TIMEOUT_SECONDS, (source, 0)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if parts.scheme == "https":
            with ssl.create_default_context().wrap_socket(connection, server_hostname=parts.hostname) as tls:
                yield RawConnection(tls)
        else:
            yield RawConnection(connection)


def make_request_head(method: str, target: str, base_url: str, *lines: str) -> bytes:
    """Returns the head of a request to `base_url`: request line, Host and these header lines."""
    return "\r\n".join(
        [f"{method} {target} HTTP/1.1", f"Host: {urlsplit(base_url).netloc}", *lines, "", ""]
    ).encode()


def header_lines(headers: Mapping[str, str]) -> list[str]:
    """Writes headers as lines for `make_request_head`."""
    return [f"{name}: {value}" for name, value in headers.items()]
