"""Makes the OpenAPI 3.1 documents: completes the documents that Litestar makes from the handlers.

Handlers read bodies, queries and headers themselves, so Litestar does not know these. Each handler passes
them in a `describe_operation(…)` as its `operation_class`. The additions are dictionaries with the names of
the specification (https://spec.openapis.org/oas/v3.1.0).
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
from common.version import VERSION

Json = dict[str, Any]
Fields = Mapping[str, Mapping[str, Json]]
Components = Mapping[str, Mapping[str, Json]]

REQUEST_ID = "2f1c7a0e9b5d4c3a8e6f7d2b1a0c9e8f"
# Problems of every route.
COMMON_PROBLEMS = (InvalidRequest, UnknownHost, Unavailable)
NEEDS_CREDENTIALS: list[Json] = [{"basic": []}, {"bearer": []}]
MAY_HAVE_CREDENTIALS: list[Json] = [*NEEDS_CREDENTIALS, {}]
DESCRIPTION = """\
Every error is a problem, `application/problem+json` (RFC 9457). Its `type` is the path of a page that
explains it. Besides the problems listed at each operation, any operation can return
[405](/problems/method-not-allowed) for a method that the path does not support,
[408](/problems/request-timeout) for a request that pauses too long or is too slow,
[413](/problems/too-large) for a body over the limit,
[414](/problems/uri-too-long) for a request line over 8 KiB,
[429](/problems/too-many-requests) for too many requests from one address,
[501](/problems/not-implemented) for an unsupported transfer coding,
[505](/problems/http-version-not-supported) for an unsupported version of HTTP, and
[500](/problems/internal-error) for a fault of the service.

**Authorize** takes a user's token (bearer), or the user's id and token (basic). `POST /users` creates both.
"""


def describe_header(description: str, **schema: Any) -> Json:
    """Returns a header of a response, for the `components` of make_openapi_config."""
    return {"description": description, "schema": {"type": "string", **schema}}


COMPONENTS: Json = {
    "schemas": {
        "Problem": {
            "type": "object",
            "description": "An error (RFC 9457).",
            "required": ["type", "title", "status", "detail", "request_id"],
            "properties": {
                "type": {
                    "type": "string",
                    "format": "uri-reference",
                    "description": "Stable. The path of a page that explains it.",
                },
                "title": {"type": "string", "description": "The same for every problem of this type."},
                "status": {"type": "integer", "minimum": 400, "maximum": 599},
                "detail": {
                    "type": "string",
                    "description": "What was wrong, what is allowed, and what to do next.",
                },
                "request_id": {"type": "string", "description": "As in X-Request-ID and in the logs."},
            },
        }
    },
    "headers": {
        "X-Request-ID": describe_header("The request id, also in the logs.", pattern="^[0-9a-f]{32}$"),
        "WWW-Authenticate": describe_header(
            "`Basic` and `Bearer`; only `Bearer` for browsers and for a request that has sent `Bearer`."
        ),
        "Retry-After": describe_header("Seconds to wait before the next try."),
    },
    "securitySchemes": {
        "bearer": {"type": "http", "scheme": "bearer", "description": "The user's token."},
        "basic": {"type": "http", "scheme": "basic", "description": "The user's id and token."},
    },
}


class _Document(OpenAPI):
    def __init__(self, made: OpenAPI, fields: Fields, components: Components) -> None:
        super().__init__(**vars(made))
        self._fields = fields
        self._components = components

    def to_schema(self) -> Json:
        document = super().to_schema()
        components = document["components"]
        for name, fields in self._fields.items():
            properties = components["schemas"][name]["properties"]
            for field, additions in fields.items():
                properties[field] |= additions
        for kind, additions in [*COMPONENTS.items(), *self._components.items()]:
            components.setdefault(kind, {}).update(additions)
        return document


class _Config(OpenAPIConfig):
    def __init__(self, fields: Fields, components: Components, **config: Any) -> None:
        super().__init__(**config)
        self._fields = fields
        self._components = components

    def to_openapi_schema(self) -> OpenAPI:
        return _Document(super().to_openapi_schema(), self._fields, self._components)


def make_document_route(name: str) -> HTTPRouteHandler:
    """Returns the handler of /openapi/<name>.json. Litestar's own handler does not support HEAD."""

    @route(
        f"/openapi/{name}.json", http_method=["GET", "HEAD"], include_in_schema=False, sync_to_thread=False
    )
    def get_document(request: Request[Any, Any, Any]) -> Response[bytes]:
        return Response(_encode_document(request.app), media_type=MediaType.JSON)

    return get_document


