"""The services take an upload of a gibibyte in a few megabytes of memory and write nothing to the disk."""

import hashlib
from pathlib import Path
from threading import Event, Thread

import httpx
import psutil

from deploy.client import Client
from deploy.local.stack import Stack
from tests.wavs import FLOAT, Wav, music

GIBIBYTE = 1024**3
MEBIBYTE = 1024**2
MEMORY_LIMIT_BYTES = 64 * MEBIBYTE
# A gibibyte lasts only 23 minutes, so that LAME has little to encode. At this bitrate they are eleven upload
# parts, so many that the memory limit does not allow all of them.
WAV = Wav(bits=64, tag=FLOAT, channels=1, rate=96000)
BITRATE_KBPS = 320
# The logs of the services and of nginx may grow by this much meanwhile.
LOG_BYTES = 1 * MEBIBYTE


def peak_bytes(pid: int) -> int:
    """Returns the peak memory of a process since its peak was reset."""
    (line,) = [
        line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")
    ]
    return int(line.split()[1]) * 1024


def written_bytes(pid: int) -> int:
    """Returns how many bytes a process has written to a disk."""
    lines = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return int(lines["write_bytes"])


def files_of(pid: int) -> set[str]:
    """Returns the files, including deleted ones, that a process has open for writing."""
    return {
        file.path
        for file in psutil.Process(pid).open_files()
        if file.mode not in {"r"} and not file.path.startswith("/dev/")
    } | {
        target
        for descriptor in Path(f"/proc/{pid}/fd").iterdir()
        if (target := target_of(descriptor)).endswith(" (deleted)") and target.startswith("/")
    }


def processes_of_nginx(stack: Stack) -> list[int]:
    """Returns the process ids of nginx, without the process that reads the cache and ends after a minute."""
    main = psutil.Process(stack.pid("gateway"))
    return [each.pid for each in (main, *main.children()) if "cache loader" not in each.cmdline()[0]]


def target_of(descriptor: Path) -> str:
    try:
        return str(descriptor.readlink())
    except FileNotFoundError:
        return ""


class Witness(Thread):
    """Watches the health of the gateway and the open files of the processes during the upload."""

    def __init__(self, stack: Stack, pids: list[int], temporary: Path) -> None:
        super().__init__()
        self.is_over = Event()
        self.responses: list[tuple[int, str]] = []
        self.files: set[str] = set()
        self._url = stack.base_url
        self._pids = pids
        self._temporary = temporary

    def run(self) -> None:
        with httpx.Client(base_url=self._url, trust_env=False) as http:
            while not self.is_over.wait(0.05):
                for path in ("/healthz", "/readyz/records"):
                    self.responses.append((http.get(path).status_code, path))
                self.files |= {str(path) for path in self._temporary.rglob("*") if path.is_file()}
                for pid in self._pids:
                    self.files |= files_of(pid)


def test_a_gibibyte_is_uploaded_in_bounded_memory_without_a_file_while_the_gateway_answers(
    stack: Stack, client: Client
) -> None:
    # A new process, so that earlier uploads have left nothing in its memory.
    stack.stop_process("records")
    stack.start_process("records")
    user = client.create_user("Large")
    records = stack.pid("records")
    nginx = processes_of_nginx(stack)
    gateway_folder = stack.supervisor.log("gateway").parents[1] / "gateway" / "temp"
    assert gateway_folder.is_dir()
    before_files = files_of(records).union(*map(files_of, nginx))
    Path(f"/proc/{records}/clear_refs").write_text("5")
    idle = peak_bytes(records)
    written = {pid: written_bytes(pid) for pid in (records, *nginx)}
    witness = Witness(stack, [records, *nginx], gateway_folder)
    witness.start()
    try:
        record = client.upload_stream(WAV.stream(GIBIBYTE, music(8.0)[:, :1]), user["token"], BITRATE_KBPS)
    finally:
        witness.is_over.set()
        witness.join()
    grown = peak_bytes(records) - idle
    assert stack.pid("records") == records
    assert grown < MEMORY_LIMIT_BYTES, f"{grown / MEBIBYTE:.1f} MiB over idle"
    for pid, count in written.items():
        assert written_bytes(pid) - count < LOG_BYTES
    assert witness.files - before_files == set()
    assert len(witness.responses) > 50
    assert {status for status, _ in witness.responses} == {200}
    seconds = (GIBIBYTE - 44) / (WAV.rate * WAV.sample_frame_bytes)
    assert abs(record["duration_seconds"] - seconds) < 0.001
    mp3 = client.download(record["url"])
    assert len(mp3) == record["size_bytes"]
    assert hashlib.sha256(mp3).hexdigest() == record["sha256"]
