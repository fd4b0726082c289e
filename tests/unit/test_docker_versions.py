"""What `./just compose-up` says about a Docker that cannot run the compose file."""

from pathlib import Path

import pytest

from deploy.docker_versions import find_flaw

DAEMON = "Cannot connect to the Docker daemon"
NEW = ("echo 28.2.2", "echo 2.26.1-4")


def install_docker(folder: Path, engine: str, compose: str) -> None:
    """Makes a `docker` that runs these shell commands for its two versions."""
    program = folder / "docker"
    program.write_text(f"#!/bin/sh\ncase $1 in\nversion) {engine} ;;\ncompose) {compose} ;;\nesac\n")
    program.chmod(0o700)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("versions", [NEW, ("echo 25.0.0", "echo v2.24.0"), ("echo 29.1.0", "echo 5.0.0")])
def test_a_docker_that_is_new_enough_has_no_flaw(folder: Path, versions: tuple[str, str]) -> None:
    install_docker(folder, *versions)
    assert find_flaw() is None


def test_without_docker_the_way_without_docker_is_named() -> None:
    flaw = find_flaw()
    assert flaw
    assert flaw.startswith(
        "no `docker` is in PATH: install Docker Engine 25 and Docker Compose 2.24 or newer"
    )
    assert flaw.endswith("`./just up`")


@pytest.mark.parametrize(
    ("engine", "compose", "words"),
    [
        (
            "echo 28.2.2",
            "echo \"docker: 'compose' is not a docker command.\" >&2; exit 1",
            "no `docker compose`",
        ),
        (f"echo {DAEMON} >&2; exit 1", "echo 2.26.1", f"start it, or let this user use it: {DAEMON}"),
        ("exit 1", "echo 2.26.1", "start it, or let this user use it: no reason given"),
        ("echo 24.0.7", "echo 2.26.1", "Docker Engine 24.0.7 is too old: install Docker Engine 25"),
        ("echo 28.2.2", "echo v2.23.3", "Docker Compose v2.23.3 is too old: install Docker Engine 25"),
        ("echo 28.2.2", "echo 1.29.2", "Docker Compose 1.29.2 is too old: install Docker Engine 25"),
    ],
)
def test_a_docker_that_cannot_run_the_compose_file_is_named_in_one_line(
    folder: Path, engine: str, compose: str, words: str
) -> None:
    install_docker(folder, engine, compose)
    flaw = find_flaw()
    assert flaw
    assert words in flaw
    assert "\n" not in flaw
