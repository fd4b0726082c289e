"""The services are upgraded and downgraded in turn under load, and only uploads notice it."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from common.db import make_engine
from common.migrate import known_revisions, make_alembic_config
from common.settings import load as load_settings
from common.tables import Record
from deploy.client import Client
from deploy.local.ports import LOOPBACK
from deploy.local.stack import Stack
from deploy.setup import SetupSettings, set_up
from records.sql import find_wrong_sums
from tests.integration.gateway_configuration import changed_gateway
from tests.integration.instances import Instance, is_ready
from tests.integration.steady_load import SteadyLoad
from tests.integration.waiting import wait_until
from tests.stacks import temporary_stack
from tests.upload_requests import TINY_WAV, WAV_TYPE, bearer

SERVICES = ("users", "records")
# `./just keep-release` writes it: the services of the release before the newest migrations.
PREVIOUS_RELEASE = Path(__file__).with_name("previous_release.zip")


def start_own(stack: Stack) -> None:
    """Starts the stack's own services at once."""
    for service in SERVICES:
        stack.supervisor.start_process(service)
    for service in SERVICES:
        wait_until(partial(is_ready, getattr(stack.ports, service)))


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with temporary_stack() as stack:
        yield stack


@contextmanager
def sharing(stack: Stack, instances: dict[str, Instance]) -> Iterator[None]:
    """Starts instances that share the work with the stack's own."""

    def add_instances(conf: str) -> str:
        for service, instance in instances.items():
            own = rf"server {LOOPBACK}:{getattr(stack.ports, service)}(.*;)"
            conf, count = re.subn(own, rf"\g<0> server {LOOPBACK}:{instance.port}\1", conf)
            assert count == 2
        return conf

    with ExitStack() as closer:
        for instance in instances.values():
            instance.start()
            closer.callback(instance.stop)
        closer.enter_context(changed_gateway(stack, add_instances))
        yield


async def test_no_request_fails_during_an_upgrade_from_the_previous_release_and_back(
    stack: Stack, owner: dict[str, Any], tmp_path: Path
) -> None:
    shutil.unpack_archive(PREVIOUS_RELEASE, tmp_path)
    sources = [
        tmp_path / folder / "src" for folder in ("libs/common", *(f"services/{name}" for name in SERVICES))
    ]
    path = os.pathsep.join(map(str, sources))
    migrations = sources[0] / "common" / "migrations" / "versions"
    revision = max(file.name for file in migrations.glob("*.py")).partition("_")[0]
    # With a schema that has not changed, this test would show nothing.
    assert revision in known_revisions()
    assert revision < max(known_revisions())
    settings = load_settings(SetupSettings, stack.environment("setup"))
    previous = {service: Instance(stack, service, {"PYTHONPATH": path}) for service in SERVICES}
    engine = make_engine(settings.database_url, settings.postgres_password)
    for service in SERVICES:
        stack.stop_process(service)
    await downgrade(engine, revision)
    with sharing(stack, previous):
        load = SteadyLoad(stack, owner)
        with load.running():
            await set_up(settings)
            load.wait()
            load.wait_while_starting(partial(start_own, stack))
            # The records service must not be older than the users service (decision 97).
            for service in ("records", "users"):
                previous[service].stop()
                load.wait()
            with Client(stack.base_url) as client:
                headers = {**bearer(owner), **WAV_TYPE}
                kept = client.http.post("/records?keep_original=true", content=TINY_WAV, headers=headers)
            assert kept.status_code == 201
            record_id = kept.json()["id"]
            load.wait_while_starting(*(instance.start for instance in previous.values()))
            for service in ("users", "records"):
                stack.stop_process(service)
                load.wait()
            # The previous release knows neither originals nor waveforms, but its deletion leaves tombstones.
            with Client(stack.base_url) as client:
                deleted = client.http.delete(f"/records/{record_id}", headers=bearer(owner))
            assert deleted.status_code == 204
            endings = ("mp3", "wav", "waveform")
            assert await find_tombstones(engine, record_id) == [f"{record_id}.{each}" for each in endings]
    start_own(stack)
    load.check()
    assert await is_waveform_in_row(engine, load.record_id)
    assert not await find_wrong_sums(engine, 10)
    await engine.dispose()


async def find_tombstones(engine: AsyncEngine, record_id: str) -> list[str]:
    """Returns the names of the record's objects that the sweeper has still to remove."""
    async with engine.connect() as connection:
        keys = await connection.scalars(
            select(Record.object_key).where(Record.state == "deleting", Record.object_key.contains(record_id))
        )
        return sorted(key.rpartition("/")[2] for key in keys)


async def is_waveform_in_row(engine: AsyncEngine, record_id: str) -> bool:
    """Whether a record was made by the previous release, whose waveforms this one must read."""
    async with engine.connect() as connection:
        return await connection.scalar(select(Record.waveform).where(Record.id == record_id)) is not None


async def downgrade(engine: AsyncEngine, revision: str) -> None:
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="READ COMMITTED")
        await connection.run_sync(lambda sync: command.downgrade(make_alembic_config(sync), revision))
