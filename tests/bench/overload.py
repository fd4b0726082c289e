"""What the bench measures with too many uploads or connections at once: statuses, memory and latencies."""

import asyncio
import math
import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from multiprocessing.synchronize import Event
from threading import Barrier
from typing import Any
from urllib.parse import urlsplit

import asyncpg

from deploy.client import Client
from deploy.local.ports import LOOPBACK
from deploy.local.stack import Stack
from tests.bench.downloads import latency
from tests.bench.results import Row
from tests.bench.uploads import Process
from tests.raw_connection import many_connections
from tests.upload_requests import (
    FORM_TYPE,
    TINY_WAV,
    WAV_TYPE,
    audio,
    bearer,
    make_form,
    token,
    user_id,
)
from tests.wavs import Wav, silence

# At this sample rate half of the PCM's bytes become MP3: 28 MB of WAV and 14 MB of MP3, three upload parts.
WAV = Wav(bits=16, channels=1, rate=8000).build(silence(1760.0, rate=8000, channels=1))
PIECE_BYTES = 256 * 1024
LAST_PIECES = len(WAV) // PIECE_BYTES - 2
# There are so many failures of each kind, with a WAV of a fifth of the size.
FAILURES = 200
SHORT_WAV = WAV[: len(WAV) // 5]
# MAX_LATE_CREDENTIALS allows no fewer uploads that send their audio before their credentials.
FAILING_AT_ONCE = 2
SLOW_CONNECTIONS = 5000
SLOW_ADDRESS = "127.0.0.66"
LATENCY_SECONDS = 6


class Sender:
    """Sends one upload in pieces."""

    path = "/records"

    def __init__(self, base_url: str, headers: dict[str, str], body: list[bytes], source: str = "") -> None:
        """`source` is the client's address; without it the system chooses one."""
        self._host = urlsplit(base_url).netloc
        self._source = source
        self._headers = headers
        self._body = body

    def send(self, meanwhile: Callable[[int], object] = lambda _: None) -> int:
        """Returns the status of the response, or 0 if the upload breaks off.

        Calls `meanwhile` with the number of each piece before it; an OSError there breaks the upload off.
        """
        connection = HTTPConnection(self._host, timeout=300, source_address=(self._source, 0))
        size = sum(map(len, self._body))
        try:
            connection.putrequest("POST", self.path)
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


def in_pieces(data: bytes) -> list[bytes]:
    return [data[start : start + PIECE_BYTES] for start in range(0, len(data), PIECE_BYTES)]


def header_upload(base_url: str, user: dict[str, Any], wav: bytes = WAV, source: str = "") -> Sender:
    """An upload whose credentials are in the header."""
    return Sender(base_url, {**bearer(user), **WAV_TYPE}, in_pieces(wav), source)


def late_upload(base_url: str, user: dict[str, Any], wav: bytes = WAV) -> Sender:
    """An upload whose credentials follow its audio."""
    form = make_form(audio(wav), user_id(user), token(user))
    return Sender(base_url, FORM_TYPE, in_pieces(form))


def unfinished_upload(base_url: str, user: dict[str, Any]) -> Sender:
    """A form that ends inside its audio: its last boundary is missing."""
    body = make_form(audio(SHORT_WAV))[:-PIECE_BYTES]
    return Sender(base_url, {**bearer(user), **FORM_TYPE}, in_pieces(body))


def together(count: int, act: Callable[[], int]) -> str:
    """Acts in so many threads at once, and returns how often each status came."""
    start = Barrier(count)

    def wait_and_act(_: int) -> int:
        start.wait()
        return act()

    with ThreadPoolExecutor(count) as threads:
        return count_statuses(threads.map(wait_and_act, range(count)))


def one_after_another(act: Callable[[], int]) -> str:
    """Fails so often, a few at once, and returns how often each status came."""
    with ThreadPoolExecutor(FAILING_AT_ONCE) as threads:
        return count_statuses(threads.map(lambda _: act(), range(FAILURES)))


def count_statuses(statuses: Iterable[int]) -> str:
    counted = sorted(Counter(statuses).items())
    return ", ".join(f"{times} x {status or 'no response'}" for status, times in counted)


async def count_uploads_under_way(stack: Stack) -> int:
    """Counts the uploads that have a row."""
    environment = stack.environment("records")
    connection = await asyncpg.connect(environment["DATABASE_URL"], password=environment["DATABASE_PASSWORD"])
    try:
        return int(await connection.fetchval("SELECT count(*) FROM records WHERE state = 'uploading'"))
    finally:
        await connection.close()


def wait_for_idle(stack: Stack, process: Process) -> float:
    """Returns the memory in MiB when no upload is under way: uploads can end after their clients."""
    while asyncio.run(count_uploads_under_way(stack)):
        time.sleep(1)
    # An upload whose credentials come last has no row.
    before, now = math.inf, process.idle_mib()
    while now < before - 1:
        before, now = now, process.idle_mib()
    return now


class Overload:
    """Makes too many uploads, or many that fail, at one stack."""

    def __init__(self, stack: Stack, client: Client) -> None:
        self._stack = stack
        self._client = client
        self._records = Process(stack.pid("records"))

    def measure(self, what: str, act: Callable[[], str]) -> list[Row]:
        """Returns the peak of the memory of records during `act`, with its memory before and afterwards."""
        idle = self._records.idle_mib()
        self._records.forget_peak()
        statuses = act()
        peak, after = self._records.memory_mib("VmHWM"), wait_for_idle(self._stack, self._records)
        origin = f"idle {idle:.0f} MiB, after {after:.0f} MiB; {statuses}"
        return [(f"{what}: memory of records, peak", f"{peak:.0f} MiB", origin)]

    def many(self) -> str:
        return together(64, self._upload_of("Many").send)

    def many_with_originals(self) -> str:
        sender = self._upload_of("Originals")
        sender.path = "/records?keep_original=true"
        return together(64, sender.send)

    def credentials_last(self) -> str:
        user = self._client.create_user("Late")
        return together(24, late_upload(self._stack.base_url, user).send)

    def deleted_meanwhile(self) -> str:
        user = self._client.create_user("Deleted")
        before_end = at_piece(
            LAST_PIECES, lambda: self._client.http.delete("/users/me", headers=bearer(user))
        )
        sender = header_upload(self._stack.base_url, user)
        return together(24, lambda: sender.send(before_end))

    def store_away(self) -> str:
        all_are_near_the_end = Barrier(6, action=lambda: self._stack.stop_process("minio"))
        sender = self._upload_of("Outage")
        statuses = together(6, lambda: sender.send(at_piece(LAST_PIECES, all_are_near_the_end.wait)))
        self._stack.start_process("minio")
        return statuses

    def aborted(self) -> str:
        sender = self._upload_of("Aborts")
        with ThreadPoolExecutor(16) as threads:
            list(threads.map(lambda _: sender.send(at_piece(20, break_off)), range(500)))
        return "500 aborted"

    def wrong_token_last(self) -> str:
        user = {**self._client.create_user("Late"), "token": "A" * 43}
        return one_after_another(late_upload(self._stack.base_url, user, SHORT_WAV).send)

    def unfinished(self) -> str:
        return one_after_another(
            unfinished_upload(self._stack.base_url, self._client.create_user("Unfinished")).send
        )

    def aborted_near_the_end(self) -> str:
        sender = header_upload(self._stack.base_url, self._client.create_user("Aborts"), SHORT_WAV)
        return one_after_another(lambda: sender.send(at_piece(len(SHORT_WAV) // PIECE_BYTES, break_off)))

    def each_deleted_meanwhile(self) -> str:
        def fail() -> int:
            user = self._client.create_user("Deleted")

            def delete() -> None:
                self._client.http.delete("/users/me", headers=bearer(user))

            sender = header_upload(self._stack.base_url, user, SHORT_WAV)
            return sender.send(at_piece(len(SHORT_WAV) // PIECE_BYTES, delete))

        return one_after_another(fail)

    def _upload_of(self, name: str) -> Sender:
        return header_upload(self._stack.base_url, self._client.create_user(name))


def at_piece(at: int, act: Callable[[], object]) -> Callable[[int], object]:
    """Returns a function that acts before one of the pieces."""
    return lambda number: act() if number == at else None


def break_off() -> None:
    raise ConnectionAbortedError


def measure_memory(stack: Stack) -> Iterator[list[Row]]:
    """Measures the memory of the records service while many uploads run, and afterwards.

    The stack must allow a user as many uploads as an instance (MAX_UPLOADS_PER_USER).
    """
    with Client(stack.base_url) as client:
        overload = Overload(stack, client)
        yield overload.measure("64 uploads at once", overload.many)
        yield overload.measure("64 uploads at once with originals", overload.many_with_originals)
        yield overload.measure("24 uploads at once, credentials last", overload.credentials_last)
        for turn in ("first", "second"):
            yield overload.measure(
                f"24 uploads of a user deleted meanwhile, {turn} time", overload.deleted_meanwhile
            )
        for turn in ("first", "second"):
            yield overload.measure(
                f"6 uploads during which the store goes away, {turn} time", overload.store_away
            )
        yield overload.measure("500 aborted uploads", overload.aborted)
        for kind, act in (
            ("aborted", overload.aborted_near_the_end),
            ("of deleted users", overload.each_deleted_meanwhile),
            ("with a wrong token behind the audio", overload.wrong_token_last),
            ("unfinished", overload.unfinished),
        ):
            yield overload.measure(f"{FAILURES} uploads {kind}", act)


async def hold_slow_connections(port: int, are_open: Event) -> None:
    """Keeps connections open whose request never becomes complete, all from one address, until cancelled.

    The gateway closes each after 10 s, and another one takes its place.
    """
    opened = 0

    async def hold() -> None:
        nonlocal opened
        while True:
            with suppress(OSError):
                reader, writer = await asyncio.open_connection(LOOPBACK, port, local_addr=(SLOW_ADDRESS, 0))
                writer.write(b"GET /record HTTP/1.1\r\nHost: a\r\n")
                opened += 1
                if opened == SLOW_CONNECTIONS:
                    are_open.set()
                await reader.read()
                writer.close()

    await asyncio.gather(*(hold() for _ in range(SLOW_CONNECTIONS)))


def run_slow_connections(are_open: Event, port: int) -> None:
    with many_connections():
        asyncio.run(hold_slow_connections(port, are_open))


@contextmanager
def meanwhile(act: Callable[..., None], *arguments: object) -> Iterator[None]:
    """Acts in another process until the `with` statement ends. `act` gets an event, which it sets first."""
    processes = multiprocessing.get_context("spawn")
    has_begun = processes.Event()
    process = processes.Process(target=act, args=(has_begun, *arguments))
    process.start()
    try:
        if not has_begun.wait(60):
            raise RuntimeError(f"{act.__name__} did not begin")
        yield
    finally:
        process.terminate()
        process.join()


def measure_slow_connections(stack: Stack) -> list[Row]:
    """Measures what slow connections of one address cost the downloads of another one."""
    with Client(stack.base_url) as client:
        url = client.upload_stream([TINY_WAV], client.create_user("Quick")["token"])["url"]
    alone: list[tuple[float, float, float]] = []
    beside: list[tuple[float, float, float]] = []
    for _ in range(3):
        alone.append(latency(url, LATENCY_SECONDS))
        with meanwhile(run_slow_connections, stack.ports.gateway):
            beside.append(latency(url, LATENCY_SECONDS))
    (alone_p50, alone_p95, _), (beside_p50, beside_p95, _) = min(alone), min(beside)
    return [
        (
            f"download beside {SLOW_CONNECTIONS} slow connections of one address / alone, p95",
            f"{beside_p95 / alone_p95:.2f}",
            f"{beside_p95:.1f} ms / {alone_p95:.1f} ms; p50 {beside_p50:.1f} ms / {alone_p50:.1f} ms",
        )
    ]
