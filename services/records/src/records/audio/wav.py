"""A WAV file that arrives in pieces: its format first, then its audio, with little else kept.

The layout is that of the "Multimedia Programming Interface and Data Specifications 1.0" (IBM and Microsoft,
1991; RIFF, and RIFX, whose numbers are big-endian) and of EBU Tech 3306 and ITU-R BS.2088 (RF64 and BW64,
whose ds64 chunk holds sizes over 4 GiB). What writers to a pipe leave behind is taken as they mean it: a
`data` size of 0xFFFFFFFF, or of 0 in an unfinished header, runs to the end of the input, and audio that ends
early is complete as far as it goes. Nothing that follows the announced audio can break the recording.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Literal

from .errors import BrokenAudio, UnsupportedAudio
from .formats import MIN_FMT_BYTES, Codec, Format, read_format

MAX_FMT_BYTES = 1024
MAX_CHUNKS = 4096
MAX_BYTES_BEFORE_AUDIO = 64 * 1024 * 1024
MAX_METADATA_CHUNK_BYTES = 64 * 1024
MAX_METADATA_BYTES = 256 * 1024

_RIFF_HEADER_BYTES = 12
_CHUNK_HEADER_BYTES = 8
_DS64_BYTES = 24
_FACT_BYTES = 4
_MAGICS = (b"RIFF", b"RIFX", b"RF64", b"BW64")
_METADATA_CHUNKS = (b"LIST", b"bext", b"id3 ", b"ID3 ")
_UNKNOWN_SIZE = 0xFFFFFFFF
# What SoX writes to a pipe.
_LARGEST_SOX_SIZE = 0x7FFFF000
_ENDLESS = 1 << 63

# How other files begin: offset, bytes, name, and the usual ending of the name for the way out.
_OTHER_FILES = (
    (0, b"riff\x2e\x91\xcf\x11", "Sony Wave64", "w64"),
    (8, b"AIFF", "AIFF", "aiff"),
    (8, b"AIFC", "AIFF-C", "aiff"),
    (8, b"AVI ", "AVI", "avi"),
    (4, b"ftyp", "MP4, M4A or MOV", "m4a"),
    (0, b"ID3", "MP3", "mp3"),
    (0, b"OggS", "Ogg", "ogg"),
    (0, b"fLaC", "FLAC", "flac"),
    (0, b"caff", "Apple CAF", "caf"),
    (0, b".snd", "Sun AU", "au"),
    (0, b"wvpk", "WavPack", "wv"),
    (0, b"MAC ", "Monkey's Audio", "ape"),
    (0, b"#!AMR", "AMR", "amr"),
    (0, b"\x1aE\xdf\xa3", "Matroska or WebM", "webm"),
    (0, b"0&\xb2u", "Windows Media", "wma"),
    (0, b"\xff\xf1", "AAC", "aac"),
    (0, b"\xff\xf9", "AAC", "aac"),
    (0, b"\xff\xe3", "MP3", "mp3"),
    (0, b"\xff\xf2", "MP3", "mp3"),
    (0, b"\xff\xf3", "MP3", "mp3"),
    (0, b"\xff\xfa", "MP3", "mp3"),
    (0, b"\xff\xfb", "MP3", "mp3"),
)


class _Kind(Enum):
    TAKE = auto()
    SKIP = auto()
    AUDIO = auto()


@dataclass(frozen=True, slots=True)
class _Want:
    """What the parser asks of the input next: so many bytes to keep, to pass over or to hand out."""

    kind: _Kind
    size: int
    what: str


class WavParser:
    """Finds format and audio in a WAV that is fed in pieces of any size.

    At most MAX_METADATA_BYTES and one chunk of MAX_METADATA_CHUNK_BYTES are ever held. An exception ends the
    parser: nothing more may be fed to it.
    """

    def __init__(self) -> None:
        self._byte_order: Literal["little", "big"] = "little"
        self._format: Format | None = None
        self._frames: int | None = None
        self._has_found_audio = False
        self._is_truncated = False
        self._metadata: list[tuple[bytes, bytes]] = []
        self._metadata_bytes = 0
        self._fact_frames: int | None = None
        self._ds64_sizes: tuple[int, int] | None = None
        self._held = bytearray()
        self._fed_bytes = 0
        self._steps = self._parse()
        self._want = next(self._steps)

    @property
    def format(self) -> Format:
        """The format, known when the first audio is handed out and after `finish`; a RuntimeError before."""
        if self._format is None:
            raise RuntimeError("the fmt chunk has not been read")
        return self._format

    @property
    def frames(self) -> int | None:
        """How many sample frames the header announces, known with the format; None where it does not say."""
        return self._frames

    @property
    def truncated(self) -> bool:
        """Whether the input ended before the audio that the header announces; known after `finish`."""
        return self._is_truncated

    @property
    def metadata(self) -> list[tuple[bytes, bytes]]:
        """Name and body of the LIST, bext and ID3 chunks that have come so far, before and after the audio.

        The bodies are as they stand in the file, at most MAX_METADATA_CHUNK_BYTES each and MAX_METADATA_BYTES
        in all; what is larger is left out. In a RIFX, where `format.is_big_endian`, so are their numbers.
        """
        return self._metadata

    def feed(self, data: bytes | memoryview) -> Iterator[memoryview]:
        """Yields the audio in `data`, as views of it that may end inside a sample.

        Raises UnsupportedAudio or BrokenAudio as soon as the bytes that show it are there.
        """
        rest = memoryview(data)
        while rest:
            part = rest[: self._want.size - len(self._held)]
            rest = rest[len(part) :]
            self._fed_bytes += len(part)
            if self._want.kind is _Kind.TAKE:
                self._held += part
                if len(self._held) == self._want.size:
                    taken = bytes(self._held)
                    self._held.clear()
                    self._want = self._steps.send(taken)
            else:
                if self._want.kind is _Kind.AUDIO:
                    yield part
                left = self._want.size - len(part)
                self._want = replace(self._want, size=left) if left else next(self._steps)

    def finish(self) -> None:
        """Says that the input has ended; raises BrokenAudio or UnsupportedAudio where no audio was found."""
        if self._has_found_audio:
            self._is_truncated = self._want.kind is _Kind.AUDIO and self._frames is not None
            return
        if self._fed_bytes == 0:
            raise BrokenAudio("The recording is empty: 0 bytes arrived.")
        start = bytes(self._held)
        if self._fed_bytes < _RIFF_HEADER_BYTES and not any(
            start[:4] == magic[: len(start)] for magic in _MAGICS
        ):
            raise _not_a_wav(start)
        if self._format is not None and self._want.what == "chunk header" and not self._held:
            raise BrokenAudio(
                f"The WAV of {self._fed_bytes} bytes has no data chunk, which would hold the audio."
            )
        raise BrokenAudio(
            f"The WAV ends after {self._fed_bytes} bytes, inside its {self._want.what}, before any audio."
        )

    def _parse(self) -> Generator[_Want, bytes, None]:
        riff_header = yield _Want(_Kind.TAKE, _RIFF_HEADER_BYTES, "RIFF header")
        if riff_header[:4] not in _MAGICS or riff_header[8:] != b"WAVE":
            raise _not_a_wav(riff_header)
        if riff_header[:4] == b"RIFX":
            self._byte_order = "big"
        riff_size = self._number(riff_header[4:8])

        for _ in range(MAX_CHUNKS):
            chunk_header = yield _Want(_Kind.TAKE, _CHUNK_HEADER_BYTES, "chunk header")
            name, size = chunk_header[:4], self._number(chunk_header[4:])
            if self._has_found_audio:
                yield from self._take_metadata(name, size)
            elif name == b"data":
                size = yield from self._pass_audio(size, riff_size)
            else:
                yield from self._take_header(name, size)
            yield from _skip(size % 2, "chunk padding")
        if not self._has_found_audio:
            raise BrokenAudio(f"The WAV has {MAX_CHUNKS} chunks and none of them is a data chunk.")
        yield _Want(_Kind.SKIP, _ENDLESS, "rest")

    def _take_header(self, name: bytes, size: int) -> Generator[_Want, bytes, None]:
        """Takes a chunk that stands before the audio."""
        if name == b"fmt ":
            yield from self._take_format(size)
        elif self._fed_bytes + size > MAX_BYTES_BEFORE_AUDIO:
            raise BrokenAudio(
                f"Chunk {_shown(name)} says {size} bytes; "
                f"at most {MAX_BYTES_BEFORE_AUDIO} may come before the audio."
            )
        elif name == b"ds64" and size >= _DS64_BYTES:
            yield from self._take_large_sizes(size)
        elif name == b"fact" and size >= _FACT_BYTES:
            yield from self._take_fact(size)
        else:
            yield from self._take_metadata(name, size)

    def _take_format(self, size: int) -> Generator[_Want, bytes, None]:
        if self._format is not None:
            raise BrokenAudio("The WAV has two fmt chunks, so its format is not certain.")
        if not MIN_FMT_BYTES <= size <= MAX_FMT_BYTES:
            raise BrokenAudio(
                f"The fmt chunk says {size} bytes; {MIN_FMT_BYTES} to {MAX_FMT_BYTES} make sense."
            )
        fmt = yield _Want(_Kind.TAKE, size, "fmt chunk")
        self._format = read_format(fmt, is_big_endian=self._byte_order == "big")

    def _take_large_sizes(self, size: int) -> Generator[_Want, bytes, None]:
        sizes = yield _Want(_Kind.TAKE, _DS64_BYTES, "ds64 chunk")
        self._ds64_sizes = self._number(sizes[:8]), self._number(sizes[8:16])
        yield from _skip(size - _DS64_BYTES, "ds64 chunk")

    def _take_fact(self, size: int) -> Generator[_Want, bytes, None]:
        self._fact_frames = self._number((yield _Want(_Kind.TAKE, _FACT_BYTES, "fact chunk")))
        yield from _skip(size - _FACT_BYTES, "fact chunk")

    def _take_metadata(self, name: bytes, size: int) -> Generator[_Want, bytes, None]:
        is_small = size <= MAX_METADATA_CHUNK_BYTES and self._metadata_bytes + size <= MAX_METADATA_BYTES
        if name in _METADATA_CHUNKS and size and is_small:
            self._metadata.append((name, (yield _Want(_Kind.TAKE, size, f"chunk {_shown(name)}"))))
            self._metadata_bytes += size
        else:
            yield from _skip(size, f"chunk {_shown(name)}")

    def _pass_audio(self, size: int, riff_size: int) -> Generator[_Want, bytes, int]:
        """Hands out the audio and returns how many bytes it has."""
        if self._format is None:
            raise BrokenAudio(
                "The data chunk comes before any fmt chunk, so the format of the audio is not known."
            )
        if self._ds64_sizes:
            riff_size = self._ds64_sizes[0] if riff_size == _UNKNOWN_SIZE else riff_size
            size = self._ds64_sizes[1] if size == _UNKNOWN_SIZE else size
        # A writer that cannot go back leaves an empty file's header; a file that is truly empty and goes on
        # after its data chunk says so in the size of the RIFF chunk.
        is_unfinished = riff_size == _UNKNOWN_SIZE or riff_size + _CHUNK_HEADER_BYTES <= self._fed_bytes
        if size in (_UNKNOWN_SIZE, _LARGEST_SOX_SIZE) or (size == 0 and is_unfinished) or size > _ENDLESS:
            size = _ENDLESS
        else:
            self._frames = _true_frames(self._format, size, self._fact_frames)
        self._has_found_audio = True
        if size:
            yield _Want(_Kind.AUDIO, size, "audio")
        return size

    def _number(self, octets: bytes) -> int:
        return int.from_bytes(octets, self._byte_order)


def _skip(size: int, what: str) -> Generator[_Want, bytes, None]:
    if size:
        yield _Want(_Kind.SKIP, size, what)


def _true_frames(source: Format, audio_bytes: int, fact_frames: int | None) -> int:
    """Returns how many frames the audio has: by its bytes, or by the fact chunk where that can be right.

    A fact chunk may shorten the last block of ADPCM, which is padded; any other number of it is a mistake.
    """
    frames = source.frames(audio_bytes)
    if source.codec in (Codec.IMA_ADPCM, Codec.MS_ADPCM) and fact_frames is not None:
        least = source.frames(max(0, audio_bytes - source.block_bytes))
        if least < fact_frames < frames:
            return fact_frames
    return frames


def _not_a_wav(start: bytes) -> UnsupportedAudio:
    for offset, mark, name, ending in _OTHER_FILES:
        if start.startswith(mark, offset):
            return UnsupportedAudio(
                f"This is {name}, which is not supported; send a WAV. "
                f"Convert it with: ffmpeg -i in.{ending} -c:a pcm_s16le out.wav"
            )
    return UnsupportedAudio(
        f"This is not a WAV: it starts with {_shown(start)}, not with 'RIFF', a size and 'WAVE'. "
        "Convert it with: ffmpeg -i in -c:a pcm_s16le out.wav"
    )


def _shown(name: bytes) -> str:
    """Returns bytes of the sender's as quoted ASCII, whatever they are."""
    return ascii(name.decode("latin-1"))
