"""Checks Host headers. The services make links from the Host header, so they must reject a forged one."""

import re
from functools import lru_cache
from ipaddress import IPv6Address

from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Receive, Scope, Send

from common.host_names import configured_hosts, is_loopback, parse_address
from common.problems import UnknownHost
from common.settings import ServiceSettings

CACHED_HOSTS = 64
# The only characters that may get into a link.
HOST = re.compile(r"((?P<name>[A-Za-z0-9.-]+)|\[(?P<address>[0-9A-Fa-f:.]+)\])(:(?P<port>[0-9]{0,5}))?")
MAX_PORT = 65535


class HostCheck(ASGIMiddleware):
    """Middleware of routes: accepts localhost names, IP addresses, PUBLIC_URL's host and ALLOWED_HOSTS.

    Raises UnknownHost (421, RFC 9110 section 15.5.20) for every other host.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self._configured = configured_hosts(settings.public_url, settings.allowed_hosts)
        self.is_accepted = lru_cache(CACHED_HOSTS)(self._is_accepted)

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Passes the request on if its host is accepted."""
        # Two Host headers joined by a comma never match.
        host = b",".join([value for name, value in scope["headers"] if name == b"host"]).decode("latin-1")
        if not host:
            raise UnknownHost("The request has no Host header, and links are made of it. Send one.")
        if not self.is_accepted(host):
            raise UnknownHost(
                f"The host {host[:100]!r} is not allowed. The operator can allow it with the setting"
                " ALLOWED_HOSTS or PUBLIC_URL."
            )
        await next_app(scope, receive, send)

    def _is_accepted(self, host: str) -> bool:
        name = _parse_host(host)
        return bool(name) and (
            name in self._configured or is_loopback(name) or parse_address(name) is not None
        )


def _parse_host(host: str) -> str:
    """Returns the name or IP address of a Host header in lower case, or "" if the header is malformed."""
    found = HOST.fullmatch(host)
    if not found or int(found["port"] or 0) > MAX_PORT:
        return ""
    if found["name"]:
        return found["name"].lower()
    return found["address"].lower() if isinstance(parse_address(found["address"]), IPv6Address) else ""
