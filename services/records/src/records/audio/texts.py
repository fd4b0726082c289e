"""Decodes the texts that a WAV holds, in any encoding. A text whose encoding is not certain is left out.

A RIFF file says its encoding at most in a CSET chunk ("Multimedia Programming Interface and Data
Specifications 1.0", IBM and Microsoft, 1991), and hardly any does.
"""

import codecs
import re
import unicodedata

import chardet

_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_UTF_16 = ("utf-16-le", "utf-16-be")
# Windows code pages whose Python codec is not named cp and the number.
_CODECS = {
    936: "gbk",
    1200: "utf-16-le",
    1201: "utf-16-be",
    10000: "mac-roman",
    20866: "koi8-r",
    21866: "koi8-u",
}
_CODECS |= {20932: "euc-jp", 51932: "euc-jp", 51949: "euc-kr", 54936: "gb18030", 28591: "latin-1"}
_CODECS |= {28590 + part: f"iso8859-{part}" for part in (2, 3, 4, 5, 6, 7, 8, 9, 13, 15)}
# The encodings of unannounced texts that the detector chooses from, as its name and Python's.
_UNANNOUNCED = {
    **{f"cp{number}": f"cp{number}" for number in (*range(1250, 1258), 874, 932, 949)},
    "gb18030": "gbk",
    "big5hkscs": "cp950",
}
# The detector's first choice must be so many times more likely than any other text.
_MIN_RATIO = 3
_MIN_CONFIDENCE = 0.002
# A text in another script than Latin must have at least so many bytes beyond ASCII.
_MIN_HIGH_BYTES = 6
# In UTF-16, characters of one script share their upper byte: of Latin, and of Greek, Cyrillic, Hebrew, Arabic
# and Thai.
_LATIN_UPPER_BYTES = {0, 1, 0x1E}
_UPPER_BYTES = ({3, 0x1F}, {4}, {5}, {6}, {0xE})
_PUNCTUATION_UPPER_BYTE = 0x20
_MIN_UTF_16_CHARACTERS = 2
# ASCII as people write it. UTF-16 of East Asia can look like ASCII, too, but like "mQ2u", "FO?a" and "Y'mw".
_WORD = r"(?:[A-Z]?[a-z]+|[A-Z]+|[0-9]+)"
_ORDINARY_ASCII = re.compile(
    rf"""{_WORD}|(?=.*[AEIOUaeiou0-9])(?:["'(]?{_WORD}[.,:;!?")]*(?:[ &/+'-]+|$))+"""
)
# The common characters of Chinese, Japanese and Korean, as the standards order them: each codec has them in
# one range. Of random characters a third is common.
_COMMON = (
    ("gb2312", b"\xb0\xa1", b"\xd7\xfe"),
    ("big5", b"\xa4\x40", b"\xc6\x7e"),
    ("shift_jis", b"\x81\x40", b"\x98\x72"),
    ("euc_kr", b"\xb0\xa1", b"\xc8\xfe"),
)
# A text must have at least so many common characters: bytes of another encoding can look like fewer.
_MIN_COMMON = 4
_MIN_REPEATED = 3
# Categories of Unicode: what is no character of a text, and symbols. Texts read in the wrong encoding are
# full of both.
_NO_CHARACTERS = ("Cc", "Cn", "Co", "Cs")
_SYMBOLS = ("So", "Sm", "Sk", "No")
# A Japanese or Korean text mixes these freely.
_EAST_ASIAN_PUNCTUATION = {*range(0x2010, 0x2027), *range(0x3000, 0x3040), *range(0xFF01, 0xFF66)}
# Punctuation beyond ASCII between two letters, except apostrophes, dashes and the dot of Catalan.
_INSIDE_A_WORD = re.compile(r"(?<=[^\W\d_])[¡§«¶»¿„†‡•‰](?=[^\W\d_])")
_EAST_ASIAN = ("CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "HANGUL", "FULLWIDTH", "HALFWIDTH")


def codec_of(code_page: int) -> str | None:
    """Returns Python's name for a Windows code page, None if Python does not know it."""
    try:
        return codecs.lookup(_CODECS.get(code_page, f"cp{code_page}")).name
    except LookupError:
        return None


def decode(raw: bytes, codec: str | None = None) -> str:
    """Decodes a text that may end with a NUL. `codec` is what the file announces.

    Without announcement it returns "" unless the encoding is certain.
    """
    for bom, its_codec in _BOMS:
        if raw.startswith(bom):
            return _up_to_nul(raw.removeprefix(bom).decode(its_codec, errors="ignore"))
    # Some writers end UTF-16 with one byte of 0.
    pairs = raw[:-1] if len(raw) % 2 and raw.endswith(b"\0") else raw
    if codec:
        try:
            return _up_to_nul((pairs if "utf-16" in codec else raw.partition(b"\0")[0]).decode(codec))
        except UnicodeDecodeError:
            pass
    for its_codec in _UTF_16:
        text = _up_to_nul(pairs.decode(its_codec, errors="replace"))
        if _is_utf_16(text):
            return text
    octets, _, rest = raw.partition(b"\0")
    text = _decode_octets(octets)
    east_asian = _read_east_asian(raw)
    is_terminated = raw == octets + b"\0" == text.encode() + b"\0" and text.isprintable()
    if not east_asian or is_terminated or (not rest.strip(b"\0") and _ORDINARY_ASCII.fullmatch(text)):
        return text
    # If the octets make a text beyond ASCII, too, or both byte orders make one, nobody knows.
    common = [character for character in east_asian[0] if not character.isascii()]
    is_certain = len(east_asian) == 1 and text.isascii() and len(common) >= _MIN_COMMON
    return east_asian[0] if is_certain else ""


def _decode_octets(raw: bytes) -> str:
    """Decodes a text of no announced encoding, in which a byte of 0 ends the text."""
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        readable = raw[: error.start]
        # A field of fixed length may cut its last character.
        is_cut = error.reason == "unexpected end of data" and not readable.isascii()
        return readable.decode() if is_cut else _detect(raw)


def _up_to_nul(text: str) -> str:
    return text.partition("\0")[0]


def _is_utf_16(text: str) -> bool:
    """Returns whether a text that was read as UTF-16 is one.

    It has two characters or more, of Latin and one other script. East Asian scripts are left out, because
    most of their upper bytes are letters in ASCII.
    """
    characters = [character for character in text if ord(character) >> 8 != _PUNCTUATION_UPPER_BYTE]
    upper_bytes = {ord(character) >> 8 for character in characters} - _LATIN_UPPER_BYTES
    return (
        len(characters) >= _MIN_UTF_16_CHARACTERS
        and (not upper_bytes or any(upper_bytes <= script for script in _UPPER_BYTES))
        and not _is_repeated(text)
        and not any(unicodedata.category(character) in _NO_CHARACTERS for character in text)
    )


def _read_east_asian(raw: bytes) -> list[str]:
    """Returns the readings of the bytes, as UTF-16 of either byte order, that are common East Asian text."""
    if len(raw) % 2:
        return []
    texts = [_up_to_nul(raw.decode(codec, errors="replace")) for codec in _UTF_16]
    return [text for text in texts if _is_east_asian(text)]


def _is_east_asian(text: str) -> bool:
    """Returns whether the characters beyond ASCII are common ones of one East Asian script; one is enough."""
    others = [character for character in text if ord(character) not in range(0x20, 0x7F)]
    letters = [character for character in others if ord(character) not in _EAST_ASIAN_PUNCTUATION]
    scripts = {unicodedata.name(character, "?").split()[0] == "HANGUL" for character in letters}
    return len(scripts) == 1 and all(_script(each) == "EAST ASIAN" and _is_common(each) for each in letters)


def _is_common(character: str) -> bool:
    return any(first <= character.encode(codec, "ignore") <= last for codec, first, last in _COMMON)


def _is_repeated(text: str) -> bool:
    """Returns whether it is one character over and over, which fills a field."""
    return len(text) >= _MIN_REPEATED and len(set(text)) == 1


def _detect(raw: bytes) -> str:
    """Returns the text if one reading of the bytes is far more likely than all others, otherwise ""."""
    confidences: dict[str, float] = {}
    for guess in chardet.detect_all(
        raw, ignore_threshold=True, include_encodings=_UNANNOUNCED, compat_names=False
    ):
        try:
            text = raw.decode(_UNANNOUNCED[guess["encoding"] or ""])
        except (UnicodeDecodeError, KeyError):
            continue
        confidences[text] = max(guess["confidence"], confidences.get(text, 0))
    ranked = sorted(confidences.items(), key=lambda item: item[1], reverse=True)
    text, confidence = ranked[0] if ranked else ("", 0.0)
    next_confidence = ranked[1][1] if len(ranked) > 1 else 0.0
    is_likely = confidence >= max(_MIN_RATIO * next_confidence, _MIN_CONFIDENCE)
    return text if is_likely and _is_plausible(text, raw) else ""


def _is_plausible(text: str, raw: bytes) -> bool:
    """Returns whether the text has no symbols beyond ASCII, and Latin and at most one other script."""
    categories = {unicodedata.category(character) for character in text if not character.isascii()}
    if _is_repeated(text) or _INSIDE_A_WORD.search(text) or categories & {*_NO_CHARACTERS, *_SYMBOLS}:
        return False
    others = {_script(character) for character in text if character.isalpha()} - {"LATIN"}
    is_short = sum(octet not in range(0x80) for octet in raw) < _MIN_HIGH_BYTES
    if len(others) > 1 or (is_short and (others or len(text) < len(raw))):
        return False
    words = [{_script(character) for character in word if character.isalpha()} for word in text.split()]
    return "EAST ASIAN" in others or all(len(scripts) <= 1 for scripts in words)


def _script(character: str) -> str:
    name = unicodedata.name(character, "?").split()[0]
    return "EAST ASIAN" if name in _EAST_ASIAN else name
