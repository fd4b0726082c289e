"""Uses the clients that openapi-python-client has generated: `journey.py BASE_URL`, with a WAV at stdin."""

import sys
from io import BytesIO

from waxwing_records import AuthenticatedClient as RecordsClient
from waxwing_records.api.records import get_record, get_record_audio, get_records, post_record, remove_record
from waxwing_records.models import BitrateKbps, PostRecordFilesBody
from waxwing_records.types import File
from waxwing_users import AuthenticatedClient, Client
from waxwing_users.api.users import post_user, remove_user
from waxwing_users.models import PostUserBody


def main(base_url: str) -> None:
    """Creates a user, uploads, lists, plays and deletes."""
    ann = post_user.sync(client=Client(base_url=base_url), body=PostUserBody(name="Ann"))
    client = RecordsClient(base_url=base_url, token=ann.token, raise_on_unexpected_status=True)

    # The generated form begins with the audio. The title may follow the audio. The bitrate may not, so it
    # stands in the query.
    wav = File(payload=BytesIO(sys.stdin.buffer.read()), file_name="sound.wav", mime_type="audio/wav")
    form = PostRecordFilesBody(audio=wav, title="Form")
    made = post_record.sync(client=client, body=form, bitrate_kbps=BitrateKbps.VALUE_64)
    assert (made.title, made.bitrate_kbps) == ("Form", 64)

    wav.payload.seek(0)
    bare = post_record.sync(client=client, body=wav, title="Bare", bitrate_kbps=BitrateKbps.VALUE_32)
    assert (bare.title, bare.bitrate_kbps) == ("Bare", 32)

    assert [one.id for one in get_records.sync(client=client).records] == [bare.id, made.id]

    played = get_record_audio.sync(client=client, id=made.id, user=ann.id)
    assert len(played.payload.read()) == made.size_bytes
    part = get_record_audio.sync(client=client, id=made.id, user=ann.id, range_="bytes=0-9")
    assert len(part.payload.read()) == 10

    assert remove_record.sync_detailed(client=client, record_id=made.id).status_code == 204
    problem = get_record.sync(client=client, record_id=made.id)
    assert (problem.type_, problem.status) == ("/problems/unknown-record", 404)

    users_client = AuthenticatedClient(base_url=base_url, token=ann.token)
    assert remove_user.sync_detailed(client=users_client).status_code == 204


if __name__ == "__main__":
    main(sys.argv[1])
