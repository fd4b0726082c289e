"""Chooses the ports of the local stack, and says who holds a port that is taken."""

from __future__ import annotations

import errno
import secrets
import socket
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from itertools import combinations
from typing import NamedTuple

import psutil

LOOPBACK = "127.0.0.1"
_RANGE = range(20000, 32000)
"""Free ports come from here: below the ephemeral range, from which outgoing connections take their ports."""


@dataclass(frozen=True)
class Ports:
    """The ports on which the stack listens."""

    gateway: int
    minio: int
    console: int
    postgres: int
    users: int
    records: int
    # A stack that was started before these ports existed has none.
    prometheus: int = 0
    # The inner page of the gateway, which clients do not reach.
    gateway_status: int = 0
    # Those of further instances.
    more_users: Sequence[int] = ()
    more_records: Sequence[int] = ()

    @classmethod
    def free(cls) -> Ports:
        """Chooses free ports for a stack that runs beside others."""
        gateway, minio, console, postgres, users, records, prometheus, status = free_ports(8)
        return cls(gateway, minio, console, postgres, users, records, prometheus, status)

    @classmethod
    def chosen(cls, settings: Mapping[str, str], remembered: int | None) -> Ports:
        """Chooses the ports that the settings name.

        `remembered` is the port that PostgreSQL had at the last start.
        """
        users, records, gateway_status, fresh = free_ports(4)
        postgres = remembered if remembered and is_free(LOOPBACK, remembered) else fresh
        return cls(
            gateway=_port(settings, "GATEWAY_PORT", 8080),
            minio=_port(settings, "MINIO_PORT", 9000),
            console=_port(settings, "CONSOLE_PORT", 9001),
            postgres=_port(settings, "POSTGRES_PORT", postgres),
            users=users,
            records=records,
            prometheus=_port(settings, "PROMETHEUS_PORT", 9090),
            gateway_status=gateway_status,
        )

    def with_instances(self, users: int, records: int) -> Ports:
        """Adds free ports, so that each service has so many instances."""
        taken = [port for port in astuple(self) if isinstance(port, int)]
        more = free_ports(users + records - 2, but=taken)
        return replace(self, more_users=more[: users - 1], more_records=more[users - 1 :])

    def of(self, process: str) -> int:
        """Returns the port of a process: `records` is the first instance, `records-2` the second one."""
        service, _, number = process.partition("-")
        if number:
            return int(getattr(self, f"more_{service}")[int(number) - 2])
        return int(getattr(self, service))

    def instances(self, service: str) -> list[str]:
        """Returns the names of the processes of `users` or `records`."""
        more = getattr(self, f"more_{service}")
        return [service, *(f"{service}-{number}" for number, _ in enumerate(more, start=2))]


def free_ports(count: int, but: Sequence[int] = ()) -> list[int]:
    """Returns different ports of the loopback address that are free at the moment.

    Raises OSError if this machine has no such address, as a machine with only IPv6 may.
    """
    error = _find_listen_error(LOOPBACK, 0)
    if error and error.errno == errno.EADDRNOTAVAIL:
        raise OSError(
            f"the processes of the stack reach each other at {LOOPBACK}, which this machine does not have"
            f" ({error.strerror}): `ip link set lo up` and `ip address add {LOOPBACK}/8 dev lo` add it"
        )
    found: set[int] = set()
    while len(found) < count:
        port = secrets.choice(_RANGE)
        if port not in but and is_free(LOOPBACK, port):
            found.add(port)
    return list(found)


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen there."""
    return _find_listen_error(host, port) is None


def _find_listen_error(host: str, port: int) -> OSError | None:
    """Returns the error that a server would get there, or None."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            # With SO_REUSEADDR on both sockets, only listen() fails when another server listens already.
            probe.listen()
        except OSError as error:
            return error
    return None


class PortRequest(NamedTuple):
    """A port that a process needs, and the setting that chooses another port."""

    what: str
    host: str
    port: int
    setting: str


def explain_port_conflicts(requests: Sequence[PortRequest]) -> list[str]:
    """Returns a sentence for each port that is requested twice or not available: why, and what to do."""
    found = [
        f"{one.setting} and {other.setting} are both {one.port}: choose another for one of them"
        for one, other in combinations(requests, 2)
        if one.port == other.port
    ]
    for what, host, port, setting in requests:
        error = _find_listen_error(host, port)
        if error is None:
            continue
        if error.errno == errno.EADDRINUSE:
            reason = f"is taken by {_describe_holder(port)}: stop that, or"
        elif isinstance(error, PermissionError):
            reason = "needs root, as all ports below 1024 do:"
        else:
            reason = f"cannot be opened at {host} ({error.strerror}):"
        found.append(f"port {port} ({what}) {reason} choose another with {setting}=…")
    return found


def _describe_holder(port: int) -> str:
    try:
        connections = psutil.net_connections("inet")
    except psutil.AccessDenied:  # macOS shows connections to root only.
        connections = []
    for connection in connections:
        if connection.status != psutil.CONN_LISTEN or connection.pid is None or not connection.laddr:
            continue
        if connection.laddr.port == port:
            try:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
            except psutil.NoSuchProcess:
                break
    return "a process that the system does not show to this user"


def _port(settings: Mapping[str, str], name: str, default: int) -> int:
    value = settings.get(name) or str(default)
    if not value.isascii() or not value.isdecimal() or not 1 <= int(value) <= 65535:  # noqa: PLR2004
        raise ValueError(f"{name}={value} is not a port: set it to a number from 1 to 65535")
    return int(value)
