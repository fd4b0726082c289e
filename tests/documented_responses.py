"""Which documented responses the tests have seen: for each operation, every status in its OpenAPI document.

The gateways of the tests' own stacks log every response; this module counts those log lines.
"""

import json
import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterable

from deploy.local.stack import Stack
from deploy.local.supervision import ROOT

DOCUMENTS = sorted((ROOT / "docs" / "openapi").glob("*.json"))
SEEN = ROOT / ".pytest_cache" / "responses"
# Every path can send these (common.openapi.DESCRIPTION). In nginx's log, 499 is a client that has gone, and
# 444 a connection that nginx has closed without a response.
EVERYWHERE = {405, 408, 413, 414, 429, 444, 499, 501, 505}

# Method, path and status.
SeenResponse = tuple[str, str, int]


def operations() -> dict[tuple[str, str], set[int]]:
    """Returns the documented statuses of each operation, by method and path."""
    return {
        (method.upper(), path): {int(status) for status in operation["responses"]}
        for document in DOCUMENTS
        for path, methods in json.loads(document.read_text(encoding="utf-8"))["paths"].items()
        for method, operation in methods.items()
    }


def forget() -> None:
    """Deletes what earlier runs have seen."""
    shutil.rmtree(SEEN, ignore_errors=True)


def keep(stack: Stack) -> None:
    """Saves the responses of a stack's gateway before its logs are deleted."""
    log = stack.supervisor.log("gateway")
    responses = Counter(
        (line["method"], line["path"], line["status"])
        for file in log.parent.glob(f"{log.name}*")
        # nginx's own error lines are not JSON.
        for line in map(json.loads, re.findall("^{.*}$", file.read_text(errors="replace"), re.MULTILINE))
        # null: a request that got no response.
        if line["status"]
    )
    SEEN.mkdir(parents=True, exist_ok=True)
    kept = [[*response, count] for response, count in responses.items()]
    (SEEN / f"{stack.ports.gateway}-{stack.pid('gateway')}.json").write_text(json.dumps(kept))


def read_seen(paths: Iterable[str]) -> Counter[SeenResponse]:
    """Counts the responses that were seen, by the paths of the documents."""
    # Paths without a parameter come first, so that /users/me is not taken for an id.
    shapes = [
        (path, re.compile(re.sub("{.*?}", "[^/]+", path)))
        for path in sorted(set(paths), key=lambda p: "{" in p)
    ]
    seen: Counter[SeenResponse] = Counter()
    for file in SEEN.glob("*.json"):
        for method, logged, status, count in json.loads(file.read_text()):
            path = next((path for path, shape in shapes if shape.fullmatch(logged)), None)
            if path:
                seen[method, path, status] += count
    return seen


def main() -> None:
    """Prints the table; fails if a documented response was never seen, or an undocumented one was."""
    documented = operations()
    seen = read_seen(path for _, path in documented)
    if not seen:
        sys.exit("responses: the tests have seen none; run them first (./just test)")
    for (method, path), statuses in documented.items():
        counts = "  ".join(f"{status} x {seen[method, path, status]:,}" for status in sorted(statuses))
        print(f"{method:<6} {path:<29} {counts}")
    promised = {(*operation, status) for operation, statuses in documented.items() for status in statuses}
    never = sorted(promised - seen.keys())
    undocumented = sorted(
        response
        for response in seen.keys() - promised
        if response[:2] in documented and response[2] not in EVERYWHERE
    )
    for method, path, status in never:
        print(f"never seen: {method} {path} {status}")
    for method, path, status in undocumented:
        print(f"not documented: {method} {path} {status}")
    print(f"{len(promised) - len(never)} of {len(promised)} documented responses were seen")
    sys.exit(1 if never or undocumented else 0)


if __name__ == "__main__":
    main()
