"""The host names in the settings, and what follows from them: who may sign up."""

from functools import cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Literal
from urllib.parse import urlsplit

SignUp = Literal["open", "key", "closed"]


def configured_hosts(public_url: str, allowed_hosts: str) -> set[str]:
    """Returns the host names in the settings PUBLIC_URL and ALLOWED_HOSTS, in lower case."""
    names = (urlsplit(public_url).hostname or "", *allowed_hosts.lower().split(","))
    return {name.strip() for name in names} - {""}


def public_hosts(public_url: str, allowed_hosts: str) -> list[str]:
    """Returns the configured hosts that other machines can use."""
    return sorted(name for name in configured_hosts(public_url, allowed_hosts) if not is_loopback(name))


@cache
def choose_sign_up(chosen: SignUp | None, public_url: str, allowed_hosts: str) -> SignUp:
    """Returns the setting SIGNUP. Without it, a sign-up needs the key if a configured host is public."""
    return chosen or ("key" if public_hosts(public_url, allowed_hosts) else "open")


def is_loopback(name: str) -> bool:
    """Returns whether a host name always means the machine that uses it."""
    address = parse_address(name)
    return name == "localhost" or name.endswith(".localhost") or (address is not None and address.is_loopback)


def parse_address(name: str) -> IPv4Address | IPv6Address | None:
    """Returns the IP address, or None if the name is a host name."""
    try:
        return ip_address(name)
    except ValueError:
        return None
