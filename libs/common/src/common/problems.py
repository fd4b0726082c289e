"""Problems (RFC 9457): each is an exception class, and `render_problem` turns all of them into responses."""

import re
from typing import Any, ClassVar

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import (
    ClientException,
    HTTPException,
    MethodNotAllowedException,
    NotFoundException,
)
from litestar.exceptions.http_exceptions import RequestEntityTooLarge
from litestar.types import HTTPResponseBodyEvent, HTTPResponseStartEvent, Send

from common.metrics import PROBLEMS

log = structlog.get_logger()

RETRY_AFTER_SECONDS = 5


class Problem(HTTPException):
    """An error for the client.

    The name of a subclass makes its `type`; `status_code` and `title` are fixed for the type. The first line
    of its docstring is the example of a detail in the OpenAPI document.
    `detail` is public: it names the wrong value, the allowed values and what to do next. It never names an
    internal host, a bucket or an object key.
    """

    # Keep identical to the titles in problems.md and waxwing.conf.template.
    title: ClassVar[str]
    # Headers of the response, for the OpenAPI document. Every problem that names Retry-After sends it.
    header_names: ClassVar[tuple[str, ...]] = ()
    # Whether the client may be guessing a token or an id, so that its address may do it only so often.
    may_be_guess: ClassVar[bool] = False

    def __init__(self, detail: str, headers: dict[str, str] | None = None) -> None:
        if "Retry-After" in self.header_names:
            headers = {"Retry-After": str(RETRY_AFTER_SECONDS), **(headers or {})}
        super().__init__(detail=detail, headers=headers)


class InvalidRequest(Problem):
    """The request is malformed: a field is missing, unknown or has a value that is not allowed."""

    status_code = 400
    title = "The request is malformed"


# The challenges (RFC 9110, section 11.6.1).
BEARER = 'Bearer realm="waxwing"'
BASIC_OR_BEARER = f'Basic realm="waxwing", charset="UTF-8", {BEARER}'


