"""What a client sees while parts of the stack stop and come back, and what a very long upload costs."""

import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

from deploy.client import Client
from deploy.local.ports import Ports
from deploy.local.stack import Stack
from tests import wavs
from tests.acceptance.answers import assert_json, assert_problem
from tests.acceptance.forms import TINY_WAV, WAV_TYPE, bearer
from tests.wavs import Wav

MIB = 1 << 20


class Whole(NamedTuple):
    """A stack of one's own, which may be stopped, and a user of it."""

    stack: Stack
    folder: Path
    client: Client
    user: dict[str, Any]

    def upload(self) -> dict[str, Any]:
        return self.client.upload_stream([TINY_WAV], self.user["token"])

    def post(self) -> Any:
        headers = {**WAV_TYPE, **bearer(self.user)}
        return self.client.http.post("/records", content=TINY_WAV, headers=headers)

    def assert_link_is_good(self, record: dict[str, Any]) -> None:
        response = self.client.http.get(record["url"])
        assert (response.status_code, response.headers["Content-Type"]) == (200, "audio/mpeg")
        assert hashlib.sha256(response.content).hexdigest() == record["sha256"]


@pytest.fixture(scope="module")
def whole() -> Iterator[Whole]:
    with tempfile.TemporaryDirectory(prefix="waxwing-test-") as parent:
        folder = Path(parent) / "stack"
        stack = Stack(folder, Ports.free(), one_dies_all_stop=False)
        stack.start()
        try:
            with Client(stack.base_url) as client:
                yield Whole(stack, folder, client, client.create_user("Owner"))
        finally:
            stack.stop()


def peak_bytes(process: psutil.Process) -> int:
    """The most memory that a process has ever had."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    (peak,) = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(peak) * 1024


def test_a_gibibyte_is_uploaded_in_little_memory_and_without_a_file(whole: Whole) -> None:
    records = psutil.Process(whole.stack.pid("records"))
    gateway = psutil.Process(whole.stack.pid("gateway"))
    processes = [records, gateway, *gateway.children()]
    idle_bytes = records.memory_info().rss
    written_before = [process.io_counters().write_bytes for process in processes]
    files_before = [{file.path for file in process.open_files()} for process in processes]
    body_files = whole.folder / "gateway" / "temp" / "body"
    looks = 0

    def watched(pieces: Iterator[bytes]) -> Iterator[bytes]:
        nonlocal looks
        for number, piece in enumerate(pieces):
            yield piece
            if number % 1000 == 999:
                looks += 1
                for path in ("/healthz", "/readyz/records"):
                    assert_json(whole.client.http.get(path), 200)
                assert [{file.path for file in process.open_files()} for process in processes] == files_before
                assert [file for file in body_files.rglob("*") if file.is_file()] == []

    wav = Wav(bits=32, channels=6, rate=48000)
    sound = wavs.noise(seconds=5, rate=48000, channels=6)
    record = whole.client.upload_stream(watched(wav.stream(1024 * MIB, sound)), whole.user["token"])
    assert looks > 10
    assert record["duration_seconds"] == pytest.approx(1024 * MIB / (24 * 48000), abs=0.001)
    assert peak_bytes(records) - idle_bytes < 64 * MIB
    written = [process.io_counters().write_bytes for process in processes]
    # The logs are all that they write.
    assert all(after - before < MIB for before, after in zip(written_before, written, strict=True))
    whole.assert_link_is_good(record)


def test_a_restart_keeps_every_user_and_record(whole: Whole) -> None:
    records = [whole.upload() for _ in range(3)]
    whole.stack.stop()
    whole.stack.start()
    for record in records:
        whole.assert_link_is_good(record)
    # The user's token as well.
    whole.assert_link_is_good(whole.upload())


@pytest.fixture
def without(whole: Whole, request: pytest.FixtureRequest) -> Iterator[Whole]:
    """The stack with one part stopped, which is brought back afterwards."""
    whole.stack.stop_part(request.param)
    try:
        yield whole
    finally:
        whole.stack.start_part(request.param)


@pytest.fixture
def record(whole: Whole) -> dict[str, Any]:
    """A record from before the part was stopped."""
    return whole.upload()


def assert_unavailable(response: Any, name: str = "unavailable") -> None:
    assert_problem(response, 503, name, "try again in 5 seconds")
    assert response.headers["Retry-After"] == "5"


@pytest.mark.parametrize("without", ["postgres"], indirect=True)
def test_without_postgres_everything_says_so_and_nothing_is_called_missing(
    record: dict[str, Any], without: Whole
) -> None:
    http = without.client.http
    assert_json(http.get("/healthz"), 200)
    for service in ("users", "records"):
        assert_unavailable(http.get(f"/readyz/{service}"), "not-ready")
    assert_unavailable(http.post("/users", json={"name": "Ann"}))
    assert_unavailable(http.get(record["url"]))
    assert_unavailable(without.post())


@pytest.mark.parametrize("without", ["minio"], indirect=True)
def test_without_the_store_only_what_needs_it_is_unavailable(record: dict[str, Any], without: Whole) -> None:
    http = without.client.http
    assert_json(http.get("/readyz/users"), 200)
    assert_json(http.post("/users", json={"name": "Ann"}), 201)
    assert_unavailable(http.get("/readyz/records"), "not-ready")
    assert_unavailable(http.get(record["url"]))
    assert_unavailable(http.get(record["url"], headers={"Range": "bytes=0-1"}))
    assert_unavailable(without.post())
    head = http.head(record["url"])
    assert (head.status_code, head.headers["Content-Type"]) == (200, "audio/mpeg")


@pytest.mark.parametrize("without", ["users"], indirect=True)
def test_without_the_users_service_records_are_still_served(record: dict[str, Any], without: Whole) -> None:
    assert_unavailable(without.client.http.post("/users", json={"name": "Ann"}))
    assert_unavailable(without.client.http.get("/readyz/users"))
    without.assert_link_is_good(record)
    without.assert_link_is_good(without.upload())


@pytest.mark.parametrize("without", ["records"], indirect=True)
def test_without_the_records_service_users_are_still_made(record: dict[str, Any], without: Whole) -> None:
    http = without.client.http
    assert_json(http.post("/users", json={"name": "Ann"}), 201)
    assert_unavailable(http.get("/readyz/records"))
    assert_unavailable(http.get(record["url"]))
    assert_unavailable(without.post())


@pytest.mark.parametrize("part", ["postgres", "minio", "users", "records", "gateway"])
def test_what_has_been_away_is_back_by_itself(whole: Whole, record: dict[str, Any], part: str) -> None:
    pid = whole.stack.pid("records")
    whole.stack.stop_part(part)
    whole.stack.start_part(part)
    whole.assert_link_is_good(record)
    whole.assert_link_is_good(whole.upload())
    assert_json(whole.client.http.post("/users", json={"name": "Ann"}), 201)
    for service in ("users", "records"):
        assert_json(whole.client.http.get(f"/readyz/{service}"), 200)
    assert (whole.stack.pid("records") == pid) == (part != "records")
