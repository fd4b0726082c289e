"""All SQL of the users service.

The functions raise Unavailable if PostgreSQL is away.
"""

from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Row, bindparam, func, insert, select, true, update
from sqlalchemy.ext.asyncio import AsyncEngine

from common.credentials import (
    Credentials,
    digest,
    make_token,
    restrict_to_credentials,
    wrong_credentials,
)
from common.db import execute, transaction
from common.logs import name_user
from common.tables import Record, User

# The limit for each statement of a deletion. A deletion takes about 30 µs for each record.
DELETION_TIMEOUT_SECONDS = 300
INSERT_USER = insert(User).returning(User.id, User.name, User.created_at)
RECORD_SUMS = (
    select(
        func.count().label("record_count"), func.coalesce(func.sum(Record.size_bytes), 0).label("total_bytes")
    )
    .where(Record.user_id == User.id, Record.state == "ready")
    .subquery()
    .lateral()
)
FIND_USER = restrict_to_credentials(
    select(User.id, User.name, User.created_at, *RECORD_SUMS.c).join(RECORD_SUMS, true())
)
RENEW_TOKEN = restrict_to_credentials(update(User)).returning(User.id)
# Locks the user's row. Uploads that begin from here on wait for the end of the deletion and then find no user
# (records.sql). The second statement sees the records of the uploads that began before.
DELETE_USER = (
    restrict_to_credentials(update(User))
    .values(name="", token_digest=None, deleted_at=func.now())
    .returning(User.id)
)
DELETE_RECORDS = (
    update(Record)
    .where(Record.user_id == bindparam("of_user_id"), Record.state != "deleting")
    .values(state="deleting")
)


async def create_user(engine: AsyncEngine, name: str) -> tuple[Row[Any], str]:
    """Stores a new user and its token's digest. Returns the row (id, name, created_at) and the token."""
    token = make_token()
    values = {
        "id": uuid4(),
        "name": name,
        "token_digest": digest(token),
    }
    (user,) = await execute(engine, INSERT_USER, values)
    return user, token


async def find_user(engine: AsyncEngine, credentials: Credentials) -> Row[Any]:
    """Returns the user's row: id, name, created_at, and `record_count` and `total_bytes` of its records.
    Names the user in the log.

    Raises InvalidCredentials if no user has the credentials.
    """
    rows = await execute(engine, FIND_USER, credentials.parameters)
    if not rows:
        raise wrong_credentials()
    name_user(rows[0].id)
    return rows[0]


async def renew_token(engine: AsyncEngine, credentials: Credentials) -> tuple[UUID, str]:
    """Replaces the user's token. Returns the user's id and the new token.

    Raises InvalidCredentials if no user has the credentials.
    """
    token = make_token()
    rows = await execute(engine, RENEW_TOKEN, {**credentials.parameters, "token_digest": digest(token)})
    if not rows:
        raise wrong_credentials()
    return rows[0].id, token


async def delete_user(engine: AsyncEngine, credentials: Credentials) -> UUID:
    """Deletes the user and all its records for good. The records service's sweeper deletes the MP3s.

    Returns the user's id.

    `engine` needs a statement timeout of DELETION_TIMEOUT_SECONDS, because a user may have very many records.
    Raises InvalidCredentials if no user has the credentials.
    """
    async with transaction(engine) as connection:
        user_id: UUID | None = await connection.scalar(DELETE_USER, credentials.parameters)
        if user_id is None:
            raise wrong_credentials()
        await connection.execute(DELETE_RECORDS, {"of_user_id": user_id})
    return user_id
