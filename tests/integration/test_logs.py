"""The logs show each request under the id that the client saw, and contain no secret."""

import hashlib
import json
import re
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import httpx
import pytest
import structlog
from sqlalchemy import text

from common.db import execute, make_engine
from common.metrics import watch_engine
from deploy.client import Client
from deploy.local.ports import LOOPBACK
from deploy.local.stack import Stack
from records.storage import ObjectStore, make_client, make_session
from tests.integration.instances import Instance
from tests.integration.new_log_lines import NewLogLines, begin_behind_earlier_requests
from tests.integration.recordings import LARGE, SMALL, make_wav, upload_kind
from tests.integration.records_service import RecordsService
from tests.integration.waiting import wait_until
from tests.raw_connection import make_request_head, open_raw_connection
from tests.response_checks import assert_problem
from tests.upload_requests import WAV_TYPE, basic, bearer

PROCESSES = ["users", "records", "gateway"]
REQUEST_ID = re.compile(r"[0-9a-f]{32}")


MISPLACED = [
    "/{token}",
    "/users/{user}/{token}",
    "/users/me/{token}",
    "/record/{record}",
    "/records/{odd}",
    "/record&user={user}&id={record}",
    "/record%3Fid={record}&user={user}",
    "/record;id={record}",
    "/{user}/{record}.mp3",
    "/records/{record}%2Dx",
    "/records/{record}/waveform/x",
    "/readyz/{token}",
]


def folder_of(stack: Stack) -> Path:
    return stack.supervisor.log("records").parent


def all_text(stack: Stack) -> dict[str, str]:
    """Reads every log file of the stack."""
    return {file.name: file.read_text(errors="replace") for file in folder_of(stack).iterdir()}


