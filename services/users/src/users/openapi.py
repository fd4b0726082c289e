"""What the routes read and answer, for the OpenAPI document."""

from typing import Any

from common.openapi import NEEDS_CREDENTIALS, answer, describe
from common.problems import TooLarge, UnsupportedMediaType
from common.text import make_pattern
from users.service import MAX_NAME_LENGTH

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
A user has an id and a token, which uploads, lists and deletes records. The token is shown once and cannot be
had again, only renewed: keep it.

"""
ID, CREATED = {"description": "The user's id."}, {"description": "When the user was made, in UTC."}
NAME = {"description": "As given, trimmed and in Unicode's form C."}
FIELDS = {
    "CreatedUser": {
        "id": ID,
        "name": NAME,
        "token": {"description": "Who has it may do all that the user may; shown this once."},
        "created_at": CREATED,
    },
    "Profile": {
        "id": ID,
        "name": NAME,
        "created_at": CREATED,
        "record_count": {"description": "How many records there are, without uploads under way."},
        "total_bytes": {"description": "The bytes of their MP3s."},
    },
    "RenewedToken": {"id": ID, "token": {"description": "The new token; shown this once."}},
}

POST_USER = describe(
    "Create a user",
    requestBody={"required": True, "content": NEW_USER},
    responses={
        201: answer(
            "The user, with the token, which is shown this once.",
            example={"id": USER_ID, "name": "Ann", "token": TOKEN, "created_at": CREATED_AT},
        )
    },
    problems=[TooLarge, UnsupportedMediaType],
)
GET_USER = describe(
    "Who am I",
    security=NEEDS_CREDENTIALS,
    responses={
        200: answer(
            "The user.",
            example={
                "id": USER_ID,
                "name": "Ann",
                "created_at": CREATED_AT,
                "record_count": 2,
                "total_bytes": 320992,
            },
        )
    },
)
POST_TOKEN = describe(
    "Get a new token",
    security=NEEDS_CREDENTIALS,
    responses={
        200: answer("The new token, which is shown this once.", example={"id": USER_ID, "token": TOKEN})
    },
)
REMOVE_USER = describe(
    "Delete me and my records", security=NEEDS_CREDENTIALS, responses={204: answer("All of it is gone.")}
)
