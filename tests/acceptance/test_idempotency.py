"""Idempotency-Key of POST /records: an upload that is sent again is answered with the record of the first."""

import json
import select
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any
from uuid import uuid4

import httpx
import pytest

from deploy.client import Client
from tests.acceptance.answers import assert_json, assert_problem
from tests.acceptance.forms import (
    FORM_TYPE,
    TINY_WAV,
    WAV_TYPE,
    Part,
    audio,
    bearer,
    make_form,
    token,
    user_id,
)
from tests.acceptance.wire import make_head, open_wire
from tests.wavs import Wav, noise

GIB = 1 << 30
MIB = 1 << 20
# Of `select` on connections: a bound for what never comes.
TIMEOUT_SECONDS = 30

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
    """A form with the credentials in front, and then the other fields."""
    options = [Part(name, value) for name, value in fields.items()]
    return post_parts(client, key, user_id(user), token(user), *options, audio(wav))


def post_parts(client: Client, key: str, *parts: Part) -> httpx.Response:
    headers = {**FORM_TYPE, "Idempotency-Key": key}
    return client.http.post("/records", content=make_form(*parts), headers=headers)


def assert_made(response: httpx.Response) -> dict[str, Any]:
    """Checks that an upload has made a record of its own."""
    assert "Idempotency-Replayed" not in response.headers
    return assert_json(response, 201)


def assert_replayed(response: httpx.Response, record: dict[str, Any]) -> None:
    """Checks that an upload was answered as the one that has made the record was."""
    assert assert_json(response, 201) == record
    assert response.headers["Location"] == record["url"]
    assert response.headers.get_list("Idempotency-Replayed") == ["true"]


def assert_in_use(response: httpx.Response, key: str) -> None:
    assert_problem(response, 409, "idempotency-key-in-use", key)
    assert response.headers["Retry-After"] == "5"


def assert_reused(response: httpx.Response, says: str) -> None:
    assert_problem(response, 422, "idempotency-key-reused", says)


def list_ids(client: Client, user: dict[str, Any]) -> list[str]:
    """The ids of all records of a user."""
    page = assert_json(client.http.get("/records", headers=bearer(user)), 200)
    return [record["id"] for record in page["records"]]


# What is answered


@pytest.mark.parametrize("again", [post_bare, post_form])
@pytest.mark.parametrize("first", [post_bare, post_form])
def test_an_upload_that_is_sent_again_is_answered_with_the_record_of_the_first(
    client: Client, user: dict[str, Any], first: Post, again: Post
) -> None:
    key = make_key()
    record = assert_made(first(client, user, key, title="A walk", bitrate_kbps="64"))
    for _ in range(2):
        assert_replayed(again(client, user, key, title="A walk", bitrate_kbps="64"), record)
    assert list_ids(client, user) == [record["id"]]
    assert client.download(record["url"])


def test_credentials_behind_the_audio_are_as_good_with_a_key(client: Client, user: dict[str, Any]) -> None:
    key = make_key()
    parts = audio(), user_id(user), token(user)
    record = assert_made(post_parts(client, key, *parts))
    assert_replayed(post_parts(client, key, *parts), record)
    assert_replayed(post_bare(client, user, key), record)
    assert list_ids(client, user) == [record["id"]]


def test_a_key_is_one_user_s_own(client: Client, user: dict[str, Any]) -> None:
    key = make_key()
    other = client.create_user("Other")
    record, another = (assert_made(post_bare(client, each, key)) for each in (user, other))
    assert record["id"] != another["id"]
    assert_replayed(post_bare(client, user, key), record)
    assert_replayed(post_bare(client, other, key), another)


def test_two_keys_make_two_records_and_no_key_makes_another(client: Client, user: dict[str, Any]) -> None:
    made = [assert_made(post_bare(client, user, make_key())) for _ in range(2)]
    made += [
        assert_made(client.http.post("/records", content=TINY_WAV, headers={**WAV_TYPE, **bearer(user)}))
        for _ in range(2)
    ]
    assert sorted(list_ids(client, user)) == sorted(record["id"] for record in made)


def test_a_used_key_without_its_user_s_token_says_nothing(client: Client, user: dict[str, Any]) -> None:
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


