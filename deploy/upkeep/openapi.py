"""Writes docs/openapi: the documents that the services serve, and example requests (`just openapi`)."""

import json
from pathlib import Path
from typing import Any

from litestar import Litestar

import records.app
import records.settings
import users.app
import users.settings

FOLDER = Path(__file__).parents[2] / "docs" / "openapi"
REQUESTS = FOLDER / "requests.http"
PREFACE = """\
# Every operation once, for editors that can send the requests in such a file (REST Client of VS Code,
# JetBrains). Send them from top to bottom. Fill in the variables from the responses: the user's id and token,
# the record's id, and the new token, which replaces the first one. `./just openapi` writes this file.
@gateway = http://127.0.0.1:8080
@user =
@token =
@record =
@new_token =
@wav = recording.wav
"""
# The variables for the required parameters of the operations.
VARIABLES = {"record_id": "record", "id": "record", "user": "user"}
# So that the record has an original, for the requests of it.
QUERIES = {("POST", "/records"): "keep_original=true"}
# This request comes last, because it needs the renewed token.
LAST = ("DELETE", "/users/me")


def make_apps() -> dict[str, Litestar]:
    """Returns both services by name. They are not started, so they need neither PostgreSQL nor MinIO."""
    store = records.settings.StoreSettings(s3_endpoint="http://minio", s3_access_key="", s3_secret_key="")
    return {
        "users": users.app.create_app(users.settings.Settings(database_url="postgresql://")),
        "records": records.app.create_app(
            records.settings.Settings(database_url="postgresql://", store=store)
        ),
    }


def make_documents() -> dict[str, dict[str, Any]]:
    """Returns the documents by the names of their services."""
    return {name: app.openapi_schema.to_schema() for name, app in make_apps().items()}


def make_requests(documents: dict[str, dict[str, Any]]) -> str:
    """Returns the file of requests. Requests that end a token or delete something come last."""
    operations = [
        (method.upper(), path, operation)
        for document in documents.values()
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if method != "head"
    ]
    operations.sort(
        key=lambda one: (
            one[:2] == LAST,
            one[1].endswith("/token"),
            one[0] == "DELETE",
            one[0] != "POST",
            # An original before its record.
            -len(one[1]) if one[0] == "DELETE" else 0,
        )
    )
    return PREFACE + "".join(_write_request(*operation) for operation in operations)


def _write_request(method: str, path: str, operation: dict[str, Any]) -> str:
    needed = [one for one in operation.get("parameters", []) if one.get("required")]
    variables = {one["name"]: "{{" + VARIABLES[one["name"]] + "}}" for one in needed}
    query = "&".join(f"{one['name']}={variables[one['name']]}" for one in needed if one["in"] == "query")
    query = QUERIES.get((method, path), query)
    url = "{{gateway}}" + path.format(**variables) + (query and f"?{query}")
    lines = ["", f"### {operation['summary']}", f"{method} {url}"]
    if operation["security"]:
        token = "new_token" if (method, path) == LAST else "token"
        lines.append(f"Authorization: Bearer {{{{{token}}}}}")
    contents = operation.get("requestBody", {}).get("content", {})
    if "audio/wav" in contents:
        lines += ["Content-Type: audio/wav", "", "< {{wav}}"]
    elif "application/json" in contents:
        example = contents["application/json"]["example"]
        lines += ["Content-Type: application/json", "", json.dumps(example)]
    return "\n".join([*lines, ""])


def main() -> None:
    """Writes the files, indented so that people can read and compare them."""
    documents = make_documents()
    REQUESTS.write_text(make_requests(documents), encoding="utf-8")
    for name, document in documents.items():
        text = json.dumps(document, indent=2, ensure_ascii=False)
        (FOLDER / f"{name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
