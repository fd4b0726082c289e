"""Finds the programs of Kubernetes, or builds them: kube-apiserver and kubectl, and what a node needs.

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
SUMS_SHA256 = "0ab39413c1a561c1288da9bb1f8ebe314ec7d111590d6b045e96aece53d046e3"
COREDNS_VERSION = "v1.12.4"
ADVICE = "run `just lint`, which checks the manifests without an API server"


def read_version() -> str:
    """Returns the version of Kubernetes in go.mod, such as v1.34.4."""
    found = re.search(r"k8s\.io/kubernetes (v\S+)", GO_MOD.read_text())
    assert found
    return found[1]


def make_build() -> GoBuild:
    """Returns the build of kube-apiserver and kubectl."""
    return _make_build("Kubernetes", "kubernetes", ("kube-apiserver", "kubectl"), "11")


def make_node_builds() -> tuple[GoBuild, GoBuild]:
    """Returns the build of kubelet, controllers, scheduler and kube-proxy, and that of CoreDNS."""
    programs = ("kubelet", "kube-controller-manager", "kube-scheduler", "kube-proxy")
    node = _make_build("the node of Kubernetes", "kubernetes-node", programs, "12")
    coredns = GoBuild(
        title=f"CoreDNS {COREDNS_VERSION}",
        folder=cache_folder(os.environ) / f"coredns-{COREDNS_VERSION}",
        packages=(f"github.com/coredns/coredns@{COREDNS_VERSION}",),
        duration="about 4 minutes of CPU time",
        advice=ADVICE,
    )
    return node, coredns


def _make_build(title: str, folder: str, programs: tuple[str, ...], minutes: str) -> GoBuild:
    version = read_version()
    return GoBuild(
        title=f"{title} {version}",
        folder=cache_folder(os.environ) / f"{folder}-{version}",
        packages=tuple(f"k8s.io/kubernetes/cmd/{program}" for program in programs),
        duration=f"about {minutes} minutes of CPU time",
        advice=ADVICE,
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


def find_or_build_node(say: Callable[[str], None]) -> list[Path]:
    """Returns kubelet, kube-controller-manager, kube-scheduler, kube-proxy and CoreDNS."""
    programs: list[Path] = []
    for build in make_node_builds():
        build_once(build, say)
        programs += build.programs
    return programs


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
