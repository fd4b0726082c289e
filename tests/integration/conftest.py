"""Fixtures of the integration tests: the records service inside the test process."""

from collections.abc import AsyncIterator

import pytest_asyncio

from deploy.local.stack import Stack
from tests.integration.records_service import RecordsService, open_isolated_service, open_running_service


@pytest_asyncio.fixture(scope="session")
async def isolated_service(stack: Stack) -> AsyncIterator[RecordsService]:
    """A records service on its own database and bucket, where no other sweeper works."""
    async with open_isolated_service(stack, "isolated") as service:
        yield service


@pytest_asyncio.fixture(scope="session")
async def running_service(stack: Stack) -> AsyncIterator[RecordsService]:
    """The database and the bucket that the stack's own services use."""
    async with open_running_service(stack) as service:
        yield service
