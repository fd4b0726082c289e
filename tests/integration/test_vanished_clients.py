"""A client that goes away in the middle of its upload leaves nothing, and is nobody's fault."""

import socket
import struct
from functools import cache, partial
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Row

from deploy.client import Client
from deploy.local.ports import LOOPBACK
from deploy.local.stack import Stack
from tests.integration.isolated import Isolated
from tests.integration.reading import Log, until, until_awaited
from tests.raw_connection import make_request_head, open_raw_connection
from tests.response_checks import assert_problem
from tests.wavs import Wav, silence

# Of 8-bit sound at 8 kHz the MP3 has as many bytes as the WAV: the last two places are behind its second
# part, which is the first that is sent, and what may wait for the encoder.
PLACES = [0, 1, 100, 600, 10_000, 65_536, 300_000, 2_000_000, 16_600_000, 17_000_000]
PART_IS_OUT = 16_600_000
# The credentials and the header of the audio are through by then.
ROW_IS_THERE = 600


@cache
def long_wav() -> bytes:
    return Wav(bits=8, channels=1, rate=8000).build(silence(2200.0, rate=8000, channels=1))


def make_request(shape: str, user_id: str, token: str) -> tuple[bytes, bytes]:
    """Head and body of an upload, bare or as a form."""
    if shape == "bare":
        body = long_wav()
        headers = f"Authorization: Bearer {token}\r\nContent-Type: audio/wav\r\n"
    else:
        fields = {"user_id": user_id, "token": token, 'audio"; filename="a.wav': ""}
        parts = [
            f'--limit\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}'
            for name, value in fields.items()
        ]
        body = "\r\n".join(parts).encode() + long_wav() + b"\r\n--limit--\r\n"
        headers = "Content-Type: multipart/form-data; boundary=limit\r\n"
    head = f"POST /records HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
    return head.encode(), body


def vanish(connection: socket.socket, politely: bool) -> None:
    """Closes a connection, or breaks it off."""
    if not politely:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def has_ended(gateway: Log, log: Log, attempts: int, certain: int) -> bool:
    """Whether the gateway and the service have both ended the latest upload.

    A client that is gone before the gateway has spoken to the service is none of the service's: only those
    `certain` ones whose row was seen have been there.
    """
    at_gateway = [line for line in gateway.lines() if line.get("path") == "/records"]
    return len(at_gateway) == attempts and len(log.requests("/records")) >= certain


async def is_gone(inside: Isolated, user_id: UUID, key: str) -> bool:
    """Whether nothing is left of an upload but perhaps a tombstone."""
    if any(row.state != "deleting" for row in await inside.rows(user_id)):
        return False
    return not await inside.objects(user_id) and not await inside.open_uploads(key)


@pytest.mark.parametrize("shape", ["bare", "form"])
async def test_a_client_that_vanishes_anywhere_leaves_nothing_and_is_logged_as_499(
    stack: Stack, inside: Isolated, client: Client, shape: str
) -> None:
    log, gateway = Log(stack, "records"), Log(stack, "gateway")
    keys: dict[UUID, str] = {}
    for attempt, place in enumerate(PLACES):
        user = client.create_user("Vanishing")
        user_id = UUID(user["id"])
        head, body = make_request(shape, user["id"], user["token"])
        connection = socket.create_connection((LOOPBACK, stack.ports.gateway))
        connection.sendall(head + body[:place])
        if shape == "bare" or place >= ROW_IS_THERE:
            (row,) = await until_awaited(partial(inside.rows, user_id))
            keys[user_id] = row.object_key
        if place >= PART_IS_OUT:
            await until_awaited(partial(inside.open_uploads, keys[user_id]))
        vanish(connection, politely=attempt % 2 == 0)
        until(partial(has_ended, gateway, log, attempt + 1, len(keys)))
    # The log may have counted some of the others, so that the latest has not ended yet.
    for user_id, key in keys.items():
        await until_awaited(partial(is_gone, inside, user_id, key))
    assert {line["status"] for line in log.requests("/records")} == {499}
    assert not [line for line in log.lines() if line["level"] in {"error", "critical"}], log.text()
    assert "unexpected error" not in log.text()
    assert len(keys) >= 7


async def test_a_client_that_vanishes_after_its_last_byte_leaves_a_whole_record_or_none(
    stack: Stack, inside: Isolated, client: Client
) -> None:
    log = Log(stack, "records")
    user = client.create_user("Vanishing")
    head, body = make_request("bare", user["id"], user["token"])
    with socket.create_connection((LOOPBACK, stack.ports.gateway)) as connection:
        connection.sendall(head + body)
    until(lambda: log.requests("/records"))
    assert [line for line in log.lines() if line["level"] in {"error", "critical"}] == []

    async def find_ended() -> list[Row[Any]]:
        return [row for row in await inside.rows(UUID(user["id"])) if row.state != "uploading"]

    (row,) = await until_awaited(find_ended)
    if row.state == "deleting":
        await until_awaited(partial(is_gone, inside, row.user_id, row.object_key))
    else:
        assert row.state == "ready"
        assert await inside.objects(row.user_id) == [row.object_key]
        assert await inside.open_uploads(row.object_key) == []


async def test_an_upload_whose_chunks_break_off_in_nonsense_is_a_problem_and_leaves_nothing(
    stack: Stack, inside: Isolated, user: dict[str, Any]
) -> None:
    # The gateway would not let it through.
    service = f"http://{LOOPBACK}:{stack.ports.records}"
    head = make_request_head(
        "POST",
        "/records",
        service,
        f"Authorization: Bearer {user['token']}",
        "Content-Type: audio/wav",
        "Transfer-Encoding: chunked",
    )
    with open_raw_connection(service) as wire:
        wire.send(head, b"2\r\nRI\r\n")
        await until_awaited(partial(inside.rows, UUID(user["id"])))
        wire.send(b"nonsense\r\n")
        assert_problem(wire.read_response(), 400, "invalid-request")
        # The rest is not refused with a reset.
        wire.send(long_wav())

    async def is_forgotten() -> bool:
        return not await inside.rows(UUID(user["id"]))

    await until_awaited(is_forgotten)
