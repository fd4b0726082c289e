"""The examples in README.md and docs/api.md work and get the responses that the pages show.

`tests/sdks` runs the examples in JavaScript.
"""

import argparse
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from string import Template
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import httpx
import imageio_ffmpeg
import pytest

from deploy.client import Client
from deploy.terminal.demo import run_demo
from records.settings import DEFAULT_LEASE_SECONDS
from tests.docs_examples import HELLO_WAV, ROOT, SHOWN_URL, join_examples, read_examples
from tests.response_checks import assert_problem
from tests.upload_requests import bearer

Run = Callable[..., httpx.Response]

API = "docs/api.md"
README = "README.md"
# The sign-up key, if the deployment under test needs one. The examples do not show it.
SIGNUP_KEY = os.environ.get("SIGNUP_KEY")


def curl_lines(page: str) -> dict[str, Any]:
    """Returns each curl line of a page, with the response that the page shows below it, or None."""
    examples = read_examples(page, "sh")
    return {
        line: example.shown for example in examples for line in re.findall(r"^curl .*$", example.code, re.M)
    }


def has_curl() -> bool:
    """Whether curl is installed and has --json (7.82 and later)."""
    known = subprocess.run(["/bin/sh", "-c", "curl --help all"], capture_output=True, check=False).stdout
    return b"--json" in known


