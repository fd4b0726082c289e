"""What no API server checks: the numbers and names of the manifests fit together and fit the programs."""

import copy
import re
from collections.abc import Iterator
from typing import Any

import pytest

from common.settings import load
from common.version import VERSION
from deploy.setup import SetupSettings, refuse_laptop_secrets
from records.memory import needed_bytes
from records.settings import Settings as RecordsSettings
from tests.kubernetes.manifests import FOLDER, OVERLAYS, Resource, find_flaws
from tests.kubernetes.reachable import find_ways, pods_of, ports_of, selects
from users.settings import Settings as UsersSettings

ROOT = FOLDER.parents[1]
MIB = 1024**2
MARGIN_SECONDS = 5
# docs/kubernetes.md asks for so many, of which PostgreSQL keeps three for its owner.
MAX_CONNECTIONS = 200 - 3
SECRETS = {
    "users": {"database-password", "sign-up-key"},
    "records": {"database-password", "s3-access-key", "s3-secret-key"},
    "owner": {"database-password", "minio-root-user", "minio-root-password"},
}

# As in docker-compose.yml, and no further. Records asks other instances for `python -m records status`.
WAYS = {
    *("gateway users:8000", "gateway records:8000"),
    *("records users:8000", "records records:8000", "records gateway:8081"),
}
WAYS_TO_STORES = {
    *("users postgres:5432", "records postgres:5432", "set-up postgres:5432"),
    *("gateway minio:9000", "records minio:9000", "set-up minio:9000"),
}

Overlays = dict[str, list[Resource]]
every_overlay = pytest.mark.parametrize("overlay", OVERLAYS)


def named(resources: list[Resource], kind: str) -> dict[str, Resource]:
    return {each["metadata"]["name"]: each for each in resources if each["kind"] == kind}


def pod_of(resources: list[Resource], name: str) -> dict[str, Any]:
    """Returns the specification of the pods of gateway, users, records or set-up."""
    workloads = named(resources, "Deployment") | named(resources, "Job")
    found = next(each for key, each in workloads.items() if key == name or key.startswith(f"{name}-"))
    spec: dict[str, Any] = found["spec"]["template"]["spec"]
    return spec


def environment_of(resources: list[Resource], name: str) -> dict[str, str]:
    """Returns the variables of a container. The value of a secret is NAME.KEY."""
    (container,) = pod_of(resources, name)["containers"]
    maps = {key: each["data"] for key, each in named(resources, "ConfigMap").items()}
    found: dict[str, str] = {}
    for source in container.get("envFrom", ()):
        found |= maps[source["configMapRef"]["name"]]
    for variable in container.get("env", ()):
        match variable.get("valueFrom"):
            case None:
                value = variable["value"]
            case {"configMapKeyRef": reference}:
                value = maps[reference["name"]][reference["key"]]
            case {"secretKeyRef": reference}:
                value = f"{reference['name']}.{reference['key']}"
            case {"resourceFieldRef": {"resource": field}}:
                kind, _, what = field.partition(".")
                value = container["resources"][kind][what]
                # Kubernetes rounds a part of a core up.
                value = "1" if value.endswith("m") else value
        found[variable["name"]] = value
    return found


def used_secrets(value: Any) -> Iterator[tuple[str, str]]:
    """Yields name and key of each secret that something refers to."""
    if isinstance(value, dict):
        if reference := value.get("secretKeyRef"):
            yield reference["name"], reference["key"]
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from used_secrets(each)


@every_overlay
def test_every_resource_fits_the_schema(overlays: Overlays, overlay: str) -> None:
    assert list(find_flaws(overlays[overlay])) == []


