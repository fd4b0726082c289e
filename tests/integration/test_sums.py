"""The sums of a user's records are exact, whatever changes the records, and however much at the same time."""

import asyncio
from contextlib import suppress
from uuid import UUID

import pytest
from sqlalchemy import text

from common.credentials import Credentials
from common.db import execute
from records.problems import UnknownRecord
from records.sql import SUM_ALL_BYTES, delete_record, find_wrong_sums
from records.sweeper import sweep
from tests.integration.recordings import SMALL, wav_pieces
from tests.integration.records_service import RecordsService
from tests.integration.waiting import MAX_WAIT_SECONDS

# A third of a second is no sum of few powers of two.
MAKE_RECORDS = (
    "INSERT INTO records (id, user_id, state, object_key, size_bytes, sha256, duration_seconds, sample_rate,"
    " channels, bitrate_kbps, published_at)"
    " SELECT gen_random_uuid(), id, 'ready', gen_random_uuid(), number, 'x', number / 3.0, 44100, 2, 128,"
    " now() - make_interval(days => number)"
    " FROM unnest(CAST(:ids AS uuid[])) AS id, generate_series(1, :count) AS number ORDER BY random()"
)


async def count_records(service: RecordsService, user_id: UUID) -> int:
    """Returns the kept count, after a check of all sums of all users."""
    assert not await find_wrong_sums(service.owner, 10)
    (row,) = await service.query("SELECT record_count FROM users WHERE id = :id", id=user_id)
    return int(row.record_count)


async def test_uploads_deletions_retention_and_the_sweeper_change_the_sums(
    isolated_service: RecordsService,
) -> None:
    service = isolated_service
    user_id, credentials = await service.make_user()
    uploads = service.uploads()
    records = [(await uploads.store_record(wav_pieces(SMALL), credentials)).record for _ in range(3)]
    await uploads.close()
    assert await count_records(service, user_id) == 3
    await delete_record(service.engine, records[0].id, user_id)
    assert await count_records(service, user_id) == 2
    await service.query(
        "UPDATE records SET published_at = published_at - interval '1000 days' WHERE id = :id",
        id=records[1].id,
    )
    await sweep(service.engine, service.store, service.settings.lease_seconds, 999)
    assert await count_records(service, user_id) == 1
    await service.delete_user(credentials)
    await service.sweep()
    assert await count_records(service, user_id) == 0
    await service.settle(user_id)
    assert await service.rows(user_id) == []
    assert await count_records(service, user_id) == 0


@pytest.mark.parametrize(
    ("change", "bytes_left"),
    [
        pytest.param("original_size_bytes = NULL, original_sha256 = NULL", 2, id="the original alone"),
        pytest.param("state = 'deleting'", 0, id="the record"),
    ],
)
async def test_an_original_counts_until_the_record_lets_it_go_and_leaves_its_own_tombstone(
    isolated_service: RecordsService, change: str, bytes_left: int
) -> None:
    service = isolated_service
    user_id, _ = await service.make_user()
    await service.query(MAKE_RECORDS, ids=[user_id], count=2)
    assert await count_bytes(service, user_id) == 3
    (record,) = await service.query(
        "UPDATE records SET object_key = user_id || '/' || id || '.mp3', keep_original = true,"
        " original_size_bytes = 100, original_sha256 = 'x' WHERE user_id = :id AND size_bytes = 1"
        " RETURNING id",
        id=user_id,
    )
    assert await count_bytes(service, user_id) == 103
    await service.query(f"UPDATE records SET {change} WHERE id = :id", id=record.id)  # noqa: S608
    assert await count_bytes(service, user_id) == 2 + bytes_left // 2
    tombstones = {row.object_key for row in await service.rows(user_id) if row.state == "deleting"}
    key = f"{user_id}/{record.id}"
    assert tombstones - {f"{key}.mp3"} == {f"{key}.wav"}
    await service.query("DELETE FROM records WHERE user_id = :id", id=user_id)


