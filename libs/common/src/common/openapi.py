"""The OpenAPI 3.1 documents: Litestar makes them from the handlers, and what it cannot know is added here.

Handlers read bodies, queries and headers themselves, so each has a `describe(…)` as its `operation_class`.
What is added is plain OpenAPI, written as in the specification (https://spec.openapis.org/oas/v3.1.0).
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from inspect import cleandoc
from typing import Any

import msgspec
from litestar import Litestar, Request, Response, route
from litestar.enums import MediaType
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import License, OpenAPI, Operation
from litestar.types import Method

from common.problems import InvalidCredentials, InvalidRequest, Problem, Unavailable, UnknownHost, type_of

Json = dict[str, Any]

VERSION = "0.1.0"
REQUEST_ID = "2f1c7a0e9b5d4c3a8e6f7d2b1a0c9e8f"
# What any route may answer.
COMMON_PROBLEMS = (InvalidRequest, UnknownHost, Unavailable)
# A HEAD is never answered with a part of the MP3.
NEVER_OF_HEAD = {"206", "416"}
NEEDS_CREDENTIALS: list[Json] = [{"bearer": []}, {"basic": []}]
MAY_HAVE_CREDENTIALS: list[Json] = [*NEEDS_CREDENTIALS, {}]
DESCRIPTION = """\
Every error is `application/problem+json` (RFC 9457), and its `type` leads to a paragraph about it. Besides
what stands at each operation, any address can answer [405](/problems/method-not-allowed) to another method,
[408](/problems/request-timeout) to a request that stops, [413](/problems/too-large) to a body over its limit,
[414](/problems/uri-too-long) to an address over 8 KiB, [501](/problems/not-implemented) and
[505](/problems/http-version-not-supported) to what is not HTTP/1.1, and [500](/problems/internal-error),
which is a fault of ours.

**Authorize** takes a user's token (bearer), or id and token (basic); `POST /users` makes both.
"""


def _header(description: str, **schema: Any) -> Json:
    return {"description": description, "schema": {"type": "string", **schema}}


COMPONENTS: Json = {
    "schemas": {
        "Problem": {
            "type": "object",
            "description": "What went wrong (RFC 9457).",
            "required": ["type", "title", "status", "detail", "request_id"],
            "properties": {
                "type": {"type": "string", "format": "uri-reference", "description": "Stable; it resolves."},
                "title": {"type": "string", "description": "The same for every problem of its type."},
                "status": {"type": "integer", "minimum": 400, "maximum": 599},
                "detail": {"type": "string", "description": "The value, the limit and the way out."},
                "request_id": {"type": "string", "description": "As in X-Request-ID, and in the logs."},
            },
        }
    },
    "headers": {
        "X-Request-ID": _header("The id of the request, which is in the logs.", pattern="^[0-9a-f]{32}$"),
        "WWW-Authenticate": _header('`Bearer realm="waxwing"`'),
        "Retry-After": _header("Seconds after which a new try makes sense."),
        "Location": _header("The link of the record.", format="uri"),
        "Idempotency-Replayed": _header(
            "`true` where the key's earlier record is the answer; else left out."
        ),
        "ETag": _header("A strong tag; of the MP3 it is the SHA-256."),
        "Last-Modified": _header("When the record was made."),
        "Cache-Control": _header("`private, no-cache`: to be kept, and asked for each time."),
        "Accept-Ranges": _header("Whether ranges are sent."),
        "Content-Range": _header("Which bytes of how many these are."),
        "Content-Disposition": _header("Whether to play or to save it, and its file name."),
    },
    "securitySchemes": {
        "bearer": {"type": "http", "scheme": "bearer", "description": "The user's token."},
        "basic": {"type": "http", "scheme": "basic", "description": "The user's id, and the token."},
    },
}
PROBLEM_HEADERS = {
    401: ["WWW-Authenticate"],
    409: ["Retry-After"],
    416: ["Content-Range"],
    503: ["Retry-After"],
}


Fields = Mapping[str, Mapping[str, Json]]


class _Document(OpenAPI):
    def __init__(self, made: OpenAPI, fields: Fields) -> None:
        super().__init__(**vars(made))
        self._fields = fields

    def to_schema(self) -> Json:
        document = super().to_schema()
        for name, fields in self._fields.items():
            properties = document["components"]["schemas"][name]["properties"]
            for field, ours in fields.items():
                properties[field] |= ours
        for kind, components in COMPONENTS.items():
            document["components"].setdefault(kind, {}).update(components)
        return document


class _Config(OpenAPIConfig):
    def __init__(self, fields: Fields, **config: Any) -> None:
        super().__init__(**config)
        self._fields = fields

    def to_openapi_schema(self) -> OpenAPI:
        return _Document(super().to_openapi_schema(), self._fields)


def make_document(name: str) -> HTTPRouteHandler:
    """Serves the document of the service `name` at /openapi/<name>.json: Litestar itself knows no HEAD."""

    @route(
        f"/openapi/{name}.json", http_method=["GET", "HEAD"], include_in_schema=False, sync_to_thread=False
    )
    def get_document(request: Request[Any, Any, Any]) -> Response[bytes]:
        return Response(_encode(request.app), media_type=MediaType.JSON)

    return get_document


@cache
def _encode(app: Litestar) -> bytes:
    return msgspec.json.encode(app.openapi_schema.to_schema())


def make_openapi(name: str, summary: str, about: str, fields: Fields) -> OpenAPIConfig:
    """What the document of the service `name` begins with, and what its schemas' `fields` are."""
    return _Config(
        fields,
        title=f"Waxwing {name}",
        version=VERSION,
        summary=summary,
        description=about + DESCRIPTION,
        license=License(name="MIT", identifier="MIT"),
        path="/openapi",
        render_plugins=[JsonRenderPlugin()],
        use_handler_docstrings=True,
        operation_id_creator=_name_operation,
    )


