"""Idempotency-Key of POST /records: an upload that is sent again must have the options of the first."""

import json
from typing import Any

import pytest

from deploy.client import Client
from tests.acceptance.idempotent_uploads import (
    Post,
    assert_made,
    assert_replayed,
    assert_reused,
    list_ids,
    make_key,
    post_bare,
    post_form,
    post_parts,
)
from tests.response_checks import assert_problem
from tests.upload_requests import FORM_TYPE, FormPart, audio, bearer, make_form, token, user_id


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
        pytest.param({"keep_original": "true"}, {"keep_original": "false"}, id="not the original"),
        pytest.param({}, {"keep_original": "true"}, id="the original"),
    ],
)
def test_a_used_key_with_other_options_is_refused_and_its_record_stays(
    client: Client,
    user: dict[str, Any],
    first: Post,
    again: Post,
    was: dict[str, str],
    now: dict[str, str],
) -> None:
    key = make_key()
    record = assert_made(first(client, user, key, **was))
    shown = {
        "title": was.get("title"),
        "bitrate_kbps": int(was.get("bitrate_kbps", "128")),
        "keep_original": was.get("keep_original") == "true",
    }
    used_with = json.dumps(shown, separators=(",", ":"))
    assert_reused(again(client, user, key, **now), repr(key), used_with)
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
        pytest.param({"keep_original": "true"}, {"keep_original": "1"}, id="the original, in other words"),
        pytest.param({"keep_original": "0"}, {}, id="no original, and the default"),
        pytest.param({"title": "a", "bitrate_kbps": "64"}, {"bitrate_kbps": "64"}, id="only the bitrate"),
    ],
)
def test_an_omitted_title_is_not_compared_and_an_omitted_bitrate_or_wish_is_the_default(
    client: Client, user: dict[str, Any], first: Post, again: Post, was: dict[str, str], now: dict[str, str]
) -> None:
    key = make_key()
    record = assert_made(first(client, user, key, **was))
    assert_replayed(again(client, user, key, **now), record)


def test_the_requested_bitrate_is_compared_not_the_one_used(client: Client, user: dict[str, Any]) -> None:
    key = make_key()
    record = assert_made(post_bare(client, user, key, bitrate_kbps="320"))
    # An MP3 of 8 kHz has no higher bitrate.
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
def test_titles_are_compared_after_trimming_and_composing(
    client: Client, user: dict[str, Any], was: str, now: str
) -> None:
    key = make_key()
    record = assert_made(post_bare(client, user, key, title=was))
    assert_replayed(post_form(client, user, key, title=now), record)


def test_options_are_compared_anywhere_in_front_of_the_audio(client: Client, user: dict[str, Any]) -> None:
    key = make_key()
    options = [FormPart("title", "a"), FormPart("bitrate_kbps", "96")]
    record = assert_made(post_parts(client, key, *options, user_id(user), token(user), audio()))
    behind = user_id(user), token(user), *reversed(options), audio()
    assert_replayed(post_parts(client, key, *behind), record)
    assert_replayed(post_parts(client, key, *options, audio(), user_id(user), token(user)), record)
    assert_reused(post_parts(client, key, options[0], audio(), user_id(user), token(user)), "96")


def test_a_title_in_front_of_the_audio_is_compared_with_one_that_stood_behind(
    client: Client, user: dict[str, Any]
) -> None:
    key = make_key()
    record = assert_made(post_parts(client, key, user_id(user), token(user), audio(), FormPart("title", "a")))
    assert record["title"] == "a"
    assert_replayed(post_bare(client, user, key, title="a"), record)
    assert_replayed(post_form(client, user, key, title="a"), record)
    assert_reused(post_form(client, user, key, title="b"), '"title":"a"')


@pytest.mark.parametrize("was", ["in front", "behind"])
def test_a_title_behind_the_audio_is_not_compared(client: Client, user: dict[str, Any], was: str) -> None:
    key, title = make_key(), FormPart("title", "a")
    who = user_id(user), token(user)
    record = assert_made(
        post_parts(client, key, *who, *([title, audio()] if was == "in front" else [audio(), title]))
    )
    for other in ("a", "b"):
        behind = FormPart("title", other)
        assert_replayed(post_parts(client, key, *who, audio(), behind), record)
        assert_replayed(post_parts(client, key, audio(), behind, *who), record)


def test_a_request_that_is_invalid_without_a_key_is_invalid_with_a_used_one(
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
    no_audio = client.http.post("/records", content=make_form(FormPart("title", "")), headers=headers)
    assert_problem(no_audio, 400, "invalid-form", "'audio'")
    assert list_ids(client, user) == [record["id"]]
