"""Credentials in a header: RFC 6750 (Bearer) and RFC 7617 (Basic)."""

from base64 import b64encode
from uuid import uuid4

import pytest

from common.credentials import Credentials, digest, make_token, parse_authorization
from common.problems import InvalidCredentials

TOKEN = make_token()


def test_a_bearer_token_names_its_user_by_itself() -> None:
    assert parse_authorization(f"Bearer {TOKEN}") == Credentials(digest(TOKEN))
    assert parse_authorization(f"bearer  {TOKEN} ") == Credentials(digest(TOKEN))


def test_basic_credentials_are_user_id_and_token() -> None:
    user_id = uuid4()
    encoded = b64encode(f"{user_id}:{TOKEN}".encode()).decode()
    assert parse_authorization(f"Basic {encoded}") == Credentials(digest(TOKEN), user_id)


def test_no_header_is_no_credentials() -> None:
    assert parse_authorization(None) is None
    assert parse_authorization("") is None


@pytest.mark.parametrize(
    "value", ["Basic", "Basic ÿ", "Basic !", "Basic /w==", "Basic Og==", "Digest x", "x"]
)
def test_a_malformed_header_is_refused(value: str) -> None:
    with pytest.raises(InvalidCredentials):
        parse_authorization(value)


def test_only_a_digest_of_a_token_is_kept() -> None:
    assert len(digest(TOKEN)) == 32
    assert TOKEN.encode() not in digest(TOKEN)
    assert make_token() != TOKEN