class InvalidCredentials(Problem):
    """The credentials are missing or wrong. An unknown user and a wrong token give the same problem."""

    status_code = 401
    title = "The credentials are missing or wrong"
    may_be_guess = True
    header_names = ("WWW-Authenticate",)
    is_for_users = True
    """Whether the credentials are a user's id and token. Only for these the response can offer Basic."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail, headers={"WWW-Authenticate": BEARER})


class UserBlocked(Problem):
    """The operator has blocked this user. It can look at its records, but its links do not work."""

    status_code = 403
    title = "The user is blocked"

    def __init__(self) -> None:
        super().__init__(
            "The operator of this deployment has blocked this user. It can look at its records, but it cannot"
            " upload, rename, delete, get an original or a new token, and its links do not work. Ask the"
            " operator to unblock it."
        )


class UnknownRoute(Problem):
    """Nothing is served at this path."""

    status_code = 404
    title = "Nothing is served at this path"

    def __init__(self, path: str) -> None:
        super().__init__(f"Nothing is served at {path}. The page /docs lists every operation.")


class MethodNotAllowed(Problem):
    """The path exists, but not with this method."""

    status_code = 405
    title = "The path does not support the method"


class RequestTimeout(Problem):
    """The client sends its request too slowly."""

    status_code = 408
    title = "The request took too long"


class TooLarge(Problem):
    """The body is larger than allowed."""

    status_code = 413
    title = "The body is too large"


class UnsupportedMediaType(Problem):
    """This path does not accept the Content-Type of the body."""

    status_code = 415
    title = "The content type is not supported"


class UnknownHost(Problem):
    """The Host header is not an allowed host, so a link made from it could be forged."""

    status_code = 421
    title = "The host is not allowed"


class TooManyRequests(Problem):
    """The address has too often sent credentials, or asked for records, that do not exist."""

    status_code = 429
    title = "Too many requests from one address"
    header_names = ("Retry-After",)

    def __init__(self, limit: int, seconds: int) -> None:
        super().__init__(
            "Your address has sent wrong credentials, wrong sign-up keys, or ids of records that do not"
            f" exist, more than {limit} times in {seconds} seconds. Right ones still work."
            f" Try again in {seconds} seconds.",
            {"Retry-After": str(seconds)},
        )


class ClientGone(Problem):
    """The client closed the connection before its request was complete. Nobody reads this response."""

    status_code = 499
    title = "The client closed the connection"


class InternalError(Problem):
    """The service has a fault. The log holds it with the request id."""

    status_code = 500
    title = "The service has a fault"


class Unavailable(Problem):
    """Something that the service needs is away, or this instance is too busy. A later try can succeed."""

    status_code = 503
    title = "The service is not available for the moment"
    header_names = ("Retry-After",)

    def __init__(self, detail: str) -> None:
        self.reason = detail
        # The gateway's own details of this type end with the same words (waxwing.conf.template).
        super().__init__(f"{detail}; try again in {RETRY_AFTER_SECONDS} seconds.")


def name_of(problem: type[Problem] | Problem) -> str:
    """Returns the stable name of a problem: UnknownRecord has unknown-record."""
    name = problem.__name__ if isinstance(problem, type) else type(problem).__name__
    return re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()


def type_of(problem: type[Problem] | Problem) -> str:
    """Returns the `type` of a problem: UnknownRecord has /problems/unknown-record."""
    return f"/problems/{name_of(problem)}"


def make_problem_body(problem: Problem, request_id: str | None) -> dict[str, Any]:
    """Returns the members of a problem (RFC 9457 section 3.1), and its request id."""
    return {
        "type": type_of(problem),
        "title": problem.title,
        "status": problem.status_code,
        "detail": problem.detail,
        "request_id": request_id,
    }


def render_problem(request: Request[Any, Any, Any], error: Exception) -> Response[dict[str, Any]]:
    """Makes the response to any exception, as application/problem+json. It is both services' handler."""
    problem = _to_problem(request, error)
    PROBLEMS.labels(name_of(problem)).inc()
    if isinstance(problem, InternalError):
        log.error("unexpected error", exc_info=error)
    elif problem.status_code >= 500:  # noqa: PLR2004
        # Only the type of the cause: its message can name object keys and values.
        log.warning("unavailable", detail=problem.detail, cause=type(error.__cause__).__name__)
    headers = problem.headers or {}
    if isinstance(problem, InvalidCredentials) and problem.is_for_users and _may_be_offered_basic(request):
        headers = {**headers, "WWW-Authenticate": BASIC_OR_BEARER}
    return Response(
        make_problem_body(problem, request.scope["state"].get("request_id")),
        status_code=problem.status_code,
        media_type="application/problem+json",
        headers=headers,
    )


def _may_be_offered_basic(request: Request[Any, Any, Any]) -> bool:
    """Whether the client may wait for the challenge before it sends credentials, as wget and ffmpeg do.

    A browser, which sends Sec-Fetch-Mode, would open a login box over the page. A client that has sent Bearer
    needs no other scheme.
    """
    scheme = request.headers.get("authorization", "").partition(" ")[0]
    return "sec-fetch-mode" not in request.headers and scheme.lower() != "bearer"


async def send_problem(send: Send, request_id: str, problem: Problem) -> None:
    """Sends a problem as the response, without Litestar."""
    body = msgspec.json.encode(make_problem_body(problem, request_id))
    headers = {"Content-Type": "application/problem+json", "Content-Length": str(len(body))}
    headers |= problem.headers or {}
    await send(
        HTTPResponseStartEvent(
            type="http.response.start",
            status=problem.status_code,
            headers=[(name.lower().encode(), value.encode()) for name, value in headers.items()],
        )
    )
    await send(HTTPResponseBodyEvent(type="http.response.body", body=body, more_body=False))


def _to_problem(request: Request[Any, Any, Any], error: Exception) -> Problem:
    if isinstance(error, Problem):
        return error
    if isinstance(error, NotFoundException):
        return UnknownRoute(request.url.path)
    if isinstance(error, MethodNotAllowedException):
        headers = {name.title(): value for name, value in (error.headers or {}).items()}
        return MethodNotAllowed(
            f"This path does not support {request.method}. Allowed: {headers.get('Allow')}.", headers
        )
    if isinstance(error, RequestEntityTooLarge):
        return TooLarge("The body is larger than this service accepts. Send a smaller body.")
    if isinstance(error, ClientException):
        return InvalidRequest(error.detail)
    return InternalError(
        "The service has a fault. Report the request id: the log describes the fault under it."
    )
