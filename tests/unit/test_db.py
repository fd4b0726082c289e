"""Which errors of the drivers count as an outage of PostgreSQL."""

import asyncpg
import pytest
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_dbapi
from sqlalchemy.exc import InternalError

from common.db import outages_as_unavailable
from common.problems import Unavailable


def test_a_connection_that_is_lost_between_two_messages_is_an_outage() -> None:
    # asyncpg raised this in the drill, on a new connection whose PostgreSQL was killed.
    cause = AsyncAdapt_asyncpg_dbapi.InternalClientError("cannot switch to state 12", None)  # type: ignore[no-untyped-call]
    with pytest.raises(Unavailable), outages_as_unavailable():
        raise InternalError("SELECT 1", {}, cause)


def test_a_fault_inside_postgresql_is_no_outage() -> None:
    fault = asyncpg.InternalServerError("unexpected data")
    cause = AsyncAdapt_asyncpg_dbapi.InternalServerError("x", fault)  # type: ignore[no-untyped-call]
    assert cause.sqlstate == "XX000"
    with pytest.raises(InternalError), outages_as_unavailable():
        raise InternalError("SELECT 1", {}, cause)
