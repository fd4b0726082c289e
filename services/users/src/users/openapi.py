"""The requests and responses of the users service, for its OpenAPI document."""

from typing import Any

from common.openapi import NEEDS_CREDENTIALS, describe_operation, describe_response, header_parameter
from common.problems import TooLarge, UnsupportedMediaType, UserBlocked
from common.text import make_pattern
from users.problems import InvalidSignUpKey, SignUpClosed

MAX_NAME_LENGTH = 100
SIGN_UP_KEY = "X-Signup-Key"
USER_ID = "5782688b-1430-4dac-ba89-4121f7da9f7c"
TOKEN = "ab122647-f6a4-436d-bd16-e3ec69fdb1f5"  # noqa: S105 (an example)
CREATED_AT = "2026-11-21T15:48:13.264075Z"

EXAMPLE = {"name": "Ann"}
NEW_USER: dict[str, Any] = {
    "application/json": {
        "schema": {
            "type": "object",
            "required": ["name"],
            "additionalProperties": False,
            "properties": {
                "name": {
                    "type": "string",
                    "pattern": make_pattern(1, MAX_NAME_LENGTH),
                    "description": f"1 to {MAX_NAME_LENGTH} characters after trimming, at least one of them"
                    " visible; no control characters. Names need not be unique.",
                }
            },
        },
        "example": EXAMPLE,
    }
}

ABOUT = """\
A user has an id and a token. The token gives the right to upload, list and delete records. The service shows
it only once, so keep it. A lost token cannot be recovered: getting a new token takes the old one.

"""
ID, CREATED = {"description": "The user's id."}, {"description": "When the user was created, in UTC."}
NAME = {"description": "The given name, trimmed and in Unicode's normal form C."}
FIELDS = {
    "CreatedUser": {
        "id": ID,
        "name": NAME,
        "token": {"description": "Anyone who has it may do all that the user may. Shown only this once."},
        "created_at": CREATED,
    },
    "Profile": {
        "id": ID,
        "name": NAME,
        "created_at": CREATED,
        "record_count": {"description": "The number of records, without uploads under way."},
        "total_bytes": {"description": "The size of all their MP3s and kept originals in bytes."},
        "total_seconds": {"description": "The length of all records in seconds."},
        "max_records": {"description": "The quota: how many records the user may have; null without one."},
        "max_bytes": {"description": "The quota of bytes, of MP3s and kept originals; null without one."},
        "max_seconds": {"description": "The quota of seconds of audio; null without one."},
    },
    "RenewedToken": {"id": ID, "token": {"description": "The new token. Shown only this once."}},
}

POST_USER = describe_operation(
    "Create a user",
    parameters=[
        header_parameter(
            SIGN_UP_KEY,
            "The sign-up key, if this deployment demands one (`SIGNUP=key`). It may also be in"
            " `Authorization: Bearer KEY`.",
        )
    ],
    requestBody={"required": True, "content": NEW_USER},
    responses={
        201: describe_response(
            "The user with the token, which is shown only this once.",
            example={"id": USER_ID, "name": "Ann", "token": TOKEN, "created_at": CREATED_AT},
        )
    },
    problems=[InvalidSignUpKey, SignUpClosed, TooLarge, UnsupportedMediaType],
)
GET_USER = describe_operation(
    "Show my user",
    security=NEEDS_CREDENTIALS,
    responses={
        200: describe_response(
            "The user.",
            example={
                "id": USER_ID,
                "name": "Ann",
                "created_at": CREATED_AT,
                "record_count": 2,
                "total_bytes": 320992,
                "total_seconds": 20.0,
                "max_records": 100,
                "max_bytes": None,
                "max_seconds": None,
            },
        )
    },
)
POST_TOKEN = describe_operation(
    "Get a new token",
    security=NEEDS_CREDENTIALS,
    responses={
        200: describe_response(
            "The new token, which is shown only this once.", example={"id": USER_ID, "token": TOKEN}
        )
    },
    problems=[UserBlocked],
)
REMOVE_USER = describe_operation(
    "Delete me and my records",
    security=NEEDS_CREDENTIALS,
    responses={204: describe_response("The user and all its records are gone.")},
    problems=[UserBlocked],
)
