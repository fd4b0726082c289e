"""`just drill-instances`: several instances of each service do the work of one, and agree at once.

They are restarted in turn under load. One key is sent to three instances at once, and a new token or a
deleted user counts everywhere at once. Then the same work is given to 1, 2 and 4 instances.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from deploy.client import Client
from deploy.local.ports import LOOPBACK
from deploy.local.stack import Stack
from tests.bench.downloads import rate
from tests.bench.results import Row, write_results
from tests.bench.uploads import Uploader, make_wav
from tests.integration.steady_load import SteadyLoad
from tests.stacks import temporary_stack
from tests.upload_requests import TINY_WAV, WAV_TYPE, bearer

INSTANCES = {"USERS": "2", "RECORDS": "3"}
# Each instance encodes on one core, so that a second one can use the second core.
COUNTS = (1, 2, 4)
UPLOADS_AT_ONCE = 8
RATE_SECONDS = 5
NOTE = """\
All instances share two cores with PostgreSQL, MinIO, the gateway and the clients. So the curve shows what
further instances cost here, and not what they bring on further machines.
"""


def restart_in_turn(stack: Stack) -> Row:
    """Restarts each instance under load, and counts the statuses."""
    with Client(stack.base_url) as client:
        load = SteadyLoad(stack, client.create_user("Drill"))
    names = [name for service in ("users", "records") for name in stack.ports.instances(service)]
    with load.running():
        for name in names:
            stack.stop_process(name)
            load.wait()
            stack.start_process(name)
            load.wait()
    load.check()
    refused = load.seen["upload", 503]
    return (
        f"requests that failed while {len(names)} instances were restarted in turn, but for uploads",
        "0",
        f"of {load.seen.total() - refused:,}; {refused} uploads got 503 and were repeated",
    )


def send_one_key_to_all(stack: Stack, times: int = 40) -> Row:
    """Sends the same upload with the same key to all instances of records at once."""
    with Client(stack.base_url) as client:
        user = client.create_user("Drill")
    urls = [f"http://{LOOPBACK}:{stack.ports.of(name)}/records" for name in stack.ports.instances("records")]
    seen = Counter[tuple[int, ...]]()
    with httpx.Client(trust_env=False) as http, ThreadPoolExecutor(len(urls)) as threads:

        def upload(url: str, key: str) -> int:
            headers = {**bearer(user), **WAV_TYPE, "Idempotency-Key": key}
            return http.post(url, content=TINY_WAV, headers=headers).status_code

        for _ in range(times):
            statuses = threads.map(upload, urls, [str(uuid4())] * len(urls))
            seen[tuple(sorted(statuses))] += 1
        listed = http.get(urls[0], headers=bearer(user), params={"limit": 100}).json()["records"]
    if len(listed) != times:
        sys.exit(f"drill-instances: {times} keys made {len(listed)} records")
    shown = ", ".join(f"{count} x {'/'.join(map(str, statuses))}" for statuses, count in seen.most_common())
    return (f"records of {times} keys, each sent to {len(urls)} instances at once", str(len(listed)), shown)


def change_users(stack: Stack, times: int = 40) -> Iterator[Row]:
    """Replaces tokens and deletes users at one instance, and asks all others at once."""
    users = [f"http://{LOOPBACK}:{stack.ports.of(name)}" for name in stack.ports.instances("users")]
    records = [f"http://{LOOPBACK}:{stack.ports.of(name)}" for name in stack.ports.instances("records")]
    late = Counter[str]()
    with Client(stack.base_url) as client, httpx.Client(trust_env=False) as http:

        def count_accepted(what: str, user: dict[str, Any]) -> None:
            for url in (*(f"{each}/users/me" for each in users), *(f"{each}/records" for each in records)):
                late[what] += http.get(url, headers=bearer(user)).is_success

        for number in range(times):
            user = client.create_user("Drill")
            record = client.upload_stream([TINY_WAV], user["token"])
            url = users[number % len(users)]
            renewed = http.post(f"{url}/users/me/token", headers=bearer(user)).raise_for_status().json()
            count_accepted("an old token", user)
            http.delete(f"{url}/users/me", headers=bearer(renewed)).raise_for_status()
            count_accepted("the token of a deleted user", renewed)
            for each in records:
                link = {"id": record["id"], "user": user["id"]}
                late["the link of a deleted user"] += http.get(f"{each}/record", params=link).is_success
    if late.total():
        sys.exit(f"drill-instances: instances went on with what no longer counts: {dict(late)}")
    for what in ("an old token", "the token of a deleted user", "the link of a deleted user"):
        yield (f"instances that still took {what}", str(late[what]), f"{times} users, asked at once")


def measure_curve(folder: Path) -> Iterator[Row]:
    """Gives the same work to more and more instances."""
    wav = make_wav(60, folder)
    fewest: dict[str, float] = {}
    for count in COUNTS:
        settings = {"RECORDS": str(count), "ENCODER_THREADS": "1", "MAX_UPLOADS_PER_USER": "32"}
        with temporary_stack(settings) as stack, Client(stack.base_url) as client:
            user = client.create_user("Drill")
            uploader = Uploader(stack.base_url, user["token"])
            with ThreadPoolExecutor(UPLOADS_AT_ONCE) as threads:
                started = time.perf_counter()
                list(threads.map(lambda _: uploader.upload(wav), range(2 * UPLOADS_AT_ONCE)))  # noqa: B023
                uploads = 2 * UPLOADS_AT_ONCE * 60 / (time.perf_counter() - started)
            record = client.upload_stream([TINY_WAV], user["token"])
            checks = rate(record["url"], RATE_SECONDS, "-H", "If-None-Match: *")
        for what, now, unit in (
            ("seconds of audio a second", uploads, "s/s"),
            ("checks of links a second", checks, "/s"),
        ):
            ratio = now / fewest.setdefault(what, now)
            yield (f"{count} x records / 1 x records: {what}", f"{ratio:.2f}", f"{now:,.0f} {unit}")


def drill() -> Iterator[Row]:
    """Runs everything and yields the rows."""
    with temporary_stack(INSTANCES, say=print) as stack:
        yield restart_in_turn(stack)
        yield send_one_key_to_all(stack)
        yield from change_users(stack)
    with tempfile.TemporaryDirectory(prefix="waxwing-drill-") as folder:
        yield from measure_curve(Path(folder))


def main(arguments: list[str]) -> None:
    """Runs the drill, prints a table, and with --keep writes RESULTS.md."""
    parser = argparse.ArgumentParser(prog="just drill-instances", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="write RESULTS.md")
    options = parser.parse_args(arguments)
    rows = []
    for row in drill():
        rows.append(row)
        print("{:<90} {:>8}   {}".format(*row), flush=True)
    if options.keep:
        write_results(rows, "The last drill with several instances", "./just drill-instances --keep", NOTE)


if __name__ == "__main__":
    main(sys.argv[1:])
