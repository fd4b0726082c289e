"""Makes the ID3v2.4 tag of the MP3 from what a WAV says about itself: in ID3v2, in LIST/INFO and in bext.

Sources: Microsoft's "Multimedia Programming Interface and Data Specifications 1.0" for INFO, EBU Tech 3285
for bext. Whatever the chunks hold, the result is a tag of a bounded size, or none.
"""

import io
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any

from mutagen import MutagenError, id3

from . import id3_sizes
from .texts import codec_of, decode

MAX_CHARACTERS = 1_000
MAX_TAG_BYTES = 16 * 1024
"""Without the picture."""
MAX_PICTURE_BYTES = 2 * 1024 * 1024

_MAX_ENTRIES = 256
_MAX_ID3_TAGS = 8
# A text has at most so many bytes a character.
_MAX_TEXT_BYTES = 4 * MAX_CHARACTERS
# So many texts of one kind are tried until one is readable: to detect an encoding takes up to 100 ms.
_MAX_TRIES = 3
# An ID3 frame, and the tag, take at most so many bytes besides their text.
_OVERHEAD_BYTES = 32
# An ID3 frame that is no picture may have so many bytes.
_MAX_ID3_TEXT_BYTES = 16 * 1024
_ID3_UNSYNCHRONISED, _ID3_EXTENDED = 0x80, 0x40
# The versions that are read, and how many bytes the name and the header of an ID3 frame have in each.
_ID3_LAYOUTS = {2: (3, 6), 3: (4, 10), 4: (4, 10)}
_ID3_FRAMES = ("TIT2", "TPE1", "TALB", "TCON", "COMM", "TDRC", "TCOP", "TRCK", "TENC")
_FRONT_COVER = id3.PictureType.COVER_FRONT
_MEDIA_TYPES = {"JPG": "image/jpeg", "PNG": "image/png"}
# How pictures begin whose media type is often wrong.
_PICTURE_STARTS = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG": "image/png"}
_MEDIA_TYPE = re.compile(r"image/[a-z0-9.+-]{1,30}")
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
# Some recorders fill a field with these bytes.
_FILLING = re.compile(rb"\xff{4,}\Z")
# These characters change the direction of a text, so that it reads differently from how it is written.
_BIDI_CONTROLS = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_DATE = re.compile(
    r"(?!0000)([0-9]{4})(?:[-/.:_ ](0[1-9]|1[0-2])(?:[-/.:_ ](0[1-9]|[12][0-9]|3[01]))?)?(?![0-9])"
)
_TRACK = re.compile(r"[0-9]{1,4}(/[0-9]{1,4})?")


def make_id3(chunks: list[tuple[bytes, bytes]], title: str | None) -> bytes:
    """Returns the ID3v2.4 tag for a WAV's chunks, given as names and bodies; b"" if they say nothing.

    `title` replaces the WAV's own title. A text is cut to MAX_CHARACTERS. Texts that would make the tag
    larger than MAX_TAG_BYTES are left out, and so is a picture of more than MAX_PICTURE_BYTES.
    """
    texts = {"TIT2": _clean(title or "")}
    bodies = [body for name, body in chunks if name.upper() == b"ID3 "]
    tags = [tag for body in bodies[:_MAX_ID3_TAGS] if (tag := _open_id3(body))]
    tries: Counter[str] = Counter()
    for name, text, codec in _read_chunks(chunks, tags):
        if not texts.get(name) and tries[name] < _MAX_TRIES:
            tries[name] += 1
            cut = text[:_MAX_TEXT_BYTES]
            texts[name] = _check_text(name, cut if isinstance(cut, str) else decode(cut, codec))
    if texts.get("TXXX") == texts.get("COMM"):
        texts.pop("TXXX", None)
    made = id3.ID3()
    left_bytes = MAX_TAG_BYTES - _OVERHEAD_BYTES
    for name, text in texts.items():
        size_bytes = len(text.encode()) + _OVERHEAD_BYTES
        if text and size_bytes <= left_bytes:
            left_bytes -= size_bytes
            made.add(_make_id3_frame(name, text))
    if picture := _find_picture(tags):
        made.add(picture)
    return _write(made) if made else b""


