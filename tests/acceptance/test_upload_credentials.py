"""POST /records: credentials that are missing, wrong, sent twice or in the wrong place are refused."""

from base64 import b64encode
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

from deploy.client import Client
from tests.acceptance.upload_client import Credentials, assert_wrong_credentials, post_form, post_wav
from tests.response_checks import assert_problem
from tests.upload_requests import (
    FORM_TYPE,
    NOBODY,
    TINY_WAV,
    WAV_TYPE,
    FormPart,
    audio,
    basic,
    bearer,
    make_form,
    token,
    user_id,
)


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param((), id="none"),
        pytest.param((user_id,), id="no token"),
        pytest.param((token,), id="no user"),
    ],
)
@pytest.mark.parametrize("audio_first", [False, True])
def test_a_form_without_credentials_is_refused(
    client: Client,
    user: dict[str, Any],
    parts: tuple[Callable[[dict[str, Any]], FormPart], ...],
    audio_first: bool,
) -> None:
    fields = [part(user) for part in parts]
    body = [audio(), *fields] if audio_first else [*fields, audio()]
    assert_wrong_credentials(post_form(client, *body), "Authorization")


def test_a_bare_wav_without_credentials_is_refused(client: Client) -> None:
    response = client.http.post("/records", content=TINY_WAV, headers=WAV_TYPE)
    assert_wrong_credentials(response, "Authorization")


@pytest.mark.parametrize("audio_first", [False, True])
@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"token": str(uuid4())}, id="another token"),
        pytest.param({"token": ""}, id="an empty token"),
        pytest.param({"token": "\0"}, id="a token of NUL"),
        pytest.param({"token": "\u00e9"}, id="a token beyond ASCII"),
        pytest.param({"id": str(uuid4())}, id="another user"),
        pytest.param({"id": ""}, id="an empty user"),
        pytest.param({"id": "' OR 1=1 --"}, id="a user that is no id"),
        pytest.param({"id": str(uuid4()), "token": str(uuid4())}, id="nobody"),
    ],
)
def test_wrong_credentials_and_unknown_users_get_the_same_response(
    client: Client, user: dict[str, Any], wrong: dict[str, str], audio_first: bool
) -> None:
    fields = [user_id(user | wrong), token(user | wrong)]
    response = post_form(client, *([audio(), *fields] if audio_first else [*fields, audio()]))
    assert_wrong_credentials(response, "There is no user with this id and token")


def test_a_token_works_only_for_its_own_user(client: Client, user: dict[str, Any]) -> None:
    other = client.create_user("Other")
    mixed = {"id": other["id"], "token": user["token"]}
    says = "There is no user with this id and token"
    assert_wrong_credentials(post_form(client, user_id(mixed), token(mixed), audio()), says)
    assert_wrong_credentials(post_form(client, audio(), headers=basic(mixed)), says)


@pytest.mark.parametrize(
    "authorization",
    [
        "Bearer",
        "Bearer nonsense",
        f"Bearer {NOBODY}",
        "Bearer a b",
        "Basic",
        "Basic !!!",
        "Basic " + b64encode(b"\xff\xfe").decode(),
        "Basic " + b64encode(b"no colon").decode(),
        "Basic " + b64encode(b":").decode(),
        "Basic " + b64encode(f"{NOBODY}:{NOBODY}".encode()).decode(),
        'Digest username="x"',
        "nonsense",
        ",",
        "Bearer \u00e9",
    ],
)
@pytest.mark.parametrize("bare", [False, True])
def test_a_wrong_or_malformed_authorization_is_refused(
    client: Client, authorization: str, bare: bool
) -> None:
    kind = WAV_TYPE if bare else FORM_TYPE
    # httpx accepts a header that is not ASCII only as bytes.
    headers = [(name.encode(), value.encode()) for name, value in kind.items()]
    headers.append((b"Authorization", authorization.encode()))
    response = client.http.post("/records", content=TINY_WAV if bare else make_form(audio()), headers=headers)
    assert_wrong_credentials(response, "")


def test_right_form_fields_do_not_make_up_for_a_wrong_header(client: Client, user: dict[str, Any]) -> None:
    headers = {"Authorization": f"Bearer {uuid4()}"}
    response = post_form(client, user_id(user), token(user), audio(), headers=headers)
    assert_wrong_credentials(response, "There is no user")


@pytest.mark.parametrize("credentials", [bearer, basic])
@pytest.mark.parametrize("audio_first", [False, True])
def test_credentials_in_both_header_and_form_are_refused(
    client: Client, user: dict[str, Any], credentials: Credentials, audio_first: bool
) -> None:
    fields = [user_id(user), token(user)]
    parts = [audio(), *fields] if audio_first else [*fields, audio()]
    assert_problem(post_form(client, *parts, headers=credentials(user)), 400, "invalid-form", "twice")


@pytest.mark.parametrize("name", ["user_id", "token"])
def test_a_form_field_with_a_credential_is_refused_if_sent_twice(
    client: Client, user: dict[str, Any], name: str
) -> None:
    fields = [user_id(user), token(user)]
    twice = [part for part in fields if part.name == name]
    response = post_form(client, *twice, *fields, audio())
    assert_problem(response, 400, "invalid-form", name)


@pytest.mark.parametrize("names", [("user_id", "token"), ("token",)])
def test_credentials_in_the_query_are_refused_and_not_repeated(
    client: Client, user: dict[str, Any], names: tuple[str, ...]
) -> None:
    given = {"user_id": user["id"], "token": user["token"]}
    query = {name: given[name] for name in names}
    bare = client.http.post("/records", content=TINY_WAV, params=query, headers=WAV_TYPE)
    form = client.http.post("/records", content=make_form(audio()), params=query, headers=FORM_TYPE)
    for response in (bare, form):
        assert_problem(response, 400, "invalid-request", "query")
        assert user["token"] not in response.text


def test_a_query_parameter_that_is_not_allowed_is_refused_beside_right_credentials(
    client: Client, user: dict[str, Any]
) -> None:
    assert_problem(post_wav(client, user, token=user["token"]), 400, "invalid-request", "'token'")
    form = make_form(user_id(user), token(user), audio())
    response = client.http.post("/records", content=form, params={"colour": "x"}, headers=FORM_TYPE)
    assert_problem(response, 400, "invalid-request", "query")
