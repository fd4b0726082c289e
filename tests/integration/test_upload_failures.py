"""An upload makes a complete record or leaves nothing, at whichever call it fails; its response is true.

Each test repeats its upload and lets another call to PostgreSQL or MinIO fail each time.
"""

import asyncio
import hashlib
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from uuid import UUID

import aiohttp
import pytest
import pytest_asyncio

from common.credentials import Credentials, digest
from common.problems import InvalidCredentials, Problem, Unavailable
from deploy.setup import make_admin
from records.form import FormItem
from records.uploads import Published, Replayed
from tests.integration.failing_calls import NO_FAILURE, Failure, Trial
from tests.integration.paused_calls import Pause, first_call_to_minio, sweeper_lists_multipart_uploads
from tests.integration.recordings import KEPT, LARGE, SMALL, wav_pieces
from tests.integration.records_service import RecordsService
from tests.integration.waiting import MAX_WAIT_SECONDS
from tests.integration.watched_calls import Call, CallWatcher


class ClientVanishedError(Exception):
    """What the body raises when its client has closed the connection."""


async def vanishing(kind: str, watcher: CallWatcher) -> AsyncIterator[FormItem]:
    """Yields an upload whose client vanishes just before the end, while no call is under way.

    The service would cancel a call that is under way, so the call could not go wrong after its effect.
    """
    async for piece in wav_pieces(kind):
        yield piece
    await asyncio.sleep(0)
    # The service sends an upload part in a task of its own, which needs some steps until its call.
    while kind != SMALL and not watcher.has_made("partNumber="):  # noqa: ASYNC110 (no event tells it)
        await asyncio.sleep(0)
    while watcher.under_way:  # noqa: ASYNC110 (no event tells that a call has ended)
        await asyncio.sleep(0)
    raise ClientVanishedError


async def run(trial: Trial, kind: str, vanishes: bool) -> tuple[UUID, Published | Replayed | BaseException]:
    """Runs the trial. If its client vanishes, an upload part of a large recording is sent by then."""
    if vanishes:
        return await trial.run(vanishing(kind, trial.watcher), encoder_threads=1)
    return await trial.run(wav_pieces(kind))


CountCalls = Callable[[str, bool], Awaitable[dict[str, int]]]


@pytest_asyncio.fixture(scope="module")
async def count_calls(isolated_service: RecordsService) -> CountCalls:
    """Counts the calls that an undisturbed upload makes to each process; counts each kind of upload once."""
    counted: dict[tuple[str, bool], dict[str, int]] = {}

    async def count(kind: str, vanishes: bool) -> dict[str, int]:
        if (kind, vanishes) not in counted:
            trial = Trial(isolated_service, NO_FAILURE)
            await run(trial, kind, vanishes)
            made = [call.process for call in trial.watcher.calls]
            counted[kind, vanishes] = {process: made.count(process) for process in ("postgres", "minio")}
        return counted[kind, vanishes]

    return count


HOWS = ["fails", "cancelled"]
WHENS = {"before its effect": False, "after its effect": True}
SPANS = {"once": False, "from then on": True}
FAILURES = [
    pytest.param(Failure(how, is_done=is_done, continues=continues), id=f"{how} {when} {span}")
    for how in HOWS
    for when, is_done in WHENS.items()
    for span, continues in SPANS.items()
]


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize(
    ("kind", "vanishes"),
    [
        *(pytest.param(kind, False, id=kind) for kind in (SMALL, LARGE, KEPT)),
        *(pytest.param(kind, True, id=f"{kind}, and its client vanishes") for kind in (SMALL, LARGE)),
    ],
)
async def test_an_upload_that_goes_wrong_at_any_call_makes_a_complete_record_or_leaves_nothing(
    isolated_service: RecordsService, count_calls: CountCalls, kind: str, vanishes: bool, failure: Failure
) -> None:
    if failure.how == "cancelled" and failure.continues:
        # The clean-up is cancelled as well, and must go on nevertheless.
        expected: tuple[type[BaseException], ...] = (asyncio.CancelledError,)
    else:
        expected = (Problem, asyncio.CancelledError, ClientVanishedError)
    calls = await count_calls(kind, vanishes)
    await go_wrong_at_any_call(isolated_service, calls, failure, expected, kind, vanishes=vanishes)


@pytest.mark.parametrize("is_done", [False, True], ids=["before its effect", "after its effect"])
@pytest.mark.parametrize("kind", [SMALL, LARGE, KEPT])
async def test_an_upload_whose_service_is_killed_at_any_call_makes_a_complete_record_or_leaves_nothing(
    isolated_service: RecordsService, count_calls: CountCalls, kind: str, is_done: bool
) -> None:
    calls = await count_calls(kind, False)
    failure = Failure("killed", is_done=is_done)
    await go_wrong_at_any_call(isolated_service, calls, failure, (Problem,), kind)


