"""The commands for the terminal: `demo`, `user`, `upload`, `records`, `get` and `delete`.

They send HTTP requests to BASE_URL, or to the local stack.
"""

import argparse
import json
import os
import shlex
import shutil
import sys
import tempfile
from argparse import ArgumentTypeError
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from common.console import drop_output, make_printable, use_utf8
from common.problems import InvalidRequest
from common.text import normalise_text, parse_uuid
from deploy.client import Client, Refused
from deploy.local.stack import StackError, find_stack
from deploy.terminal.logins import KeptLogins, Login
from deploy.terminal.transfers import WrongBytesError, describe_error, download, upload
from records.file_names import make_file_name
from records.form import MAX_TITLE_LENGTH
from records.links import parse_record

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
        for number, file in enumerate(self._options.files):
            key = self._options.key or str(uuid4())
            try:
                record = self._upload_file(file, login, key)
            except httpx.ConnectError:
                raise
            except (UsageError, Refused, httpx.TransportError, OSError) as error:
                failures += 1
                _say(f"{file}: {describe_error(error)}")
            except KeyboardInterrupt:
                repeat = shlex.join(["./just", "upload", str(file), *self._list_options(), "--key", key])
                _say(f"interrupted; `{repeat}` repeats this upload safely")
                if rest := self._options.files[number + 1 :]:
                    _say(f"not sent: {shlex.join(map(str, rest))}")
                raise
            else:
                self._show(record, record["url"])
        return 1 if failures else 0

    def _upload_file(self, file: Path, login: Login, key: str) -> dict[str, Any]:
        title = self._options.title
        with file.open("rb") as wav:
            if not wav.seekable():
                raise UsageError("it cannot be read twice; `curl -T -` uploads a stream (see docs/api.md)")
            return upload(
                *(self._client, wav, file.name, login, key),
                title=_make_title(file) if title is None else title,
                bitrate_kbps=self._options.bitrate,
                keep_original=self._options.keep_original,
            )

    def _list_options(self) -> list[str]:
        """Returns the options of an upload that a repetition must have too."""
        options = []
        if self._options.title is not None:
            options += ["--title", self._options.title]
        if self._options.bitrate is not None:
            options += ["--bitrate", str(self._options.bitrate)]
        return [*options, "--keep-original"] if self._options.keep_original else options

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
        record = self._client.get_record(self._options.records[0].record_id, authorization)
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
        if not file.parent.is_dir():
            raise UsageError(f"there is no folder {file.parent}")
        # Only a whole file gets the name, even if this process is killed.
        unfinished = file.with_name(f".waxwing-{os.getpid()}.part")
        try:
            with unfinished.open("wb") as target:
                download(stream, target, what)
            unfinished.replace(file)
        except OSError as error:
            raise UsageError(f"{file}: {describe_error(error)}") from None
        finally:
            unfinished.unlink(missing_ok=True)
        self._show(record, str(file))
        return 0

    def _delete(self) -> int:
        authorization = self._find_login().authorization
        failures = 0
        for number, named in enumerate(self._options.records, start=1):
            try:
                self._client.delete_record(named.record_id, authorization)
                print(named.record_id, flush=True)
            except Refused as error:
                failures += 1
                _say(f"{named.record_id}: {error}")
            except (KeyboardInterrupt, BrokenPipeError):
                rest = " ".join(str(each.record_id) for each in self._options.records[number:])
                _say(f"ended after {named.record_id}, which may be deleted; not deleted: {rest or 'none'}")
                raise
        return 1 if failures else 0

    def _find_login(self) -> Login:
        """Returns the user of the options, of the environment, or the one that was made last.

        Raises UsageError if nobody is known, or if a link is another user's.
        """
        user_id, token = self._options.user, self._options.token
        login = Login(user_id, token) if token else self._logins.find(user_id)
        if login:
            for named in self._options.records:
                if login.user_id and named.user_id and str(named.user_id) != login.user_id:
                    advice = {"get": "curl downloads it", "delete": "the operator can `./just remove` it"}
                    command = self._options.command
                    raise UsageError(f"{named.record_id}: this link is another user's; {advice[command]}")
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
    use_utf8()
    base_url = ""
    try:
        base_url, signup_key, logins = _find_place()
        with Client(base_url, signup_key=signup_key) as client:
            status = Terminal(client, logins, options).run()
            sys.stdout.flush()
            return status
    except httpx.ConnectError as error:
        # A link has the name in PUBLIC_URL, which may be another one.
        place = f"{error.request.url.scheme}://{error.request.url.netloc.decode()}"
        _say(f"nothing answers at {place}" + (": `./just up` starts the stack" if place == base_url else ""))
    except BrokenPipeError:
        drop_output()
    except (UsageError, WrongBytesError, Refused, StackError, httpx.TransportError, OSError) as error:
        _say(describe_error(error))
    except KeyboardInterrupt:
        return 130
    return 1


def _find_place() -> tuple[str, str | None, KeptLogins]:
    """Returns the URL of a Waxwing, its sign-up key if it is the local stack, and its kept users."""
    base_url = os.environ.get("BASE_URL", "").rstrip("/")
    if not base_url:
        stack = find_stack()
        return stack.base_url, stack.signup_key, KeptLogins(stack.logins_file, "")
    if not base_url.startswith(("http://", "https://")):
        raise UsageError(f"BASE_URL is {base_url!r}: write it like http://127.0.0.1:8080")
    # A reset of the local stack must not delete the only copy of a token for another Waxwing.
    folder = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "waxwing"
    return base_url, None, KeptLogins(folder / "logins.jsonl", base_url)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="just", description="Waxwing's commands for the terminal.")
    commands = parser.add_subparsers(dest="command", required=True)
    as_json, login = argparse.ArgumentParser(add_help=False), argparse.ArgumentParser(add_help=False)
    as_json.add_argument("--json", action="store_true", help="one JSON object a line, for scripts")
    login.set_defaults(records=[])
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
    uploading.add_argument("--title", help='a name for the record (default: that of the file; "": none)')
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
    get.add_argument("records", metavar="RECORD", type=parse_record, nargs=1, help="the id, or the link")
    get.add_argument(
        "file",
        metavar="FILE",
        type=_parse_file,
        nargs="?",
        help="or a folder (default: the title); -: to the output",
    )
    get.add_argument("--original", action="store_true", help="the WAV that the record has kept")
    delete = commands.add_parser("delete", parents=[login], help="delete records")
    delete.add_argument("records", metavar="RECORD", type=parse_record, nargs="+", help="the id, or the link")
    options = parser.parse_args(arguments)
    if options.command == "upload" and options.key and len(options.files) > 1:
        uploading.error("--key is for one file, because it makes one record")
    return options


def _parse_file(text: str) -> Path:
    if text.endswith(os.sep) and not Path(text).is_dir():
        raise ArgumentTypeError(f"there is no folder {text}")
    return Path(text)


def _parse_user(text: str) -> str:
    try:
        return str(parse_uuid(text))
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not the id of a user") from None


def _make_title(file: Path) -> str | None:
    """Returns the name of the file without its ending, if it can be a title."""
    try:
        return normalise_text("title", file.stem, 1, MAX_TITLE_LENGTH)
    except InvalidRequest:
        return None


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
