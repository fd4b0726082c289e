"""A URL with several servers leads to the primary, even while another one hangs or is a standby."""

import asyncio
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from common.db import check_database, execute, make_engine, writes_wait
from common.problems import Unavailable
from common.servers import Servers
from deploy.local import postgres
from deploy.local.ports import LOOPBACK, free_ports
from deploy.postgres_binaries import binary
from tests.integration.frozen_processes import frozen
from tests.integration.waiting import wait_until, wait_until_async

PASSWORD = "of the superuser"
PORT = text("SELECT inet_server_port()")
WRITE = text("CREATE TABLE written ()")


class Pair(NamedTuple):
    """A primary and its standby, by their ports."""

    primary: int
    standby: int
    primary_process: psutil.Process
    standby_process: psutil.Process

    @property
    def url(self) -> str:
        return f"postgresql://postgres@{LOOPBACK}:{self.primary},{LOOPBACK}:{self.standby}/postgres"


@contextmanager
def running(folder: Path, port: int) -> Iterator[psutil.Process]:
    """Runs a server."""
    with folder.with_name(f"{folder.name}.log").open("w") as log:
        process = psutil.Popen(postgres.command(folder, port), stdout=log, stderr=log)
        try:
            wait_until(lambda: postgres.is_ready(port))
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGQUIT)
            process.wait()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    """A primary and a standby that follows it."""
    primary, standby = free_ports(2)
    postgres.create_cluster(tmp_path / "primary", PASSWORD)
    with ExitStack() as servers:
        process = servers.enter_context(running(tmp_path / "primary", primary))
        subprocess.run(
            [
                *(binary("pg_basebackup"), f"--pgdata={tmp_path / 'standby'}", "--write-recovery-conf"),
                *("--checkpoint=fast", f"--host={LOOPBACK}", f"--port={primary}", "--username=postgres"),
            ],
            env=postgres.psql_environment(PASSWORD),
            check=True,
        )
        follower = servers.enter_context(running(tmp_path / "standby", standby))
        yield Pair(primary, standby, process, follower)


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[AsyncEngine]:
    engine = make_engine(url, PASSWORD)
    try:
        yield engine
    finally:
        await engine.dispose()


@pytest.mark.parametrize(
    "form",
    [
        "postgresql://postgres@{host}:{standby},{host}:{primary}/postgres?target_session_attrs=primary",
        "postgresql://postgres@/postgres?host={host},{host}&port={standby},{primary}&target_session_attrs=read-write",
        "postgresql://postgres@{host}:{primary}/postgres?sslmode=prefer&application_name=waxwing",
    ],
)
async def test_each_form_of_a_url_leads_to_the_primary(pair: Pair, form: str) -> None:
    async with opened(form.format(host=LOOPBACK, **pair._asdict())) as engine:
        assert [tuple(row) for row in await execute(engine, PORT)] == [(pair.primary,)]
        await check_database(engine)


async def test_while_a_primary_hangs_connections_go_to_the_promoted_standby(pair: Pair) -> None:
    servers = Servers(f"{pair.url}?target_session_attrs=primary", PASSWORD)
    before = await servers.connect()
    assert await before.fetchval(PORT.text) == pair.primary
    async with opened(pair.url.replace(f"{LOOPBACK}:{pair.primary},", "")) as standby:
        with frozen([pair.primary_process, *pair.primary_process.children(recursive=True)]):
            await execute(standby, text("SELECT pg_promote()"))
            for _ in range(2):
                after = await servers.connect()
                assert await after.fetchval(PORT.text) == pair.standby
                # The second connection asks this server first.
                assert servers.first["port"] == pair.standby
                after.terminate()
    before.terminate()


async def test_a_server_that_takes_no_writes_is_not_ready_and_is_left(pair: Pair) -> None:
    async with opened(f"postgresql://postgres@{LOOPBACK}:{pair.standby}/postgres") as engine:
        ((backend,),) = await execute(engine, text("SELECT pg_backend_pid()"))
        with pytest.raises(Unavailable, match="takes no writes"):
            await check_database(engine)
        with pytest.raises(Unavailable):
            await execute(engine, WRITE)
        ((next_backend,),) = await execute(engine, text("SELECT pg_backend_pid()"))
        assert next_backend != backend
        await execute(engine, text("SELECT pg_promote()"))
        await check_database(engine)
        await execute(engine, WRITE)


async def wait_for_a_standby(engine: AsyncEngine, names: str = "*") -> None:
    """From now on PostgreSQL commits what a standby has, too."""
    await execute(engine, text(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'"))
    await execute(engine, text("SELECT pg_reload_conf()"))
    await wait_until_async(lambda: has_names(engine, names))


async def has_names(engine: AsyncEngine, names: str) -> bool:
    ((shown,),) = await execute(engine, text("SHOW synchronous_standby_names"))
    return bool(shown == names)


async def test_a_primary_whose_synchronous_standby_is_away_is_not_ready(pair: Pair) -> None:
    async with opened(f"postgresql://postgres@{LOOPBACK}:{pair.primary}/postgres") as engine:
        await wait_for_a_standby(engine)
        await execute(engine, WRITE)
        await check_database(engine)
        pair.standby_process.send_signal(signal.SIGQUIT)
        await wait_until_async(lambda: writes_wait(engine))
        with pytest.raises(Unavailable, match="wait for the synchronous standby"):
            await check_database(engine)
        await wait_for_a_standby(engine, names="")
        await check_database(engine)


async def test_a_primary_whose_synchronous_standby_hangs_is_not_ready_while_a_write_waits(pair: Pair) -> None:
    async with opened(f"postgresql://postgres@{LOOPBACK}:{pair.primary}/postgres") as owner:
        await execute(owner, text(f"CREATE ROLE service LOGIN PASSWORD '{PASSWORD}'"))
        await execute(owner, text("GRANT CREATE ON SCHEMA public TO service"))
        await wait_for_a_standby(owner)
    # As the services, this login has no right to look at other sessions.
    async with opened(f"postgresql://service@{LOOPBACK}:{pair.primary}/postgres") as engine:
        hanging = [pair.standby_process, *pair.standby_process.children(recursive=True)]
        with frozen(hanging):
            writing = asyncio.create_task(execute(engine, WRITE))
            await wait_until_async(lambda: writes_wait(engine))
            with pytest.raises(Unavailable, match="wait for the synchronous standby"):
                await check_database(engine)
        await writing
        await check_database(engine)
