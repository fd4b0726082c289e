"""Errors as RFC 9457 problem details: the exception class is the error code, and here is the one renderer."""

import re
from typing import Any, ClassVar

import structlog
from litestar import Request, Response
from litestar.exceptions import (
    ClientException,
    HTTPException,
    MethodNotAllowedException,
    NotFoundException,
)
from litestar.exceptions.http_exceptions import RequestEntityTooLarge

log = structlog.get_logger()

RETRY_AFTER_SECONDS = 5


class Problem(HTTPException):
    """An error for the client. Subclasses state the fact in their name, and give `status_code` and `title`.

    `detail` is public: it names the value, the limit and the way out, and never a host, a bucket or a key.
    """

    title: ClassVar[str]

    def __init__(self, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail=detail, headers=headers)


class InvalidRequest(Problem):
    """The request is malformed: a field is missing, unknown or has a value that is not allowed."""

    status_code = 400
    title = "The request is malformed"


class InvalidCredentials(Problem):
    """No credentials, or wrong ones; an unknown user and a wrong token look the same."""

    status_code = 401
    title = "The credentials are missing or wrong"

    def __init__(self, detail: str) -> None:
        # Basic is accepted but never offered, so that no browser opens a login box over a page.
        super().__init__(detail, headers={"WWW-Authenticate": 'Bearer realm="waxwing"'})


class UnknownRoute(Problem):
    """Nothing is served at this path."""

    status_code = 404
    title = "There is nothing at this address"


class MethodNotAllowed(Problem):
    """The path exists, but not with this method."""

    status_code = 405
    title = "This address does not know the method"


class TooLarge(Problem):
    """The body is larger than allowed."""

    status_code = 413
    title = "The body is too large"


class UnsupportedMediaType(Problem):
    """The Content-Type of the body is none that this route reads."""

    status_code = 415
    title = "The content type is not supported"


class UnknownHost(Problem):
    """The Host header names none of our hosts, so a link made from it could be a forgery."""

    status_code = 421
    title = "The host is not one of ours"


class ClientGone(Problem):
    """The client closed the connection before its request was complete; nobody reads this answer."""

    status_code = 499
    title = "The client closed the connection"


class InternalError(Problem):
    """A fault of ours; the log has it under the request id."""

    status_code = 500
    title = "Something went wrong on our side"


class Unavailable(Problem):
    """PostgreSQL or the object store is away, or this instance is too busy; a later try can succeed."""

    status_code = 503
    title = "The service is not available for the moment"

    def __init__(self, detail: str) -> None:
        super().__init__(
            f"{detail}; try again in {RETRY_AFTER_SECONDS} seconds.",
            headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
        )


def type_of(problem: type[Problem] | Problem) -> str:
    """The stable `type` of a problem: UnknownRecord is /problems/unknown-record."""
    name = problem.__name__ if isinstance(problem, type) else type(problem).__name__
    return "/problems/" + re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()


def make_body(problem: Problem, request_id: str | None) -> dict[str, Any]:
    """The members of a problem (RFC 9457 section 3.1), and the id of its request."""
    return {
        "type": type_of(problem),
        "title": problem.title,
        "status": problem.status_code,
        "detail": problem.detail,
        "request_id": request_id,
    }


def render(request: Request[Any, Any, Any], error: Exception) -> Response[dict[str, Any]]:
    """The exception handler of both services: every error becomes application/problem+json."""
    problem = _as_problem(request, error)
    if isinstance(problem, InternalError):
        log.error("unexpected error", exc_info=error)
    elif problem.status_code >= 500:  # noqa: PLR2004
        # The type alone: what the store or the driver says names keys and values.
        log.warning("unavailable", detail=problem.detail, cause=type(error.__cause__).__name__)
    return Response(
        make_body(problem, request.scope["state"].get("request_id")),
        status_code=problem.status_code,
        media_type="application/problem+json",
        headers=problem.headers,
    )


def _as_problem(request: Request[Any, Any, Any], error: Exception) -> Problem:
    if isinstance(error, Problem):
        return error
    if isinstance(error, NotFoundException):
        return UnknownRoute(f"Nothing is served at {request.url.path}.")
    if isinstance(error, MethodNotAllowedException):
        headers = {name.title(): value for name, value in (error.headers or {}).items()}
        return MethodNotAllowed(
            f"{request.method} is not possible here; allowed: {headers.get('Allow')}.", headers
        )
    if isinstance(error, RequestEntityTooLarge):
        return TooLarge("The body is larger than this service accepts.")
    if isinstance(error, ClientException):
        return InvalidRequest(error.detail)
    return InternalError("The fault is logged under the request id.")
