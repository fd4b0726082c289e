"""Fixtures of the integration tests: requests to a stack, and the records service inside the test process."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from deploy.client import Client
from deploy.local.stack import Stack
from tests.integration.records_service import RecordsService, open_isolated_service, open_stack_service
from tests.integration.silence_encoder import make_encoder


@pytest.fixture
def http(stack: Stack) -> Iterator[httpx.Client]:
    """Sends any request to the gateway."""
    with Client(stack.base_url) as client:
        yield client.http


@pytest.fixture(scope="module")
def owner(stack: Stack) -> dict[str, Any]:
    """The user who owns the records of a file."""
    with Client(stack.base_url) as client:
        return client.create_user("Ann")


@pytest.fixture(scope="module", autouse=True)
def encode_silence_without_lame() -> Iterator[None]:
    """Lets the service in the test process encode the large recordings fast, and as they arrive."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("records.audio.parallel.Encoder", make_encoder)
        # With the usual 5 MiB a large recording would need more than a minute more.
        patch.setattr("records.audio.parallel.WAITING_BYTES_PER_THREAD", 512 * 1024)
        yield


@pytest_asyncio.fixture(scope="session")
async def isolated_service(stack: Stack) -> AsyncIterator[RecordsService]:
    """A records service on its own database and bucket, where no other sweeper works."""
    async with open_isolated_service(stack, "isolated") as service:
        yield service


@pytest_asyncio.fixture(scope="session")
async def stack_service(stack: Stack) -> AsyncIterator[RecordsService]:
    """The database and the bucket that the stack's own services use."""
    async with open_stack_service(stack) as service:
        yield service