# Without the audio


def answer_before_the_audio(base_url: str, fields: bytes, *headers: str) -> httpx.Response:
    """Announces 1 GiB, sends the fields and the beginning of an audio, and reads the answer."""
    head = make_head("POST", "/records", base_url, *headers, f"Content-Length: {GIB}")
    with open_wire(base_url) as wire:
        wire.send(head, fields, Wav().header(GIB - MIB)[:20])
        return wire.read_answer("POST")


def begin_form(*fields: Part) -> bytes:
    """A form up to where the bytes of the audio would be."""
    form = make_form(*fields, audio(b""))
    return form[: form.index(b"\r\n\r\n", form.index(b"recording.wav")) + 4]


def lines(headers: dict[str, str]) -> list[str]:
    return [f"{name}: {value}" for name, value in headers.items()]


def test_a_used_key_is_answered_before_the_audio_is_sent(
    client: Client, user: dict[str, Any], base_url: str
) -> None:
    key = make_key()
    record = assert_made(post_bare(client, user, key, title="x"))
    key_line = f"Idempotency-Key: {key}"
    fields = begin_form(user_id(user), token(user), Part("title", "x"))
    assert_replayed(answer_before_the_audio(base_url, fields, *lines(FORM_TYPE), key_line), record)
    in_header = [*lines(FORM_TYPE | bearer(user)), key_line]
    assert_replayed(answer_before_the_audio(base_url, begin_form(Part("title", "x")), *in_header), record)
    other = begin_form(Part("title", "y"))
    assert_reused(answer_before_the_audio(base_url, other, *in_header), '"x"')


@pytest.mark.parametrize(("query", "is_same"), [("?title=x", True), ("", True), ("?title=y", False)])
def test_a_used_key_of_a_bare_wav_is_answered_before_anything_of_it_is_sent(
    client: Client, user: dict[str, Any], base_url: str, query: str, is_same: bool
) -> None:
    key = make_key()
    record = assert_made(post_bare(client, user, key, title="x"))
    headers = WAV_TYPE | bearer(user) | {"Idempotency-Key": key, "Content-Length": str(GIB)}
    head = make_head("POST", f"/records{query}", base_url, *lines(headers), "Expect: 100-continue")
    with open_wire(base_url) as wire:
        wire.send(head)
        answer = wire.read_answer("POST")
    if is_same:
        assert_replayed(answer, record)
    else:
        assert_reused(answer, '{"title":"x","bitrate_kbps":128}')


def test_a_replayed_upload_never_breaks_the_next_request_of_its_client(
    client: Client, user: dict[str, Any]
) -> None:
    wav = Wav().build(noise(seconds=20))
    key = make_key()
    record = assert_made(post_bare(client, user, key, wav))
    for post in (post_bare, post_form) * 50:
        assert_replayed(post(client, user, key, wav), record)
        assert assert_json(client.http.get("/healthz"), 200) == {"status": "ok"}


# Other options


@pytest.mark.parametrize("again", [post_bare, post_form])
@pytest.mark.parametrize("first", [post_bare, post_form])
@pytest.mark.parametrize(
    ("was", "now"),
    [
        pytest.param({"title": "a"}, {"title": "b"}, id="another title"),
        pytest.param({"title": "a"}, {"title": ""}, id="an empty title"),
        pytest.param({}, {"title": "a"}, id="a title"),
        pytest.param({"bitrate_kbps": "64"}, {"bitrate_kbps": "128"}, id="another bitrate"),
        pytest.param({"bitrate_kbps": "64"}, {}, id="no bitrate"),
        pytest.param({}, {"bitrate_kbps": "64"}, id="a bitrate"),
        pytest.param({"title": "64"}, {"bitrate_kbps": "64"}, id="a bitrate for a title"),
    ],
)
def test_a_key_with_other_options_is_refused_and_its_record_stays(
    client: Client,
    user: dict[str, Any],
    first: Post,
    again: Post,
    was: dict[str, str],
    now: dict[str, str],
) -> None:
    key = make_key()
    record = assert_made(first(client, user, key, **was))
    shown = {"title": was.get("title"), "bitrate_kbps": int(was.get("bitrate_kbps", "128"))}
    used_with = json.dumps(shown, separators=(",", ":"))
    assert_reused(again(client, user, key, **now), f"{key!r} was used with the options {used_with}.")
    assert_replayed(again(client, user, key, **was), record)
    assert list_ids(client, user) == [record["id"]]