async def go_wrong_at_any_call(
    isolated_service: RecordsService,
    calls: dict[str, int],
    failure: Failure,
    expected: tuple[type[BaseException], ...],
    kind: str,
    *,
    vanishes: bool = False,
) -> None:
    """Repeats the upload once for each call, and checks what it leaves."""
    assert calls["postgres"] >= 2
    assert calls["minio"] >= (0 if vanishes and kind == SMALL else 1)
    for process, count in calls.items():
        for number in range(1, count + 1):
            trial = Trial(isolated_service, replace(failure, process=process, number=number))
            user_id, outcome = await run(trial, kind, vanishes)
            assert trial.struck, (
                f"call {number} to {process} was never made: {outcome!r}, {trial.watcher.calls}"
            )
            await check(isolated_service, trial, user_id, outcome, expected)


async def check(
    isolated_service: RecordsService,
    trial: Trial,
    user_id: UUID,
    outcome: Published | Replayed | BaseException,
    expected: tuple[type[BaseException], ...],
) -> None:
    """Checks that the outcome is true, and still true after the sweeper has done all its work."""
    at = f"{trial.struck[0]} -> {outcome!r}"
    if isinstance(outcome, Published):
        await isolated_service.assert_record_is_complete(user_id, trial.watcher)
    else:
        assert isinstance(outcome, expected), at
        assert getattr(outcome, "status_code", 503) == 503, at
    trial.watcher.stop_watching()
    await isolated_service.settle(user_id)
    if await isolated_service.rows(user_id):
        assert "published_at" in trial.struck[0].request or isinstance(outcome, Published), at
        await isolated_service.assert_record_is_complete(user_id, trial.watcher)
    else:
        assert not isinstance(outcome, Published), at
        await isolated_service.assert_nothing_is_left(user_id, trial.watcher)


@pytest.mark.parametrize("is_done", [False, True], ids=["before its effect", "after its effect"])
@pytest.mark.parametrize("kind", [SMALL, LARGE, KEPT])
async def test_an_upload_succeeds_if_each_call_to_the_store_breaks_once(
    isolated_service: RecordsService, kind: str, is_done: bool
) -> None:
    broken = Counter[str]()

    async def watch(call: Call) -> None:
        if call.process == "minio" and call.is_done == is_done and not broken[call.request]:
            broken[call.request] += 1
            raise aiohttp.ServerDisconnectedError

    user_id, credentials = await isolated_service.make_user()
    watcher = CallWatcher(watch)
    uploads = isolated_service.uploads(watcher, store_retry_seconds=15)
    await uploads.store_record(wav_pieces(kind), credentials)
    await uploads.close()
    assert broken.total() >= (1 if kind == SMALL else 6)
    await isolated_service.assert_record_is_complete(user_id, watcher)


@pytest.mark.parametrize("kind", [SMALL, LARGE, KEPT])
async def test_an_upload_whose_client_vanishes_leaves_no_object_at_once(
    isolated_service: RecordsService, kind: str
) -> None:
    trial = Trial(isolated_service, NO_FAILURE)
    user_id, outcome = await run(trial, kind, vanishes=True)
    assert isinstance(outcome, ClientVanishedError)
    assert await isolated_service.objects(user_id) == []
    rows = await isolated_service.rows(user_id)
    # MinIO has received no request for the small object, so none can arrive late. Each other one leaves a
    # tombstone, and so does the waveform, which could have been stored.
    assert [row.state for row in rows] == ["deleting"] * {SMALL: 0, LARGE: 2, KEPT: 3}[kind]
    for row in rows:
        assert await isolated_service.multipart_uploads(row.object_key) == []


