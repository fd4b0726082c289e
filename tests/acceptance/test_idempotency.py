"""Idempotency-Key of POST /records: an upload that is sent again gets the response of the first."""

import select
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any
from uuid import uuid4

import httpx
import pytest

from deploy.client import Client
from tests.acceptance.idempotent_uploads import (
    Post,
    assert_in_use,
    assert_made,
    assert_replayed,
    assert_reused,
    list_ids,
    make_key,
    post_bare,
    post_form,
    post_parts,
)
from tests.acceptance.upload_client import GIB, MIB
from tests.raw_connection import TIMEOUT_SECONDS, header_lines, make_request_head, open_raw_connection
from tests.response_checks import assert_json, assert_problem
from tests.upload_requests import (
    FORM_TYPE,
    TINY_WAV,
    WAV_TYPE,
    FormPart,
    audio,
    bearer,
    begin_form,
    make_form,
    token,
    user_id,
)
from tests.wavs import Wav, noise


@pytest.mark.parametrize("again", [post_bare, post_form])
@pytest.mark.parametrize("first", [post_bare, post_form])
def test_an_upload_that_is_sent_again_gets_the_record_of_the_first(
    client: Client, user: dict[str, Any], first: Post, again: Post
) -> None:
    key = make_key()
    record = assert_made(first(client, user, key, title="A walk", bitrate_kbps="64"))
    for _ in range(2):
        assert_replayed(again(client, user, key, title="A walk", bitrate_kbps="64"), record)
    assert list_ids(client, user) == [record["id"]]
    assert client.download(record["url"])


def test_credentials_may_stand_behind_the_audio_with_a_key_too(client: Client, user: dict[str, Any]) -> None:
    key = make_key()
    parts = audio(), user_id(user), token(user)
    record = assert_made(post_parts(client, key, *parts))
    assert_replayed(post_parts(client, key, *parts), record)
    assert_replayed(post_bare(client, user, key), record)
    assert list_ids(client, user) == [record["id"]]


def test_two_users_can_use_the_same_key(client: Client, user: dict[str, Any]) -> None:
    key = make_key()
    other = client.create_user("Other")
    record, another = (assert_made(post_bare(client, each, key)) for each in (user, other))
    assert record["id"] != another["id"]
    assert_replayed(post_bare(client, user, key), record)
    assert_replayed(post_bare(client, other, key), another)


def test_other_keys_and_no_key_make_other_records(client: Client, user: dict[str, Any]) -> None:
    made = [assert_made(post_bare(client, user, make_key())) for _ in range(2)]
    made += [
        assert_made(client.http.post("/records", content=TINY_WAV, headers={**WAV_TYPE, **bearer(user)}))
        for _ in range(2)
    ]
    assert sorted(list_ids(client, user)) == sorted(record["id"] for record in made)


def test_a_used_key_does_not_replace_the_token(client: Client, user: dict[str, Any]) -> None:
    key = make_key()
    assert_made(post_bare(client, user, key))
    for wrong in (user | {"token": str(uuid4())}, user | {"token": client.create_user("Other")["token"]}):
        assert_problem(post_form(client, wrong, key), 401, "invalid-credentials", "no user with this id")


def test_a_deleted_record_frees_its_key(client: Client, user: dict[str, Any]) -> None:
    key = make_key()
    record = assert_made(post_bare(client, user, key))
    deletion = client.http.delete(f"/records/{record['id']}", headers=bearer(user))
    assert deletion.status_code == 204
    another = assert_made(post_bare(client, user, key))
    assert another["id"] != record["id"]
    assert_replayed(post_bare(client, user, key), another)
    assert list_ids(client, user) == [another["id"]]


def get_response_before_the_audio(base_url: str, fields: bytes, *headers: str) -> httpx.Response:
    """Announces 1 GiB, sends the fields and the first bytes of a WAV, and reads the response."""
    head = make_request_head("POST", "/records", base_url, *headers, f"Content-Length: {GIB}")
    with open_raw_connection(base_url) as connection:
        connection.send(head, fields, Wav().header(GIB - MIB)[:20])
        return connection.read_response("POST")


