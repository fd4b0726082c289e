"""A client that closes its connection during an upload leaves nothing, and is not logged as an error."""

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
from records.storage import make_original_key
from tests.integration.new_log_lines import NewLogLines
from tests.integration.records_service import RecordsService
from tests.integration.waiting import wait_until, wait_until_async
from tests.raw_connection import make_request_head, open_raw_connection
from tests.response_checks import assert_problem
from tests.wavs import Wav, silence

# For 8-bit sound at 8 kHz the MP3 has as many bytes as the WAV. At the last two offsets the second upload
# part, which is sent first, is complete, even if as much audio as allowed still waits for the encoder.
OFFSETS = [0, 1, 100, 600, 10_000, 65_536, 300_000, 2_000_000, 16_600_000, 17_000_000]
UPLOAD_PART_IS_SENT = 16_600_000
# By then the service has read the credentials and the header of the audio.
ROW_IS_THERE = 600


@cache
def long_wav() -> bytes:
    return Wav(bits=8, channels=1, rate=8000).build(silence(2200.0, rate=8000, channels=1))


def make_request(shape: str, user_id: str, token: str) -> tuple[bytes, bytes]:
    """Returns head and body of an upload: bare, bare with the wish to keep its original, or as a form."""
    path = "/records?keep_original=true" if shape == "kept" else "/records"
    if shape != "form":
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
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
    return head.encode(), body


def vanish(connection: socket.socket, politely: bool) -> None:
    """Closes a connection, or resets it."""
    if not politely:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def has_ended(gateway: NewLogLines, log: NewLogLines, attempts: int, certain: int) -> bool:
    """Whether the gateway and the service have both ended the latest upload.

    The service never hears of a client that vanishes before nginx connects to it. It has certainly heard of
    the `certain` uploads whose rows the test has seen.
    """
    at_gateway = [line for line in gateway.lines() if line.get("path") == "/records"]
    return len(at_gateway) == attempts and len(log.requests("/records")) >= certain


async def is_gone(stack_service: RecordsService, user_id: UUID, key: str) -> bool:
    """Whether an upload has left nothing, except perhaps a tombstone."""
    if any(row.state != "deleting" for row in await stack_service.rows(user_id)):
        return False
    for each in (key, make_original_key(key)):
        if await stack_service.multipart_uploads(each):
            return False
    return not await stack_service.objects(user_id)


@pytest.mark.parametrize("shape", ["bare", "kept", "form"])
async def test_a_client_that_vanishes_anywhere_leaves_nothing_and_is_logged_as_499(
    stack: Stack, stack_service: RecordsService, client: Client, shape: str
) -> None:
    log, gateway = NewLogLines(stack, "records"), NewLogLines(stack, "gateway")
    keys: dict[UUID, str] = {}
    for attempt, offset in enumerate(OFFSETS):
        user = client.create_user("Vanishing")
        user_id = UUID(user["id"])
        head, body = make_request(shape, user["id"], user["token"])
        connection = socket.create_connection((LOOPBACK, stack.ports.gateway))
        connection.sendall(head + body[:offset])
        if shape != "form" or offset >= ROW_IS_THERE:
            (row,) = await wait_until_async(partial(stack_service.rows, user_id))
            keys[user_id] = row.object_key
        if offset >= UPLOAD_PART_IS_SENT:
            await wait_until_async(partial(stack_service.multipart_uploads, keys[user_id]))
            if shape == "kept":
                original = make_original_key(keys[user_id])
                await wait_until_async(partial(stack_service.multipart_uploads, original))
        vanish(connection, politely=attempt % 2 == 0)
        wait_until(partial(has_ended, gateway, log, attempt + 1, len(keys)))
    # The service may have logged uploads without a seen row, so the latest upload may not have ended yet.
    for user_id, key in keys.items():
        await wait_until_async(partial(is_gone, stack_service, user_id, key))
    assert {line["status"] for line in log.requests("/records")} == {499}
    assert not [line for line in log.lines() if line["level"] in {"error", "critical"}], log.text()
    assert "unexpected error" not in log.text()
    assert len(keys) >= 7


async def test_a_client_that_vanishes_after_its_last_byte_leaves_a_complete_record_or_none(
    stack: Stack, stack_service: RecordsService, client: Client
) -> None:
    log = NewLogLines(stack, "records")
    user = client.create_user("Vanishing")
    head, body = make_request("bare", user["id"], user["token"])
    with socket.create_connection((LOOPBACK, stack.ports.gateway)) as connection:
        connection.sendall(head + body)
    wait_until(lambda: log.requests("/records"))
    assert [line for line in log.lines() if line["level"] in {"error", "critical"}] == []

    async def find_ended() -> list[Row[Any]]:
        return [row for row in await stack_service.rows(UUID(user["id"])) if row.state != "uploading"]

    (row,) = await wait_until_async(find_ended)
    if row.state == "deleting":
        await wait_until_async(partial(is_gone, stack_service, row.user_id, row.object_key))
    else:
        assert row.state == "ready"
        assert await stack_service.objects(row.user_id) == [row.object_key]
        assert await stack_service.multipart_uploads(row.object_key) == []


async def test_an_upload_whose_chunks_break_off_in_nonsense_is_a_problem_and_leaves_nothing(
    stack: Stack, stack_service: RecordsService, user: dict[str, Any]
) -> None:
    # The request goes to the service itself, because the gateway refuses it.
    service = f"http://{LOOPBACK}:{stack.ports.records}"
    head = make_request_head(
        "POST",
        "/records",
        service,
        f"Authorization: Bearer {user['token']}",
        "Content-Type: audio/wav",
        "Transfer-Encoding: chunked",
    )
    with open_raw_connection(service) as connection:
        connection.send(head, b"2\r\nRI\r\n")
        await wait_until_async(partial(stack_service.rows, UUID(user["id"])))
        connection.send(b"nonsense\r\n")
        assert_problem(connection.read_response(), 400, "invalid-request")
        # The service reads the rest and does not reset the connection.
        connection.send(long_wav())

    async def is_forgotten() -> bool:
        return not await stack_service.rows(UUID(user["id"]))

    await wait_until_async(is_forgotten)
