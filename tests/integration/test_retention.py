"""RETENTION_DAYS: the sweeper deletes older records like a DELETE does."""

from records.sweeper import sweep
from tests.integration.recordings import SMALL, wav_pieces
from tests.integration.records_service import RecordsService


async def test_the_sweeper_deletes_records_that_are_older_than_the_retention_and_no_others(
    isolated_service: RecordsService,
) -> None:
    service = isolated_service
    user_id, credentials = await service.make_user()
    uploads = service.uploads()
    old, young = [(await uploads.store_record(wav_pieces(SMALL), credentials)).record for _ in range(2)]
    await uploads.close()
    await service.query(
        "UPDATE records SET published_at = published_at - interval '30 days' WHERE id = :id", id=old.id
    )

    async def states() -> dict[object, str]:
        rows = await service.rows(user_id)
        return {row.id: row.state for row in rows if not row.object_key.endswith(".waveform")}

    for retention_days in (None, 31):
        await sweep(service.engine, service.store, service.settings.lease_seconds, retention_days)
        assert await states() == {old.id: "ready", young.id: "ready"}
    await sweep(service.engine, service.store, service.settings.lease_seconds, 30)
    assert await states() == {old.id: "deleting", young.id: "ready"}
    assert await service.objects(user_id) == [
        f"{user_id}/{young.id}.mp3",
        f"{user_id}/{young.id}.waveform",
    ]
    await service.settle(user_id)
    assert await states() == {young.id: "ready"}
