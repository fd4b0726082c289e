"""What Prometheus reads from each instance: the right numbers, and few series whatever clients send."""

import asyncio
from functools import partial
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from prometheus_client import REGISTRY

from common.version import VERSION
from deploy.client import Client
from deploy.local.ports import LOOPBACK
from deploy.local.stack import Stack
from records.sweeper import run_sweeper
from tests.integration.new_log_lines import NewLogLines
from tests.integration.read_metrics import read_metrics, value_of
from tests.integration.records_service import RecordsService
from tests.integration.waiting import wait_until, wait_until_async
from tests.upload_requests import TINY_WAV, WAV_TYPE, bearer
from tests.wavs import Wav, music


class Changes:
    """By how much the samples of a service have changed since the construction."""

    def __init__(self, stack: Stack, service: str) -> None:
        self._stack, self._service = stack, service
        self._before = read_metrics(stack, service)

    def of(self, name: str, **labels: str) -> float:
        return value_of(read_metrics(self._stack, self._service), name, **labels) - value_of(
            self._before, name, **labels
        )

    def count_new_series(self) -> int:
        return len(read_metrics(self._stack, self._service).keys() - self._before.keys())


def test_an_upload_is_counted_and_logged_with_what_it_waited_for(
    stack: Stack, client: Client, owner: dict[str, Any]
) -> None:
    changes, lines = Changes(stack, "records"), NewLogLines(stack, "records")
    wav = Wav().build(music(3))
    record = client.upload_stream([wav], owner["token"])
    assert changes.of("waxwing_uploads_total", outcome="stored") == 1
    assert changes.of("waxwing_upload_received_bytes_total") == len(wav)
    assert changes.of("waxwing_upload_mp3_bytes_total") == record["size_bytes"]
    assert changes.of("waxwing_upload_audio_seconds_total") == pytest.approx(3)
    assert changes.of("waxwing_upload_completion_seconds_count") == 1
    assert changes.of("waxwing_upload_real_time_ratio_count") == 1
    # The MP3 and the waveform.
    assert changes.of("waxwing_store_call_duration_seconds_count", call="put") == 2
    assert changes.of("waxwing_database_statement_duration_seconds_count", statement="insert") >= 1
    (line,) = wait_until(lambda: [each for each in lines.lines() if each["event"] == "upload"])
    phases = {name.removesuffix("_seconds"): line[name] for name in line if name.endswith("_seconds")}
    assert phases.pop("audio") == pytest.approx(3)
    assert list(phases) == ["waited", "received", "encoded", "stored", "published"]
    request = lines.requests("/records")[-1]
    assert sum(phases.values()) == pytest.approx(request["seconds"], abs=request["seconds"] / 2)
    assert (line["outcome"], line["received_bytes"]) == ("stored", len(wav))
    assert (line["request_id"], line["user_id"]) == (request["request_id"], owner["id"])


@pytest.mark.parametrize(
    ("body", "outcome"), [(b"no WAV", "unsupported-audio"), (TINY_WAV[:44], "broken-audio")]
)
def test_an_upload_that_fails_is_counted_by_its_problem(
    stack: Stack, client: Client, owner: dict[str, Any], body: bytes, outcome: str
) -> None:
    changes = Changes(stack, "records")
    response = client.http.post("/records", content=body, headers={**bearer(owner), **WAV_TYPE})
    assert response.json()["type"] == f"/problems/{outcome}"
    assert changes.of("waxwing_uploads_total", outcome=outcome) == 1
    assert changes.of("waxwing_problems_total", problem=outcome) == 1
    assert changes.of("waxwing_upload_mp3_bytes_total") == 0


