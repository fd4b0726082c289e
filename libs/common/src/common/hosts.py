"""Which Host headers are accepted: a link is made from it, so a forged one must not get into a link."""

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Receive, Scope, Send

from common.problems import UnknownHost
from common.settings import ServiceSettings

CACHED_HOSTS = 64
# Nothing else gets into a link.
HOST = re.compile(r"((?P<name>[A-Za-z0-9.-]+)|\[(?P<address>[0-9A-Fa-f:.]+)\])(:(?P<port>[0-9]{0,5}))?")
MAX_PORT = 65535


class HostCheck(ASGIMiddleware):
    """Middleware of routes: passes localhost names, IP literals, PUBLIC_URL's host and ALLOWED_HOSTS.

    It raises UnknownHost (421, RFC 9110 section 15.5.20) for every other host.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self._allowed = own_names(settings.public_url, settings.allowed_hosts)
        self.is_ours = lru_cache(CACHED_HOSTS)(self._is_ours)

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Serves one request, or refuses it."""
        # Joined, two of them are no host.
        host = b",".join([value for name, value in scope["headers"] if name == b"host"]).decode("latin-1")
        if not self.is_ours(host):
            raise UnknownHost(
                f"The host {host[:100]!r} is not known here; ALLOWED_HOSTS and PUBLIC_URL are the settings."
            )
        await next_app(scope, receive, send)

    def _is_ours(self, host: str) -> bool:
        name = _name_of(host)
        return bool(name) and (name in self._allowed or is_loopback(name) or _address_of(name) is not None)


def own_names(public_url: str, allowed_hosts: str) -> set[str]:
    """The host names of the two settings, in small letters."""
    names = (urlsplit(public_url).hostname or "", *allowed_hosts.lower().split(","))
    return {name.strip() for name in names} - {""}


def _name_of(host: str) -> str:
    """The name or address, in small letters; empty where it is neither, or the port is none."""
    found = HOST.fullmatch(host)
    if not found or int(found["port"] or 0) > MAX_PORT:
        return ""
    if found["name"]:
        return found["name"].lower()
    return found["address"].lower() if isinstance(_address_of(found["address"]), IPv6Address) else ""


def is_loopback(name: str) -> bool:
    """Whether a host name can mean this very machine only."""
    address = _address_of(name)
    return name == "localhost" or name.endswith(".localhost") or (address is not None and address.is_loopback)


def _address_of(name: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(name)
    except ValueError:
        return None