def test_a_used_key_gets_its_response_before_the_audio_is_sent(
    client: Client, user: dict[str, Any], base_url: str
) -> None:
    key = make_key()
    record = assert_made(post_bare(client, user, key, title="x"))
    key_line = f"Idempotency-Key: {key}"
    fields = begin_form(user_id(user), token(user), FormPart("title", "x"))
    assert_replayed(
        get_response_before_the_audio(base_url, fields, *header_lines(FORM_TYPE), key_line), record
    )
    in_header = [*header_lines(FORM_TYPE | bearer(user)), key_line]
    assert_replayed(
        get_response_before_the_audio(base_url, begin_form(FormPart("title", "x")), *in_header), record
    )
    other = begin_form(FormPart("title", "y"))
    assert_reused(get_response_before_the_audio(base_url, other, *in_header), '"x"')


@pytest.mark.parametrize(("query", "is_same"), [("?title=x", True), ("", True), ("?title=y", False)])
def test_a_used_key_of_a_bare_wav_gets_its_response_before_the_body_is_sent(
    client: Client, user: dict[str, Any], base_url: str, query: str, is_same: bool
) -> None:
    key = make_key()
    record = assert_made(post_bare(client, user, key, title="x"))
    headers = WAV_TYPE | bearer(user) | {"Idempotency-Key": key, "Content-Length": str(GIB)}
    head = make_request_head(
        "POST", f"/records{query}", base_url, *header_lines(headers), "Expect: 100-continue"
    )
    with open_raw_connection(base_url) as connection:
        connection.send(head)
        response = connection.read_response("POST")
    if is_same:
        assert_replayed(response, record)
    else:
        assert_reused(response, '{"title":"x","bitrate_kbps":128,"keep_original":false}')


def test_a_replayed_upload_never_breaks_the_next_request_of_its_client(
    client: Client, user: dict[str, Any]
) -> None:
    wav = Wav().build(noise(seconds=20))
    key = make_key()
    record = assert_made(post_bare(client, user, key, wav))
    for post in (post_bare, post_form) * 50:
        assert_replayed(post(client, user, key, wav), record)
        assert assert_json(client.http.get("/healthz"), 200) == {"status": "ok"}


def test_a_key_is_refused_while_another_upload_with_it_runs(
    client: Client, user: dict[str, Any], base_url: str
) -> None:
    key = make_key()
    headers = WAV_TYPE | bearer(user) | {"Idempotency-Key": key, "Content-Length": str(len(TINY_WAV))}
    with ExitStack() as stack:
        connections = [stack.enter_context(open_raw_connection(base_url)) for _ in range(2)]
        for each in connections:
            each.send(make_request_head("POST", "/records", base_url, *header_lines(headers)), TINY_WAV[:100])
        readable, _, _ = select.select([each.connection for each in connections], [], [], TIMEOUT_SECONDS)
        (refused,) = [each for each in connections if each.connection in readable]
        (accepted,) = [each for each in connections if each is not refused]
        assert_in_use(refused.read_response("POST"), key)
        # Other options change nothing: the service compares options only once the key has a record.
        assert_in_use(post_form(client, user, key, title="x"), key)
        accepted.send(TINY_WAV[100:])
        record = assert_made(accepted.read_response("POST"))
    assert_replayed(post_bare(client, user, key), record)
    assert list_ids(client, user) == [record["id"]]


@pytest.mark.parametrize("post", [post_bare, post_form])
def test_many_uploads_at_once_with_one_key_make_one_record(
    client: Client, user: dict[str, Any], post: Post
) -> None:
    for _ in range(5):
        key = make_key()
        before = list_ids(client, user)
        with ThreadPoolExecutor(8) as threads:
            responses = list(threads.map(lambda _, key=key: post(client, user, key), range(8)))
        (record,) = [
            assert_made(response)
            for response in responses
            if response.status_code == 201 and "Idempotency-Replayed" not in response.headers
        ]
        for response in responses:
            if response.status_code == 409:
                assert_in_use(response, key)
            elif "Idempotency-Replayed" in response.headers:
                assert_replayed(response, record)
        assert list_ids(client, user) == [record["id"], *before]


