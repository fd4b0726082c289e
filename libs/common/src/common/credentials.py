"""Tokens and credentials. A token is a uuid4 with 122 random bits, so storing a fast digest of it is safe."""

from base64 import b64decode
from hashlib import sha256
from typing import Any, TypeVar
from uuid import UUID, uuid4

import msgspec
from sqlalchemy import Select, Update, Uuid, bindparam, or_

from common.problems import InvalidCredentials
from common.tables import User
from common.text import parse_uuid

Statement = TypeVar("Statement", Select[Any], Select[*tuple[Any, ...]], Update)


class Credentials(msgspec.Struct, frozen=True):
    """Credentials that a client sent. With Bearer, the token alone names the user and `user_id` is None."""

    token_digest: bytes
    user_id: UUID | None = None

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters of a statement made by `restrict_to_credentials`."""
        return {"by_token_digest": self.token_digest, "by_user_id": self.user_id}


def make_token() -> str:
    """Returns a new token."""
    return str(uuid4())


def digest(token: str) -> bytes:
    """Returns the SHA-256 digest of a token (32 bytes). Only the digest is stored."""
    return sha256(token.encode()).digest()


def parse_credentials(user_id: str, token: str) -> Credentials:
    """Returns the credentials. Raises InvalidCredentials if the user id is no UUID."""
    try:
        return Credentials(digest(token), parse_uuid(user_id))
    except ValueError:
        raise wrong_credentials() from None


def parse_authorization(header: str | None) -> Credentials | None:
    """Returns the credentials of an Authorization header, or None without a header.

    Accepts Bearer (RFC 6750) and Basic (RFC 7617). Raises InvalidCredentials for another scheme or a
    malformed header.
    """
    if not header:
        return None
    scheme, _, value = header.partition(" ")
    match scheme.lower():
        case "bearer":
            return Credentials(digest(value.strip()))
        case "basic":
            try:
                user_id, token = b64decode(value.strip(), validate=True).decode().split(":", 1)
            except ValueError:
                raise InvalidCredentials(
                    "The Basic credentials must be the base64 of 'USER_ID:TOKEN'."
                ) from None
            return parse_credentials(user_id, token)
        case _ if not value:
            # The word may be the token, which nobody should find in a log of the client.
            raise InvalidCredentials(
                "The Authorization header has no scheme. Send Bearer TOKEN, or Basic with user id and token."
            )
        case _:
            raise InvalidCredentials(
                f"The Authorization scheme {scheme[:100]!r} is not supported."
                " Send Bearer TOKEN, or Basic with user id and token."
            )


def require_credentials(header: str | None) -> Credentials:
    """Returns the credentials of an Authorization header. Raises InvalidCredentials without valid ones."""
    credentials = parse_authorization(header)
    if not credentials:
        raise InvalidCredentials(
            "The request has no credentials. Send an Authorization header: Bearer TOKEN, or Basic with user"
            " id and token."
        )
    return credentials


def restrict_to_credentials(statement: Statement) -> Statement:
    """Restricts a statement about users to the user with the credentials in its `Credentials.parameters`."""
    user_id = bindparam("by_user_id", type_=Uuid())
    return statement.where(
        User.token_digest == bindparam("by_token_digest"),
        User.deleted_at.is_(None),
        or_(user_id.is_(None), User.id == user_id),
    )


def wrong_credentials() -> InvalidCredentials:
    """Returns the problem for an unknown user and for a wrong token. A client cannot tell which it was."""
    return InvalidCredentials(
        "There is no user with this id and token. If the token was renewed, send the new one; POST /users"
        " creates a user."
    )
