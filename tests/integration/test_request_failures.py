"""A request that fails at any call has done all or nothing, and it can be sent again.

Each test repeats its request and lets another call to PostgreSQL fail each time, before or after its effect.
"""

from collections.abc import Awaitable, Callable
from typing import NamedTuple
from uuid import UUID

import pytest

from common.credentials import Credentials
from common.problems import InvalidCredentials, Unavailable
from records.problems import UnknownRecord
from records.sql import delete_record, find_own_record, find_record, rename_record
from tests.integration.recordings import SMALL, wav_pieces
from tests.integration.records_service import RecordsService
from tests.integration.watched_calls import Call, CallWatcher, watch_engine
from users.sql import find_user, renew_token, set_blocked

KEY = "the key"


class Owner(NamedTuple):
    """A user with one record, whose upload had an idempotency key."""

    user_id: UUID
    credentials: Credentials
    record_id: UUID


async def make_owner(service: RecordsService) -> Owner:
    user_id, credentials = await service.make_user()
    return Owner(user_id, credentials, await upload(service, credentials))


async def upload(
    service: RecordsService, credentials: Credentials, watcher: CallWatcher | None = None
) -> UUID:
    uploads = service.uploads(watcher)
    try:
        return (await uploads.store_record(wav_pieces(SMALL), credentials, KEY)).record.id
    finally:
        await uploads.close()


async def replay(service: RecordsService, owner: Owner, watcher: CallWatcher) -> None:
    assert await upload(service, owner.credentials, watcher) == owner.record_id


async def delete_one_record(service: RecordsService, owner: Owner, watcher: CallWatcher) -> None:
    await delete_record(watch_engine(service.engine, watcher), owner.record_id, owner.user_id)


async def delete_account(service: RecordsService, owner: Owner, watcher: CallWatcher) -> None:
    await service.delete_user(owner.credentials, watcher)


async def give_title(service: RecordsService, owner: Owner, watcher: CallWatcher) -> None:
    engine = watch_engine(service.engine, watcher)
    record = await rename_record(engine, owner.record_id, owner.user_id, "A title")
    assert record.title == "A title"


async def replace_token(service: RecordsService, owner: Owner, watcher: CallWatcher) -> None:
    await renew_token(watch_engine(service.users_engine, watcher), owner.credentials)


async def block(service: RecordsService, owner: Owner, watcher: CallWatcher) -> None:
    await set_blocked(watch_engine(service.users_engine, watcher), owner.user_id, is_blocked=True)


async def has_link(service: RecordsService, owner: Owner) -> bool:
    try:
        await find_record(service.reader, owner.record_id, owner.user_id)
    except UnknownRecord:
        return False
    return True


async def has_no_title(service: RecordsService, owner: Owner) -> bool:
    return (await find_own_record(service.reader, owner.record_id, owner.user_id)).title is None


async def has_right_token(service: RecordsService, owner: Owner) -> bool:
    try:
        await find_user(service.users_engine, owner.credentials)
    except InvalidCredentials:
        return False
    return True


class Request(NamedTuple):
    """A request, what it ends, and what the same request raises afterwards."""

    send: Callable[[RecordsService, Owner, CallWatcher], Awaitable[None]]
    what_ends: Callable[[RecordsService, Owner], Awaitable[bool]] | None
    raises_again: type[Exception] | None


REQUESTS = {
    "replay of an upload": Request(replay, None, None),
    "rename of a record": Request(give_title, has_no_title, None),
    "deletion of a record": Request(delete_one_record, has_link, UnknownRecord),
    "deletion of an account": Request(delete_account, has_link, InvalidCredentials),
    "new token": Request(replace_token, has_right_token, InvalidCredentials),
    "block": Request(block, has_link, None),
}


@pytest.mark.parametrize("is_done", [False, True], ids=["before its effect", "after its effect"])
@pytest.mark.parametrize("request_name", REQUESTS)
async def test_a_request_that_fails_at_any_call_has_done_all_or_nothing_and_can_be_sent_again(
    isolated_service: RecordsService, request_name: str, is_done: bool
) -> None:
    request, number, has_failed = REQUESTS[request_name], 0, True
    while has_failed:
        number += 1
        owner = await make_owner(isolated_service)

        async def watch(call: Call, number: int = number) -> None:
            if (call.process, call.number, call.is_done) == ("postgres", number, is_done):
                raise ConnectionResetError

        watcher = CallWatcher(watch)
        try:
            await request.send(isolated_service, owner, watcher)
            has_failed = False
        except Unavailable:
            # The request is sent again, as its client would do.
            await send_again(isolated_service, request, owner)
        assert [call for call in watcher.calls if call.process == "minio"] == []
        if request.what_ends:
            assert not await request.what_ends(isolated_service, owner)
        # Nothing but the record of the request has changed, and nothing was uploaded.
        (row,) = await isolated_service.rows(owner.user_id)
        assert row.id == owner.record_id
        assert await isolated_service.objects(owner.user_id) == [row.object_key]
    assert number > 1


async def send_again(service: RecordsService, request: Request, owner: Owner) -> None:
    """Sends a request that was answered 503 again. The second one may find that the first has succeeded."""
    is_over = request.what_ends is not None and not await request.what_ends(service, owner)
    if is_over and request.raises_again:
        with pytest.raises(request.raises_again):
            await request.send(service, owner, CallWatcher())
    else:
        await request.send(service, owner, CallWatcher())
