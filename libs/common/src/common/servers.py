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
    """Returns the servers of a URL in their order. Raises SettingsError if the URL is none of PostgreSQL."""
    url = urlsplit(database_url)
    if url.scheme not in ("postgresql", "postgres"):
        raise SettingsError(
            f"DATABASE_URL begins with {url.scheme}:, and must look like postgresql://user@host:5432/waxwing"
        )
    query = {name: ",".join(values) for name, values in parse_qs(url.query).items()}
    hosts = (url.netloc.rpartition("@")[2] or query.get("host", "")).split(",")
    ports = query.get("port", "").split(",")
    if len(ports) == 1:
        ports *= len(hosts)
    if len(ports) != len(hosts):
        raise SettingsError(f"DATABASE_URL names {len(hosts)} hosts, but {len(ports)} ports")
    return [_parse_server(host, port) for host, port in zip(hosts, ports, strict=True)]


def _parse_server(text: str, default_port: str) -> Server:
    """Reads `host`, `host:port`, `[IPv6]:port` or the folder of a socket."""
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or text.endswith("]"):
        host, port = text, ""
    named = {"host": unquote(host.strip("[]")), "port": port or default_port}
    return {name: int(value) if name == "port" else value for name, value in named.items() if value}
