"""A waveform is read from the store, and lives as long as its record; no failure leaves it behind."""

from typing import Any
from uuid import UUID

import pytest

from deploy.client import Client
from deploy.local.stack import Stack
from records import sql
from records.routes.downloads import hash_id
from records.storage import make_waveform_key
from records.sweeper import longest_late_put
from tests.integration.failing_calls import Failure, LetGo, Trial, kill_sweeps_at_any_call
from tests.integration.new_log_lines import NewLogLines
from tests.integration.paused_calls import PausedUpload, before_publish
from tests.integration.recordings import SMALL, upload_kind, wav_pieces
from tests.integration.records_service import RecordsService
from tests.integration.waiting import wait_until
from tests.response_checks import assert_json, assert_problem
from tests.upload_requests import bearer

# As the version before publishes: the waveform is in the row.
MOVE_INTO_ROW = (
    "UPDATE records SET waveform = :peaks, waveform_size_bytes = NULL, waveform_sha256 = NULL WHERE id = :id"
)


def key_of(record: dict[str, Any]) -> str:
    return f"{record['user_id']}/{record['id']}.waveform"


@pytest.fixture
def record(client: Client, owner: dict[str, Any]) -> dict[str, Any]:
    return upload_kind(client, owner["token"], SMALL)


@pytest.fixture
def path(record: dict[str, Any]) -> str:
    return f"/records/{record['id']}/waveform?user={record['user_id']}"


async def test_a_waveform_in_the_row_of_an_older_record_is_sent_as_one_in_the_store(
    client: Client, stack_service: RecordsService, record: dict[str, Any], path: str
) -> None:
    in_store = client.http.get(path)
    assert_json(in_store, 200)
    peaks = await stack_service.read_object(key_of(record))
    await stack_service.query(MOVE_INTO_ROW, peaks=peaks, id=UUID(record["id"]))
    await stack_service.store.remove(key_of(record))
    in_row = client.http.get(path)
    assert in_row.content == in_store.content
    assert in_row.headers["ETag"] == in_store.headers["ETag"]


async def test_a_lost_waveform_is_503_and_logged_until_the_doctor_forgets_it_and_the_mp3_plays(
    stack: Stack, client: Client, stack_service: RecordsService, record: dict[str, Any], path: str
) -> None:
    await stack_service.store.remove(key_of(record))
    log = NewLogLines(stack, "records")
    assert_problem(client.http.get(path), 503, "unavailable", "does not have what belongs to this address")
    wait_until(lambda: "object lost" in log.text())
    assert hash_id(UUID(record["id"])) in log.text()
    assert record["id"] not in log.text()
    assert await sql.forget_waveform(stack_service.engine, UUID(record["id"]))
    assert not await sql.forget_waveform(stack_service.engine, UUID(record["id"]))
    assert_problem(client.http.get(path), 404, "no-waveform", "its waveform is lost")
    assert client.http.get(record["url"]).status_code == 200


async def test_a_waveform_with_other_bytes_is_503(
    client: Client, stack_service: RecordsService, record: dict[str, Any], path: str
) -> None:
    await stack_service.store.put(key_of(record), b"odd")
    assert_problem(client.http.get(path), 503, "unavailable", "returned other bytes than it was sent")


async def test_the_waveform_of_a_deleted_record_is_404_however_far_the_sweeper_is(
    client: Client, stack_service: RecordsService, owner: dict[str, Any], record: dict[str, Any], path: str
) -> None:
    assert client.http.delete(f"/records/{record['id']}", headers=bearer(owner)).status_code == 204
    assert_problem(client.http.get(path), 404, "unknown-record")
    await stack_service.sweep()
    assert_problem(client.http.get(path), 404, "unknown-record")


async def make_record(service: RecordsService) -> tuple[UUID, UUID, str]:
    """Makes a user with a record. Returns the user, the record's id and its MP3's key."""
    user_id, credentials = await service.make_user()
    uploads = service.uploads()
    record_id = (await uploads.store_record(wav_pieces(SMALL), credentials)).record.id
    await uploads.close()
    key = f"{user_id}/{record_id}.mp3"
    assert await service.objects(user_id) == [key, make_waveform_key(key)]
    return user_id, record_id, key


async def forget_the_waveform(service: RecordsService) -> tuple[UUID, list[str]]:
    user_id, record_id, key = await make_record(service)
    assert await sql.forget_waveform(service.engine, record_id)
    return user_id, [key]


