"""Who may sign up at a stack with a public host."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.client import Client
from deploy.local.stack import Stack
from deploy.local.supervision import ROOT
from tests.integration.new_log_lines import NewLogLines
from tests.response_checks import assert_json, assert_problem
from tests.stacks import temporary_stack
from tests.upload_requests import TINY_WAV, bearer

SITE = "https://player.example"


@pytest.fixture(scope="module")
def mode(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of the setting SIGNUP. It is empty, so the default counts."""
    file = tmp_path_factory.mktemp("sign-up") / "mode"
    file.touch()
    return file


@pytest.fixture(scope="module")
def stack(mode: Path) -> Iterator[Stack]:
    settings = {"ALLOWED_HOSTS": "music.example", "CORS_ORIGINS": SITE, "SIGNUP_FILE": str(mode)}
    with temporary_stack(settings) as stack:
        yield stack


def sign_up(http: httpx.Client, headers: Any) -> httpx.Response:
    return http.post("/users", json={"name": "Ann"}, headers=headers)


def test_the_set_up_and_the_stack_say_that_a_sign_up_needs_the_key(stack: Stack) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "deploy.setup"],
        cwd=ROOT,
        env=stack.environment("setup"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = map(json.loads, done.stdout.splitlines())
    (line,) = [line for line in lines if line["event"] == "sign-up"]
    assert (line["signup"], line["reason"]) == ("key", "music.example is public")
    assert f"with the key {stack.signup_key}" in stack.describe_addresses()


def test_with_a_public_host_only_the_key_signs_up(stack: Stack, http: httpx.Client) -> None:
    log = NewLogLines(stack, "users")
    for wrong in ({}, {"X-Signup-Key": "wrong"}, {"Authorization": "Bearer wrong"}):
        assert_problem(sign_up(http, wrong), 401, "invalid-sign-up-key", "X-Signup-Key", "operator")
    twice = [("X-Signup-Key", stack.signup_key)] * 2
    assert_problem(sign_up(http, twice), 400, "invalid-request", "twice")
    user = assert_json(sign_up(http, {"X-Signup-Key": stack.signup_key}), 201)
    assert_json(sign_up(http, {"Authorization": f"Bearer {stack.signup_key}"}), 201)
    # The page /docs sends both, if the reader has authorized as a user.
    assert_json(sign_up(http, {"X-Signup-Key": stack.signup_key, **bearer(user)}), 201)
    # The key is no token.
    key_as_token = {"Authorization": f"Bearer {stack.signup_key}"}
    assert_problem(http.get("/users/me", headers=key_as_token), 401, "invalid-credentials")
    assert stack.signup_key not in log.text()
    with Client(stack.base_url, signup_key=stack.signup_key) as client:
        own = client.create_user("Ann")
        assert client.upload_stream([TINY_WAV], own["token"])["user_id"] == own["id"]


def test_a_script_of_an_allowed_site_may_send_the_key(stack: Stack, http: httpx.Client) -> None:
    preflight = http.options("/users", headers={"Origin": SITE, "Access-Control-Request-Method": "POST"})
    assert preflight.status_code == 204
    assert "x-signup-key" in preflight.headers["Access-Control-Allow-Headers"].split(", ")
    refused = sign_up(http, {"Origin": SITE})
    assert_problem(refused, 401, "invalid-sign-up-key")
    assert refused.headers["Access-Control-Allow-Origin"] == SITE


def test_the_client_of_a_local_stack_knows_its_key(stack: Stack) -> None:
    environment = {
        **stack.environment("users"),
        "WAXWING_FOLDER": str(stack.supervisor.log("users").parents[1]),
    }
    del environment["SIGNUP_KEY"]
    command = [sys.executable, "-m", "deploy.terminal", "user", "Ann"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "token" in done.stdout


def test_a_closed_sign_up_takes_nobody_and_leaves_users_alone(
    stack: Stack, http: httpx.Client, mode: Path
) -> None:
    headers = {"X-Signup-Key": stack.signup_key}
    user = assert_json(sign_up(http, headers), 201)
    mode.write_text("closed")
    stack.stop_process("users")
    stack.start_process("users")
    for each in (headers, {}):
        assert_problem(sign_up(http, each), 403, "sign-up-closed", "SIGNUP", "operator")
    assert_json(http.get("/users/me", headers=bearer(user)), 200)
