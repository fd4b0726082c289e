"""Parses a WAV file that arrives in pieces: first its format, then its audio, and some metadata.

Sources: "Multimedia Programming Interface and Data Specifications 1.0" (IBM and Microsoft, 1991) for RIFF,
and for RIFX, whose numbers are big-endian; EBU Tech 3306 and ITU-R BS.2088 for RF64 and BW64, whose ds64
chunk holds sizes over 4 GiB. The parser understands unfinished headers: if a size cannot be right, the audio
goes on until a chunk follows, or to the end of the input. A size that is too large does not turn the chunks
behind the audio into audio. Audio that ends early is taken as far as it goes.
The audio of further data chunks, and of further WAVs behind the first, goes on if it has the same format.
Garbage behind the audio cannot break the recording.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Literal

from . import id3_sizes, other_files, sent_as_text
from .chunk_search import ID3_STARTS, KNOWN_CHUNKS, RIFF_NAMES
from .errors import WRITE_AGAIN, BrokenAudio, UnsupportedAudio, quote
from .formats import ADPCM_HEAD_BYTES, MIN_FMT_BYTES, Format, read_format
from .metadata import ID3_CHUNKS, MAX_ID3_BYTES, MAX_METADATA_CHUNK_BYTES, Metadata
from .pieces import Kind, PieceReader, Want, skip

MAX_FMT_BYTES = 1024
MAX_CHUNKS = 4096
# Behind the first audio, so many bytes allow one chunk more. Some writers put a data chunk every few seconds.
BYTES_PER_FURTHER_CHUNK = 256
MAX_BYTES_BEFORE_AUDIO = 64 * 1024 * 1024

_RIFF_HEADER_BYTES = 12
_CHUNK_HEADER_BYTES = 8
_DS64_BYTES = 24
_FACT_BYTES = 4
# Scripts write a line break or the byte order mark of UTF-8 in front of the bytes that they send.
_LEADING_BYTES = b"\r\n\xef\xbb\xbf"
# Writers to a pipe put this size, which is SoX's, or a larger one.
_MIN_UNKNOWN_SIZE = 0x7FFFF000
# Writers that never come back leave 0, or about the size of a plain header. More was written afterwards.
_MAX_PLACEHOLDER_BYTES = 44
# So many bytes in front of the end of the audio may be chunks, because the size counts these too.
_WATCHED_BYTES = MAX_ID3_BYTES
# What such bytes are by themselves, by the first four bytes behind the header.
_CERTAIN_CHUNKS = {
    b"LIST": (b"INFO", b"adtl"),
    **dict.fromkeys(ID3_CHUNKS, ID3_STARTS),
    **dict.fromkeys(RIFF_NAMES, (b"WAVE",)),
}
# Each bit of audio that looks like a chunk costs work. After so many the audio is no longer watched.
_MAX_FALSE_CHUNKS = 1024
_ENDLESS = 1 << 63
_NAME_BYTES = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_ "

_SEND_WHOLE = "Send the whole WAV."
_ONE_FORMAT = "Send the audio of each format as a WAV of its own."
_COPY = "Copy its audio with: ffmpeg -i in.wav -map_metadata -1 -c copy out.wav"
_IGNORE_SIZES = "Convert it with: ffmpeg -ignore_length 1 -i in.wav -c:a pcm_s16le out.wav"


@dataclass(frozen=True, slots=True)
class DataChunk:
    """A data chunk whose audio is handed out. It begins with a whole sample frame or ADPCM block."""

    number: int
    announced_sample_frames: int | None = None
    """How many sample frames the header announces; None if its sizes cannot be right."""


class WavParser:
    """Finds the format and the audio of a WAV that is fed in pieces of any size.

    It holds Metadata, and one chunk or ID3 frame besides. After an exception nothing more may be fed to it.
    """

    def __init__(self) -> None:
        self._byte_order: Literal["little", "big"] = "little"
        self._format: Format | None = None
        # Where the next audio's WAV or fmt chunk begins, and whether its format is another one.
        self._further_start: int | None = None
        self._has_other_format = False
        self._data_chunk: DataChunk | None = None
        self._audio_start = 0
        self._expected_bytes = 0
        self._is_truncated = False
        self._false_chunks = 0
        self._metadata = Metadata()
        self._leading_id3 = b""
        self._fact_sample_frames: int | None = None
        self._ds64_audio_bytes = 0
        self._riff_start = 0
        self._riff_end = 0
        self._reader = PieceReader(self._parse())

    @property
    def format(self) -> Format:
        """The format, known with the first audio and after `finish`; raises RuntimeError before."""
        if self._format is None:
            raise RuntimeError("the fmt chunk has not been read")
        return self._format

    @property
    def data_chunk(self) -> DataChunk:
        """The data chunk of the audio that `feed` yielded last, or else the last one that was found.

        It is known with the first audio and after `finish`; raises RuntimeError before.
        """
        if self._data_chunk is None:
            raise RuntimeError("no data chunk has been read")
        return self._data_chunk

    @property
    def truncated(self) -> bool:
        """Whether a sample frame or more of the announced audio is missing; known after `finish`."""
        return self._is_truncated

    @property
    def metadata(self) -> list[tuple[bytes, bytes]]:
        """Names and bodies of the chunks that Metadata keeps, so far, before and after the audio.

        An ID3 tag in front of the WAV counts as a chunk.
        """
        return self._metadata.chunks

    def feed(self, data: bytes | memoryview) -> Iterator[memoryview]:
        """Yields the audio in `data`, as views of it, which may end inside a sample.

        Raises UnsupportedAudio or BrokenAudio as soon as the reason has arrived.
        """
        try:
            yield from self._reader.feed(memoryview(data))
        except (BrokenAudio, UnsupportedAudio) as refusal:
            raise self._explain(refusal) from None

    def _explain(self, refusal: BrokenAudio | UnsupportedAudio) -> BrokenAudio | UnsupportedAudio:
        """Returns the refusal, or another one if the WAV cannot be read because it was sent as text."""
        start = bytes(self._reader.copy)
        is_text = start and not self._data_chunk and sent_as_text.is_in_header(start)
        return sent_as_text.make_refusal() if is_text else refusal

    def finish(self) -> Iterator[memoryview]:
        """Says that the input has ended, and yields the last audio, if it could have been a chunk until then.

        Raises BrokenAudio or UnsupportedAudio if no audio was found, or if its size has the wrong unit.
        """
        try:
            yield from self._reader.finish()
            self._check_end()
        except (BrokenAudio, UnsupportedAudio) as refusal:
            raise self._explain(refusal) from None

    def _check_end(self) -> None:
        """Raises BrokenAudio or UnsupportedAudio if the input has ended without audio."""
        held, what = bytes(self._reader.held), self._reader.want.what
        if self._data_chunk:
            self._finish_audio()
            if held.startswith(b"ID3") and what == "ID3 tag":
                # Its chunk says more bytes than follow.
                self.metadata.append((b"id3 ", held))
            return
        if self._reader.position == 0:
            raise BrokenAudio("The recording is empty: 0 bytes arrived. Send a WAV.")
        if self._leading_id3 and not self._riff_end:
            raise other_files.make_refusal(self._leading_id3)
        if self._reader.position < _RIFF_HEADER_BYTES and not any(
            held[:4] == name[: len(held)] for name in RIFF_NAMES
        ):
            raise other_files.make_refusal(held)
        if self._format is not None and what == "chunk header" and not held:
            raise BrokenAudio(
                f"The WAV of {self._reader.position} bytes has no data chunk, which would hold the audio. "
                f"{_SEND_WHOLE}"
            )
        raise BrokenAudio(
            f"The WAV ends after {self._reader.position} bytes, inside its {what}, before any audio. "
            f"{_SEND_WHOLE}"
        )

    def _finish_audio(self) -> None:
        """Finds out whether the size of the last audio is wrong, now that the input has ended."""
        size, arrived_bytes = self._expected_bytes, self._reader.position - self._audio_start
        if arrived_bytes < size:
            wav_bytes = self._reader.position - self._riff_start
            # Where the RIFF size says that nothing is missing, the size of the audio counts its chunk's
            # header, the WAV's header, or all but the first eight bytes of the latter.
            is_whole = self._riff_end - self._reader.position in (0, _CHUNK_HEADER_BYTES)
            counted = (arrived_bytes + _CHUNK_HEADER_BYTES, wav_bytes, wav_bytes - _CHUNK_HEADER_BYTES)
            self._is_truncated |= self._is_missing(arrived_bytes) and not (is_whole and size in counted)

    def _is_missing(self, arrived_bytes: int) -> bool:
        """Returns whether a sample frame or more of the last audio is missing."""
        announced = _count_sample_frames(self.format, self._expected_bytes, self._fact_sample_frames)
        return self.format.sample_frames(arrived_bytes) < announced

    def close(self) -> None:
        """Cuts the reference cycle of the parser and its generator, so that memory does not wait for Python's
        cycle collector, and forgets the metadata.
        """
        self._reader.close()
        self._metadata = Metadata()

    def _parse(self) -> Generator[Want, bytes, None]:
        start = yield Want(Kind.TAKE, _RIFF_HEADER_BYTES, "RIFF header")
        riff_header = yield from self._take_riff_header(start)
        if riff_header[:4] in RIFF_NAMES:
            self._reader.copy += riff_header
        if riff_header[:4] not in RIFF_NAMES or riff_header[8:] != b"WAVE":
            raise other_files.make_refusal(riff_header, self._leading_id3)
        self._begin_riff(riff_header)

        chunks = 0
        while chunks < MAX_CHUNKS + (
            self._reader.position // BYTES_PER_FURTHER_CHUNK if self._data_chunk else 0
        ):
            yield from self._take_chunk((yield Want(Kind.TAKE, _CHUNK_HEADER_BYTES, "chunk header")))
            chunks += 1
        if not self._data_chunk:
            raise BrokenAudio(
                f"The WAV has no data chunk among its first {MAX_CHUNKS} chunks; no more are read. "
                f"{self._offer_copy()}"
            )
        yield Want(Kind.SKIP, _ENDLESS, "rest")

    def _take_riff_header(self, start: bytes) -> Generator[Want, bytes, bytes]:
        """Takes a RIFF header, and what may stand in front of it, of which `start` was taken before.

        These are line breaks, byte order marks, ID3 tags, and the padding of an ID3 tag.
        """
        is_behind_id3 = False
        for _ in range(MAX_CHUNKS):
            if start[:3] == b"ID3":
                is_behind_id3 = True
                start = yield from self._take_leading_id3(start)
                continue
            rest = start.lstrip(_LEADING_BYTES + b"\0" if is_behind_id3 else _LEADING_BYTES)
            if rest == start or not (is_behind_id3 or rest.startswith((b"ID3", *RIFF_NAMES))):
                break
            start = rest + (yield Want(Kind.TAKE, _RIFF_HEADER_BYTES - len(rest), "RIFF header"))
        return start

    def _take_leading_id3(self, start: bytes) -> Generator[Want, bytes, bytes]:
        """Takes an ID3 tag in front of the WAV, and returns the RIFF header behind it."""
        size = id3_sizes.read_tag_bytes(start)
        if not self._data_chunk:
            self._leading_id3 = self._leading_id3 or start
            if size > MAX_BYTES_BEFORE_AUDIO:
                raise other_files.make_refusal(start)
        if size >= len(start):
            yield from self._metadata.take_id3(size, start)
        rest = start[size:]
        return rest + (yield Want(Kind.TAKE, _RIFF_HEADER_BYTES - len(rest), "RIFF header"))

    def _begin_riff(self, riff_header: bytes) -> None:
        self._byte_order = "big" if riff_header[:4] == b"RIFX" else "little"
        size = self._number(riff_header[4:8])
        self._riff_start = self._reader.position - _RIFF_HEADER_BYTES
        is_unknown = size >= _MIN_UNKNOWN_SIZE
        self._riff_end = _ENDLESS if is_unknown else self._riff_start + _CHUNK_HEADER_BYTES + size
        self._fact_sample_frames, self._ds64_audio_bytes = None, 0
        if self._data_chunk:
            self._further_start = self._riff_start

    def _take_chunk(self, header: bytes) -> Generator[Want, bytes, None]:
        name, size = header[:4], self._number(header[4:])
        if name == b"data":
            yield from self._pass_audio(size)
            return
        if name in ID3_STARTS and self._data_chunk:
            start = header + (yield Want(Kind.TAKE, _RIFF_HEADER_BYTES - _CHUNK_HEADER_BYTES, "RIFF header"))
            self._reader.give_back((yield from self._take_riff_header(start)))
            return
        if name in RIFF_NAMES:
            # One WAV stands behind, or inside, another.
            form = yield Want(Kind.TAKE, _RIFF_HEADER_BYTES - _CHUNK_HEADER_BYTES, "RIFF header")
            if form == b"WAVE":
                self._begin_riff(header + form)
                return
            size = max(0, size - len(form))
        if not self._data_chunk and name != b"fmt " and self._reader.position + size > MAX_BYTES_BEFORE_AUDIO:
            raise BrokenAudio(
                f"Chunk {quote(name)} says {size} bytes; "
                f"at most {MAX_BYTES_BEFORE_AUDIO} may come before the audio. {self._offer_copy()}"
            )
        if name == b"fmt ":
            yield from self._take_further_format(size) if self._data_chunk else self._take_format(size)
        elif name == b"ds64" and size >= _DS64_BYTES:
            yield from self._take_large_sizes(size)
        elif name == b"fact" and size >= _FACT_BYTES:
            yield from self._take_fact(size)
        else:
            yield from self._metadata.take_chunk(name, size)
        yield from self._take_padding(size)

    def _take_padding(self, size: int) -> Generator[Want, bytes, None]:
        """Takes the padding of a chunk, unless the writer forgot it and the next chunk begins there."""
        if size % 2:
            octet = yield Want(Kind.TAKE, 1, "chunk padding")
            self._reader.give_back(octet if octet.isalnum() else b"")

    def _take_format(self, size: int) -> Generator[Want, bytes, None]:
        if not MIN_FMT_BYTES <= size <= MAX_FMT_BYTES:
            raise BrokenAudio(
                f"The fmt chunk says {size} bytes; {MIN_FMT_BYTES} to {MAX_FMT_BYTES} are allowed. "
                f"{WRITE_AGAIN}"
            )
        fmt = yield Want(Kind.TAKE, size, "fmt chunk")
        source = read_format(fmt, is_big_endian=self._byte_order == "big")
        if self._format not in (None, source):
            raise BrokenAudio(
                "The WAV has two fmt chunks before its audio that differ, so its format is not certain. "
                f"{WRITE_AGAIN}"
            )
        self._format = source

    def _take_further_format(self, size: int) -> Generator[Want, bytes, None]:
        """Takes a fmt chunk behind audio. It matters only if more audio follows."""
        if self._further_start is None:
            self._further_start = self._reader.position - _CHUNK_HEADER_BYTES
        if not MIN_FMT_BYTES <= size <= MAX_FMT_BYTES:
            self._has_other_format = True
            yield from skip(size, "fmt chunk")
            return
        fmt = yield Want(Kind.TAKE, size, "fmt chunk")
        try:
            source = read_format(fmt, is_big_endian=self._byte_order == "big")
        except (BrokenAudio, UnsupportedAudio):
            self._has_other_format = True
        else:
            self._has_other_format = source != self._format

    def _take_large_sizes(self, size: int) -> Generator[Want, bytes, None]:
        sizes = yield Want(Kind.TAKE, _DS64_BYTES, "ds64 chunk")
        riff_bytes, self._ds64_audio_bytes = self._number(sizes[:8]), self._number(sizes[8:16])
        riff_body_start = self._riff_start + _CHUNK_HEADER_BYTES
        if _is_large_size(riff_bytes, self._riff_end - riff_body_start):
            self._riff_end = min(riff_body_start + riff_bytes, _ENDLESS)
        yield from skip(size - _DS64_BYTES, "ds64 chunk")

    def _take_fact(self, size: int) -> Generator[Want, bytes, None]:
        self._fact_sample_frames = self._number((yield Want(Kind.TAKE, _FACT_BYTES, "fact chunk")))
        yield from skip(size - _FACT_BYTES, "fact chunk")

    def _pass_audio(self, size: int) -> Generator[Want, bytes, None]:
        """Hands out the audio of a data chunk."""
        if self._format is None:
            raise BrokenAudio(
                "The data chunk comes before any fmt chunk, so the format of the audio is not known; "
                f"the fmt chunk must come first. {WRITE_AGAIN}"
            )
        if self._has_other_format:
            raise BrokenAudio(
                f"At byte {self._further_start} the WAV goes on with audio of another format; "
                f"all its audio must have one format. {_ONE_FORMAT}"
            )
        start = self._reader.position
        is_known = 0 < size < _MIN_UNKNOWN_SIZE
        if _is_large_size(self._ds64_audio_bytes, size):
            size, is_known = self._ds64_audio_bytes, True
        self._ds64_audio_bytes = 0
        is_inside = start + size <= self._riff_end
        is_believed = is_known and (is_inside or size > _MAX_PLACEHOLDER_BYTES)
        announced = _count_sample_frames(self._format, size, self._fact_sample_frames)
        number = self._data_chunk.number + 1 if self._data_chunk else 1
        self._data_chunk = DataChunk(number, announced if is_known and is_inside else None)
        self._audio_start = start
        self._expected_bytes = size if is_believed or size < _MIN_UNKNOWN_SIZE else 0
        self._further_start = None
        if is_believed:
            yield from self._pass_announced_audio(start + size)
        else:
            yield from self._pass_unannounced_audio(size)

    def _pass_announced_audio(self, end: int) -> Generator[Want, bytes, None]:
        """Hands out audio up to the byte `end`, or up to a chunk that the size counts, too."""
        if (yield from self._pass_audio_up_to(end)):
            return
        yield from self._take_padding(end - self._audio_start)
        header = yield Want(Kind.PEEK, _CHUNK_HEADER_BYTES, "chunk header")
        self._reader.give_back(header)
        if header and not self._may_be_chunk(header) and self.data_chunk.number == 1:
            yield from self._check_unit(end - self._audio_start)

    def _check_unit(self, size: int) -> Generator[Want, bytes, None]:
        """Raises BrokenAudio if the audio ends where its size says, taken as samples or sample frames."""
        source = self.format
        if size <= _MAX_PLACEHOLDER_BYTES or source.codec in ADPCM_HEAD_BYTES:
            return
        for unit_bytes in sorted({source.sample_bytes, source.channels, source.block_align_bytes} - {1}):
            yield from skip(self._audio_start + unit_bytes * size - self._reader.position, "garbage")
            behind = yield Want(Kind.PEEK, _CHUNK_HEADER_BYTES, "garbage")
            name = behind[unit_bytes * size % 2 if behind[:1] == b"\0" else 0 :][:4]
            self._reader.give_back(behind)
            if not name or name == b"data" or name in KNOWN_CHUNKS:
                raise BrokenAudio(
                    f"The data chunk says {size} bytes, but has {unit_bytes} times as many; "
                    "its size must be in bytes, not in samples or sample frames. "
                    f"{source.offer(_IGNORE_SIZES, WRITE_AGAIN)}"
                )

    def _pass_unannounced_audio(self, size: int) -> Generator[Want, bytes, None]:
        """Hands out audio whose `size` cannot be right.

        It ends in front of a chunk, where the RIFF size says, or with the input.
        """
        if size < _MIN_UNKNOWN_SIZE:
            if size:
                yield Want(Kind.AUDIO, size, "audio")
            taken = yield Want(Kind.PEEK, _CHUNK_HEADER_BYTES + size % 2, "chunk header")
            header = taken.removeprefix(b"\0") if size % 2 else taken
            is_chunk = not header or (len(header) >= _CHUNK_HEADER_BYTES and self._may_be_chunk(header))
            self._reader.give_back(header if is_chunk else taken)
            if is_chunk:
                return
            self._expected_bytes = 0
        yield from self._pass_audio_up_to(self._riff_end if self._is_riff_end_known() else _ENDLESS)

    def _is_riff_end_known(self) -> bool:
        """Returns whether the RIFF size was written after the audio."""
        return self._audio_start + _MAX_PLACEHOLDER_BYTES < self._riff_end < _ENDLESS

    def _pass_audio_up_to(self, end: int) -> Generator[Want, bytes, bool]:
        """Hands out audio up to the byte `end`, or up to a chunk before it. Returns whether there was one."""
        last = min(end, self._riff_end) if self._is_riff_end_known() else end
        unwatched_bytes = last - _WATCHED_BYTES - self._reader.position if last < _ENDLESS else 0
        if unwatched_bytes > 0:
            yield Want(Kind.AUDIO, unwatched_bytes, "audio")
        while self._reader.position < end:
            is_watched = self._false_chunks < _MAX_FALSE_CHUNKS
            yield Want(Kind.WATCHED_AUDIO if is_watched else Kind.AUDIO, end - self._reader.position, "audio")
            if self._reader.position < end:
                name = yield from self._find_chunk()
                if name:
                    if name in (*RIFF_NAMES, *ID3_STARTS) and self._reader.position != self._riff_end:
                        self._is_truncated |= self._is_missing(self._reader.position - self._audio_start)
                    self._expected_bytes = 0
                    return True
                yield Want(Kind.AUDIO, 1, "audio")
        return False

    def _find_chunk(self) -> Generator[Want, bytes, bytes]:
        """Returns the name of the chunk that begins here, b"" if it is not certain that it is one.

        Music may contain the name of a chunk, but hardly also what such a chunk begins with, or a size that
        ends exactly where another known chunk begins, or the RIFF chunk or the input ends.
        """
        start = self._reader.position
        taken = yield Want(Kind.PEEK, _RIFF_HEADER_BYTES, "audio")
        name, size = taken[:4], self._number(taken[4:_CHUNK_HEADER_BYTES])
        if name not in KNOWN_CHUNKS:
            self._reader.give_back(taken)
            return b""
        is_certain = taken[_CHUNK_HEADER_BYTES:] in _CERTAIN_CHUNKS.get(name, ()) or _is_id3(taken)
        has_size = len(taken) >= _CHUNK_HEADER_BYTES and name not in ID3_STARTS
        if not is_certain and has_size and size <= MAX_METADATA_CHUNK_BYTES:
            # The padding may be missing.
            ends = (_CHUNK_HEADER_BYTES + size, _CHUNK_HEADER_BYTES + size + size % 2)
            if _RIFF_HEADER_BYTES == len(taken) < ends[1] + len(name):
                taken += yield Want(Kind.PEEK, ends[1] + len(name) - len(taken), "audio")
            is_certain = any(
                end in (len(taken), self._riff_end - start) or taken[end : end + len(name)] in KNOWN_CHUNKS
                for end in ends
            )
        self._reader.give_back(taken)
        self._false_chunks += not is_certain
        return name if is_certain else b""

    def _offer_copy(self) -> str:
        if self._format:
            return self._format.offer(_COPY, WRITE_AGAIN)
        return _COPY if self._byte_order == "little" else WRITE_AGAIN

    def _may_be_chunk(self, header: bytes) -> bool:
        """Returns whether these bytes, at most eight, begin like a chunk, as hardly any audio does."""
        name, size = header[:4], self._number(header[4:])
        is_large = size > MAX_BYTES_BEFORE_AUDIO and name not in (b"data", *RIFF_NAMES)
        return name in ID3_STARTS or (not name.strip(_NAME_BYTES) and not is_large)

    def _number(self, octets: bytes) -> int:
        return int.from_bytes(octets, self._byte_order)


def _is_id3(start: bytes) -> bool:
    """Returns whether an ID3 tag and the name of its first ID3 frame begin with these twelve bytes."""
    has_sizes = len(start) == _RIFF_HEADER_BYTES and start[4] == 0 and max(start[6:10]) < 0x80  # noqa: PLR2004
    return start[:4] in ID3_STARTS and has_sizes and start[id3_sizes.HEADER_BYTES :].isupper()


def _is_large_size(ds64_size: int, size: int) -> bool:
    """Returns whether the ds64 chunk has the true size: `size` is unknown, or the lower 32 bits of it."""
    is_unknown = not _MAX_PLACEHOLDER_BYTES < size < _MIN_UNKNOWN_SIZE
    return 0 < ds64_size < _ENDLESS and (is_unknown or ds64_size % (1 << 32) == size)


def _count_sample_frames(source: Format, audio_bytes: int, fact_sample_frames: int | None) -> int:
    """Returns how many sample frames the audio has, by its bytes or by the fact chunk.

    The fact chunk counts only if it shortens the last ADPCM block, which is padded. Otherwise it is wrong.
    """
    sample_frames = source.sample_frames(audio_bytes)
    if source.codec in ADPCM_HEAD_BYTES and fact_sample_frames is not None:
        before_last_block = source.sample_frames(max(0, audio_bytes - source.block_align_bytes))
        if before_last_block < fact_sample_frames < sample_frames:
            return fact_sample_frames
    return sample_frames