async def delete_the_record(service: RecordsService) -> tuple[UUID, list[str]]:
    user_id, record_id, _ = await make_record(service)
    await sql.delete_record(service.engine, record_id, user_id)
    return user_id, []


async def let_a_killed_upload_expire(service: RecordsService) -> tuple[UUID, list[str]]:
    # The statements of an upload: reserve, publish.
    trial = Trial(service, Failure("killed", "postgres", 2))
    user_id, _ = await trial.run(wav_pieces(SMALL))
    assert "published_at" in trial.struck[0].request
    assert len(await service.objects(user_id)) == 2
    await service.expire(user_id)
    return user_id, []


@pytest.mark.parametrize("process", ["postgres", "minio"])
@pytest.mark.parametrize("let_go", [forget_the_waveform, delete_the_record, let_a_killed_upload_expire])
async def test_a_sweep_that_is_killed_at_any_call_neither_leaves_a_waveform_nor_takes_an_mp3(
    isolated_service: RecordsService,
    let_go: LetGo,
    process: str,
) -> None:
    await kill_sweeps_at_any_call(isolated_service, let_go, process)


async def test_a_waveform_that_arrives_late_is_removed_by_the_second_look(
    isolated_service: RecordsService,
) -> None:
    upload = PausedUpload(isolated_service, SMALL, before_publish)
    await upload.start()
    (row,) = await isolated_service.rows(upload.user_id)
    await isolated_service.expire(upload.user_id)
    await isolated_service.sweep()
    await isolated_service.store.put(make_waveform_key(row.object_key), b"late")
    await isolated_service.age(upload.user_id)
    await isolated_service.sweep()
    await upload.assert_interrupted()
    await isolated_service.assert_nothing_is_left(upload.user_id, upload.watcher)


async def test_a_tombstone_of_a_waveform_needs_no_look_for_multipart_uploads(
    isolated_service: RecordsService,
) -> None:
    await isolated_service.sweep()
    user_id, record_id, key = await make_record(isolated_service)
    await sql.delete_record(isolated_service.engine, record_id, user_id)
    wait = longest_late_put(isolated_service.settings.lease_seconds)
    tombstones = await sql.lease_tombstones(isolated_service.engine, wait, 100)
    looks = {each.object_key: each.may_have_multipart_uploads for each in tombstones}
    assert looks.items() >= {key: False, make_waveform_key(key): False}.items()
    await isolated_service.settle(user_id)


@pytest.mark.parametrize(
    ("change", "tombstones"),
    [
        ("state = 'deleting', lease_until = NULL", ["", ".waveform"]),
        # The version before publishes with the waveform in the row, and stores no object.
        (
            "state = 'ready', lease_until = NULL, size_bytes = 1, sha256 = 'x', duration_seconds = 1,"
            " sample_rate = 1, channels = 1, bitrate_kbps = 1, published_at = now(), waveform = 'x',"
            " waveform_samples_per_pixel = 128",
            [],
        ),
        ("lease_until = now()", []),
    ],
    ids=["given up", "published by the version before", "its lease renewed"],
)
async def test_only_an_upload_that_is_given_up_leaves_a_tombstone_of_its_waveform(
    isolated_service: RecordsService, change: str, tombstones: list[str]
) -> None:
    user_id, _ = await isolated_service.make_user()
    await isolated_service.query(
        "INSERT INTO records (id, user_id, lease_until, object_key)"
        " SELECT gen_random_uuid(), id, now(), id || '.mp3' FROM users WHERE id = :id",
        id=user_id,
    )
    await isolated_service.query(f"UPDATE records SET {change} WHERE user_id = :id", id=user_id)  # noqa: S608
    rows = await isolated_service.rows(user_id)
    keys = {row.object_key for row in rows if row.state == "deleting"}
    assert keys == {f"{user_id}{suffix or '.mp3'}" for suffix in tombstones}
    await isolated_service.query("DELETE FROM records WHERE user_id = :id", id=user_id)


async def test_a_quota_does_not_count_waveforms(isolated_service: RecordsService) -> None:
    user_id, _, _ = await make_record(isolated_service)
    (user,) = await isolated_service.query("SELECT total_bytes FROM users WHERE id = :id", id=user_id)
    (row,) = await isolated_service.rows(user_id)
    assert user.total_bytes == row.size_bytes
