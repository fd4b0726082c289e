"""A direct connection is never taken for a pooler, however PostgreSQL is. `tests/drills` has real poolers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from common.db import check_database, make_engine
from common.poolers import Pooler, find_pooler, refuse_pooler, refuse_wrong_pooler
from common.servers import Servers
from common.settings import SettingsError
from deploy.local.stack import Stack
from tests.integration.frozen_processes import frozen_process


@pytest.fixture
def servers(stack: Stack) -> Servers:
    environment = stack.environment("users")
    return Servers(environment["DATABASE_URL"], environment["DATABASE_PASSWORD"])


@asynccontextmanager
async def all_connections_taken(servers: Servers) -> AsyncIterator[None]:
    taken: list[asyncpg.Connection] = []
    try:
        while True:
            taken.append(await servers.connect())
    except asyncpg.TooManyConnectionsError:
        yield
    finally:
        for connection in taken:
            await connection.close()


async def test_a_direct_connection_has_no_pooler(servers: Servers) -> None:
    assert await find_pooler(servers) == Pooler(
        shares_sessions=False, mixes_statements=False, refuses_transactions=False
    )
    assert await refuse_wrong_pooler(servers)
    await refuse_pooler(servers, "the test")


async def test_nobody_is_refused_while_postgresql_takes_no_connection(servers: Servers) -> None:
    async with all_connections_taken(servers):
        assert not await refuse_wrong_pooler(servers)
        await refuse_pooler(servers, "the test")


async def test_nobody_is_refused_while_postgresql_hangs(stack: Stack, servers: Servers) -> None:
    with frozen_process(stack, "postgres"):
        assert not await refuse_wrong_pooler(servers, timeout_seconds=1)
    assert await refuse_wrong_pooler(servers)


async def test_nobody_is_refused_while_postgresql_is_away() -> None:
    assert not await refuse_wrong_pooler(Servers("postgresql://ann@127.0.0.1:1/waxwing"))


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("connect_timeout=3", "connect_timeout"),
        ("statement_timeout=soon", "statement_timeout"),
        ("sslmode=wrong", "sslmode"),
        ("target_session_attrs=master", "target_session_attrs"),
    ],
)
async def test_a_wrong_option_of_the_url_is_refused(stack: Stack, option: str, says: str) -> None:
    environment = stack.environment("users")
    servers = Servers(f"{environment['DATABASE_URL']}?{option}", environment["DATABASE_PASSWORD"])
    with pytest.raises(SettingsError, match=f"^DATABASE_URL has an option that is refused: .*{says}"):
        await refuse_wrong_pooler(servers)
    with pytest.raises(SettingsError, match=f"^DATABASE_URL has an option that is refused: .*{says}"):
        await refuse_pooler(servers, "the test")


async def test_the_first_check_of_the_database_that_can_tell_decides(stack: Stack) -> None:
    environment = stack.environment("users")
    engine = make_engine(environment["DATABASE_URL"], environment["DATABASE_PASSWORD"])
    try:
        servers: Servers = engine.get_execution_options()["servers"]
        assert not servers.has_right_pooler
        await check_database(engine)
        assert servers.has_right_pooler
    finally:
        await engine.dispose()
