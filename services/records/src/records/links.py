"""Reads links to records as people paste them: copied out of HTML, out of JSON or out of a text."""

import re
from argparse import ArgumentTypeError
from collections import defaultdict
from typing import NamedTuple
from urllib.parse import parse_qsl
from uuid import UUID

from common.text import parse_uuid

# What stands for `&` in a link that was copied out of HTML, also if it was escaped twice, or out of JSON.
AMPERSAND = re.compile(r"&(amp(;|%3B))+|(\\|%5C)u0026", re.IGNORECASE)
# What can follow a link that was copied out of a text, such as a bracket: no letter, digit or hyphen.
BEHIND_LINK = re.compile("[^0-9a-zA-Z-].*", re.DOTALL)
UUIDS = re.compile("[0-9a-f]{8}(?:-?[0-9a-f]{4}){3}-?[0-9a-f]{12}", re.IGNORECASE)


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
    """Returns the record with this id or this link, for a command of the terminal.

    Raises ArgumentTypeError, which says what is wrong, if the text does not name exactly one record.
    """
    front, _, query = text.strip().partition("?")
    values = read_link_values(query.partition("#")[0])
    try:
        if not query:
            return NamedRecord(parse_uuid(front), None)
        if values["id"] and not values["user"]:
            raise ArgumentTypeError(f"{text!r} has no `user`: put the link in quotes, because of its `&`")
        (record_id,), (user_id,) = values["id"], values["user"]
        named = NamedRecord(parse_uuid(record_id), parse_uuid(user_id))
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not the id or the link of a record") from None
    if len(front.split()) > 1 or {UUID(found) for found in UUIDS.findall(query)} > {*named}:
        raise ArgumentTypeError(f"{text!r} has more than the link of one record")
    return named
