"""The curl lines in README.md work and get the responses that it shows."""

import argparse
import json
import os
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from string import Template
from typing import Any
from uuid import uuid4

import httpx
import imageio_ffmpeg
import pytest

from deploy.client import Client
from tests.response_checks import assert_problem
from tests.upload_requests import bearer
from tests.wavs import Wav, music

Run = Callable[[str, dict[str, str]], httpx.Response]

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
CURL_LINES = re.findall(r"^curl .*$", README, re.MULTILINE)
# The response that README shows below a line, if it shows one.
SHOWN_RESPONSES = {
    line: json.loads(response)
    for line, response in re.findall(r"^(curl .*)\n```\n```json\n(.*)\n```$", README, re.MULTILINE)
}

WAV = Wav().build(music(2))


def has_curl() -> bool:
    """Whether curl is installed and has --json (7.82 and later)."""
    known = subprocess.run(["/bin/sh", "-c", "curl --help all"], capture_output=True, check=False).stdout
    return b"--json" in known


def send_by_curl(line: str, variables: dict[str, str], folder: Path) -> httpx.Response:
    """Runs the line in a shell, in a folder with hello.wav."""
    (folder / "hello.wav").write_bytes(WAV)
    # -q ignores the settings in the user's ~/.curlrc.
    command = line.replace("curl ", "curl -q -sS -D headers ", 1)
    environment = {"PATH": os.environ["PATH"], **variables}
    shell = ["/bin/sh", "-c", command]
    done = subprocess.run(shell, cwd=folder, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    # A 100 (Continue) may stand in front of the final status and headers.
    status, *headers = (folder / "headers").read_text().strip().split("\n\n")[-1].splitlines()
    content = (folder / "hello.mp3").read_bytes() if "-o hello.mp3" in line else done.stdout
    fields = dict(header.split(": ", 1) for header in headers)
    return httpx.Response(int(status.split()[1]), headers=fields, content=content)


# Only the options that README uses.
curl = argparse.ArgumentParser("curl")
curl.add_argument("url")
curl.add_argument("--json", type=json.loads)
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
    request = client.http.build_request(
        options.method or ("POST" if options.json or fields else "GET"),
        options.url,
        headers=dict(header.split(": ", 1) for header in options.headers),
        json=options.json,
        data={name: value for name, value in fields.items() if name not in files},
        files={name: (value[1:], WAV, "audio/wav") for name, value in files.items()},
    )
    user_id, _, token = (options.credentials or "").partition(":")
    return client.http.send(request, auth=(user_id, token) if user_id else None)


@pytest.fixture
def run_curl(client: Client, tmp_path: Path) -> Run:
    """Returns a function that runs a line and checks that its response has the shape that README shows."""
    with_curl = has_curl()

    def run(line: str, variables: dict[str, str]) -> httpx.Response:
        here = line.replace("http://127.0.0.1:8080", str(client.http.base_url).rstrip("/"))
        if with_curl:
            response = send_by_curl(here, variables, tmp_path)
        else:
            response = send_without_curl(here, variables, client)
        assert response.is_success, response.text
        if line in SHOWN_RESPONSES:
            assert shape_of(response.json()) == shape_of(SHOWN_RESPONSES[line])
        return response

    return run


def shape_of(value: Any) -> Any:
    """The names and types in a JSON value; a list has the shape of its first element."""
    if isinstance(value, dict):
        return {name: shape_of(member) for name, member in value.items()}
    return [shape_of(member) for member in value[:1]] if isinstance(value, list) else type(value)


def test_the_curl_lines_do_what_the_readme_shows(client: Client, run_curl: Run) -> None:
    create, upload, listen, draw, keep, send_again, show_all, *others = CURL_LINES
    rename, search, show, remove, who_am_i, renew, leave = others
    assert [*SHOWN_RESPONSES] == [create, upload, draw, show_all, who_am_i, renew]
    user = run_curl(create, {}).json()
    variables = {"ID": user["id"], "TOKEN": user["token"], "KEY": str(uuid4())}

    record = run_curl(upload, variables).json()
    variables |= {"RECORD": record["id"], "URL": record["url"]}
    mp3 = run_curl(listen, variables)
    assert mp3.headers["Content-Type"] == "audio/mpeg"
    assert len(mp3.content) == record["size_bytes"]
    waveform = run_curl(draw, variables).json()
    assert waveform["length"] <= SHOWN_RESPONSES[draw]["length"]

    kept = run_curl(keep, variables).json()
    original = client.http.get(kept["original"]["url"], headers=bearer(user)).content
    assert original == WAV
    assert run_curl(remove, {**variables, "RECORD": kept["id"]}).status_code == 204

    first, again = (run_curl(send_again, variables) for _ in range(2))
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert first.json() == again.json() != record
    assert run_curl(show_all, variables).json()["records"] == [first.json()]
    renamed = run_curl(rename, variables).json()
    assert renamed == {**record, "title": "Hello"}
    assert run_curl(search, variables).json()["records"] == [renamed]
    assert run_curl(show, variables).json() == renamed
    assert run_curl(remove, variables).status_code == 204
    assert run_curl(who_am_i, variables).json()["total_bytes"] == first.json()["size_bytes"]

    variables |= {"TOKEN": run_curl(renew, variables).json()["token"]}
    assert run_curl(leave, variables).status_code == 204
    assert_problem(client.http.get(first.json()["url"]), 404, "unknown-record")


def test_curl_uploads_what_ffmpeg_writes(client: Client, user: dict[str, Any], tmp_path: Path) -> None:
    (line,) = re.findall(r"^ffmpeg .*$", README, re.MULTILINE)
    (tmp_path / "talk.flac").write_bytes(WAV)
    (tmp_path / "ffmpeg").symlink_to(imageio_ffmpeg.get_ffmpeg_exe())
    command = line.replace("http://127.0.0.1:8080", str(client.http.base_url).rstrip("/"))
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "ID": user["id"], "TOKEN": user["token"]}
    shell = ["/bin/sh", "-c", command]
    done = subprocess.run(shell, cwd=tmp_path, env=environment, capture_output=True, check=True)
    record = json.loads(done.stdout)
    assert (record["duration_seconds"], record["truncated"]) == (2.0, False)
    assert len(client.download(record["url"])) == record["size_bytes"]
