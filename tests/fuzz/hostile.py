"""Makes WAVs from arbitrary bytes, most of them plausible, and checks what must hold for every one."""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, TypeVar

from records.audio import BrokenAudio, TooLong, UnsupportedAudio
from records.audio.blocks import MAX_BLOCK_SAMPLE_FRAMES, BlockMaker
from records.audio.metadata import MAX_ID3_BYTES, MAX_METADATA_BYTES, MAX_METADATA_CHUNK_BYTES
from records.audio.tags import MAX_PICTURE_BYTES, MAX_TAG_BYTES, make_id3
from records.audio.wav import DataChunk, WavParser
from tests.wavs import FLOAT, MEDIA_SUBTYPE, PCM, UNKNOWN_SIZE, Chunk, Wav, chunk, ds64

# At 1 Hz a byte of audio becomes a second of PCM, so each input is converted only this far.
MAX_PCM_BYTES = 16 * 1024
MAX_REFUSAL_CHARACTERS = 500
MAX_GIVEN_BACK_BYTES = MAX_METADATA_CHUNK_BYTES + 12

_A_LAW, _MU_LAW, _IMA, _MS, _GSM, _XBOX = 0x0006, 0x0007, 0x0011, 0x0002, 0x0031, 0x0069
_ADPCM_BITS = 4
# The first option of each list is what a plain WAV has. An input that is too short for all choices gets it.
_CODINGS: Sequence[tuple[int, int, int | None]] = (
    *((PCM, 16, None), (PCM, 8, None), (PCM, 24, None), (PCM, 32, None), (PCM, 64, None), (PCM, 40, None)),
    *((PCM, 12, None), (PCM, 1, None), (PCM, 20, 4), (PCM, 16, 8), (FLOAT, 32, None), (FLOAT, 64, None)),
    *((_A_LAW, 8, None), (_MU_LAW, 8, None), (_MU_LAW, 0, 1), (_IMA, 4, 1), (_IMA, 4, 1), (_MS, 4, 1)),
    *((_MS, 4, 1), (PCM, 16, None), (PCM, 24, None), (_GSM, 0, 1), (_XBOX, 4, 1)),
)
_CHANNELS = (2, 1, 1, 2, 2, 1, 2, 1, 3, 4, 5, 6, 8, 9, 32)
_RATES = (
    *(44100, 48000, 8000, 16000, 22050, 11025, 24000, 32000, 12000) * 5,
    *(96000, 47999, 99, 1, 768_000),
)
_MAGICS = (b"RIFF", b"RIFF", b"RIFF", b"RIFF", b"RIFX", b"RIFX", b"RF64", b"BW64")
_MASKS = (0, 3, 0x3F, 0x70F, 0xFFFFFFFF, 1 << 18)
_SUBTYPES = (*[None] * 12, bytes.fromhex("010000002107d3118644c8c1ca000000"), bytes(16))
_FMT_BYTES = (None, None, None, None, None, None, None, 14, 16, 18, 40, 64, 1024)
_RIFF_SIZES = (None, None, None, None, 0, 4, 42, 44, 0x7FFFFFFF, UNKNOWN_SIZE, UNKNOWN_SIZE)
_DATA_SIZES = (*[None] * 6, 0, 0, 42, 43, UNKNOWN_SIZE, UNKNOWN_SIZE, 0x7FFFF000, 0x7FFFFFFF, 0xFFFFFFFE, 1)
# The size of the audio counts headers, or the chunks behind the audio, or is in other units.
_SIZE_MISTAKES = (*["none"] * 12, "header", "header", "chunks", "both", "samples", "sample frames")
_BLOCKS = (36, 4, 7, 8, 14, 20, 22, 36, 4, 7, 8, 36, 64, 256, 8192, 0)
_ALIGNS = (*[None] * 13, 0, 3, 16)
_NAMES = (
    *(b"LIST", b"LIST", b"bext", b"fact", b"ds64", b"id3 ", b"JUNK", b"LIST", b"fact", b"ds64"),
    *(b"smpl", b"PAD ", b"inst", b"cue ", b"fmt ", b"data", b"\0\xff\n\x80", b"id3 ", b"ID3 ", b"CSET"),
)
_INFO_NAMES = (
    *(b"INAM", b"IART", b"IPRD", b"IGNR", b"ICMT", b"ICRD", b"ICOP", b"ITRK", b"IPRT", b"ISFT"),
    b"\0\0\0\0",
)
# The fields that may lie, and their bytes.
_FIELDS = (
    *(
        ("tag", 2),
        ("channels", 2),
        ("rate", 4),
        ("block_align", 2),
        ("bits", 2),
        ("valid_bits", 2),
        ("mask", 4),
    ),
    *(("fmt_bytes", 2), ("riff_size", 4), ("data_size", 4)),
)
# Few inputs are longer than a block.
_AUDIO_SHIFTS = (*[0] * 56, 1, 1, 2, 2, 3, 3, 4, 5)
_SYNCS = (
    *[b""] * 29,
    *(bytes.fromhex("fe7f0180ffff"), bytes.fromhex("ff1f00e8f007"), bytes.fromhex("72f81f4e0100")),
)
_CHUNKS_IN_AUDIO = (
    *[b""] * 26,
    *(b"LIST\x0c\0\0\0INFO", b"LIST\x0c\0\0\0", b"id3 \x10\0\0\0ID3\3", b"cue \4\0\0\0\0\0\0\0LIST", b"LI"),
    *(b"RIFF\xff\xff\xff\xffWAVEfmt ", b"bext\4\0\0\0\0\0\0\0bext"),
    b"ID3\3\0\0\0\0\0\x0fTIT2",
)
_CUTS = (*[0] * 13, 1, 3, 8)
_TITLE_BYTES = (*[0] * 14, 8, 64)
_TEXTS = (
    "Ночь".encode("cp1251"),
    "春よ、来い".encode("cp932"),
    "\ufeffTür".encode(),
    "Tür".encode("utf-16-be"),
)
_STARTS = (
    b"",
    b"NIST_1A\n",
    b"<html>",
    b"text",
    b"UklGR",
    b"\x1f\x8b",
    b"--",
    b"\x02#!SILK_V3",
    b"null",
    b"RIFF\x24\0\0\0WAVE",
    b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0",
    b"ID3",
    b"FORM\0\0\0\0AIFF",
)

