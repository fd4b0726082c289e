"""PostgreSQL hangs instead of being away: what clients see meanwhile and afterwards.

These tests stop the processes of PostgreSQL with SIGSTOP.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from functools import partial
from typing import Any
from uuid import uuid4

import httpx
import psutil
import pytest

from deploy.local.stack import Stack
from records.problems import UnknownRecord
from records.row_reader import RowReader
from records.sql import find_record
from tests.integration.frozen_processes import frozen
from tests.integration.recordings import upload_recording
from tests.integration.records_service import RecordsService
from tests.integration.waiting import MAX_WAIT_SECONDS, wait_until
from tests.response_checks import assert_json, assert_problem
from tests.upload_requests import TINY_WAV, WAV_TYPE, bearer


def find_postgres(stack: Stack) -> list[psutil.Process]:
    postmaster = psutil.Process(stack.pid("postgres"))
    return [postmaster, *postmaster.children(recursive=True)]


async def find_backends(service: RecordsService) -> list[psutil.Process]:
    """Returns the processes of PostgreSQL that serve the records service of the test."""
    rows = await service.query(
        "SELECT pid FROM pg_stat_activity"
        " WHERE usename = 'waxwing_records_login' AND datname = current_database()"
    )
    return [psutil.Process(row.pid) for row in rows]


def find_idle_backends(stack: Stack) -> list[psutil.Process]:
    """Returns the processes of PostgreSQL that serve the services, or none while one of them works. It could
    hold a lock, and then fresh connections would hang, too.
    """
    titles = {process: " ".join(process.cmdline()).strip() for process in find_postgres(stack)[1:]}
    backends = {process: title for process, title in titles.items() if "waxwing_" in title}
    return list(backends) if all(title.endswith(" idle") for title in backends.values()) else []


def test_while_postgres_hangs_reads_are_503_and_afterwards_the_first_request_succeeds(
    stack: Stack, http: httpx.Client, owner: dict[str, Any]
) -> None:
    link = upload_recording(stack, owner)["url"]
    own = bearer(owner)

    def get(path: str) -> httpx.Response:
        return http.get(path, headers={} if path == link else own)

    paths = [link, "/records", "/users/me", "/readyz/users", "/readyz/records"]
    # The connections of the first round hang. In the second round new ones do.
    with ThreadPoolExecutor(2 * len(paths)) as threads, frozen(find_postgres(stack)):
        readiness = list(threads.map(get, paths[-2:]))
        responses = list(threads.map(get, paths * 2))
    for response in readiness:
        assert_problem(response, 503, "not-ready")
    for response in responses:
        assert response.status_code == 503, response.url
    for path in paths[1:]:
        assert_json(get(path), 200)
    assert get(link).status_code == 200
    assert_json(http.post("/records", content=TINY_WAV, headers={**own, **WAV_TYPE}), 201)


def test_a_list_or_a_user_whose_connections_hang_is_read_on_a_fresh_one(
    stack: Stack, http: httpx.Client, owner: dict[str, Any]
) -> None:
    def get(path: str) -> httpx.Response:
        return http.get(path, headers=bearer(owner))

    paths = ["/records", "/users/me"]
    for path in paths:
        assert_json(get(path), 200)
    backends = wait_until(partial(find_idle_backends, stack))
    assert len(backends) >= 2
    with ThreadPoolExecutor(len(paths)) as threads, frozen(backends):
        for response in threads.map(get, paths):
            assert_json(response, 200)


async def test_a_read_whose_connections_hang_succeeds_on_a_fresh_one(
    isolated_service: RecordsService,
) -> None:
    async def find(reader: RowReader) -> None:
        with pytest.raises(UnknownRecord):
            await find_record(reader, uuid4(), uuid4())

    async with aclosing(RowReader(isolated_service.engine, silence_seconds=0.2)) as reader:
        await asyncio.gather(*(find(reader) for _ in range(3)))
        backends = await find_backends(isolated_service)
        assert len(backends) >= 3
        async with asyncio.timeout(MAX_WAIT_SECONDS):
            with frozen(backends):
                await asyncio.gather(*(find(reader) for _ in range(3)))


async def test_a_reader_whose_connections_hang_closes_without_postgres(
    isolated_service: RecordsService,
) -> None:
    reader = RowReader(isolated_service.engine)
    with pytest.raises(UnknownRecord):
        await find_record(reader, uuid4(), uuid4())
    with frozen(await find_backends(isolated_service)):
        await reader.aclose()
