"""A failed upload leaves no object in the service's memory, even if Python's cycle collector never runs.

The collector runs rarely: it counts objects, and an upload has few, but they hold megabytes.
"""

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from uuid import UUID

import aiohttp
import httpx
import msgspec
import pytest
import uvicorn

from common.credentials import Credentials, digest
from common.http_protocol import HttpProtocol
from common.logs import RequestLog
from common.problems import ClientGone, Problem
from deploy.local.ports import LOOPBACK
from records.app import create_app
from records.form import FormField, FormItem
from tests.integration.recordings import LARGE, SMALL, wav_pieces
from tests.integration.records_service import RecordsService
from tests.integration.waiting import wait_until_async
from tests.integration.watched_calls import Call, CallWatcher
from tests.upload_requests import FORM_TYPE, WAV_TYPE, FormPart, audio, bearer, make_form
from tests.wavs import Wav, silence
from users.sql import create_user

OUR_PACKAGES = ("records", "common", "lameenc")
OUR_FOLDERS = ("/src/records/", "/src/common/")
# The attribute with the code of an object that runs code.
CODE_OF = {"coroutine": "cr_code", "generator": "gi_code", "async_generator": "ag_code", "frame": "f_code"}


def name_if_ours(thing: object) -> str | None:
    """Returns the name of an object's class, or of the code that it runs, if that is Waxwing's or LAME's."""
    kind = type(thing)
    if kind.__module__.split(".")[0] in OUR_PACKAGES:
        return f"{kind.__module__}.{kind.__name__}"
    code = getattr(thing, CODE_OF[kind.__name__]) if kind.__name__ in CODE_OF else None
    if code and any(folder in code.co_filename for folder in OUR_FOLDERS):
        return f"{kind.__name__} {code.co_name}"
    return None


def new_objects() -> Counter[str]:
    """Counts the objects of Waxwing and of LAME that were made since `without_collector` began."""
    return Counter(name for thing in gc.get_objects() if (name := name_if_ours(thing)))


@contextmanager
def without_collector() -> Iterator[None]:
    """Switches Python's cycle collector off, and hides the objects that exist already from `new_objects`."""
    gc.disable()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.enable()


async def assert_nothing_is_left() -> None:
    """Waits until no object of a failed upload is left."""
    left = Counter[str]()

    async def is_nothing_left() -> bool:
        left.clear()
        left.update(new_objects())
        return not left

    try:
        await wait_until_async(is_nothing_left)
    except TimeoutError:
        raise AssertionError(f"still in memory: {dict(left)}") from None


