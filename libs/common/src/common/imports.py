"""How a service starts fast."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collector() -> Iterator[None]:
    """Imports leave no garbage, and looking for it would take an eighth of their time."""
    gc.disable()
    yield
    gc.enable()
