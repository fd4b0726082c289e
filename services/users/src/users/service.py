"""What the users service does, and its SQL."""

import unicodedata
from typing import Any
from uuid import uuid4

from sqlalchemy import Row, insert
from sqlalchemy.ext.asyncio import AsyncEngine

from common.credentials import digest, make_token
from common.db import execute
from common.problems import InvalidRequest
from common.tables import User

MAX_NAME_LENGTH = 100
# Control characters, lone surrogates, line and paragraph separators.
CONTROL_CATEGORIES = {"Cc", "Cs", "Zl", "Zp"}


def normalise_name(name: str) -> str:
    """Trims a name and brings it to Unicode's normal form C, so that equal-looking names are equal.

    Raises InvalidRequest for an empty name, one of more than 100 characters, and control characters.
    """
    trimmed = unicodedata.normalize("NFC", name.strip())
    if not 1 <= len(trimmed) <= MAX_NAME_LENGTH:
        raise InvalidRequest(
            f"A name has 1 to {MAX_NAME_LENGTH} characters after trimming; this one has {len(trimmed)}."
        )
    for character in trimmed:
        if unicodedata.category(character) in CONTROL_CATEGORIES:
            raise InvalidRequest(f"A name has no control characters; this one has U+{ord(character):04X}.")
    return trimmed


async def create_user(engine: AsyncEngine, name: str) -> tuple[Row[Any], str]:
    """Stores a new user; returns its row (id, name, created_at) and the token, of which the digest is kept.

    Raises InvalidRequest for a name that is not allowed, Unavailable where PostgreSQL is away.
    """
    token = make_token()
    statement = (
        insert(User)
        .values(id=uuid4(), name=normalise_name(name), token_digest=digest(token))
        .returning(User.id, User.name, User.created_at)
    )
    (user,) = await execute(engine, statement)
    return user, token
