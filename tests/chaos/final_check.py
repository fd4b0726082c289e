"""What must hold after the drill, when every process runs and the sweeper has worked."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Iterator
from contextlib import aclosing
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import psutil

from common.db import make_engine
from common.settings import load
from deploy.local.stack import Stack
from records.doctor import Doctor
from records.settings import Settings
from records.storage import open_store
from tests.chaos.clients import Http, fetch_list, fetch_original, fetch_waveform, judge_download
from tests.chaos.hand import run_sql
from tests.chaos.ledger import Ledger, User
from tests.chaos.wires import WiredStack
from tests.documented_responses import EVERYWHERE, operations
from tests.upload_requests import bearer

USERS_AT_ONCE = 8
# The sweeper waits minutes before it touches or forgets what is young, so the times of the rows move instead.
AGE_UPLOADS = (
    "UPDATE records SET lease_until = lease_until - interval '1 hour' WHERE state = 'uploading'",
    "UPDATE records SET lease_until = lease_until - interval '1 hour',"
    " gone_since = gone_since - interval '1 hour' WHERE state = 'deleting' AND lease_until > now()",
)
UNSWEPT = """
SELECT records.id FROM records JOIN users ON users.id = user_id
WHERE state <> 'ready' OR users.deleted_at IS NOT NULL
"""
SWEEP_SECONDS = 60
# What a process may have more than at the beginning: connections in its pools and what its allocator keeps.
MORE_DESCRIPTORS, MORE_MIB = 60, 64
# MinIO is written in Go, whose collector gives memory back later.
MORE_MIB_OF_MINIO = 400
TRIES = 20


class Level(NamedTuple):
    """What a process uses together with its children."""

    mib: float
    descriptors: int


def measure_levels(stack: Stack) -> dict[str, Level]:
    """Measures every process. Memory is what only the process itself has."""
    levels = {}
    for name in stack.process_names:
        main = psutil.Process(stack.pid(name))
        family = [main, *main.children(recursive=True)]
        mib = sum(each.memory_full_info().uss for each in family) / 1024**2
        levels[name] = Level(round(mib, 1), sum(each.num_fds() for each in family))
    return levels


async def check_levels(stack: Stack, ledger: Ledger, before: dict[str, Level]) -> dict[str, Level]:
    """Compares memory and descriptors with the beginning. Idle connections may take a while to close."""
    for _ in range(TRIES):
        after = await asyncio.to_thread(measure_levels, stack)
        if not (grown := list(_find_grown(before, after))):
            return after
        await asyncio.sleep(1)
    for sentence in grown:
        ledger.violate(sentence)
    return after


def _find_grown(before: dict[str, Level], after: dict[str, Level]) -> Iterator[str]:
    for name, level in after.items():
        more_mib = MORE_MIB_OF_MINIO if name == "minio" else MORE_MIB
        if level.mib > before[name].mib + more_mib:
            yield f"{name} had {before[name].mib} MiB, and now {level.mib} MiB"
        if level.descriptors > before[name].descriptors + MORE_DESCRIPTORS:
            yield f"{name} had {before[name].descriptors} descriptors, and now {level.descriptors}"


async def let_sweeper_finish(stack: Stack, ledger: Ledger) -> None:
    """Returns when the sweeper has removed everything that is not a record.

    No upload may be under way.
    """
    for _ in range(SWEEP_SECONDS):
        if not (unswept := await run_sql(stack, UNSWEPT)):
            return
        for statement in AGE_UPLOADS:
            await run_sql(stack, statement)
        await asyncio.sleep(1)
    ledger.violate(f"the sweeper leaves {len(unswept)} rows, such as {unswept[0]['id']}")


async def check_everything(stack: WiredStack, http: Http, ledger: Ledger) -> None:
    """Compares every promise of the ledger with what a client gets now, and database with bucket."""
    slots = asyncio.Semaphore(USERS_AT_ONCE)

    async def check(user: User) -> None:
        async with slots:
            await _check_user(http, ledger, user)

    await asyncio.gather(*map(check, ledger.users))
    await ask_doctor(stack, ledger)
    _check_multipart_folders(stack, ledger)
    _check_statuses(ledger)


async def _check_user(http: Http, ledger: Ledger, user: User) -> None:
    profile = await _find_profile(http, ledger, user)
    for dead in user.dead_tokens:
        for path in ("/users/me", "/records"):
            if (old := await http.send("GET", path, bearer({"token": dead}))).status != 401:
                ledger.violate(f"an old token of user {user.id} gets {old.status}")
    if profile:
        await _check_list(http, ledger, user, profile)
    for fact in list(user.records.values()):
        played = await http.send("GET", fact.url)
        if played.status not in (200, 404):
            ledger.violate(f"record {fact.id} gets {played.status}: {played.body[:300]!r}")
        judge_download(ledger, user, fact, played, None)
        if (status := await fetch_waveform(http, ledger, user, fact)) not in (200, 404):
            ledger.violate(f"the waveform of record {fact.id} gets {status}")
        if fact.original_sha256:
            await fetch_original(http, ledger, user, fact)


async def _find_profile(http: Http, ledger: Ledger, user: User) -> dict[str, int] | None:
    """Returns the user's profile if the token works, and learns whether unclear requests had an effect."""
    response = await http.send("GET", "/users/me", bearer({"token": user.token}))
    if response.status == 200:
        if user.is_deleted == "yes":
            ledger.violate(f"ghost: user {user.id} is deleted, but its token works")
        user.is_deleted, user.is_token_known = "no", True
        return dict(response.json())
    if response.status != 401 or user.is_clear:
        ledger.violate(f"the token of user {user.id} gets {response.status}: {response.body[:300]!r}")
    if user.is_deleted == "maybe":
        user.is_deleted = "yes"
    return None


