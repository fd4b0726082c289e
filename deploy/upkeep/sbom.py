"""Writes what each image contains as CycloneDX documents to the folder `sbom`: `just sbom`.

cyclonedx-py reads the packages with their licences from an environment. So each image gets an environment of
the same pinned packages, for the Python of the images.
"""

import json
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deploy.local import minio

ROOT = Path(__file__).parents[2]
AUDIT = ROOT / ".audit"
FOLDER = ROOT / "sbom"
SERVICES = ROOT / "services"
# The image `set-up` has the packages of `records`. TRACING=yes adds those of `tracing` to the services.
IMAGES = {
    "users": (SERVICES / "users/requirements.txt",),
    "records": (SERVICES / "records/requirements.txt",),
    "backup": (SERVICES / "records/requirements.txt", ROOT / "deploy/requirements-backup.txt"),
    "gateway": (ROOT / "deploy/gateway/requirements.txt",),
    "tracing": (ROOT / "deploy/requirements-otel.txt",),
}
DOCKERFILES = {"gateway": ROOT / "deploy/gateway/Dockerfile", "": ROOT / "deploy/Dockerfile"}
# The licence of the program in an image that others make.
LICENCES = {
    "python": "PSF-2.0",
    "nginx": "BSD-2-Clause",
    "postgres": "PostgreSQL",
    "pgsty/silo": "AGPL-3.0-or-later",
    "github.com/minio/minio": "AGPL-3.0-or-later",
    "prom/prometheus": "Apache-2.0",
    "nginx/nginx-prometheus-exporter": "Apache-2.0",
    "grafana/grafana": "AGPL-3.0-only",
}
_PLATFORM = ("--python-version", "3.13", "--python-platform", "x86_64-unknown-linux-gnu")


def read_base(image: str) -> str:
    """Returns the image on which an image of ours stands, such as python:3.13-slim."""
    dockerfile = DOCKERFILES.get(image, DOCKERFILES[""])
    # The names of a Dockerfile's own stages have no tag.
    return str(re.findall(r"^FROM (\S+:\S+)", dockerfile.read_text(), re.M)[-1])


def read_images_of_others() -> list[str]:
    """Returns the images that docker-compose.yml takes as they are."""
    return re.findall(r"^ +image: (\S+)$", (ROOT / "docker-compose.yml").read_text(), re.M)


def read_pins(requirements: Path) -> Iterator[tuple[str, str, str]]:
    """Yields name, version and marker of each pinned package."""
    for line in requirements.read_text().splitlines():
        pin = re.match(r"([A-Za-z0-9._-]+)==(\S+?)(?: ; (.+?))?(?: \\)?$", line)
        if pin:
            yield pin[1], pin[2], pin[3] or ""


def make_environment(image: str) -> tuple[Path, Path]:
    """Installs the packages of an image. Returns the interpreter, and the folder of the packages."""
    place = AUDIT / "images" / image
    _run("uv", "venv", "--quiet", "--clear", "--python", sys.executable, str(place))
    variables = {"base": str(place), "platbase": str(place)}
    packages = Path(sysconfig.get_path("purelib", scheme="venv", vars=variables))
    requirements = [word for file in IMAGES[image] for word in ("-r", str(file))]
    options = ("--quiet", "--no-deps", "--require-hashes", "--only-binary", ":all:", *_PLATFORM)
    # The certificates that the machine trusts, such as the one of a proxy.
    _run("uv", "pip", "install", "--system-certs", *options, "--target", str(packages), *requirements)
    return place / "bin" / "python", packages


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def describe_image(reference: str) -> dict[str, Any]:
    """Returns the component of an image that others make, such as postgres:18."""
    name, _, version = reference.partition(":")
    return _describe("container", name, version, f"pkg:docker/{name}@{version}")


def describe_minio() -> dict[str, Any]:
    """Returns the component of the MinIO that `./just up` builds."""
    name, _, version = minio.MODULE.partition("@")
    return _describe("application", name, version, f"pkg:golang/{name}@{version}")


def _describe(kind: str, name: str, version: str, purl: str) -> dict[str, Any]:
    licence = {"license": {"id": LICENCES[name]}}
    return {
        "type": kind,
        "bom-ref": purl,
        "name": name,
        "version": version,
        "purl": purl,
        "licenses": [licence],
    }


def make_document(image: str) -> dict[str, Any]:
    """Returns what one image contains."""
    python, _ = make_environment(image)
    tool = str(AUDIT / "bin" / "cyclonedx-py")
    document: dict[str, Any] = json.loads(
        _run(tool, "environment", "--sv", "1.6", "--output-reproducible", str(python))
    )
    if image != "tracing":
        base = describe_image(read_base(image))
        document["components"].append(base)
        document["dependencies"].append({"ref": base["bom-ref"]})
    return document


def make_document_of_others() -> dict[str, Any]:
    """Returns what the stack runs besides our images: the images of others, and the MinIO of `./just up`."""
    components = [*map(describe_image, read_images_of_others()), describe_minio()]
    return {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "components": components}


def main() -> int:
    """Writes the documents. Returns the exit status."""
    FOLDER.mkdir(exist_ok=True)
    try:
        documents = {image: make_document(image) for image in IMAGES}
    except subprocess.CalledProcessError as error:
        print(f"waxwing: no document was written: `{error.cmd[0]}` failed, as it says above", file=sys.stderr)
        return 1
    for name, document in {**documents, "stack": make_document_of_others()}.items():
        path = FOLDER / f"{name}.cdx.json"
        path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        print(f"{path.relative_to(ROOT)}: {len(document['components'])} components")
    return 0


if __name__ == "__main__":
    sys.exit(main())
