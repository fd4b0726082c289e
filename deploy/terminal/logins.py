"""Keeps the users whom `./just user` makes, so that the other commands need neither id nor token."""

import json
import os
from pathlib import Path
from typing import NamedTuple

from deploy.client import authorize


class Login(NamedTuple):
    """A user as the API names it. The token alone is enough, and then the id is None."""

    user_id: str | None
    token: str

    @property
    def authorization(self) -> str:
        """Returns the Authorization header."""
        return authorize(self.token, self.user_id)


class KeptLogins:
    """A file with one JSON object a line, which only its owner may read. The last line of a place counts.

    Lines that are empty or cut do not count.
    """

    def __init__(self, file: Path, place: str) -> None:
        """`place` is a URL, or "" for the local stack, whose port can change."""
        self._file = file
        self._place = place

    def add(self, user: dict[str, str]) -> None:
        """Keeps a user who was made. Raises OSError."""
        # A line that was cut must not spoil this one, so this one begins with a line end.
        line = {"place": self._place, "id": user["id"], "token": user["token"], "name": user["name"]}
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # One write that appends: two commands at once do not lose each other's user.
        descriptor = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.fchmod(descriptor, 0o600)
            os.write(descriptor, f"\n{json.dumps(line)}\n".encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def find(self, user_id: str | None = None) -> Login | None:
        """Returns the last user of this place, or the one with this id. Raises OSError."""
        try:
            lines = self._file.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return None
        for line in reversed(lines):
            try:
                kept = json.loads(line)
            except ValueError:
                continue
            if kept["place"] == self._place and user_id in (None, kept["id"]):
                return Login(kept["id"], kept["token"])
        return None
