"""The lines that one process of a stack logs during a test."""

from __future__ import annotations

import json
from typing import Any

import httpx

from deploy.client import Client
from deploy.local.stack import Stack
from tests.integration.waiting import wait_until


class NewLogLines:
    """Reads what a process logs from the moment of construction on."""

    def __init__(self, stack: Stack, process: str) -> None:
        self._path = stack.supervisor.log(process)
        # A line that the process is just writing counts as new.
        self._start = self._path.read_bytes().rfind(b"\n") + 1

    def text(self) -> str:
        """Returns everything, including an incomplete last line."""
        with self._path.open("rb") as file:
            file.seek(self._start)
            return file.read().decode()

    def lines(self) -> list[dict[str, Any]]:
        """Returns the complete lines. Each must be a JSON object."""
        complete = self.text().rpartition("\n")[0]
        return [self._parse(line) for line in complete.split("\n") if line]

    def line_of(self, response: httpx.Response) -> dict[str, Any]:
        """Waits for the service's line about a request, and returns it."""
        request_id = response.headers["x-request-id"]
        return wait_until(
            lambda: next(
                (
                    line
                    for line in self.lines()
                    if (line["event"], line.get("request_id")) == ("request", request_id)
                ),
                {},
            )
        )

    def _parse(self, line: str) -> dict[str, Any]:
        try:
            return dict(json.loads(line))
        except ValueError:
            raise AssertionError(f"{self._path.name} has a line that is not JSON: {line!r}") from None

    def requests(self, path: str) -> list[dict[str, Any]]:
        """Returns the lines of a service about requests to this path."""
        return [line for line in self.lines() if line.get("event") == "request" and line["path"] == path]


def begin_behind_earlier_requests(stack: Stack, client: Client) -> NewLogLines:
    """Returns the new lines of the users service, without late ones: supervisor copies a line after the
    response has been sent, but keeps the order of lines.
    """
    NewLogLines(stack, "users").line_of(client.http.get("/users/me"))
    return NewLogLines(stack, "users")
