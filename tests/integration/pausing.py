"""Uploads and deletions that stop at a call of theirs, until they are told to go on."""

import asyncio
from collections.abc import Callable

import pytest
from records.service import Published

from common.credentials import Credentials
from records.problems import UploadInterrupted
from tests.integration.isolated import Call, Isolated, Wire
from tests.integration.sounds import pieces

BOUND_SECONDS = 60


class Pause:
    """Stops the first call that is asked for, and lets it go on when told."""

    def __init__(self, wanted: Callable[[Call], bool]) -> None:
        self._wanted = wanted
        self._reached = asyncio.Event()
        self._released = asyncio.Event()

    async def watch(self, call: Call) -> None:
        if self._wanted(call) and not self._reached.is_set():
            self._reached.set()
            await self._released.wait()

    async def reached(self) -> None:
        async with asyncio.timeout(BOUND_SECONDS):
            await self._reached.wait()

    def release(self) -> None:
        self._released.set()


def reserved(call: Call) -> bool:
    return call.what.startswith("INSERT INTO records") and call.is_done


def publishing(call: Call) -> bool:
    return _is_publishing(call) and not call.is_done


def published(call: Call) -> bool:
    return _is_publishing(call) and call.is_done


def _is_publishing(call: Call) -> bool:
    return call.what.startswith("UPDATE records SET state") and "published_at" in call.what


def removing(call: Call) -> bool:
    return call.part == "minio" and call.what.startswith("GET") and "uploads" in call.what


def first_of_the_object(call: Call) -> bool:
    return call.part == "minio"


def second_part(call: Call) -> bool:
    return "partNumber=2" in call.what and not call.is_done


def completing(call: Call) -> bool:
    return call.what.startswith("POST") and "uploadId" in call.what and not call.is_done


def user_is_marked(call: Call) -> bool:
    return call.what.startswith("UPDATE users SET") and call.is_done


def committing(call: Call) -> bool:
    return call.what == "COMMIT" and not call.is_done


class Uploading:
    """An upload under way, stopped at a call of its."""

    def __init__(self, isolated: Isolated, kind: str, wanted: Callable[[Call], bool]) -> None:
        self.pause = Pause(wanted)
        self.wire = Wire(self.pause.watch)
        self.uploads = isolated.uploads(self.wire)
        self._isolated = isolated
        self._kind = kind

    async def start(self) -> None:
        self.user_id, self.credentials = await self._isolated.make_user()
        self._task = asyncio.create_task(self.uploads.store_record(pieces(self._kind), self.credentials))
        await self.pause.reached()

    async def go_on(self) -> Published:
        self.pause.release()
        try:
            async with asyncio.timeout(BOUND_SECONDS):
                return await self._task
        finally:
            await self.uploads.close()

    async def is_interrupted(self) -> None:
        with pytest.raises(UploadInterrupted) as refusal:
            await self.go_on()
        assert refusal.value.status_code == 503
        assert refusal.value.headers == {"Retry-After": "5"}


class Deleting:
    """The deletion of a user, stopped at a call of its."""

    def __init__(self, isolated: Isolated, credentials: Credentials, wanted: Callable[[Call], bool]) -> None:
        self._pause = Pause(wanted)
        self._isolated = isolated
        self._credentials = credentials

    async def start(self) -> None:
        wire = Wire(self._pause.watch)
        self._task = asyncio.create_task(self._isolated.delete_user(self._credentials, wire))
        await self._pause.reached()

    async def go_on(self) -> None:
        self._pause.release()
        async with asyncio.timeout(BOUND_SECONDS):
            await self._task
