"""Which Host headers are accepted: a link is made from it, so a forged one must not get into a link."""

import ipaddress
from collections.abc import Callable, Coroutine
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from common.problems import UnknownHost
from common.settings import ServiceSettings

Connection = ASGIConnection[Any, Any, Any, Any]


def make_host_check(
    settings: ServiceSettings,
) -> Callable[[Connection, BaseRouteHandler], Coroutine[Any, Any, None]]:
    """A guard for routes: passes localhost names, IP literals, PUBLIC_URL's host and ALLOWED_HOSTS.

    It raises UnknownHost (421, RFC 9110 section 15.5.20) for every other host.
    """
    allowed = {name.strip().lower() for name in settings.allowed_hosts.split(",") if name.strip()}
    if settings.public_url:
        allowed.add(urlsplit(settings.public_url).hostname or "")

    @lru_cache(maxsize=64)
    def is_ours(host: str) -> bool:
        name = _name_of(host)
        return bool(name) and (name in allowed or is_loopback(name) or _address_of(name) is not None)

    # Litestar would run a plain function in a thread, which takes longer than all the rest of a check.
    async def check_host(connection: Connection, _: BaseRouteHandler) -> None:
        host = connection.headers.get("host", "")
        if not is_ours(host):
            raise UnknownHost(
                f"The host {host[:100]!r} is not known here; ALLOWED_HOSTS and PUBLIC_URL are the settings."
            )

    return check_host


def _name_of(host: str) -> str:
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port  # Reading it checks it.
    except ValueError:
        return ""
    return parts.hostname or "" if parts.netloc == host and "@" not in host else ""


def is_loopback(name: str) -> bool:
    """Whether a host name can mean this very machine only."""
    address = _address_of(name)
    return name == "localhost" or name.endswith(".localhost") or (address is not None and address.is_loopback)


def _address_of(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None
