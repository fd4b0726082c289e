"""The commands for the terminal: `demo`, `user`, `upload`, `records`, `get` and `delete`.

They send HTTP requests to BASE_URL, or to the local stack.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from argparse import ArgumentTypeError
from collections.abc import Callable
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID, uuid4

import httpx

from common.text import make_printable, parse_uuid
from deploy.client import Client, Refused
from deploy.local.stack import StackError, find_stack
from deploy.terminal.logins import KeptLogins, Login
from deploy.terminal.transfers import WrongBytesError, describe_error, download, upload
from records.file_names import make_file_name

ROW = "{:<36}  {:<16}  {:>8}  {:>13}  {}"
STANDARD_OUTPUT = Path("-")
HEAD = ROW.format("ID", "CREATED (UTC)", "LENGTH", "BYTES", "TITLE")


class UsageError(Exception):
    """A command cannot run as it was given; the message says what to do."""


class Terminal:
    """Runs the commands for one place: a local stack, or the Waxwing at a URL."""

    def __init__(self, client: Client, logins: KeptLogins, options: argparse.Namespace) -> None:
        self._client = client
        self._logins = logins
        self._options = options

    def run(self) -> int:
        """Runs the command and returns the exit status."""
        commands: dict[str, Callable[[], int]] = {
            "demo": self._run_demo,
            "user": self._make_user,
            "upload": self._upload,
            "records": self._list_records,
            "get": self._get,
            "delete": self._delete,
        }
        return commands[self._options.command]()

    def _run_demo(self) -> int:
        # Only here, because PyAV and numpy load for long.
        from deploy.terminal.demo import run_demo  # noqa: PLC0415

        run_demo(self._client)
        return 0

    def _make_user(self) -> int:
        user = self._client.create_user(self._options.name)
        if self._options.json:
            _print_json(user)
        else:
            print(f"id     {user['id']}\ntoken  {user['token']}  (shown this once)")
        try:
            self._logins.add(user)
        except OSError as error:
            _say(f"{error}, so the other commands need --user and --token")
        return 0

    def _upload(self) -> int:
        login = self._find_login()
        failures = 0
        for file in self._options.files:
            key = self._options.key or str(uuid4())
            try:
                with file.open("rb") as wav:
                    record = upload(
                        self._client,
                        wav,
                        login,
                        key,
                        title=self._options.title,
                        bitrate_kbps=self._options.bitrate,
                        keep_original=self._options.keep_original,
                    )
            except httpx.ConnectError:
                raise
            except (Refused, httpx.TransportError, OSError) as error:
                failures += 1
                _say(f"{file}: {describe_error(error)}")
            except KeyboardInterrupt:
                _say(f"interrupted; `--key {key}` repeats this upload safely")
                raise
            else:
                self._show(record, record["url"])
        return 1 if failures else 0

    def _list_records(self) -> int:
        records = self._client.list_records(self._find_login().authorization, self._options.query)
        number = 0
        for number, record in enumerate(records, start=1):
            if number == 1 and not self._options.json:
                print(HEAD)
            self._show(record, _to_row(record))
        if not number and not self._options.json:
            _say("no record has this text in its title" if self._options.query else "there are no records")
        return 0

    def _get(self) -> int:
        authorization = self._find_login().authorization
        record = self._client.get_record(self._options.record, authorization)
        what, suffix, stream = record, ".mp3", partial(self._client.stream_mp3, record)
        if self._options.original:
            if not record["original"]:
                raise UsageError(f"the record {record['id']} has kept no original")
            what, suffix = record["original"], ".wav"
            stream = partial(self._client.stream_original, record, authorization)
        if self._options.file == STANDARD_OUTPUT:
            with tempfile.TemporaryFile() as target:
                download(stream, target, what)
                target.seek(0)
                shutil.copyfileobj(target, sys.stdout.buffer)
            return 0
        file = self._options.file or Path()
        if file.is_dir():
            file /= make_file_name(record["title"], suffix)
        if file.exists():
            raise UsageError(f"{file} is there already: name another FILE")
        # Only a whole file gets the name, even if this process is killed.
        unfinished = file.with_name(f".waxwing-{os.getpid()}.part")
        try:
            with unfinished.open("wb") as target:
                download(stream, target, what)
            unfinished.replace(file)
        finally:
            unfinished.unlink(missing_ok=True)
        self._show(record, str(file))
        return 0

    def _delete(self) -> int:
        authorization = self._find_login().authorization
        for record_id in self._options.records:
            self._client.delete_record(record_id, authorization)
            print(record_id)
        return 0

    def _find_login(self) -> Login:
        """Returns the user of the options, of the environment, or the one that was made last."""
        user_id, token = self._options.user, self._options.token
        if token:
            return Login(user_id, token)
        if login := self._logins.find(user_id):
            return login
        if user_id:
            raise UsageError(f"no token of the user {user_id} is kept here: add --token TOKEN")
        raise UsageError("no user is kept here: `./just user NAME` makes one; or use --user and --token")

    def _show(self, record: dict[str, Any], line: str) -> None:
        if self._options.json:
            _print_json(record)
        else:
            print(line, flush=True)


def main(arguments: list[str]) -> int:
    """Runs one command and returns the exit status."""
    options = _parse(arguments)
    if isinstance(sys.stdout, TextIOWrapper):
        # Titles may have characters that the terminal's own encoding lacks.
        sys.stdout.reconfigure(encoding="utf-8")
    base_url = os.environ.get("BASE_URL", "")
    try:
        if base_url:
            logins, signup_key = (
                KeptLogins(_find_configuration() / "logins.jsonl", base_url.rstrip("/")),
                None,
            )
        else:
            stack = find_stack()
            base_url, signup_key = stack.base_url, stack.signup_key
            logins = KeptLogins(stack.logins_file, "")
        with Client(base_url, signup_key=signup_key) as client:
            status = Terminal(client, logins, options).run()
            sys.stdout.flush()
            return status
    except httpx.ConnectError:
        _say(f"nothing answers at {base_url}: `./just up` starts the stack")
    except BrokenPipeError:
        # `head` reads no further. At its end Python writes what is left, and that must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (UsageError, WrongBytesError, Refused, StackError, httpx.TransportError, OSError) as error:
        _say(describe_error(error))
    except KeyboardInterrupt:
        return 130
    return 1


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="just", description="Waxwing's commands for the terminal.")
    commands = parser.add_subparsers(dest="command", required=True)
    as_json, login = argparse.ArgumentParser(add_help=False), argparse.ArgumentParser(add_help=False)
    as_json.add_argument("--json", action="store_true", help="one JSON object a line, for scripts")
    login.add_argument(
        "--user",
        metavar="ID",
        type=_parse_user,
        default=os.environ.get("WAXWING_USER") or None,
        help="(default: WAXWING_USER, or the user that was made last)",
    )
    login.add_argument(
        "--token",
        default=os.environ.get("WAXWING_TOKEN"),
        help="(default: WAXWING_TOKEN, or the one that `just user` has kept)",
    )
    commands.add_parser("demo", help="create a user, upload a tune, download it by its link, and check it")
    user = commands.add_parser(
        "user", parents=[as_json], help="create a user, whom the other commands use from now on"
    )
    user.add_argument("name", metavar="NAME")
    uploading = commands.add_parser(
        "upload", parents=[login, as_json], help="upload WAVs and print their links"
    )
    uploading.add_argument("files", metavar="FILE", type=Path, nargs="+")
    uploading.add_argument("--title", help="a name for the record")
    uploading.add_argument("--bitrate", type=int, metavar="KBPS", help="of the MP3, 32 to 320 (default: 128)")
    uploading.add_argument(
        "--keep-original",
        action="store_const",
        const="true",
        help="also store the WAV as it is, about eleven times as large as its MP3",
    )
    uploading.add_argument(
        "--key", help="sent again with this key within a day, the upload makes only one record"
    )
    records = commands.add_parser("records", parents=[login, as_json], help="list the records, newest first")
    records.add_argument("query", metavar="TEXT", nargs="?", default="", help="only titles with this text")
    get = commands.add_parser("get", parents=[login, as_json], help="download the MP3 of a record")
    get.add_argument("record", metavar="RECORD", type=_parse_record, help="the id, or the link")
    get.add_argument(
        "file",
        metavar="FILE",
        type=Path,
        nargs="?",
        help="or a folder (default: the title); -: to the output",
    )
    get.add_argument("--original", action="store_true", help="the WAV that the record has kept")
    delete = commands.add_parser("delete", parents=[login], help="delete records")
    delete.add_argument(
        "records", metavar="RECORD", type=_parse_record, nargs="+", help="the id, or the link"
    )
    options = parser.parse_args(arguments)
    if options.command == "upload" and options.key and len(options.files) > 1:
        uploading.error("--key is for one file, because it makes one record")
    return options


def _parse_record(text: str) -> UUID:
    """Returns the id of a record, which may also be given by its link."""
    try:
        return parse_uuid(parse_qs(urlsplit(text).query).get("id", [text])[0])
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not the id or the link of a record") from None


def _parse_user(text: str) -> str:
    try:
        return str(parse_uuid(text))
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not the id of a user") from None


def _find_configuration() -> Path:
    """Returns the folder for what belongs to no stack of this folder."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "waxwing"


def _to_row(record: dict[str, Any]) -> str:
    minutes, seconds = divmod(round(record["duration_seconds"]), 60)
    title = make_printable(record["title"] or "")
    return ROW.format(
        record["id"],
        record["created_at"][:16].replace("T", " "),
        f"{minutes}:{seconds:02}",
        f"{record['size_bytes']:,}",
        f"{title} (lost)" if record["lost_at"] else title,
    ).rstrip()


def _print_json(document: dict[str, Any]) -> None:
    print(json.dumps(document, ensure_ascii=False, separators=(",", ":")), flush=True)


def _say(message: str) -> None:
    print(f"client: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
