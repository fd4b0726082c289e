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
    """A stack that starts with half the work of a user's, whose start `test_local_stack.py` tests.

    Its folder is a copy of `make_set_up_folder`. Nothing is set up, so the records service need not wait.
    """

    def _start_processes(self, say: Callable[[str], None]) -> None:
        # Only a stack without an object store of its own has `minio`.
        for name in self.process_names:
            if not name.startswith("records"):
                self.supervisor.start_process(name)
        # The sweeper works from the first moment.
        self._wait_until_ready("postgres")
        for name in self.process_names:
            self.supervisor.start_process(name)
        for name in self.process_names:
            self._wait_until_ready(name)


class _SetUpStack(Stack):
    """PostgreSQL and MinIO with schema, login roles, bucket and bucket key.

    The set-up runs in this process, which has loaded its libraries already.
    """

    def _start_processes(self, say: Callable[[str], None]) -> None:
        self.supervisor.start_process("minio")
        postgres.create_cluster(self._folder / "postgres", self.secrets["postgres"])
        self.start_process("postgres")
        postgres.create_database(self.ports.postgres, self.secrets["postgres"])
        self._wait_until_ready("minio")
        settings = load(SetupSettings, self.environment("setup"))
        # In a thread, because an event loop may run in this one.
        with ThreadPoolExecutor() as thread:
            thread.submit(asyncio.run, set_up(settings)).result()


@cache
def make_set_up_folder() -> Path:
    """Makes a stack's folder with its passwords and what the set-up creates, once per process."""
    folder = Path(tempfile.mkdtemp(prefix="waxwing-test-"))
    atexit.register(shutil.rmtree, folder)
    stack = _SetUpStack(folder / "made", Ports.free())
    stack.start(background=True)
    stack.stop()
    kept = folder / "stack"
    kept.mkdir(mode=0o700)
    for name in ("secrets.json", "postgres", "minio"):
        (folder / "made" / name).rename(kept / name)
    return kept


@contextmanager
def temporary_stack(
    settings: Mapping[str, str] | None = None, say: Callable[[str], None] = lambda _: None
) -> Iterator[Stack]:
    """Starts a stack. If a test stops one process, the other processes go on.

    Without `settings` for them, no address reaches the limits of requests a minute.
    """
    with tempfile.TemporaryDirectory(prefix="waxwing-test-") as folder:
        copy = shutil.copytree(make_set_up_folder(), Path(folder) / "stack")
        stack = QuickStack(copy, Ports.free(), {**_SETTINGS, **(settings or {})})
        stack.start(say, background=True)
        try:
            yield stack
        finally:
            documented_responses.keep(stack)
            stack.stop()