def test_requests_are_counted_by_route_whatever_their_path_holds(
    stack: Stack, client: Client, owner: dict[str, Any]
) -> None:
    record = client.upload_stream([TINY_WAV], owner["token"])
    changes = Changes(stack, "records")
    assert client.http.get(record["url"]).status_code == 200
    for _ in range(20):
        client.http.get(f"/record?id={uuid4()}&user={uuid4()}")
        client.http.get(f"/records/{uuid4()}", headers=bearer(owner))
        client.http.request("PROPFIND", f"http://{LOOPBACK}:{stack.ports.records}/{uuid4()}")
    one = {"method": "GET", "route": "/record"}
    assert changes.of("waxwing_http_requests_total", **one, status="404") == 20
    assert changes.of("waxwing_http_requests_total", **one, status="200") == 1
    assert changes.of("waxwing_http_request_duration_seconds_count", **one) == 21
    assert changes.of("waxwing_http_requests_total", method="other", route="unknown", status="404") == 20
    # A histogram has 19 series. Two routes and one counter of problems may be new.
    assert changes.count_new_series() < 100


def test_there_are_fewer_series_than_a_prometheus_notices(stack: Stack) -> None:
    for service in ("users", "records"):
        assert len(read_metrics(stack, service)) < 1500


def test_the_gateway_does_not_show_them(client: Client) -> None:
    for path in (
        "/metrics",
        "/records/metrics",
        "/users/metrics",
        "/stub_status",
        "/minio/v2/metrics/cluster",
    ):
        assert client.http.get(path).status_code == 404


def test_wrong_credentials_and_sign_ups_are_counted(stack: Stack, client: Client) -> None:
    changes = Changes(stack, "users")
    user = client.create_user("Counted")
    assert client.http.get("/users/me", headers=bearer({**user, "token": "A" * 43})).status_code == 401
    assert changes.of("waxwing_http_requests_total", method="POST", route="/users", status="201") == 1
    assert changes.of("waxwing_problems_total", problem="invalid-credentials") == 1


def test_gauges_show_what_an_instance_holds(stack: Stack) -> None:
    samples = read_metrics(stack, "records")
    assert value_of(samples, "waxwing_upload_slots") == 32
    assert value_of(samples, "waxwing_uploads_under_way") == 0
    assert value_of(samples, "waxwing_encoder_threads") >= 1
    assert value_of(samples, "waxwing_build_info", version=VERSION) == 1
    connections = [
        value_of(samples, "waxwing_database_connections", use=use, state=state)
        for use in ("pool", "row")
        for state in ("busy", "idle")
    ]
    assert 1 <= sum(connections) <= 20


def test_the_sweeper_shows_its_tombstones(stack: Stack, client: Client, owner: dict[str, Any]) -> None:
    record = client.upload_stream([TINY_WAV], owner["token"])
    client.http.delete(f"/records/{record['id']}", headers=bearer(owner)).raise_for_status()
    # The sweeper of a service that starts does not wait for its next round.
    stack.stop_process("records")
    stack.start_process("records")
    wait_until(lambda: value_of(read_metrics(stack, "records"), "waxwing_sweeper_rounds_total") > 0)
    samples = read_metrics(stack, "records")
    assert value_of(samples, "waxwing_tombstones") >= 1
    assert value_of(samples, "waxwing_oldest_tombstone_seconds") > 0
    assert value_of(samples, "waxwing_stored_bytes") > 0


async def test_the_sweeper_goes_on_if_it_cannot_measure(
    isolated_service: RecordsService, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_: object) -> None:
        raise ValueError("an unexpected error")

    monkeypatch.setattr("records.sql.measure_tombstones", fail)
    settings = msgspec.structs.replace(isolated_service.settings, sweep_seconds=0)
    rounds = count_rounds()
    sweeper = asyncio.create_task(run_sweeper(isolated_service.engine, isolated_service.store, settings))
    try:
        await wait_until_async(partial(has_swept, sweeper, rounds + 2))
    finally:
        sweeper.cancel()
    assert not sweeper.done()


def count_rounds() -> float:
    return REGISTRY.get_sample_value("waxwing_sweeper_rounds_total") or 0


async def has_swept(sweeper: "asyncio.Task[None]", rounds: float) -> bool:
    assert not sweeper.done()
    return count_rounds() >= rounds
