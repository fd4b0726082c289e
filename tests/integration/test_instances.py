"""The local stack with several instances of each service, which are also restarted in turn under load."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import partial

import httpx
import pytest

from deploy.client import Client
from deploy.local.ports import LOOPBACK
from deploy.local.stack import Stack, StackError
from deploy.local.supervision import ROOT
from tests.integration.steady_load import SteadyLoad
from tests.integration.waiting import wait_until
from tests.stacks import temporary_stack
from tests.upload_requests import TINY_WAV

INSTANCES = ("users", "users-2", "records", "records-2", "records-3")


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with temporary_stack({"USERS": "2", "RECORDS": "3"}) as stack:
        yield stack


def count_uploads(stack: Stack, process: str) -> int:
    text = httpx.get(f"http://{LOOPBACK}:{stack.ports.of(process)}/metrics").text
    found = re.search(r'^waxwing_uploads_total\{outcome="stored"\} (\d+)', text, re.MULTILINE)
    return int(found[1]) if found else 0


def test_all_instances_run_and_share_the_uploads(stack: Stack) -> None:
    assert [name for name in stack.process_names if name[:5] in ("users", "recor")] == list(INSTANCES)
    with Client(stack.base_url) as client:
        token = client.create_user("Ann")["token"]
        for _ in range(6):
            client.upload_stream([TINY_WAV], token)
    shares = [count_uploads(stack, name) for name in INSTANCES[2:]]
    assert sum(shares) == 6
    assert all(shares)


def test_ps_and_status_show_every_instance(stack: Stack) -> None:
    table, problem = stack.describe_processes()
    assert problem is None
    for name in INSTANCES:
        assert re.search(rf"^{name} +{stack.ports.of(name)} +running ", table, re.MULTILINE)
    shown = subprocess.run(
        [sys.executable, "-m", "deploy.local", "status", "--json"],
        cwd=ROOT,
        env={**stack.environment("records"), "WAXWING_FOLDER": str(stack.logins_file.parent)},
        capture_output=True,
        check=True,
    )
    status = json.loads(shown.stdout)
    assert [part["name"] for part in status["parts"]].count("users") == 2
    assert [part["name"] for part in status["parts"]].count("records") == 3
    assert status["upload_slots"] == 3 * 32


def test_an_instance_that_is_killed_starts_again_and_the_others_do_its_work_meanwhile(stack: Stack) -> None:
    with Client(stack.base_url) as client:
        user = client.create_user("Ann")
        stack.stop_process("records-2")
        stack.stop_process("users")
        for _ in range(6):
            assert client.http.get("/users/me", auth=(user["id"], user["token"])).status_code == 200
            assert client.http.get("/records", auth=(user["id"], user["token"])).status_code == 200
    assert stack.describe_processes()[1] is not None
    stack.start(background=True)
    wait_until(lambda: stack.describe_processes()[1] is None)


def test_a_running_stack_does_not_change_its_number_of_instances(stack: Stack) -> None:
    again = Stack(stack.logins_file.parent, settings={"RECORDS": "2"})
    with pytest.raises(StackError, match="runs with 3 of records, not 2: stop it first"):
        again.start(background=True)
    with pytest.raises(StackError, match="RECORDS"):
        Stack(stack.logins_file.parent, settings={"RECORDS": "0"})


def test_no_request_fails_while_instances_are_restarted_in_turn(stack: Stack) -> None:
    with Client(stack.base_url) as client:
        load = SteadyLoad(stack, client.create_user("Ann"))
    with load.running():
        for name in INSTANCES:
            stack.stop_process(name)
            load.wait()
            load.wait_while_starting(partial(stack.start_process, name))
    load.check()