@cache
def _encode_document(app: Litestar) -> bytes:
    return msgspec.json.encode(app.openapi_schema.to_schema())


def make_openapi_config(
    name: str, summary: str, about: str, fields: Fields, components: Components | None = None
) -> OpenAPIConfig:
    """Returns the configuration of the document of the service `name`.

    `about` is the first part of the document's description. `fields` completes properties of schemas, by the
    names of the schema and the field. `components` are the service's own headers and schemas, by kind
    and name.
    """
    return _Config(
        fields,
        components or {},
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


def describe_operation(
    summary: str,
    *,
    security: Sequence[Json] = (),
    parameters: Sequence[Json] = (),
    responses: Mapping[int, Json],
    problems: Iterable[type[Problem]] = (),
    never_for_head: Sequence[int] = (),
    **more: Any,
) -> type[Operation]:
    """Returns the `operation_class` of a handler.

    `responses` complete the responses that Litestar makes from the handler's signature. The `problems` and
    COMMON_PROBLEMS become one response for each status. `never_for_head` are statuses that a HEAD never gets.
    `more` holds further members of the operation.
    """
    all_problems = {*problems, *COMMON_PROBLEMS, *([InvalidCredentials] if security else [])}

    class DescribedOperation(Operation):
        def to_schema(self) -> Json:
            operation = super().to_schema()
            operation |= {"summary": summary, "security": list(security)}
            if parameters:
                operation["parameters"] = [*operation.get("parameters", []), *parameters]
            operation |= more
            # Litestar's error responses are dropped, because they do not describe problems.
            made = operation["responses"]
            described = {
                str(status): _complete_response(made.get(str(status), {}), response)
                for status, response in responses.items()
            }
            operation["responses"] = described | _describe_problems(all_problems)
            is_head = operation["operationId"].startswith("head_")
            return _convert_to_head(operation, never_for_head) if is_head else operation

    return DescribedOperation


def query_parameter(name: str, description: str, *, required: bool = False, **schema: Any) -> Json:
    """Returns a parameter of the query."""
    return {"name": name, "in": "query", "description": description, "required": required, "schema": schema}


def header_parameter(name: str, description: str, **schema: Any) -> Json:
    """Returns an optional header of the request."""
    return {"name": name, "in": "header", "description": description, "schema": {"type": "string", **schema}}


def describe_response(
    description: str, *headers: str, example: Json | None = None, content: Json | None = None
) -> Json:
    """Returns a response that is no problem.

    `headers` are names of headers. `content` replaces the content that Litestar makes.
    """
    response: Json = {"description": description, "headers": _refer_to_headers("X-Request-ID", *headers)}
    if content:
        response["content"] = content
    if example:
        response["example"] = example
    return response


def _refer_to_headers(*headers: str) -> Json:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in headers}


def _complete_response(made: Json, additions: Json) -> Json:
    """Adds to Litestar's response. Puts an example into each media type of the content."""
    response = {**made, **additions}
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
    headers = dict.fromkeys(name for problem in problems for name in problem.header_names)
    return {
        "description": "\n".join(f"- [{one.title}]({type_of(one)})" for one in problems),
        "headers": _refer_to_headers("X-Request-ID", *headers),
        "content": {
            "application/problem+json": {
                "schema": {
                    "allOf": [
                        {"$ref": "#/components/schemas/Problem"},
                        # openapi-python-client drops a response that narrows an integer to a `const`.
                        {"properties": {"type": {"enum": types}, "status": {"enum": [status]}}},
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


def _convert_to_head(operation: Json, never_for_head: Sequence[int]) -> Json:
    """Makes the HEAD operation of a GET operation: the same responses without content."""
    responses = {
        status: {name: member for name, member in response.items() if name != "content"}
        for status, response in operation["responses"].items()
        if int(status) not in never_for_head
    }
    return {**operation, "summary": f"{operation['summary']} (headers only)", "responses": responses}
