"""Text that people give: names, titles and ids."""

import re
import unicodedata
from uuid import UUID

import msgspec

from common.problems import InvalidRequest

# Control characters, separators of lines and paragraphs, and what makes a text read other than it is written:
# around a text, where tabs and ends of lines are trimmed, and inside it.
_CONTROLS = r"\u007f-\u009f\u2028-\u202e\u2066-\u2069"
_AROUND, _INSIDE = rf"\u0000-\u0008\u000e-\u001f{_CONTROLS}", rf"\u0000-\u001f{_CONTROLS}"
# Lone surrogates, which only an escape of JSON can name, are not in the patterns: not all engines take them.
FORBIDDEN_AROUND = re.compile(rf"[{_AROUND}\ud800-\udfff]")
FORBIDDEN_INSIDE = re.compile(rf"[{_INSIDE}]")
# No character of form C stands for more.
LONGEST_DECOMPOSITION = 4


def make_pattern(shortest: int, longest: int) -> str:
    """What normalise_text takes, for an OpenAPI document (ECMA 262); `shortest` is 0 or 1."""
    blanks, edge = rf"[^{_AROUND}\S]*", rf"[^{_INSIDE}\s]"
    trimmed = rf"{edge}([^{_INSIDE}]{{0,{longest - 2}}}{edge})?"
    return rf"^{blanks}{trimmed}{blanks}$" if shortest else rf"^{blanks}({trimmed})?{blanks}$"


def normalise_text(what: str, text: str, shortest: int, longest: int) -> str:
    """Trims a text and brings it to Unicode's normal form C, so that what looks equal is equal.

    `what` names it in the message. Raises InvalidRequest where it is shorter or longer than allowed (in
    characters, after trimming), or has control characters or such that change the direction of writing.
    """
    trimmed = text.strip()
    # A longer one is too long in form C too, and to order its marks could take seconds.
    if len(trimmed) <= LONGEST_DECOMPOSITION * longest:
        trimmed = unicodedata.normalize("NFC", trimmed)
    if not shortest <= len(trimmed) <= longest:
        raise InvalidRequest(
            f"A {what} has {shortest} to {longest} characters after trimming; this one has {len(trimmed)}."
        )
    if found := FORBIDDEN_AROUND.search(text) or FORBIDDEN_INSIDE.search(trimmed):
        raise InvalidRequest(f"A {what} has no control characters; this one has U+{ord(found[0]):04X}.")
    return trimmed


def parse_uuid(text: str) -> UUID:
    """The UUID that a text is, with hyphens or without; Python's own reading takes signs and other digits.

    Raises ValueError where it is none.
    """
    try:
        return msgspec.convert(text, UUID)
    except msgspec.ValidationError:
        raise ValueError(text) from None