@pytest.mark.parametrize("again", [post_bare, post_form])
@pytest.mark.parametrize("first", [post_bare, post_form])
@pytest.mark.parametrize(
    ("was", "now"),
    [
        pytest.param({"bitrate_kbps": "128"}, {}, id="the default bitrate, and none"),
        pytest.param({}, {"bitrate_kbps": "128"}, id="no bitrate, and the default"),
        pytest.param({"title": "a"}, {}, id="no title"),
        pytest.param({"title": "a", "bitrate_kbps": "64"}, {"bitrate_kbps": "64"}, id="only the bitrate"),
    ],
)
def test_options_that_come_to_the_same_are_the_same(
    client: Client, user: dict[str, Any], first: Post, again: Post, was: dict[str, str], now: dict[str, str]
) -> None:
    key = make_key()
    record = assert_made(first(client, user, key, **was))
    assert_replayed(again(client, user, key, **now), record)


def test_a_bitrate_is_compared_as_it_was_asked_for(client: Client, user: dict[str, Any]) -> None:
    key = make_key()
    record = assert_made(post_bare(client, user, key, bitrate_kbps="320"))
    # At 8 kHz there is no more.
    assert record["bitrate_kbps"] == 64
    assert_replayed(post_form(client, user, key, bitrate_kbps="320"), record)
    assert_reused(post_form(client, user, key, bitrate_kbps="64"), '"bitrate_kbps":320')


@pytest.mark.parametrize(
    ("was", "now"),
    [
        pytest.param("Zoe\u0308", "Zo\u00eb", id="composed"),
        pytest.param("A walk", " A walk ", id="blanks around"),
        pytest.param("", " ", id="none"),
    ],
)
def test_titles_that_become_the_same_are_the_same(
    client: Client, user: dict[str, Any], was: str, now: str
) -> None:
    key = make_key()
    record = assert_made(post_bare(client, user, key, title=was))
    assert_replayed(post_form(client, user, key, title=now), record)


def test_options_are_compared_wherever_they_stand_in_front_of_the_audio(
    client: Client, user: dict[str, Any]
) -> None:
    key = make_key()
    options = [Part("title", "a"), Part("bitrate_kbps", "96")]
    record = assert_made(post_parts(client, key, *options, user_id(user), token(user), audio()))
    behind = user_id(user), token(user), *reversed(options), audio()
    assert_replayed(post_parts(client, key, *behind), record)
    assert_replayed(post_parts(client, key, *options, audio(), user_id(user), token(user)), record)
    assert_reused(post_parts(client, key, options[0], audio(), user_id(user), token(user)), "96")


def test_a_title_in_front_of_the_audio_is_compared_wherever_it_stood_before(
    client: Client, user: dict[str, Any]
) -> None:
    key = make_key()
    record = assert_made(post_parts(client, key, user_id(user), token(user), audio(), Part("title", "a")))
    assert record["title"] == "a"
    assert_replayed(post_bare(client, user, key, title="a"), record)
    assert_replayed(post_form(client, user, key, title="a"), record)
    assert_reused(post_form(client, user, key, title="b"), '"title":"a"')


@pytest.mark.parametrize("was", ["in front", "behind"])
def test_a_title_behind_the_audio_is_not_compared(client: Client, user: dict[str, Any], was: str) -> None:
    key, title = make_key(), Part("title", "a")
    who = user_id(user), token(user)
    record = assert_made(
        post_parts(client, key, *who, *([title, audio()] if was == "in front" else [audio(), title]))
    )
    for other in ("a", "b"):
        behind = Part("title", other)
        assert_replayed(post_parts(client, key, *who, audio(), behind), record)
        assert_replayed(post_parts(client, key, audio(), behind, *who), record)


