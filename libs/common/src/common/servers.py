"""The PostgreSQL servers that a database URL names, such as a primary and its standby."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg

from common.metrics import STATEMENT_ERRORS
from common.settings import SettingsError

CONNECT_TIMEOUT_SECONDS = 5
# One of several servers may hang, and then the next one must still be asked in time.
CONNECT_TIMEOUT_PER_SERVER_SECONDS = 1.5

_MAX_PORT = 65535

Server = Mapping[str, Any]
"""`host` and `port` of one server; empty if the URL names none."""


class Servers:
    """Opens connections to whichever server of a URL takes them, beginning with the one that did last."""

    def __init__(self, database_url: str, password: str = "") -> None:
        """Takes a URL as libpq does: `postgresql://user@a:5432,b:5432/waxwing?target_session_attrs=primary`.

        `password` goes before one in the URL. Raises SettingsError if the URL is none of PostgreSQL.
        """
        self._url = database_url
        self._password = password or None
        self._servers = parse_servers(database_url)
        # `common.db.check_database` sets it once it knows.
        self.has_right_pooler = False

    @property
    def first(self) -> Server:
        """The server that the next connection asks first."""
        return self._servers[0]

    async def connect(self, **options: Any) -> asyncpg.Connection:
        """Opens a connection. `options` are those of asyncpg.connect.

        Raises the error of the last server if none takes the connection.
        """
        several = len(self._servers) > 1
        timeout = CONNECT_TIMEOUT_PER_SERVER_SECONDS if several else CONNECT_TIMEOUT_SECONDS
        refusals: list[Exception] = []
        for server in tuple(self._servers):
            try:
                connection: asyncpg.Connection = await asyncpg.connect(
                    self._url, password=self._password, timeout=timeout, **server, **options
                )
            except (OSError, asyncpg.PostgresError, asyncpg.TargetServerAttributeNotMatched) as error:
                refusals.append(error)
            else:
                # Connections that open at the same time may have reordered the list.
                self._servers.sort(key=lambda each: each is not server)
                return connection
        STATEMENT_ERRORS.labels("connect").inc()
        raise refusals[-1]


def parse_servers(database_url: str) -> list[Server]:
    """Returns the servers of a URL in their order.

    Raises SettingsError if the URL is none of PostgreSQL. The message never has the password, nor what may be
    a part of it.
    """
    try:
        url = urlsplit(database_url)
        # asyncpg reads the options as strictly.
        options = parse_qs(url.query, strict_parsing=True) if url.query else {}
    # Their messages have the user and the password.
    except ValueError:
        raise _unreadable() from None
    if url.scheme not in ("postgresql", "postgres"):
        raise SettingsError(
            f"DATABASE_URL begins with {url.scheme}:, and must look like postgresql://user@host:5432/waxwing"
        )
    if url.fragment:
        raise _unreadable()
    query = {name: ",".join(values) for name, values in options.items()}
    hosts = (url.netloc.rpartition("@")[2] or query.get("host", "")).split(",")
    ports = query.get("port", "").split(",")
    if len(ports) == 1:
        ports *= len(hosts)
    if len(ports) != len(hosts):
        raise SettingsError(f"DATABASE_URL names {len(hosts)} hosts, but {len(ports)} ports")
    servers = [_parse_server(host, port) for host, port in zip(hosts, ports, strict=True)]
    if len(servers) > 1 and not all("host" in server for server in servers):
        raise SettingsError("DATABASE_URL names an empty host: is there a comma too many?")
    return servers


def _unreadable() -> SettingsError:
    return SettingsError(
        "DATABASE_URL cannot be read: write each character of the password that is neither a letter nor a"
        " digit as % and its code, such as %3F for a question mark, or set DATABASE_PASSWORD instead"
    )


def _parse_server(text: str, default_port: str) -> Server:
    """Reads `host`, `host:port`, `[IPv6]:port`, an IPv6 address or the folder of a socket."""
    host, _, port = text.rpartition(":")
    # The colons of an IPv6 address without brackets all belong to the address.
    if ":" not in text or text.endswith("]") or (":" in host and not host.startswith("[")):
        host, port = text, ""
    named: dict[str, Any] = {"host": unquote(host.strip("[]"))} if host else {}
    if port or default_port:
        named["port"] = _parse_port(port or default_port)
    return named


def _parse_port(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= _MAX_PORT):
        # Not shown, because it may be a part of a password with a slash.
        raise SettingsError(
            f"DATABASE_URL has a port that is no number from 1 to {_MAX_PORT}. If its password has a slash,"
            " write %2F for it (and %3F for a question mark)"
        )
    return int(text)
