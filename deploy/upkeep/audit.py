"""Asks the package index which pinned packages have known vulnerabilities: `just audit`."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from deploy.upkeep.sbom import AUDIT, ROOT

VULNERABLE, NOT_ASKED = 1, 3


def find_requirements() -> list[Path]:
    """Returns all files of pinned packages."""
    folders = (ROOT / name for name in ("deploy", "docs", "libs", "services", "tests"))
    found = [
        *ROOT.glob("requirements*.txt"),
        *(file for each in folders for file in each.rglob("requirements*.txt")),
    ]
    return sorted(found)


def ask(requirements: Path) -> list[dict[str, Any]] | None:
    """Returns what pip-audit says of each package of a file; None if its service could not be reached."""
    # pip-audit ends with status 1 for a vulnerability and for a failure. Only a failure writes no JSON.
    told = subprocess.run(
        [AUDIT / "bin" / "pip-audit", "--disable-pip", "--require-hashes", "-f", "json", "-r", requirements],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        found: list[dict[str, Any]] = json.loads(told.stdout)["dependencies"]
    except json.JSONDecodeError:
        print(told.stderr.strip().rpartition("\n")[2], file=sys.stderr)
        return None
    return found


def judge(dependencies: list[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """Returns a line for each vulnerability, and the packages of which the service says nothing."""
    vulnerable = [
        f"{one['name']} {one['version']}: {hole['id']}, fix: {', '.join(hole['fix_versions']) or 'none'}"
        for one in dependencies
        for hole in one.get("vulns", ())
    ]
    return vulnerable, [one["name"] for one in dependencies if "skip_reason" in one]


def main() -> int:
    """Prints what is known. Returns the exit status."""
    status = 0
    for file in find_requirements():
        name = file.relative_to(ROOT)
        dependencies = ask(file)
        vulnerable, unknown = judge(dependencies or [])
        if dependencies is None or (unknown and len(unknown) == len(dependencies)):
            # An index that mirrors only the packages says of each package that it knows nothing.
            print(
                f"waxwing: {name} was not audited, because the package index's list of vulnerabilities"
                " cannot be reached: try again where it can, or let CI do it",
                file=sys.stderr,
            )
            return NOT_ASKED
        print(f"{name}: {len(dependencies)} packages, {len(vulnerable)} vulnerabilities")
        for line in vulnerable:
            print(f"  {line}")
            status = VULNERABLE
        if unknown:
            print(f"  not audited, because the index does not know them: {', '.join(unknown)}")
            status = status or NOT_ASKED
    return status


if __name__ == "__main__":
    sys.exit(main())
