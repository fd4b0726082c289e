"""Uploads that pause at one of their calls until the test resumes them, and deletions before their commit."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from common.credentials import Credentials
from records.documents import RecordDocument
from records.problems import UploadInterrupted
from tests.integration.recordings import wav_pieces
from tests.integration.records_service import RecordsService
from tests.integration.waiting import MAX_WAIT_SECONDS
from tests.integration.watched_calls import Call, CallWatcher
from users.sql import DELETE_USER


class Pause:
    """Stops the first call for which `is_wanted` is true until `release`."""

    def __init__(self, is_wanted: Callable[[Call], bool]) -> None:
        self._is_wanted = is_wanted
        self._reached = asyncio.Event()
        self._released = asyncio.Event()

    async def watch(self, call: Call) -> None:
        """Watches calls for a CallWatcher."""
        if self._is_wanted(call) and not self._reached.is_set():
            self._reached.set()
            await self._released.wait()

    async def reached(self) -> None:
        """Waits until the call has stopped."""
        async with asyncio.timeout(MAX_WAIT_SECONDS):
            await self._reached.wait()

    def release(self) -> None:
        """Lets the call go on."""
        self._released.set()


def after_reservation(call: Call) -> bool:
    return call.request.startswith("INSERT INTO records") and call.is_done


def before_publish(call: Call) -> bool:
    return _publishes(call) and not call.is_done


def after_publish(call: Call) -> bool:
    return _publishes(call) and call.is_done


def _publishes(call: Call) -> bool:
    return call.request.startswith("UPDATE records SET state") and "published_at" in call.request


def sweeper_lists_multipart_uploads(call: Call) -> bool:
    return call.process == "minio" and call.request.startswith("GET") and "uploads" in call.request


def first_call_to_minio(call: Call) -> bool:
    return call.process == "minio"


def before_second_upload_part(call: Call) -> bool:
    return "partNumber=2" in call.request and not call.is_done


def before_completion(call: Call) -> bool:
    return call.request.startswith("POST") and "uploadId" in call.request and not call.is_done


class PausedUpload:
    """An upload by a new user that pauses at one of its calls."""

    def __init__(self, service: RecordsService, kind: str, pauses_at: Callable[[Call], bool]) -> None:
        self.pause = Pause(pauses_at)
        self.watcher = CallWatcher(self.pause.watch)
        self.uploads = service.uploads(self.watcher)
        self._service = service
        self._kind = kind

    async def start(self) -> None:
        """Starts the upload and returns when it has paused."""
        self.user_id, self.credentials = await self._service.make_user()
        self._task = asyncio.create_task(self.uploads.store_record(wav_pieces(self._kind), self.credentials))
        await self.pause.reached()

    async def resume(self) -> RecordDocument:
        """Lets the upload go on and returns its record."""
        self.pause.release()
        try:
            async with asyncio.timeout(MAX_WAIT_SECONDS):
                return (await self._task).record
        finally:
            await self.uploads.close()

    async def assert_interrupted(self) -> None:
        """Resumes the upload and checks that the service refuses it with 503."""
        with pytest.raises(UploadInterrupted) as refusal:
            await self.resume()
        assert refusal.value.status_code == 503
        assert refusal.value.headers == {"Retry-After": "5"}


@asynccontextmanager
async def uncommitted_deletion(service: RecordsService, credentials: Credentials) -> AsyncIterator[None]:
    """Runs the statement that deletes a user, and commits it at the end."""
    engine = service.users_engine.execution_options(isolation_level="READ COMMITTED")
    async with engine.begin() as connection:
        deleted = await connection.execute(DELETE_USER, credentials.parameters)
        assert len(deleted.all()) == 1
        yield
