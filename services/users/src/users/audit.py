"""Audit lines: every change to a user leaves one in the log, at every LOG_LEVEL."""

import sys
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
import structlog

from common.logs import name_user


def make_audit_line(action: str, user_id: UUID, **details: Any) -> bytes:
    """Returns the log line of a change to a user, such as `sign-up`."""
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


def audit(action: str, user_id: UUID) -> None:
    """Logs a change to a user, and names the user in the request's further lines."""
    name_user(user_id)
    structlog.BytesLogger(sys.stdout.buffer).msg(make_audit_line(action, user_id))
