"""The stack that the tests run against: their own, or for the acceptance tests any that BASE_URL names."""

import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from deploy.client import Client
from deploy.local.stack import Stack
from tests import documented_responses
from tests.stacks import temporary_stack

# No clocks, and nothing is left on the disk.
settings.register_profile(
    "unhurried", deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("unhurried")


def pytest_configure(config: pytest.Config) -> None:
    # Not in the processes that share the tests of one run among them.
    if not hasattr(config, "workerinput"):
        documented_responses.forget()


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """A whole stack of real parts on free ports, with data that is deleted afterwards."""
    with temporary_stack(say=print) as stack:
        yield stack


@pytest.fixture(scope="session")
def base_url(request: pytest.FixtureRequest) -> str:
    """Where the gateway under test answers."""
    return os.environ.get("BASE_URL") or request.getfixturevalue("stack").base_url


@pytest.fixture
def client(base_url: str) -> Iterator[Client]:
    """A client with connections of its own."""
    with Client(base_url) as client:
        yield client


@pytest.fixture
def user(client: Client) -> dict[str, Any]:
    """A fresh user: id, name, token, created_at."""
    return client.create_user("Test")
