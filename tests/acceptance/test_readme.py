"""What README.md shows is what happens."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import httpx

from deploy.client import Client
from tests.wavs import Wav, music

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
CURL_LINES = re.findall(r"^curl .*$", README, re.MULTILINE)
SHOWN_ANSWERS = [json.loads(line) for line in re.findall(r"^\{.*\}$", README, re.MULTILINE)]


def run_curl(line: str, variables: dict[str, str], client: Client) -> httpx.Response:
    """Does what curl would do; only the options that README uses are known."""
    for name, value in variables.items():
        line = line.replace(f"${name}", value)
    words = iter(shlex.split(line)[1:])
    url, form, wav, document = "", {}, None, None
    for word in words:
        if word == "--json":
            document = json.loads(next(words))
        elif word == "-F":
            name, _, value = next(words).partition("=")
            if value.startswith("@"):
                wav = (value[1:], Wav().build(music(2)), "audio/wav")
            else:
                form[name] = value
        elif word == "-o":
            next(words)
        else:
            url = word.replace("http://127.0.0.1:8080", str(client.http.base_url).rstrip("/"))
    if document is not None:
        return client.http.post(url, json=document)
    return client.http.post(url, data=form, files={"audio": wav}) if wav else client.http.get(url)


def types_of(answer: dict[str, Any]) -> dict[str, type]:
    return {name: type(value) for name, value in answer.items()}


def test_the_curl_lines_do_what_is_shown(client: Client) -> None:
    create, upload, listen, draw = CURL_LINES
    user = run_curl(create, {}, client)
    assert user.status_code == 201
    assert types_of(user.json()) == types_of(SHOWN_ANSWERS[0])
    variables = {"ID": user.json()["id"], "TOKEN": user.json()["token"]}
    record = run_curl(upload, variables, client)
    assert record.status_code == 201
    assert types_of(record.json()) == types_of(SHOWN_ANSWERS[1])
    mp3 = run_curl(listen, {"URL": record.json()["url"]}, client)
    assert mp3.status_code == 200
    assert mp3.headers["Content-Type"] == "audio/mpeg"
    assert len(mp3.content) == record.json()["size_bytes"]
    waveform = run_curl(draw, {**variables, "RECORD": record.json()["id"]}, client)
    assert waveform.status_code == 200
    assert waveform.json().keys() == SHOWN_ANSWERS[2].keys()
    assert waveform.json()["length"] <= SHOWN_ANSWERS[2]["length"]
