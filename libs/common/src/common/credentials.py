"""Tokens and credentials. A token is a uuid4 (122 random bits), so a fast digest of it is safe to store."""

from base64 import b64decode
from hashlib import sha256
from typing import Any, TypeVar
from uuid import UUID, uuid4

import msgspec
from sqlalchemy import Select, Update, Uuid, bindparam, or_

from common.problems import InvalidCredentials
from common.tables import User
from common.text import parse_uuid

SomeSelect = TypeVar("SomeSelect", Select[Any], Select[*tuple[Any, ...]], Update)


class Credentials(msgspec.Struct, frozen=True):
    """Who somebody claims to be; `user_id` is None where the token alone names the user (Bearer)."""

    token_digest: bytes
    user_id: UUID | None = None

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters of a statement that is narrowed."""
        return {"by_token_digest": self.token_digest, "by_user_id": self.user_id}


def make_token() -> str:
    """A new token, shown to its user once."""
    return str(uuid4())


def digest(token: str) -> bytes:
    """The SHA-256 digest of a token, 32 bytes: all that is stored of it."""
    return sha256(token.encode()).digest()


def parse_credentials(user_id: str, token: str) -> Credentials:
    """Credentials from form fields. Raises InvalidCredentials where the user id is no UUID."""
    try:
        return Credentials(digest(token), parse_uuid(user_id))
    except ValueError:
        raise wrong_credentials() from None


def parse_authorization(header: str | None) -> Credentials | None:
    """Credentials from an Authorization header (RFC 6750 Bearer, RFC 7617 Basic), or None without one.

    Raises InvalidCredentials where the header is malformed or of another scheme.
    """
    if not header:
        return None
    scheme, _, value = header.partition(" ")
    match scheme.lower():
        case "bearer":
            return Credentials(digest(value.strip()))
        case "basic":
            try:
                user_id, _, token = b64decode(value.strip(), validate=True).decode().partition(":")
            except ValueError:
                raise InvalidCredentials("The Basic credentials are not base64 of 'USER_ID:TOKEN'.") from None
            return parse_credentials(user_id, token)
        case _:
            raise InvalidCredentials("Use 'Authorization: Bearer TOKEN', or Basic with user id and token.")


def require_credentials(header: str | None) -> Credentials:
    """The credentials of an Authorization header. Raises InvalidCredentials without one, and as above."""
    credentials = parse_authorization(header)
    if not credentials:
        raise InvalidCredentials("Send an Authorization header: Bearer TOKEN, or Basic with user and token.")
    return credentials


def narrow(users: SomeSelect) -> SomeSelect:
    """Narrows a statement about users to the one who has the credentials that are its parameters."""
    user_id = bindparam("by_user_id", type_=Uuid())
    return users.where(
        User.token_digest == bindparam("by_token_digest"),
        User.deleted_at.is_(None),
        or_(user_id.is_(None), User.id == user_id),
    )


def wrong_credentials() -> InvalidCredentials:
    """The one answer to an unknown user and to a wrong token."""
    return InvalidCredentials("There is no user with this id and token; POST /users makes one.")
