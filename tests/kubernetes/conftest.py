"""The programs of Kubernetes, and one API server for all tests. Both overlays are applied to it once."""

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kubernetes.api_server import ApiServer, run_api_server
from tests.kubernetes.manifests import FOLDER, OVERLAYS, Resource, render
from tests.kubernetes.programs import find_or_build

NAMESPACE = "waxwing"


@pytest.fixture(scope="session")
def programs() -> tuple[Path, Path]:
    return find_or_build(print)


@pytest.fixture(scope="session")
def overlays(programs: tuple[Path, Path]) -> dict[str, list[Resource]]:
    return {overlay: render(programs[1], FOLDER / overlay) for overlay in OVERLAYS}


@pytest.fixture(scope="session")
def api_server(programs: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with run_api_server(*programs, tmp_path_factory.mktemp("kubernetes")) as server:
        yield server


@pytest.fixture(scope="session")
def applied(api_server: ApiServer, overlays: dict[str, list[Resource]]) -> dict[str, list[Resource]]:
    """The resources of both overlays, each in a namespace of its own, all of them in the API server."""
    placed = {
        overlay: [place(each, overlay) for each in resources] for overlay, resources in overlays.items()
    }
    for overlay, resources in placed.items():
        done = api_server.apply(resources)
        assert done.returncode == 0, f"{overlay}: {done.stderr}"
        # In a cluster a controller makes it. Without it the API server takes no pods.
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
        done = api_server.apply([place(account, overlay)])
        assert done.returncode == 0, done.stderr
    return placed


def place(resource: Resource, overlay: str) -> Resource:
    """Returns a copy in the namespace of its overlay, so that both fit into one API server."""
    placed = copy.deepcopy(resource)
    metadata = placed["metadata"]
    if placed["kind"] == "Namespace":
        metadata["name"] = overlay
    else:
        metadata["namespace"] = overlay
    return placed