async def test_an_upload_to_a_silent_store_is_503_and_leaves_nothing(
    isolated_service: RecordsService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("records.storage.REQUEST_TIMEOUT_SECONDS", 0.2)
    user_id, credentials = await isolated_service.make_user()
    pause = Pause(first_call_to_minio)
    watcher = CallWatcher(pause.watch)
    uploads = isolated_service.uploads(watcher, store_retry_seconds=15)
    with pytest.raises(Unavailable, match="The object store does not answer"):
        await uploads.store_record(wav_pieces(SMALL), credentials)
    await uploads.close()
    # The silent call was not repeated: the PUTs are those of the waveform and of the MP3.
    assert [call.request.split()[0] for call in watcher.calls if call.process == "minio"][:3] == [
        "PUT",
        "PUT",
        "GET",
    ]
    await isolated_service.settle(user_id)
    await isolated_service.assert_nothing_is_left(user_id, watcher)


async def test_the_response_to_a_failed_upload_does_not_wait_for_a_clean_up_that_hangs(
    isolated_service: RecordsService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("records.uploads.CLEAN_UP_WAIT_SECONDS", 0.2)
    user_id, credentials = await isolated_service.make_user()
    pause = Pause(sweeper_lists_multipart_uploads)
    watcher = CallWatcher(pause.watch)
    # With one thread less audio waits, so upload parts have been sent.
    uploads = isolated_service.uploads(watcher, encoder_threads=1)
    with pytest.raises(ClientVanishedError):
        await uploads.store_record(vanishing(LARGE, watcher), credentials)
    await pause.reached()
    pause.release()
    await uploads.close()
    await isolated_service.settle(user_id)
    await isolated_service.assert_nothing_is_left(user_id, watcher)


async def test_an_upload_that_is_cancelled_again_and_again_cleans_up_without_the_sweeper(
    isolated_service: RecordsService,
) -> None:
    trial = Trial(
        isolated_service,
        Failure(
            "cancelled",
            "postgres",
            await count_to_publish(isolated_service),
            continues=True,
        ),
    )
    user_id, outcome = await trial.run(wav_pieces(LARGE))
    assert isinstance(outcome, asyncio.CancelledError)
    # Cancelled at the publishing statement and at each statement of the clean-up; no sweeper has run.
    assert len(trial.struck) >= 3
    rows = await isolated_service.rows(user_id)
    assert [row.state for row in rows] == ["deleting"] * 2
    assert await isolated_service.objects(user_id) == []
    for row in rows:
        assert await isolated_service.multipart_uploads(row.object_key) == []


@pytest.mark.parametrize("kind", [SMALL, LARGE, KEPT])
async def test_an_upload_to_a_full_object_store_is_refused_with_the_reason_and_leaves_nothing(
    isolated_service: RecordsService, kind: str
) -> None:
    user_id, credentials = await isolated_service.make_user()
    watcher = CallWatcher()
    uploads = isolated_service.uploads(watcher)
    bucket = isolated_service.settings.store.s3_bucket
    admin = make_admin(isolated_service.setup, isolated_service.session)
    await admin.bucket_quota_set(bucket, 1)
    try:
        with pytest.raises(
            Unavailable, match=r"The object store refuses the request with the error \w+QuotaExceeded"
        ):
            await uploads.store_record(wav_pieces(kind), credentials)
    finally:
        await admin.bucket_quota_clear(bucket)
    await uploads.close()
    await isolated_service.settle(user_id)
    await isolated_service.assert_nothing_is_left(user_id, watcher)


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda mp3: mp3[:-1], id="shorter"),
        pytest.param(lambda mp3: mp3 + b"\0", id="longer"),
        pytest.param(lambda mp3: mp3[:-1] + bytes([mp3[-1] ^ 1]), id="other last byte"),
        pytest.param(lambda mp3: bytes([mp3[0] ^ 1]) + mp3[1:], id="other first byte"),
        pytest.param(lambda mp3: b"", id="empty"),
    ],
)
async def test_a_large_upload_whose_object_reads_back_changed_is_refused_and_leaves_nothing(
    isolated_service: RecordsService, spoil: Callable[[bytes], bytes]
) -> None:
    user_id, credentials = await isolated_service.make_user()
    spoiled: list[str] = []

    async def watch(call: Call) -> None:
        if call.request.startswith("GET") and call.request.endswith(".mp3") and not call.is_done:
            key = (await isolated_service.objects(user_id))[0]
            mp3 = await isolated_service.read_object(key)
            await isolated_service.store.put(key, spoil(mp3))
            spoiled.append(key)

    watcher = CallWatcher(watch)
    uploads = isolated_service.uploads(watcher)
    with pytest.raises(Unavailable, match="returned other bytes than it was sent") as refusal:
        await uploads.store_record(wav_pieces(LARGE), credentials)
    await uploads.close()
    assert refusal.value.status_code == 503
    assert len(spoiled) == 1
    assert await isolated_service.objects(user_id) == []
    await isolated_service.settle(user_id)
    await isolated_service.assert_nothing_is_left(user_id, watcher)


