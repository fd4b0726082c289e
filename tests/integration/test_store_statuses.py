"""Whatever status the object store sends, a listener never sees the store's own response."""

import socketserver
import threading
from collections.abc import Iterator
from socket import create_connection, socket

import httpx
import pytest

from deploy.client import Client
from deploy.local.ports import LOOPBACK
from deploy.local.stack import Stack
from tests.integration.gateway_configuration import changed_gateway
from tests.integration.recordings import SMALL, make_wav
from tests.response_checks import assert_problem

SECRET = "<Error><Key>the-key-of-the-object</Key></Error>"
# nginx passes 499, which a store sends only if the gateway has closed the connection.
STATUSES = [status for status in range(300, 600) if status not in (304, 499)]
# For these nginx closes the client's connection, whatever its configuration says.
CLOSING_STATUSES = (408, 444)


class Relay(socketserver.ThreadingTCPServer):
    """Passes every connection to MinIO, but answers requests for an MP3 with `status`, once that is set."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, minio_port: int) -> None:
        super().__init__((LOOPBACK, 0), Connection)
        self.minio_port = minio_port
        self.status = 0


class Connection(socketserver.BaseRequestHandler):
    """One connection of the gateway, which serves one request."""

    def handle(self) -> None:
        relay = self.server
        assert isinstance(relay, Relay)
        data = b""
        while b"\r\n\r\n" not in data:
            if not (piece := self.request.recv(65536)):
                return
            data += piece
        first_line = data.partition(b"\r\n")[0]
        if relay.status and b".mp3" in first_line:
            head = f"HTTP/1.1 {relay.status} Odd\r\nContent-Type: application/xml\r\nConnection: close\r\n"
            self.request.sendall(f"{head}Content-Length: {len(SECRET)}\r\n\r\n{SECRET}".encode())
            return
        with create_connection((LOOPBACK, relay.minio_port)) as minio:
            minio.sendall(data.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
            threading.Thread(target=copy, args=(self.request, minio), daemon=True).start()
            copy(minio, self.request)


def copy(source: socket, target: socket) -> None:
    """Copies bytes until one side closes."""
    try:
        while piece := source.recv(65536):
            target.sendall(piece)
    except OSError:
        pass


@pytest.fixture(scope="module")
def relay(stack: Stack) -> Iterator[Relay]:
    with Relay(stack.ports.minio) as relay:
        threading.Thread(target=relay.serve_forever, daemon=True).start()
        yield relay
        relay.shutdown()


def test_no_status_of_the_store_passes(stack: Stack, relay: Relay, client: Client) -> None:
    record = client.upload_stream([make_wav(SMALL)], client.create_user("Test")["token"])
    minio, own = f"server {LOOPBACK}:{stack.ports.minio};", f"server {LOOPBACK}:{relay.server_address[1]};"
    with changed_gateway(stack, lambda conf: conf.replace(minio, own)):
        for relay.status in STATUSES:
            # The gateway does not cache ranges.
            for headers in ({"Range": "bytes=1-9"}, {"If-Match": "*"}):
                if relay.status in CLOSING_STATUSES:
                    with pytest.raises(httpx.RemoteProtocolError):
                        client.http.get(record["url"], headers=headers)
                    continue
                response = client.http.get(record["url"], headers=headers)
                assert_problem(response, 503, "unavailable", "object store")
                assert "the-key" not in response.text
                assert response.headers["Retry-After"] == "5"
