"""Runs the overlay `laptop` on a node of Kubernetes, and a command beside it.

`python -m tests.kubernetes.node COMMAND` gives the command the address of the gateway in BASE_URL.
The node is a kubelet with Debian's containerd and runc. It has namespaces of its own (unshare), so its
processes, mounts and network end together, and nothing outside reaches it. What starts the overlay are the
commands in docs/kubernetes.md.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx

from tests.integration.waiting import wait_until
from tests.kubernetes.api_server import ApiServer, run_api_server, run_process
from tests.kubernetes.programs import find_or_build, find_or_build_node

ROOT = Path(__file__).parents[2]
NODE, ADDRESS, NETWORK, BRIDGE = "node", "10.88.77.1", "10.88.77.0/24", "waxwing"
PAUSE = "waxwing/pause:test"
START_SECONDS = 300
CONTROL_GROUPS = Path("/sys/fs/cgroup")
NEEDED = ("docker", "containerd", "ctr", "runc", "etcd", "ip", "iptables", "unshare")
PACKAGES = "--no-install-recommends containerd containernetworking-plugins etcd-server iproute2 iptables"
# containerd and the kubelet have fixed paths below these.
FRESH_FOLDERS = ("/run", "/var/lib", "/var/log")
# The kubelet sets them, for the whole machine if it could.
KERNEL_SETTINGS = (
    *("vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops"),
    *("kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes"),
)
CONTAINERD = """
version = 2
# It would make a folder in /opt.
disabled_plugins = ["io.containerd.internal.v1.opt"]
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "docker.io/{pause}"
  # In a container nobody may lower the value of a process.
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{folder}/cni"
"""
COREDNS = """
cluster.local:53 {{
    bind {address}
    errors
    kubernetes cluster.local {{
        kubeconfig {kubeconfig} tests
    }}
}}
"""


def say(line: str) -> None:
    print(f"waxwing: {line}", file=sys.stderr, flush=True)


def run(*command: str | Path) -> None:
    subprocess.run(command, check=True)


def documented_commands() -> tuple[str, str]:
    """Returns what builds the images and what starts the overlay, from docs/kubernetes.md."""
    text = (ROOT / "docs" / "kubernetes.md").read_text()
    section = text.partition("\n## Run it on a laptop\n")[2].partition("\n## ")[0]
    build, start = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    return build, start


def run_outside(command: Sequence[str]) -> int:
    """Builds images and programs, and starts this module in new namespaces. Returns its exit status."""
    missing = [program for program in NEEDED if shutil.which(program) is None]
    if missing:
        raise FileNotFoundError(f"{', '.join(missing)}: not in PATH (Debian: apt-get install {PACKAGES})")
    kubectl = find_or_build(say)[1]
    find_or_build_node(say)
    remove_control_groups()
    run("sh", "-ec", documented_commands()[0])
    overlay = subprocess.run(
        [kubectl, "kustomize", "deploy/kubernetes/laptop"], check=True, stdout=subprocess.PIPE, text=True
    )
    images = sorted(set(re.findall(r"^ *(?:- )?image: (\S+)$", overlay.stdout, re.MULTILINE)))
    # One container of each pod only holds its network.
    users = next(image for image in images if image.startswith("waxwing/users:"))
    docker = ["docker", "build", "-q", "-t", PAUSE, "-"]
    subprocess.run(docker, input=f'FROM {users}\nCMD ["sleep", "infinity"]\n', text=True, check=True)
    with tempfile.TemporaryDirectory(prefix="waxwing-node-") as folder:
        run("docker", "save", "-o", f"{folder}/images.tar", PAUSE, *images)
        unshare = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
        inside = [sys.executable, "-m", "tests.kubernetes.node", "--inside", folder, *command]
        try:
            return subprocess.run([*unshare, *inside], check=False).returncode
        finally:
            wait_until(remove_control_groups)


def remove_control_groups() -> bool:
    """Removes what the last node has left of its control groups. Returns whether nothing is left."""
    # In version 1 of the kernel's control groups each controller has a tree of its own.
    groups = [group for root in ("", "*/") for group in CONTROL_GROUPS.glob(f"{root}kubepods/**/")]
    for group in sorted(groups, key=lambda group: len(group.parts), reverse=True):
        with suppress(OSError):
            group.rmdir()
    return not any(group.exists() for group in groups)


def run_inside(folder: Path, command: Sequence[str]) -> int:
    """Starts the node and the overlay, and runs the command. Returns its exit status."""
    separate(folder)
    (folder / "containerd.toml").write_text(
        CONTAINERD.format(pause=PAUSE, folder=folder, plugins=os.environ.get("CNI_PATH", "/usr/lib/cni"))
    )
    write_network(folder / "cni")
    key, certificate = folder / "kubelet-client.key", folder / "kubelet-client.crt"
    new_key = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=kube-apiserver"]
    subprocess.run([*new_key, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    api_server, kubectl = find_or_build(say)
    with ExitStack() as running:
        running.enter_context(
            run_process(folder / "containerd.log", "containerd", "--config", f"{folder}/containerd.toml")
        )
        say("loading the images into containerd …")
        wait_until(lambda: Path("/run/containerd/containerd.sock").exists())
        run("ctr", "--namespace=k8s.io", "images", "import", folder / "images.tar")
        (folder / "images.tar").unlink()
        server = running.enter_context(
            run_api_server(
                api_server,
                kubectl,
                folder,
                f"--kubelet-client-key={key}",
                f"--kubelet-client-certificate={certificate}",
                "--kubelet-preferred-address-types=InternalIP",
            )
        )
        start_programs(folder, server, running)
        os.environ["KUBECONFIG"] = str(server.kubeconfig)
        os.environ["PATH"] = f"{kubectl.parent}:{os.environ['PATH']}"
        *start, forward = documented_commands()[1].splitlines()
        for line in start:
            say(line)
            run(*shlex.split(line))
        forward, _, _ = forward.partition("#")
        running.enter_context(run_process(folder / "forward.log", *shlex.split(forward)))
        wait_until(is_forwarded)
        address = server.kubectl(
            *("-n", "waxwing", "get", "pods", "-l", "app.kubernetes.io/component=gateway"),
            *("-o", "jsonpath={.items[0].status.podIP}"),
        ).stdout
        return subprocess.run(
            command, env={**os.environ, "BASE_URL": f"http://{address}:8080"}, check=False
        ).returncode


def is_forwarded() -> bool:
    """Returns whether the gateway answers where docs/kubernetes.md says."""
    with suppress(httpx.TransportError):
        return httpx.get("http://127.0.0.1:8080/healthz").status_code == 200
    return False


def separate(folder: Path) -> None:
    """Keeps files, kernel settings and network of the machine away from the node."""
    for path in FRESH_FOLDERS:
        fresh = folder / path.removeprefix("/")
        fresh.mkdir(parents=True)
        run("mount", "--bind", fresh, path)
    for name in KERNEL_SETTINGS:
        setting, copied = Path("/proc/sys", name), folder / name.replace("/", "-")
        copied.write_text(setting.read_text())
        run("mount", "--bind", copied, setting)
    run("ip", "link", "set", "lo", "up")
    run("ip", "link", "add", BRIDGE, "type", "bridge")
    run("ip", "address", "add", f"{ADDRESS}/24", "dev", BRIDGE)
    run("ip", "link", "set", BRIDGE, "up")


def write_network(folder: Path) -> None:
    """Writes how pods get their addresses. The plugin `bridge` enforces no network policies."""
    addresses = {"type": "host-local", "ranges": [[{"subnet": NETWORK}]], "routes": [{"dst": "0.0.0.0/0"}]}
    bridge = {
        "type": "bridge",
        "bridge": BRIDGE,
        "isGateway": True,
        "hairpinMode": True,
        "ipam": addresses,
    }
    folder.mkdir()
    (folder / "waxwing.conflist").write_text(
        json.dumps({"cniVersion": "1.0.0", "name": "waxwing", "plugins": [bridge]})
    )


def start_programs(folder: Path, server: ApiServer, running: ExitStack) -> None:
    """Starts controllers, scheduler, name server, proxy and kubelet, and waits for the node."""
    kubelet, controllers, scheduler, proxy, coredns = map(str, find_or_build_node(say))
    settings = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": ADDRESS,
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": False,
        "failSwapOn": False,
        "makeIPTablesUtilChains": False,
        "clusterDNS": [ADDRESS],
        "clusterDomain": "cluster.local",
        "resolvConf": os.devnull,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": False},
            "x509": {"clientCAFile": f"{folder}/kubelet-client.crt"},
        },
        "authorization": {"mode": "AlwaysAllow"},
        # A full disk must not make it delete the images, which no registry has.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1Gi", "imagefs.available": "1Gi"},
        "imageGCHighThresholdPercent": 100,
    }
    (folder / "kubelet.json").write_text(json.dumps(settings))
    (folder / "Corefile").write_text(COREDNS.format(address=ADDRESS, kubeconfig=server.kubeconfig))
    kubeconfig = f"--kubeconfig={server.kubeconfig}"
    done = server.apply([*name_service(), *volumes(folder)])
    assert done.returncode == 0, done.stderr
    alone = (kubeconfig, "--leader-elect=false", "--secure-port=0")
    key = f"--service-account-private-key-file={folder / 'service-accounts.pem'}"
    configuration = f"--config={folder / 'kubelet.json'}"
    node = (configuration, kubeconfig, f"--node-ip={ADDRESS}", f"--hostname-override={NODE}")
    running.enter_context(run_process(folder / "controllers.log", controllers, *alone, key))
    running.enter_context(run_process(folder / "scheduler.log", scheduler, *alone))
    running.enter_context(run_process(folder / "coredns.log", coredns, "-conf", f"{folder}/Corefile"))
    # The kernel's table of connections stays as it is.
    tables = ("--conntrack-max-per-core=0", "--conntrack-tcp-timeout-established=0s")
    closing = "--conntrack-tcp-timeout-close-wait=0s"
    services = (kubeconfig, f"--hostname-override={NODE}", "--proxy-mode=iptables", *tables, closing)
    running.enter_context(run_process(folder / "proxy.log", proxy, *services))
    process = running.enter_context(run_process(folder / "kubelet.log", kubelet, *node))

    def is_ready() -> bool:
        assert process.poll() is None, (folder / "kubelet.log").read_text()[-3000:]
        return server.kubectl("wait", "--for=condition=Ready", f"node/{NODE}").returncode == 0

    wait_until(is_ready, START_SECONDS)


def name_service() -> list[dict[str, object]]:
    """Returns the Service under whose name the gateway finds CoreDNS, which runs outside of the pods."""
    metadata = {"name": "kube-dns", "namespace": "kube-system"}
    port = {"name": "dns", "port": 53, "protocol": "UDP"}
    spec = {"clusterIP": "None", "ports": [port]}
    return [
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec},
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {**metadata, "labels": {"kubernetes.io/service-name": "kube-dns"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [ADDRESS], "conditions": {"ready": True}}],
            "ports": [port],
        },
    ]


def volumes(folder: Path) -> list[dict[str, object]]:
    """Returns a volume for PostgreSQL and one for MinIO."""
    host = {"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE]}
    there = {"required": {"nodeSelectorTerms": [{"matchExpressions": [host]}]}}
    made: list[dict[str, object]] = []
    for size in ("10Gi", "20Gi"):
        path = folder / f"volume-{size}"
        path.mkdir()
        spec = {
            "capacity": {"storage": size},
            "accessModes": ["ReadWriteOnce"],
            "local": {"path": str(path)},
            "nodeAffinity": there,
        }
        name = {"name": path.name.lower()}
        made.append({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": name, "spec": spec})
    return made


def main(arguments: list[str]) -> int:
    """Returns the exit status."""
    os.chdir(ROOT)
    if arguments[0] == "--inside":
        return run_inside(Path(arguments[1]), arguments[2:])
    return run_outside(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