async def test_the_first_upload_part_is_sent_after_all_audio_and_the_object_is_read_back(
    isolated_service: RecordsService,
) -> None:
    user_id, credentials = await isolated_service.make_user()
    has_all_audio = False
    upload_parts: dict[str, bool] = {}

    async def body() -> AsyncIterator[FormItem]:
        nonlocal has_all_audio
        async for piece in wav_pieces(LARGE):
            yield piece
        has_all_audio = True

    async def watch(call: Call) -> None:
        for number in re.findall(r"partNumber=(\d+)", call.request):
            upload_parts.setdefault(number, has_all_audio)

    watcher = CallWatcher(watch)
    uploads = isolated_service.uploads(watcher)
    published = await uploads.store_record(body(), credentials)
    await uploads.close()
    assert sorted(upload_parts) == ["1", "2", "3"]
    assert upload_parts["1"]
    assert [call.request for call in watcher.calls if call.process == "minio"][-1].startswith("GET")
    key, _ = await isolated_service.objects(user_id)
    mp3 = await isolated_service.read_object(key)
    assert len(mp3) == published.record.size_bytes
    assert hashlib.sha256(mp3).hexdigest() == published.record.sha256
    assert b"Info" in mp3[:100]


async def count_to_publish(isolated_service: RecordsService) -> int:
    """Counts the statements of an upload up to the one that publishes it."""
    trial = Trial(isolated_service, NO_FAILURE)
    await trial.run(wav_pieces(LARGE))
    (number,) = [call.number for call in trial.watcher.calls if "published_at" in call.request]
    return number


@pytest.mark.parametrize("waits_for", ["INSERT", "UPDATE"])
async def test_an_upload_that_is_cancelled_while_postgres_executes_its_statement_leaves_nothing(
    isolated_service: RecordsService, waits_for: str
) -> None:
    user_id, credentials = await isolated_service.make_user()
    watcher = CallWatcher()
    uploads = isolated_service.uploads(watcher)
    reached = asyncio.Event()
    released = asyncio.Event()

    async def watch(call: Call) -> None:
        if call.process == "postgres" and call.request.startswith(waits_for) and not call.is_done:
            reached.set()
            await released.wait()

    watcher.watch = watch
    async with asyncio.timeout(MAX_WAIT_SECONDS):
        task = asyncio.create_task(uploads.store_record(wav_pieces(SMALL), credentials))
        await reached.wait()
        async with isolated_service.owner.execution_options(
            isolation_level="READ COMMITTED"
        ).begin() as locking:
            await locking.exec_driver_sql("LOCK TABLE records IN ACCESS EXCLUSIVE MODE")
            released.set()
            watcher.stop_watching()
            await isolated_service.wait_for_locked_statements(1)
            task.cancel()
            await isolated_service.wait_for_locked_statements(0)
        with pytest.raises(asyncio.CancelledError):
            await task
        await uploads.close()
    await isolated_service.settle(user_id)
    await isolated_service.assert_nothing_is_left(user_id, watcher)


async def test_an_upload_is_refused_as_unavailable_while_postgres_refuses_new_connections(
    isolated_service: RecordsService,
) -> None:
    _, credentials = await isolated_service.make_user()
    await isolated_service.engine.dispose()
    await isolated_service.query("ALTER ROLE waxwing_records_login CONNECTION LIMIT 0")
    uploads = isolated_service.uploads()
    try:
        with pytest.raises(Unavailable):
            await uploads.store_record(wav_pieces(SMALL), credentials)
    finally:
        await isolated_service.query("ALTER ROLE waxwing_records_login CONNECTION LIMIT -1")
        await uploads.close()


async def test_after_postgres_has_closed_a_connection_one_upload_fails_and_the_next_succeeds(
    isolated_service: RecordsService,
) -> None:
    user_id, credentials = await isolated_service.make_user()
    watcher = CallWatcher()
    killed: list[str] = []

    async def watch(call: Call) -> None:
        if call.process == "postgres" and not call.is_done and not killed:
            killed.append(call.request)
            await isolated_service.query(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE usename = 'waxwing_records_login' AND datname = current_database()"
            )

    watcher.watch = watch
    uploads = isolated_service.uploads(watcher)
    with pytest.raises(Unavailable):
        await uploads.store_record(wav_pieces(SMALL), credentials)
    published = await uploads.store_record(wav_pieces(SMALL), credentials)
    await uploads.close()
    assert killed
    assert [row.id for row in await isolated_service.rows(user_id)] == [published.record.id]


async def test_wrong_credentials_are_refused_before_the_audio_is_read_and_leave_nothing(
    isolated_service: RecordsService,
) -> None:
    user_id, _ = await isolated_service.make_user()
    read: list[FormItem] = []

    async def body() -> AsyncIterator[FormItem]:
        async for piece in wav_pieces(SMALL):
            read.append(piece)
            yield piece

    watcher = CallWatcher()
    uploads = isolated_service.uploads(watcher)
    with pytest.raises(InvalidCredentials):
        await uploads.store_record(body(), Credentials(digest("no token"), user_id))
    await uploads.close()
    assert read == []
    # The second statement tells wrong credentials from a blocked user.
    assert [call.process for call in watcher.calls] == ["postgres", "postgres"]
    await isolated_service.assert_nothing_is_left(user_id, watcher)
