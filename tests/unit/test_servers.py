"""A database URL names its servers as libpq reads it."""

import os
import subprocess
import sys
from typing import Any

import pytest
from prometheus_client import REGISTRY

from common.servers import Servers, parse_servers
from common.settings import SettingsError
from deploy.local.ports import free_ports

A, B = {"host": "a", "port": 1}, {"host": "b", "port": 2}


@pytest.mark.parametrize(
    ("url", "servers"),
    [
        ("postgresql://", [{}]),
        ("postgresql:///waxwing", [{}]),
        ("postgres://ann@a/waxwing", [{"host": "a"}]),
        ("postgresql://ann:p%40ss@a:1,b:2/waxwing?target_session_attrs=primary", [A, B]),
        ("postgresql://a,b/waxwing?port=1,2", [A, B]),
        ("postgresql://a:1,b/waxwing?port=2", [A, B]),
        ("postgresql://[::1]:5,[::2]/waxwing", [{"host": "::1", "port": 5}, {"host": "::2"}]),
        ("postgresql://%2Frun%2Fpostgresql/waxwing", [{"host": "/run/postgresql"}]),
        ("postgresql:///waxwing?host=/run/postgresql&port=6", [{"host": "/run/postgresql", "port": 6}]),
        ("postgresql:///waxwing?host=a:1&host=b:2", [A, B]),
    ],
)
def test_the_servers_of_a_url_are_found(url: str, servers: list[dict[str, Any]]) -> None:
    assert parse_servers(url) == servers


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("mysql://ann@a/waxwing", "^DATABASE_URL begins with mysql:"),
        ("postgresql://a,b,c/waxwing?port=1,2", "^DATABASE_URL names 3 hosts, but 2 ports"),
    ],
)
def test_a_url_that_is_none_of_postgresql_is_named(url: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        parse_servers(url)


@pytest.mark.parametrize("service", ["users", "records"])
def test_a_service_names_a_wrong_url_before_it_starts(service: str) -> None:
    store = {f"S3_{name}": "x" for name in ("ACCESS_KEY", "SECRET_KEY")} | {"S3_ENDPOINT": "http://store"}
    done = subprocess.run(
        [sys.executable, "-m", service],
        env={**os.environ, **store, "DATABASE_URL": "mysql://ann@a/waxwing"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("waxwing: wrong setting: DATABASE_URL begins with mysql:")
    assert done.stdout == ""


async def test_a_server_that_is_away_counts_as_a_failure_of_the_database() -> None:
    def failures() -> float:
        name = "waxwing_database_statement_errors_total"
        return REGISTRY.get_sample_value(name, {"statement": "connect"}) or 0

    (port,) = free_ports(1)
    before = failures()
    with pytest.raises(ConnectionRefusedError):
        await Servers(f"postgresql://127.0.0.1:{port}/waxwing").connect()
    assert failures() == before + 1
