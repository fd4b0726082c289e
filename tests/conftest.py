"""The stack that the tests use: their own, or for the acceptance tests the deployment at BASE_URL."""

import os
import time
from collections import Counter
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from hypothesis import HealthCheck, settings

from common.imports import without_collector
from deploy.client import Client
from deploy.local.stack import Stack
from tests import documented_responses

# Hypothesis sets no time limits and writes no files.
settings.register_profile(
    "unhurried", deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("unhurried")


def pytest_configure(config: pytest.Config) -> None:
    # Only the main process of a run forgets; the workers of pytest-xdist have a `workerinput`.
    if not hasattr(config, "workerinput"):
        documented_responses.forget()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuses tests with the same id: of these, pytest-xdist would run the first and drop the others."""
    ids = Counter(item.nodeid for item in items)
    if twice := [nodeid for nodeid, count in ids.items() if count > 1]:
        raise pytest.UsageError(f"several tests have the same id: {', '.join(twice)}")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Collects without Python's collector of garbage, which would take a sixth of the time and find none."""
    with without_collector():
        return (yield)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Chooses one process per core. A single test file runs in pytest's own process."""
    paths = {Path(argument.partition("::")[0]) for argument in config.args}
    count = sum(len(list(path.rglob("test_*.py"))) if path.is_dir() else 1 for path in paths)
    return min(psutil.cpu_count() or 1, count) if count > 1 else 0


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """A whole stack on free ports, whose data is deleted after the session."""
    # The libraries of the set-up take seconds to load, and most unit tests need none of them.
    from tests.stacks import temporary_stack  # noqa: PLC0415 (see above)

    with temporary_stack(say=print) as stack:
        yield stack


@pytest.fixture(scope="session")
def base_url(request: pytest.FixtureRequest) -> str:
    """The URL of the gateway under test."""
    return os.environ.get("BASE_URL") or request.getfixturevalue("stack").base_url


@pytest.fixture(scope="session", autouse=True)
def patient_sign_ups() -> Iterator[None]:
    """Lets sign-ups wait while the deployment at BASE_URL takes no more: its default is ten a second, and the
    tests make more on a fast machine.
    """
    send = httpx.Client.send

    def send_patiently(http: httpx.Client, request: httpx.Request, **options: Any) -> httpx.Response:
        while True:
            response = send(http, request, **options)
            is_sign_up = (request.method, request.url.path) == ("POST", "/users")
            if not is_sign_up or response.status_code != HTTPStatus.TOO_MANY_REQUESTS:
                return response
            response.close()
            time.sleep(int(response.headers["Retry-After"]))

    with pytest.MonkeyPatch.context() as patch:
        if os.environ.get("BASE_URL"):
            patch.setattr(httpx.Client, "send", send_patiently)
        yield


@pytest.fixture
def client(base_url: str) -> Iterator[Client]:
    """A client with its own connections."""
    with Client(base_url) as client:
        yield client


@pytest.fixture
def user(client: Client) -> dict[str, Any]:
    """A new user: id, name, token, created_at."""
    return client.create_user("Test")