def send_by_curl(line: str, variables: dict[str, str], folder: Path) -> httpx.Response:
    """Runs the line in a shell, in a folder with hello.wav."""
    # -q ignores the settings in the user's ~/.curlrc.
    key = f"-H {shlex.quote(f'X-Signup-Key: {SIGNUP_KEY}')} " if SIGNUP_KEY else ""
    command = line.replace("curl ", f"curl -q -sS -D headers {key}", 1)
    environment = {"PATH": os.environ["PATH"], **variables}
    shell = ["/bin/sh", "-c", command]
    done = subprocess.run(shell, cwd=folder, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    # A 100 (Continue) may stand in front of the final status and headers.
    status, *headers = (folder / "headers").read_text().strip().split("\n\n")[-1].splitlines()
    file = re.search(r" -o (\S+)", line)
    content = (folder / file[1]).read_bytes() if file else done.stdout
    fields = dict(header.split(": ", 1) for header in headers)
    return httpx.Response(int(status.split()[1]), headers=fields, content=content)


# Only the options that the pages use.
curl = argparse.ArgumentParser("curl")
curl.add_argument("url")
curl.add_argument("--json", type=json.loads)
curl.add_argument("--data-binary")
curl.add_argument("-F", dest="fields", action="append", default=[])
curl.add_argument("-H", dest="headers", action="append", default=[])
curl.add_argument("-X", dest="method")
curl.add_argument("-o", dest="file")
curl.add_argument("-u", dest="credentials")


def send_without_curl(line: str, variables: dict[str, str], client: Client) -> httpx.Response:
    """Sends the request that curl would send for the line."""
    options = curl.parse_args(shlex.split(Template(line).substitute(variables))[1:])
    fields = dict(field.split("=", 1) for field in options.fields)
    files = {name: value for name, value in fields.items() if value.startswith("@")}
    body: dict[str, Any] = {"content": HELLO_WAV} if options.data_binary else {"json": options.json}
    if fields:
        body = {
            "data": {name: value for name, value in fields.items() if name not in files},
            "files": {name: (value[1:], HELLO_WAV, "audio/wav") for name, value in files.items()},
        }
    request = client.http.build_request(
        options.method or ("POST" if options.json or options.data_binary or fields else "GET"),
        options.url,
        headers=dict(header.split(": ", 1) for header in options.headers),
        **body,
    )
    user_id, _, token = (options.credentials or "").partition(":")
    return client.http.send(request, auth=(user_id, token) if user_id else None)


@pytest.fixture
def run_curl(client: Client, tmp_path: Path) -> Run:
    """Returns a function that runs a line, and checks the status of its response."""
    with_curl = has_curl()
    (tmp_path / "hello.wav").write_bytes(HELLO_WAV)

    def run(line: str, variables: dict[str, str], status: int = 0) -> httpx.Response:
        here = line.replace(SHOWN_URL, str(client.http.base_url).rstrip("/"))
        if with_curl:
            response = send_by_curl(here, variables, tmp_path)
        else:
            response = send_without_curl(here, variables, client)
        assert response.status_code == status if status else response.is_success, response.text
        return response

    return run


def shape_of(value: Any) -> Any:
    """The names and types in a JSON value; a list has the shape of its first element."""
    if isinstance(value, dict):
        return {name: shape_of(member) for name, member in value.items()}
    return [shape_of(member) for member in value[:1]] if isinstance(value, list) else type(value)


def test_the_curl_lines_of_the_readme_do_what_it_shows(run_curl: Run) -> None:
    """The README may show fewer fields than the response has."""
    lines = curl_lines(README)
    create, upload, listen = lines
    user = run_curl(create, {}).json()
    record = run_curl(upload, {"ID": user["id"], "TOKEN": user["token"]}).json()
    mp3 = run_curl(listen, {"URL": record["url"]})
    assert mp3.headers["Content-Type"] == "audio/mpeg"
    assert len(mp3.content) == record["size_bytes"]
    for line, response in ((create, user), (upload, record)):
        assert lines[line]
        assert shape_of(lines[line]).items() <= shape_of(response).items()


def test_the_demo_prints_what_the_readme_shows(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    run_demo(client)
    printed = capsys.readouterr().out.replace(str(client.http.base_url).rstrip("/"), SHOWN_URL)
    (shown,) = re.findall(r"^user .*\nupload .*\nlink .*\n", (ROOT / README).read_text(), re.MULTILINE)
    id_ = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
    assert id_.sub("ID", shown) == id_.sub("ID", printed)


def test_the_curl_lines_of_the_api_page_do_what_it_shows(client: Client, run_curl: Run) -> None:
    lines = curl_lines(API)
    variables = {"KEY": str(uuid4())}
    *remaining, _error, _document, _gateway, _users, _records = lines

    def run() -> Any:
        """Runs the next line. Returns its JSON, which has the shape that the page shows, or its response."""
        line = remaining.pop(0)
        response = run_curl(line, variables)
        if lines[line] is not None:
            assert shape_of(response.json()) == shape_of(lines[line])
        is_json = response.headers.get("Content-Type") == "application/json"
        return response.json() if is_json else response

    user = run()
    variables |= {"ID": user["id"], "TOKEN": user["token"]}
    assert run()["record_count"] == 0

    record, kept, bare = run(), run(), run()
    assert (kept["title"], kept["bitrate_kbps"]) == ("Monday", 192)
    variables |= {"RECORD": record["id"], "URL": record["url"], "KEPT": kept["id"]}
    again = remaining[0]
    safe = run()
    replayed = run_curl(again, variables)
    assert replayed.headers["Idempotency-Replayed"] == "true"
    assert replayed.json() == safe
    assert record["sha256"] == bare["sha256"] == safe["sha256"]

    mp3 = run()
    assert mp3.headers["Content-Type"] == "audio/mpeg"
    assert len(mp3.content) == record["size_bytes"]
    pages = [run().headers["Content-Type"] for _ in ("listen", "listen.png")]
    assert pages == ["text/html; charset=utf-8", "image/png"]
    assert run()["length"] <= 12

    assert run()["records"] == [safe]
    assert run() == record
    renamed, found = run(), run()
    assert found["records"] == [renamed] == [{**record, "title": "Hello"}]
    assert run().content == HELLO_WAV
    assert [run().status_code for _ in ("original", "record")] == [204, 204]
    assert_problem(client.http.get(record["url"]), 404, "unknown-record")

    variables["TOKEN"] = run()["token"]
    assert run().status_code == 204
    assert_problem(client.http.get(safe["url"]), 404, "unknown-record")
    assert remaining == []


def test_the_api_page_shows_a_problem_and_where_documents_and_health_are(
    user: dict[str, Any], run_curl: Run
) -> None:
    lines = curl_lines(API)
    error, document, *health = [*lines][-5:]
    problem = run_curl(error, {"ID": user["id"]}, status=401).json()
    assert {**problem, "request_id": ""} == {**lines[error], "request_id": ""}
    assert run_curl(document, {}).json()["openapi"].startswith("3.1")
    for line in health:
        run_curl(line, {}, status=200)


def test_the_api_page_says_how_to_make_a_wav(client: Client, user: dict[str, Any], tmp_path: Path) -> None:
    (line,) = [example.code for example in read_examples(API, "sh") if example.heading == "Before you begin"]
    python = line.replace("python3", shlex.quote(sys.executable), 1)
    subprocess.run(["/bin/sh", "-c", python], cwd=tmp_path, check=True)
    with (tmp_path / "hello.wav").open("rb") as wav:
        assert client.upload(wav, user["id"], user["token"])["duration_seconds"] == 10.0


def test_curl_uploads_what_ffmpeg_writes(client: Client, user: dict[str, Any], tmp_path: Path) -> None:
    (line,) = re.findall(r"^ffmpeg .*$", (ROOT / API).read_text(), re.MULTILINE)
    (tmp_path / "talk.flac").write_bytes(HELLO_WAV)
    (tmp_path / "ffmpeg").symlink_to(imageio_ffmpeg.get_ffmpeg_exe())
    command = line.replace(SHOWN_URL, str(client.http.base_url).rstrip("/"))
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "ID": user["id"], "TOKEN": user["token"]}
    shell = ["/bin/sh", "-c", command]
    done = subprocess.run(shell, cwd=tmp_path, env=environment, capture_output=True, check=True)
    record = json.loads(done.stdout)
    assert (record["duration_seconds"], record["truncated"]) == (2.0, False)
    assert len(client.download(record["url"])) == record["size_bytes"]


@pytest.fixture
def run_python(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Any]]:
    """Yields a function that runs the examples in Python as one program, in a folder with hello.wav."""
    monkeypatch.chdir(tmp_path)
    # A proxy from the environment would not reach a local stack.
    monkeypatch.setenv("no_proxy", "*")
    Path("hello.wav").write_bytes(HELLO_WAV)

    def run(until: str | None = None) -> Any:
        program = join_examples(API, "python", str(client.http.base_url).rstrip("/"), until)
        if SIGNUP_KEY:
            program = program.replace(
                "base_url=", f"headers={{'X-Signup-Key': {SIGNUP_KEY!r}}}, base_url=", 1
            )
        Path("examples.py").write_text(program)
        spec = importlib.util.spec_from_file_location("examples", "examples.py")
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        opened.callback(module.waxwing.close)
        return module

    with ExitStack() as opened:
        yield run


