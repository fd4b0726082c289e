"""Text that people give: names, titles and ids."""

import unicodedata
from uuid import UUID

import msgspec

from common.problems import InvalidRequest

# Control characters, lone surrogates, line and paragraph separators.
CONTROL_CATEGORIES = {"Cc", "Cs", "Zl", "Zp"}
# These make a text read other than it is written.
BIDI_CONTROLS = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
# No character of form C stands for more.
LONGEST_DECOMPOSITION = 4


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
    for character in trimmed:
        if unicodedata.category(character) in CONTROL_CATEGORIES or character in BIDI_CONTROLS:
            raise InvalidRequest(f"A {what} has no control characters; this one has U+{ord(character):04X}.")
    return trimmed


def parse_uuid(text: str) -> UUID:
    """The UUID that a text is, with hyphens or without; Python's own reading takes signs and other digits.

    Raises ValueError where it is none.
    """
    try:
        return msgspec.convert(text, UUID)
    except msgspec.ValidationError:
        raise ValueError(text) from None
