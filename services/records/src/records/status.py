"""Asks every part of a deployment how it is, for one screen (`python -m records status`)."""

import asyncio
import re
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from socket import SOCK_STREAM, gaierror
from typing import NamedTuple
from urllib.parse import urlsplit

import aiohttp
import msgspec
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy.ext.asyncio import AsyncEngine

from common.db import check_database
from common.problems import Problem
from records import sql
from records.settings import StoreSettings
from records.storage import open_store, read_server_metrics

TIMEOUT_SECONDS = 5
ROW = "{:<13}{:<11}{:<28}{:<18}{}"
KILO = 1000
STUB_STATUS = re.compile(r"Active connections: (?P<connections>\d+)")


class Addresses(NamedTuple):
    """Where the parts are, as HOST:PORT, or several of them with commas between.

    All addresses of a host name are instances.
    """

    users: str
    records: str
    gateway: str
    """The inner page of the gateway, which clients do not reach."""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """An instance of a service, or another part of the deployment. What is None is not known."""

    name: str
    state: str
    """`ready`, `not ready` or `away`."""
    detail: str = ""
    version: str | None = None
    uptime_seconds: int | None = None


class Contents(msgspec.Struct, frozen=True, kw_only=True):
    """What PostgreSQL knows."""

    users: int
    records: int
    mp3_bytes: int
    original_bytes: int
    tombstones: int
    oldest_tombstone_seconds: int
    runs: dict[str, sql.LastRun]


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The whole deployment. Sums count the instances that respond; what is None is not known."""

    parts: list[Part]
    uploads_under_way: int
    uploads_waiting: int
    upload_slots: int
    contents: Contents | None
    """None while PostgreSQL is away."""
    store_free_bytes: int | None
    cache_free_bytes: int | None

    @property
    def is_ready(self) -> bool:
        """Whether every part is ready."""
        return all(part.state == "ready" for part in self.parts)


class _Metrics:
    """What a process says of itself to Prometheus."""

    def __init__(self, text: str) -> None:
        families = text_string_to_metric_families(text)
        self._samples = [sample for family in families for sample in family.samples]

    def number(self, name: str) -> int | None:
        """Returns the value of a metric without labels, or the sum of its series."""
        values = [sample.value for sample in self._samples if sample.name == name]
        return int(sum(values)) if values else None

    def number_of(self, server: str, name: str) -> int | None:
        """Returns the value of a metric that each node of MinIO has, for one node."""
        values = {each.labels.get("server"): each.value for each in self._samples if each.name == name}
        # A node that is alone may call itself otherwise than its endpoint does.
        found = values.get(server) if len(values) > 1 else next(iter(values.values()), None)
        return None if found is None else int(found)

    def label(self, name: str, label: str) -> str | None:
        """Returns a label of a metric."""
        return next((sample.labels[label] for sample in self._samples if sample.name == name), None)


async def read_status(
    engine: AsyncEngine,
    store: StoreSettings,
    addresses: Addresses,
    *,
    gateway_uptime_seconds: int | None = None,
    cache_free_bytes: int | None = None,
) -> Status:
    """Asks all parts at the same time, each for a few seconds at most.

    The caller knows, if anybody does, since when nginx runs and how much room the disk of its cache has.
    """
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)) as session:
        gateway, users, records, nodes, (postgres, contents) = await asyncio.gather(
            _ask_gateway(session, addresses.gateway, gateway_uptime_seconds),
            _ask_service(session, "users", addresses.users),
            _ask_service(session, "records", addresses.records),
            _ask_store(session, store),
            _ask_postgres(engine),
        )
    uploads = [metrics for _, metrics in records]
    # Each node knows it of all nodes.
    free_bytes = (metrics.number("minio_cluster_capacity_usable_free_bytes") for _, metrics in nodes)
    return Status(
        parts=[gateway, *(part for part, _ in (*users, *records)), postgres, *(part for part, _ in nodes)],
        uploads_under_way=_sum(uploads, "waxwing_uploads_under_way"),
        uploads_waiting=_sum(uploads, "waxwing_uploads_waiting"),
        upload_slots=_sum(uploads, "waxwing_upload_slots"),
        contents=contents,
        store_free_bytes=next((each for each in free_bytes if each is not None), None),
        cache_free_bytes=cache_free_bytes,
    )


def _sum(instances: list[_Metrics], name: str) -> int:
    return sum(metrics.number(name) or 0 for metrics in instances)


async def _ask_gateway(session: aiohttp.ClientSession, address: str, uptime_seconds: int | None) -> Part:
    try:
        async with session.get(f"http://{address}/stub_status") as response:
            page = STUB_STATUS.match(await response.text())
            version = response.headers.get("Server", "").replace("/", " ")
    except (aiohttp.ClientError, TimeoutError):
        return Part(name="gateway", state="away", detail=f"nothing answers at {address}")
    return Part(
        name="gateway",
        state="ready",
        version=version,
        uptime_seconds=uptime_seconds,
        # One of them is ours.
        detail=f"{int(page['connections']) - 1} connections" if page else "",
    )


async def _ask_service(
    session: aiohttp.ClientSession, name: str, addresses: str
) -> list[tuple[Part, _Metrics]]:
    """Returns each instance with its metrics."""
    found = await asyncio.gather(*(_ask_address(session, name, each) for each in addresses.split(",")))
    return [instance for instances in found for instance in instances]


async def _ask_address(
    session: aiohttp.ClientSession, name: str, address: str
) -> list[tuple[Part, _Metrics]]:
    """Returns the instances of an address. If the host is not known, that counts as one that is away."""
    host, _, port = address.rpartition(":")
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=SOCK_STREAM)
    except gaierror:
        return [(Part(name=name, state="away", detail=f"{host} has no address"), _Metrics(""))]
    addresses = sorted({str(where[0]) for *_, where in found})
    urls = [f"http://[{each}]:{port}" if ":" in each else f"http://{each}:{port}" for each in addresses]
    return await asyncio.gather(*(_ask_instance(session, name, url) for url in urls))


async def _ask_instance(session: aiohttp.ClientSession, name: str, url: str) -> tuple[Part, _Metrics]:
    try:
        async with session.get(f"{url}/metrics") as response:
            metrics = _Metrics(await response.text())
        async with session.get(f"{url}/readyz") as response:
            is_ready = response.status == HTTPStatus.OK
            detail = "" if is_ready else (await response.json(content_type=None))["detail"]
    except (aiohttp.ClientError, TimeoutError, ValueError, KeyError):
        return Part(name=name, state="away", detail=f"nothing answers at {url}"), _Metrics("")
    version = metrics.label("waxwing_build_info", "version")
    python = metrics.label("python_info", "version")
    began = metrics.number("process_start_time_seconds")
    part = Part(
        name=name,
        state="ready" if is_ready else "not ready",
        version=f"{version} (Python {python})",
        uptime_seconds=int(datetime.now(UTC).timestamp()) - began if began else None,
        detail=detail,
    )
    return part, metrics


async def _ask_store(session: aiohttp.ClientSession, settings: StoreSettings) -> list[tuple[Part, _Metrics]]:
    """Returns each node with its metrics."""
    nodes = [msgspec.structs.replace(settings, s3_endpoint=endpoint) for endpoint in settings.endpoints]
    return await asyncio.gather(*(_ask_node(session, node) for node in nodes))


async def _ask_node(session: aiohttp.ClientSession, settings: StoreSettings) -> tuple[Part, _Metrics]:
    metrics = _Metrics(await read_server_metrics(settings.s3_endpoint, session))
    state, detail = "ready", ""
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS), open_store(settings) as store:
            await store.check()
    except (Problem, TimeoutError) as error:
        state, detail = "away", f"{settings.s3_endpoint}: {getattr(error, 'detail', 'no response')}"
    version = metrics.label("minio_software_version_info", "version")
    part = Part(
        name="store",
        state=state,
        version=version and f"MinIO {version}",
        uptime_seconds=metrics.number_of(
            urlsplit(settings.s3_endpoint).netloc, "minio_node_process_uptime_seconds"
        ),
        detail=detail,
    )
    return part, metrics


async def _ask_postgres(engine: AsyncEngine) -> tuple[Part, Contents | None]:
    try:
        row = await sql.measure_all(engine)
        tombstones, oldest = await sql.measure_tombstones(engine)
        runs = await sql.find_runs(engine)
    except Problem as problem:
        return Part(name="postgres", state="away", detail=problem.detail), None
    contents = Contents(
        users=row.users,
        records=row.records,
        mp3_bytes=int(row.mp3_bytes),
        original_bytes=int(row.total_bytes - row.mp3_bytes),
        tombstones=tombstones,
        oldest_tombstone_seconds=int(oldest),
        runs=runs,
    )
    state, detail = "ready", ""
    try:
        await check_database(engine)
    except Problem as problem:
        state, detail = "not ready", problem.detail
    part = Part(
        name="postgres",
        state=state,
        version=row.version,
        uptime_seconds=int(row.uptime_seconds),
        detail=detail,
    )
    return part, contents


def describe(status: Status) -> str:
    """Returns the screen."""
    rows = [("PART", "STATE", "VERSION", "UPTIME", "")]
    for part in status.parts:
        uptime = "" if part.uptime_seconds is None else str(timedelta(seconds=part.uptime_seconds))
        rows.append((part.name, part.state, part.version or "", uptime, part.detail))
    facts = {
        "uploads": f"{status.uploads_under_way} under way, {status.uploads_waiting} waiting,"
        f" {status.upload_slots} slots"
    }
    if found := status.contents:
        facts |= {
            "users": f"{found.users:,}",
            "records": f"{found.records:,}: {_in_bytes(found.mp3_bytes)} of MP3s,"
            f" {_in_bytes(found.original_bytes)} of originals",
            "tombstones": f"{found.tombstones:,}"
            + (
                f", the oldest {timedelta(seconds=found.oldest_tombstone_seconds)}"
                if found.tombstones
                else ""
            ),
        }
    facts["disk free"] = (
        f"store {_in_bytes(status.store_free_bytes)}, cache {_in_bytes(status.cache_free_bytes)}"
    )
    if found:
        facts |= {f"last {name}": _describe_run(found.runs.get(name)) for name in ("backup", "doctor")}
    table = "\n".join(ROW.format(*row).rstrip() for row in rows)
    return "\n".join([table, "", *(f"{name:<13}{fact}" for name, fact in facts.items())])


def _describe_run(run: sql.LastRun | None) -> str:
    if not run:
        return "never"
    ago = timedelta(seconds=int((datetime.now(UTC) - run.ended_at).total_seconds()))
    before = ""
    if run.result == "failed":
        before = f"; the last that succeeded: {run.succeeded_at:%Y-%m-%d %H:%M}" if run.succeeded_at else ""
    return f"{run.ended_at:%Y-%m-%d %H:%M} UTC, {ago} ago: {run.result} ({run.summary}){before}"


def _in_bytes(size: int | None) -> str:
    """Returns a size for people, in decimal units."""
    if size is None:
        return "unknown"
    number, unit = float(size), "bytes"
    for larger in ("kB", "MB", "GB", "TB", "PB"):
        if number < KILO:
            break
        number, unit = number / KILO, larger
    return f"{number:,.0f} {unit}" if unit == "bytes" else f"{number:,.1f} {unit}"
