"""keep_original of POST /records, and GET, HEAD and DELETE /records/{id}/original."""

import hashlib
from typing import Any
from uuid import uuid4

import httpx
import pytest

from deploy.client import Client
from tests.acceptance.mp3_checks import COMMON, VALIDATORS, WHOLE, header_names
from tests.acceptance.upload_client import MIB, assert_record, begin_upload, in_pieces, post_form, post_wav
from tests.response_checks import assert_json, assert_problem
from tests.upload_requests import (
    FORM_TYPE,
    TINY_WAV,
    WAV_TYPE,
    FormPart,
    audio,
    bearer,
    begin_form,
    token,
    user_id,
)
from tests.wavs import Wav, noise, sine

User = dict[str, Any]

KEEP = FormPart("keep_original", "true")
# What is encoded is only a part of it: further chunks, a byte of padding, and garbage behind the WAV.
CHUNKS = ((b"LIST", b"INFO"), (b"junk", b"odd"))
DECORATED_WAV = Wav(before_data=CHUNKS, after=CHUNKS).build(sine(seconds=0.1)) + b"garbage"
# Its last sample frame has lost its second half.
CUT_WAV = TINY_WAV[:-1]


def get_original(client: Client, user: User, record: dict[str, Any], **headers: str) -> httpx.Response:
    return client.http.get(f"/records/{record['id']}/original", headers={**bearer(user), **headers})


def assert_original(client: Client, user: User, record: dict[str, Any], wav: bytes) -> None:
    """Checks that a record has kept exactly these bytes."""
    original = record["original"]
    assert original["url"].endswith(f"/records/{record['id']}/original")
    assert (original["size_bytes"], original["sha256"]) == (len(wav), hashlib.sha256(wav).hexdigest())
    response = client.http.get(original["url"], headers=bearer(user))
    assert (response.status_code, response.content) == (200, wav)


def assert_none(client: Client, user: User, record: dict[str, Any]) -> None:
    """Checks that a record has no original, and plays."""
    shown = assert_json(client.http.get(f"/records/{record['id']}", headers=bearer(user)), 200)
    assert shown == {**record, "original": None}
    assert_problem(get_original(client, user, record), 404, "no-original", "keep_original=true")
    assert len(client.download(record["url"])) == record["size_bytes"]


def use(client: Client, user: User) -> tuple[int, int]:
    profile = assert_json(client.http.get("/users/me", headers=bearer(user)), 200)
    return profile["record_count"], profile["total_bytes"]


