"""`just bench`: how fast and how small, as ratios of what is measured beside each other in one run.

Each upload alternates with ffmpeg and with pydub on the same file, at the same settings (LAME quality 5,
constant 128 kbit/s, joint stereo); of several turns the fastest counts. Nothing is asserted.
"""

import argparse
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import imageio_ffmpeg
import numpy as np
import psutil

from deploy.client import Client
from deploy.local.ports import Ports
from deploy.local.stack import Stack
from tests.bench.downloads import measure_downloads, measure_users
from tests.judge import compare, decode
from tests.wavs import Wav, music

RESULTS = Path(__file__).with_name("RESULTS.md")
FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
MIB = 1024 * 1024
SLOW_BYTES_PER_SECOND = 10_000_000
# Longer ones are measured for time only: comparing them takes gigabytes.
LONGEST_JUDGED_SECONDS = 60

Row = tuple[str, str, str]


class Process:
    """What the kernel says of one process."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._folder = Path(f"/proc/{pid}")

    def cpu_seconds(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)

    def forget_peak(self) -> None:
        (self._folder / "clear_refs").write_text("5")

    def memory_mib(self, name: str) -> float:
        """VmRSS (now) or VmHWM (the peak since it was forgotten)."""
        lines = (self._folder / "status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024


class Uploader:
    """Sends a file to POST /records over a bare connection, so that the client costs next to nothing."""

    def __init__(self, base_url: str, token: str) -> None:
        self._host = urlsplit(base_url).netloc
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "audio/wav"}

    def upload(self, wav: Path, bytes_per_second: int = 0) -> tuple[dict[str, Any], float, float]:
        """The record, the seconds from the request to the answer, and those from the last byte to it."""
        connection = HTTPConnection(self._host, timeout=600)
        started = time.perf_counter()
        connection.putrequest("POST", "/records")
        for name, value in {**self._headers, "Content-Length": str(wav.stat().st_size)}.items():
            connection.putheader(name, value)
        connection.endheaders()
        sent_bytes = 0
        with wav.open("rb") as file:
            while piece := file.read(MIB // 4):
                if bytes_per_second:
                    time.sleep(max(0.0, started + sent_bytes / bytes_per_second - time.perf_counter()))
                connection.send(piece)
                sent_bytes += len(piece)
        sent = time.perf_counter()
        response = connection.getresponse()
        record = json.loads(response.read())
        answered = time.perf_counter()
        connection.close()
        if response.status != 201:
            raise RuntimeError(f"{response.status}: {record}")
        return record, answered - started, answered - sent


def run_ffmpeg(wav: Path, mp3: Path) -> None:
    subprocess.run(
        [FFMPEG, "-loglevel", "error", "-y", "-i", str(wav), "-b:a", "128k", str(mp3)],
        check=True,
        timeout=600,
    )


def run_pydub(wav: Path, mp3: Path) -> float:
    """What similar services do; in a process of its own, whose start and imports are not counted."""
    code = (
        "import sys, time; from pydub import AudioSegment; AudioSegment.converter = sys.argv[1]; "
        "started = time.perf_counter(); "
        "AudioSegment.from_wav(sys.argv[2]).export(sys.argv[3], format='mp3', bitrate='128k'); "
        "print(time.perf_counter() - started)"
    )
    arguments = [sys.executable, "-W", "ignore", "-c", code, FFMPEG, str(wav), str(mp3)]
    done = subprocess.run(arguments, check=True, capture_output=True, text=True, timeout=900)
    return float(done.stdout)


def seconds_of(function: Callable[..., None], *arguments: Any) -> float:
    started = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - started


def snr_db(wav: Path, mp3: bytes) -> float:
    """How far the error lies below the source, in dB, whatever the level: from the correlation."""
    found = compare(decode(wav.read_bytes(), "wav"), decode(mp3))
    return -10 * math.log10(1 - found.correlation**2)


@contextmanager
def polled(base_url: str, path: str, latencies: list[float]) -> Iterator[None]:
    """Asks for a path again and again meanwhile, 50 times a second."""
    done = threading.Event()
    host = urlsplit(base_url).netloc

    def poll() -> None:
        connection = HTTPConnection(host, timeout=30)
        while not done.wait(0.02):
            started = time.perf_counter()
            connection.request("GET", path)
            connection.getresponse().read()
            latencies.append(time.perf_counter() - started)
        connection.close()

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def measure_upload(stack: Stack, uploader: Uploader, seconds: int, turns: int, folder: Path) -> list[Row]:
    wav = folder / f"{seconds}.wav"
    with wav.open("wb") as file:
        layout = Wav()
        for piece in layout.stream(len(layout.header(0)) + seconds * 44100 * 4, music(60)):
            file.write(piece)
    records = Process(stack.pid("records"))
    idle_mib = records.memory_mib("VmRSS")
    ours: list[float] = []
    ffmpegs: list[float] = []
    pydubs: list[float] = []
    cpu: list[float] = []
    latencies: list[float] = []
    records.forget_peak()
    for _ in range(turns):
        before = records.cpu_seconds()
        with polled(f"http://127.0.0.1:{stack.ports.records}", "/healthz", latencies):
            record, whole, _ = uploader.upload(wav)
        ours.append(whole)
        cpu.append(records.cpu_seconds() - before)
        ffmpegs.append(seconds_of(run_ffmpeg, wav, folder / "ffmpeg.mp3"))
        pydubs.append(run_pydub(wav, folder / "pydub.mp3"))
    peak_mib = records.memory_mib("VmHWM")
    _, _, last_byte = uploader.upload(wav, SLOW_BYTES_PER_SECOND)
    name = f"{seconds} s" if seconds < 600 else f"{seconds // 60} min"
    rows = [
        (
            f"{name}: request → 201 / ffmpeg",
            f"{min(ours) / min(ffmpegs):.2f}",
            f"{min(ours):.3f} s / {min(ffmpegs):.3f} s",
        ),
        (
            f"{name}: request → 201 / pydub",
            f"{min(ours) / min(pydubs):.2f}",
            f"{min(ours):.3f} s / {min(pydubs):.3f} s",
        ),
        (
            f"{name}: memory of records over idle",
            f"{peak_mib - idle_mib:.0f} MiB",
            f"idle {idle_mib:.0f} MiB, peak {peak_mib:.0f} MiB",
        ),
        (
            f"{name}: CPU of records",
            f"{min(cpu):.2f} s",
            f"{3600 / seconds * min(cpu):.1f} s an hour of audio",
        ),
        (f"{name}: last byte → 201 at 10 MB/s", f"{last_byte:.3f} s", "one upload"),
        (
            f"{name}: /healthz of records meanwhile, p99",
            f"{np.percentile(latencies, 99) * 1000:.1f} ms",
            f"p50 {np.percentile(latencies, 50) * 1000:.1f} ms, {len(latencies)} requests",
        ),
    ]
    if seconds <= LONGEST_JUDGED_SECONDS:
        with Client(stack.base_url) as client:
            mine = snr_db(wav, client.download(record["url"]))
        theirs = snr_db(wav, (folder / "ffmpeg.mp3").read_bytes())
        rows.append(
            (
                f"{name}: SNR, ours less ffmpeg's",
                f"{mine - theirs:+.2f} dB",
                f"{mine:.2f} dB, {theirs:.2f} dB",
            )
        )
    wav.unlink()
    return rows


def describe_machine() -> str:
    model = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    return f"{os.cpu_count()} cores ({model}), Python {platform.python_version()}, Linux {platform.release()}"


def write_results(rows: list[Row], command: str) -> None:
    lines = [
        "# The last full run",
        "",
        f"`{command}` on {datetime.now(UTC):%Y-%m-%d}, {describe_machine()}.",
        "",
        "Ratios are of the fastest of several turns that alternate in one run; the times are of this",
        "machine, which is shared and noisy. SNR: of the decoded MP3 against its source at the best lag,",
        "whatever the level.",
        "",
        "| what | result | from |",
        "|---|---|---|",
        *(f"| {what} | {result} | {origin} |" for what, result, origin in rows),
        "",
    ]
    RESULTS.write_text("\n".join(lines), encoding="utf-8")


def main(arguments: list[str]) -> None:
    """Measures everything, prints a table, and with --keep writes RESULTS.md."""
    parser = argparse.ArgumentParser(prog="just bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only the short recordings, one turn each")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--keep", action="store_true", help="write RESULTS.md")
    options = parser.parse_args(arguments)
    if not shutil.which("wrk"):
        sys.exit("bench: the downloads are measured with wrk; install it (`apt install wrk`)")
    plan = [(10, 1), (60, 1)] if options.quick else [(10, 7), (60, 5), (600, 2), (3600, 1)]
    rows: list[Row] = []

    def show(found: list[Row]) -> None:
        for what, result, origin in found:
            print(f"{what:<48} {result:>10}   {origin}", flush=True)
        rows.extend(found)

    with tempfile.TemporaryDirectory(prefix="waxwing-bench-") as name:
        folder = Path(name)
        stack = Stack(folder / "stack", Ports.free())
        stack.start(print)
        try:
            with Client(stack.base_url) as client:
                user = client.create_user("Bench")
            uploader = Uploader(stack.base_url, user["token"])
            for seconds, turns in plan:
                show(measure_upload(stack, uploader, seconds, turns, folder))
            show(measure_downloads(stack, user["token"], 2 if options.quick else 10))
            show(measure_users(stack, 2 if options.quick else 10))
        finally:
            stack.stop()
    if options.json:
        options.json.write_text(
            json.dumps([dict(zip(("what", "result", "from"), row, strict=True)) for row in rows], indent=1)
        )
    if options.keep:
        write_results(rows, "./just bench --keep")


if __name__ == "__main__":
    main(sys.argv[1:])