def test_an_option_that_cannot_be_had_is_refused_as_without_a_key(
    client: Client, user: dict[str, Any]
) -> None:
    key = make_key()
    record = assert_made(post_bare(client, user, key))
    for post in (post_bare, post_form):
        assert_problem(post(client, user, key, bitrate_kbps="65"), 400, "invalid-form", "65")
        assert_problem(post(client, user, key, title="a\0"), 400, "invalid-request", "U+0000")
    twice = post_parts(client, key, audio(), user_id(user), user_id(user))
    assert_problem(twice, 400, "invalid-form", "'user_id'")
    headers = {**FORM_TYPE, **bearer(user), "Idempotency-Key": key}
    both = client.http.post(
        "/records", content=make_form(token(user), user_id(user), audio()), headers=headers
    )
    assert_problem(both, 400, "invalid-form", "twice")
    no_audio = client.http.post("/records", content=make_form(Part("title", "")), headers=headers)
    assert_problem(no_audio, 400, "invalid-form", "'audio'")
    assert list_ids(client, user) == [record["id"]]


# Two at once


def test_of_two_uploads_at_once_one_is_refused_until_the_other_is_done(
    client: Client, user: dict[str, Any], base_url: str
) -> None:
    key = make_key()
    headers = WAV_TYPE | bearer(user) | {"Idempotency-Key": key, "Content-Length": str(len(TINY_WAV))}
    with ExitStack() as stack:
        wires = [stack.enter_context(open_wire(base_url)) for _ in range(2)]
        for wire in wires:
            wire.send(make_head("POST", "/records", base_url, *lines(headers)), TINY_WAV[:100])
        answered, _, _ = select.select([wire.connection for wire in wires], [], [], TIMEOUT_SECONDS)
        (refused,) = [wire for wire in wires if wire.connection in answered]
        (taken,) = [wire for wire in wires if wire is not refused]
        assert_in_use(refused.read_answer("POST"), key)
        # Whatever its options: they are compared once there is a record.
        assert_in_use(post_form(client, user, key, title="x"), key)
        taken.send(TINY_WAV[100:])
        record = assert_made(taken.read_answer("POST"))
    assert_replayed(post_bare(client, user, key), record)
    assert list_ids(client, user) == [record["id"]]


@pytest.mark.parametrize("post", [post_bare, post_form])
def test_many_at_once_make_one_record(client: Client, user: dict[str, Any], post: Post) -> None:
    for _ in range(5):
        key = make_key()
        before = list_ids(client, user)
        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(lambda _, key=key: post(client, user, key), range(8)))
        (record,) = [
            assert_made(answer)
            for answer in answers
            if answer.status_code == 201 and "Idempotency-Replayed" not in answer.headers
        ]
        for answer in answers:
            if answer.status_code == 409:
                assert_in_use(answer, key)
            elif "Idempotency-Replayed" in answer.headers:
                assert_replayed(answer, record)
        assert list_ids(client, user) == [record["id"], *before]


# After a first try that failed


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
    parts = user_id(user), token(user), audio(), Part("title", "a\0")
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
def test_a_first_try_that_failed_frees_its_key_also_for_other_options(
    client: Client, user: dict[str, Any], fail: Callable[[Client, dict[str, Any], str], None]
) -> None:
    key = make_key()
    fail(client, user, key)
    record = assert_made(post_bare(client, user, key, title="another"))
    assert_replayed(post_bare(client, user, key, title="another"), record)
    assert list_ids(client, user) == [record["id"]]


# What a key is


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
def test_what_is_no_key_is_refused_by_name_before_the_audio_is_sent(
    client: Client, user: dict[str, Any], base_url: str, keys: list[bytes], is_bare: bool
) -> None:
    kind = WAV_TYPE if is_bare else FORM_TYPE
    head = make_head("POST", "/records", base_url, *lines(kind | bearer(user)), f"Content-Length: {GIB}")
    with open_wire(base_url) as wire:
        wire.send(head[:-2] + b"".join(b"Idempotency-Key: " + key + b"\r\n" for key in keys) + b"\r\n")
        assert_problem(wire.read_answer("POST"), 400, "invalid-request", "Idempotency-Key")
    assert list_ids(client, user) == []
