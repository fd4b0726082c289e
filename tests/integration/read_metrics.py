"""Reads what an instance says to Prometheus."""

import httpx
from prometheus_client.parser import text_string_to_metric_families

from deploy.local.ports import LOOPBACK
from deploy.local.stack import Stack

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def read_metrics(stack: Stack, service: str) -> Samples:
    """Reads the samples of a service's own port: their names and labels, with their values."""
    port = getattr(stack.ports, service)
    response = httpx.get(f"http://{LOOPBACK}:{port}/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def value_of(samples: Samples, name: str, **labels: str) -> float:
    return samples.get((name, tuple(sorted(labels.items()))), 0.0)
