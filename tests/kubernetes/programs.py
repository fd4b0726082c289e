"""Finds kube-apiserver and kubectl, or builds them.

`python -m tests.kubernetes.programs` ends with status 0 if both have been built. `--build` builds them.
"""

import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from deploy.local.go_build import GoBuild, build_once, cache_folder

GO_MOD = Path(__file__).with_name("go.mod")
SUMS_SHA256 = "56a8176d55886a3058127aff1756e927429237e4f17ea2e330b828a55253231e"


def read_version() -> str:
    """Returns the version of Kubernetes in go.mod, such as v1.34.4."""
    found = re.search(r"k8s\.io/kubernetes (v\S+)", GO_MOD.read_text())
    assert found
    return found[1]


def make_build() -> GoBuild:
    """Returns the build of both programs."""
    version = read_version()
    return GoBuild(
        title=f"Kubernetes {version}",
        folder=cache_folder(os.environ) / f"kubernetes-{version}",
        packages=("k8s.io/kubernetes/cmd/kube-apiserver", "k8s.io/kubernetes/cmd/kubectl"),
        duration="about 11 minutes of CPU time",
        advice="run `just lint`, which checks the manifests without an API server",
        go_mod=GO_MOD,
        sums_sha256=SUMS_SHA256,
        variables=(
            f"k8s.io/component-base/version.gitVersion={version}",
            f"k8s.io/client-go/pkg/version.gitVersion={version}",
        ),
    )


def find_or_build(say: Callable[[str], None]) -> tuple[Path, Path]:
    """Returns kube-apiserver and kubectl."""
    build = make_build()
    build_once(build, say)
    api_server, kubectl = build.programs
    return api_server, kubectl


def find_kubectl() -> Path | None:
    """Returns the kubectl of an earlier build, or one in PATH, for what needs no API server."""
    built = make_build().programs[1]
    if built.exists():
        return built
    found = shutil.which("kubectl")
    return Path(found) if found else None


def main(arguments: list[str]) -> int:
    """Returns the exit status."""
    if "--build" in arguments:
        try:
            build_once(make_build(), lambda line: print(f"waxwing: {line}", file=sys.stderr, flush=True))
        except (RuntimeError, OSError) as error:
            print(f"waxwing: {error}", file=sys.stderr)
            return 1
    return int(not make_build().is_there)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
