"""Clients of one instance of the records service, who upload and download all the time."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import aiohttp

from tests.upload_requests import TINY_WAV, WAV_TYPE, bearer

UPLOADERS = 3
DOWNLOADERS = 3
PAUSE_SECONDS = 0.05
CHECKS_AT_ONCE = 8
TIMEOUT = aiohttp.ClientTimeout(total=20)
# 0: no response.
EXPECTED = {200, 201, 503, 0}


class Moment(NamedTuple):
    """A request that has ended. The times are of time.monotonic."""

    began: float
    ended: float
    status: int

    @property
    def is_good(self) -> bool:
        """Whether it was answered as wanted."""
        return self.status in (200, 201)


class Load:
    """The clients of one instance."""

    def __init__(self, name: str, port: int, user: dict[str, Any]) -> None:
        """`name` tells the instances apart."""
        self.name = name
        self._base_url = f"http://127.0.0.1:{port}"
        self._headers = bearer(user)
        self._user = user
        self.records: dict[str, dict[str, Any]] = {}
        """What uploads have acknowledged."""
        self.moments: dict[str, list[Moment]] = {"uploads": [], "downloads": [], "readyz": []}
        self.unexpected: list[str] = []

    async def run(self, is_over: Callable[[], bool]) -> None:
        """Lets all clients work until it is over."""
        async with aiohttp.ClientSession(timeout=TIMEOUT) as session:
            await self._upload(session)
            tasks = [
                *(self._repeat(lambda: self._upload(session), is_over) for _ in range(UPLOADERS)),
                *(self._repeat(lambda: self._download_any(session), is_over) for _ in range(DOWNLOADERS)),
                self._repeat(lambda: self._send(session, "readyz", "GET", "/readyz"), is_over),
            ]
            await asyncio.gather(*tasks)

    async def _repeat(self, act: Callable[[], Any], is_over: Callable[[], bool]) -> None:
        while not is_over():
            await act()
            await asyncio.sleep(PAUSE_SECONDS)

    async def _upload(self, session: aiohttp.ClientSession) -> None:
        headers = {**self._headers, **WAV_TYPE}
        body = await self._send(session, "uploads", "POST", "/records", headers, TINY_WAV)
        if body is not None:
            record = json.loads(body)
            self.records[record["id"]] = record

    async def _download_any(self, session: aiohttp.ClientSession) -> None:
        if self.records:
            await self._download(session, random.choice(list(self.records.values())))

    async def _download(self, session: aiohttp.ClientSession, record: dict[str, Any]) -> bool:
        url = urlsplit(record["url"])
        body = await self._send(session, "downloads", "GET", f"{url.path}?{url.query}")
        if body is not None and hashlib.sha256(body).hexdigest() != record["sha256"]:
            self.unexpected.append(f"the MP3 of {record['id']} has other bytes")
        return body is not None

    async def _send(
        self,
        session: aiohttp.ClientSession,
        kind: str,
        method: str,
        path: str,
        headers: dict[str, str] | None = None,
        data: bytes | None = None,
    ) -> bytes | None:
        """Notes the response. Returns its body if the request has succeeded."""
        began, status, body = time.monotonic(), 0, b""
        try:
            async with session.request(method, self._base_url + path, headers=headers, data=data) as response:
                body = await response.read()
                status = response.status
        except (aiohttp.ClientError, TimeoutError, OSError):
            pass
        moment = Moment(began, time.monotonic(), status)
        self.moments[kind].append(moment)
        if status not in EXPECTED:
            self.unexpected.append(f"{method} {path.partition('?')[0]} is {status}: {body[:200]!r}")
        return body if moment.is_good else None

    async def count_lost(self) -> int:
        """Downloads every acknowledged record. Returns how many do not come."""
        connector = aiohttp.TCPConnector(limit=CHECKS_AT_ONCE)
        # The time-out would count the wait for a connection.
        async with aiohttp.ClientSession(connector=connector) as session:
            came = await asyncio.gather(
                *(self._download(session, record) for record in self.records.values())
            )
        return came.count(False)

    def has_stored_since(self, when: float) -> bool:
        """Whether an upload that began later has succeeded."""
        return any(each.is_good and each.began > when for each in self.moments["uploads"])

    def longest_gap(self, kind: str, since: float, until: float) -> tuple[float, float]:
        """Returns when the longest time without a success began and ended."""
        ends = sorted(
            [
                since,
                *(each.ended for each in self.moments[kind] if each.is_good and since < each.ended < until),
            ]
        )
        pairs = list(zip(ends, [*ends[1:], until], strict=True))
        return max(pairs, key=lambda pair: pair[1] - pair[0])

    def statuses(self, kind: str) -> str:
        """Describes the statuses of the responses."""
        found = Counter(each.status for each in self.moments[kind])
        return ", ".join(f"{count:,} x {status or 'none'}" for status, count in sorted(found.items()))
