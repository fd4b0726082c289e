"""What the services log of failures that nobody waits for."""

import json
import subprocess
import sys

import pytest

# A future whose error nobody looks at, as asyncpg leaves one if the time-out of a connection hits
# in the moment in which PostgreSQL refuses it.
FORGET_ERROR = """
import asyncio
from common.logs import configure_logs

async def forget_error():
    asyncio.get_running_loop().create_future().set_exception({error}("it failed"))

configure_logs("INFO")
asyncio.run(forget_error())
"""


@pytest.mark.parametrize(
    ("error", "level"),
    [("ConnectionError", "warning"), ("ConnectionResetError", "warning"), ("KeyError", "error")],
)
def test_a_refused_connection_that_nobody_waits_for_is_no_fault(error: str, level: str) -> None:
    command = [sys.executable, "-c", FORGET_ERROR.format(error=error)]
    line = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert line["event"].startswith("Future exception was never retrieved")
    assert "it failed" in line["exception"]
    assert (line["logger"], line["level"]) == ("asyncio", level)