def fail_with_wrong_token(client: Client, user: dict[str, Any], key: str) -> None:
    wrong = user | {"token": str(uuid4())}
    assert_problem(post_form(client, wrong, key), 401, "invalid-credentials")


def fail_with_no_wav(client: Client, user: dict[str, Any], key: str) -> None:
    assert_problem(post_form(client, user, key, b"x" * 300_000), 415, "unsupported-audio")


def fail_with_a_broken_wav(client: Client, user: dict[str, Any], key: str) -> None:
    assert_problem(post_bare(client, user, key, Wav().header(0)), 422, "broken-audio")


def fail_with_a_cut_form(client: Client, user: dict[str, Any], key: str) -> None:
    form = make_form(user_id(user), token(user), audio())[:-50]
    headers = {**FORM_TYPE, "Idempotency-Key": key}
    assert_problem(client.http.post("/records", content=form, headers=headers), 400, "invalid-form")


def fail_with_a_field_behind_the_audio(client: Client, user: dict[str, Any], key: str) -> None:
    parts = user_id(user), token(user), audio(), FormPart("title", "a\0")
    assert_problem(post_parts(client, key, *parts), 400, "invalid-request")


@pytest.mark.parametrize(
    "fail",
    [
        fail_with_wrong_token,
        fail_with_no_wav,
        fail_with_a_broken_wav,
        fail_with_a_cut_form,
        fail_with_a_field_behind_the_audio,
    ],
)
def test_an_upload_that_failed_frees_its_key_even_for_other_options(
    client: Client, user: dict[str, Any], fail: Callable[[Client, dict[str, Any], str], None]
) -> None:
    key = make_key()
    fail(client, user, key)
    record = assert_made(post_bare(client, user, key, title="another"))
    assert_replayed(post_bare(client, user, key, title="another"), record)
    assert list_ids(client, user) == [record["id"]]


@pytest.mark.parametrize(
    "key",
    ["x", "x" * 255, '"8e03978e-40d5-43e8-bc93-6894a57f9324"', "".join(map(chr, range(0x21, 0x7F)))],
)
def test_a_key_is_up_to_255_visible_characters(client: Client, user: dict[str, Any], key: str) -> None:
    record = assert_made(post_bare(client, user, key))
    assert_replayed(post_bare(client, user, key), record)


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param([b""], id="empty"),
        pytest.param([b"x" * 256], id="256 characters"),
        pytest.param([b"a b"], id="a blank"),
        pytest.param([b"a\tb"], id="a tab"),
        pytest.param(["\u00e9".encode()], id="beyond ASCII"),
        pytest.param([b"\xff"], id="no UTF-8"),
        pytest.param([b"a", b"a"], id="twice"),
        pytest.param([b"a", b"b"], id="two"),
        pytest.param([b"a", b""], id="one and an empty one"),
    ],
)
@pytest.mark.parametrize("is_bare", [False, True])
def test_a_malformed_key_is_refused_before_the_audio_is_sent(
    client: Client, user: dict[str, Any], base_url: str, keys: list[bytes], is_bare: bool
) -> None:
    kind = WAV_TYPE if is_bare else FORM_TYPE
    head = make_request_head(
        "POST", "/records", base_url, *header_lines(kind | bearer(user)), f"Content-Length: {GIB}"
    )
    with open_raw_connection(base_url) as connection:
        connection.send(head[:-2] + b"".join(b"Idempotency-Key: " + key + b"\r\n" for key in keys) + b"\r\n")
        assert_problem(connection.read_response("POST"), 400, "invalid-request", "Idempotency-Key")
    assert list_ids(client, user) == []
