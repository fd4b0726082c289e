"""A Kubernetes API server with Debian's etcd. It judges manifests as a cluster does, and runs nothing."""

import json
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from deploy.local.ports import LOOPBACK, free_ports
from tests.integration.waiting import wait_until
from tests.kubernetes.manifests import Resource

START_SECONDS = 120


class ApiServer:
    """A running API server, and the kubectl that talks to it."""

    def __init__(self, kubectl: Path, folder: Path, url: str, token: str) -> None:
        self._kubectl = kubectl
        self._folder = folder
        self.kubeconfig = folder / "kubeconfig"
        certificate = str(folder / "certificates" / "apiserver.crt")
        configuration = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "tests", "cluster": {"server": url, "certificate-authority": certificate}}],
            "users": [{"name": "tests", "user": {"token": token}}],
            "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "tests"}}],
            "current-context": "tests",
        }
        self.kubeconfig.write_text(json.dumps(configuration))

    def kubectl(self, *arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
        """Runs kubectl, whatever its exit status is."""
        return subprocess.run(
            [self._kubectl, f"--cache-dir={self._folder / 'cache'}", *arguments],
            input=text,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={"HOME": str(self._folder), "KUBECONFIG": str(self.kubeconfig)},
        )

    def apply(self, resources: Sequence[Resource], *options: str) -> subprocess.CompletedProcess[str]:
        """Applies resources as strictly as kubectl can: unknown fields and warnings are errors."""
        strict = ["--server-side", "--validate=strict", "--warnings-as-errors"]
        listed = {"apiVersion": "v1", "kind": "List", "items": list(resources)}
        return self.kubectl("apply", *strict, *options, "-f", "-", text=json.dumps(listed))


@contextmanager
def run_api_server(program: Path, kubectl: Path, folder: Path, *options: str) -> Iterator[ApiServer]:
    """Starts etcd and the API server, and ends both afterwards. Their data and logs are in `folder`."""
    etcd = shutil.which("etcd")
    if etcd is None:
        raise FileNotFoundError(
            "etcd is not in PATH (Debian: apt-get install --no-install-recommends etcd-server)"
        )
    client_port, peer_port, port = free_ports(3)
    store, peer = f"http://{LOOPBACK}:{client_port}", f"http://{LOOPBACK}:{peer_port}"
    key, tokens = folder / "service-accounts.pem", folder / "tokens.csv"
    subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)  # noqa: S607
    token = secrets.token_hex(16)
    tokens.write_text(f'{token},tests,tests,"system:masters"\n')
    url = f"https://{LOOPBACK}:{port}"
    server = ApiServer(kubectl, folder, url, token)
    with ExitStack() as running:
        running.enter_context(
            run_process(
                folder / "etcd.log",
                etcd,
                f"--data-dir={folder / 'etcd'}",
                f"--listen-client-urls={store}",
                f"--advertise-client-urls={store}",
                f"--listen-peer-urls={peer}",
                f"--initial-advertise-peer-urls={peer}",
                f"--initial-cluster=default={peer}",
            )
        )
        process = running.enter_context(
            run_process(
                folder / "kube-apiserver.log",
                str(program),
                f"--etcd-servers={store}",
                f"--bind-address={LOOPBACK}",
                f"--advertise-address={LOOPBACK}",
                f"--secure-port={port}",
                f"--cert-dir={folder / 'certificates'}",
                f"--token-auth-file={tokens}",
                f"--service-account-key-file={key}",
                f"--service-account-signing-key-file={key}",
                f"--service-account-issuer={url}",
                "--service-cluster-ip-range=10.96.0.0/16",
                "--authorization-mode=RBAC",
                "--anonymous-auth=false",
                # Its default network, 127.0.0.0/8, cannot be the address of endpoints.
                "--endpoint-reconciler-type=none",
                *options,
            )
        )

        def is_ready() -> bool:
            assert process.poll() is None, (folder / "kube-apiserver.log").read_text()[-3000:]
            return server.kubectl("get", "--raw=/readyz").returncode == 0

        wait_until(is_ready, START_SECONDS)
        yield server


@contextmanager
def run_process(log: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """Starts a program whose output goes to `log`, and ends it afterwards."""
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