async def _check_list(http: Http, ledger: Ledger, user: User, profile: dict[str, int]) -> None:
    documents = await fetch_list(http, user)
    if not isinstance(documents, list):
        ledger.violate(f"the list of user {user.id} gets {documents.status}")
        return
    ledger.check_listed(user, documents)
    originals = [document["original"] for document in documents if document["original"]]
    sums = (len(documents), sum(each["size_bytes"] for each in (*documents, *originals)))
    if (profile["record_count"], profile["total_bytes"]) != sums:
        ledger.violate(f"user {user.id} has {sums}, and its profile says {profile}")


async def ask_doctor(stack: Stack, ledger: Ledger) -> None:
    """Lets the doctor read everything. Nothing is under way, so it may judge what is young, too."""
    settings = load(Settings, stack.environment("records"))
    engine = make_engine(settings.database_url, settings.database_password)
    try:
        async with open_store(settings.store) as store:
            doctor = Doctor(engine, store, timedelta(0), is_deep=True)
            async with aclosing(doctor.look()) as findings:
                async for finding in findings:
                    ledger.violate(f"the doctor finds {finding.kind}: {finding.object_key}, {finding.detail}")
    finally:
        await engine.dispose()
    ledger.acknowledged["seen by the doctor"] = doctor.seen["ready"]
    if sum(doctor.seen[each] for each in ("ready", "originals", "waveforms")) != doctor.seen["objects"]:
        ledger.violate(f"the doctor saw {doctor.seen}")


def _check_multipart_folders(stack: Stack, ledger: Ledger) -> None:
    """Looks for open multipart uploads on the disk: asked for all, MinIO forgets those before its start."""
    if left := find_multipart_folders(stack):
        ledger.violate(f"{len(left)} multipart uploads are left, such as {left[0]}")


def find_multipart_folders(stack: Stack) -> list[Path]:
    """Returns a folder for each open multipart upload."""
    folder = stack.supervisor.log("minio").parents[1] / "minio" / ".minio.sys" / "multipart"
    return [
        Path(parent, name)
        for parent, names, _ in os.walk(folder)
        for name in names
        if Path(parent).parent == folder
    ]


def _check_statuses(ledger: Ledger) -> None:
    documented = operations()
    for (method, path, status), count in ledger.responses.items():
        if status not in documented[method, path] | EVERYWHERE | {0}:
            ledger.violate(f"{count} times {method} {path} got {status}, which is not documented")


def check_logs(stack: Stack, ledger: Ledger) -> None:
    """Looks for errors in the logs of the services."""
    for name in ("users", "records"):
        errors = list(_find_errors(stack.supervisor.log(name)))
        for line in islice(errors, 5):
            ledger.violate(f"{name} has logged one of {len(errors)} errors: {line[:1500]}")


def _find_errors(log: Path) -> Iterator[str]:
    for file in log.parent.glob(f"{log.name}*"):
        for line in re.findall("^{.*}$", file.read_text(errors="replace"), re.MULTILINE):
            if json.loads(line).get("level") in ("error", "critical"):
                yield line
