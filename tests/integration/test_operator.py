"""The operator's commands: what they print, what they do to a user, and what they leave in the log."""

import json
import os
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from subprocess import PIPE
from typing import Any
from uuid import uuid4

import pytest

from common.problems import UserBlocked
from deploy.client import Client
from deploy.local.ports import free_ports
from deploy.local.stack import Stack
from deploy.local.supervision import ROOT
from records import commands as records_commands
from records.form import AudioBegins, FormItem
from records.sql import renew_lease
from tests.integration.new_log_lines import NewLogLines
from tests.integration.records_service import RecordsService
from tests.response_checks import assert_json, assert_problem
from tests.upload_requests import TINY_WAV, WAV_TYPE, bearer
from users import commands
from users.sql import list_users, set_blocked

User = dict[str, Any]
# Runs a command and returns what it prints.
Run = Callable[..., str]


@pytest.fixture
def run(stack: Stack, capfd: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> str:
        commands.main(arguments, stack.environment("users"))
        printed = capfd.readouterr()
        assert printed.err == ""
        return printed.out

    return run


@pytest.fixture
def audits(stack: Stack) -> Callable[[str], list[str]]:
    """Returns a function that returns the actions in a user's audit lines, without those of requests."""
    log = NewLogLines(stack, "users")

    def read(user_id: str) -> list[str]:
        lines = [line for line in log.lines() if line["event"] == "audit" and line["user_id"] == user_id]
        return [line["action"] for line in lines if line.get("by") == "operator"]

    return read


def test_the_list_has_every_user_with_its_use_and_the_newest_first(client: Client, run: Run) -> None:
    first, second, deleted = (client.create_user(name) for name in ("Ann", "Zoë 東京", "Gone"))
    records = [client.upload_stream([TINY_WAV], first["token"]) for _ in range(2)]
    client.upload_stream([TINY_WAV], deleted["token"])
    client.http.delete("/users/me", headers=bearer(deleted)).raise_for_status()
    listed = [json.loads(line) for line in run("list", "--json").splitlines()]
    newest = [user for user in listed if user["id"] in (first["id"], second["id"], deleted["id"])]
    assert [user["id"] for user in newest] == [second["id"], first["id"]]
    assert newest[0] == {
        **{name: second[name] for name in ("id", "name", "created_at")},
        "blocked_at": None,
        "record_count": 0,
        "total_bytes": 0,
        "quota_records": None,
        "quota_bytes": None,
        "quota_seconds": None,
        "total_seconds": 0.0,
    }
    sums = {name: newest[1][name] for name in ("record_count", "total_bytes", "total_seconds")}
    assert sums == {
        "record_count": 2,
        "total_bytes": sum(record["size_bytes"] for record in records),
        "total_seconds": sum(record["duration_seconds"] for record in records),
    }
    head, *rows = run("list").splitlines()
    assert head.split() == ["ID", "CREATED", "(UTC)", "RECORDS", "BYTES", "SECONDS", "BLOCKED", "NAME"]
    (row,) = [row for row in rows if row.startswith(second["id"])]
    assert row.endswith("no       Zoë 東京")
    assert len(rows) == len(listed)


async def test_the_list_holds_few_users_however_many_there_are(isolated_service: RecordsService) -> None:
    service, count = isolated_service, 10_000
    await service.query(
        "INSERT INTO users (id, name)"
        " SELECT gen_random_uuid(), 'one of many' FROM generate_series(1, CAST(:count AS integer))",
        count=count,
    )
    listed = 0
    tracemalloc.start()
    try:
        async for user in list_users(service.users_engine):
            listed += user.name == "one of many"
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        await service.query("DELETE FROM users WHERE name = 'one of many'")
    assert listed == count
    # A user takes more than 500.
    assert peak_bytes < 200 * count


def writes(client: Client, user: User, record: dict[str, Any]) -> list[Any]:
    """Sends every request that changes something; the last one deletes the user."""
    headers = bearer(user)
    key = {"Idempotency-Key": record["id"]}
    return [
        client.http.post("/records", content=TINY_WAV, headers={**headers, **WAV_TYPE}),
        client.http.post("/records", content=TINY_WAV, headers={**headers, **WAV_TYPE, **key}),
        client.http.patch(f"/records/{record['id']}", json={"title": "Renamed"}, headers=headers),
        client.http.delete(f"/records/{record['id']}/original", headers=headers),
        client.http.delete(f"/records/{record['id']}", headers=headers),
        client.http.post("/users/me/token", headers=headers),
        client.http.delete("/users/me", headers=headers),
    ]


def listeners(client: Client, user: User, record: dict[str, Any]) -> list[Any]:
    """Sends every request for the MP3, and for its waveform and its page."""
    waveform = f"/records/{record['id']}/waveform"
    return [
        client.http.get(record["url"]),
        client.http.head(record["url"]),
        client.http.get(record["url"], headers={"Range": "bytes=0-9"}),
        client.http.get(record["url"], headers={"If-None-Match": f'"{record["sha256"]}"'}),
        client.http.get(f"{waveform}?user={user['id']}"),
        client.http.get(record["listen_url"]),
        client.http.get(record["listen_url"].replace("/listen", "/listen.png")),
        client.http.get(waveform, headers=bearer(user)),
    ]


def test_a_blocked_user_can_only_look_and_its_links_stop_until_it_is_unblocked(
    client: Client, user: User, run: Run, audits: Callable[[str], list[str]]
) -> None:
    record = client.upload_stream([TINY_WAV], user["token"], keep_original=True)
    other = client.create_user("Other")
    others = client.upload_stream([TINY_WAV], other["token"])
    # The gateway's cache has both MP3s.
    for each in (record, record, others):
        client.download(each["url"])
    assert run("block", user["id"]) == f"{user['id']} is blocked\n"
    run("block", user["id"])
    for response in writes(client, user, record):
        assert_problem(response, 403, "user-blocked", "operator", "unblock")
    for response in listeners(client, user, record):
        assert response.status_code == 404
    assert_problem(client.http.get(record["url"]), 404, "unknown-record")
    original = client.http.get(f"/records/{record['id']}/original", headers=bearer(user))
    assert_problem(original, 403, "user-blocked", "operator")
    head = client.http.head(f"/records/{record['id']}/original", headers=bearer(user))
    assert (head.status_code, head.content) == (403, b"")
    profile = assert_json(client.http.get("/users/me", headers=bearer(user)), 200)
    assert profile["record_count"] == 1
    listed = assert_json(client.http.get("/records", headers=bearer(user)), 200)
    assert listed["records"] == [record]
    assert assert_json(client.http.get(f"/records/{record['id']}", headers=bearer(user)), 200) == record
    assert all(response.is_success for response in listeners(client, other, others)[:3])
    (row,) = [row for row in run("list").splitlines() if row.startswith(user["id"])]
    assert row.split()[-2] == "yes"
    assert run("unblock", user["id"]) == f"{user['id']} is unblocked\n"
    assert [response.status_code for response in listeners(client, user, record)] == [
        200,
        200,
        206,
        304,
        *(200, 200, 200),
        200,
    ]
    original = client.http.get(f"/records/{record['id']}/original", headers=bearer(user))
    assert original.content == TINY_WAV
    assert all(response.is_success for response in writes(client, user, record)[:5])
    assert audits(user["id"]) == ["block", "block", "unblock"]


def test_a_blocked_user_with_a_wrong_token_is_not_told_of_the_block(
    client: Client, user: User, run: Run
) -> None:
    record = client.upload_stream([TINY_WAV], user["token"])
    run("block", user["id"])
    for response in writes(client, {**user, "token": "wrong"}, record):
        assert_problem(response, 401, "invalid-credentials")


async def test_an_upload_whose_user_is_blocked_meanwhile_is_refused(isolated_service: RecordsService) -> None:
    user_id, credentials = await isolated_service.make_user()

    async def body() -> AsyncIterator[FormItem]:
        yield AudioBegins()
        yield TINY_WAV[:1000]
        (row,) = await isolated_service.rows(user_id)
        assert row.state == "uploading"
        await set_blocked(isolated_service.users_engine, user_id, is_blocked=True)
        # So an upload that goes on for hours ends soon.
        assert not await renew_lease(isolated_service.engine, row.id, 30)
        yield TINY_WAV[1000:]

    uploads = isolated_service.uploads()
    with pytest.raises(UserBlocked):
        await uploads.store_record(body(), credentials)
    await uploads.close()
    assert "ready" not in [row.state for row in await isolated_service.rows(user_id)]
    assert await isolated_service.objects(user_id) == []


def test_the_operator_adds_a_user_whoever_else_may_sign_up(
    client: Client, run: Run, audits: Callable[[str], list[str]]
) -> None:
    _, user_id, _, token, *_ = run("add", "Zoë 東京").split()
    profile = assert_json(client.http.get("/users/me", headers=bearer({"token": token})), 200)
    assert (profile["id"], profile["name"]) == (user_id, "Zoë 東京")
    assert audits(user_id) == ["sign-up"]
    with pytest.raises(SystemExit, match="The name has 0 characters"):
        run("add", " ")


def test_a_user_who_has_lost_the_token_gets_a_new_one(
    client: Client, user: User, run: Run, audits: Callable[[str], list[str]]
) -> None:
    printed = run("token", user["id"]).split()
    assert printed[:3] == ["id", user["id"], "token"]
    assert_problem(client.http.get("/users/me", headers=bearer(user)), 401, "invalid-credentials")
    assert_json(client.http.get("/users/me", headers=bearer({"token": printed[3]})), 200)
    assert audits(user["id"]) == ["token"]


@pytest.mark.parametrize("command", ["block", "unblock", "token"])
def test_a_command_names_an_id_that_no_user_has(client: Client, user: User, run: Run, command: str) -> None:
    client.http.delete("/users/me", headers=bearer(user)).raise_for_status()
    for user_id in (str(uuid4()), user["id"]):
        with pytest.raises(SystemExit, match=f"no user has the id {user_id}"):
            run(command, user_id)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ("block", "Ann"),
            "'Ann' is not the id of a user: `./just users`, or the command `list`, shows all users",
        ),
        (
            ("quota", str(uuid4()), "--records", "-1"),
            "'-1' is not a whole number from 0 to 9223372036854775806",
        ),
        (("quota", str(uuid4()), "--bytes", "9223372036854775807"), "default or unlimited"),
        (("quota", str(uuid4()), "--seconds", "1_000"), "'1_000' is not a whole number"),
        (("quota", str(uuid4())), "name at least one of --records, --bytes and --seconds"),
    ],
)
def test_a_command_says_what_is_wrong_with_an_argument(
    arguments: tuple[str, ...], says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        commands.main(arguments, {})
    assert says in capfd.readouterr().err


@pytest.fixture
def record(client: Client, user: User) -> dict[str, Any]:
    """A record of the user."""
    return client.upload_stream([TINY_WAV], user["token"])


@pytest.mark.parametrize("way", ["id", "url", "copied out of HTML", "pasted with its text"])
def test_the_operator_removes_a_record_by_its_id_or_link_and_no_other(
    stack: Stack,
    client: Client,
    user: User,
    record: dict[str, Any],
    way: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    url = record["url"]
    ways = {"copied out of HTML": url.replace("&", "&amp;"), "pasted with its text": f"{url})."}
    other = client.upload_stream([TINY_WAV], user["token"])
    log = NewLogLines(stack, "records")
    assert records_commands.main(["remove", ways.get(way) or record[way]], stack.environment("records")) == 0
    assert capfd.readouterr() == (f"{record['id']} of the user {user['id']} is deleted\n", "")
    assert_problem(client.http.get(url), 404, "unknown-record")
    assert client.http.get(other["url"]).status_code == 200
    assert client.http.get("/users/me", headers=bearer(user)).json()["record_count"] == 1
    (line,) = [line for line in log.lines() if line["event"] == "audit"]
    expected = {"action": "remove-record", "by": "operator", "user_id": user["id"]}
    assert line | expected | {"created_at": record["created_at"]} == line
    # With it, the line would be a link, which a backup could bring back.
    assert record["id"] not in json.dumps(line)


def test_the_operator_removes_a_record_of_a_blocked_user(
    stack: Stack, client: Client, user: User, record: dict[str, Any], run: Run
) -> None:
    run("block", user["id"])
    assert records_commands.main(["remove", record["url"]], stack.environment("records")) == 0
    assert client.http.get("/records", headers=bearer(user)).json()["records"] == []
    run("unblock", user["id"])
    assert_problem(client.http.get(record["url"]), 404, "unknown-record")


def test_what_is_not_there_is_named_and_the_rest_is_removed(
    stack: Stack, client: Client, user: User, record: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    of_another_user = record["url"].replace(user["id"], str(uuid4()))
    absent, environment = str(uuid4()), stack.environment("records")
    assert records_commands.main(["remove", of_another_user], environment) == 1
    assert client.http.get(record["url"]).status_code == 200
    assert records_commands.main(["remove", absent, record["id"], record["id"]], environment) == 1
    printed = capfd.readouterr()
    assert printed.out == f"{record['id']} of the user {user['id']} is deleted\n"
    missing = [f"{record['id']} of the user {user_id_of(of_another_user)}", absent, record["id"]]
    assert printed.err == "".join(f"waxwing: there is no record {name}\n" for name in missing)


def user_id_of(link: str) -> str:
    return link.partition("user=")[2]


def test_a_removal_without_a_database_names_what_is_not_deleted(
    stack: Stack, capfd: pytest.CaptureFixture[str]
) -> None:
    away = {**stack.environment("records"), "DATABASE_URL": f"postgresql://a@127.0.0.1:{free_ports(1)[0]}/b"}
    ids = [str(uuid4()), str(uuid4())]
    assert records_commands.main(["remove", *ids], away) == 2
    assert capfd.readouterr().err.endswith(f" Not deleted: {' '.join(ids)}\n")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("hello.mp3", "is not the id or the link of a record"),
        ("http://127.0.0.1:8080/record?id=1&user=2", "is not the id or the link of a record"),
        ("", "is not the id or the link of a record"),
        ("http://127.0.0.1:8080/record?id=ID", "has no `user`: put the link in quotes, because of its `&`"),
        ("LINK, OTHER", "has more than the link of one record"),
        ("LINK&OTHER", "has more than the link of one record"),
        ("OTHER LINK", "has more than the link of one record"),
        ("http://127.0.0.1:8080/record?id=OTHER LINK", "has more than the link of one record"),
    ],
)
def test_a_text_that_does_not_name_one_record_is_refused(
    text: str, says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    ids = {name: str(uuid4()) for name in ("ID", "USER", "OTHER")}
    text = text.replace("LINK", "http://127.0.0.1:8080/record?id=ID&user=USER")
    for name, value in ids.items():
        text = text.replace(name, value)
    with pytest.raises(SystemExit, match="2"):
        records_commands.main(["remove", text], {})
    assert f"{text!r} {says}" in capfd.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_removals_between_two_records(
    stack: Stack, client: Client, user: User, number: signal.Signals
) -> None:
    ids = [client.upload_stream([TINY_WAV], user["token"])["id"] for _ in range(40)]
    log = NewLogLines(stack, "records")
    command = [sys.executable, "-m", "records", "remove", *ids]
    environment = stack.environment("records")
    with subprocess.Popen(command, env=environment, stdout=PIPE, stderr=PIPE, text=True) as process:
        assert process.stdout
        assert process.stderr
        first = process.stdout.readline()
        process.send_signal(number)
        # Not by `communicate`, which does not know what readline has read ahead.
        rest, errors = process.stdout.read(), process.stderr.read()
    deleted = [line.split()[0] for line in (first + rest).splitlines()]
    assert deleted == ids[: len(deleted)]
    left = client.http.get("/records", params={"limit": 100}, headers=bearer(user)).json()["records"]
    assert {record["id"] for record in left} == set(ids[len(deleted) :])
    assert len([line for line in log.lines() if line["event"] == "audit"]) == len(deleted)
    if left:
        assert (process.returncode, errors) == (
            2,
            f"waxwing: interrupted; not deleted: {' '.join(ids[len(deleted) :])}\n",
        )


def test_an_output_that_nobody_reads_ends_removals_and_names_the_rest(
    stack: Stack, client: Client, user: User
) -> None:
    ids = [client.upload_stream([TINY_WAV], user["token"])["id"] for _ in range(3)]
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "records", "remove", *ids]
    done = subprocess.run(
        command, env=stack.environment("records"), stdout=writer, stderr=PIPE, text=True, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (2, f"waxwing: Broken pipe; not deleted: {' '.join(ids[1:])}\n")
    assert client.http.get("/users/me", headers=bearer(user)).json()["record_count"] == 2


def test_just_remove_deletes_a_record_of_the_local_stack(
    stack: Stack, client: Client, record: dict[str, Any]
) -> None:
    folder = stack.supervisor.log("users").parents[1]
    command = [str(Path(sys.executable).with_name("just")), "remove", record["url"]]
    environment = {**os.environ, "WAXWING_FOLDER": str(folder)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert_problem(client.http.get(record["url"]), 404, "unknown-record")


def test_a_command_that_cannot_reach_the_log_prints_its_audit_line(
    stack: Stack, user: User, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for file, says in ((str(tmp_path), "in no log"), ("", '"action":"block"')):
        commands.main(["block", user["id"]], {**stack.environment("users"), "AUDIT_FILE": file})
        assert says in capfd.readouterr().err


def test_the_commands_of_a_local_stack_use_its_database(stack: Stack, user: User) -> None:
    folder = stack.supervisor.log("users").parents[1]
    command = [sys.executable, "-m", "deploy.local", "users", "list", "--json"]
    environment = {**stack.environment("users"), "WAXWING_FOLDER": str(folder)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert user["id"] in done.stdout


def test_no_shell_reads_the_arguments_of_a_command(stack: Stack) -> None:
    folder = stack.supervisor.log("users").parents[1]
    command = [str(Path(sys.executable).with_name("just")), "block", "it's $(id)"]
    environment = {**stack.environment("users"), "WAXWING_FOLDER": str(folder)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "it's $(id)" in done.stderr


def test_the_list_can_be_printed_whatever_encoding_the_terminal_has(stack: Stack, client: Client) -> None:
    created = client.create_user("Zoë 東京")
    environment = {**stack.environment("users"), "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "users", "list"]
    printed = subprocess.run(command, env=environment, capture_output=True, check=True).stdout
    (row,) = [row for row in printed.decode().splitlines() if row.startswith(created["id"])]
    assert row.endswith("Zoë 東京")


@pytest.mark.parametrize("line", ["users list", "records doctor", "records doctor --json"])
def test_a_command_ends_quietly_if_nobody_reads_on(stack: Stack, client: Client, line: str) -> None:
    client.create_user("Test")
    service, *arguments = line.split()
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", service, *arguments]
    done = subprocess.run(command, env=stack.environment(service), stdout=writer, stderr=PIPE, check=False)
    os.close(writer)
    assert done.stderr == b""
