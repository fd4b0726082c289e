"""What the bench measures with uploads: one at a time, many at once, and a short one beside a long one."""

import json
import math
import subprocess
import sys
import threading
import time
import wave
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import imageio_ffmpeg
import numpy as np
import psutil

from deploy.client import Client
from deploy.local.stack import Stack
from records.audio.encoder import Encoder
from records.heap import QUIET_SECONDS
from tests.bench.results import Row
from tests.decoding import compare, decode
from tests.stacks import temporary_stack
from tests.wavs import Wav, music

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
MIB = 1024 * 1024
SLOW_BYTES_PER_SECOND = 10_000_000
# Longer recordings have no SNR, because comparing them takes gigabytes of memory.
LONGEST_COMPARED_SECONDS = 60
PYDUB = """
import sys, time
from pydub import AudioSegment

def memory_kib(name):
    return next(line for line in open("/proc/self/status") if line.startswith(name)).split()[1]

AudioSegment.converter = sys.argv[1]
idle, started = memory_kib("VmRSS"), time.perf_counter()
AudioSegment.from_wav(sys.argv[2]).export(sys.argv[3], format="mp3", bitrate="128k")
print(time.perf_counter() - started, idle, memory_kib("VmHWM"))
"""


class Process:
    """CPU time and memory of one process, as the kernel counts them."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._folder = Path(f"/proc/{pid}")

    def cpu_seconds(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)

    def forget_peak(self) -> None:
        (self._folder / "clear_refs").write_text("5")

    def memory_mib(self, name: str) -> float:
        """Returns VmRSS (now) or VmHWM (the peak since `forget_peak`)."""
        lines = (self._folder / "status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024

    def idle_mib(self) -> float:
        """Returns the memory after the process has given back what earlier uploads used."""
        time.sleep(2 * QUIET_SECONDS)
        return self.memory_mib("VmRSS")


class Uploader:
    """Sends files to POST /records over a bare connection, so that the client costs almost nothing."""

    def __init__(self, base_url: str, token: str) -> None:
        self._host = urlsplit(base_url).netloc
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "audio/wav"}

    def upload(
        self, wav: Path, bytes_per_second: int = 0, *, keep_original: bool = False
    ) -> tuple[dict[str, Any], float, float]:
        """Returns the record, and the seconds until the response from the request and from the last byte."""
        connection = HTTPConnection(self._host, timeout=600)
        started = time.perf_counter()
        connection.putrequest("POST", f"/records?keep_original={str(keep_original).lower()}")
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
        finished = time.perf_counter()
        connection.close()
        if response.status != 201:
            raise RuntimeError(f"{response.status}: {record}")
        return record, finished - started, finished - sent


def run_ffmpeg(wav: Path, mp3: Path) -> None:
    subprocess.run(
        [FFMPEG, "-loglevel", "error", "-y", "-i", str(wav), "-b:a", "128k", str(mp3)],
        check=True,
        timeout=600,
    )


def run_pydub(wav: Path, mp3: Path) -> tuple[float, float, float]:
    """Converts as similar services do, with pydub in its own process; its start and imports do not count.

    Returns the seconds, and the memory of the process in MiB at its start and at its peak.
    """
    arguments = [sys.executable, "-W", "ignore", "-c", PYDUB, FFMPEG, str(wav), str(mp3)]
    done = subprocess.run(arguments, check=True, capture_output=True, text=True, timeout=900)
    seconds, idle_kib, peak_kib = map(float, done.stdout.split())
    return seconds, idle_kib / 1024, peak_kib / 1024


def run_lameenc(wav: Path) -> tuple[float, float]:
    """Encodes with LAME alone on one thread; returns seconds and CPU seconds."""
    with wave.open(str(wav), "rb") as file:
        pcm = file.readframes(file.getnframes())
    started, cpu = time.perf_counter(), time.process_time()
    encoder = Encoder(44100, 2, 128)
    size = 2 * 44100 * 4
    for start in range(0, len(pcm), size):
        encoder.encode(pcm[start : start + size])
    encoder.finish()
    return time.perf_counter() - started, time.process_time() - cpu


def make_wav(seconds: int, folder: Path) -> Path:
    """Writes a WAV of this many seconds of music."""
    wav = folder / f"{seconds}.wav"
    with wav.open("wb") as file:
        layout = Wav()
        for piece in layout.stream(len(layout.header(0)) + seconds * 44100 * 4, music(60)):
            file.write(piece)
    return wav


def name_of(seconds: int) -> str:
    """The name of a recording in the table."""
    return f"{seconds} s" if seconds < 600 else f"{seconds // 60} min"


def seconds_of(function: Callable[..., None], *arguments: Any) -> float:
    started = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - started


def snr_db(wav: Path, mp3: bytes) -> float:
    """Computes from the correlation how far the error lies below the source in dB, whatever the level."""
    found = compare(decode(wav.read_bytes(), "wav"), decode(mp3))
    return -10 * math.log10(1 - found.correlation**2)


@contextmanager
def repeated(step: Callable[[], None], pause: float) -> Iterator[None]:
    """Repeats a step on another thread, with a pause in seconds before each time."""
    done = threading.Event()

    def run() -> None:
        while not done.wait(pause):
            step()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@contextmanager
def polled(base_url: str, path: str, latencies: list[float]) -> Iterator[None]:
    """Requests a path 50 times a second on another thread, and collects the latencies in seconds."""
    with closing(HTTPConnection(urlsplit(base_url).netloc, timeout=30)) as connection:

        def poll() -> None:
            started = time.perf_counter()
            connection.request("GET", path)
            connection.getresponse().read()
            latencies.append(time.perf_counter() - started)

        with repeated(poll, 0.02):
            yield


class Turns:
    """The seconds that several turns of one recording took."""

    def __init__(self) -> None:
        self.ours: list[float] = []
        self.ours_cpu: list[float] = []
        self.ffmpeg: list[float] = []
        self.pydub: list[float] = []
        self.bare: list[float] = []
        self.bare_cpu: list[float] = []

    def ratio(self, what: str, ours: list[float], theirs: list[float]) -> Row:
        """Returns a row with the ratio of our fastest turn to theirs."""
        return (what, f"{min(ours) / min(theirs):.2f}", f"{min(ours):.3f} s / {min(theirs):.3f} s")


def measure_upload(stack: Stack, uploader: Uploader, seconds: int, turns: int, folder: Path) -> list[Row]:
    """Uploads one recording at a time, in turn with ffmpeg, pydub and bare LAME."""
    wav = make_wav(seconds, folder)
    records = Process(stack.pid("records"))
    idle_mib = records.idle_mib()
    took = Turns()
    latencies: list[float] = []
    records.forget_peak()
    for _ in range(turns):
        before = records.cpu_seconds()
        with polled(f"http://127.0.0.1:{stack.ports.records}", "/healthz", latencies):
            record, whole, _ = uploader.upload(wav)
        took.ours.append(whole)
        took.ours_cpu.append(records.cpu_seconds() - before)
        took.ffmpeg.append(seconds_of(run_ffmpeg, wav, folder / "ffmpeg.mp3"))
        pydub_seconds, pydub_idle_mib, pydub_peak_mib = run_pydub(wav, folder / "pydub.mp3")
        took.pydub.append(pydub_seconds)
        bare, bare_cpu = run_lameenc(wav)
        took.bare.append(bare)
        took.bare_cpu.append(bare_cpu)
    peak_mib = records.memory_mib("VmHWM")
    _, _, last_byte = uploader.upload(wav, SLOW_BYTES_PER_SECOND)
    name = name_of(seconds)
    rows = [
        took.ratio(f"{name}: request → 201 / ffmpeg", took.ours, took.ffmpeg),
        took.ratio(f"{name}: request → 201 / pydub", took.ours, took.pydub),
        took.ratio(f"{name}: request → 201 / bare lameenc, one thread", took.ours, took.bare),
        took.ratio(f"{name}: CPU of records / bare lameenc", took.ours_cpu, took.bare_cpu),
        (
            f"{name}: memory of records over idle",
            f"{peak_mib - idle_mib:.0f} MiB",
            f"idle {idle_mib:.0f} MiB, peak {peak_mib:.0f} MiB",
        ),
        (
            f"{name}: memory of pydub over its start",
            f"{pydub_peak_mib - pydub_idle_mib:.0f} MiB",
            f"start {pydub_idle_mib:.0f} MiB, peak {pydub_peak_mib:.0f} MiB; its ffmpeg does not count",
        ),
        (f"{name}: last byte → 201 at 10 MB/s", f"{last_byte:.3f} s", "one upload"),
        (
            f"{name}: /healthz of records meanwhile, p99",
            f"{np.percentile(latencies, 99) * 1000:.1f} ms",
            f"p50 {np.percentile(latencies, 50) * 1000:.1f} ms, {len(latencies)} requests",
        ),
    ]
    if seconds <= LONGEST_COMPARED_SECONDS:
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


def measure_original(stack: Stack, uploader: Uploader, seconds: int, turns: int, folder: Path) -> list[Row]:
    """Uploads one recording in turn with and without keeping its original."""
    wav = make_wav(seconds, folder)
    records = Process(stack.pid("records"))
    processes = [records, Process(stack.pid("minio"))]
    took: dict[bool, list[float]] = {False: [], True: []}
    cpu: dict[bool, list[float]] = {False: [], True: []}
    peaks_mib = {False: 0.0, True: 0.0}
    for _ in range(turns):
        for keep_original, seconds_each in took.items():
            records.idle_mib()
            records.forget_peak()
            before = sum(process.cpu_seconds() for process in processes)
            seconds_each.append(uploader.upload(wav, keep_original=keep_original)[1])
            cpu[keep_original].append(sum(process.cpu_seconds() for process in processes) - before)
            peaks_mib[keep_original] = max(peaks_mib[keep_original], records.memory_mib("VmHWM"))
    _, _, last_byte = uploader.upload(wav, SLOW_BYTES_PER_SECOND, keep_original=True)
    wav.unlink()
    name = f"{name_of(seconds)} with its original"
    return [
        Turns().ratio(f"{name} / without", took[True], took[False]),
        Turns().ratio(f"{name}: CPU of records and MinIO / without", cpu[True], cpu[False]),
        (f"{name}: last byte → 201 at 10 MB/s", f"{last_byte:.3f} s", "one upload"),
        (
            f"{name}: memory of records over without",
            f"{peaks_mib[True] - peaks_mib[False]:.0f} MiB",
            f"{peaks_mib[True]:.0f} MiB, {peaks_mib[False]:.0f} MiB",
        ),
    ]


def measure_crowd(stack: Stack, uploader: Uploader, count: int, turns: int, folder: Path) -> list[Row]:
    """Uploads many recordings of 60 s at once, in turn with bare LAME, which gives the best possible time."""
    wav = make_wav(60, folder)
    records = Process(stack.pid("records"))
    threads = psutil.cpu_count() or 1
    bare: list[float] = []
    took: list[float] = []
    idle_mib = records.idle_mib()
    records.forget_peak()
    with ThreadPoolExecutor(count) as pool:
        for _ in range(turns):
            bare += [run_lameenc(wav)[0] for _ in range(3)]
            started = time.perf_counter()
            list(pool.map(lambda _: uploader.upload(wav), range(count)))
            took.append(time.perf_counter() - started)
    best = count * min(bare) / threads
    peak_mib = records.memory_mib("VmHWM")
    wav.unlink()
    name = f"{count} x 60 s at once"
    return [
        (
            f"{name} / ({count} x bare / {threads} cores)",
            f"{min(took) / best:.2f}",
            f"{min(took):.3f} s / {best:.3f} s",
        ),
        (
            f"{name}: memory of records over idle",
            f"{peak_mib - idle_mib:.0f} MiB",
            f"idle {idle_mib:.0f} MiB, peak {peak_mib:.0f} MiB",
        ),
    ]


def measure_beside(uploader: Uploader, long_seconds: int, folder: Path) -> list[Row]:
    """Uploads a recording of 10 s, alone and beside a long one."""
    short, long = make_wav(10, folder), make_wav(long_seconds, folder)
    alone = min(uploader.upload(short)[1] for _ in range(7))
    beside: list[float] = []
    other = threading.Thread(target=uploader.upload, args=[long])
    other.start()
    time.sleep(1)
    while other.is_alive():
        took = uploader.upload(short)[1]
        if other.is_alive():
            beside.append(took)
    other.join()
    short.unlink()
    long.unlink()
    found = np.median(beside) if beside else float("nan")
    return [
        (
            f"10 s beside {name_of(long_seconds)} / alone",
            f"{found / alone:.2f}",
            f"median of {len(beside)}: {found:.3f} s / {alone:.3f} s",
        )
    ]


def measure_memory_after(
    stack: Stack, uploader: Uploader, count: int, folder: Path
) -> tuple[list[Row], list[dict[str, Any]]]:
    """Measures the memory that stays in use after many uploads of 10 min; returns the records, too."""
    wav = make_wav(600, folder)
    process = Process(stack.pid("records"))
    idle_mib = process.idle_mib()
    with ThreadPoolExecutor(4) as pool:
        records = [record for record, _, _ in pool.map(lambda _: uploader.upload(wav), range(count))]
    after_mib = process.idle_mib()
    wav.unlink()
    row = (
        f"memory of records after {count} x 10 min, over idle",
        f"{after_mib - idle_mib:.0f} MiB",
        f"idle {idle_mib:.0f} MiB, after {after_mib:.0f} MiB",
    )
    return [row], records


def measure_serial(parallel: Stack, seconds: int, turns: int, folder: Path) -> list[Row]:
    """Compares the CPU time of a service with all threads and of one with a single encoder thread."""
    wav = make_wav(seconds, folder)
    cpu: dict[str, list[float]] = {"parallel": [], "serial": []}
    with temporary_stack({"ENCODER_THREADS": "1"}) as serial:
        stacks = {"parallel": parallel, "serial": serial}
        uploaders: dict[str, Uploader] = {}
        for kind, stack in stacks.items():
            with Client(stack.base_url) as client:
                uploaders[kind] = Uploader(stack.base_url, client.create_user("Serial")["token"])
        for _ in range(turns):
            for kind, stack in stacks.items():
                records = Process(stack.pid("records"))
                before = records.cpu_seconds()
                uploaders[kind].upload(wav)
                cpu[kind].append(records.cpu_seconds() - before)
    wav.unlink()
    return [Turns().ratio(f"{name_of(seconds)}: CPU, all threads / one", cpu["parallel"], cpu["serial"])]