def test_the_python_examples_run_from_top_to_bottom(client: Client, run_python: Callable[..., Any]) -> None:
    did = run_python()
    assert did.me["id"] == did.user["id"]
    assert did.record["duration_seconds"] == 2.0
    assert (did.kept["title"], did.kept["bitrate_kbps"]) == ("Monday", 192)
    assert did.record["sha256"] == did.bare["sha256"] == did.safe["sha256"]
    assert len(Path("hello.mp3").read_bytes()) == len(did.mp3) == did.record["size_bytes"]
    assert did.record["id"] in did.page
    assert did.picture.startswith(b"\x89PNG")
    assert did.waveform["length"] <= 12
    assert did.ids == [each["id"] for each in (did.safe, did.bare, did.kept, did.record)]
    assert did.shown == did.record
    assert did.found == [did.renamed] == [{**did.record, "title": "Hello"}]
    assert did.original == HELLO_WAV
    assert_problem(client.http.get(did.safe["url"]), 404, "unknown-record")
    response = client.http.get("/users/me", headers=bearer({"token": did.new_token}))
    assert_problem(response, 401, "invalid-credentials")


def test_the_upload_in_python_is_sent_again_with_its_key_after_a_break_and_after_a_busy_response(
    run_python: Callable[..., Any],
) -> None:
    did = run_python(until="Send an upload again")
    busy = httpx.Response(503, headers={"Retry-After": "7"}, json={"detail": "Busy"})
    made = httpx.Response(201, json={"id": "made"})
    slept = httpx.Response(408, json={"detail": "Slow"})
    outcomes: list[httpx.Response | Exception] = [httpx.ReadError("broken"), busy, slept, made]
    keys: list[str] = []
    pauses: list[float] = []

    def respond(request: httpx.Request) -> httpx.Response:
        keys.append(request.headers["Idempotency-Key"])
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    did.waxwing = httpx.Client(base_url=did.waxwing.base_url, transport=httpx.MockTransport(respond))
    did.time = SimpleNamespace(sleep=pauses.append)
    assert did.upload("hello.wav") == {"id": "made"}
    assert pauses == [1, 7, 4]

    outcomes += [busy, busy]
    with pytest.raises(RuntimeError, match="Busy"):
        did.upload("hello.wav", pauses=[3])
    outcomes += [httpx.Response(415, json={"detail": "No WAV"})]
    with pytest.raises(RuntimeError, match="No WAV"):
        did.upload("hello.wav")
    assert outcomes == []
    # It waits for longer than the lease of an upload whose service was killed.
    assert sum(did.upload.__defaults__[0]) > DEFAULT_LEASE_SECONDS
    # Four tries of one upload, two of the next one, and one that is refused.
    first, second, third = keys[0], keys[4], keys[6]
    assert keys == [first] * 4 + [second] * 2 + [third]
    assert len({first, second, third}) == 3
