"""Which documented answers the tests have seen: of each operation, every status that its document names.

What counts is what the gateways of the tests' own stacks have logged, whoever asked.
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
SEEN = ROOT / ".pytest_cache" / "answers"
# What any address can answer (common.openapi.DESCRIPTION), and nginx's word for a client that has gone.
EVERYWHERE = {405, 408, 413, 414, 499, 501, 505}

Answer = tuple[str, str, int]


def operations() -> dict[tuple[str, str], set[int]]:
    """The documented statuses of each operation, by method and path."""
    return {
        (method.upper(), path): {int(status) for status in operation["responses"]}
        for document in DOCUMENTS
        for path, methods in json.loads(document.read_text(encoding="utf-8"))["paths"].items()
        for method, operation in methods.items()
    }


def forget() -> None:
    """Makes an end of what earlier runs have seen."""
    shutil.rmtree(SEEN, ignore_errors=True)


def keep(stack: Stack) -> None:
    """Keeps what the gateway of a stack has answered, before its logs are deleted."""
    log = stack.supervisor.log("gateway")
    answers = Counter(
        (line["method"], line["path"], line["status"])
        for file in log.parent.glob(f"{log.name}*")
        # nginx's own words are no JSON.
        for line in map(json.loads, re.findall("^{.*}$", file.read_text(errors="replace"), re.MULTILINE))
    )
    SEEN.mkdir(parents=True, exist_ok=True)
    kept = [[*answer, count] for answer, count in answers.items()]
    (SEEN / f"{stack.ports.gateway}-{stack.pid('gateway')}.json").write_text(json.dumps(kept))


def read_seen(paths: Iterable[str]) -> Counter[Answer]:
    """How often which answer was seen, by the documents' paths."""
    # Those without a parameter first: /users/me is no id.
    shapes = [
        (path, re.compile(re.sub("{.*?}", "[^/]+", path)))
        for path in sorted(set(paths), key=lambda p: "{" in p)
    ]
    seen: Counter[Answer] = Counter()
    for file in SEEN.glob("*.json"):
        for method, asked, status, count in json.loads(file.read_text()):
            path = next((path for path, shape in shapes if shape.fullmatch(asked)), None)
            if path:
                seen[method, path, status] += count
    return seen


def main() -> None:
    """Prints the table; fails where a documented answer was never seen, or one that is not documented was."""
    documented = operations()
    seen = read_seen(path for _, path in documented)
    if not seen:
        sys.exit("coverage: nothing has been seen; run the tests first (./just test)")
    for (method, path), statuses in documented.items():
        counts = "  ".join(f"{status} x {seen[method, path, status]:,}" for status in sorted(statuses))
        print(f"{method:<6} {path:<29} {counts}")
    promised = {(*operation, status) for operation, statuses in documented.items() for status in statuses}
    never = sorted(promised - seen.keys())
    unpromised = sorted(
        answer
        for answer in seen.keys() - promised
        if answer[:2] in documented and answer[2] not in EVERYWHERE
    )
    for method, path, status in never:
        print(f"never seen: {method} {path} {status}")
    for method, path, status in unpromised:
        print(f"not documented: {method} {path} {status}")
    print(f"{len(promised) - len(never)} of {len(promised)} documented answers were seen")
    sys.exit(1 if never or unpromised else 0)


if __name__ == "__main__":
    main()
