"""What README.md shows is what happens."""

import argparse
import json
import re
import shlex
from pathlib import Path
from string import Template
from typing import Any
from uuid import uuid4

import httpx

from deploy.client import Client
from tests.acceptance.answers import assert_problem
from tests.wavs import Wav, music

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
CURL_LINES = re.findall(r"^curl .*$", README, re.MULTILINE)
# The answer that is shown below a line, where one is.
SHOWN_ANSWERS = {
    line: json.loads(answer)
    for line, answer in re.findall(r"^(curl .*)\n```\n```json\n(.*)\n```$", README, re.MULTILINE)
}

# The options that README uses, and no others.
curl = argparse.ArgumentParser("curl")
curl.add_argument("url")
curl.add_argument("--json", type=json.loads)
curl.add_argument("-F", dest="fields", action="append", default=[])
curl.add_argument("-H", dest="headers", action="append", default=[])
curl.add_argument("-X", dest="method")
curl.add_argument("-o", dest="file")
curl.add_argument("-u", dest="credentials")


def run_curl(line: str, variables: dict[str, str], client: Client) -> httpx.Response:
    """Does what a shell and curl would do."""
    options = curl.parse_args(shlex.split(Template(line).substitute(variables))[1:])
    fields = dict(field.split("=", 1) for field in options.fields)
    files = {name: value for name, value in fields.items() if value.startswith("@")}
    request = client.http.build_request(
        options.method or ("POST" if options.json or fields else "GET"),
        options.url.replace("http://127.0.0.1:8080", str(client.http.base_url).rstrip("/")),
        headers=dict(header.split(": ", 1) for header in options.headers),
        json=options.json,
        data={name: value for name, value in fields.items() if name not in files},
        files={name: (value[1:], Wav().build(music(2)), "audio/wav") for name, value in files.items()},
    )
    user_id, _, token = (options.credentials or "").partition(":")
    answer = client.http.send(request, auth=(user_id, token) if user_id else None)
    assert answer.is_success, answer.text
    if line in SHOWN_ANSWERS:
        assert shape_of(answer.json()) == shape_of(SHOWN_ANSWERS[line])
    return answer


def shape_of(value: Any) -> Any:
    """The names and the types of a JSON value; of a list those of its first element."""
    if isinstance(value, dict):
        return {name: shape_of(member) for name, member in value.items()}
    return [shape_of(member) for member in value[:1]] if isinstance(value, list) else type(value)


def test_the_curl_lines_do_what_is_shown(client: Client) -> None:
    create, upload, listen, draw, send_again, show_all, show, remove, who_am_i, renew, leave = CURL_LINES
    assert [*SHOWN_ANSWERS] == [create, upload, draw, show_all, who_am_i, renew]
    user = run_curl(create, {}, client).json()
    variables = {"ID": user["id"], "TOKEN": user["token"], "KEY": str(uuid4())}

    record = run_curl(upload, variables, client).json()
    variables |= {"RECORD": record["id"], "URL": record["url"]}
    mp3 = run_curl(listen, variables, client)
    assert mp3.headers["Content-Type"] == "audio/mpeg"
    assert len(mp3.content) == record["size_bytes"]
    waveform = run_curl(draw, variables, client).json()
    assert waveform["length"] <= SHOWN_ANSWERS[draw]["length"]

    first, again = (run_curl(send_again, variables, client) for _ in range(2))
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert first.json() == again.json() != record
    assert run_curl(show_all, variables, client).json()["records"] == [first.json()]
    assert run_curl(show, variables, client).json() == record
    assert run_curl(remove, variables, client).status_code == 204
    assert run_curl(who_am_i, variables, client).json()["total_bytes"] == first.json()["size_bytes"]

    variables |= {"TOKEN": run_curl(renew, variables, client).json()["token"]}
    assert run_curl(leave, variables, client).status_code == 204
    assert_problem(client.http.get(first.json()["url"]), 404, "unknown-record")
