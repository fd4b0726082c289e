"""Removes what ended uploads and deletions left behind: rows, objects and multipart uploads.

Every instance runs a sweeper. They share the work: a statement takes only rows that no other statement has
locked, and a sweeper leases the tombstones on which it works. A sweeper never lists the bucket, because the
rows say which object keys may exist.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from common.db import writes_wait
from common.problems import Problem
from records import metrics, sql
from records.settings import Settings
from records.storage import REQUEST_TIMEOUT_SECONDS, ObjectStore

log = structlog.get_logger()

# A step of a round works in batches of at most BATCH rows. After MAX_BATCHES the next step has its turn. S3
# removes at most 1,000 objects with one request.
BATCH = 1000
MAX_BATCHES = 10
# The sweeper gives an upload up so long after its lease has run out, because an upload cannot renew its lease
# while PostgreSQL is away. Nobody waits for the sweeper.
GRACE = timedelta(seconds=90)
# The sweeper asks for the multipart uploads of so many keys at once. After MAX_FAILURES the store is probably
# away.
LOOKS_AT_ONCE = 8
MAX_FAILURES = 3


async def run_sweeper(engine: AsyncEngine, store: ObjectStore, settings: Settings) -> None:
    """Sweeps for ever, without a pause while there is more to do."""
    while True:
        has_more = await sweep(engine, store, settings.lease_seconds, settings.retention_days)
        metrics.SWEEPS.inc()
        await _attempt("measure what is stored", partial(_measure, engine))
        if not has_more:
            await asyncio.sleep(settings.sweep_seconds)


async def _measure(engine: AsyncEngine) -> bool:
    """Renews the metrics of a round that has ended. Returns False: nothing more is to be done."""
    await writes_wait(engine)
    count, seconds = await sql.measure_tombstones(engine)
    metrics.TOMBSTONES.set(count)
    metrics.OLDEST_TOMBSTONE_SECONDS.set(seconds)
    metrics.STORED_BYTES.set(await sql.sum_stored_bytes(engine))
    runs = await sql.find_runs(engine)
    for command in ("backup", "doctor"):
        run = runs.get(command)
        succeeded_at = run.succeeded_at if run else None
        metrics.LAST_RUN_SECONDS.labels(command).set(succeeded_at.timestamp() if succeeded_at else 0)
    return False


async def sweep(
    engine: AsyncEngine, store: ObjectStore, lease_seconds: int, retention_days: int | None = None
) -> bool:
    """Forgets old idempotency keys, gives up expired uploads, deletes the records of deleted users and those
    older than `retention_days`, and works on the tombstones that are due. Returns whether more is to be done.

    No step depends on another one. If PostgreSQL or the store is away, a step is logged, and the next round
    repeats it.

    A tombstone is due at once, and again after a lease, the grace and the longest PUT. Both times the sweeper
    removes the object and its multipart uploads, and the second time the row, too. The first removal is
    prompt. The second removal leaves nothing behind, for three reasons. The row was a tombstone before the
    first removal, so nobody can publish the upload any more. A PUT that a paused process sends late has
    arrived before the second removal. And the store is strongly consistent (S3 and MinIO promise it), so the
    object is gone afterwards, and no other upload uses its key. All this also holds if the first removal
    fails, and if two sweepers work on one tombstone.
    """
    steps: dict[str, Callable[[], Awaitable[int]]] = {
        "forget old idempotency keys": partial(sql.forget_old_idempotency_keys, engine, BATCH),
        "give up expired uploads": partial(sql.give_up_expired_uploads, engine, GRACE, BATCH),
        "delete records of deleted users": partial(sql.delete_records_of_deleted_users, engine, BATCH),
    }
    if retention_days is not None:
        steps["delete old records"] = partial(_delete_old_records, engine, retention_days)
    steps["work on tombstones"] = partial(_work_on_tombstones, engine, store, longest_late_put(lease_seconds))
    has_more = False
    for name, step in steps.items():
        has_more |= await _attempt(name, partial(_repeat, step))
    return has_more


def longest_late_put(lease_seconds: int) -> timedelta:
    """Returns how late the PUT of a paused process can arrive: a lease, the grace and the longest PUT."""
    return GRACE + timedelta(seconds=lease_seconds + REQUEST_TIMEOUT_SECONDS)


async def _attempt(name: str, step: Callable[[], Awaitable[bool]]) -> bool:
    """Returns what a step returns. If it fails, logs that and returns False: the other steps go on."""
    try:
        return await step()
    except Problem as problem:
        log.warning("a step of the sweep failed", step=name, detail=problem.detail)
    except Exception:
        log.exception("a step of the sweep failed", step=name)
    metrics.SWEEP_ERRORS.labels(name).inc()
    return False


async def _repeat(step: Callable[[], Awaitable[int]]) -> bool:
    """Repeats a step until it finds nothing. Returns whether it may find more after MAX_BATCHES."""
    for _ in range(MAX_BATCHES):
        if not await step():
            return False
    return True


async def _delete_old_records(engine: AsyncEngine, retention_days: int) -> int:
    count = await sql.delete_old_records(engine, timedelta(days=retention_days), BATCH)
    if count:
        log.info("old records deleted", count=count, retention_days=retention_days)
    return count


async def _work_on_tombstones(engine: AsyncEngine, store: ObjectStore, between_looks: timedelta) -> int:
    """Removes the objects of one batch of tombstones. Returns the size of the batch.

    What the store refuses is left for `between_looks`. Raises Unavailable if the store is away.
    """
    tombstones = await sql.lease_tombstones(engine, between_looks, BATCH)
    if not tombstones:
        return 0
    listed = [each.object_key for each in tombstones if each.may_have_multipart_uploads]
    refused = await _abort_multipart_uploads(store, listed)
    keys = [each.object_key for each in tombstones if each.object_key not in refused]
    refused |= await store.remove_objects(keys)
    if refused:
        details = sorted(set(refused.values()))
        log.warning("tombstones were left for later", count=len(refused), details=details)
    done = [each.record_id for each in tombstones if each.is_last_look and each.object_key not in refused]
    await sql.remove_tombstones(engine, done)
    return len(tombstones)


async def _abort_multipart_uploads(store: ObjectStore, keys: list[str]) -> dict[str, str]:
    """Aborts the multipart uploads of these keys. Returns the keys that are left, each with the reason.

    Ends after MAX_FAILURES. The order is random, so that keys which the store refuses do not always stand in
    front of the others.
    """
    left: dict[str, str] = {}
    random.shuffle(keys)
    for start in range(0, len(keys), LOOKS_AT_ONCE):
        looked_at = keys[start : start + LOOKS_AT_ONCE]
        results = await asyncio.gather(
            *(store.abort_multipart_uploads(key) for key in looked_at), return_exceptions=True
        )
        for key, result in zip(looked_at, results, strict=True):
            if isinstance(result, Problem):
                left[key] = result.detail
            elif result:
                raise result
        if len(left) >= MAX_FAILURES:
            return left | dict.fromkeys(keys[start + LOOKS_AT_ONCE :], "not tried after too many failures")
    return left
