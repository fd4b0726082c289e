"""The doctor finds what rows and bucket do not agree on, and nothing else; its repairs keep what is sound."""

from typing import Any

from deploy.client import Client
from tests.integration.records_service import RecordsService
from tests.response_checks import assert_json, assert_problem
from tests.upload_requests import TINY_WAV, WAV_TYPE, bearer


async def test_the_link_of_a_lost_record_is_410_and_everything_else_of_the_record_works(
    client: Client, user: dict[str, Any], stack_service: RecordsService
) -> None:
    headers = {**bearer(user), **WAV_TYPE, "Idempotency-Key": "lost"}
    record = assert_json(client.http.post("/records", content=TINY_WAV, headers=headers), 201)
    # The gateway's cache has the MP3.
    for _ in range(2):
        client.download(record["url"])
    await stack_service.query("UPDATE records SET lost_at = now() WHERE id = :id", id=record["id"])
    etag = f'"{record["sha256"]}"'
    for sent in ({}, {"Range": "bytes=0-9"}, {"If-None-Match": etag}, {"If-Match": '"other"'}):
        assert_problem(client.http.get(record["url"], headers=sent), 410, "lost-record", "operator")
    assert client.http.head(record["url"]).status_code == 410
    path = f"/records/{record['id']}"
    shown = assert_json(client.http.get(path, headers=bearer(user)), 200)
    assert shown == {**record, "lost_at": shown["lost_at"]}
    assert shown["lost_at"] > shown["created_at"]
    assert assert_json(client.http.get("/records", headers=bearer(user)), 200)["records"] == [shown]
    assert assert_json(client.http.post("/records", content=TINY_WAV, headers=headers), 201) == shown
    assert client.http.get(f"{path}/waveform?user={user['id']}").status_code == 200
    assert client.http.delete(path, headers=bearer(user)).status_code == 204
    assert_problem(client.http.get(record["url"]), 404, "unknown-record")