def _name_operation(handler: HTTPRouteHandler, method: Method, _: object) -> str:
    name = handler.handler_name
    return name.replace("get_", "head_", 1) if method == "HEAD" else name


def describe(
    summary: str,
    *,
    security: Sequence[Json] = (),
    parameters: Sequence[Json] = (),
    responses: Mapping[int, Json],
    problems: Iterable[type[Problem]] = (),
    **more: Any,
) -> type[Operation]:
    """The `operation_class` of a handler.

    `responses` complete those that Litestar makes of the handler's signature; of the problems, and those that
    every route has, each status becomes one response. `more` stands at the operation as it is.
    """
    all_problems = {*problems, *COMMON_PROBLEMS, *([InvalidCredentials] if security else [])}

    class Described(Operation):
        def to_schema(self) -> Json:
            operation = super().to_schema()
            operation |= {"summary": summary, "security": list(security)}
            if parameters:
                operation["parameters"] = [*operation.get("parameters", []), *parameters]
            operation |= more
            # What Litestar thinks of errors is of its own kind, not ours.
            made = operation["responses"]
            described = {
                str(status): _complete(made.get(str(status), {}), response)
                for status, response in responses.items()
            }
            operation["responses"] = described | _describe_problems(all_problems)
            return _without_bodies(operation) if operation["operationId"].startswith("head_") else operation

    return Described


def query(name: str, description: str, *, required: bool = False, **schema: Any) -> Json:
    """A parameter of the query."""
    return {"name": name, "in": "query", "description": description, "required": required, "schema": schema}


def header(name: str, description: str, **schema: Any) -> Json:
    """A header of the request, which may be left out."""
    return {"name": name, "in": "header", "description": description, "schema": {"type": "string", **schema}}


def answer(description: str, *headers: str, example: Json | None = None, content: Json | None = None) -> Json:
    """A response that is no problem: `headers` by name, and its content where Litestar does not know it."""
    response: Json = {"description": description, "headers": _refer("X-Request-ID", *headers)}
    if content:
        response["content"] = content
    if example:
        response["example"] = example
    return response


def _refer(*headers: str) -> Json:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in headers}


def _complete(made: Json, ours: Json) -> Json:
    """Litestar's response with what we know of it; without Litestar's content where there is none."""
    response = {**made, **ours}
    example = response.pop("example", None)
    if example:
        response["content"] = {
            media_type: {**content, "example": example} for media_type, content in response["content"].items()
        }
    return response


def _describe_problems(problems: Iterable[type[Problem]]) -> Json:
    by_status: dict[int, list[type[Problem]]] = {}
    for problem in sorted(problems, key=lambda one: (one.status_code, one.__name__)):
        by_status.setdefault(problem.status_code, []).append(problem)
    return {str(status): _describe_status(status, alike) for status, alike in by_status.items()}


def _describe_status(status: int, problems: Sequence[type[Problem]]) -> Json:
    types = [type_of(problem) for problem in problems]
    return {
        "description": "\n".join(f"- [{one.title}]({type_of(one)})" for one in problems),
        "headers": _refer("X-Request-ID", *PROBLEM_HEADERS.get(status, [])),
        "content": {
            "application/problem+json": {
                "schema": {
                    "allOf": [
                        {"$ref": "#/components/schemas/Problem"},
                        {"properties": {"type": {"enum": types}, "status": {"const": status}}},
                    ]
                },
                "examples": {one.__name__: {"value": _make_example(one)} for one in problems},
            }
        },
    }


def _make_example(problem: type[Problem]) -> Json:
    return {
        "type": type_of(problem),
        "title": problem.title,
        "status": problem.status_code,
        "detail": cleandoc(problem.__doc__ or "").splitlines()[0],
        "request_id": REQUEST_ID,
    }


def _without_bodies(operation: Json) -> Json:
    """What a HEAD is answered with: the headers of the GET."""
    responses = {
        status: {name: part for name, part in response.items() if name != "content"}
        for status, response in operation["responses"].items()
        if status not in NEVER_OF_HEAD
    }
    return {**operation, "summary": f"{operation['summary']} (headers only)", "responses": responses}
