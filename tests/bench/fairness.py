"""What the bench measures with many uploads of one user: what they cost another user, and who is refused."""

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import cycle
from multiprocessing.synchronize import Event
from statistics import median
from typing import Any

from deploy.client import Client
from deploy.local.stack import Stack
from tests.bench.overload import WAV, count_uploads_under_way, header_upload, meanwhile
from tests.bench.results import Row
from tests.raw_connection import header_lines, make_request_head, open_raw_connection
from tests.upload_requests import TINY_WAV, WAV_TYPE, bearer
from tests.wavs import Wav, music

SINGLE_SECONDS = 300
TURNS = 5
REFUSALS = 50
# An instance takes 32 uploads at once (MAX_UPLOADS).
OTHER_SLOTS = 31
# An instance takes 32 uploads at once, and another 32 wait (MAX_UPLOADS, MAX_WAITING_UPLOADS).
ACCEPTED = 64
# One address gets only a part of them, and a newcomer would take the place of an address with two that wait.
ADDRESSES = cycle([f"127.0.0.{number}" for number in range(10, 74)])


@contextmanager
def uploads_of(stack: Stack, user: dict[str, Any], count: int) -> Iterator[None]:
    """Sends so many uploads of one user at once, again and again, until the `with` statement ends.

    Each has SINGLE_SECONDS of audio. Another process sends them, which costs the measured client nothing.
    """
    with meanwhile(send_uploads, stack.base_url, user, count):
        wait_for_uploads(stack, count)
        yield


def send_uploads(has_begun: Event, base_url: str, user: dict[str, Any], count: int) -> None:
    wav = Wav().build(music(SINGLE_SECONDS))

    def send() -> None:
        while True:
            header_upload(base_url, user, wav, source=next(ADDRESSES)).send()

    with ThreadPoolExecutor(count) as threads:
        for _ in range(count):
            threads.submit(send)
        has_begun.set()


def wait_for_uploads(stack: Stack, count: int) -> None:
    while asyncio.run(count_uploads_under_way(stack)) < count:
        time.sleep(0.1)


def measure_fairness(stack: Stack) -> list[Row]:
    """Measures one upload beside as many of another user as there are other slots, and beside 2 of them."""
    wav = Wav().build(music(SINGLE_SECONDS))
    seconds: dict[int, list[float]] = {2: [], OTHER_SLOTS: []}
    with Client(stack.base_url) as client:
        many, single = client.create_user("Many"), client.create_user("Single")

        def upload() -> float:
            began = time.perf_counter()
            status = header_upload(stack.base_url, single, wav).send()
            if status != 201:
                raise RuntimeError(f"the single upload got {status}")
            return time.perf_counter() - began

        for _ in range(TURNS):
            for count, measured in seconds.items():
                with uploads_of(stack, many, count):
                    # While the first one runs, the other uploads fill the buffers of sockets and gateway.
                    upload()
                    measured.append(upload())
                while asyncio.run(count_uploads_under_way(stack)):
                    time.sleep(0.1)
    beside_2, beside_many = median(seconds[2]), median(seconds[OTHER_SLOTS])
    return [
        (
            f"{SINGLE_SECONDS} s upload beside {OTHER_SLOTS} uploads of another user / beside 2",
            f"{beside_many / beside_2:.2f}",
            f"medians of {TURNS} turns: {beside_many:.1f} s / {beside_2:.1f} s",
        )
    ]


def measure_refusals(stack: Stack) -> list[Row]:
    """Measures how soon an upload is refused when all slots and all places of the queue are taken."""
    with Client(stack.base_url) as client, ExitStack() as opened:
        many, other = client.create_user("Many"), client.create_user("Other")
        head = make_request_head(
            "POST",
            "/records",
            stack.base_url,
            *header_lines({**bearer(many), **WAV_TYPE, "Content-Length": str(len(WAV))}),
        )
        for _ in range(ACCEPTED):
            opened.enter_context(open_raw_connection(stack.base_url, next(ADDRESSES))).send(head, WAV[:4096])
        wait_for_uploads(stack, ACCEPTED)
        times = []
        for _ in range(REFUSALS):
            began = time.perf_counter()
            response = client.http.post("/records", content=TINY_WAV, headers={**bearer(other), **WAV_TYPE})
            times.append(1000 * (time.perf_counter() - began))
            if response.status_code != 503:
                raise RuntimeError(f"an upload too many got {response.status_code}")
    times.sort()
    return [
        (
            "refusal of an upload too many, p50",
            f"{median(times):.0f} ms",
            f"{REFUSALS} in turn: {times[0]:.0f} to {times[-1]:.0f} ms",
        )
    ]