def test_the_schema_refuses_an_unknown_field(overlays: Overlays) -> None:
    wrong = copy.deepcopy(named(overlays["laptop"], "Deployment")["records"])
    wrong["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    (flaw,) = find_flaws([wrong])
    assert flaw.startswith("Deployment records: spec.template.spec.containers.0: ")
    assert "livenesProbe" in flaw


@every_overlay
def test_users_records_and_set_up_take_their_settings(overlays: Overlays, overlay: str) -> None:
    resources = overlays[overlay]
    load(UsersSettings, environment_of(resources, "users"))
    load(RecordsSettings, environment_of(resources, "records"))
    refuse_laptop_secrets(load(SetupSettings, environment_of(resources, "set-up")))


@every_overlay
def test_the_gateway_has_every_variable_of_its_template_and_no_other(
    overlays: Overlays, overlay: str
) -> None:
    template = (ROOT / "deploy" / "gateway" / "waxwing.conf.template").read_text()
    given = environment_of(overlays[overlay], "gateway")
    assert {name for name in given if name.startswith("WAXWING_")} == set(
        re.findall(r"\$\{(WAXWING_[A-Z0-9_]+)\}", template)
    )
    assert all(given.values())
    for service in ("users", "records"):
        name = f"{service}.waxwing.svc.cluster.local:8000"
        assert given[f"WAXWING_{service.upper()}_SERVERS"].count(name) == 2
        assert named(overlays[overlay], "Service")[service]["spec"]["clusterIP"] == "None"


@every_overlay
def test_the_gateway_knows_the_store_as_the_service_does(overlays: Overlays, overlay: str) -> None:
    given = environment_of(overlays[overlay], "gateway")
    store = environment_of(overlays[overlay], "records")["S3_ENDPOINT"]
    assert store == f"{given['WAXWING_S3_SCHEME']}://{given['WAXWING_S3_HOST']}"


@every_overlay
@pytest.mark.parametrize("name", ["gateway", "users", "records"])
def test_a_pod_has_time_for_its_pre_stop_and_for_its_requests(
    overlays: Overlays, overlay: str, name: str
) -> None:
    pod = pod_of(overlays[overlay], name)
    seconds = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    shutdown_seconds = int(environment_of(overlays[overlay], name)["SHUTDOWN_SECONDS"])
    assert pod["terminationGracePeriodSeconds"] == seconds + shutdown_seconds + MARGIN_SECONDS


@every_overlay
def test_the_memory_of_records_is_enough_for_all_its_uploads(overlays: Overlays, overlay: str) -> None:
    settings = load(RecordsSettings, environment_of(overlays[overlay], "records"))
    memory = pod_of(overlays[overlay], "records")["containers"][0]["resources"]["limits"]["memory"]
    assert needed_bytes(settings) <= int(memory.removesuffix("Mi")) * MIB


def test_all_instances_together_have_enough_connections_to_postgresql(overlays: Overlays) -> None:
    resources = overlays["production"]
    size = load(UsersSettings, environment_of(resources, "users")).database_pool_size
    users = named(resources, "Deployment")["users"]["spec"]["replicas"]
    records = named(resources, "HorizontalPodAutoscaler")["records"]["spec"]["maxReplicas"]
    # During a roll-out there is one more of each. The set-up has a pool of its own.
    assert (users + 1) * size + (records + 1) * 2 * size + 10 <= MAX_CONNECTIONS


def test_the_autoscaler_alone_chooses_the_number_of_records(overlays: Overlays) -> None:
    assert "replicas" not in named(overlays["production"], "Deployment")["records"]["spec"]


def test_production_refers_to_secrets_and_has_none(overlays: Overlays) -> None:
    resources = overlays["production"]
    assert named(resources, "Secret") == {}
    used: dict[str, set[str]] = {}
    for name, key in used_secrets(resources):
        used.setdefault(name, set()).add(key)
    assert used == SECRETS


def test_the_laptop_has_every_secret_that_it_refers_to(overlays: Overlays) -> None:
    resources = overlays["laptop"]
    secrets = {name: set(each["data"]) for name, each in named(resources, "Secret").items()}
    assert secrets == SECRETS
    assert set(used_secrets(resources)) == {(name, key) for name, keys in SECRETS.items() for key in keys}


@every_overlay
def test_the_images_are_of_this_version(overlays: Overlays, overlay: str) -> None:
    for name in ("gateway", "users", "records", "set-up"):
        assert pod_of(overlays[overlay], name)["containers"][0]["image"].endswith(f"/{name}:{VERSION}")
    assert f"set-up-{VERSION.replace('.', '-')}" in named(overlays[overlay], "Job")


@pytest.mark.parametrize(("overlay", "ways"), [("laptop", WAYS | WAYS_TO_STORES), ("production", WAYS)])
def test_each_pod_reaches_only_what_it_needs(overlays: Overlays, overlay: str, ways: set[str]) -> None:
    assert find_ways(overlays[overlay]) == ways


@every_overlay
def test_each_service_finds_its_pods_and_their_ports(overlays: Overlays, overlay: str) -> None:
    pods = pods_of(overlays[overlay])
    services = named(overlays[overlay], "Service")
    assert {"gateway", "users", "records"} <= services.keys()
    for name, service in services.items():
        selector = {"matchLabels": service["spec"]["selector"]}
        found = [key for key, each in pods.items() if selects(selector, each["metadata"]["labels"])]
        assert found == [name]
        ports = ports_of(pods[name])
        assert {ports[port["targetPort"]] for port in service["spec"]["ports"]} == set(ports.values())
