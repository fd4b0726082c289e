"""The HTTP face of the users service."""

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from litestar import Request, post
from litestar.di import NamedDependency
from sqlalchemy.ext.asyncio import AsyncEngine

from common.bodies import stream_body
from common.problems import InvalidRequest, UnsupportedMediaType
from users.service import create_user

EXAMPLE = '{"name": "Ann"}'


class NewUser(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /users."""

    name: str


class CreatedUser(msgspec.Struct, frozen=True):
    """A new user with its token, which is shown this once."""

    id: UUID
    name: str
    token: str
    created_at: datetime


@post("/users")
async def post_user(request: Request[Any, Any, Any], engine: NamedDependency[AsyncEngine]) -> CreatedUser:
    """Creates a user and issues its token."""
    user, token = await create_user(engine, (await read_new_user(request)).name)
    return CreatedUser(user.id, user.name, token, user.created_at)


async def read_new_user(request: Request[Any, Any, Any]) -> NewUser:
    """Reads the body. Litestar's own reading takes any content type, and answers 500 to what is not UTF-8.

    Raises UnsupportedMediaType for a body not announced as JSON, InvalidRequest for one that is no new user.
    """
    kind, _ = request.content_type
    if kind != "application/json":
        raise UnsupportedMediaType(f"The content type is {kind!r}; send the user as application/json.")
    try:
        body = b"".join([piece async for piece in stream_body(request)])
        return msgspec.json.decode(body, type=NewUser)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"{error}; send {EXAMPLE}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"The body is not JSON: {error}; send {EXAMPLE}.") from None
