"""Uploads with an Idempotency-Key, and checks of their responses."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import httpx

from deploy.client import Client
from tests.response_checks import assert_json, assert_problem
from tests.upload_requests import (
    FORM_TYPE,
    TINY_WAV,
    WAV_TYPE,
    FormPart,
    audio,
    bearer,
    make_form,
    token,
    user_id,
)

Post = Callable[..., httpx.Response]


def make_key() -> str:
    return f"test-{uuid4()}"


def post_bare(
    client: Client, user: dict[str, Any], key: str, wav: bytes = TINY_WAV, **query: str
) -> httpx.Response:
    headers = {**WAV_TYPE, **bearer(user), "Idempotency-Key": key}
    return client.http.post("/records", content=wav, params=query, headers=headers)


def post_form(
    client: Client, user: dict[str, Any], key: str, wav: bytes = TINY_WAV, **fields: str
) -> httpx.Response:
    """Uploads a form: first the credentials, then the options, then the audio."""
    options = [FormPart(name, value) for name, value in fields.items()]
    return post_parts(client, key, user_id(user), token(user), *options, audio(wav))


def post_parts(client: Client, key: str, *parts: FormPart) -> httpx.Response:
    headers = {**FORM_TYPE, "Idempotency-Key": key}
    return client.http.post("/records", content=make_form(*parts), headers=headers)


def assert_made(response: httpx.Response) -> dict[str, Any]:
    """Checks that an upload made a new record, and returns it."""
    assert "Idempotency-Replayed" not in response.headers
    return assert_json(response, 201)


def assert_replayed(response: httpx.Response, record: dict[str, Any]) -> None:
    """Checks that an upload got the response of the upload that made this record."""
    assert assert_json(response, 201) == record
    assert response.headers["Location"] == record["url"]
    assert response.headers.get_list("Idempotency-Replayed") == ["true"]


def assert_in_use(response: httpx.Response, key: str) -> None:
    """Checks that an upload was refused because another one with its key is running."""
    assert_problem(response, 409, "idempotency-key-in-use", key)
    assert response.headers["Retry-After"] == "5"


def assert_reused(response: httpx.Response, *says: str) -> None:
    """Checks that an upload was refused because its options differ from the record's."""
    assert_problem(response, 422, "idempotency-key-reused", *says)


def list_ids(client: Client, user: dict[str, Any]) -> list[str]:
    """The ids of all records of a user."""
    page = assert_json(client.http.get("/records", headers=bearer(user)), 200)
    return [record["id"] for record in page["records"]]
