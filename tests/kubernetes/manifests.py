"""Checks the manifests without an API server (`python -m tests.kubernetes.manifests`, part of `just lint`).

kubernetes-validate compares each resource with the schema of Kubernetes. If a kubectl is there, it first
renders both overlays. Without a kubectl the resources are checked as they stand in the files.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

from tests.kubernetes.programs import find_kubectl, read_version

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
OVERLAYS = ("laptop", "production")

Resource = dict[str, Any]


def render(kubectl: Path, folder: Path) -> list[Resource]:
    """Returns the resources of an overlay. Raises CalledProcessError if kustomize refuses it."""
    rendered = subprocess.run(
        [kubectl, "kustomize", folder], check=True, stdout=subprocess.PIPE, text=True, timeout=60
    )
    return list(yaml.safe_load_all(rendered.stdout))


def find_flaws(resources: list[Resource]) -> Iterator[str]:
    """Yields a line for each resource that the schema does not allow."""
    version = read_version().removeprefix("v").rpartition(".")[0]
    for resource in resources:
        try:
            kubernetes_validate.validate(resource, version, strict=True)
        except kubernetes_validate.SchemaNotFoundError as error:
            yield f"{describe(resource)}: {error.message}"
        except kubernetes_validate.ValidationError as error:
            place = ".".join(str(step) for step in error.path)
            yield f"{describe(resource)}: {place}: {error.message}"


def describe(resource: Resource) -> str:
    """Returns kind and name."""
    return f"{resource['kind']} {resource['metadata']['name']}"


def _read_files() -> list[Resource]:
    files = [file for file in sorted(FOLDER.glob("*/*.yaml")) if file.name != "kustomization.yaml"]
    return [resource for file in files for resource in yaml.safe_load_all(file.read_text())]


def main() -> int:
    """Prints what is wrong. Returns the exit status."""
    kubectl = find_kubectl()
    if kubectl:
        checked = {overlay: render(kubectl, FOLDER / overlay) for overlay in OVERLAYS}
    else:
        checked = {"files, because no kubectl renders the overlays": _read_files()}
    flaws = [f"{name}: {flaw}" for name, resources in checked.items() for flaw in find_flaws(resources)]
    for flaw in flaws:
        print(flaw, file=sys.stderr)
    counts = ", ".join(f"{len(resources)} ({name})" for name, resources in checked.items())
    print(f"Kubernetes {read_version()}: resources checked: {counts}")
    return bool(flaws)


if __name__ == "__main__":
    sys.exit(main())