async def failing_body(
    service: RecordsService, kind: str, way: str, user_id: UUID, credentials: Credentials
) -> AsyncIterator[FormItem]:
    """Yields an upload that fails in one way, after half of the audio or at the end."""
    pieces = [piece async for piece in wav_pieces(kind)]
    for piece in pieces[: -len(pieces) // 2]:
        yield piece
    match way:
        case "credentials never follow":
            await asyncio.Event().wait()
        case "client gone":
            raise ClientGone("The request body ended early.")
        case "cancelled":
            task = asyncio.current_task()
            assert task
            task.cancel()
            # The frame of this generator must not hold the task, which holds the exception.
            del task
        case "lease lost":
            await service.expire(user_id)
            await service.sweep()
        case "user deleted":
            await service.delete_user(credentials)
    for piece in pieces[-len(pieces) // 2 :]:
        yield piece
    if way == "wrong token late":
        yield FormField("user_id", str(user_id))
        yield FormField("token", str(user_id))


async def fail_to_store(service: RecordsService, kind: str, way: str) -> str:
    """Makes an upload that fails in one way, and returns the name of the exception."""
    user_id, credentials = await service.make_user()
    settings = SETTINGS.get(way, {})

    async def watch(call: Call) -> None:
        is_part_of_object = kind == SMALL or "partNumber" in call.request
        if way == "store away" and call.process == "minio" and is_part_of_object and not call.is_done:
            raise aiohttp.ServerDisconnectedError

    uploads = service.uploads(CallWatcher(watch), **settings)
    body = failing_body(service, kind, way, user_id, credentials)
    try:
        await uploads.store_record(body, None if way in LATE_WAYS else credentials)
    except (Problem, asyncio.CancelledError) as error:
        name = type(error).__name__
    else:
        raise AssertionError("the upload was stored")
    await uploads.close()
    return name


LATE_WAYS = ("wrong token late", "credentials never follow")
SETTINGS = {
    "refused late": {"max_duration_seconds": 0},
    "credentials never follow": {"late_credentials_seconds": 0},
}
WAYS = {
    "client gone": "ClientGone",
    "cancelled": "CancelledError",
    "lease lost": "UploadInterrupted",
    "user deleted": "UploadInterrupted",
    "wrong token late": "InvalidCredentials",
    "credentials never follow": "RequestTimeout",
    "refused late": "RecordingTooLong",
    "store away": "Unavailable",
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("kind", "times"), [(SMALL, 10), (LARGE, 2)])
async def test_a_failed_upload_leaves_no_object_whatever_the_way_it_ended(
    isolated_service: RecordsService, kind: str, times: int, way: str
) -> None:
    # The first one fills caches.
    await fail_to_store(isolated_service, kind, way)
    with without_collector():
        for _ in range(times):
            task = asyncio.create_task(fail_to_store(isolated_service, kind, way))
            assert await task == WAYS[way]
        del task
        await assert_nothing_is_left()


@asynccontextmanager
async def serve_in_this_process(service: RecordsService) -> AsyncIterator[httpx.AsyncClient]:
    """Runs the whole records service in this process, and yields a client for it."""
    app = create_app(msgspec.structs.replace(service.settings, max_duration_seconds=100))
    config = uvicorn.Config(RequestLog(app), LOOPBACK, 0, http=HttpProtocol, ws="none", log_config=None)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())

    async def has_started() -> bool:
        return server.started

    await wait_until_async(has_started)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        async with httpx.AsyncClient(base_url=f"http://{LOOPBACK}:{port}", trust_env=False) as client:
            yield client
    finally:
        server.should_exit = True
        await serving


async def fail_to_upload(service: RecordsService, client: httpx.AsyncClient, way: str) -> int:
    """Sends an upload that fails in one way, and returns the status of the response; 0 without one."""
    user, token = await create_user(service.owner, "Test")
    wav = Wav(channels=1).build(silence(101.0 if way == "refused late" else 20.0, channels=1))
    if way == "wrong token late":
        fields = (FormPart("user_id", str(user.id)), FormPart("token", str(user.id)))
        content, headers = make_form(audio(wav), *fields), FORM_TYPE
    else:
        content, headers = wav, {**bearer({"token": token}), **WAV_TYPE}
    half = len(content) // 2

    async def body() -> AsyncIterator[bytes]:
        yield content[:half]
        if way == "client gone":
            raise ConnectionAbortedError
        if way == "user deleted":
            await wait_until_async(lambda: service.rows(user.id))
            await service.delete_user(Credentials(digest(token), user.id))
        yield content[half:]

    try:
        return (await client.post("/records", content=body(), headers=headers)).status_code
    except ConnectionAbortedError:
        return 0


@pytest.mark.parametrize(
    ("way", "status"),
    [("client gone", 0), ("user deleted", 503), ("wrong token late", 401), ("refused late", 413)],
)
async def test_a_failed_request_leaves_no_object(
    isolated_service: RecordsService, way: str, status: int
) -> None:
    async with serve_in_this_process(isolated_service) as client:
        assert await fail_to_upload(isolated_service, client, way) == status
        with without_collector():
            for _ in range(10):
                assert await fail_to_upload(isolated_service, client, way) == status
            await assert_nothing_is_left()
