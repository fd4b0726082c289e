"""What the bench measures with too many uploads at once: statuses, and the memory of the records service."""

import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from threading import Barrier
from urllib.parse import urlsplit

from deploy.client import Client
from deploy.local.stack import Stack
from tests.bench.uploads import Process, Row
from tests.wavs import Wav, silence

# At this sample rate half of the PCM's bytes become MP3: 28 MB of WAV and 14 MB of MP3, three upload parts.
WAV = Wav(bits=16, channels=1, rate=8000).build(silence(1760.0, rate=8000, channels=1))
PIECE_BYTES = 256 * 1024
FORM = b'--b\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'


class Sender:
    """Sends one upload in pieces, all of them or the first ones."""

    def __init__(self, base_url: str, headers: dict[str, str], body: list[bytes]) -> None:
        self._host = urlsplit(base_url).netloc
        self._headers = headers
        self._body = body

    def send(self, meanwhile: Callable[[int], object] = lambda _: None) -> int:
        """Returns the status of the response. Calls `meanwhile` with the number of each piece before it."""
        connection = HTTPConnection(self._host, timeout=300)
        size = sum(map(len, self._body))
        try:
            connection.putrequest("POST", "/records")
            for name, value in {**self._headers, "Content-Length": str(size)}.items():
                connection.putheader(name, value)
            connection.endheaders()
            # A refusal can come while the client sends.
            with suppress(BrokenPipeError, ConnectionResetError):
                for number, piece in enumerate(self._body):
                    meanwhile(number)
                    connection.send(piece)
            return connection.getresponse().status
        except (HTTPException, OSError):
            return 0
        finally:
            connection.close()

    def abort(self, pieces: int) -> None:
        """Sends some pieces and closes the connection."""
        host, port = self._host.split(":")
        size = sum(map(len, self._body))
        head = "".join(f"{name}: {value}\r\n" for name, value in self._headers.items())
        with socket.create_connection((host, int(port)), 60) as connection, suppress(OSError):
            head += f"Host: {self._host}\r\nContent-Length: {size}\r\n"
            connection.sendall(f"POST /records HTTP/1.1\r\n{head}\r\n".encode())
            for piece in self._body[:pieces]:
                connection.sendall(piece)


def in_pieces(data: bytes) -> list[bytes]:
    return [data[start : start + PIECE_BYTES] for start in range(0, len(data), PIECE_BYTES)]


def header_upload(stack: Stack, token: str) -> Sender:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "audio/wav"}
    return Sender(stack.base_url, headers, in_pieces(WAV))


def late_upload(stack: Stack, user_id: str, token: str) -> Sender:
    """An upload whose credentials follow its audio."""
    audio = b'--b\r\nContent-Disposition: form-data; name="audio"; filename="a.wav"\r\n\r\n'
    fields = FORM % (b"user_id", user_id.encode()) + FORM % (b"token", token.encode()) + b"--b--\r\n"
    body = [audio, *in_pieces(WAV), b"\r\n" + fields]
    return Sender(stack.base_url, {"Content-Type": "multipart/form-data; boundary=b"}, body)


def together(count: int, act: Callable[[], int]) -> str:
    """Acts in so many threads at once, and returns how often each status came."""
    start = Barrier(count)

    def wait_and_act(_: int) -> int:
        start.wait()
        return act()

    with ThreadPoolExecutor(count) as threads:
        statuses = Counter(threads.map(wait_and_act, range(count)))
    return ", ".join(f"{times} x {status or 'no response'}" for status, times in sorted(statuses.items()))


def measure_memory(stack: Stack) -> Iterator[list[Row]]:
    """Measures the memory of the records service while many uploads run, and afterwards."""
    with Client(stack.base_url) as client:
        records = Process(stack.pid("records"))

        def measure(what: str, act: Callable[[], str]) -> list[Row]:
            idle = records.idle_mib()
            records.forget_peak()
            statuses = act()
            time.sleep(1)
            peak, after = records.memory_mib("VmHWM"), records.idle_mib()
            return [
                (
                    f"{what}: memory of records, peak",
                    f"{peak:.0f} MiB",
                    f"idle {idle:.0f} MiB, after {after:.0f} MiB; {statuses}",
                )
            ]

        def delete_meanwhile() -> str:
            user = client.create_user("Deleted")
            sender = header_upload(stack, user["token"])

            def delete(number: int) -> None:
                if number == len(in_pieces(WAV)) - 3:
                    client.http.delete("/users/me", headers={"Authorization": f"Bearer {user['token']}"})

            return together(24, lambda: sender.send(delete))

        def abort(count: int) -> str:
            sender = header_upload(stack, client.create_user("Aborts")["token"])
            with ThreadPoolExecutor(16) as threads:
                list(threads.map(lambda _: sender.abort(20), range(count)))
            return f"{count} aborted"

        user = client.create_user("Bench")
        header = header_upload(stack, user["token"])
        late = late_upload(stack, user["id"], user["token"])
        yield measure("64 uploads at once", lambda: together(64, header.send))
        yield measure("24 uploads at once, credentials last", lambda: together(24, late.send))
        for turn in ("first", "second"):
            yield measure(f"24 uploads of a user deleted meanwhile, {turn} time", delete_meanwhile)
        yield measure("500 aborted uploads", lambda: abort(500))