def use_everything(client: Client) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Sends valid and wrong requests of every kind; returns the user and its records."""
    user = client.create_user("Logged")
    with_form = client.http.post(
        "/records",
        data={"user_id": user["id"], "token": user["token"]},
        files={"audio": ("a.wav", make_wav(SMALL), "audio/wav")},
    )
    with_basic = client.http.post(
        "/records",
        content=make_wav(SMALL),
        headers={"Content-Type": "audio/wav"},
        auth=(user["id"], user["token"]),
    )
    records = [
        with_form.json(),
        with_basic.json(),
        upload_kind(client, user["token"], LARGE),
    ]
    for record in records:
        url = record["url"]
        assert client.http.get(url).status_code == 200
        assert client.http.head(url).status_code == 200
        assert client.http.get(url, headers={"Range": "bytes=0-1"}).status_code == 206
        assert client.http.get(url, headers={"Range": "bytes=99999999-"}).status_code == 416
        assert client.http.get(f"{url}0").status_code == 400
        named = url.replace("/record?", f"/record/{user['token']}/{record['id']}.MP3?")
        assert client.http.get(named).status_code == 200
        waveform = f"/records/{record['id']}/waveform"
        assert client.http.get(f"{waveform}?user={user['id']}").status_code == 200
        assert client.http.get(waveform, auth=(user["id"], "wrong")).status_code == 401
        assert client.http.get(f"/records/{record['id'].replace('-', '').upper()}/x").status_code == 404
        with client.http.stream("GET", url) as response:
            next(response.iter_raw(1024))
    foreign = f"/record?id={records[0]['id']}&user={uuid4()}"
    assert client.http.get(foreign).status_code == 404
    wrong = client.http.post(
        "/records",
        content=make_wav(SMALL),
        headers={"Authorization": f"Bearer {user['token']}x", "Content-Type": "audio/wav"},
    )
    assert wrong.status_code == 401
    # Clients put tokens and ids into the wrong places.
    for path in MISPLACED:
        ids = {"user": user["id"], "record": records[0]["id"], "odd": records[0]["id"].replace("-", "_")}
        response = client.http.get(path.format(token=user["token"], **ids))
        assert response.status_code == 404, path
    assert client.http.post(f"/records?token={user['token']}", content=b"").status_code >= 400
    assert client.http.get(f"/users?token={user['token']}").status_code == 405
    return user, records


def test_no_log_contains_a_token_a_link_or_a_presigned_url(stack: Stack, client: Client) -> None:
    gateway = NewLogLines(stack, "gateway")
    user, records = use_everything(client)
    wait_until(
        lambda: "/users" in {line.get("path") for line in gateway.lines() if line.get("status") == 405}
    )
    texts = all_text(stack)
    assert {f"{process}.log" for process in PROCESSES} <= set(texts)
    secrets = [user["token"], "X-Amz-Signature", "X-Amz-Credential", "Bearer ", "Basic "]
    # The last twelve digits are the same in every notation.
    secrets += [secret[-12:] for secret in (user["token"], *(record["id"] for record in records))]
    leaks = {(name, secret) for name, text in texts.items() for secret in secrets if secret in text} | {
        (name, match[0])
        for name, text in texts.items()
        for match in re.finditer(r"[?&](?:id|user|token)=.*", text)
    }
    assert leaks == set()


def test_no_log_contains_a_link_when_the_cache_fails(stack: Stack, client: Client) -> None:
    user = client.create_user("Logged")
    record = client.upload_stream(iter([make_wav(SMALL)]), user["token"])
    gateway = NewLogLines(stack, "gateway")
    # A directory stands where nginx wants to write its cache file.
    name = hashlib.md5(f"records/{user['id']}/{record['id']}.mp3".encode()).hexdigest()  # noqa: S324
    cached = folder_of(stack).parent / "gateway" / "cache" / name[-1] / name[-3:-1] / name
    cached.mkdir(parents=True)
    # nginx cannot read it, or cannot replace it once it has read the cache's directory.
    assert client.http.get(record["url"]).status_code in (200, 503)
    wait_until(lambda: [line for line in gateway.text().splitlines() if '"/record"' in line])
    assert record["id"] not in gateway.text()
    assert "X-Amz" not in gateway.text()


def test_the_gateway_logs_the_path_of_a_route_and_a_wildcard_for_all_others(
    stack: Stack, client: Client
) -> None:
    base_url = str(client.http.base_url)
    gateway = NewLogLines(stack, "gateway")

    def has_lines(count: int) -> bool:
        return len(gateway.lines()) == count

    paths = {
        f"/records/{uuid4()}?x=1": "/records/*",
        f"/records/{uuid4()}/waveform?user=x": "/records/*/waveform",
        f"/records/{uuid4()}/original?x": "/records/*/original",
        f"/records/{uuid4().hex.upper()}": "/records/*",
        "/users/me/token?x": "/users/me/token",
        "/docs/index.css": "/docs/*",
        "/problems/busy": "/problems/*",
        "/openapi/users.json": "/openapi/users.json",
        "/readyz/users?x": "/readyz/users",
        "/?x": "/",
        f"/records/{uuid4()}x": "/*",
        "/recordx": "/*",
        "/record/": "/*",
        "/record/a.mp3?x": "/record",
        "/listen?x": "/listen",
        "/listen.png?x": "/listen.png",
        "/listen/x": "/*",
        "/record/a/%2F\xa0.MP3": "/record",
        "//record": "/*",
        "/record#x": "/*",
        "/record\xa0": "/*",
        "nonsense": "/*",
    }
    for number, path in enumerate(paths, 1):
        with open_raw_connection(base_url) as connection:
            # A byte that is not UTF-8 must not make a log line that is not UTF-8.
            connection.send(make_request_head("GET", path, base_url).replace("\xa0".encode(), b"\xa0"))
            connection.read_response()
        # A worker of nginx logs a request after its response, so another worker could log the next one first.
        wait_until(partial(has_lines, number))
    assert [line["path"] for line in gateway.lines()] == list(paths.values())


@pytest.fixture(scope="module")
def everything_used(stack: Stack) -> None:
    """The logs contain the lines of all requests of `use_everything`."""
    log = NewLogLines(stack, "gateway")
    with Client(stack.base_url) as client:
        use_everything(client)
    wait_until(lambda: 405 in {line["status"] for line in log.lines() if "status" in line})


@pytest.mark.parametrize("process", PROCESSES)
def test_every_line_is_json(stack: Stack, everything_used: None, process: str) -> None:
    complete = stack.supervisor.log(process).read_text().rpartition("\n")[0]
    assert complete
    for line in complete.splitlines():
        assert isinstance(json.loads(line), dict), line


@pytest.mark.parametrize(
    ("method", "path", "service", "status"),
    [
        ("POST", "/users", "users", 201),
        ("POST", "/users", "users", 400),
        ("POST", "/records", "records", 201),
        ("POST", "/records", "records", 401),
        ("GET", "/record", "records", 200),
        ("HEAD", "/record", "records", 200),
        ("GET", "/record", "records", 404),
        ("GET", "/records/*/waveform", "records", 200),
    ],
)
def test_the_request_id_of_the_response_finds_the_log_lines(
    stack: Stack, client: Client, method: str, path: str, service: str, status: int
) -> None:
    user = client.create_user("Traced")
    record = client.upload_stream(iter([make_wav(SMALL)]), user["token"])
    gateway, log = NewLogLines(stack, "gateway"), NewLogLines(stack, service)
    token = user["token"] if status != 401 else "wrong"
    audio = {"Authorization": f"Bearer {token}", "Content-Type": "audio/wav"}
    if path == "/users":
        body = {"name": "Ann"} if status == 201 else {"nam": "Ann"}
        response = client.http.request(method, path, json=body)
    elif path == "/records":
        response = client.http.request(method, path, content=make_wav(SMALL), headers=audio)
    elif path == "/records/*/waveform":
        response = client.http.get(path.replace("*", record["id"]), params={"user": user["id"]})
    else:
        unknown = f"/record?id={uuid4()}&user={uuid4()}"
        response = client.http.request(method, record["url"] if status == 200 else unknown)
    assert response.status_code == status, response.text
    (request_id,) = response.headers.get_list("x-request-id")
    assert REQUEST_ID.fullmatch(request_id)
    (line,) = wait_until(lambda: [each for each in log.requests(path) if each["request_id"] == request_id])
    assert (line["method"], line["path"], line["status"]) == (method, path, status)
    (line,) = wait_until(lambda: [each for each in gateway.lines() if each.get("request_id") == request_id])
    assert (line["method"], line["path"], line["status"]) == (method, path, status)


def test_a_request_that_is_not_http_is_logged_with_its_request_id(stack: Stack) -> None:
    log = NewLogLines(stack, "records")
    target = f"/records/{uuid4()}/waveform?user={uuid4()}"
    with open_raw_connection(stack.base_url) as connection:
        connection.send(make_request_head("GET", target, stack.base_url, "X: a\x01b"))
        response = connection.read_response()
    assert_problem(response, 400, "invalid-request")
    (line,) = wait_until(lambda: log.requests("/records/*/waveform"))
    assert (line["method"], line["status"]) == ("GET", 400)
    assert line["request_id"] == response.headers["x-request-id"]


def test_a_request_id_from_the_client_is_ignored(stack: Stack, client: Client) -> None:
    log = NewLogLines(stack, "users")
    made_up = "0123456789abcdef" * 2
    response = client.http.post("/users", json={"name": "Ann"}, headers={"X-Request-ID": made_up})
    assert response.status_code == 201
    assert response.headers["x-request-id"] != made_up
    wait_until(lambda: log.requests("/users"))
    assert made_up not in log.text()


# Requests whose credentials name a user, by the service that logs them.
TRACED = {
    "GET /users/me": "users",
    "POST /users/me/token": "users",
    "GET /records": "records",
    "GET /records?limit=0": "records",
    "GET /records/{record}": "records",
    "GET /records/{record}/waveform": "records",
    "GET /records/{record}/original": "records",
    "DELETE /records/{record}/original": "records",
    "POST /records": "records",
    "POST /records?bitrate_kbps=1": "records",
    "DELETE /records/{record}": "records",
    "DELETE /users/me": "users",
}


@pytest.mark.parametrize("route", TRACED)
def test_the_line_of_a_request_names_the_user_whose_credentials_are_right(
    stack: Stack, client: Client, route: str
) -> None:
    user = client.create_user("Traced")
    record = client.upload_stream(iter([make_wav(SMALL)]), user["token"], keep_original=True)
    log = NewLogLines(stack, TRACED[route])
    method, path = route.format(record=record["id"]).split()
    content = make_wav(SMALL) if route.startswith("POST /records") else None
    response = client.http.request(method, path, headers={**bearer(user), **WAV_TYPE}, content=content)
    assert log.line_of(response)["user_id"] == user["id"]


@pytest.mark.parametrize(
    "route", ["/record?id={record}&user={user}", "/records/{record}/waveform?user={user}"]
)
def test_the_line_of_a_link_names_no_user(stack: Stack, client: Client, route: str) -> None:
    user = client.create_user("Traced")
    record = client.upload_stream(iter([make_wav(SMALL)]), user["token"])
    log = NewLogLines(stack, "records")
    response = client.http.get(route.format(record=record["id"], user=user["id"]))
    assert "user_id" not in log.line_of(response)


def test_the_line_of_a_request_with_a_wrong_token_names_no_user(stack: Stack, client: Client) -> None:
    user = client.create_user("Traced")
    log = NewLogLines(stack, "users")
    response = client.http.get("/users/me", headers=basic({**user, "token": "wrong"}))
    assert "user_id" not in log.line_of(response)


def test_every_line_of_a_failed_upload_names_its_user(stack: Stack, client: Client) -> None:
    user = client.create_user("Traced")
    log = NewLogLines(stack, "records")
    key = {**bearer(user), **WAV_TYPE, "Idempotency-Key": "traced"}
    assert client.http.post("/records", content=make_wav(SMALL), headers=key).status_code == 201
    for query, status in (("?bitrate_kbps=320", 422), ("", 201)):
        response = client.http.post(f"/records{query}", content=make_wav(SMALL), headers=key)
        assert response.status_code == status
        assert log.line_of(response)["user_id"] == user["id"]


def test_a_sign_up_a_new_token_and_a_deletion_leave_an_audit_line(stack: Stack, client: Client) -> None:
    log = NewLogLines(stack, "users")
    signed_up = client.http.post("/users", json={"name": "Ann"})
    user = signed_up.json()
    renewed = client.http.post("/users/me/token", headers=bearer(user))
    deleted = client.http.delete("/users/me", headers=bearer(renewed.json()))
    responses = {"sign-up": signed_up, "token": renewed, "deletion": deleted}
    log.line_of(deleted)
    audits = [line for line in log.lines() if line["event"] == "audit" and line["user_id"] == user["id"]]
    assert [(line["action"], line["request_id"]) for line in audits] == [
        (action, response.headers["x-request-id"]) for action, response in responses.items()
    ]
    assert log.line_of(signed_up)["user_id"] == user["id"]


def test_a_refused_request_leaves_no_audit_line(stack: Stack, client: Client) -> None:
    log = begin_behind_earlier_requests(stack, client)
    for method, path in (("POST", "/users"), ("POST", "/users/me/token"), ("DELETE", "/users/me")):
        response = client.http.request(method, path, headers={"Authorization": "Bearer wrong"})
        assert response.is_error
        log.line_of(response)
    assert [line for line in log.lines() if line["event"] == "audit"] == []


async def test_the_store_gets_the_id_of_the_request(stack_service: RecordsService) -> None:
    sent: list[str] = []

    async def remember(_: object, __: object, params: aiohttp.TraceRequestHeadersSentParams) -> None:
        sent.append(params.headers["User-Agent"])

    async with make_session() as session:
        trace = aiohttp.TraceConfig()
        trace.on_request_headers_sent.append(remember)
        trace.freeze()
        session.trace_configs.append(trace)
        store = ObjectStore(
            make_client(stack_service.settings.store, session), stack_service.settings.store.s3_bucket
        )
        with structlog.contextvars.bound_contextvars(request_id="0" * 32):
            await store.check()
    assert sent == [f"waxwing-records request-id/{'0' * 32}"]


async def test_a_slow_statement_is_logged_with_the_id_of_its_request(
    stack_service: RecordsService, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.metrics.SLOW_STATEMENT_SECONDS", 0.0)
    structlog.reset_defaults()
    engine = make_engine(stack_service.settings.database_url, stack_service.settings.database_password)
    watch_engine(engine)
    with structlog.contextvars.bound_contextvars(request_id="0" * 32):
        await execute(engine, text("SELECT 12345"))
    await engine.dispose()
    lines = [line for line in capsys.readouterr().out.splitlines() if "SELECT 12345" in line]
    assert ["slow statement" in line and "0" * 32 in line for line in lines] == [True]


@pytest.mark.parametrize(("setting", "is_json"), [("json", True), ("text", False)])
def test_a_service_logs_in_the_format_of_the_setting(
    stack: Stack, tmp_path: Path, setting: str, is_json: bool
) -> None:
    instance = Instance(stack, "users", {"LOG_FORMAT": setting})
    log = tmp_path / "log"
    with log.open("wb") as file:
        instance.start(file)
        assert httpx.get(f"http://{LOOPBACK}:{instance.port}/users/me").status_code == 401
        instance.stop()
    lines = log.read_text().splitlines()
    assert all(line.startswith("{") == is_json for line in lines)
    assert any("request" in line and "/users/me" in line and "401" in line for line in lines)