def _read_chunks(
    chunks: list[tuple[bytes, bytes]], tags: list[id3.ID3]
) -> Iterator[tuple[str, str | bytes, str | None]]:
    """Yields names of ID3 frames, their texts, and the encoding that the file announces for a text of bytes.

    ID3 tags come first, then INFO, then bext.
    """
    for tag in tags:
        for its_name, text in _read_id3(tag):
            yield its_name, text, None
    codec = next(filter(None, (_read_code_page(body) for name, body in chunks if name == b"CSET")), None)
    for name, body in chunks:
        if name == b"LIST" and body[:4] == b"INFO":
            for its_name, raw in _read_info(body):
                yield its_name, raw, codec
    for name, body in chunks:
        if name == b"bext":
            description = _without_filling(body[_DESCRIPTION])
            yield "COMM", description, None
            # This keeps the description even if another chunk has a comment of its own.
            yield "TXXX", description, None
            # The originator is mostly the model of the recorder.
            yield "TENC", _without_filling(body[_ORIGINATOR]), None
            yield "TDRC", _without_filling(body[_ORIGINATION_DATE]), None


def _uncompressed(frame: type[id3.Frame]) -> type[id3.Frame]:
    """Returns the class of an ID3 frame, for mutagen, that is not read if it is compressed.

    mutagen decompresses without a limit: two megabytes can become two gigabytes.
    """

    read: Any = frame._fromData

    def from_data(cls: type[id3.Frame], header: id3.ID3, flags: int, data: bytes) -> id3.Frame:
        if flags & (frame.FLAG24_COMPRESS if header.version >= (2, 4, 0) else frame.FLAG23_COMPRESS):
            raise NotImplementedError
        made: id3.Frame = read.__func__(cls, header, flags, data)
        return made

    # mutagen takes the name of a frame from its class.
    return type(frame.__name__, (frame,), {"_fromData": classmethod(from_data)})


# Version 2.2 has names of three letters, and no compression.
_KNOWN_FRAMES = {
    **{name: _uncompressed(id3.Frames[name]) for name in (*_ID3_FRAMES, "APIC", "TYER", "TDAT", "TIME")},
    **{
        name: frame
        for name, frame in id3.Frames_2_2.items()
        if frame.__bases__[0].__name__ in (*_ID3_FRAMES, "APIC")
    },
    **{name: id3.Frames_2_2[name] for name in ("TYE", "TDA", "TIM")},
}


def _open_id3(body: bytes) -> id3.ID3 | None:
    """Returns the ID3v2 tag of a chunk, in version 2.4; None if it is malformed."""
    try:
        return id3.ID3(io.BytesIO(_thin_out(body)), known_frames=_KNOWN_FRAMES, load_v1=False)
    except (MutagenError, ValueError, EOFError):
        return None


def _thin_out(body: bytes) -> bytes:
    """Returns a tag of its first ID3 frames, without long texts, without an extended header.

    mutagen needs time that grows with the square of the ID3 frames and of the values of a text: minutes for
    a tag of 2 MiB.
    """
    if len(body) < id3_sizes.HEADER_BYTES or body[3] not in _ID3_LAYOUTS:
        return b""
    flags, content = body[5], body[id3_sizes.HEADER_BYTES :]
    is_synchsafe = body[3] == id3_sizes.SYNCHSAFE_VERSION
    if flags & _ID3_UNSYNCHRONISED and not is_synchsafe:
        content = content.replace(b"\xff\0", b"\xff")
        flags ^= _ID3_UNSYNCHRONISED
    if flags & _ID3_EXTENDED:
        # Only the older version does not count the size itself.
        content = content[
            id3_sizes.read_size(content[:4]) if is_synchsafe else 4 + id3_sizes.read_size(content[:4], 8) :
        ]
    readings = [
        list(islice(_split_id3(memoryview(content), body[3], bits), _MAX_ENTRIES))
        for bits in ((id3_sizes.SYNCHSAFE_BITS, 8) if is_synchsafe else (8, id3_sizes.SYNCHSAFE_BITS))
    ]
    # Some programs write the sizes of the other version. Behind a wrong size no ID3 frame is found.
    longest = max(readings, key=lambda reading: reading[-1][0] if reading else 0)
    frames = b"".join(frame for _, frame in longest)
    return body[:5] + bytes([flags & _ID3_UNSYNCHRONISED]) + id3_sizes.make_synchsafe(len(frames)) + frames


