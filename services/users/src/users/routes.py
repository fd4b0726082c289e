"""The HTTP face of the users service."""

import json
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from litestar import Request, delete, post, route
from litestar.di import NamedDependency
from sqlalchemy.ext.asyncio import AsyncEngine

from common.bodies import read_content_type, stream_body
from common.credentials import Credentials, require_credentials
from common.problems import InvalidRequest, UnsupportedMediaType
from common.queries import refuse_others
from users import openapi
from users.service import create_user, delete_user, find_user, renew_token

EXAMPLE = json.dumps(openapi.EXAMPLE)
# It names an unknown field, which may be as long as the body.
MAX_REASON_LENGTH = 200


class NewUser(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /users."""

    name: str


class CreatedUser(msgspec.Struct, frozen=True):
    """A new user with its token, which is shown this once."""

    id: UUID
    name: str
    token: str
    created_at: datetime


class Profile(msgspec.Struct, frozen=True):
    """A user with the number of records and the bytes of their MP3s."""

    id: UUID
    name: str
    created_at: datetime
    record_count: int
    total_bytes: int


class RenewedToken(msgspec.Struct, frozen=True):
    """A user's id with the new token, which is shown this once."""

    id: UUID
    token: str


@post("/users", operation_class=openapi.POST_USER)
async def post_user(request: Request[Any, Any, Any], engine: NamedDependency[AsyncEngine]) -> CreatedUser:
    """Creates a user and issues its token."""
    refuse_others(request.query_params.multi_items())
    user, token = await create_user(engine, (await read_new_user(request)).name)
    return CreatedUser(user.id, user.name, token, user.created_at)


@route("/users/me", http_method=["GET", "HEAD"], operation_class=openapi.GET_USER)
async def get_user(request: Request[Any, Any, Any], engine: NamedDependency[AsyncEngine]) -> Profile:
    """The user whose credentials these are."""
    refuse_others(request.query_params.multi_items())
    user = await find_user(engine, read_credentials(request))
    return Profile(user.id, user.name, user.created_at, user.record_count, int(user.total_bytes))


@post("/users/me/token", status_code=200, operation_class=openapi.POST_TOKEN)
async def post_token(request: Request[Any, Any, Any], engine: NamedDependency[AsyncEngine]) -> RenewedToken:
    """Issues a new token; the old one stops working at once."""
    refuse_others(request.query_params.multi_items())
    return RenewedToken(*await renew_token(engine, read_credentials(request)))


@delete("/users/me", operation_class=openapi.REMOVE_USER)
async def remove_user(request: Request[Any, Any, Any], patient_engine: NamedDependency[AsyncEngine]) -> None:
    """Deletes the user and all records for good: their links are 404 from the answer on."""
    refuse_others(request.query_params.multi_items())
    await delete_user(patient_engine, read_credentials(request))


def read_credentials(request: Request[Any, Any, Any]) -> Credentials:
    """The credentials of the header. Raises InvalidCredentials."""
    return require_credentials(request.headers.get("authorization"))


async def read_new_user(request: Request[Any, Any, Any]) -> NewUser:
    """Reads the body. Litestar's own reading takes any content type, and answers 500 to what is not UTF-8.

    Raises UnsupportedMediaType for a body not announced as JSON, InvalidRequest for one that is no new user.
    """
    kind, _ = read_content_type(request)
    if kind != "application/json":
        raise UnsupportedMediaType(f"The content type is {kind!r}; send the user as application/json.")
    try:
        body = b"".join([piece async for piece in stream_body(request)])
        user = msgspec.json.decode(body, type=NewUser)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"{str(error)[:MAX_REASON_LENGTH]}; send {EXAMPLE}.") from None
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"The body is not JSON: {error}; send {EXAMPLE}.") from None
    except UnicodeDecodeError:
        raise InvalidRequest(f"The body is not UTF-8; send {EXAMPLE}.") from None
    # msgspec takes the last of them.
    if len(json.loads(body, object_pairs_hook=list)) > 1:
        raise InvalidRequest(f"The body has a field twice; send {EXAMPLE}.")
    return user
