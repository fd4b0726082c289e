"""`just sbom` names everything that an image ships, and `just audit` says plainly when it could not ask."""

import json
import subprocess
from typing import Any

import pytest

from deploy.upkeep import audit, sbom

ENVIRONMENT_VARIABLES = ("HTTPS_PROXY", "https_proxy")


@pytest.fixture(scope="module", params=["gateway", "records"])
def document(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return request.param, sbom.make_document(request.param)


def test_a_document_has_every_pinned_package_and_its_licence(document: tuple[str, dict[str, Any]]) -> None:
    image, made = document
    found = {each["purl"]: each for each in made["components"]}
    pins = [pin for file in sbom.IMAGES[image] for pin in sbom.read_pins(file)]
    shipped = [
        pin
        for pin in pins
        if pin[2] in ("", "python_full_version >= '3.13'", "python_full_version >= '3.12'")
    ]
    assert shipped
    for name, version, _ in shipped:
        component = found[f"pkg:pypi/{name}@{version}"]
        # rich-click gives its whole licence text instead of a name.
        assert component.get("licenses") or name == "rich-click"
    base = sbom.read_base(image)
    assert found[f"pkg:docker/{base.replace(':', '@')}"]["licenses"]


def validate(made: dict[str, Any]) -> str:
    """Returns what the validator of CycloneDX says; nothing if the document is valid."""
    program = (
        "import sys; from cyclonedx.schema import SchemaVersion;"
        "from cyclonedx.validation.json import JsonStrictValidator;"
        "print(JsonStrictValidator(SchemaVersion.V1_6).validate_str(sys.stdin.read()) or '', end='')"
    )
    command = (sbom.AUDIT / "bin" / "python", "-c", program)
    return subprocess.run(
        command, input=json.dumps(made), check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def test_a_document_is_valid_cyclonedx(document: tuple[str, dict[str, Any]]) -> None:
    assert validate(document[1]) == ""


def test_the_document_of_the_stack_has_minio_and_every_image_of_others() -> None:
    made = sbom.make_document_of_others()
    assert validate(made) == ""
    assert {each["name"] for each in made["components"]} >= {
        "postgres",
        "pgsty/silo",
        "github.com/minio/minio",
    }
    assert validate({**made, "version": "none"}) != ""


def test_an_audit_without_its_service_says_so_and_has_a_status_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for variable in ENVIRONMENT_VARIABLES:
        # Nothing listens there.
        monkeypatch.setenv(variable, "http://127.0.0.1:1")
    assert audit.main() == audit.NOT_ASKED
    assert (
        "was not audited, because the package index's list of vulnerabilities cannot be reached"
        in capfd.readouterr().err
    )


def test_a_vulnerability_is_named_and_is_no_success(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hole = {"id": "CVE-2026-1", "fix_versions": ["2.1"]}
    known = {"name": "good", "version": "1.0", "vulns": []}
    answers = {
        "first": [{"name": "thing", "version": "2.0", "vulns": [hole]}, known],
        "second": [known],
    }
    monkeypatch.setattr(audit, "find_requirements", lambda: [sbom.ROOT / name for name in answers])
    monkeypatch.setattr(audit, "ask", lambda file: answers[file.name])
    assert audit.main() == audit.VULNERABLE
    assert "thing 2.0: CVE-2026-1, fix: 2.1" in capsys.readouterr().out
    del answers["first"]
    assert audit.main() == 0


def test_packages_that_the_index_does_not_know_are_not_called_audited(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    unknown = {"name": "thing", "skip_reason": "not found"}
    answer = [unknown, {"name": "good", "version": "1.0", "vulns": []}]
    monkeypatch.setattr(audit, "find_requirements", lambda: [sbom.ROOT / "file"])
    monkeypatch.setattr(audit, "ask", lambda _: answer)
    assert audit.main() == audit.NOT_ASKED
    assert "not audited, because the index does not know them: thing" in capsys.readouterr().out
    answer.pop()
    assert audit.main() == audit.NOT_ASKED
    assert "cannot be reached" in capsys.readouterr().err


def test_every_file_of_pins_is_audited() -> None:
    files = audit.find_requirements()
    assert {file for image in sbom.IMAGES.values() for file in image} <= set(files)
    assert sbom.ROOT / "requirements-dev.txt" in files
