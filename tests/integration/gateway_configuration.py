"""Changes the configuration of the gateway beyond its settings: constants of nginx, and more instances."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from deploy.local.stack import Stack


@contextmanager
def changed_gateway(stack: Stack, change: Callable[[str], str], file: str = "waxwing.conf") -> Iterator[None]:
    """Restarts the gateway with a changed file of its configuration, and at the end with the original one."""
    path = stack.supervisor.log("gateway").parent.parent / "gateway" / file
    original = path.read_text()

    def restart(text: str) -> None:
        path.write_text(text)
        stack.stop_process("gateway")
        stack.start_process("gateway")

    changed = change(original)
    assert changed != original
    try:
        restart(changed)
        yield
    finally:
        restart(original)
