"""What CORS_ORIGINS makes of an answer, without any server."""

from typing import Any

import pytest

from common.cors import make_cors
from common.settings import ServiceSettings

A, B = "https://a.example", "https://b.example:8443"


async def mark(cors_origins: str, origin: str | None) -> dict[str, str]:
    """The headers of an answer with an ETag to a request from this origin."""
    message: Any = {"type": "http.response.start", "status": 200, "headers": [(b"etag", b"1")]}
    scope = {"method": "GET", "headers": [(b"origin", origin.encode())] if origin else []}
    hooks: list[Any] = [*make_cors(ServiceSettings(database_url="", cors_origins=cors_origins))]
    for hook in hooks:
        await hook(message, scope)
    return {name.decode().lower(): value.decode() for name, value in message["headers"]}


async def test_without_the_setting_nothing_is_added() -> None:
    assert make_cors(ServiceSettings(database_url="")) == []


@pytest.mark.parametrize("origin", [A, "null", None])
async def test_a_star_lets_everybody_in_with_one_answer_for_all(origin: str | None) -> None:
    headers = await mark("*", origin)
    assert headers["access-control-allow-origin"] == "*"
    assert "vary" not in headers


@pytest.mark.parametrize(
    ("origin", "allowed"), [(A, A), (B, B), (f"{A}:444", None), ("*", None), (None, None)]
)
async def test_each_site_that_is_named_is_let_in_by_its_own_answer(
    origin: str | None, allowed: str | None
) -> None:
    headers = await mark(f"{A} , {B}", origin)
    assert headers.get("access-control-allow-origin") == allowed
    assert headers["vary"] == "Origin"
