"""What the users service does, and its SQL."""

from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Row, bindparam, func, insert, select, true, update
from sqlalchemy.ext.asyncio import AsyncEngine

from common.credentials import Credentials, digest, make_token, narrow, wrong_credentials
from common.db import execute, transaction
from common.tables import Record, User
from common.text import normalise_text

MAX_NAME_LENGTH = 100
# Of a statement of a deletion, which takes about 30 µs a record.
DELETION_TIMEOUT_SECONDS = 300
INSERT_USER = insert(User).returning(User.id, User.name, User.created_at)
SUMS = (
    select(
        func.count().label("record_count"), func.coalesce(func.sum(Record.size_bytes), 0).label("total_bytes")
    )
    .where(Record.user_id == User.id, Record.state == "ready")
    .subquery()
    .lateral()
)
FIND_USER = narrow(select(User.id, User.name, User.created_at, *SUMS.c).join(SUMS, true()))
RENEW_TOKEN = narrow(update(User)).returning(User.id)
# Locks the row: uploads that begin from here on wait for the end, and cannot be published any more
# (records.service); those that began before are seen by the second statement.
DELETE_USER = (
    narrow(update(User)).values(name="", token_digest=None, deleted_at=func.now()).returning(User.id)
)
DELETE_RECORDS = (
    update(Record)
    .where(Record.user_id == bindparam("of_user_id"), Record.state != "deleting")
    .values(state="deleting")
)


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


async def find_user(engine: AsyncEngine, credentials: Credentials) -> Row[Any]:
    """The user's row (id, name, created_at) with `record_count` and `total_bytes` of the records.

    Raises InvalidCredentials where nobody has the credentials.
    """
    rows = await execute(engine, FIND_USER, credentials.parameters)
    if not rows:
        raise wrong_credentials()
    return rows[0]


async def renew_token(engine: AsyncEngine, credentials: Credentials) -> tuple[UUID, str]:
    """Gives the user a new token, and returns it with the id; the old one is worth nothing from then on.

    Raises InvalidCredentials where nobody has the credentials.
    """
    token = make_token()
    rows = await execute(engine, RENEW_TOKEN, {**credentials.parameters, "token_digest": digest(token)})
    if not rows:
        raise wrong_credentials()
    return rows[0].id, token


async def delete_user(engine: AsyncEngine, credentials: Credentials) -> None:
    """Deletes the user and all records for good; the sweeper of the records service removes the MP3s.

    The engine's statements may take DELETION_TIMEOUT_SECONDS, as a user may have very many records.
    Raises InvalidCredentials where nobody has the credentials.
    """
    async with transaction(engine) as connection:
        user_id = await connection.scalar(DELETE_USER, credentials.parameters)
        if user_id is None:
            raise wrong_credentials()
        await connection.execute(DELETE_RECORDS, {"of_user_id": user_id})
