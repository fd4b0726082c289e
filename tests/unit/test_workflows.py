"""The workflows, hooks and .ci/run name recipes that exist, and the workflow runs every check of .ci/run."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from deploy.upkeep.audit import find_requirements

ROOT = Path(__file__).parents[2]
WORKFLOW = ROOT / ".github/workflows/ci.yml"
CI = ROOT / ".ci/run"
# The workflow's machines have what these fetch or choose, and no cache has a build of Kubernetes. `test-unit`
# is for a Python older than those that the workflow can have.
ONLY_ON_ONE_MACHINE = {"standins", "test-only", "test-unit", "k8s-test"}


def read_recipes(file: Path) -> set[str]:
    """Returns the recipes that the commands of a file run, without those in its comments."""
    lines = [line for line in file.read_text().splitlines() if not line.lstrip().startswith(("#", "//"))]
    return set(re.findall(r"\./just ([a-z0-9][a-z0-9-]*)", "\n".join(lines)))


@pytest.fixture(scope="module")
def recipes() -> set[str]:
    command = ("just", "--justfile", str(ROOT / "justfile"), "--summary")
    return set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())


@pytest.mark.parametrize(
    "file",
    [WORKFLOW, CI, ROOT / ".pre-commit-config.yaml", ROOT / ".devcontainer/devcontainer.json"],
    ids=lambda file: str(file.name),
)
def test_every_recipe_exists(file: Path, recipes: set[str]) -> None:
    named = read_recipes(file)
    assert named
    assert named <= recipes


def test_the_workflow_runs_every_check_of_ci() -> None:
    assert read_recipes(CI) - read_recipes(WORKFLOW) == ONLY_ON_ONE_MACHINE


def test_the_workflow_may_only_read() -> None:
    workflow = yaml.safe_load(WORKFLOW.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    assert not [name for name, job in workflow["jobs"].items() if "permissions" in job]


def test_dependabot_watches_every_folder_of_pins() -> None:
    updates = yaml.safe_load((ROOT / ".github/dependabot.yml").read_text())["updates"]
    watched = {
        (update["package-ecosystem"], folder)
        for update in updates
        for folder in update.get("directories", [update.get("directory")])
    }
    patterns = ("Dockerfile", "package-lock.json", "go.mod")
    folders = ("deploy", "docs", "libs", "services", "tests")
    files = find_requirements()
    files += [file for folder in folders for pattern in patterns for file in (ROOT / folder).rglob(pattern)]
    kinds = {"Dockerfile": "docker", "package-lock.json": "npm", "go.mod": "gomod"}
    needed = {
        (kinds.get(file.name, "pip"), f"/{file.parent.relative_to(ROOT)}".removesuffix(".")) for file in files
    }
    assert needed <= watched
