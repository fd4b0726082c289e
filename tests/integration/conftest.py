"""What the integration tests share."""

from collections.abc import AsyncIterator

import pytest_asyncio

from deploy.local.stack import Stack
from tests.integration.isolated import Isolated, open_inside, open_isolated


@pytest_asyncio.fixture(scope="session")
async def isolated(stack: Stack) -> AsyncIterator[Isolated]:
    """The parts of the records service on a database and a bucket in which no other sweeper works."""
    async with open_isolated(stack, "isolated") as isolated:
        yield isolated


@pytest_asyncio.fixture(scope="session")
async def inside(stack: Stack) -> AsyncIterator[Isolated]:
    """A look into the database and the bucket of the running stack."""
    async with open_inside(stack) as inside:
        yield inside
