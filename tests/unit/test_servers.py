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
        ("postgresql:///waxwing?host=::1,b:2&port=1", [{"host": "::1", "port": 1}, B]),
        ("postgresql://a:/waxwing?port=1", [A]),
        ("postgresql://:5/waxwing", [{"port": 5}]),
    ],
)
def test_the_servers_of_a_url_are_found(url: str, servers: list[dict[str, Any]]) -> None:
    assert parse_servers(url) == servers


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("mysql://ann@a/waxwing", "^DATABASE_URL begins with mysql:"),
        ("postgresql://a,b,c/waxwing?port=1,2", "^DATABASE_URL names 3 hosts, but 2 ports"),
        ("postgresql://a:1,/waxwing", "^DATABASE_URL names an empty host"),
        ("postgresql://,b:2/waxwing", "^DATABASE_URL names an empty host"),
        ("postgresql://a:65536/waxwing", "^DATABASE_URL has a port that is no number from 1 to 65535"),
        ("postgresql://a:0/waxwing", "^DATABASE_URL has a port that is no number from 1 to 65535"),
        ("postgresql://a:abc/waxwing", "^DATABASE_URL has a port that is no number from 1 to 65535"),
    ],
)
def test_a_url_that_is_none_of_postgresql_is_named(url: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        parse_servers(url)


@pytest.mark.parametrize("character", ["?", "[", "/", "#", "\u2100"])
def test_a_password_that_is_not_escaped_is_not_shown(character: str) -> None:
    with pytest.raises(SettingsError, match=r"^DATABASE_URL .*%3F") as caught:
        parse_servers(f"postgresql://ann:secret{character}secret@a:1/waxwing")
    assert "secret" not in str(caught.value)
    # A traceback would show the error that this one came from.
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


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
