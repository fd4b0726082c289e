"""docs/licences.md names every package and program that an image ships, with its licence."""

import importlib.metadata
import re
from pathlib import Path

import pytest

from deploy.upkeep.licences import PAGE, read_licence, read_table
from deploy.upkeep.sbom import (
    DOCKERFILES,
    IMAGES,
    LICENCES,
    ROOT,
    describe_minio,
    read_base,
    read_images_of_others,
    read_pins,
)

TEXT = PAGE.read_text(encoding="utf-8")
TABLE = read_table(TEXT)
COPYLEFT = re.compile(r"\b(?:A?GPL|LGPL|MPL)-[\d.]+(?:-or-later|-only)?")
# Wheels for Windows, and time zones, which Linux has.
NOT_IN_IMAGES = "sys_platform == 'win32'"


def read_shipped(image: str) -> dict[str, str]:
    """Returns the versions of the packages in an image, whose Python is 3.13."""
    return {
        name: version
        for file in IMAGES[image]
        for name, version, marker in read_pins(file)
        if marker not in (NOT_IN_IMAGES, "python_full_version < '3.12'", "python_full_version < '3.13'")
    }


@pytest.mark.parametrize("image", IMAGES)
def test_the_table_has_exactly_the_packages_of_an_image(image: str) -> None:
    assert {name for name, (_, images) in TABLE.items() if image in images} == set(read_shipped(image))


def test_every_requirement_of_an_image_is_known() -> None:
    copied = {
        name
        for dockerfile in DOCKERFILES.values()
        for name in re.findall(r"^COPY (\S*requirements\S*\.txt)", dockerfile.read_text(), re.M)
    }
    known = {str(file.relative_to(ROOT)) for files in IMAGES.values() for file in files}
    assert {
        each.replace("${SERVICE}", service) for each in copied for service in ("users", "records")
    } == known


def test_the_licences_are_those_of_the_installed_packages() -> None:
    compared = 0
    for image in IMAGES:
        for name, version in read_shipped(image).items():
            try:
                package = importlib.metadata.distribution(name)
            except importlib.metadata.PackageNotFoundError:
                continue
            if package.version == version:
                assert TABLE[name][0] == read_licence(package), name
                compared += 1
    assert compared > 80


def test_every_program_has_its_row() -> None:
    images = [*read_images_of_others(), *map(read_base, ("gateway", "records"))]
    names = {image.partition(":")[0] for image in images} | {describe_minio()["name"]}
    assert names == set(LICENCES)
    for name, licence in LICENCES.items():
        assert re.search(rf"^\| .*\(`{name}`\).*? \| {licence} \|", TEXT, re.M), name


@pytest.mark.parametrize("image", ["users", "records", "backup"])
def test_the_label_of_an_image_names_every_copyleft_licence_in_it(image: str) -> None:
    compose = (ROOT / "docker-compose.yml").read_text()
    default = re.search(r'^ARG LICENSES="(.+)"$', DOCKERFILES[""].read_text(), re.M)
    own = re.search(r"SERVICE: users,.* LICENSES: (.+?)}", compose)
    label = own if image == "users" else default
    assert label
    needed = {
        licence
        for declared, images in TABLE.values()
        if image in images
        for licence in COPYLEFT.findall(declared)
    }
    assert needed
    assert set(label[1].split(" AND ")) == {"MIT", *needed}


def test_a_licence_in_other_words_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "thing-1.0.dist-info"
    folder.mkdir()
    head = "Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n"
    classifier = "Classifier: License :: OSI Approved :: "
    for lines, licence in (
        ("License: MIT\n", "MIT"),
        (
            f"License: Our own\n{classifier}Apache Software License\n{classifier}MIT License\n",
            "Apache-2.0 OR MIT",
        ),
        ("License: MIT License\n        Copyright (c) Ann\n", "MIT"),
    ):
        (folder / "METADATA").write_text(head + lines)
        assert read_licence(importlib.metadata.Distribution.at(folder)) == licence
    (folder / "METADATA").write_text(head + "License: Ask me\n")
    with pytest.raises(ValueError, match="read its text"):
        read_licence(importlib.metadata.Distribution.at(folder))
