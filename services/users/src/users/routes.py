"""The HTTP handlers of the users service."""

import hmac
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
from litestar import Request, delete, post, route
from litestar.di import NamedDependency
from sqlalchemy.ext.asyncio import AsyncEngine

from common.audit import audit
from common.credentials import Credentials, require_credentials
from common.problems import InvalidRequest
from common.quotas import choose_limits
from common.requests import read_json, reject_unknown_parameters
from common.text import normalise_text
from users import openapi
from users.problems import InvalidSignUpKey, SignUpClosed
from users.settings import Settings
from users.sql import create_user, delete_user, find_user, renew_token


class RunningService(NamedTuple):
    """Connections and settings of a started instance."""

    engine: AsyncEngine
    settings: Settings


class NewUser(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /users."""

    name: str


class CreatedUser(msgspec.Struct, frozen=True):
    """A new user with its token, which is shown only this once."""

    id: UUID
    name: str
    token: str
    created_at: datetime


class Profile(msgspec.Struct, frozen=True):
    """A user, what it has stored, and what it may store. A limit is None without a quota."""

    id: UUID
    name: str
    created_at: datetime
    record_count: int
    total_bytes: int
    total_seconds: float
    max_records: int | None
    max_bytes: int | None
    max_seconds: int | None


class RenewedToken(msgspec.Struct, frozen=True):
    """A user's id with the new token, which is shown only this once."""

    id: UUID
    token: str


@post("/users", operation_class=openapi.POST_USER)
async def post_user(request: Request[Any, Any, Any], service: NamedDependency[RunningService]) -> CreatedUser:
    """Creates a user and issues its token."""
    reject_unknown_parameters(request.query_params.multi_items())
    check_sign_up(request, service.settings)
    new = await read_json(request, NewUser, openapi.EXAMPLE)
    name = normalise_text("name", new.name, 1, openapi.MAX_NAME_LENGTH)
    user, token = await create_user(service.engine, name)
    audit("sign-up", user.id)
    return CreatedUser(user.id, user.name, token, user.created_at)


@route("/users/me", http_method=["GET", "HEAD"], operation_class=openapi.GET_USER)
async def get_user(request: Request[Any, Any, Any], service: NamedDependency[RunningService]) -> Profile:
    """Shows the user whose credentials are in the header."""
    reject_unknown_parameters(request.query_params.multi_items())
    user = await find_user(service.engine, read_credentials(request))
    return Profile(
        *(user.id, user.name, user.created_at),
        *(user.record_count, user.total_bytes, user.total_seconds),
        *choose_limits(user, service.settings),
    )


@post("/users/me/token", status_code=200, operation_class=openapi.POST_TOKEN)
async def post_token(
    request: Request[Any, Any, Any], service: NamedDependency[RunningService]
) -> RenewedToken:
    """Issues a new token. The old one stops working at once."""
    reject_unknown_parameters(request.query_params.multi_items())
    user_id, token = await renew_token(service.engine, read_credentials(request))
    audit("token", user_id)
    return RenewedToken(user_id, token)


@delete("/users/me", operation_class=openapi.REMOVE_USER)
async def remove_user(request: Request[Any, Any, Any], service: NamedDependency[RunningService]) -> None:
    """Deletes the user and all its records for good: from this response on, their links are 404."""
    reject_unknown_parameters(request.query_params.multi_items())
    audit("deletion", await delete_user(service.engine, read_credentials(request)))


def read_credentials(request: Request[Any, Any, Any]) -> Credentials:
    """Returns the credentials in the header. Raises InvalidCredentials."""
    return require_credentials(request.headers.get("authorization"))


def check_sign_up(request: Request[Any, Any, Any], settings: Settings) -> None:
    """Raises SignUpClosed, or InvalidSignUpKey without the key, if the setting SIGNUP demands it."""
    if settings.sign_up == "closed":
        raise SignUpClosed("The setting SIGNUP of this deployment is closed. Ask its operator for a user.")
    if settings.sign_up == "open":
        return
    keys = request.headers.getall(openapi.SIGN_UP_KEY, [])
    # A client may always send a user's token in Authorization, so X-Signup-Key comes first.
    if not keys:
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        keys = [value.strip()] if scheme.lower() == "bearer" else []
    if len(keys) > 1:
        raise InvalidRequest(f"The request has the header {openapi.SIGN_UP_KEY} twice. Send it once.")
    if not keys or not hmac.compare_digest(keys[0].encode(), settings.signup_key.encode()):
        raise InvalidSignUpKey(
            f"A sign-up needs the sign-up key of this deployment. Ask its operator for it, and send it as"
            f" {openapi.SIGN_UP_KEY}: KEY, or as Authorization: Bearer KEY."
        )
