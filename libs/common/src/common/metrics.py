"""The metrics that both services have, and the route at which Prometheus reads all metrics of an instance.

The names follow Prometheus' conventions. Each label has few values: none of them holds an id, an address or
anything else that a client chooses.
"""

import time
from collections.abc import Callable
from functools import cache
from typing import Any

import prometheus_client
import structlog
from litestar import Response, get
from litestar.handlers import HTTPRouteHandler
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Gauge, Histogram, Info
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

log = structlog.get_logger()

# The series that tell when another one began would double their number.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]

METHODS = {"DELETE", "GET", "HEAD", "OPTIONS", "POST"}
# A check of a link takes a millisecond, an upload up to hours.
REQUEST_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
# A statement that took longer leaves a log line, which has the id of its request.
SLOW_STATEMENT_SECONDS = 1.0
CALL_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

BUILD = Info("waxwing_build", "The version of this service.")
REQUESTS = Counter("waxwing_http_requests", "Requests that have ended.", ("method", "route", "status"))
REQUEST_SECONDS = Histogram(
    "waxwing_http_request_duration_seconds",
    "From a request's head to the end of its response.",
    ("method", "route"),
    buckets=REQUEST_BUCKETS,
)
PROBLEMS = Counter("waxwing_problems", "Problems sent to clients, by the name in their `type`.", ("problem",))
STATEMENT_SECONDS = Histogram(
    "waxwing_database_statement_duration_seconds",
    "Statements that PostgreSQL has run. `row` is the fast read that the check of a link uses.",
    ("statement",),
    buckets=CALL_BUCKETS,
)
STATEMENT_ERRORS = Counter(
    "waxwing_database_statement_errors",
    "Statements that have failed. `connect`: connections that could not be opened.",
    ("statement",),
)
CONNECTIONS = Gauge(
    "waxwing_database_connections", "Open connections to PostgreSQL, by use and state.", ("use", "state")
)
WRITES_WAIT_FOR_STANDBY = Gauge(
    "waxwing_database_writes_wait",
    "1 while writes hang because a synchronous standby of PostgreSQL is away or hangs, else 0.",
)
# What else hears of each statement: its kind, its SQL, its seconds, and the error if it has failed.
STATEMENT_WATCHERS: list[Callable[[str, str, float, BaseException | None], None]] = []
# A series that begins with its first error would hide that error: Prometheus needs the 0 before it.
PROBLEMS.labels("internal-error")
for _kind in ("select", "insert", "update", "delete", "row", "connect"):
    STATEMENT_ERRORS.labels(_kind)


def count_request(method: str, route: str | None, status: int, seconds: float) -> None:
    """Counts a request that has ended. `route` is None if nothing is served at its path.

    `status` is 0 if the client left before there was a response.
    """
    count, duration = _request_metrics(method if method in METHODS else "other", route or "unknown", status)
    count.inc()
    duration.observe(seconds)


@cache
def _request_metrics(method: str, route: str, status: int) -> tuple[Counter, Histogram]:
    return REQUESTS.labels(method, route, str(status)), REQUEST_SECONDS.labels(method, route)


def watch_engine(engine: AsyncEngine) -> None:
    """Measures the statements of an engine, and counts the connections of its pool."""
    pool: Any = engine.pool
    CONNECTIONS.labels("pool", "busy").set_function(pool.checkedout)
    CONNECTIONS.labels("pool", "idle").set_function(pool.checkedin)
    event.listen(engine.sync_engine, "before_cursor_execute", _begin_statement)
    event.listen(engine.sync_engine, "after_cursor_execute", _end_statement)
    event.listen(engine.sync_engine, "handle_error", _count_statement_error)


def measure_statement(kind: str, sql: str, seconds: float, error: BaseException | None = None) -> None:
    """Measures a statement that has succeeded, or counts one that has failed."""
    for watch in STATEMENT_WATCHERS:
        watch(kind, sql, seconds, error)
    if error:
        STATEMENT_ERRORS.labels(kind).inc()
        return
    _statement_seconds(kind).observe(seconds)
    if seconds > SLOW_STATEMENT_SECONDS:
        log.warning("slow statement", seconds=round(seconds, 3), sql=sql)


@cache
def _statement_seconds(kind: str) -> Histogram:
    return STATEMENT_SECONDS.labels(kind)


def _begin_statement(_: Any, __: object, ___: object, ____: object, context: Any, _____: object) -> None:
    context.began = time.perf_counter()


def _end_statement(_: Any, __: object, sql: str, ___: object, context: Any, ____: object) -> None:
    measure_statement(_kind_of(context), sql, time.perf_counter() - context.began)


def _count_statement_error(error: Any) -> None:
    now = time.perf_counter()
    # A connection that could not be opened has no statement.
    seconds = now - getattr(error.execution_context, "began", now)
    kind = _kind_of(error.execution_context)
    measure_statement(kind, error.statement or "", seconds, error.original_exception)


def _kind_of(context: Any) -> str:
    for kind in ("insert", "update", "delete"):
        if getattr(context, f"is{kind}", False):
            return kind
    return "select"


def make_metrics_route(version: str) -> HTTPRouteHandler:
    """Returns GET /metrics, which the gateway does not pass on."""
    BUILD.info({"version": version})

    @get("/metrics", sync_to_thread=False, include_in_schema=False)
    def get_metrics() -> Response[bytes]:
        return Response(prometheus_client.generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return get_metrics
