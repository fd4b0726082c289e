"""Removes what ended uploads and deletions left behind: rows, objects and multipart uploads.

Every instance runs a sweeper; an advisory lock lets one work at a time. A sweeper never lists the bucket,
because the rows say which object keys may exist.
"""

import asyncio
from datetime import timedelta

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from common.db import advisory_lock
from common.problems import Problem
from records import sql
from records.settings import Settings
from records.storage import REQUEST_TIMEOUT_SECONDS, ObjectStore

log = structlog.get_logger()

ADVISORY_LOCK = 0x5357_4545
BATCH = 1000
# The sweeper gives an upload up so long after its lease has run out. Nobody waits for the sweeper, and while
# PostgreSQL is away an upload cannot renew its lease.
GRACE = timedelta(seconds=90)
# After this many failures the store is probably away, so the sweep ends.
MAX_FAILURES = 3


async def run_sweeper(engine: AsyncEngine, store: ObjectStore, settings: Settings) -> None:
    """Sweeps for ever. If PostgreSQL or the store is away, logs the failure and tries again later."""
    while True:
        try:
            await sweep_if_alone(engine, store, settings.lease_seconds, settings.retention_days)
        except Problem as problem:
            log.warning("the sweep failed", detail=problem.detail)
        except Exception:
            log.exception("the sweep failed")
        await asyncio.sleep(settings.sweep_seconds)


async def sweep_if_alone(
    engine: AsyncEngine, store: ObjectStore, lease_seconds: int, retention_days: int | None
) -> None:
    """Sweeps if no other instance is sweeping; otherwise does nothing."""
    async with advisory_lock(engine, ADVISORY_LOCK) as is_alone:
        if is_alone:
            await sweep(engine, store, lease_seconds, retention_days)


async def sweep(
    engine: AsyncEngine, store: ObjectStore, lease_seconds: int, retention_days: int | None = None
) -> None:
    """Forgets old idempotency keys, gives up expired uploads, deletes records that are older than
    `retention_days`, and then works on every tombstone that is due.

    A tombstone is removed after the store was seen twice without its object and its multipart uploads. The
    two looks are at least a lease, the grace and the longest PUT apart, so that the second look catches the
    late PUT of a paused process.
    """
    await sql.forget_old_idempotency_keys(engine)
    await sql.give_up_expired_uploads(engine, GRACE)
    if retention_days is not None:
        count = await sql.delete_old_records(engine, timedelta(days=retention_days), BATCH)
        if count:
            log.info("old records deleted", count=count, retention_days=retention_days)
    between_looks = GRACE + timedelta(seconds=lease_seconds + REQUEST_TIMEOUT_SECONDS)
    failures = 0
    for tombstone in await sql.find_due_tombstones(engine, between_looks, BATCH):
        try:
            await _work_on(engine, store, tombstone)
        except Problem as problem:
            log.warning("a tombstone was left for later", detail=problem.detail)
            failures += 1
            if failures == MAX_FAILURES:
                raise


async def _work_on(engine: AsyncEngine, store: ObjectStore, tombstone: sql.Tombstone) -> None:
    if await store.remove(tombstone.object_key):
        await sql.note_found(engine, tombstone)
    elif tombstone.gone_since is None:
        await sql.note_gone(engine, tombstone)
    else:
        await sql.remove_tombstone(engine, tombstone)