async def count_bytes(service: RecordsService, user_id: UUID) -> int:
    await count_records(service, user_id)
    (row,) = await service.query("SELECT total_bytes FROM users WHERE id = :id", id=user_id)
    return int(row.total_bytes)


async def test_the_sum_of_all_bytes_does_not_read_users_who_have_stored_nothing(
    isolated_service: RecordsService,
) -> None:
    service = isolated_service
    user_id, _ = await service.make_user()
    await service.query(MAKE_RECORDS, ids=[user_id], count=3)
    await service.query(
        "INSERT INTO users (id, name) SELECT gen_random_uuid(), 'idle' FROM generate_series(1, 10000)"
    )
    await service.query("ANALYZE users")
    statement = str(SUM_ALL_BYTES.compile(compile_kwargs={"literal_binds": True}))
    plan = await service.query(f"EXPLAIN {statement}")
    assert "using users_stored_bytes" in " ".join(row[0] for row in plan)
    (found,) = await service.query(statement)
    (expected,) = await service.query("SELECT sum(total_bytes) FROM users")
    assert found[0] == expected[0] >= 6
    await service.query("DELETE FROM users WHERE name = 'idle'")
    await service.query("DELETE FROM records WHERE user_id = :id", id=user_id)


@pytest.mark.parametrize("change", ["INSERT", "UPDATE", "DELETE"])
async def test_an_operator_who_changes_records_by_hand_changes_the_sums(
    isolated_service: RecordsService, change: str
) -> None:
    service = isolated_service
    ids = [(await service.make_user())[0] for _ in range(2)]
    await service.query(MAKE_RECORDS, ids=ids, count=3)
    if change == "UPDATE":
        await service.query(
            "UPDATE records SET user_id = :new, size_bytes = size_bytes + 1 WHERE user_id = :old",
            new=ids[1],
            old=ids[0],
        )
    elif change == "DELETE":
        await service.query("DELETE FROM records WHERE user_id = :id AND size_bytes = 2", id=ids[0])
    expected = {"INSERT": [3, 3], "UPDATE": [0, 6], "DELETE": [2, 3]}[change]
    assert [await count_records(service, user_id) for user_id in ids] == expected
    for user_id in ids:
        await service.query("DELETE FROM records WHERE user_id = :id", id=user_id)


async def test_sweepers_publishers_and_deletions_at_the_same_time_neither_deadlock_nor_miscount(
    isolated_service: RecordsService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each sweeper turns records of many users into tombstones with one statement."""
    service = isolated_service
    monkeypatch.setattr("records.sweeper.BATCH", 50)
    users: list[tuple[UUID, Credentials]] = [await service.make_user() for _ in range(20)]
    ids = [user_id for user_id, _ in users]
    await service.query(MAKE_RECORDS, ids=ids, count=40)

    async def delete_some() -> None:
        for user_id in ids:
            rows = await service.query(
                "SELECT id FROM records WHERE user_id = :id AND size_bytes = 3", id=user_id
            )
            for row in rows:
                # The account may be gone already.
                with suppress(UnknownRecord):
                    await delete_record(service.engine, row.id, user_id)

    async def publish_some() -> None:
        for user_id in reversed(ids):
            await execute(service.owner, text(MAKE_RECORDS), {"ids": [user_id], "count": 1})

    async def delete_users() -> None:
        for _, credentials in users[::4]:
            await service.delete_user(credentials)

    sweepers = [sweep(service.engine, service.store, service.settings.lease_seconds, 20) for _ in range(3)]
    async with asyncio.timeout(MAX_WAIT_SECONDS):
        await asyncio.gather(delete_some(), publish_some(), delete_users(), *sweepers)
        while await sweep(service.engine, service.store, service.settings.lease_seconds, 20):
            pass
    counts = [await count_records(service, user_id) for user_id in ids]
    # Without the account, without what is too old, without the one that was deleted, with the new one.
    assert counts == [0 if number % 4 == 0 else 18 + 1 for number in range(20)]
    monkeypatch.undo()
    for user_id in ids:
        await service.query("DELETE FROM records WHERE user_id = :id", id=user_id)
