"""The local stack finds and ends what it has started, and nothing else."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local.processes import StackProcesses

# Has a child and waits for it, as nginx has workers.
PARENT = ["/bin/sh", "-c", "sleep 1000 & echo && wait"]


@pytest.fixture
def processes(tmp_path: Path) -> StackProcesses:
    return StackProcesses(tmp_path)


@pytest.fixture
def parent(processes: StackProcesses) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has a child. Both have ended after the test."""
    command = processes.command("parent", "TERM", PARENT)
    with subprocess.Popen(command, stdout=subprocess.PIPE, process_group=0) as process:
        assert process.stdout is not None
        process.stdout.readline()
        line = processes.file.read_text()
        yield process
        processes.file.write_text(line)
        processes.end_all(0, lambda: None)


def test_a_process_and_its_child_are_found_and_ended(
    processes: StackProcesses, parent: subprocess.Popen[bytes]
) -> None:
    found = processes.find("parent")
    assert found
    assert found.pid == parent.pid
    assert [each.parent for each in processes.find_all() if each.pid != parent.pid] == [parent.pid]
    processes.end_all(0, lambda: None)
    assert processes.find_all() == []
    assert parent.poll() is not None


def test_a_child_that_outlives_its_process_is_found_and_ended(
    processes: StackProcesses, parent: subprocess.Popen[bytes]
) -> None:
    parent.kill()
    parent.wait()
    assert processes.find("parent") is None
    assert [each.group for each in processes.find_all()] == [parent.pid]
    processes.end_all(0, lambda: None)
    assert processes.find_all() == []


@pytest.mark.parametrize("field", [2, 24], ids=["boot", "start time"])
def test_a_process_that_got_the_id_of_an_ended_one_is_left_alone(
    processes: StackProcesses, parent: subprocess.Popen[bytes], field: int
) -> None:
    fields = processes.file.read_text().split()
    fields[field] = "1"
    processes.file.write_text(" ".join(fields))
    assert processes.find("parent") is None
    assert processes.find_all() == []
    processes.end_orphans()
    processes.end_all(0, lambda: None)
    assert parent.poll() is None
