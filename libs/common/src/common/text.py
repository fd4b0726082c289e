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
# What Unicode says is no character. Above U+FFFF as it is: ECMA 262 and Python escape it differently.
_NONE = r"\ufdd0-\ufdef\ufffe\uffff" + "".join(
    chr(plane + end) for plane in range(0x10000, 0x110000, 0x10000) for end in (0xFFFE, 0xFFFF)
)
# What is trimmed: white space, spelled out, as `\s` is not the same in all languages of patterns.
_BLANK = r"\t-\r \u00a0\u1680\u2000-\u200a\u202f\u205f\u3000"
# What cannot be seen by itself, and joins letters and emoji beside others: Default_Ignorable_Code_Point of
# Unicode, and the blank of Braille.
_UNSEEN = (
    r"\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2060-\u206f\u2800"
    r"\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
# Lone surrogates, which only an escape of JSON can name, are not in the patterns: not all engines take them.
FORBIDDEN_AROUND = re.compile(rf"[{_AROUND}{_NONE}\ud800-\udfff]")
FORBIDDEN_INSIDE = re.compile(rf"[{_INSIDE}]")
SEEN = re.compile(rf"[^{_BLANK}{_UNSEEN}]")
# No character of form C stands for more.
LONGEST_DECOMPOSITION = 4


def make_pattern(shortest: int, longest: int) -> str:
    """What normalise_text takes, for an OpenAPI document (ECMA 262, flag u); `shortest` is 0 or 1."""
    blanks, edge = rf"[{_BLANK}]*", rf"[^{_INSIDE}{_BLANK}]"
    is_seen = rf"(?=[{_BLANK}{_UNSEEN}]*[^{_INSIDE}{_BLANK}{_UNSEEN}])"
    trimmed = rf"{is_seen}{edge}([^{_INSIDE}]{{0,{longest - 2}}}{edge})?"
    middle = trimmed if shortest else f"({trimmed})?"
    return rf"^(?![\s\S]*[{_NONE}]){blanks}{middle}{blanks}$"


def normalise_text(what: str, text: str, shortest: int, longest: int) -> str:
    """Trims a text and brings it to Unicode's normal form C, so that what looks equal is equal.

    `what` names it in the message. Raises InvalidRequest where it is shorter or longer than allowed (in
    characters, after trimming), has control characters, noncharacters or such that change the direction of
    writing, or has nothing but what cannot be seen.
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
        raise InvalidRequest(
            f"A {what} has no control characters and no noncharacters; this one has U+{ord(found[0]):04X}."
        )
    if trimmed and not SEEN.search(trimmed):
        raise InvalidRequest(f"A {what} has a character that can be seen; this one has none.")
    return trimmed


def parse_uuid(text: str) -> UUID:
    """The UUID that a text is, with hyphens or without; Python's own reading takes signs and other digits.

    Raises ValueError where it is none.
    """
    try:
        return msgspec.convert(text, UUID)
    except msgspec.ValidationError:
        raise ValueError(text) from None
