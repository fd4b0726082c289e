"""Text that people give: names and titles."""

import unicodedata

from common.problems import InvalidRequest

# Control characters, lone surrogates, line and paragraph separators.
CONTROL_CATEGORIES = {"Cc", "Cs", "Zl", "Zp"}
# These make a text read other than it is written.
BIDI_CONTROLS = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def normalise_text(what: str, text: str, shortest: int, longest: int) -> str:
    """Trims a text and brings it to Unicode's normal form C, so that what looks equal is equal.

    `what` names it in the message. Raises InvalidRequest where it is shorter or longer than allowed (in
    characters, after trimming), or has control characters or such that change the direction of writing.
    """
    trimmed = unicodedata.normalize("NFC", text.strip())
    if not shortest <= len(trimmed) <= longest:
        raise InvalidRequest(
            f"A {what} has {shortest} to {longest} characters after trimming; this one has {len(trimmed)}."
        )
    for character in trimmed:
        if unicodedata.category(character) in CONTROL_CATEGORIES or character in BIDI_CONTROLS:
            raise InvalidRequest(f"A {what} has no control characters; this one has U+{ord(character):04X}.")
    return trimmed
