"""What docs/kubernetes.md promises of an overlay that runs (`just k8s-run`)."""

import re
import subprocess

import httpx

from deploy.client import Client
from tests.upload_requests import TINY_WAV


def run_in_pod(deployment: str, *command: str) -> str:
    """Runs a command in a pod as docs/kubernetes.md does, and returns its output."""
    done = subprocess.run(
        ["kubectl", "-n", "waxwing", "exec", f"deployment/{deployment}", "--", *command],  # noqa: S607
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_forwarded_port_reaches_the_gateway() -> None:
    assert httpx.get("http://127.0.0.1:8080/healthz").status_code == 200


def test_status_sees_every_part() -> None:
    status = run_in_pod("records", "python", "-m", "records", "status")
    assert re.findall(r"^(\S+) +ready", status, re.MULTILINE) == [
        *("gateway", "users", "records", "postgres", "store"),
    ]


def test_the_doctor_reaches_the_database_and_the_store() -> None:
    assert run_in_pod("records", "python", "-m", "records", "doctor").startswith("clean: ")


def test_a_user_made_in_a_pod_uploads(client: Client) -> None:
    made = re.search(
        r"^token +(\S+)", run_in_pod("users", "python", "-m", "users", "add", "Pod"), re.MULTILINE
    )
    assert made
    record = client.upload_stream([TINY_WAV], made[1])
    assert client.download(record["url"])