@pytest.mark.parametrize(
    "wav",
    [
        pytest.param(TINY_WAV, id="small"),
        pytest.param(DECORATED_WAV, id="with more than its audio"),
        pytest.param(CUT_WAV, id="cut"),
        pytest.param(Wav().build(noise(0.1))[: 44 + 40_000 // 4], id="truncated"),
    ],
)
def test_what_is_kept_is_exactly_what_came(client: Client, user: User, wav: bytes) -> None:
    in_form = post_form(client, user_id(user), token(user), KEEP, audio(wav))
    first = post_form(client, KEEP, user_id(user), token(user), audio(wav))
    bare = post_wav(client, user, wav, keep_original="1")
    chunked = client.http.post(
        "/records?keep_original=TRUE", content=in_pieces(wav), headers={**WAV_TYPE, **bearer(user)}
    )
    for response in (in_form, first, bare, chunked):
        assert_original(client, user, assert_json(response, 201), wav)


@pytest.mark.parametrize("more", [-1, 0, 1, 5 * MIB])
def test_an_original_of_several_upload_parts_is_exactly_what_came(
    client: Client, user: User, more: int
) -> None:
    # Around the size of an upload part, where the last one is empty, tiny or whole.
    wav = Wav(channels=1, bits=32, rate=384_000).header(5 * MIB + more - 44)
    wav += noise(1.0).tobytes()[:1] * (5 * MIB + more - len(wav))
    assert_original(client, user, assert_json(post_wav(client, user, wav, keep_original="true"), 201), wav)


def test_without_the_wish_no_original_is_kept(client: Client, user: User) -> None:
    for wish in ("false", "0", "", None):
        query = {} if wish is None else {"keep_original": wish}
        response = post_wav(client, user, TINY_WAV, **query)
        record = assert_record(client, user, response)
        assert record["original"] is None
        assert_none(client, user, record)


def test_a_wav_that_is_refused_keeps_nothing(client: Client, user: User) -> None:
    for wav in (b"ID3" + TINY_WAV[3:], Wav().build(sine(seconds=0))):
        assert post_wav(client, user, wav, keep_original="true").status_code in (415, 422)
    assert use(client, user) == (0, 0)


def test_the_wish_stands_in_front_of_the_audio_and_so_do_the_credentials(
    base_url: str, client: Client
) -> None:
    user = client.create_user("Ann")
    behind = post_form(client, audio(), KEEP, headers=bearer(user))
    assert_problem(behind, 400, "invalid-form", "'keep_original' in front of 'audio', or into the query")
    # The refusal does not wait for the rest of the body.
    late = begin_upload(base_url, begin_form(KEEP), f"Content-Type: {FORM_TYPE['Content-Type']}")
    assert_problem(late, 400, "credentials-too-late")
    late = post_form(client, KEEP, audio(), user_id(user), token(user))
    assert_problem(late, 400, "credentials-too-late", "in front of 'audio'", "keep_original=false")
    late = post_form(client, FormPart("keep_original", "false"), audio(), user_id(user), token(user))
    assert assert_record(client, user, late)["original"] is None
    assert use(client, user)[0] == 1


def test_an_original_is_sent_like_an_mp3(client: Client, user: User) -> None:
    wav, title = DECORATED_WAV, "Grüße, Zoë"
    record = assert_json(post_wav(client, user, wav, keep_original="true", title=title), 201)
    whole = get_original(client, user, record)
    assert header_names(whole) == sorted(WHOLE)
    assert whole.headers["Content-Type"] == "audio/wav"
    assert whole.headers["ETag"] == f'"{record["original"]["sha256"]}"'
    assert whole.headers["Cache-Control"] == "private, no-cache"
    disposition = whole.headers["Content-Disposition"]
    assert disposition.startswith("attachment; filename=")
    assert disposition.endswith("Gr%C3%BC%C3%9Fe%2C%20Zo%C3%AB.wav")
    mp3 = client.http.head(record["url"]).headers
    assert whole.headers["Last-Modified"] == mp3["Last-Modified"]
    head = client.http.head(f"/records/{record['id']}/original", headers=bearer(user))
    assert (head.status_code, head.content) == (200, b"")
    for name in VALIDATORS | {"content-type", "content-length", "content-disposition"}:
        assert head.headers[name] == whole.headers[name]


def test_ranges_and_conditions_of_an_original_are_those_of_an_mp3(client: Client, user: User) -> None:
    wav, size = DECORATED_WAV, len(DECORATED_WAV)
    record = assert_json(post_wav(client, user, wav, keep_original="true"), 201)
    tag = f'"{record["original"]["sha256"]}"'
    for span, first, last in (
        *(("bytes=0-9", 0, 9), ("bytes=100-", 100, size - 1), ("bytes=-5", size - 5, size - 1)),
        *(("bytes=0-", 0, size - 1), ("bytes=5-\t9", 0, 0)),
    ):
        part = get_original(client, user, record, Range=span)
        if "\t" in span:
            assert (part.status_code, part.content) == (200, wav)
            continue
        assert (part.status_code, part.content) == (206, wav[first : last + 1])
        assert part.headers["Content-Range"] == f"bytes {first}-{last}/{size}"
        assert part.headers["Content-Type"] == "audio/wav"
        assert {*part.headers} >= VALIDATORS
    beyond = get_original(client, user, record, Range=f"bytes={size}-")
    assert_problem(beyond, 416, "range-not-satisfiable", str(size))
    assert get_original(client, user, record, Range="bytes=0-9", **{"If-Range": tag}).content == wav[:10]
    assert get_original(client, user, record, Range="bytes=0-9", **{"If-Range": '"x"'}).content == wav
    unchanged = get_original(client, user, record, **{"If-None-Match": tag})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert {*unchanged.headers} == COMMON | VALIDATORS | {"content-disposition"}
    # The tag of the MP3 is another one.
    of_mp3 = f'"{record["sha256"]}"'
    assert get_original(client, user, record, **{"If-None-Match": of_mp3}).content == wav
    assert_problem(
        get_original(client, user, record, **{"If-Match": of_mp3}), 412, "precondition-failed", tag
    )
    assert get_original(client, user, record, **{"If-Match": tag}).content == wav


def test_deleting_the_original_gives_its_room_back_and_keeps_the_record(client: Client, user: User) -> None:
    record = assert_json(post_wav(client, user, keep_original="true"), 201)
    assert use(client, user) == (1, record["size_bytes"] + len(TINY_WAV))
    path = f"/records/{record['id']}/original"
    assert client.http.delete(path, headers=bearer(user)).status_code == 204
    assert use(client, user) == (1, record["size_bytes"])
    assert_none(client, user, record)
    assert_problem(client.http.delete(path, headers=bearer(user)), 404, "no-original")
    unknown = client.http.delete(f"/records/{uuid4()}/original", headers=bearer(user))
    assert_problem(unknown, 404, "unknown-record")


def test_deleting_the_record_deletes_the_original(client: Client, user: User) -> None:
    record = assert_json(post_wav(client, user, keep_original="true"), 201)
    assert client.http.delete(f"/records/{record['id']}", headers=bearer(user)).status_code == 204
    assert_problem(get_original(client, user, record), 404, "unknown-record")
    assert use(client, user) == (0, 0)


def test_lists_and_repeated_uploads_show_the_original_of_each_record(client: Client, user: User) -> None:
    headers = {**WAV_TYPE, **bearer(user), "Idempotency-Key": f"test-{uuid4()}"}
    kept, replayed = (
        assert_json(client.http.post("/records?keep_original=true", content=TINY_WAV, headers=headers), 201)
        for _ in range(2)
    )
    assert kept == replayed
    other = assert_json(post_wav(client, user), 201)
    assert client.http.get("/records", headers=bearer(user)).json()["records"] == [other, kept]
    assert client.http.delete(f"/records/{kept['id']}/original", headers=bearer(user)).status_code == 204
    # The wish is compared, not what is left of it.
    again = client.http.post("/records?keep_original=true", content=TINY_WAV, headers=headers)
    assert assert_json(again, 201) == {**kept, "original": None}


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
def test_the_path_of_an_original_takes_no_query_and_no_link(client: Client, user: User, method: str) -> None:
    record = assert_json(post_wav(client, user, keep_original="true"), 201)
    url = f"/records/{record['id']}/original"
    assert client.http.request(method, f"{url}?user={user['id']}").status_code in (400, 401)
    assert client.http.request(method, f"{url}?download=1", headers=bearer(user)).status_code == 400
    assert_original(client, user, record, TINY_WAV)
