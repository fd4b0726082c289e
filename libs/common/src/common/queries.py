"""The query of a request."""

from collections.abc import Iterable, Sequence

from common.problems import InvalidRequest


def refuse_others(query: Iterable[tuple[str, str]], allowed: Sequence[str] = ()) -> None:
    """Raises InvalidRequest where a query has other parameters than these, or one of them twice."""
    names = [name for name, _ in query]
    for name in names:
        if name not in allowed or names.count(name) > 1:
            rule = f"allowed, once each: {', '.join(allowed)}" if allowed else "there are no parameters here"
            raise InvalidRequest(f"The query has {name[:100]!r}; {rule}.")