T = TypeVar("T")


class Choices:
    """Reads arbitrary bytes as a series of choices. When they have run out, the first option is chosen."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> bytes:
        """Returns the next bytes, at most `size`."""
        taken = self._data[self._at : self._at + size]
        self._at += size
        return taken

    def byte(self) -> int:
        """Returns a number below 256."""
        self._at += 1
        return self._data[self._at - 1] if self._at <= len(self._data) else 0

    def number(self, size: int) -> int:
        """Returns a number of `size` bytes."""
        return int.from_bytes(self.take(size), "little")

    def one_of(self, options: Sequence[T]) -> T:
        """Returns one of at most 256 options."""
        return options[self.byte() % len(options)]

    def rarely(self) -> bool:
        """Returns True in 10 of 256 cases."""
        return self.byte() >= 246

    def rest(self) -> bytes:
        """Returns all bytes that are left."""
        return self.take(len(self._data))


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one input."""

    pcm: bytes
    """The first MAX_PCM_BYTES of the 16-bit PCM, and at most one block more."""
    refusal: str
    """The error message, "" for a WAV that is converted."""
    metadata: list[Chunk]
    is_past_fmt: bool


def check(data: bytes) -> Outcome:
    """Makes a WAV of `data`, and raises AssertionError or another exception where a promise does not hold.

    The promises: a WAV is converted or refused with a message; the result does not depend on how it is cut
    into pieces; metadata, blocks and tags keep their bounds.
    """
    choices = Choices(data)
    max_duration_seconds = choices.one_of((86_400, 60, 60, 60, 1, 1, 1, 0))
    cuts = choices.take(choices.one_of(_CUTS))
    title = choices.take(choices.one_of(_TITLE_BYTES)).decode(errors="ignore")
    wav = make_wav(choices)
    whole = convert([wav], max_duration_seconds)
    if cuts:
        # An even number cuts at that byte, near the header; an odd one cuts anywhere.
        edges = sorted({0, len(wav), *(cut * (1 + len(wav) * (cut % 2) // 256) for cut in cuts)})
        pieces = [wav[a:b] for a, b in pairwise(edges)]
        assert convert(pieces, max_duration_seconds) == whole
    tag = make_id3(whole.metadata, title or None)
    assert len(tag) <= MAX_TAG_BYTES + MAX_PICTURE_BYTES
    assert tag[:4] in (b"", b"ID3\x04")
    return whole


def convert(pieces: list[bytes], max_duration_seconds: int) -> Outcome:
    """Does what the Converter does, except encoding. Raises where a promise does not hold."""
    parser = WavParser()
    pcm = bytearray()
    refusal = ""
    try:
        for block in _blocks(parser, pieces, max_duration_seconds):
            pcm += block
            if len(pcm) > MAX_PCM_BYTES:
                break
    except (BrokenAudio, UnsupportedAudio, TooLong) as error:
        refusal = str(error)
        assert 0 < len(refusal) <= MAX_REFUSAL_CHARACTERS
        assert refusal.isprintable()
    assert sum(len(body) for _, body in parser.metadata) <= MAX_METADATA_BYTES + MAX_ID3_BYTES
    try:
        is_past_fmt = bool(parser.format)
    except RuntimeError:
        is_past_fmt = False
    return Outcome(bytes(pcm), refusal, parser.metadata, is_past_fmt)


def _blocks(parser: WavParser, pieces: list[bytes], max_duration_seconds: int) -> Iterator[bytes]:
    maker: BlockMaker | None = None
    made_sample_frames = 0
    data_chunks: set[DataChunk] = set()
    for audio_of_piece in (*map(parser.feed, pieces), parser.finish()):
        for audio in audio_of_piece:
            # Bytes that may have been a chunk may come back as audio.
            assert 0 < len(audio) <= max(*map(len, pieces), MAX_GIVEN_BACK_BYTES)
            data_chunks.add(parser.data_chunk)
            maker = maker or BlockMaker(parser.format, max_duration_seconds)
            for block in maker.feed(audio, parser.data_chunk):
                made_sample_frames += _check_block(block, maker)
                yield block
    data_chunks.add(parser.data_chunk)
    maker = maker or BlockMaker(parser.format, max_duration_seconds)
    for block in maker.finish():
        made_sample_frames += _check_block(block, maker)
        yield block
    source_sample_frames = maker.source_sample_frames
    announced = [data_chunk.announced_sample_frames for data_chunk in data_chunks]
    # A data chunk without audio is not seen here.
    if None not in announced and len(data_chunks) == parser.data_chunk.number:
        announced_sample_frames = sum(filter(None, announced))
        assert source_sample_frames <= announced_sample_frames
        # Audio may be shorter than announced because its size counts headers or chunks.
        assert not parser.truncated or source_sample_frames < announced_sample_frames
    if source_sample_frames:
        source_rate = parser.format.sample_rate
        resampled = (2 * source_sample_frames * maker.sample_rate + source_rate) // (2 * source_rate)
        is_resampled = maker.sample_rate != source_rate
        assert made_sample_frames == (max(1, resampled) if is_resampled else source_sample_frames)


def _check_block(pcm: bytes, maker: BlockMaker) -> int:
    """Returns the sample frames of a block."""
    sample_frames, rest = divmod(len(pcm), 2 * maker.channels)
    assert not rest
    assert sample_frames <= MAX_BLOCK_SAMPLE_FRAMES
    return sample_frames


def make_wav(choices: Choices) -> bytes:
    """Returns a mostly plausible WAV. Often its fields lie; sometimes it is damaged, or no WAV at all."""
    if choices.rarely():
        return choices.one_of(_STARTS) + choices.rest()
    leading = _make_id3(choices) + choices.one_of((b"", b"\0\0", b"\r\n")) if choices.rarely() else b""
    tag, bits, sample_bytes = choices.one_of(_CODINGS)
    magic = choices.one_of(_MAGICS)
    channels = choices.one_of(_CHANNELS)
    is_adpcm = bits == _ADPCM_BITS
    # ADPCM decodes slowly, so long ADPCM audio would take most of the time.
    audio_bytes = choices.byte() << (0 if is_adpcm else choices.one_of(_AUDIO_SHIFTS))
    wav = Wav(
        bits=bits,
        sample_bytes=sample_bytes,
        channels=channels,
        rate=choices.one_of(_RATES),
        tag=tag,
        block_align=_choose_block_align(choices, channels, is_adpcm=is_adpcm),
        fmt_bytes=choices.one_of(_FMT_BYTES),
        before_fmt=_make_chunks(choices, audio_bytes),
        before_data=_make_chunks(choices, audio_bytes),
        magic=magic,
        riff_size=choices.one_of(_RIFF_SIZES),
        data_size=choices.one_of(_DATA_SIZES),
    )
    if choices.one_of((False, False, True)):
        mask, subtype = choices.one_of(_MASKS), choices.one_of(_SUBTYPES)
        wav = replace(wav, extensible=True, mask=mask, subtype=subtype)
    for _ in range(choices.one_of((0, 0, 0, 0, 0, 1, 2, 4))):
        field, size = choices.one_of(_FIELDS)
        changed: dict[str, Any] = {field: _lie(choices, size)}
        wav = replace(wav, **changed)
    after = b"".join(chunk(*each, wav.order) for each in _make_chunks(choices, audio_bytes))
    after += _make_further_audio(choices, wav)
    header = bytearray(_mistake_sizes(choices, wav, audio_bytes, len(after)).header(audio_bytes))
    for _ in range(choices.one_of((0, 0, 0, 0, 0, 1, 2, 4))):
        header[choices.byte() % len(header)] = choices.byte()
    if choices.rarely():
        # A chunk whose padding was forgotten moves all others to odd bytes.
        header[12:12] = chunk(b"junk", b"abc", wav.order)[:-1]
    padding = b"" if choices.rarely() else b"\0" * (audio_bytes % 2)
    left_bytes = choices.number(2) if choices.rarely() else None
    sync = choices.one_of(_SYNCS)
    sound = choices.rest() or b"\0\1"
    if sync:
        # Compressed audio in the guise of PCM repeats its sync word.
        sound = (sync + sound).ljust(512, b"\0")[:512]
    sound = choices.one_of(_CHUNKS_IN_AUDIO) + sound
    audio = (sound * (audio_bytes // len(sound) + 1))[:audio_bytes]
    return b"".join((leading, header, audio, padding, after))[:left_bytes]


def _mistake_sizes(choices: Choices, wav: Wav, audio_bytes: int, after_bytes: int) -> Wav:
    """Returns the WAV, perhaps with a RIFF size that counts what follows the audio, or with wrong sizes."""
    mistake = choices.one_of(_SIZE_MISTAKES)
    if wav.riff_size is None and choices.byte() % 2:
        right_size = len(wav.header(0)) - 8 + audio_bytes + audio_bytes % 2 + after_bytes
        wav = replace(wav, riff_size=right_size & UNKNOWN_SIZE)
    counted_bytes = {
        "header": choices.one_of((8, len(wav.header(0)) - 8, len(wav.header(0)))),
        "chunks": after_bytes,
        "both": after_bytes + len(wav.header(0)),
    }
    if mistake in counted_bytes:
        return replace(wav, data_size=audio_bytes + counted_bytes[mistake])
    if mistake in ("samples", "sample frames"):
        unit_bytes = max(1, wav.sample_frame_bytes // (max(1, wav.channels) if mistake == "samples" else 1))
        count = audio_bytes // unit_bytes
        return replace(wav, data_size=count, riff_size=choices.one_of((wav.riff_size, count + 36)))
    return wav


def _make_further_audio(choices: Choices, wav: Wav) -> bytes:
    """Returns audio behind the audio: none, more data chunks, or a whole WAV, perhaps of another format."""
    kind = choices.one_of((*["none"] * 9, "data", "data", "fmt", "fmt", "wav", "empty", "garbage", "RIFF"))
    if kind == "none":
        return b""
    if choices.rarely():
        wav = replace(wav, channels=wav.channels % 2 + 1, magic=choices.one_of(_MAGICS))
    audio = choices.take(choices.byte())
    if kind == "garbage":
        return audio
    if kind == "RIFF":
        return chunk(b"RIFF", b"AVI " + audio) + chunk(b"fmt ", audio)
    if kind == "wav":
        leading = choices.one_of((b"", choices.take(1), _make_id3(choices)))
        return leading + wav.header(len(audio)) + audio
    if kind == "empty":
        return chunk(b"data", b"", wav.order) * choices.byte() + chunk(b"data", audio, wav.order)
    return (chunk(b"fmt ", wav.fmt(), wav.order) if kind == "fmt" else b"") + chunk(b"data", audio, wav.order)


def _choose_block_align(choices: Choices, channels: int, *, is_adpcm: bool) -> int | None:
    """Returns a block align for the header; None for the right one. The parser believes only ADPCM's."""
    if is_adpcm:
        return choices.one_of(_BLOCKS) * choices.one_of((1, channels))
    return choices.one_of(_ALIGNS)


def _lie(choices: Choices, size: int) -> int:
    return choices.one_of((0, 1, (1 << (8 * size)) - 1, 1 << (8 * size - 1), choices.number(size)))


def _make_chunks(choices: Choices, audio_bytes: int) -> tuple[Chunk, ...]:
    return tuple(_make_chunk(choices, audio_bytes) for _ in range(choices.one_of((0, 0, 0, 0, 0, 1, 2, 3))))


def _make_chunk(choices: Choices, audio_bytes: int) -> Chunk:
    name = choices.one_of(_NAMES)
    if name == b"LIST":
        body = b"INFO" + b"".join(_make_entry(choices) for _ in range(choices.byte() % 6))
        return name, body * (choices.byte() % 16 if choices.rarely() else 1)
    if name == b"bext":
        fields = [choices.take(choices.byte()).ljust(size, b"\0")[:size] for size in (256, 32, 32, 10)]
        return name, b"".join(fields)
    if name in (b"fact", b"CSET"):
        number = choices.number(choices.one_of((1, 2)))
        return name, struct.pack("<I", choices.one_of((number, number, number, 1251, 932, 936, 1200)))
    if name == b"ds64":
        return ds64(choices.one_of((audio_bytes, 0, choices.number(8), (1 << 64) - 1)), choices.number(2))
    if name == b"fmt ":
        return name, Wav(channels=choices.byte(), subtype=MEDIA_SUBTYPE).fmt()
    return name, _make_id3(choices) if name.upper() == b"ID3 " else choices.take(choices.byte() % 64)


def _make_id3(choices: Choices) -> bytes:
    """Returns an ID3 tag. Its header sometimes says a size of which the parser keeps only a part."""
    version = choices.one_of((3, 4, 2, 3, 4, 2, 0, 9))
    frames = b""
    for _ in range(choices.byte() % 4):
        name = choices.one_of((b"TIT2", b"TT2\0", b"APIC", b"PIC\0", b"COMM", b"TDRC", b"PRIV"))
        body = choices.one_of((b"\0", b"\1\xff\xfe", b"\3", b"\0image/png\0\3\0")) + choices.take(
            choices.byte()
        )
        size = _lie(choices, 4) if choices.rarely() else len(body)
        frames += name + struct.pack(">I", size) + b"\0\0" + body
    said = choices.one_of((len(frames),) * 6 + ((1 << 25) - 1,))
    size_bytes = bytes(said >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3" + bytes([version, 0, choices.one_of((0, 0, 0, 0x10, 0x40, 0x80))]) + size_bytes + frames


def _make_entry(choices: Choices) -> bytes:
    name = choices.one_of(_INFO_NAMES)
    text = choices.one_of(
        (b"", b"2024-05-06", b"3/12", b"2024", "Tür".encode(), "Tür".encode("latin-1"), *_TEXTS)
    )
    text += choices.take(choices.byte() % 32)
    size = _lie(choices, 4) if choices.rarely() else len(text)
    return name + struct.pack("<I", size) + text + b"\0" * (len(text) % 2)
