"""Reads links to records as people paste them: copied out of HTML, out of JSON or out of a text."""

import re
from collections import defaultdict
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit
from uuid import UUID

from common.text import parse_uuid

# What stands for `&` in a link that was copied out of HTML, also if it was escaped twice, or out of JSON.
AMPERSAND = re.compile(r"&(amp(;|%3B))+|(\\|%5C)u0026", re.IGNORECASE)
# What can follow a link that was copied out of a text, such as a bracket: no letter, digit or hyphen.
BEHIND_LINK = re.compile("[^0-9a-zA-Z-].*", re.DOTALL)


class NamedRecord(NamedTuple):
    """A record as a person names it: by its id, or by its link, which also has the id of its user."""

    record_id: UUID
    user_id: UUID | None


def read_link_values(query: str) -> defaultdict[str, list[str]]:
    """Returns the values of a link's parameters. Ignores what a text left behind a pasted link."""
    values = defaultdict[str, list[str]](list)
    for name, value in parse_qsl(AMPERSAND.sub("&", query), keep_blank_values=True):
        values[name].append(BEHIND_LINK.sub("", value))
    return values


def parse_record(text: str) -> NamedRecord:
    """Returns the record with this id or this link. Raises ValueError if the text is neither."""
    values = read_link_values(urlsplit(text).query)
    if not values:
        return NamedRecord(parse_uuid(text), None)
    (record_id,), (user_id,) = values["id"], values["user"]
    return NamedRecord(parse_uuid(record_id), parse_uuid(user_id))
