"""Whole stacks (PostgreSQL, MinIO, both services, nginx) on free ports, whose data is deleted afterwards."""

import asyncio
import atexit
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from common.settings import load
from deploy.local import postgres
from deploy.local.ports import Ports
from deploy.local.stack import Stack
from deploy.setup import SetupSettings, set_up
from tests import documented_responses

# A fast machine signs up more users from one address, and tries more wrong credentials, than an address may
# by default in a minute.
_SETTINGS = {"SIGN_UPS_PER_MINUTE": "1000000", "FAILURES_PER_MINUTE": "1000000"}


class QuickStack(Stack):
    """A stack that starts with a third less work than a user's, whose start `test_local_stack.py` tests.

    The set-up runs in this process, which has loaded its libraries already. The folder can be a copy of
    `make_empty_folder`, so that PostgreSQL's data folder exists.
    """

    def _set_up(self) -> None:
        settings = load(SetupSettings, self.environment("setup"))
        # In a thread, because an event loop may run in this one.
        with ThreadPoolExecutor() as thread:
            thread.submit(asyncio.run, set_up(settings)).result()


@cache
def make_empty_folder() -> Path:
    """Makes a stack's folder with its passwords and PostgreSQL's empty data folder, once per process."""
    folder = Path(tempfile.mkdtemp(prefix="waxwing-test-"))
    atexit.register(shutil.rmtree, folder)
    postgres.create_cluster(folder / "postgres", Stack(folder).secrets["postgres"])
    return folder


@contextmanager
def temporary_stack(
    settings: Mapping[str, str] | None = None, say: Callable[[str], None] = lambda _: None
) -> Iterator[Stack]:
    """Starts a stack. If a test stops one process, the other processes go on.

    Without `settings` for them, no address reaches the limits of requests a minute.
    """
    with tempfile.TemporaryDirectory(prefix="waxwing-test-") as folder:
        copy = shutil.copytree(make_empty_folder(), Path(folder) / "stack")
        stack = QuickStack(copy, Ports.free(), {**_SETTINGS, **(settings or {})})
        stack.start(say, background=True)
        try:
            yield stack
        finally:
            documented_responses.keep(stack)
            stack.stop()
