"""Credentials in an Authorization header: Bearer (RFC 6750) and Basic (RFC 7617)."""

from base64 import b64encode
from uuid import uuid4

import pytest

from common.credentials import Credentials, digest, make_token, parse_authorization
from common.problems import InvalidCredentials

TOKEN = make_token()


def test_a_bearer_token_needs_no_user_id() -> None:
    assert parse_authorization(f"Bearer {TOKEN}") == Credentials(digest(TOKEN))
    assert parse_authorization(f"bearer  {TOKEN} ") == Credentials(digest(TOKEN))


def test_basic_credentials_are_user_id_and_token() -> None:
    user_id = uuid4()
    encoded = b64encode(f"{user_id}:{TOKEN}".encode()).decode()
    assert parse_authorization(f"Basic {encoded}") == Credentials(digest(TOKEN), user_id)


def test_without_a_header_there_are_no_credentials() -> None:
    assert parse_authorization(None) is None
    assert parse_authorization("") is None


@pytest.mark.parametrize(
    "value", ["Basic", "Basic ÿ", "Basic !", "Basic /w==", "Basic Og==", "Digest x", "x"]
)
def test_a_malformed_header_is_rejected(value: str) -> None:
    with pytest.raises(InvalidCredentials):
        parse_authorization(value)


def test_a_token_without_a_scheme_is_not_repeated_in_the_problem() -> None:
    with pytest.raises(InvalidCredentials, match="no scheme") as refusal:
        parse_authorization(TOKEN)
    assert TOKEN not in refusal.value.detail


def test_a_digest_does_not_contain_its_token() -> None:
    assert len(digest(TOKEN)) == 32
    assert TOKEN.encode() not in digest(TOKEN)
    assert make_token() != TOKEN
