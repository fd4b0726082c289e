"""The operator's commands: `python -m users list`, `add`, `block`, `unblock`, `token` and `quota`.

They work on the database with the settings of the service, whether the service runs or not.
"""

import argparse
import asyncio
import re
import sys
from argparse import ArgumentTypeError
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncEngine

from common.audit import audit_operator
from common.console import drop_output, make_printable, use_utf8
from common.db import make_engine
from common.problems import Problem
from common.quotas import UNLIMITED
from common.settings import SettingsError, load
from common.text import normalise_text, parse_uuid
from users.openapi import MAX_NAME_LENGTH
from users.settings import Settings
from users.sql import (
    UnknownUserError,
    create_user,
    list_users,
    replace_token,
    set_blocked,
    set_quotas,
)

# PostgreSQL sorts all users for the list.
STATEMENT_TIMEOUT_SECONDS = 600
ALL_USERS = "`./just users`, or the command `list`, shows all users"
TABLE_ROW = "{:<36}  {:<16}  {:>9}  {:>15}  {:>11}  {:<7}  {}"
TABLE_HEAD = TABLE_ROW.format("ID", "CREATED (UTC)", "RECORDS", "BYTES", "SECONDS", "BLOCKED", "NAME")


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> None:
    """Runs one command. Exits with a message if it fails."""
    options = _parse(arguments)
    use_utf8()
    try:
        settings = load(Settings, environ)
        asyncio.run(_run(options, settings))
        sys.stdout.flush()
    except SettingsError as error:
        sys.exit(f"waxwing: wrong setting: {error}")
    except UnknownUserError as error:
        sys.exit(f"waxwing: no user has the id {error}: {ALL_USERS}")
    except Problem as problem:
        sys.exit(f"waxwing: {problem.detail}")
    except BrokenPipeError:
        drop_output()


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m users", description="Without a command, runs the users service."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list", help="list the users with their use, newest first")
    listing.add_argument("--json", action="store_true", help="one JSON object a line")
    commands.add_parser("add", help="create a user").add_argument("name", metavar="NAME")
    for name, about in {
        "block": "refuse all writes of a user, and stop the links",
        "unblock": "undo block",
        "token": "replace the token of a user who has lost it",
    }.items():
        commands.add_parser(name, help=about).add_argument(
            "user", type=_parse_user_id, metavar="USER", help="the id"
        )
    quota = commands.add_parser("quota", help="give a user quotas of its own")
    quota.add_argument("user", type=_parse_user_id, metavar="USER", help="the id")
    for name, what in {
        "records": "records",
        "bytes": "bytes of MP3s and originals",
        "seconds": "seconds of audio",
    }.items():
        about = f"how many {what}: a number, `default` (as in the settings) or `unlimited`"
        quota.add_argument(f"--{name}", type=_parse_limit, default=argparse.SUPPRESS, metavar="N", help=about)
    options = parser.parse_args(arguments)
    if options.command == "quota" and not _read_quotas(options):
        quota.error("name at least one of --records, --bytes and --seconds")
    return options


def _parse_user_id(text: str) -> UUID:
    try:
        return parse_uuid(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not the id of a user: {ALL_USERS}") from None


def _parse_limit(text: str) -> int | None:
    match text:
        case "default":
            return None
        case "unlimited":
            return UNLIMITED
    # Python's int(…) also reads underscores and the digits of other scripts. UNLIMITED has 19 digits.
    if not re.fullmatch("[0-9]{1,19}", text) or int(text) >= UNLIMITED:
        raise ArgumentTypeError(
            f"{text!r} is not a whole number from 0 to {UNLIMITED - 1}, default or unlimited"
        )
    return int(text)


def _read_quotas(options: argparse.Namespace) -> dict[str, int | None]:
    given = vars(options)
    return {f"quota_{name}": given[name] for name in ("records", "bytes", "seconds") if name in given}


async def _run(options: argparse.Namespace, settings: Settings) -> None:
    engine = make_engine(settings.database_url, settings.database_password, STATEMENT_TIMEOUT_SECONDS)
    try:
        await _run_command(options, engine, settings)
    finally:
        await engine.dispose()


async def _run_command(options: argparse.Namespace, engine: AsyncEngine, settings: Settings) -> None:
    match options.command:
        case "list":
            if not options.json:
                print(TABLE_HEAD)
            async with aclosing(list_users(engine)) as users:
                async for user in users:
                    print(_to_json(user) if options.json else _to_table_row(user))
        case "add":
            name = normalise_text("name", options.name, 1, MAX_NAME_LENGTH)
            user, token = await create_user(engine, name)
            audit_operator(settings.audit_file, "sign-up", user.id)
            print(_show_token(user.id, token))
        case "block" | "unblock":
            await set_blocked(engine, options.user, is_blocked=options.command == "block")
            audit_operator(settings.audit_file, options.command, options.user)
            print(f"{options.user} is {options.command}ed")
        case "token":
            token = await replace_token(engine, options.user)
            audit_operator(settings.audit_file, "token", options.user)
            print(_show_token(options.user, token))
        case "quota":
            quotas = _read_quotas(options)
            await set_quotas(engine, options.user, quotas)
            audit_operator(settings.audit_file, "quota", options.user, **quotas)
            print("".join(f"{name}  {_describe_limit(limit)}\n" for name, limit in quotas.items()), end="")


def _show_token(user_id: UUID, token: str) -> str:
    return f"id     {user_id}\ntoken  {token}  (shown this once)"


def _describe_limit(limit: int | None) -> str:
    return "default" if limit is None else "unlimited" if limit == UNLIMITED else f"{limit:,}"


def _to_json(user: Row[Any]) -> str:
    return msgspec.json.encode(dict(user._mapping)).decode()


def _to_table_row(user: Row[Any]) -> str:
    return TABLE_ROW.format(
        str(user.id),
        f"{user.created_at:%Y-%m-%d %H:%M}",
        f"{user.record_count:,}",
        f"{user.total_bytes:,}",
        f"{user.total_seconds:,.0f}",
        "yes" if user.blocked_at else "no",
        make_printable(user.name),
    )
