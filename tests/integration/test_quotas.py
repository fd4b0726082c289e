"""Quotas: what is refused, when, and that uploads at the same time do not overrun them."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from deploy.client import Client
from deploy.local.stack import Stack
from records.form import AudioBegins, FormItem
from records.problems import LargerThanQuota, QuotaReached
from records.uploads import Published, Replayed
from tests.integration.new_log_lines import begin_behind_earlier_requests
from tests.integration.records_service import RecordsService
from tests.response_checks import assert_json, assert_problem
from tests.upload_requests import FORM_TYPE, TINY_WAV, WAV_TYPE, audio, bearer, make_form, token, user_id
from tests.wavs import Wav, sine
from users import commands

User = dict[str, Any]
RATE = 8000


def make_wav(seconds: float) -> bytes:
    return Wav(channels=1, rate=RATE).build(sine(seconds=seconds, rate=RATE, channels=1))


async def in_pieces(wav: bytes, read: list[int] | None = None) -> AsyncIterator[FormItem]:
    """Yields a WAV in pieces, and counts in `read` the bytes that were asked for."""
    yield AudioBegins()
    for start in range(0, len(wav), 4096):
        if read is not None:
            read.append(len(wav[start : start + 4096]))
        yield wav[start : start + 4096]


def give_quota(stack: Stack, user: User, *limits: str) -> None:
    commands.main(["quota", user["id"], *limits], stack.environment("users"))


def upload(client: Client, user: User, wav: bytes = TINY_WAV) -> Any:
    return client.http.post("/records", content=wav, headers={**bearer(user), **WAV_TYPE})


@pytest.mark.parametrize("with_form", [False, True])
def test_a_full_quota_refuses_uploads_until_records_are_deleted(
    stack: Stack, client: Client, user: User, with_form: bool
) -> None:
    give_quota(stack, user, "--records", "1")
    record = assert_json(upload(client, user), 201)
    if with_form:
        # The credentials come last.
        form = make_form(audio(TINY_WAV), user_id(user), token(user))
        refused = client.http.post("/records", content=form, headers=FORM_TYPE)
    else:
        refused = upload(client, user)
    assert_problem(refused, 403, "quota-reached", "1 records, and 1 are stored", "Delete", "operator")
    assert len(client.download(record["url"])) == record["size_bytes"]
    client.http.delete(f"/records/{record['id']}", headers=bearer(user)).raise_for_status()
    assert_json(upload(client, user), 201)


def test_a_recording_larger_than_the_quota_is_413_and_one_that_does_not_fit_any_more_403(
    stack: Stack, client: Client, user: User
) -> None:
    give_quota(stack, user, "--seconds", "3")
    refused = assert_problem(upload(client, user, make_wav(3.1)), 413, "larger-than-quota", "3 seconds")
    assert "shorter" in refused["detail"]
    assert_json(upload(client, user, make_wav(2)), 201)
    assert_problem(upload(client, user, make_wav(1.1)), 403, "quota-reached", "3 seconds", "2 are stored")
    assert_json(upload(client, user, make_wav(1)), 201)


def test_a_user_sees_its_limits_and_its_use(stack: Stack, client: Client, user: User) -> None:
    log = begin_behind_earlier_requests(stack, client)
    give_quota(stack, user, "--records", "5", "--bytes", "unlimited")
    record = assert_json(upload(client, user), 201)
    profile = assert_json(client.http.get("/users/me", headers=bearer(user)), 200)
    assert (profile["record_count"], profile["max_records"]) == (1, 5)
    assert (profile["total_bytes"], profile["max_bytes"]) == (record["size_bytes"], None)
    assert (profile["total_seconds"], profile["max_seconds"]) == (record["duration_seconds"], None)
    give_quota(stack, user, "--records", "default")
    assert assert_json(client.http.get("/users/me", headers=bearer(user)), 200)["max_records"] is None
    lines = [line for line in log.lines() if line["event"] == "audit" and line["user_id"] == user["id"]]
    assert [(line["action"], line["quota_records"]) for line in lines] == [
        ("quota", 5),
        ("quota", None),
    ]


@pytest.mark.parametrize("arguments", [[], ["--records", "-1"], ["--bytes", "1.5"], ["--seconds", "much"]])
def test_a_malformed_quota_is_refused(stack: Stack, user: User, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        give_quota(stack, user, *arguments)
    assert refused.value.code == 2


async def test_a_repeated_upload_gets_its_record_although_the_quota_is_full(
    isolated_service: RecordsService,
) -> None:
    _, credentials = await isolated_service.make_user()
    uploads = isolated_service.uploads(quota_records=1)
    first = await uploads.store_record(in_pieces(TINY_WAV), credentials, "key")
    again = await uploads.store_record(in_pieces(TINY_WAV), credentials, "key")
    assert (type(first), type(again), first.record) == (Published, Replayed, again.record)
    with pytest.raises(QuotaReached):
        await uploads.store_record(in_pieces(TINY_WAV), credentials, "another key")
    await uploads.close()


async def test_an_upload_is_refused_as_soon_as_it_cannot_fit(isolated_service: RecordsService) -> None:
    user_id, credentials = await isolated_service.make_user()
    wav = make_wav(30)

    async def refuse(sent: bytes, problem: type[Exception], **settings: int) -> int:
        """Returns how many pieces were read."""
        read: list[int] = []
        uploads = isolated_service.uploads(None, **settings)
        with pytest.raises(problem):
            await uploads.store_record(in_pieces(sent, read), credentials)
        await uploads.close()
        return len(read)

    # The header announces more, so the first piece is enough.
    assert await refuse(wav, LargerThanQuota, quota_seconds=10) == 1
    # These 16 MB are more than may wait for the encoders, so they are not read to the end.
    unknown = b"\xff\xff\xff\xff"
    endless = wav[:4] + unknown + wav[8:40] + unknown + wav[44:] * 33
    total = len(endless) // 4096
    assert 1 < await refuse(endless, LargerThanQuota, quota_seconds=10) < total
    assert 1 < await refuse(endless, LargerThanQuota, quota_bytes=20_000) < total
    max_total_bytes = await stored_bytes(isolated_service) + 20_000
    assert 1 < await refuse(endless, QuotaReached, max_total_bytes=max_total_bytes) < total
    uploads = isolated_service.uploads()
    await uploads.store_record(in_pieces(TINY_WAV), credentials)
    await uploads.close()
    assert await refuse(wav, QuotaReached, quota_records=1) == 0
    assert await refuse(wav, QuotaReached, quota_bytes=100) == 0
    assert await refuse(wav, QuotaReached, max_total_bytes=1) == 0
    await isolated_service.settle(user_id)
    assert [row.state for row in await isolated_service.rows(user_id)] == ["ready"]


async def stored_bytes(service: RecordsService) -> int:
    (row,) = await service.query("SELECT sum(total_bytes) AS bytes FROM users")
    return int(row.bytes or 0)


@pytest.mark.parametrize("limit", ["quota_records", "quota_bytes", "quota_seconds", "max_total_bytes"])
async def test_uploads_at_the_same_time_do_not_overrun_a_quota(
    isolated_service: RecordsService, limit: str
) -> None:
    _, other = await isolated_service.make_user()
    uploads = isolated_service.uploads()
    result = await uploads.store_record(in_pieces(make_wav(1)), other)
    await uploads.close()
    size_bytes = result.record.size_bytes
    limits = {
        "quota_records": 3,
        "quota_bytes": 3 * size_bytes,
        "quota_seconds": 3,
        "max_total_bytes": await stored_bytes(isolated_service) + 3 * size_bytes,
    }
    user_id, credentials = await isolated_service.make_user()
    uploads = isolated_service.uploads(None, **{limit: limits[limit]})
    everybody_has_begun = asyncio.Barrier(6)

    async def body() -> AsyncIterator[FormItem]:
        # Every upload has looked at its quota before any of them goes on.
        await everybody_has_begun.wait()
        async for item in in_pieces(make_wav(1)):
            yield item

    results = await asyncio.gather(
        *(uploads.store_record(body(), credentials) for _ in range(6)), return_exceptions=True
    )
    await uploads.close()
    assert sorted(type(each).__name__ for each in results) == ["Published"] * 3 + ["QuotaReached"] * 3
    assert [row.state for row in await isolated_service.rows(user_id)].count("ready") == 3


async def test_the_first_quota_of_a_user_counts_for_an_upload_under_way(
    isolated_service: RecordsService,
) -> None:
    user_id, credentials = await isolated_service.make_user()
    uploads = isolated_service.uploads()
    await uploads.store_record(in_pieces(TINY_WAV), credentials)

    async def body() -> AsyncIterator[FormItem]:
        await isolated_service.query("UPDATE users SET quota_records = 1 WHERE id = :id", id=user_id)
        async for item in in_pieces(TINY_WAV):
            yield item

    with pytest.raises(QuotaReached):
        await uploads.store_record(body(), credentials)
    await uploads.close()
