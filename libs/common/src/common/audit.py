"""Audit lines: every change to a user, and every deletion by the operator, leaves one in the log, at every
LOG_LEVEL.
"""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import structlog

from common.logs import name_user


def audit(action: str, user_id: UUID) -> None:
    """Logs what a request has done to a user, and names the user in the request's further lines."""
    name_user(user_id)
    structlog.BytesLogger(sys.stdout.buffer).msg(_make_line(action, user_id))


def audit_operator(file: str, action: str, user_id: UUID, **details: Any) -> None:
    """Appends what the operator has done to a user to the log at `file`, or writes it to standard error."""
    line = _make_line(action, user_id, by="operator", **details) + b"\n"
    if not file:
        sys.stderr.buffer.write(line)
        return
    try:
        with Path(file).open("ab") as log:
            log.write(line)
    except OSError as error:
        sys.stderr.write(f"waxwing: {error}, so this audit line is in no log: {line.decode()}")


def _make_line(action: str, user_id: UUID, **details: Any) -> bytes:
    line = {
        "event": "audit",
        "action": action,
        **details,
        **structlog.contextvars.get_contextvars(),
        "user_id": user_id,
        "level": "info",
        "timestamp": datetime.now(UTC),
    }
    return msgspec.json.encode(line)
