"""What the users service does, and its SQL."""

from typing import Any
from uuid import uuid4

from sqlalchemy import Row, insert
from sqlalchemy.ext.asyncio import AsyncEngine

from common.credentials import digest, make_token
from common.db import execute
from common.tables import User
from common.text import normalise_text

MAX_NAME_LENGTH = 100
INSERT_USER = insert(User).returning(User.id, User.name, User.created_at)


async def create_user(engine: AsyncEngine, name: str) -> tuple[Row[Any], str]:
    """Stores a new user; returns its row (id, name, created_at) and the token, of which the digest is kept.

    Raises InvalidRequest for a name that is not allowed, Unavailable where PostgreSQL is away.
    """
    token = make_token()
    values = {
        "id": uuid4(),
        "name": normalise_text("name", name, 1, MAX_NAME_LENGTH),
        "token_digest": digest(token),
    }
    (user,) = await execute(engine, INSERT_USER, values)
    return user, token
