"""Makes the ID3v2.4 tag of the MP3 from what a WAV says about itself in its LIST/INFO and bext chunks.

Sources: Microsoft's "Multimedia Programming Interface and Data Specifications 1.0" for INFO, EBU Tech 3285
for bext. Whatever the chunks hold, the result is a tag of a bounded size, or none.
"""

import io
import re
import unicodedata
from collections.abc import Iterator

from mutagen import id3

MAX_CHARACTERS = 1_000
MAX_TAG_BYTES = 16 * 1024

_MAX_ENTRIES = 256
# An ID3 frame, and the tag, take at most so many bytes besides their text.
_OVERHEAD_BYTES = 32
# The ID3 frames of INFO's entries. Of two entries for one ID3 frame the first in the file counts.
_ID3_FRAMES_OF_INFO = {
    b"INAM": "TIT2",
    b"IART": "TPE1",
    b"IPRD": "TALB",
    b"IGNR": "TCON",
    b"ICMT": "COMM",
    b"ICRD": "TDRC",
    b"ICOP": "TCOP",
    b"ITRK": "TRCK",
    b"IPRT": "TRCK",
}
# Where the fields of a bext chunk stand.
_DESCRIPTION, _ORIGINATOR, _ORIGINATION_DATE = slice(0, 256), slice(256, 288), slice(320, 330)
# These characters change the direction of a text, so that it reads differently from how it is written.
_BIDI_CONTROLS = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_DATE = re.compile(
    r"(?!0000)([0-9]{4})(?:[-/.:_ ](0[1-9]|1[0-2])(?:[-/.:_ ](0[1-9]|[12][0-9]|3[01]))?)?(?![0-9])"
)
_TRACK = re.compile(r"[0-9]{1,4}(/[0-9]{1,4})?")


def make_id3(chunks: list[tuple[bytes, bytes]], title: str | None) -> bytes:
    """Returns the ID3v2.4 tag for a WAV's chunks, given as names and bodies; b"" if they say nothing.

    `title` replaces the WAV's own title. A text is cut to MAX_CHARACTERS. Texts that would make the tag
    larger than MAX_TAG_BYTES are left out.
    """
    texts = {"TIT2": _clean(title or "")}
    for name, raw in _read_chunks(chunks):
        if not texts.get(name):
            texts[name] = _read_text(name, raw)
    if texts.get("TXXX") == texts.get("COMM"):
        texts.pop("TXXX", None)
    tag = id3.ID3()
    left_bytes = MAX_TAG_BYTES - _OVERHEAD_BYTES
    for name, text in texts.items():
        size_bytes = len(text.encode()) + _OVERHEAD_BYTES
        if text and size_bytes <= left_bytes:
            left_bytes -= size_bytes
            tag.add(_make_id3_frame(name, text))
    return _write(tag) if tag else b""


def _read_chunks(chunks: list[tuple[bytes, bytes]]) -> Iterator[tuple[str, bytes]]:
    """Yields the names of ID3 frames and the bytes of their texts: first from INFO, then from bext."""
    for name, body in chunks:
        if name == b"LIST" and body[:4] == b"INFO":
            yield from _read_info(body)
    for name, body in chunks:
        if name == b"bext":
            yield "COMM", body[_DESCRIPTION]
            # This keeps the description even if INFO has a comment of its own.
            yield "TXXX", body[_DESCRIPTION]
            yield "TPE1", body[_ORIGINATOR]
            yield "TDRC", body[_ORIGINATION_DATE]


def _read_info(body: bytes) -> Iterator[tuple[str, bytes]]:
    position = 4
    for _ in range(_MAX_ENTRIES):
        name, size = body[position : position + 4], body[position + 4 : position + 8]
        # A RIFX has big-endian sizes. Below 64 KiB the smaller of both readings is right.
        size_bytes = min(int.from_bytes(size, "little"), int.from_bytes(size, "big"))
        if name in _ID3_FRAMES_OF_INFO:
            yield _ID3_FRAMES_OF_INFO[name], body[position + 8 : position + 8 + size_bytes]
        position += 8 + size_bytes + size_bytes % 2
        if position >= len(body):
            return


def _read_text(name: str, raw: bytes) -> str:
    """Returns the text of an ID3 frame, "" if it is empty or malformed."""
    text = _clean(_decode(raw[: 4 * MAX_CHARACTERS].partition(b"\0")[0]))
    if name == "TDRC":
        date = _DATE.match(text)
        return "-".join(filter(None, date.groups())) if date else ""
    if name == "TRCK":
        return text if _TRACK.fullmatch(text) else ""
    return text


def _decode(raw: bytes) -> str:
    """Decodes UTF-8, or otherwise Windows-1252. Windows-1252 is rarely valid UTF-8."""
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        readable = raw[: error.start]
        # A field of fixed length may cut its last character.
        is_cut = error.reason == "unexpected end of data" and not readable.isascii()
        return readable.decode() if is_cut else raw.decode("cp1252", errors="ignore")


def _clean(text: str) -> str:
    """Returns the text on one line, without control characters, cut to MAX_CHARACTERS."""
    text = "".join(
        character
        for character in " ".join(text.split())
        if unicodedata.category(character) != "Cc" and character not in _BIDI_CONTROLS
    )
    return text[:MAX_CHARACTERS].strip()


def _make_id3_frame(name: str, text: str) -> id3.Frame:
    if name == "COMM":
        # XXX means an unknown language.
        return id3.COMM(encoding=id3.Encoding.UTF8, lang="XXX", desc="", text=[text])
    if name == "TXXX":
        return id3.TXXX(encoding=id3.Encoding.UTF8, desc="description", text=[text])
    return id3.Frames[name](encoding=id3.Encoding.UTF8, text=[text])


def _write(tag: id3.ID3) -> bytes:
    file = io.BytesIO()
    tag.save(file, v1=id3.ID3v1SaveOptions.REMOVE, v2_version=4, padding=lambda _: 0)
    return file.getvalue()