def _split_id3(content: memoryview, version: int, bits: int) -> Iterator[tuple[int, memoryview | bytes]]:
    """Yields where each ID3 frame ends, and the ID3 frame if it is short enough.

    `bits` are those in an octet of a size.
    """
    name_bytes, header_bytes = _ID3_LAYOUTS[version]
    position = 0
    while position + header_bytes < len(content):
        name = bytes(content[position : position + name_bytes])
        size = id3_sizes.read_size(bytes(content[position + name_bytes : position + 2 * name_bytes]), bits)
        end = position + header_bytes + size
        # Some programs write the shorter names of version 2.2 into version 2.3.
        if not name.rstrip(b"\0 ").isalnum() or end > len(content):
            return
        frame: memoryview | bytes = content[position:end]
        if size > _MAX_ID3_TEXT_BYTES + (MAX_PICTURE_BYTES if b"PIC" in name else 0):
            frame = b""
        elif bits == id3_sizes.SYNCHSAFE_BITS and version != id3_sizes.SYNCHSAFE_VERSION:
            # mutagen knows the wrong sizes of version 2.4 only.
            frame = name + size.to_bytes(name_bytes, "big") + bytes(frame[2 * name_bytes :])
        yield end, frame
        position = end


def _read_id3(tag: id3.ID3) -> Iterator[tuple[str, str | bytes]]:
    for name in _ID3_FRAMES:
        # A comment without a description comes first. iTunes writes the volume into comments.
        for frame in sorted(tag.getall(name), key=lambda frame: bool(getattr(frame, "desc", ""))):
            if frame.text and not getattr(frame, "desc", "").startswith("iTun"):
                text = str(frame.text[0])
                # Many programs write another code page where the tag says Latin-1.
                is_latin_1 = frame.encoding == id3.Encoding.LATIN1 and not text.isascii()
                yield name, text.encode("latin-1") if is_latin_1 else text


def _find_picture(tags: list[id3.ID3]) -> id3.Frame | None:
    """Returns the front cover, or else the first picture."""
    pictures = [picture for tag in tags for picture in tag.getall("APIC")]
    for picture in sorted(pictures, key=lambda picture: picture.type != _FRONT_COVER):
        said = _MEDIA_TYPES.get(picture.mime.upper(), picture.mime.lower())
        media_type = next(
            (name for start, name in _PICTURE_STARTS.items() if picture.data.startswith(start)), said
        )
        if 0 < len(picture.data) <= MAX_PICTURE_BYTES and _MEDIA_TYPE.fullmatch(media_type):
            return id3.APIC(
                encoding=id3.Encoding.UTF8, mime=media_type, type=_FRONT_COVER, desc="", data=picture.data
            )
    return None


def _read_code_page(cset: bytes) -> str | None:
    # A RIFX has big-endian numbers, and no two code pages have the same bytes in reverse.
    return codec_of(int.from_bytes(cset[:2], "little")) or codec_of(int.from_bytes(cset[:2], "big"))


def _without_filling(raw: bytes) -> bytes:
    return _FILLING.sub(b"", raw)


def _read_info(body: bytes) -> Iterator[tuple[str, bytes]]:
    position = 4
    for _ in range(_MAX_ENTRIES):
        name, size = body[position : position + 4], body[position + 4 : position + 8]
        # A RIFX has big-endian sizes. Below 64 KiB the smaller of both readings is right.
        size_bytes = min(int.from_bytes(size, "little"), int.from_bytes(size, "big"))
        if name in _ID3_FRAMES_OF_INFO:
            yield _ID3_FRAMES_OF_INFO[name], body[position + 8 : position + 8 + size_bytes]
        position += 8 + size_bytes
        # Some writers forget the padding, and others write more NULs than they count.
        if size_bytes % 2 and not body[position : position + 1].isalnum():
            position += 1
        position += len(body) - position - len(body[position:].lstrip(b"\0"))
        if position >= len(body):
            return


def _check_text(name: str, text: str) -> str:
    """Returns the text of an ID3 frame, "" if it is empty or malformed."""
    text = _clean(text)
    if name == "TDRC":
        date = _DATE.match(text)
        return "-".join(filter(None, date.groups())) if date else ""
    if name == "TRCK":
        return text if _TRACK.fullmatch(text) else ""
    return text


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
