"""All SQL of the users service.

The functions raise Unavailable if PostgreSQL is away.
"""

from collections.abc import AsyncGenerator, Mapping
from typing import Any, NoReturn
from uuid import UUID, uuid4

from sqlalchemy import Row, Update, bindparam, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from common.credentials import (
    Credentials,
    digest,
    make_token,
    restrict_to_credentials,
    wrong_credentials,
)
from common.db import execute, read, transaction
from common.logs import name_user
from common.problems import UserBlocked
from common.quotas import QUOTAS, USE
from common.tables import User

INSERT_USER = insert(User).returning(User.id, User.name, User.created_at)
FIND_USER = restrict_to_credentials(select(User.id, User.name, User.created_at, *QUOTAS, *USE))
FIND_ID = restrict_to_credentials(select(User.id))
RENEW_TOKEN = restrict_to_credentials(update(User)).where(User.blocked_at.is_(None)).returning(User.id)
# From here on the records service shows no link of the user, publishes no upload of the user, and turns the
# records into tombstones.
DELETE_USER = (
    restrict_to_credentials(update(User))
    .where(User.blocked_at.is_(None))
    .values(name="", token_digest=None, deleted_at=func.now())
    .returning(User.id)
)
# The operator's statements.
LIST_USERS = (
    select(User.id, User.name, User.created_at, User.blocked_at, *QUOTAS, *USE)
    .where(User.deleted_at.is_(None))
    .order_by(User.created_at.desc(), User.id.desc())
)
CHANGE_USER = (
    update(User).where(User.id == bindparam("of_user_id"), User.deleted_at.is_(None)).returning(User.id)
)
BLOCK = CHANGE_USER.values(blocked_at=func.coalesce(User.blocked_at, func.now()))
UNBLOCK = CHANGE_USER.values(blocked_at=None)


class UnknownUserError(Exception):
    """No user has this id; it is for the operator, not for clients."""


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
    """Returns the user's row: id, name, created_at, its own quotas, and the `record_count`, `total_bytes` and
    `total_seconds` of its records. Names the user in the log.

    Raises InvalidCredentials if no user has the credentials.
    """
    rows = await read(engine, FIND_USER, credentials.parameters)
    if not rows:
        raise wrong_credentials()
    name_user(rows[0].id)
    return rows[0]


async def renew_token(engine: AsyncEngine, credentials: Credentials) -> tuple[UUID, str]:
    """Replaces the user's token. Returns the user's id and the new token.

    Raises InvalidCredentials if no user has the credentials, and UserBlocked if the user is blocked.
    """
    token = make_token()
    rows = await execute(engine, RENEW_TOKEN, {**credentials.parameters, "token_digest": digest(token)})
    if not rows:
        await _refuse_change(engine, credentials)
    return rows[0].id, token


async def delete_user(engine: AsyncEngine, credentials: Credentials) -> UUID:
    """Deletes the user and all its records for good. The records service's sweeper deletes the rows and MP3s.

    Returns the user's id.

    Raises InvalidCredentials if no user has the credentials, and UserBlocked if the user is blocked.
    """
    rows = await execute(engine, DELETE_USER, credentials.parameters)
    if not rows:
        await _refuse_change(engine, credentials)
    return UUID(str(rows[0].id))


async def list_users(engine: AsyncEngine) -> AsyncGenerator[Row[Any], None]:
    """Yields all users, newest first: as `find_user` does, and `blocked_at`. Holds 1,000 of them."""
    async with transaction(engine) as connection, connection.stream(LIST_USERS) as rows:
        # To wait for each row alone would take three times as long.
        async for users in rows.partitions(1000):
            for user in users:
                yield user


async def set_blocked(engine: AsyncEngine, user_id: UUID, *, is_blocked: bool) -> None:
    """Blocks or unblocks a user. Raises UnknownUserError."""
    await _change(engine, BLOCK if is_blocked else UNBLOCK, user_id)


async def set_quotas(engine: AsyncEngine, user_id: UUID, quotas: Mapping[str, int | None]) -> None:
    """Changes a user's own quotas, by the names of the columns. Raises UnknownUserError."""
    await _change(engine, CHANGE_USER.values(**quotas), user_id)


async def replace_token(engine: AsyncEngine, user_id: UUID) -> str:
    """Replaces a user's token and returns the new one. Raises UnknownUserError."""
    token = make_token()
    await _change(engine, CHANGE_USER, user_id, token_digest=digest(token))
    return token


async def _change(engine: AsyncEngine, statement: Update, user_id: UUID, **values: Any) -> None:
    if not await execute(engine, statement, {"of_user_id": user_id, **values}):
        raise UnknownUserError(user_id)


async def _refuse_change(engine: AsyncEngine, credentials: Credentials) -> NoReturn:
    """Raises UserBlocked if somebody has the credentials, otherwise InvalidCredentials."""
    rows = await execute(engine, FIND_ID, credentials.parameters)
    if not rows:
        raise wrong_credentials()
    name_user(rows[0].id)
    raise UserBlocked
