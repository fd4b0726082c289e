"""Parses a WAV file that arrives in pieces: first its format, then its audio, and some metadata.

Sources: "Multimedia Programming Interface and Data Specifications 1.0" (IBM and Microsoft, 1991) for RIFF,
and for RIFX, whose numbers are big-endian; EBU Tech 3306 and ITU-R BS.2088 for RF64 and BW64, whose ds64
chunk holds sizes over 4 GiB. The parser understands the headers that writers to a pipe leave behind: audio of
the size 0xFFFFFFFF, or of the size 0 in an unfinished header, runs to the end of the input. Audio that ends
early is taken as far as it goes. Nothing that follows the announced audio can break the recording.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Literal

from .errors import WRITE_AGAIN, BrokenAudio, UnsupportedAudio
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
# SoX writes this size to a pipe.
_SOX_UNKNOWN_SIZE = 0x7FFFF000
_ENDLESS = 1 << 63

_SEND_WHOLE = "Send the whole WAV."
_COPY = "Copy its audio with: ffmpeg -i in.wav -map_metadata -1 -c copy out.wav"

# How files of other formats start: offset, bytes, name of the format, and its usual file name extension.
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
    """What the parser asks of the input next: so many bytes to take, to skip, or to hand out as audio."""

    kind: _Kind
    size: int
    what: str
    """The name of these bytes in an error message."""


class WavParser:
    """Finds the format and the audio of a WAV that is fed in pieces of any size.

    It holds at most MAX_METADATA_BYTES and one chunk of MAX_METADATA_CHUNK_BYTES. After an exception nothing
    more may be fed to it.
    """

    def __init__(self) -> None:
        self._byte_order: Literal["little", "big"] = "little"
        self._format: Format | None = None
        self._announced_sample_frames: int | None = None
        self._has_found_audio = False
        self._is_truncated = False
        self._metadata: list[tuple[bytes, bytes]] = []
        self._metadata_bytes = 0
        self._fact_sample_frames: int | None = None
        self._ds64_sizes: tuple[int, int] | None = None
        self._held = bytearray()
        self._fed_bytes = 0
        self._steps = self._parse()
        self._want = next(self._steps)

    @property
    def format(self) -> Format:
        """The format, known with the first audio and after `finish`; raises RuntimeError before."""
        if self._format is None:
            raise RuntimeError("the fmt chunk has not been read")
        return self._format

    @property
    def announced_sample_frames(self) -> int | None:
        """How many sample frames the header announces, if any; known with the first audio."""
        return self._announced_sample_frames

    @property
    def truncated(self) -> bool:
        """Whether the input ended before the announced audio did; known after `finish`."""
        return self._is_truncated

    @property
    def metadata(self) -> list[tuple[bytes, bytes]]:
        """Names and bodies of the LIST, bext and ID3 chunks so far, before and after the audio.

        A body is unchanged; in a RIFX its numbers are big-endian. Chunks over MAX_METADATA_CHUNK_BYTES, or
        over MAX_METADATA_BYTES together, are left out.
        """
        return self._metadata

    def feed(self, data: bytes | memoryview) -> Iterator[memoryview]:
        """Yields the audio in `data`, as views of it, which may end inside a sample.

        Raises UnsupportedAudio or BrokenAudio as soon as the reason has arrived.
        """
        rest = memoryview(data)
        while rest:
            wanted = rest[: self._want.size - len(self._held)]
            rest = rest[len(wanted) :]
            self._fed_bytes += len(wanted)
            if self._want.kind is _Kind.TAKE:
                self._held += wanted
                if len(self._held) == self._want.size:
                    taken = bytes(self._held)
                    self._held.clear()
                    self._want = self._steps.send(taken)
            else:
                if self._want.kind is _Kind.AUDIO:
                    yield wanted
                left = self._want.size - len(wanted)
                self._want = replace(self._want, size=left) if left else next(self._steps)

    def finish(self) -> None:
        """Says that the input has ended. Raises BrokenAudio or UnsupportedAudio if no audio was found."""
        if self._has_found_audio:
            is_inside_audio = self._want.kind is _Kind.AUDIO
            self._is_truncated = is_inside_audio and self._announced_sample_frames is not None
            return
        if self._fed_bytes == 0:
            raise BrokenAudio("The recording is empty: 0 bytes arrived. Send a WAV.")
        start = bytes(self._held)
        if self._fed_bytes < _RIFF_HEADER_BYTES and not any(
            start[:4] == magic[: len(start)] for magic in _MAGICS
        ):
            raise _not_a_wav(start)
        if self._format is not None and self._want.what == "chunk header" and not self._held:
            raise BrokenAudio(
                f"The WAV of {self._fed_bytes} bytes has no data chunk, which would hold the audio. "
                f"{_SEND_WHOLE}"
            )
        raise BrokenAudio(
            f"The WAV ends after {self._fed_bytes} bytes, inside its {self._want.what}, before any audio. "
            f"{_SEND_WHOLE}"
        )

    def close(self) -> None:
        """Cuts the reference cycle of the parser and its generator, so that memory does not wait for Python's
        cycle collector.
        """
        self._steps.close()

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
            raise BrokenAudio(
                f"The WAV has no data chunk among its first {MAX_CHUNKS} chunks; no more are read. {_COPY}"
            )
        yield _Want(_Kind.SKIP, _ENDLESS, "rest")

    def _take_header(self, name: bytes, size: int) -> Generator[_Want, bytes, None]:
        """Takes or skips a chunk before the audio."""
        if name == b"fmt ":
            yield from self._take_format(size)
        elif self._fed_bytes + size > MAX_BYTES_BEFORE_AUDIO:
            raise BrokenAudio(
                f"Chunk {_quote(name)} says {size} bytes; "
                f"at most {MAX_BYTES_BEFORE_AUDIO} may come before the audio. {_COPY}"
            )
        elif name == b"ds64" and size >= _DS64_BYTES:
            yield from self._take_large_sizes(size)
        elif name == b"fact" and size >= _FACT_BYTES:
            yield from self._take_fact(size)
        else:
            yield from self._take_metadata(name, size)

    def _take_format(self, size: int) -> Generator[_Want, bytes, None]:
        if self._format is not None:
            raise BrokenAudio(
                "The WAV has two fmt chunks before its audio, so its format is not certain; one is allowed. "
                f"{WRITE_AGAIN}"
            )
        if not MIN_FMT_BYTES <= size <= MAX_FMT_BYTES:
            raise BrokenAudio(
                f"The fmt chunk says {size} bytes; {MIN_FMT_BYTES} to {MAX_FMT_BYTES} are allowed. "
                f"{WRITE_AGAIN}"
            )
        fmt = yield _Want(_Kind.TAKE, size, "fmt chunk")
        self._format = read_format(fmt, is_big_endian=self._byte_order == "big")

    def _take_large_sizes(self, size: int) -> Generator[_Want, bytes, None]:
        sizes = yield _Want(_Kind.TAKE, _DS64_BYTES, "ds64 chunk")
        self._ds64_sizes = self._number(sizes[:8]), self._number(sizes[8:16])
        yield from _skip(size - _DS64_BYTES, "ds64 chunk")

    def _take_fact(self, size: int) -> Generator[_Want, bytes, None]:
        self._fact_sample_frames = self._number((yield _Want(_Kind.TAKE, _FACT_BYTES, "fact chunk")))
        yield from _skip(size - _FACT_BYTES, "fact chunk")

    def _take_metadata(self, name: bytes, size: int) -> Generator[_Want, bytes, None]:
        is_small = size <= MAX_METADATA_CHUNK_BYTES and self._metadata_bytes + size <= MAX_METADATA_BYTES
        if name in _METADATA_CHUNKS and size and is_small:
            self._metadata.append((name, (yield _Want(_Kind.TAKE, size, f"chunk {_quote(name)}"))))
            self._metadata_bytes += size
        else:
            yield from _skip(size, f"chunk {_quote(name)}")

    def _pass_audio(self, size: int, riff_size: int) -> Generator[_Want, bytes, int]:
        """Hands out the audio, and returns how many bytes it has."""
        if self._format is None:
            raise BrokenAudio(
                "The data chunk comes before any fmt chunk, so the format of the audio is not known; "
                f"the fmt chunk must come first. {WRITE_AGAIN}"
            )
        if self._ds64_sizes:
            riff_size = self._ds64_sizes[0] if riff_size == _UNKNOWN_SIZE else riff_size
            size = self._ds64_sizes[1] if size == _UNKNOWN_SIZE else size
        # A data chunk of the size 0 has two meanings. A writer to a pipe cannot go back, so it leaves the
        # sizes of an empty file. A file without audio but with more chunks has a RIFF chunk that goes on.
        is_unfinished = riff_size == _UNKNOWN_SIZE or riff_size + _CHUNK_HEADER_BYTES <= self._fed_bytes
        if size in (_UNKNOWN_SIZE, _SOX_UNKNOWN_SIZE) or (size == 0 and is_unfinished) or size > _ENDLESS:
            size = _ENDLESS
        else:
            self._announced_sample_frames = _count_sample_frames(self._format, size, self._fact_sample_frames)
        self._has_found_audio = True
        if size:
            yield _Want(_Kind.AUDIO, size, "audio")
        return size

    def _number(self, octets: bytes) -> int:
        return int.from_bytes(octets, self._byte_order)


def _skip(size: int, what: str) -> Generator[_Want, bytes, None]:
    if size:
        yield _Want(_Kind.SKIP, size, what)


def _count_sample_frames(source: Format, audio_bytes: int, fact_sample_frames: int | None) -> int:
    """Returns how many sample frames the audio has, by its bytes or by the fact chunk.

    The fact chunk counts only if it shortens the last ADPCM block, which is padded. Otherwise it is wrong.
    """
    sample_frames = source.sample_frames(audio_bytes)
    if source.codec in (Codec.IMA_ADPCM, Codec.MS_ADPCM) and fact_sample_frames is not None:
        before_last_block = source.sample_frames(max(0, audio_bytes - source.block_align_bytes))
        if before_last_block < fact_sample_frames < sample_frames:
            return fact_sample_frames
    return sample_frames


def _not_a_wav(start: bytes) -> UnsupportedAudio:
    for offset, mark, name, extension in _OTHER_FILES:
        if start.startswith(mark, offset):
            return UnsupportedAudio(
                f"This is {name}, which is not supported; send a WAV. "
                f"Convert it with: ffmpeg -i in.{extension} -c:a pcm_s16le out.wav"
            )
    return UnsupportedAudio(
        f"This is not a WAV: it starts with {_quote(start)}, not with 'RIFF', a size and 'WAVE'. "
        "Convert it with: ffmpeg -i in -c:a pcm_s16le out.wav"
    )


def _quote(name: bytes) -> str:
    """Returns any bytes of the file as quoted ASCII."""
    return ascii(name.decode("latin-1"))
