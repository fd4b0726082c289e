"""A real API server takes both overlays without a warning, and refuses variants of them that are wrong."""

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from common.version import VERSION
from tests.kubernetes.api_server import ApiServer
from tests.kubernetes.conftest import place
from tests.kubernetes.manifests import FOLDER, OVERLAYS, Resource, describe, render

VARIANTS = yaml.safe_load(Path(__file__).with_name("wrong_variants.yml").read_text())
TEMPLATES = ("Deployment", "StatefulSet", "Job")


def find(resources: list[Resource], path: str) -> Resource:
    """Returns the resource KIND/NAME."""
    kind, _, name = path.partition("/")
    return next(each for each in resources if (each["kind"], each["metadata"]["name"]) == (kind, name))


def patched(resource: Resource, patch: list[dict[str, Any]]) -> Resource:
    """Returns a copy of the resource with a JSON patch (RFC 6902: add, replace, remove)."""
    changed = copy.deepcopy(resource)
    for step in patch:
        *parents, last = [part.replace("~1", "/") for part in step["path"].split("/")[1:]]
        place: Any = changed
        for parent in parents:
            place = place[int(parent) if isinstance(place, list) else parent]
        if isinstance(place, list):
            place.insert(len(place) if last == "-" else int(last), step["value"])
            continue
        assert step["op"] == "add" or last in place, f"the patch changes nothing at {step['path']}"
        if step["op"] == "remove":
            del place[last]
        else:
            place[last] = step["value"]
    return changed


def make_pod(resource: Resource) -> Resource:
    """Returns the pod that a controller would make of the template."""
    template = resource["spec"]["template"]
    name, namespace = resource["metadata"]["name"], resource["metadata"]["namespace"]
    claims = [each["metadata"]["name"] for each in resource["spec"].get("volumeClaimTemplates", ())]
    volumes = [{"name": each, "persistentVolumeClaim": {"claimName": f"{each}-{name}-0"}} for each in claims]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**template["metadata"], "name": name, "namespace": namespace},
        "spec": {**template["spec"], "volumes": [*template["spec"].get("volumes", ()), *volumes]},
    }


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_api_server_takes_an_overlay_twice_without_a_warning(
    api_server: ApiServer, applied: dict[str, list[Resource]], overlay: str
) -> None:
    again = api_server.apply(applied[overlay])
    assert (again.returncode, again.stderr) == (0, "")
    assert len(again.stdout.splitlines()) == len(applied[overlay])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pod_security_takes_every_pod(
    api_server: ApiServer, applied: dict[str, list[Resource]], overlay: str
) -> None:
    pods = [make_pod(each) for each in applied[overlay] if each["kind"] in TEMPLATES]
    assert len(pods) >= 4
    done = api_server.apply(pods, "--dry-run=server")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant["name"])
def test_the_api_server_refuses_a_wrong_variant_and_says_why(
    api_server: ApiServer, applied: dict[str, list[Resource]], variant: dict[str, Any]
) -> None:
    resource = find(applied[variant["overlay"]], variant["resource"])
    wrong = patched(resource, variant["patch"])
    done = api_server.apply([make_pod(wrong) if variant.get("as") == "pod" else wrong], "--dry-run=server")
    assert done.returncode != 0, done.stdout
    assert variant["words"] in done.stderr


def test_an_upgrade_changes_one_line_and_adds_a_set_up_job(
    api_server: ApiServer, applied: dict[str, list[Resource]], programs: tuple[Path, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(FOLDER, tmp_path / "kubernetes")
    release = folder / "release" / "release.yaml"
    release.write_text(release.read_text().replace(f'"{VERSION}"', '"0.2.10"'))
    upgraded = [place(each, "laptop") for each in render(programs[1], folder / "laptop")]

    first = api_server.kubectl(
        *("apply", "--server-side", "--dry-run=server", "--validate=strict", "--warnings-as-errors"),
        *("-l", "app.kubernetes.io/component in (settings, set-up)", "-f", "-"),
        text=yaml.safe_dump_all(upgraded),
    )
    assert first.returncode == 0, first.stderr
    assert "job.batch/set-up-0-2-10 serverside-applied (server dry run)" in first.stdout
    assert "deployment" not in first.stdout

    everything = api_server.apply(upgraded, "--dry-run=server")
    assert everything.returncode == 0, everything.stderr
    images = [
        container["image"]
        for each in upgraded
        if each["kind"] in TEMPLATES
        for container in each["spec"]["template"]["spec"]["containers"]
    ]
    assert sorted(image for image in images if image.startswith("waxwing/")) == [
        f"waxwing/{name}:0.2.10" for name in ("gateway", "records", "set-up", "users")
    ]


def test_a_changed_setting_restarts_the_services_and_leaves_the_job(
    api_server: ApiServer, applied: dict[str, list[Resource]], programs: tuple[Path, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(FOLDER, tmp_path / "kubernetes")
    with (folder / "laptop" / "settings.env").open("a") as settings:
        settings.write("MAX_UPLOADS=16\n")
    changed = [place(each, "laptop") for each in render(programs[1], folder / "laptop")]
    done = api_server.apply(changed, "--dry-run=server")
    assert done.returncode == 0, done.stderr
    different = {describe(each) for each in changed if each not in applied["laptop"]}
    assert {kind for kind in different if not kind.startswith("ConfigMap settings-")} == {
        "ConfigMap set-up",
        "Deployment gateway",
        "Deployment records",
        "Deployment users",
    }
