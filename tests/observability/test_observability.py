"""Prometheus itself tests the alerts and runs the dashboard's queries on a stack. It must be installed."""

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from deploy.client import Client
from deploy.local import prometheus
from deploy.local.ports import LOOPBACK, Ports, free_ports
from deploy.local.stack import Stack, StackError
from tests.integration.instances import is_ready
from tests.integration.waiting import wait_until
from tests.upload_requests import TINY_WAV, WAV_TYPE, bearer
from tests.wavs import Wav, music

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "observability"
ALERTS = [
    rule for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]
ALERTS_TEST = Path(__file__).with_name("alerts_test.yml")
QUERIES = [
    pytest.param(target["expr"], id=f"{panel['title']}: {target['legendFormat']}")
    for panel in json.loads((FOLDER / "dashboard.json").read_text())["panels"]
    for target in panel.get("targets", [])
]


def promtool(*arguments: str, text: str | None = None) -> str:
    done = subprocess.run(
        ["promtool", *arguments],  # noqa: S607 (Debian's promtool)
        input=text,
        capture_output=True,
        text=True,
        cwd=FOLDER,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_each_alert_fires_in_its_case_and_is_silent_otherwise() -> None:
    promtool("test", "rules", str(ALERTS_TEST))
    tested = [each["name"] for each in yaml.safe_load(ALERTS_TEST.read_text())["tests"]]
    expected = [f"{rule['alert']} {what}" for rule in ALERTS for what in ("fires", "is silent")]
    assert tested == expected


def test_the_rules_and_the_configuration_are_valid() -> None:
    promtool("check", "config", "--lint-fatal", "prometheus.yml")


@pytest.mark.parametrize("rule", ALERTS, ids=[rule["alert"] for rule in ALERTS])
def test_each_alert_leads_to_a_paragraph_for_the_operator(rule: dict[str, Any]) -> None:
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    headings = re.findall(r"^### (\w+)$", (ROOT / page).read_text(), re.MULTILINE)
    assert rule["alert"] in headings
    assert anchor == rule["alert"].lower()


@contextmanager
def run_prometheus(stack: Stack, folder: Path) -> Iterator[httpx.Client]:
    """Runs a Prometheus that reads a stack's services each second."""
    (port,) = free_ports(1)
    prometheus.configure(folder, stack.ports, seconds=1)
    process = subprocess.Popen(prometheus.command("prometheus", folder, port))
    try:
        with httpx.Client(base_url=f"http://{LOOPBACK}:{port}") as client:
            wait_until(lambda: is_ready(port, "/-/ready"))
            yield client
    finally:
        process.terminate()
        process.wait()


def use_everything(stack: Stack) -> None:
    """Makes a user, uploads, downloads, a problem and a tombstone."""
    with Client(stack.base_url) as client:
        user = client.create_user("Observed")
        record = client.upload_stream([Wav().build(music(20))], user["token"])
        client.download(record["url"])
        client.http.post("/records", content=b"no WAV", headers={**bearer(user), **WAV_TYPE})
        small = client.upload_stream([TINY_WAV], user["token"])
        client.http.delete(f"/records/{small['id']}", headers=bearer(user)).raise_for_status()


@pytest.fixture(scope="module")
def observer(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A Prometheus that has seen a stack before, during and after a short use."""
    use_everything(stack)
    with run_prometheus(stack, tmp_path_factory.mktemp("prometheus")) as client:
        uploads = 'count_over_time(waxwing_uploads_total{outcome="stored"}[1m])'
        wait_until(lambda: query(client, uploads))
        use_everything(stack)
        wait_until(lambda: query(client, 'increase(waxwing_uploads_total{outcome="stored"}[1m]) > 1'))
        yield client


def query(client: httpx.Client, expression: str) -> list[dict[str, Any]]:
    response = client.get("/api/v1/query", params={"query": expression})
    assert response.status_code == 200, response.text
    return list(response.json()["data"]["result"])


@pytest.mark.parametrize("expression", QUERIES)
def test_each_query_of_the_dashboard_returns_data(observer: httpx.Client, expression: str) -> None:
    found = query(observer, expression.replace("$__rate_interval", "1m"))
    # A histogram without observations gives NaN.
    assert any(sample["value"][1] != "NaN" for sample in found)


@pytest.mark.parametrize("service", ["users", "records"])
def test_the_metrics_are_clean(stack: Stack, observer: httpx.Client, service: str) -> None:
    text = httpx.get(f"http://{LOOPBACK}:{getattr(stack.ports, service)}/metrics").text
    assert promtool("check", "metrics", text=text) == ""
    up = query(observer, f'up{{job="{service}"}}')
    assert [sample["value"][1] for sample in up] == ["1"]


def test_the_local_stack_runs_one(tmp_path: Path) -> None:
    stack = Stack(tmp_path / "stack", Ports.free())
    stack.start(background=True, with_prometheus=True)
    try:
        table, problem = stack.describe_processes()
        assert re.search(r"^prometheus +\d+ +running ", table, re.MULTILINE)
        assert problem is None
        with httpx.Client(base_url=f"http://{LOOPBACK}:{stack.ports.prometheus}") as client:
            (group,) = client.get("/api/v1/rules").json()["data"]["groups"]
            assert [rule["name"] for rule in group["rules"]] == [rule["alert"] for rule in ALERTS]
            wait_until(lambda: len(query(client, "up == 1")) == 3)
            (free,) = query(client, "minio_cluster_capacity_usable_free_bytes")
            assert free["metric"]["job"] == "minio"
    finally:
        stack.stop()
    assert not stack.has_processes()


def test_without_the_program_the_local_stack_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StackError, match="apt-get install prometheus"):
        Stack(tmp_path / "stack").start(with_prometheus=True)


def test_a_running_stack_says_that_it_runs_without(stack: Stack) -> None:
    with pytest.raises(StackError, match="runs without Prometheus"):
        stack.start(background=True, with_prometheus=True)
