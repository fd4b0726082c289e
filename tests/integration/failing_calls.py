"""Uploads and sweeps in which a chosen call fails or is cancelled."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from uuid import UUID

import aiohttp

from records.form import FormItem
from records.uploads import Published, Replayed
from tests.integration.records_service import RecordsService
from tests.integration.waiting import MAX_WAIT_SECONDS
from tests.integration.watched_calls import Call, CallWatcher


@dataclass(frozen=True)
class Failure:
    """What goes wrong, and at which call."""

    how: str
    """`fails` (the call raises), `cancelled` (the upload is cancelled), `killed` (no further call has an
    effect, as after a SIGKILL) or `never`.
    """
    process: str = ""
    number: int = 0
    is_done: bool = False
    """Whether the call first has its effect."""
    continues: bool = False
    """Whether all later calls to the process go wrong, too."""

    def strikes(self, call: Call) -> bool:
        """Whether this call goes wrong."""
        if call.process != self.process:
            return False
        if self.continues and call.number > self.number:
            return not call.is_done
        return (call.number, call.is_done) == (self.number, self.is_done)


NO_FAILURE = Failure("never")
# Lets something of a new user's record go. Returns the user, and the object keys that stay: first the MP3's.
LetGo = Callable[[RecordsService], Awaitable[tuple[UUID, list[str]]]]


class Trial:
    """Runs one upload in which something goes wrong."""

    def __init__(self, service: RecordsService, failure: Failure) -> None:
        self.watcher = CallWatcher(self._watch)
        self.struck: list[Call] = []
        """The calls that went wrong."""
        self._service = service
        self._failure = failure
        self._task: asyncio.Task[Published | Replayed] | None = None

    async def _watch(self, call: Call) -> None:
        is_dead = self._failure.how == "killed" and self.struck and not call.is_done
        if not is_dead and not self._failure.strikes(call):
            return
        self.struck.append(call)
        if self._failure.how == "cancelled":
            assert self._task
            self._task.cancel()
            # asyncio raises CancelledError at the next await.
            await asyncio.sleep(0)
        elif call.process == "minio":
            raise aiohttp.ServerDisconnectedError
        else:
            raise ConnectionResetError("the connection is gone")

    async def run(
        self, body: AsyncIterator[FormItem], encoder_threads: int = 2
    ) -> tuple[UUID, Published | Replayed | BaseException]:
        """Uploads `body` as a new user; returns the user's id, and the record or what was raised."""
        user_id, credentials = await self._service.make_user()
        uploads = self._service.uploads(self.watcher, encoder_threads=encoder_threads)
        self._task = asyncio.create_task(uploads.store_record(body, credentials))
        async with asyncio.timeout(MAX_WAIT_SECONDS):
            (outcome,) = await asyncio.gather(self._task, return_exceptions=True)
            await uploads.close()
        return user_id, outcome


async def kill_sweeps_at_any_call(service: RecordsService, let_go: LetGo, process: str) -> None:
    """Repeats the sweep of what was let go, and kills it at another call each time. Asserts that the sweeps
    afterwards remove all of that and nothing else.
    """
    number, struck = 1, True
    while struck:
        user_id, kept = await let_go(service)
        trial = Trial(service, Failure("killed", process, number))
        await service.sweep(trial.watcher)
        await service.settle(user_id)
        assert await service.objects(user_id) == kept
        assert [row.object_key for row in await service.rows(user_id)] == kept[:1]
        for key in trial.watcher.object_keys():
            assert await service.multipart_uploads(key) == []
        struck = bool(trial.struck)
        number += 1
    assert number > 2
