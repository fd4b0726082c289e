"""Ends what was left behind: uploads whose lease ran out, and the objects of rows that are to go.

Every instance has a sweeper; an advisory lock lets one at a time work. It never lists the bucket: the rows
say which keys may exist.
"""

import asyncio
from datetime import timedelta
from typing import Any

import structlog
from sqlalchemy import Row, delete, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from common.db import advisory_lock, execute
from common.problems import Problem
from common.tables import Record
from records.storage import REQUEST_TIMEOUT_SECONDS, ObjectStore

log = structlog.get_logger()

ADVISORY_LOCK = 0x5357_4545
BATCH = 1000
# After so many the store is probably away, and the round is given up.
MAX_FAILURES = 3
# For so long after its record was published, a key is answered with it.
IDEMPOTENCY_KEYS_KEPT = timedelta(hours=24)


async def run_sweeper(
    engine: AsyncEngine, store: ObjectStore, lease_seconds: int, every_seconds: int
) -> None:
    """Sweeps for ever. A sweep that fails is logged and tried again: Postgres or the store is away."""
    while True:
        try:
            await sweep_alone(engine, store, lease_seconds)
        except Problem as problem:
            log.warning("the sweep failed", detail=problem.detail)
        except Exception:
            log.exception("the sweep failed")
        await asyncio.sleep(every_seconds)


async def sweep_alone(engine: AsyncEngine, store: ObjectStore, lease_seconds: int) -> None:
    """Sweeps where no other instance is at it; otherwise does nothing."""
    async with advisory_lock(engine, ADVISORY_LOCK) as is_alone:
        if is_alone:
            await sweep(engine, store, lease_seconds)


async def sweep(engine: AsyncEngine, store: ObjectStore, lease_seconds: int) -> None:
    """One round: forgets old keys, buries what is expired, then looks after every tombstone.

    A tombstone goes when its object and its open uploads were seen gone twice, at least a lease and the
    longest PUT apart, so that the late PUT of a process that was paused is still caught.
    """
    # Those of a user who is being deleted are left for later: to wait for them could be a deadlock.
    old_keys = (
        select(Record.id)
        .where(Record.idempotency_key.is_not(None), Record.published_at < func.now() - IDEMPOTENCY_KEYS_KEPT)
        .with_for_update(skip_locked=True)
    )
    await execute(
        engine,
        update(Record).where(Record.id.in_(old_keys)).values(idempotency_key=None, idempotency_options=None),
    )
    await execute(
        engine,
        update(Record)
        .where(Record.state == "uploading", Record.lease_until < func.now())
        .values(state="deleting", lease_until=None),
    )
    # Committed: from here on none of these can be published any more.
    between_looks = timedelta(seconds=lease_seconds + REQUEST_TIMEOUT_SECONDS)
    is_due = or_(Record.gone_since.is_(None), Record.gone_since < func.now() - between_looks)
    tombstones = await execute(
        engine,
        select(Record.id, Record.object_key, Record.gone_since)
        .where(Record.state == "deleting", is_due)
        # In any order, so that some that the store refuses do not stand in front of the others for ever.
        .order_by(func.random())
        .limit(BATCH),
    )
    failures = 0
    for row in tombstones:
        try:
            await _look_after(engine, store, row)
        except Problem as problem:
            log.warning("a tombstone was left for later", detail=problem.detail)
            failures += 1
            if failures == MAX_FAILURES:
                raise


async def _look_after(engine: AsyncEngine, store: ObjectStore, row: Row[Any]) -> None:
    this = (Record.id == row.id, Record.state == "deleting")
    if await store.remove(row.object_key):
        await execute(engine, update(Record).where(*this).values(gone_since=None))
    elif row.gone_since is None:
        await execute(engine, update(Record).where(*this).values(gone_since=func.now()))
    else:
        await execute(engine, delete(Record).where(*this, Record.gone_since == row.gone_since))
