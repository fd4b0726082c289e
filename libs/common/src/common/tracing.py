"""Optional traces by OpenTelemetry: a span for each request, statement and call to the store.

Only `common.server` imports this module, and only if OTEL_EXPORTER_OTLP_ENDPOINT is set. OpenTelemetry reads
that variable, and all others that begin with OTEL_, itself.
"""

import asyncio
import time
from typing import Any

import structlog
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import SpanKind, StatusCode
from yarl import URL

from common.logs import QUIET_PATHS, hide_ids
from common.metrics import STATEMENT_WATCHERS

NANOSECONDS = 1_000_000_000


class _OnlyRequests(Sampler):  # type: ignore[misc]
    """Lets only requests begin a trace. So the sweeper's statements, and the checks of /readyz, make none."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler

    def should_sample(
        self, parent_context: Any, trace_id: int, name: str, kind: Any = None, *others: Any, **named: Any
    ) -> Any:
        has_parent = trace.get_current_span(parent_context).get_span_context().is_valid
        if kind != SpanKind.SERVER and not has_parent:
            return SamplingResult(Decision.DROP)
        return self._sampler.should_sample(parent_context, trace_id, name, kind, *others, **named)

    def get_description(self) -> str:
        return f"OnlyRequests({self._sampler.get_description()})"


class Tracing:
    """ASGI middleware: gives each request a span, which continues the trace of its `traceparent`.

    OpenTelemetry sees neither the query of a request nor the ids in its path: the ids in a link let anyone
    listen. The log lines of the request have the trace's id.
    """

    def __init__(self, app: ASGIApp, service: str, version: str) -> None:
        self._app = app
        resource = Resource.create({"service.name": f"waxwing-{service}", "service.version": version})
        self._provider = TracerProvider(resource=resource)
        # The SDK has chosen this one by OTEL_TRACES_SAMPLER.
        self._provider.sampler = _OnlyRequests(self._provider.sampler)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer(__name__)
        self._middleware: Any = OpenTelemetryMiddleware(
            self._serve,
            default_span_details=_name_span,
            tracer_provider=self._provider,
            exclude_spans=["receive", "send"],
        )
        AioHttpClientInstrumentor().instrument(tracer_provider=self._provider, url_filter=_hide_ids_in_url)
        STATEMENT_WATCHERS.append(self._trace_statement)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request. At the end of the service, sends the spans that still wait."""

        async def send_spans_first(message: Any) -> None:
            if message["type"] == "lifespan.shutdown.complete":
                await asyncio.to_thread(self._provider.shutdown)
            await send(message)

        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send_spans_first)
        elif scope["path"] in QUIET_PATHS:
            await self._app(scope, receive, send)
        else:
            path = hide_ids(scope["path"])
            shown = {"path": path, "raw_path": path.encode(), "query_string": b""}
            await self._middleware({**scope, **shown, "whole_scope": scope}, receive, send)

    async def _serve(self, scope: Any, receive: Receive, send: Send) -> None:
        trace_id = trace.get_current_span().get_span_context().trace_id
        structlog.contextvars.bind_contextvars(trace_id=trace.format_trace_id(trace_id))
        await self._app(scope["whole_scope"], receive, send)

    def _trace_statement(self, kind: str, sql: str, seconds: float, error: BaseException | None) -> None:
        """Makes the span of a statement that has just ended."""
        end = time.time_ns()
        span = self._tracer.start_span(
            kind.upper(),
            kind=SpanKind.CLIENT,
            start_time=end - int(seconds * NANOSECONDS),
            attributes={"db.system.name": "postgresql", "db.query.text": sql},
        )
        if error:
            span.set_status(StatusCode.ERROR, type(error).__name__)
        span.end(end)


def _name_span(scope: Any) -> tuple[str, dict[str, Any]]:
    return f"{scope['method']} {scope['path']}", {}


def _hide_ids_in_url(url: URL) -> str:
    return hide_ids(str(url.with_query(None)))
