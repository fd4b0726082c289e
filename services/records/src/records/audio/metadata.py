"""Keeps what a WAV says about itself: LIST, bext and CSET chunks, and ID3 tags (ID3v2.2 to 2.4)."""

from collections.abc import Generator

from . import id3_sizes
from .errors import quote
from .pieces import Kind, Want, skip

MAX_METADATA_CHUNK_BYTES = 64 * 1024
MAX_METADATA_BYTES = 256 * 1024
# ID3 tags together may have a picture of 2 MiB, and as much text as the other chunks.
MAX_ID3_BYTES = 2 * 1024 * 1024 + 256 * 1024

_METADATA_CHUNKS = (b"LIST", b"bext", b"CSET")
ID3_CHUNKS = (b"id3 ", b"ID3 ")
# Bytes of an ID3 frame's header by version: of its name, of its size and of its flags.
_ID3_FRAME_BYTES = {2: (3, 3, 0), 3: (4, 4, 2), 4: (4, 4, 2)}
_ID3_FRAMES = (b"T", b"COM", b"PIC", b"APIC")


class Metadata:
    """The chunks and ID3 tags so far. It holds at most MAX_METADATA_BYTES and MAX_ID3_BYTES.

    Chunks over MAX_METADATA_CHUNK_BYTES, or over MAX_METADATA_BYTES together, are left out. Of ID3 tags over
    MAX_ID3_BYTES, what does not fit is left out.
    """

    def __init__(self) -> None:
        self.chunks: list[tuple[bytes, bytes]] = []
        """Names and bodies. A body is unchanged; in a RIFX its numbers are big-endian."""
        self._chunk_bytes = 0
        self._id3_bytes = 0

    def take_chunk(self, name: bytes, size: int) -> Generator[Want, bytes, None]:
        """Takes a chunk of any name, or skips it."""
        if name in ID3_CHUNKS and size:
            yield from self.take_id3(size)
            return
        is_small = size <= MAX_METADATA_CHUNK_BYTES and self._chunk_bytes + size <= MAX_METADATA_BYTES
        if name in _METADATA_CHUNKS and size and is_small:
            self.chunks.append((name, (yield Want(Kind.TAKE, size, f"chunk {quote(name)}"))))
            self._chunk_bytes += size
        else:
            yield from skip(size, f"chunk {quote(name)}")

    def take_id3(self, size: int, start: bytes = b"") -> Generator[Want, bytes, None]:
        """Takes an ID3 tag of `size` bytes, of which `start` was taken before."""
        if size <= MAX_ID3_BYTES - self._id3_bytes:
            missing_bytes = size - len(start)
            tag = start + ((yield Want(Kind.TAKE, missing_bytes, "ID3 tag")) if missing_bytes else b"")
        else:
            start = start or (yield Want(Kind.TAKE, id3_sizes.HEADER_BYTES, "ID3 tag"))
            tag = yield from self._take_large_id3(size - len(start), start)
        self.chunks.append((b"id3 ", tag))
        self._id3_bytes += len(tag)

    def _take_large_id3(self, left_bytes: int, start: bytes) -> Generator[Want, bytes, bytes]:
        """Takes the texts and pictures of an ID3 tag that fit, and returns a tag of them."""
        name_bytes, size_bytes, flag_bytes = _ID3_FRAME_BYTES.get(start[3], (0, 0, 0))
        header_bytes = name_bytes + size_bytes + flag_bytes
        kept = bytearray()
        frame_header = start[id3_sizes.HEADER_BYTES :]
        while header_bytes and left_bytes >= header_bytes:
            left_bytes -= header_bytes - len(frame_header)
            frame_header += yield Want(Kind.TAKE, header_bytes - len(frame_header), "ID3 tag")
            name, octets = frame_header[:name_bytes], frame_header[name_bytes : name_bytes + size_bytes]
            size = id3_sizes.read_size(
                octets, id3_sizes.SYNCHSAFE_BITS if start[3] == id3_sizes.SYNCHSAFE_VERSION else 8
            )
            if not name.isalnum() or not 0 < size <= left_bytes:
                break
            left_bytes -= size
            fits = self._id3_bytes + len(kept) + header_bytes + size <= MAX_ID3_BYTES - id3_sizes.HEADER_BYTES
            if fits and name.startswith(_ID3_FRAMES):
                kept += frame_header
                kept += yield Want(Kind.TAKE, size, "ID3 tag")
            else:
                yield from skip(size, "ID3 tag")
            frame_header = b""
        yield from skip(left_bytes, "ID3 tag")
        return start[:6] + id3_sizes.make_synchsafe(len(kept)) + kept if kept else b""
