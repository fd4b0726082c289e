"""Makes the JSON lines of the gateway and the services readable for people (`just logs`)."""

from __future__ import annotations

import json
import sys
from functools import cache

from structlog.dev import ConsoleRenderer


def make_readable(line: str) -> str:
    """Returns a JSON line as text: time, level and event, and then the other fields.

    Other lines, such as those of PostgreSQL, stay as they are.
    """
    try:
        fields = json.loads(line)
    except ValueError:
        return line
    if not isinstance(fields, dict):
        return line
    if "event" not in fields:
        # The gateway's lines are about requests only.
        fields = {"event": "request", "level": "info", "timestamp": fields.pop("time", ""), **fields}
    return _make_renderer()(None, "", fields)


@cache
def _make_renderer() -> ConsoleRenderer:
    return ConsoleRenderer(colors=sys.stdout.isatty(), sort_keys=False, pad_event_to=12)
