"""With a collector each request is one trace: through the gateway, the service, its SQL and the store."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from uuid import uuid4

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from deploy.client import Client
from deploy.local.ports import LOOPBACK, free_ports
from deploy.local.stack import Stack
from tests.integration.instances import Instance
from tests.integration.new_log_lines import NewLogLines
from tests.integration.waiting import wait_until
from tests.stacks import temporary_stack
from tests.upload_requests import TINY_WAV, WAV_TYPE, bearer


class Collector:
    """Takes spans by OTLP over HTTP, as a collector does."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                request = ExportTraceServiceRequest.FromString(body)
                for of_service in request.resource_spans:
                    for scope in of_service.scope_spans:
                        collector.spans.extend(scope.spans)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        self.server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
        self.url = f"http://{LOOPBACK}:{self.server.server_port}"

    def trace(self, trace_id: str) -> list[Span]:
        return [span for span in self.spans if span.trace_id.hex() == trace_id]

    def wait_for_trace(self, trace_id: str) -> list[Span]:
        """Returns the spans of a trace when its last span, the request's, has come."""

        def find() -> list[Span]:
            spans = self.trace(trace_id)
            return spans if any(span.kind == Span.SPAN_KIND_SERVER for span in spans) else []

        return wait_until(find)


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    collector = Collector()
    Thread(target=collector.server.serve_forever, daemon=True).start()
    yield collector
    collector.server.shutdown()
    collector.server.server_close()


@pytest.fixture(scope="module")
def traced_stack(collector: Collector) -> Iterator[Stack]:
    settings = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "SWEEP_SECONDS": "1",
    }
    with temporary_stack(settings) as stack:
        yield stack


@pytest.fixture
def traced(traced_stack: Stack) -> Iterator[Client]:
    with Client(traced_stack.base_url) as client:
        yield client


def make_traceparent() -> tuple[str, str]:
    """Returns the id of a trace that a client has begun, and its header (W3C Trace Context)."""
    trace_id = uuid4().hex
    return trace_id, f"00-{trace_id}-{uuid4().hex[:16]}-01"


def test_an_upload_is_one_trace_from_the_client_to_the_store(
    traced_stack: Stack, traced: Client, collector: Collector
) -> None:
    user = traced.create_user("Traced")
    lines = NewLogLines(traced_stack, "records")
    trace_id, traceparent = make_traceparent()
    response = traced.http.post(
        "/records", content=TINY_WAV, headers={**bearer(user), **WAV_TYPE, "traceparent": traceparent}
    )
    assert response.status_code == 201
    spans = collector.wait_for_trace(trace_id)
    (server,) = [span for span in spans if span.kind == Span.SPAN_KIND_SERVER]
    assert (server.name, server.parent_span_id.hex()) == ("POST /records", traceparent.split("-")[2])
    calls = [span for span in spans if span is not server]
    assert {span.parent_span_id for span in calls} == {server.span_id}
    assert {span.name for span in calls} >= {"INSERT", "UPDATE", "PUT"}
    wait_until(lambda: [line for line in lines.requests("/records") if line["trace_id"] == trace_id])


def test_without_a_traceparent_each_request_begins_a_trace(
    traced_stack: Stack, traced: Client, collector: Collector
) -> None:
    lines = NewLogLines(traced_stack, "users")
    responses = [traced.http.post("/users", json={"name": "Traced"}) for _ in range(2)]
    first, second = map(lines.line_of, responses)
    assert first["trace_id"] != second["trace_id"]
    for line in (first, second):
        names = {span.name for span in collector.wait_for_trace(line["trace_id"])}
        assert names == {"POST /users", "INSERT"}


def test_no_span_has_an_id_or_a_token(traced: Client, collector: Collector) -> None:
    user = traced.create_user("Traced")
    record = traced.upload_stream([TINY_WAV], user["token"])
    trace_id, traceparent = make_traceparent()
    with_trace = {"traceparent": traceparent}
    assert traced.http.get(record["url"], headers=with_trace).status_code == 200
    names = [span.name for span in collector.wait_for_trace(trace_id)]
    # The check of a link, on a connection past SQLAlchemy.
    assert sorted(names) == ["GET /record", "ROW"]
    trace_id, traceparent = make_traceparent()
    path = f"/records/{record['id']}"
    headers = {**bearer(user), "traceparent": traceparent}
    assert traced.http.delete(path, headers=headers).status_code == 204
    assert "DELETE /records/*" in [span.name for span in collector.wait_for_trace(trace_id)]
    shown = "".join(map(str, collector.spans))
    for secret in (user["token"], record["id"], user["id"], record["url"].rpartition("?")[2]):
        assert secret not in shown


def test_only_requests_begin_traces(traced_stack: Stack, traced: Client, collector: Collector) -> None:
    # The sweeper removes the object of a deleted record meanwhile.
    user = traced.create_user("Traced")
    record = traced.upload_stream([TINY_WAV], user["token"])
    assert traced.http.delete(f"/records/{record['id']}", headers=bearer(user)).status_code == 204
    lines = NewLogLines(traced_stack, "records")
    for service in ("users", "records"):
        assert traced.http.get(f"/readyz/{service}").status_code == 200
    trace_id, traceparent = make_traceparent()
    traced.http.get("/records", headers={**bearer(user), "traceparent": traceparent})
    collector.wait_for_trace(trace_id)
    wait_until(lambda: lines.requests("/records"))
    begun = [span for span in collector.spans if not span.parent_span_id]
    assert {span.kind for span in begun} == {Span.SPAN_KIND_SERVER}
    assert not [span for span in collector.spans if span.name.endswith(("/readyz", "/metrics", "/healthz"))]


def test_a_collector_that_is_away_keeps_no_service_from_stopping(traced_stack: Stack) -> None:
    (away,) = free_ports(1)
    instance = Instance(traced_stack, "users", {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{LOOPBACK}:{away}"})
    instance.start()
    with Client(f"http://{LOOPBACK}:{instance.port}") as client:
        user: dict[str, Any] = client.create_user("Traced")
    assert user["id"]
    instance.stop()
