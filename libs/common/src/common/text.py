"""Checks text that users send: names, titles and ids."""

import re
import unicodedata
from uuid import UUID

import msgspec

from common.problems import InvalidRequest

# The tables below are ranges of code points, (first, last).
Ranges = tuple[tuple[int, int], ...]

# Trimmed at both ends: white space. The table exists because `\s` differs between regular expression engines.
WHITE_SPACE: Ranges = (
    (0x09, 0x0D),  # tab, line feed, vertical tab, form feed, carriage return
    (0x20, 0x20),  # space
    (0xA0, 0xA0),  # no-break space
    (0x1680, 0x1680),  # Ogham space mark
    (0x2000, 0x200A),  # en quad to hair space
    (0x202F, 0x202F),  # narrow no-break space
    (0x205F, 0x205F),  # medium mathematical space
    (0x3000, 0x3000),  # ideographic space
)
# Rejected within a trimmed text: C0 control characters, among them tabs and line ends.
C0_CONTROLS: Ranges = ((0x00, 0x1F),)
# Rejected anywhere: C0 control characters that are not trimmed as white space.
C0_CONTROLS_NOT_TRIMMED: Ranges = (
    (0x00, 0x08),
    (0x0E, 0x1F),
)
# Rejected anywhere: other control characters, and characters that make a text look different from
# how it is written.
OTHER_CONTROLS: Ranges = (
    (0x7F, 0x9F),  # delete, and the C1 control characters
    (0x2028, 0x202E),  # line and paragraph separator; embeddings and overrides of the writing direction
    (0x2066, 0x2069),  # isolates of the writing direction
)
# Rejected anywhere: Unicode's noncharacters, which are reserved for use inside programs.
NONCHARACTERS: Ranges = (
    (0xFDD0, 0xFDEF),
    (0xFFFE, 0xFFFF),
    *((plane + 0xFFFE, plane + 0xFFFF) for plane in range(0x10000, 0x110000, 0x10000)),
)
# Rejected anywhere: lone surrogates, which only a JSON escape can name. The OpenAPI patterns leave them out,
# because not all regular expression engines accept them.
SURROGATES: Ranges = ((0xD800, 0xDFFF),)
# Allowed beside visible characters, but not alone: invisible characters, which join letters and emoji.
# They are Unicode's Default_Ignorable_Code_Point and the blank of Braille.
INVISIBLE: Ranges = (
    (0xAD, 0xAD),  # soft hyphen
    (0x034F, 0x034F),  # combining grapheme joiner
    (0x061C, 0x061C),  # Arabic letter mark
    (0x115F, 0x1160),  # Hangul fillers
    (0x17B4, 0x17B5),  # Khmer inherent vowels
    (0x180B, 0x180F),  # Mongolian variation selectors and vowel separator
    (0x200B, 0x200F),  # zero-width space, joiners, marks of the writing direction
    (0x2060, 0x206F),  # word joiner, invisible operators, deprecated format characters
    (0x2800, 0x2800),  # blank of Braille
    (0x3164, 0x3164),  # Hangul filler
    (0xFE00, 0xFE0F),  # variation selectors
    (0xFEFF, 0xFEFF),  # zero-width no-break space, also the byte order mark
    (0xFFA0, 0xFFA0),  # halfwidth Hangul filler
    (0xFFF0, 0xFFF8),  # unassigned
    (0x1BCA0, 0x1BCA3),  # shorthand format controls
    (0x1D173, 0x1D17A),  # musical beams, ties and slurs
    (0xE0000, 0xE0FFF),  # tags and further variation selectors
)
# The last code point that the escape \uXXXX can name.
LAST_OF_FOUR_DIGITS = 0xFFFF
# No character of Unicode's normal form C stands for more characters than this.
LONGEST_DECOMPOSITION = 4


def _make_class(*tables: Ranges) -> str:
    """Returns the ranges as the inside of a character class, for Python and for ECMA 262 with the flag u."""
    return "".join(
        _escape(first) + ("-" if last > first + 1 else "") + (_escape(last) if last > first else "")
        for table in tables
        for first, last in table
    )


def _escape(code_point: int) -> str:
    # Above U+FFFF the character itself: ECMA 262 and Python escape it differently.
    unescaped = code_point == ord(" ") or code_point > LAST_OF_FOUR_DIGITS
    short = {0x09: r"\t", 0x0D: r"\r"}
    return chr(code_point) if unescaped else short.get(code_point, rf"\u{code_point:04x}")


_WHITE_SPACE = _make_class(WHITE_SPACE)
_INVISIBLE = _make_class(INVISIBLE)
_REJECTED_WITHIN = _make_class(C0_CONTROLS, OTHER_CONTROLS)
_NONCHARACTERS = _make_class(NONCHARACTERS)
REJECTED_ANYWHERE = re.compile(
    f"[{_make_class(C0_CONTROLS_NOT_TRIMMED, OTHER_CONTROLS, NONCHARACTERS, SURROGATES)}]"
)
REJECTED_WITHIN = re.compile(f"[{_REJECTED_WITHIN}]")
VISIBLE = re.compile(f"[^{_WHITE_SPACE}{_INVISIBLE}]")


def make_pattern(shortest: int, longest: int) -> str:
    """Returns the pattern (ECMA 262, flag u) of what normalise_text accepts, for an OpenAPI document.

    `shortest` is 0 or 1.
    """
    has_no_noncharacter = rf"(?![\s\S]*[{_NONCHARACTERS}])"
    white_space = f"[{_WHITE_SPACE}]*"
    # Looks ahead for the first visible character.
    is_visible = f"(?=[{_WHITE_SPACE}{_INVISIBLE}]*[^{_REJECTED_WITHIN}{_WHITE_SPACE}{_INVISIBLE}])"
    first_or_last = f"[^{_REJECTED_WITHIN}{_WHITE_SPACE}]"
    between = f"[^{_REJECTED_WITHIN}]{{0,{longest - 2}}}"
    trimmed = f"{is_visible}{first_or_last}({between}{first_or_last})?"
    text = trimmed if shortest else f"({trimmed})?"
    return f"^{has_no_noncharacter}{white_space}{text}{white_space}$"


def normalise_text(what: str, text: str, shortest: int, longest: int) -> str:
    """Trims a text and brings it to Unicode's normal form C, so that texts that look equal are equal.

    `what` names the text in the message. The limits count characters after trimming. Raises InvalidRequest
    if the text is too short or too long, holds a rejected character, or holds invisible characters only.
    """
    trimmed = text.strip()
    # A longer text is too long in form C as well, and sorting its combining marks could take seconds.
    if len(trimmed) <= LONGEST_DECOMPOSITION * longest:
        trimmed = unicodedata.normalize("NFC", trimmed)
    if not shortest <= len(trimmed) <= longest:
        raise InvalidRequest(
            f"The {what} has {len(trimmed)} characters after trimming. Send {shortest} to {longest}."
        )
    if found := REJECTED_ANYWHERE.search(text) or REJECTED_WITHIN.search(trimmed):
        raise InvalidRequest(
            f"The {what} contains U+{ord(found[0]):04X}. Remove control characters and noncharacters."
        )
    if trimmed and not VISIBLE.search(trimmed):
        raise InvalidRequest(f"The {what} has no character that can be seen. Send at least one.")
    return trimmed


def parse_uuid(text: str) -> UUID:
    """Parses a UUID, with or without hyphens. Raises ValueError for any other text.

    Python's own UUID(…) also accepts signs and digits of other scripts.
    """
    try:
        return msgspec.convert(text, UUID)
    except msgspec.ValidationError:
        raise ValueError(text) from None
