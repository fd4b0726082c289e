"""Which Host headers are accepted."""

import asyncio
from typing import Any, cast

import pytest

from common.hosts import HostCheck
from common.problems import UnknownHost
from common.settings import ServiceSettings

SETTINGS = ServiceSettings(
    database_url="postgresql://nobody@localhost/none",
    public_url="https://music.example:8443/",
    allowed_hosts="a.example, B.example",
)


def is_passed_on(*hosts: str) -> bool:
    """Returns whether HostCheck passes on a request with these Host headers."""
    passed: list[Any] = []

    async def next_app(scope: Any, _receive: Any, _send: Any) -> None:
        passed.append(scope)

    scope = cast(Any, {"headers": [(b"host", host.encode("latin-1")) for host in hosts]})
    asyncio.run(HostCheck(SETTINGS).handle(scope, cast(Any, None), cast(Any, None), next_app))
    return passed == [scope]


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:8080",
        "LOCALHOST",
        "waxwing.localhost:1",
        "127.0.0.1:8080",
        "10.1.2.3",
        "[::1]:8080",
        "[2001:db8::1]",
        "music.example",
        "music.example:443",
        "a.example",
        "b.example:80",
        "A.EXAMPLE",
        "[::FFFF:10.1.2.3]",
        "x-1.a.localhost",
    ],
)
def test_an_allowed_host_is_accepted_with_any_port(host: str) -> None:
    assert is_passed_on(host)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "a.example.evil.example",
        "user@localhost",
        "localhost:x",
        "localhost:99999",
        "localhost/path",
        "localhost?x",
        "localhost#x",
        "localhost localhost",
        "[::1",
        "a.example,b.example",
        "[localhost]",
        "[a.example]",
        "[zz]",
        "[127.0.0.1]",
        "[::1%lo]",
        "[::1]x",
        "[v1.a]",
        "::1",
        "<b>.localhost",
        "a'b.localhost",
        'a".localhost',
        "a(b).localhost",
        "a_b.localhost",
        "a%20b.localhost",
        "a\\b.localhost",
        "\u00e9.localhost",
        "localhost:\u00b9",
    ],
)
def test_every_other_host_is_rejected_and_named(host: str) -> None:
    with pytest.raises(UnknownHost, match="ALLOWED_HOSTS") as rejected:
        is_passed_on(host)
    assert repr(host) in rejected.value.detail


def test_an_empty_host_is_told_to_be_missing() -> None:
    with pytest.raises(UnknownHost, match="no Host header"):
        is_passed_on("")


@pytest.mark.parametrize("hosts", [(), ("localhost", "localhost"), ("localhost", "evil.example")])
def test_no_host_and_two_hosts_are_rejected(hosts: tuple[str, ...]) -> None:
    with pytest.raises(UnknownHost):
        is_passed_on(*hosts)
