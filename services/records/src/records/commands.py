"""The operator's commands: `python -m records doctor`, `status` and `remove`.

They work with the settings of the service, whether the service runs or not. The exit status of the doctor is
0 if nothing was found, 1 if something was found (even if it is repaired now), and 2 if the doctor could not
look or repair. The exit status of `status` is 0 if every part is ready, 1 if not, and 2 if a setting is
wrong. The exit status of `remove` is 0 if all records are deleted, 1 if one was not there, and 2 if it
ended early.
"""

import argparse
import asyncio
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

import asyncpg
import msgspec
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from common.audit import audit_operator
from common.console import drop_output, make_printable
from common.db import make_engine
from common.poolers import refuse_pooler
from common.problems import Problem
from common.servers import Servers
from common.settings import SettingsError, load
from records import sql
from records.doctor import REPAIRS, Doctor, DoctorError, Finding, Kind
from records.links import NamedRecord, parse_record
from records.settings import Settings
from records.status import Addresses, describe, read_status
from records.storage import open_store
from records.sweeper import longest_late_put

CLEAN, FOUND, FAILED = 0, 1, 2
READY, NOT_READY = 0, 1
REMOVED, NOT_THERE = 0, 1
# PostgreSQL sorts all rows once.
STATEMENT_TIMEOUT_SECONDS = 3600
# One connection reads all rows, the other one looks at single rows.
POOL_SIZE = 2
# Bounds the memory. The next run repairs the rest.
MAX_REPAIRS = 10_000
# If most rows have no object, or most objects no row, bucket and database probably do not belong together.
MANY_FINDINGS = 100
# What a finding is a share of, by the names of the doctor's counts.
SHARES: dict[Kind, str] = {
    "orphan": "objects",
    "lost-object": "ready",
    "lost-original": "originals",
    "lost-waveform": "waveforms",
}
ROW = "{:<22}  {:<82}  {}"
EXPECTED_ERRORS = (SettingsError, DoctorError, Problem, asyncpg.PostgresError, SQLAlchemyError)


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Runs the command and returns its exit status."""
    options = _parse(arguments)
    if options.command == "doctor" and options.repair and not options.yes and not sys.stdin.isatty():
        return _fail("without a terminal --repair needs --yes")
    commands = {"doctor": _run_doctor, "status": _show_status, "remove": _remove_records}
    try:
        status = asyncio.run(commands[options.command](options, load(Settings, environ)))
        # Without standard output there is nothing to flush.
        print(end="", flush=True)
    except EXPECTED_ERRORS as error:
        return _fail(_explain(error))
    except KeyboardInterrupt:
        return _fail("interrupted")
    except BrokenPipeError:
        drop_output()
        return FAILED
    except Exception:
        # Python's own status for an exception is 1, which means a finding here.
        traceback.print_exc()
        return FAILED
    return status


def _fail(message: str) -> int:
    print(f"waxwing: {message}", file=sys.stderr)
    return FAILED


def _explain(error: Exception) -> str:
    match error:
        case SettingsError():
            return f"wrong setting: {error}"
        case Problem():
            return error.detail
        case DoctorError():
            return str(error)
    # The first line is enough: behind it SQLAlchemy puts the statement.
    return f"PostgreSQL refuses: {str(error).splitlines()[0]}"


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m records", description="Without a command, runs the records service."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    doctor = commands.add_parser("doctor", help="compare the database with the bucket")
    doctor.add_argument("--deep", action="store_true", help="also read every object and check its content")
    doctor.add_argument(
        "--rate", type=_parse_rate, metavar="BYTES_PER_SECOND", help="read at most so fast, with --deep"
    )
    doctor.add_argument(
        "--repair",
        action="store_true",
        help="remove objects and multipart uploads without a row, mark records whose object is lost, and"
        " forget lost originals and waveforms",
    )
    doctor.add_argument("--yes", action="store_true", help="repair without asking")
    doctor.add_argument("--json", action="store_true", help="one JSON object a line")
    status = commands.add_parser("status", help="show how the whole deployment is")
    # The names of the containers.
    for name, port in (("users", 8000), ("records", 8000), ("gateway", 8081)):
        status.add_argument(
            f"--{name}", default=f"{name}:{port}", metavar="HOST:PORT", help=f"where {name} is"
        )
    status.add_argument(
        "--gateway-uptime-seconds", type=int, metavar="SECONDS", help="what nginx does not say"
    )
    status.add_argument(
        "--cache-free-bytes", type=int, metavar="BYTES", help="what the disk of the cache has"
    )
    status.add_argument("--json", action="store_true", help="one JSON object")
    remove = commands.add_parser("remove", help="delete records of any user")
    remove.add_argument("records", metavar="RECORD", type=parse_record, nargs="+", help="the link, or the id")
    options = parser.parse_args(arguments)
    if options.command != "doctor":
        return options
    if options.rate and not options.deep:
        doctor.error("--rate needs --deep")
    if options.yes and not options.repair:
        doctor.error("--yes needs --repair")
    return options


def _parse_rate(text: str) -> int:
    if (rate := int(text)) < 1:
        raise ValueError(text)
    return rate


async def _remove_records(options: argparse.Namespace, settings: Settings) -> int:
    # A signal ends the command between two records, so that each deletion has its audit line.
    ending = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ending.set)
    engine = make_engine(settings.database_url, settings.database_password)
    named: list[NamedRecord] = options.records
    status = REMOVED
    try:
        while named and not ending.is_set():
            if not await _remove_record(engine, named[0], settings.audit_file):
                status = NOT_THERE
            del named[0]
    except OSError as error:
        # The output fails behind the deletion of the first one.
        drop_output()
        return _fail(f"{error.strerror}; not deleted: {_list_ids(named[1:])}")
    except EXPECTED_ERRORS as error:
        return _fail(f"{_explain(error)} Not deleted: {_list_ids(named)}")
    finally:
        await engine.dispose()
    return _fail(f"interrupted; not deleted: {_list_ids(named)}") if named else status


async def _remove_record(engine: AsyncEngine, named: NamedRecord, audit_file: str) -> bool:
    removed = await sql.delete_any_record(engine, *named)
    if removed:
        # The id of the record would make a link, which a backup of the deployment might still have.
        details = {"created_at": removed.created_at}
        audit_operator(audit_file, "remove-record", removed.user_id, **details)
        print(f"{named.record_id} of the user {removed.user_id} is deleted", flush=True)
    else:
        owner = f" of the user {named.user_id}" if named.user_id else ""
        print(f"waxwing: there is no record {named.record_id}{owner}", file=sys.stderr)
    return bool(removed)


def _list_ids(named: Sequence[NamedRecord]) -> str:
    return " ".join(str(each.record_id) for each in named) or "none"


async def _show_status(options: argparse.Namespace, settings: Settings) -> int:
    engine = make_engine(settings.database_url, settings.database_password, pool_size=POOL_SIZE)
    try:
        status = await read_status(
            engine,
            settings.store,
            Addresses(options.users, options.records, options.gateway),
            gateway_uptime_seconds=options.gateway_uptime_seconds,
            cache_free_bytes=options.cache_free_bytes,
        )
    finally:
        await engine.dispose()
    if options.json:
        _print_json(status)
    else:
        print(describe(status))
    return READY if status.is_ready else NOT_READY


async def _run_doctor(options: argparse.Namespace, settings: Settings) -> int:
    await refuse_pooler(Servers(settings.database_url, settings.database_password), "the doctor")
    engine = make_engine(
        settings.database_url, settings.database_password, STATEMENT_TIMEOUT_SECONDS, POOL_SIZE
    )
    began_at = datetime.now(UTC)
    try:
        async with open_store(settings.store) as store:
            min_age = longest_late_put(settings.lease_seconds)
            doctor = Doctor(engine, store, min_age, is_deep=options.deep, bytes_per_second=options.rate)
            status, summary = await _examine(doctor, options)
    except EXPECTED_ERRORS as error:
        await sql.note_run(engine, "doctor", began_at, "failed", _explain(error))
        raise
    else:
        await sql.note_run(engine, "doctor", began_at, "found" if status else "clean", summary)
        return status
    finally:
        await engine.dispose()


async def _examine(doctor: Doctor, options: argparse.Namespace) -> tuple[int, str]:
    """Returns the exit status, and a line that says what was seen."""
    started = time.monotonic()
    findings: Counter[str] = Counter()
    repairable: list[Finding] = []
    async with aclosing(doctor.look()) as found:
        async for finding in found:
            if not findings and not options.json:
                print(ROW.format("FINDING", "OBJECT KEY", "DETAIL"))
            findings[finding.kind] += 1
            _show(finding, as_json=options.json)
            if options.repair and finding.kind in REPAIRS and len(repairable) < MAX_REPAIRS:
                repairable.append(finding)
    repaired: Counter[str] = Counter()
    if repairable and _may_repair(options, findings, doctor.seen):
        for finding in repairable:
            if await doctor.repair(finding):
                repaired[finding.kind] += 1
                if options.json:
                    _print_json({"repaired": finding.kind, "object_key": finding.object_key})
    seconds = time.monotonic() - started
    if options.json:
        counts = {"findings": findings, "repaired": repaired, "seen": doctor.seen}
        _print_json({**counts, "seconds": round(seconds, 3)})
    else:
        print(_summarise(doctor.seen, findings, repaired, seconds))
    summary = f"{_count(doctor.seen['objects'], 'object')}{' read' if options.deep else ''}"
    if findings:
        summary += f", {_count_findings(findings, repaired)}"
    return FOUND if findings else CLEAN, summary


def _may_repair(options: argparse.Namespace, findings: Counter[str], seen: Counter[str]) -> bool:
    """Asks the operator, unless --yes. Raises DoctorError if --yes would repair most of the deployment."""
    plan = Counter[str]()
    for kind, repair in REPAIRS.items():
        plan[repair] += min(findings[kind], MAX_REPAIRS)
    is_most = any(findings[kind] > max(MANY_FINDINGS, seen[of_what] // 2) for kind, of_what in SHARES.items())
    what = ", ".join(f"{count:,} {repair}" for repair, count in plan.items() if count)
    if options.yes:
        if is_most:
            raise DoctorError(
                f"nothing is repaired ({what}): most objects have no row, or most rows no object, so this is"
                " probably the wrong bucket or the wrong database. If it is not, repair on a terminal"
            )
        return True
    warning = " Most of this deployment! Is it the right bucket, and the right database?" if is_most else ""
    print(f"{what}?{warning} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _show(finding: Finding, *, as_json: bool) -> None:
    if as_json:
        _print_json({"finding": finding.kind, "object_key": finding.object_key, "detail": finding.detail})
    else:
        print(ROW.format(finding.kind, make_printable(finding.object_key), finding.detail), flush=True)


def _summarise(seen: Counter[str], findings: Counter[str], repaired: Counter[str], seconds: float) -> str:
    looked_at = (
        f"{_count(seen['ready'], 'record')} ({seen['marked_as_lost']:,} marked as lost, {seen['originals']:,}"
        f" with their original), {_count(seen['uploading'], 'upload')} under way,"
        f" {_count(seen['deleting'], 'tombstone')}; {_count(seen['objects'], 'object')} of"
        f" {_count(seen['bytes'], 'byte')} ({seen['read_bytes']:,} read),"
        f" {_count(seen['multipart_uploads'], 'open multipart upload')}; {seconds:.1f} s"
    )
    if not findings:
        return f"clean: {looked_at}"
    return f"{_count_findings(findings, repaired)}: {looked_at}"


def _count_findings(findings: Counter[str], repaired: Counter[str]) -> str:
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in findings.items())
    return f"{_count(findings.total(), 'finding')} ({kinds}), {repaired.total():,} repaired"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s'[: number != 1]}"


def _print_json(line: Any) -> None:
    print(msgspec.json.encode(line).decode(), flush=True)
