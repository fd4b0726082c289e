"""Whole stacks (PostgreSQL, MinIO, both services, nginx) on free ports, whose data is deleted afterwards."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from deploy.local.ports import Ports
from deploy.local.stack import Stack
from tests import documented_responses


@contextmanager
def temporary_stack(
    settings: Mapping[str, str] | None = None, say: Callable[[str], None] = lambda _: None
) -> Iterator[Stack]:
    """Starts a stack. If a test stops one process, the other processes go on."""
    with tempfile.TemporaryDirectory(prefix="waxwing-test-") as folder:
        stack = Stack(Path(folder) / "stack", Ports.free(), settings)
        stack.start(say, background=True)
        try:
            yield stack
        finally:
            documented_responses.keep(stack)
            stack.stop()
