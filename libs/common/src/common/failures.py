"""Limits how often one address may send credentials, or ask for records, that do not exist."""

from itertools import count
from typing import Any

from cachetools import TTLCache
from litestar import Request, Response

from common.problems import Problem, TooManyRequests, render_problem
from common.requests import read_client_network

SECONDS = 60
# Bounds the memory. If more addresses fail within a minute, the count of the oldest one starts again at 0.
MAX_ADDRESSES = 10_000


class FailureLimit:
    """Counts the failures of each address in one instance. A request that succeeds is neither counted nor
    refused.
    """

    def __init__(self, failures_per_minute: int) -> None:
        self._limit = failures_per_minute
        self._failures = TTLCache[str, "count[int]"](MAX_ADDRESSES, SECONDS)

    def render_problem(self, request: Request[Any, Any, Any], error: Exception) -> Response[dict[str, Any]]:
        """Makes the response to any exception. A failure over the limit becomes TooManyRequests."""
        if isinstance(error, Problem) and error.may_be_guess:
            failures = self._failures.setdefault(read_client_network(request), count(1))
            if next(failures) > self._limit:
                error = TooManyRequests(self._limit, SECONDS)
        return render_problem(request, error)
