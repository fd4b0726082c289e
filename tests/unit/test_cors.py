"""Which CORS headers CORS_ORIGINS adds to a response, without a server."""

from typing import Any

import pytest

from common.cors import make_cors_hooks
from common.settings import ServiceSettings

A, B = "https://a.example", "https://b.example:8443"


async def get_response_headers(cors_origins: str, origin: str | None, method: str = "GET") -> dict[str, str]:
    """Returns the headers of a response with ETag and Allow to a request from this origin."""
    message: Any = {
        "type": "http.response.start",
        "status": 200,
        "headers": [(b"etag", b"1"), (b"allow", b"GET")],
    }
    scope = {"method": method, "headers": [(b"origin", origin.encode())] if origin else []}
    settings = ServiceSettings(database_url="", cors_origins=cors_origins)
    hooks: list[Any] = [*make_cors_hooks(settings, ["Idempotency-Replayed"])]
    for hook in hooks:
        await hook(message, scope)
    return {name.decode().lower(): value.decode() for name, value in message["headers"]}


async def test_without_the_setting_there_is_no_hook() -> None:
    assert make_cors_hooks(ServiceSettings(database_url="")) == []


@pytest.mark.parametrize("origin", [A, "null", None])
async def test_a_star_allows_every_origin_with_the_same_response(origin: str | None) -> None:
    headers = await get_response_headers("*", origin)
    assert headers["access-control-allow-origin"] == "*"
    assert "vary" not in headers


@pytest.mark.parametrize(
    ("origin", "allowed"), [(A, A), (B, B), (f"{A}:444", None), ("*", None), (None, None)]
)
async def test_each_origin_in_the_setting_is_allowed_by_name(origin: str | None, allowed: str | None) -> None:
    headers = await get_response_headers(f"{A} , {B}", origin)
    assert headers.get("access-control-allow-origin") == allowed
    assert headers["vary"] == "Origin"


async def test_a_service_s_own_headers_are_listed_with_those_of_http() -> None:
    headers = await get_response_headers(A, A, "OPTIONS")
    assert headers["access-control-expose-headers"] == (
        "Accept-Ranges, Content-Disposition, Content-Range, ETag, Idempotency-Replayed, Location,"
        " Retry-After, X-Request-ID"
    )
    assert headers["access-control-allow-headers"] == (
        "authorization, content-type, idempotency-key, if-match, if-modified-since, if-none-match,"
        " if-range, if-unmodified-since, range, x-signup-key"
    )
    assert headers["access-control-allow-methods"] == "GET"
