"""The WAV parser reads every layout that real writers leave behind, and refuses the rest with the reason."""

import struct
import tracemalloc
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from records.audio import BrokenAudio, UnsupportedAudio
from records.audio.formats import Codec
from records.audio.metadata import MAX_ID3_BYTES, MAX_METADATA_BYTES, MAX_METADATA_CHUNK_BYTES
from records.audio.wav import MAX_BYTES_BEFORE_AUDIO, MAX_CHUNKS, WavParser
from tests.wavs import EXTENSIBLE, FLOAT, UNKNOWN_SIZE, Chunk, Wav, chunk, ds64, encoded, sine

SOUND = sine(seconds=0.001)
WHOLE = Wav().build(SOUND)
AUDIO = WHOLE[44:]
ODD = (b"odd ", b"123")
MS, IMA = 0x0002, 0x0011


def parse(*pieces: bytes) -> bytes:
    """Returns the audio of a WAV that arrives in these pieces."""
    parser = WavParser()
    audio = b"".join(bytes(view) for piece in pieces for view in parser.feed(piece))
    return audio + b"".join(parser.finish())


def outcome(*pieces: bytes) -> bytes | tuple[type[Exception], str]:
    """Returns the audio, or the type and the message of the refusal. Any other exception escapes."""
    try:
        return parse(*pieces)
    except (BrokenAudio, UnsupportedAudio) as refusal:
        return type(refusal), str(refusal)


@pytest.mark.parametrize(
    "wav",
    [
        Wav(),
        Wav(fmt_bytes=18),
        Wav(fmt_bytes=1024),
        Wav(extensible=True, mask=3),
        Wav(extensible=True, fmt_bytes=64),
        Wav(extensible=True, valid_bits=12),
        Wav(before_fmt=(ODD, (b"JUNK", bytes(28))), before_data=(ODD, (b"fact", bytes(4)), (b"LIST", b""))),
        Wav(after=(ODD, (b"LIST", b"INFO"))),
        Wav(riff_size=0, data_size=0),
        Wav(riff_size=UNKNOWN_SIZE, data_size=UNKNOWN_SIZE),
        Wav(riff_size=UNKNOWN_SIZE, data_size=0),
        Wav(riff_size=36, data_size=0),
        Wav(data_size=0x7FFFF000),
        Wav(data_size=0x7FFFFFFE),
        Wav(riff_size=7),
        Wav(fmt_bytes=14),
        Wav(magic=b"RF64", before_fmt=(ds64(len(AUDIO)),), riff_size=UNKNOWN_SIZE, data_size=UNKNOWN_SIZE),
        Wav(magic=b"BW64", before_fmt=(ds64(len(AUDIO)),), riff_size=UNKNOWN_SIZE, data_size=UNKNOWN_SIZE),
        Wav(magic=b"RF64", before_fmt=(ds64(0),), riff_size=UNKNOWN_SIZE, data_size=UNKNOWN_SIZE),
        Wav(magic=b"RF64", before_fmt=(ds64(1 << 63),), riff_size=UNKNOWN_SIZE, data_size=UNKNOWN_SIZE),
        Wav(magic=b"RF64", riff_size=UNKNOWN_SIZE, data_size=UNKNOWN_SIZE),
        Wav(magic=b"RF64", before_fmt=((b"ds64", b"short"),), riff_size=UNKNOWN_SIZE),
        # A writer that never came back, or that knew no size.
        *(Wav(riff_size=size, data_size=0) for size in (None, 44, 2**31 - 1, 2**31 + 35, 0xFFFFFFFE)),
        *(Wav(riff_size=size, data_size=42) for size in (42, 0, 36)),
        Wav(riff_size=8, data_size=43),
        Wav(riff_size=0, data_size=1),
        *(Wav(data_size=size) for size in (2**31 - 1, 2**31 - 37, 2**31, 0xFFFFFFDB, 0xFFFFFFFE)),
        Wav(magic=b"RIFX", riff_size=44, data_size=0, bits=24, channels=1),
        # Identical fmt chunks in front of the audio.
        Wav(before_fmt=((b"fmt ", Wav().fmt()),), before_data=((b"fmt ", Wav(fmt_bytes=18).fmt()),)),
    ],
    ids=repr,
)
def test_the_audio_is_found_in_every_layout_that_writers_leave(wav: Wav) -> None:
    data, audio = wav.build(SOUND), wav.audio(SOUND)
    assert parse(data) == audio
    assert {parse(data[:cut], data[cut:]) for cut in range(len(data))} == {audio}
    assert parse(*(data[at : at + 1] for at in range(len(data)))) == audio


def test_the_format_says_what_the_fmt_chunk_says() -> None:
    for magic in (b"RIFF", b"RIFX"):
        parser = WavParser()
        wav = Wav(bits=24, channels=6, rate=48000, extensible=True, mask=0x3F, valid_bits=20, magic=magic)
        assert b"".join(parser.feed(wav.header(180))) == b""
        assert parser.format.codec is Codec.INTEGER
        assert parser.format.channels == 6
        assert parser.format.sample_rate == 48000
        assert parser.format.sample_bytes == 3
        assert parser.format.block_align_bytes == 18
        assert parser.format.channel_mask == 0x3F
        assert parser.format.is_big_endian == (magic == b"RIFX")
        assert parser.data_chunk.announced_sample_frames == 10


def test_a_big_endian_wav_has_its_numbers_reversed_everywhere() -> None:
    wav = Wav(magic=b"RIFX", before_fmt=(ODD,), before_data=(ODD,), after=(ODD, (b"bext", b"text")))
    parser = WavParser()
    audio = b"".join(bytes(view) for view in parser.feed(wav.build(SOUND)))
    assert b"".join(parser.finish()) == b""
    assert audio == wav.audio(SOUND) != AUDIO
    assert parser.metadata == [(b"bext", b"text")]


@pytest.mark.parametrize(
    ("wav", "cut_bytes", "truncated"),
    [
        (Wav(), 7, True),
        (Wav(), 1, True),
        (Wav(), 0, False),
        (Wav(data_size=len(AUDIO) + 4), 0, True),
        # The size counts its chunk's header, the WAV's header, or all but the first eight bytes of it.
        *((Wav(data_size=len(AUDIO) + size), 0, False) for size in (8, 36, 44)),
        *((Wav(data_size=len(AUDIO) + size), 4, True) for size in (8, 36, 44)),
        *((Wav(data_size=len(AUDIO) + size), 0, True) for size in (12, 32, 40, 48)),
        (Wav(data_size=len(AUDIO) + 68, extensible=True), 0, False),
        (Wav(data_size=len(AUDIO) + 60, extensible=True), 0, False),
        (Wav(data_size=len(AUDIO) + 44, extensible=True), 0, True),
        (Wav(data_size=len(AUDIO) + 44, riff_size=len(AUDIO) + 44), 0, False),
        (Wav(data_size=len(AUDIO) + 44, riff_size=len(AUDIO) + 80), 0, True),
        (Wav(data_size=len(AUDIO) + 44, riff_size=36), 0, True),
        (Wav(data_size=len(AUDIO) + 44, magic=b"RIFX"), 0, False),
        (Wav(data_size=len(AUDIO) + 3), 0, False),
        (Wav(data_size=len(AUDIO) + 3), 1, True),
        (Wav(riff_size=0), 4, True),
        (Wav(riff_size=0, data_size=len(AUDIO) + 3), 0, False),
        *((Wav(data_size=size), 0, False) for size in (0x7FFFFFFF, 0x7FFFFFFE, 1 << 31, 0xFFFFFFFE)),
        (Wav(data_size=0x7FFFF000), 7, False),
        (Wav(riff_size=UNKNOWN_SIZE, data_size=UNKNOWN_SIZE), 7, False),
        (Wav(riff_size=0, data_size=0), 7, False),
        (Wav(magic=b"RF64", before_fmt=(ds64(1 << 40),), data_size=UNKNOWN_SIZE), 0, True),
    ],
)
def test_audio_that_ends_early_is_complete_as_far_as_it_goes_and_reported_as_truncated(
    wav: Wav, cut_bytes: int, truncated: bool
) -> None:
    data = wav.build(SOUND)
    parser = WavParser()
    audio = b"".join(bytes(view) for view in parser.feed(data[: len(data) - cut_bytes]))
    assert b"".join(parser.finish()) == b""
    assert audio == wav.audio(SOUND)[: len(AUDIO) - cut_bytes]
    assert parser.truncated == truncated


def test_the_length_that_a_header_announces_lies_within_its_riff_chunk() -> None:
    for data_size, announced in ((len(AUDIO), len(AUDIO) // 4), (1 << 30, None), (len(AUDIO) + 44, None)):
        parser = WavParser()
        assert b"".join(parser.feed(Wav(data_size=data_size).build(SOUND))) == AUDIO
        assert parser.data_chunk.announced_sample_frames == announced


def test_a_file_that_lacks_only_what_follows_its_audio_is_not_truncated() -> None:
    parser = WavParser()
    data = Wav(after=((b"LIST", bytes(40)),)).build(SOUND)
    assert b"".join(parser.feed(data[:-20])) == AUDIO
    assert b"".join(parser.finish()) == b""
    assert not parser.truncated
    assert parser.metadata == []


def id3_tag(version: int, *frames: tuple[bytes, bytes], padding: int = 0, flags: int = 0) -> bytes:
    """Returns an ID3v2 tag."""
    body = b""
    for name, text in frames:
        size = synchsafe(len(text)) if version == 4 else len(text).to_bytes(3 if version == 2 else 4, "big")
        body += name + size + (b"" if version == 2 else b"\0\0") + text
    body += bytes(padding)
    return b"ID3" + bytes([version, 0, flags]) + synchsafe(len(body)) + body


def synchsafe(number: int) -> bytes:
    return bytes(number >> shift & 0x7F for shift in (21, 14, 7, 0))


INFO = (b"LIST", b"INFOINAM\x05\0\0\0Song\0\0")
ID3 = (b"id3 ", b"ID3\4\0\0\0\0\0\0")
CHUNKS_BEHIND: dict[str, tuple[Chunk, ...]] = {
    "LIST": (INFO,),
    "id3": (ID3,),
    "ID3 of a cover": ((b"id3 ", b"ID3\3\0\0\0\x06\0\0" + bytes(98304)),),
    "LIST and id3": (INFO, ID3),
    "markers": ((b"cue ", b"\1\0\0\0" + bytes(24)), (b"LIST", b"adtllabl\6\0\0\0\1\0\0\0A\0"), INFO),
    "a sampler": ((b"smpl", bytes(36)), (b"inst", bytes(7)), INFO),
    "bext alone": ((b"bext", bytes(602)),),
    "iXML and bext": ((b"iXML", b"<BWFXML/>"), (b"bext", bytes(602))),
    "padding": ((b"JUNK", bytes(1000)), (b"FLLR", b"")),
}
CHUNK_FORMATS = (Wav(), Wav(bits=8, channels=1), Wav(bits=24, channels=1), Wav(magic=b"RIFX"))
UNKNOWN_SIZES = {
    "a pipe": (UNKNOWN_SIZE, UNKNOWN_SIZE),
    "a pipe that knows the RIFF size": (None, UNKNOWN_SIZE),
    "SoX": (0x7FFFF024, 0x7FFFF000),
    "zeros": (0, 0),
    "a data size of 0": (None, 0),
    "a writer that never came back": (42, 42),
}


@pytest.mark.parametrize("after", CHUNKS_BEHIND.values(), ids=CHUNKS_BEHIND)
@pytest.mark.parametrize("sizes", UNKNOWN_SIZES.values(), ids=UNKNOWN_SIZES)
def test_a_chunk_behind_audio_of_unknown_size_is_no_audio(
    sizes: tuple[int | None, int], after: tuple[Chunk, ...]
) -> None:
    for wav in CHUNK_FORMATS:
        assert_chunks_are_no_audio(replace(wav, after=after, riff_size=sizes[0], data_size=sizes[1]))


@pytest.mark.parametrize("after", CHUNKS_BEHIND.values(), ids=CHUNKS_BEHIND)
@pytest.mark.parametrize("riff_size", [None, 36])
@pytest.mark.parametrize("more_bytes", [2, 44, "the first chunk", "all chunks", "the whole file"])
def test_a_chunk_that_the_size_of_the_audio_counts_is_no_audio(
    more_bytes: int | str, riff_size: int | None, after: tuple[Chunk, ...]
) -> None:
    for wav in CHUNK_FORMATS:
        chunk_bytes = [len(chunk(*each, wav.order)) for each in after]
        more = {
            "the first chunk": chunk_bytes[0],
            "all chunks": sum(chunk_bytes),
            "the whole file": 44 + sum(chunk_bytes),
        }
        size = len(wav.audio(SOUND)) + (more_bytes if isinstance(more_bytes, int) else more[more_bytes])
        assert_chunks_are_no_audio(replace(wav, after=after, riff_size=riff_size, data_size=size))


def assert_chunks_are_no_audio(wav: Wav) -> None:
    sound = SOUND[:, : wav.channels]
    # A chunk whose padding was forgotten moves all others to odd bytes.
    padded = chunk(b"junk", b"abc", wav.order)
    moved = replace(wav, before_data=((b"junk", b"abc"),)).build(sound).replace(padded, padded[:-1])
    for data in (wav.build(sound), moved):
        for piece_bytes in (len(data), 7 if len(data) < 5000 else 977):
            parser = WavParser()
            pieces = [data[at : at + piece_bytes] for at in range(0, len(data), piece_bytes)]
            audio = b"".join(bytes(view) for piece in pieces for view in parser.feed(piece))
            assert audio + b"".join(parser.finish()) == wav.audio(sound)
            assert parser.metadata == [each for each in wav.after if each[0] in METADATA]
            assert not parser.truncated


METADATA = (b"LIST", b"bext", b"id3 ")


@pytest.mark.parametrize("magic", [b"RF64", b"BW64"])
@pytest.mark.parametrize("data_size", [0, 36, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, UNKNOWN_SIZE])
def test_the_sizes_of_a_ds64_chunk_count_where_the_header_has_none(magic: bytes, data_size: int) -> None:
    after = INFO, (b"smpl", bytes(36))
    riff_bytes = 4 + 36 + 24 + 8 + len(AUDIO) + sum(len(chunk(*each)) for each in after)
    for riff_size in (data_size, UNKNOWN_SIZE):
        sizes = ds64(len(AUDIO), riff_bytes)
        wav = Wav(magic=magic, before_fmt=(sizes,), riff_size=riff_size, data_size=data_size)
        for cut_bytes in (0, 4):
            data = wav.build(SOUND)[: len(wav.build(SOUND)) - cut_bytes]
            if not cut_bytes:
                data = replace(wav, after=after).build(SOUND) + b"\xffgarbage" * 99
            parser = WavParser()
            pieces = [data[at : at + 7] for at in range(0, len(data), 7)]
            audio = b"".join(bytes(view) for piece in pieces for view in parser.feed(piece))
            assert audio + b"".join(parser.finish()) == AUDIO[: len(AUDIO) - cut_bytes]
            assert parser.truncated == bool(cut_bytes)
            assert parser.metadata == ([] if cut_bytes else [INFO])
            assert parser.data_chunk.announced_sample_frames == len(SOUND)


@pytest.mark.parametrize("magic", [b"RIFF", b"RF64"])
def test_a_ds64_chunk_holds_the_upper_bits_of_a_size(magic: bytes) -> None:
    sizes = ds64((1 << 32) + len(AUDIO), (1 << 32) + len(WHOLE))
    wav = Wav(magic=magic, before_fmt=(sizes,), riff_size=len(WHOLE), data_size=len(AUDIO))
    assert parse(wav.build(SOUND), AUDIO) == AUDIO * 2
    parser = WavParser()
    assert b"".join(parser.feed(wav.build(SOUND))) == AUDIO
    assert b"".join(parser.finish()) == b""
    assert parser.truncated


def test_the_size_of_a_ds64_chunk_counts_for_the_first_audio_only() -> None:
    wav = Wav(magic=b"RF64", before_fmt=(ds64(len(AUDIO)),), riff_size=UNKNOWN_SIZE, data_size=UNKNOWN_SIZE)
    for further in (AUDIO[:-8], AUDIO + AUDIO):
        assert parse(wav.build(SOUND), b"data\xff\xff\xff\xff", further) == AUDIO + further


def test_a_size_that_can_be_right_counts_more_than_a_ds64_chunk() -> None:
    for said in (0, 4, len(AUDIO) - 8, len(AUDIO) + 8, 1 << 40):
        wav = Wav(magic=b"RF64", before_fmt=(ds64(said),))
        assert parse(wav.build(SOUND), bytes(99)) == AUDIO


def test_the_riff_size_of_an_rf64_tells_where_its_chunks_end() -> None:
    after = ((b"smpl", bytes(36)),)
    audio_bytes = len(AUDIO)
    for data_bytes in (0, 1 << 63, audio_bytes + 44, audio_bytes + 60):
        sizes = ds64(data_bytes, riff_bytes=4 + 36 + 24 + 8 + audio_bytes + 44)
        wav = Wav(magic=b"RF64", before_fmt=(sizes,), riff_size=UNKNOWN_SIZE, data_size=UNKNOWN_SIZE)
        assert parse(replace(wav, after=after).build(SOUND), b"garbage") == AUDIO


@pytest.mark.parametrize("riff_size", [0, UNKNOWN_SIZE])
@pytest.mark.parametrize(
    "end",
    [
        *(b"LIST\x1a\0\0\0INFOINAM"[:size] for size in range(1, 12)),
        *(b"cue \x1c\0\0\0\1\0\0\0LIST"[:size] for size in (5, 8, 12, 16)),
        *(b"ID3\3\0\0\0\0\0\x0fTIT2"[:size] for size in range(3, 12)),
        b"ID3\3\0\0\0\0\0\x8fTIT2",
        b"ID3\3" * 300,
        b"RIFF\0\0\0\0AVI ",
        b"RIFF\xff\xff\xff\xffWAV",
        b"LIST" * 300,
        b"bext\4\1\0\0" * 300,
        b"LIST\xff\xff\xff\xffDATA" + bytes(99),
        b"smpl\x24\0\0\0" + bytes(34),
        b"smpl\x24\0\0\0" + bytes(36) + b"LI",
        b"smpl\x24\0\0\0" + bytes(36) + b"LISt" + bytes(40),
        b"JUNK\0\0\1\0" + bytes(70_000),
        b"xINFO" * 9,
        b"data\4\0\0\0abcd",
        b"fmt \x10\0\0\0" + Wav().fmt(),
    ],
)
def test_audio_that_only_begins_like_a_chunk_is_audio(riff_size: int, end: bytes) -> None:
    data = Wav(riff_size=riff_size, data_size=riff_size).build(SOUND) + end
    assert parse(data) == AUDIO + end
    # Single bytes of all of it would take long.
    split = len(AUDIO) + 99
    assert parse(*(data[at : at + 1] for at in range(split)), data[split:]) == AUDIO + end
    assert parse(Wav().header(len(AUDIO + end)) + AUDIO + end) == AUDIO + end


def test_metadata_is_kept_from_before_and_after_the_audio_except_large_chunks() -> None:
    largest = (b"bext", b"x" * MAX_METADATA_CHUNK_BYTES)
    too_large = (b"bext", b"x" * (MAX_METADATA_CHUNK_BYTES + 1))
    wav = Wav(
        before_fmt=((b"LIST", b"INFOodd"), (b"cue ", bytes(4)), too_large),
        before_data=((b"id3 ", b"ID3"), (b"LIST", b"")),
        after=(ODD, largest, largest, largest, largest, (b"LIST", b"INFOend")),
    )
    expected = [(b"LIST", b"INFOodd"), (b"id3 ", b"ID3"), largest, largest, largest, (b"LIST", b"INFOend")]
    data = wav.build(SOUND)
    for piece_bytes in (997, len(data)):
        parser = WavParser()
        pieces = [data[at : at + piece_bytes] for at in range(0, len(data), piece_bytes)]
        assert b"".join(bytes(view) for piece in pieces for view in parser.feed(piece)) == AUDIO
        assert b"".join(parser.finish()) == b""
        assert parser.metadata == expected
    assert sum(len(body) for _, body in expected) <= MAX_METADATA_BYTES


@pytest.mark.parametrize(
    ("fact_sample_frames", "sample_frames"),
    [(2000, 2000), (1018, 1018), (2034, 2034), (0, 2034), (1017, 2034), (5000, 2034)],
)
def test_the_fact_chunk_shortens_the_last_adpcm_block_and_nothing_else(
    fact_sample_frames: int, sample_frames: int
) -> None:
    # Two ADPCM blocks of 1017 sample frames.
    data = encoded(sine(seconds=2034 / 44100), "adpcm_ima_wav")
    at = data.index(b"fact") + 8
    parser = WavParser()
    audio = b"".join(parser.feed(data[:at] + struct.pack("<I", fact_sample_frames) + data[at + 4 :]))
    assert len(audio) == 2048
    assert parser.data_chunk.announced_sample_frames == sample_frames


@pytest.mark.parametrize(
    "tag",
    [
        id3_tag(4),
        id3_tag(3, padding=1),
        id3_tag(3, padding=2),
        id3_tag(3, (b"TIT2", b"\0Song"), padding=100),
        id3_tag(2, (b"TT2", b"\0Song")),
        id3_tag(4, (b"TIT2", b"\3Song"), flags=0x10) + b"3DI\4\0\0\0\0\0\0",
    ],
)
def test_an_id3_tag_in_front_of_the_wav_is_metadata(tag: bytes) -> None:
    data = tag + WHOLE
    for piece_bytes in (1, 5, len(data)):
        parser = WavParser()
        pieces = [data[at : at + piece_bytes] for at in range(0, len(data), piece_bytes)]
        assert b"".join(bytes(view) for piece in pieces for view in parser.feed(piece)) == AUDIO
        assert b"".join(parser.finish()) == b""
        assert parser.metadata == ([(b"id3 ", tag)] if len(tag) > 11 else [])
        assert not parser.truncated
    with pytest.raises(UnsupportedAudio, match="This is MP3"):
        parse(tag)
    with pytest.raises(UnsupportedAudio, match="This is MP3"):
        parse(tag, bytes(20))
    with pytest.raises(UnsupportedAudio, match="This is FLAC"):
        parse(tag, b"fLaC" + bytes(20))
    assert parse(tag, Wav(riff_size=42, data_size=42).build(SOUND)) == AUDIO


@pytest.mark.parametrize(
    "start",
    [
        *(b"\n", b"\r\n", b"\r\n\r\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\r\n", b"\n\xef\xbb\xbf"),
        id3_tag(3, (b"TIT2", b"\0Song")) * 2,
        id3_tag(3, (b"TIT2", b"\0Song")) + bytes(1),
        id3_tag(4, (b"TIT2", b"\0Song")) + bytes(5000),
        b"\r\n" + id3_tag(3, (b"TIT2", b"\0Song")) + bytes(7) + id3_tag(2, (b"TT2", b"\0Song")) + b"\n",
    ],
)
def test_line_breaks_marks_and_padding_in_front_of_a_wav_are_skipped(start: bytes) -> None:
    data = start + WHOLE
    for piece_bytes in (1, 5, len(data)):
        pieces = [data[at : at + piece_bytes] for at in range(0, len(data), piece_bytes)]
        assert parse(*pieces) == AUDIO
    assert parse(start + Wav(riff_size=42, data_size=42).build(SOUND)) == AUDIO
    with pytest.raises(BrokenAudio, match="before any audio"):
        parse(data[: len(start) + 16])


@pytest.mark.parametrize(
    ("version", "title", "picture"), [(2, b"TT2", b"PIC"), (3, b"TIT2", b"APIC"), (4, b"TIT2", b"APIC")]
)
@pytest.mark.parametrize("place", ["in front", "before the audio", "behind the audio"])
def test_what_fits_of_a_large_id3_tag_is_kept(version: int, title: bytes, picture: bytes, place: str) -> None:
    cover = bytes(MAX_ID3_BYTES)
    text, other = (title, b"\0Song"), (picture, bytes(1000))
    private = b"PRIV"[: len(title)], bytes(70_000)
    tag = id3_tag(version, (picture, cover), private, text, (picture, cover), other, padding=9)
    data = {
        "in front": tag + WHOLE,
        "before the audio": Wav(before_data=((b"ID3 ", tag),)).build(SOUND),
        "behind the audio": Wav(after=((b"id3 ", tag),)).build(SOUND),
    }[place]
    parser = WavParser()
    assert b"".join(parser.feed(data)) == AUDIO
    assert b"".join(parser.finish()) == b""
    assert parser.metadata == [(b"id3 ", id3_tag(version, text, other))]


@pytest.mark.parametrize("further_bytes", [1, 100])
def test_an_id3_chunk_that_says_more_bytes_than_follow_is_kept(further_bytes: int) -> None:
    tag = id3_tag(3, (b"TIT2", b"\0Song"))
    size = struct.pack("<I", len(tag) + further_bytes)
    parser = WavParser()
    assert b"".join(parser.feed(WHOLE + b"id3 " + size + tag)) == AUDIO
    assert b"".join(parser.finish()) == b""
    assert parser.metadata == [(b"id3 ", tag)]
    assert not parser.truncated


def test_id3_tags_together_are_bounded() -> None:
    tag = b"id3 ", id3_tag(3, (b"TIT2", bytes(MAX_ID3_BYTES // 2)))
    parser = WavParser()
    assert b"".join(parser.feed(Wav(before_fmt=(tag, tag), after=(tag, tag)).build(SOUND))) == AUDIO
    assert sum(len(body) for _, body in parser.metadata) <= MAX_ID3_BYTES


def test_audio_of_unknown_size_goes_on_past_four_gib() -> None:
    parser = WavParser()
    piece = memoryview(bytes(64 << 20))
    assert b"".join(parser.feed(Wav(data_size=UNKNOWN_SIZE).header(0))) == b""
    # Audio full of names of chunks is not searched for chunks any more, so this test is fast.
    names = b"LIST" * 2048
    assert b"".join(parser.feed(names)) == names
    audio_bytes = sum(len(view) for _ in range(65) for view in parser.feed(piece))
    assert audio_bytes == 65 * len(piece) > 1 << 32


@pytest.mark.parametrize(
    "garbage",
    [
        b"\xff\xfegarbage" * 9 + b"data",
        b"\0" * 9_999,
        b"ID3\x03\0\0\0\0\0\0" + AUDIO,
        b"TAG" + bytes(125),
        b"RIFF\x10\0\0\0AVI LIST\x04\0\0\0abcd",
        b"RIFF",
        b"RIFF\0\0\0\0WAVE",
        chunk(b"fmt ", Wav(channels=1).fmt()),
        chunk(b"fmt ", b"short") + chunk(b"fmt ", Wav(tag=0x55).fmt()),
        b"data",
        b"data\0\0\0\0",
    ],
)
def test_garbage_behind_the_announced_audio_is_ignored(garbage: bytes) -> None:
    for riff_size in (None, 0, 36, len(AUDIO), UNKNOWN_SIZE):
        data = Wav(riff_size=riff_size).build(SOUND)
        assert parse(data, garbage) == parse(data + garbage) == AUDIO
    for data_size in (0, UNKNOWN_SIZE):
        # The RIFF size tells where the audio ends.
        assert parse(Wav(data_size=data_size).build(SOUND), garbage) == AUDIO


def test_what_follows_the_announced_audio_is_ignored() -> None:
    assert parse(Wav(data_size=len(AUDIO) - 8).build(SOUND)) == AUDIO[:-8]


TAG = id3_tag(3, (b"TIT2", b"\0Song"))
MONO_8 = Wav(bits=8, channels=1)
DATA = chunk(b"data", AUDIO)
FMT = chunk(b"fmt ", Wav().fmt())
STEREO_MASK = Wav(extensible=True, mask=3)


@pytest.mark.parametrize(
    ("pieces", "audio"),
    [
        ((Wav().build(SOUND), DATA), AUDIO * 2),
        ((Wav().build(SOUND), DATA * 3, chunk(*ODD), DATA), AUDIO * 5),
        ((Wav().build(SOUND), FMT, DATA, FMT, DATA), AUDIO * 3),
        ((Wav().build(SOUND), chunk(b"fmt ", STEREO_MASK.fmt()), DATA), AUDIO * 2),
        ((Wav().build(SOUND), chunk(b"fmt ", Wav(block_align=1).fmt()), DATA), AUDIO * 2),
        ((Wav().build(SOUND), chunk(b"fmt ", Wav(channels=1).fmt()), FMT, DATA), AUDIO * 2),
        ((Wav().build(SOUND[:0]), chunk(b"JUNK", bytes(28)), DATA), AUDIO),
        ((Wav().build(SOUND[:0]), DATA), AUDIO),
        ((Wav(riff_size=0).build(SOUND[:0]), chunk(b"PAD ", bytes(3)), FMT, DATA), AUDIO),
        ((Wav().build(SOUND), Wav().build(SOUND)), AUDIO * 2),
        ((Wav().build(SOUND), Wav(riff_size=0, data_size=0).build(SOUND)), AUDIO * 2),
        ((Wav().build(SOUND), STEREO_MASK.build(SOUND), Wav(after=(ODD,)).build(SOUND)), AUDIO * 3),
        ((Wav(after=(ODD,)).build(SOUND), Wav(before_fmt=(ODD,)).build(SOUND)), AUDIO * 2),
        ((Wav().build(SOUND), Wav(magic=b"RF64", before_fmt=(ds64(len(AUDIO)),)).build(SOUND)), AUDIO * 2),
        (
            (
                Wav().build(SOUND),
                Wav(magic=b"RF64", before_fmt=(ds64(len(AUDIO)),), data_size=UNKNOWN_SIZE).build(SOUND),
                bytes(99),
            ),
            AUDIO * 2,
        ),
        ((Wav().build(SOUND[:0]), Wav().build(SOUND)), AUDIO),
        ((Wav(riff_size=42, data_size=42).build(SOUND[:0]), bytes(42), DATA), bytes(42) + AUDIO),
        ((Wav(riff_size=0, data_size=0).build(SOUND), DATA), AUDIO + DATA),
        # The size of the first audio is unknown, or counts headers.
        *(
            ((Wav(riff_size=riff, data_size=size).build(SOUND), Wav(riff_size=riff).build(SOUND)), AUDIO * 2)
            for riff in (None, 0, UNKNOWN_SIZE)
            for size in (0, UNKNOWN_SIZE, 0x7FFFF000, len(AUDIO) + 8, len(AUDIO) + 36, len(AUDIO) + 44)
        ),
        ((Wav(riff_size=UNKNOWN_SIZE, data_size=UNKNOWN_SIZE).build(SOUND),) * 3, AUDIO * 3),
        # ID3 tags in front of each WAV, or behind it.
        ((*[TAG, Wav().build(SOUND)] * 3, TAG), AUDIO * 3),
        ((*[TAG + bytes(9), Wav(after=(INFO,)).build(SOUND)] * 2, TAG + bytes(9)), AUDIO * 2),
        *(
            ((*[TAG, TAG, Wav(riff_size=riff, data_size=size).build(SOUND)] * 2, TAG), AUDIO * 2)
            for riff in (None, 0, UNKNOWN_SIZE)
            for size in (0, UNKNOWN_SIZE, 0x7FFFF000)
        ),
        (
            (Wav(riff_size=0, data_size=0, after=(ODD, (b"LIST", b"INFO"))).build(SOUND), WHOLE),
            AUDIO + chunk(*ODD) + AUDIO,
        ),
        (
            (
                Wav(riff_size=UNKNOWN_SIZE, data_size=UNKNOWN_SIZE).build(SOUND),
                Wav(magic=b"RF64", before_fmt=(ds64(len(AUDIO)),), data_size=UNKNOWN_SIZE).build(SOUND),
            ),
            AUDIO * 2,
        ),
        # One WAV inside another.
        ((b"RIFF\xff\xff\xff\xffWAVE", Wav().build(SOUND)), AUDIO),
        # Mono of 8 bit and an odd size, with its padding and without.
        ((MONO_8.header(3), b"abc\0", MONO_8.header(2), b"de"), b"abcde"),
        ((MONO_8.header(3), b"abc", MONO_8.header(2), b"de"), b"abcde"),
        ((MONO_8.header(3), b"abc", chunk(b"data", b"d") * 3), b"abcddd"),
        *(
            (
                (replace(MONO_8, riff_size=size, data_size=size).header(3), b"abc", MONO_8.header(2), b"de"),
                b"abcde",
            )
            for size in (0, UNKNOWN_SIZE)
        ),
        (
            (
                replace(MONO_8, riff_size=0, data_size=0).header(3),
                b"abc",
                chunk(b"smpl", bytes(35))[:-1] + chunk(b"LIST", b"INFO"),
                MONO_8.header(2),
                b"de",
            ),
            b"abcde",
        ),
    ],
)
def test_audio_of_the_same_format_goes_on_behind_the_audio(pieces: tuple[bytes, ...], audio: bytes) -> None:
    data = b"".join(pieces)
    assert parse(*pieces) == parse(data) == audio
    assert parse(*(data[at : at + 1] for at in range(len(data)))) == audio


@pytest.mark.parametrize("size", [None, 0, UNKNOWN_SIZE])
def test_an_id3_tag_behind_the_audio_is_metadata(size: int | None) -> None:
    for further in (b"", bytes(9), WHOLE, TAG, b"garbage"):
        parser = WavParser()
        data = Wav(riff_size=size, data_size=size).build(SOUND) + TAG + further
        audio = b"".join(parser.feed(data))
        assert audio + b"".join(parser.finish()) == AUDIO + (AUDIO if further == WHOLE else b"")
        assert parser.metadata == [(b"id3 ", TAG)] * (2 if further == TAG else 1)
        assert not parser.truncated


def test_a_recording_of_many_data_chunks_is_read_to_its_end() -> None:
    piece = chunk(b"data", AUDIO * 2)
    assert len(parse(WHOLE, *[piece] * (MAX_CHUNKS + 99))) == (2 * MAX_CHUNKS + 199) * len(AUDIO)


@pytest.mark.parametrize(
    ("further", "start"),
    [
        (chunk(b"fmt ", Wav(channels=1).fmt()) + DATA, 0),
        (chunk(b"JUNK", bytes(4)) + chunk(b"fmt ", Wav(rate=48000).fmt()) + DATA, 12),
        (chunk(b"fmt ", Wav(bits=24).fmt()) + chunk(*ODD) + DATA, 0),
        (chunk(b"fmt ", Wav(tag=FLOAT, bits=32).fmt()) + DATA, 0),
        (chunk(b"fmt ", Wav(tag=0x55).fmt()) + DATA, 0),
        (chunk(b"fmt ", b"short") + DATA, 0),
        (Wav(channels=1).build(SOUND[:, :1]), 0),
        (Wav(magic=b"RIFX").build(SOUND), 0),
        (chunk(b"LIST", b"INFO") + Wav(rate=48000, before_fmt=(ODD,)).build(SOUND), 12),
        (Wav(bits=24, riff_size=0, data_size=0).build(SOUND), 0),
    ],
)
def test_audio_of_another_format_behind_the_audio_is_refused_with_its_place(
    further: bytes, start: int
) -> None:
    with pytest.raises(BrokenAudio) as refusal:
        parse(WHOLE, further)
    assert f"At byte {len(WHOLE) + start} the WAV goes on with audio of another format" in str(refusal.value)
    assert str(refusal.value).endswith(WHAT_TO_DO)


@pytest.mark.parametrize("sizes", UNKNOWN_SIZES.values(), ids=UNKNOWN_SIZES)
def test_audio_of_another_format_behind_audio_of_unknown_size_is_refused_with_its_place(
    sizes: tuple[int | None, int],
) -> None:
    with pytest.raises(
        BrokenAudio, match=f"At byte {len(WHOLE)} the WAV goes on with audio of another format"
    ):
        parse(Wav(riff_size=sizes[0], data_size=sizes[1]).build(SOUND), Wav(rate=48000).build(SOUND))


def test_a_wav_that_was_cut_before_another_one_follows_is_truncated() -> None:
    parser = WavParser()
    assert b"".join(parser.feed(WHOLE[:-8] + WHOLE)) == AUDIO[:-8] + AUDIO
    assert b"".join(parser.finish()) == b""
    assert parser.truncated


@pytest.mark.parametrize(
    ("wav", "unit_bytes"),
    [
        (Wav(), 4),
        (Wav(), 2),
        (Wav(channels=1), 2),
        (Wav(channels=1, bits=24), 3),
        (Wav(channels=6), 12),
        (Wav(channels=6), 6),
        (Wav(channels=2, bits=8), 2),
        (Wav(channels=1, bits=32, tag=FLOAT), 4),
        (Wav(magic=b"RIFX"), 4),
    ],
)
def test_a_size_in_samples_or_sample_frames_is_refused_with_what_to_do(wav: Wav, unit_bytes: int) -> None:
    sound = sine(seconds=0.1, channels=wav.channels)
    audio = wav.audio(sound)
    count = len(audio) // unit_bytes
    for riff_size in (count + 36, None, 0):
        wav = replace(wav, riff_size=riff_size, data_size=count)
        pieces = (wav.header(len(audio)), audio)
        with pytest.raises(BrokenAudio) as refusal:
            parse(*pieces)
        assert f"says {count} bytes, but has {unit_bytes} times as many" in str(refusal.value)
        assert str(refusal.value).endswith(WHAT_TO_DO)
        # Garbage of any other length is ignored.
        assert parse(*pieces, b"x" * wav.sample_frame_bytes) == audio[:count]
        assert parse(*pieces[:-1], audio[: -wav.sample_frame_bytes]) == audio[:count]
    for name, riff_size in ((b"LIST", None), (b"LIST", count + 44), (b"junk", 0), (b"data", None)):
        data = replace(wav, riff_size=riff_size).header(len(audio)) + audio + chunk(name, b"INFO", wav.order)
        for piece_bytes in (7, len(data)):
            with pytest.raises(BrokenAudio, match=f"has {unit_bytes} times as many"):
                parse(*(data[at : at + piece_bytes] for at in range(0, len(data), piece_bytes)))


def test_an_empty_data_chunk_of_a_finished_file_does_not_swallow_what_follows() -> None:
    assert parse(Wav(after=((b"LIST", b"INFO"),)).build(SOUND[:0])) == b""


@pytest.mark.parametrize(
    ("tag", "words"),
    [
        (0x0000, "0x0000;"),
        (0x0031, "0x0031 (GSM 6.10)"),
        (0x0055, "0x0055 (MP3)"),
        (0x0165, "0x0165 (XMA)"),
        (0x0166, "0x0166 (XMA 2)"),
        (0xFFFF, "0xFFFF (Wwise Vorbis)"),
        (0x1234, "0x1234;"),
    ],
)
@pytest.mark.parametrize("extensible", [False, True])
def test_another_codec_is_refused_by_tag_and_name(tag: int, words: str, extensible: bool) -> None:
    with pytest.raises(UnsupportedAudio) as refusal:
        parse(Wav(tag=tag, extensible=extensible).build(SOUND))
    assert f"fmt chunk says codec {words}" in str(refusal.value)
    assert "integer PCM, IEEE float, A-law, µ-law, IMA, Xbox and Microsoft ADPCM are supported" in str(
        refusal.value
    )


@pytest.mark.parametrize(
    ("subtype", "words"),
    [
        ("0100000021 07d3118644c8c1ca000000", "00000001-0721-11d3-8644-c8c1ca000000 (ambisonic B-format)"),
        ("00112233445566778899aabbccddeeff", "33221100-5544-7766-8899-aabbccddeeff"),
    ],
)
def test_an_unknown_sub_format_is_refused_by_its_guid(subtype: str, words: str) -> None:
    with pytest.raises(UnsupportedAudio) as refusal:
        parse(Wav(extensible=True, subtype=bytes.fromhex(subtype)).build(SOUND))
    assert f"codec {words};" in str(refusal.value)


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (b"ID3\x04\0\0\0\0\0\0\0\0", "This is MP3"),
        (b"\xff\xfb\x90\x64" + bytes(8), "This is MP3"),
        (b"OggS" + bytes(8), "This is Ogg"),
        (b"fLaC" + bytes(8), "This is FLAC"),
        (b"FORM\0\0\0\0AIFF", "This is AIFF,"),
        (b"FORM\0\0\0\0AIFC", "This is AIFF-C"),
        (b"\0\0\0\x20ftypM4A ", "This is MP4, M4A or MOV"),
        (b"RIFF\0\0\0\0AVI ", "This is AVI"),
        (b"RIFF\0\0\0\0WEBP", "This is not a WAV: it starts with 'RIFF\\x00\\x00\\x00\\x00WEBP'"),
        (b"\0\1\2\3", "This is not a WAV: it starts with '\\x00\\x01\\x02\\x03'"),
        (b"NIST_1A\n   1024\n", "This is NIST SPHERE"),
        (b"Creative Voice File\x1a", "This is Creative Voice"),
        (b"<!DOCTYPE html>", "This is HTML, not audio"),
        (b"\r\n  <HTML lang='de'>", "This is HTML, not audio"),
        (b"\xef\xbb\xbf<!doctype html>", "This is HTML, not audio"),
        (b'{"error": "not found"}', 'This is text, not audio: it starts with \'{"error": "n\''),
        (b"hello", "This is text, not audio: it starts with 'hello'"),
        (b"UklGRiQAAABXQVZF", "This is base64 text, not audio. Decode it (base64 -d)"),
        (b"data:audio/wav;base64,UklGR", "This is the text of a data URI, not audio"),
        (b"\x1f\x8b\x08\0\0\0\0\0\0\3", "This is a gzip archive, not audio. Unpack it"),
        (b"PK\3\4" + bytes(10), "This is a ZIP archive, not audio. Unpack it"),
        (b"RIFF\0\0\0\0XWMA", "This is xWMA, which is not supported"),
        (
            b"FSB5\1\0\0\0\1\0\0\0",
            "This is an FMOD sound bank, which is not supported. Save it as integer PCM",
        ),
        (b"#!SILK_V3" + bytes(3), "This is SILK, as messengers record it, which is not supported"),
        (b"\x02#!SILK_V3" + bytes(3), "This is SILK, as messengers record it, which is not supported"),
        (
            b"------WebKitFormBoundaryABC\r\nContent-Disposition: form-data",
            "This is a multipart form that is not",
        ),
        (
            b"--e7\r\nContent-Disposition: form-data; name=audio\r\n\r\n" + WHOLE,
            "This is a multipart form that is not sent as one. Send it with",
        ),
        (
            b"[object Blob]",
            "This is the name of a JavaScript object, not audio. Send the Blob or File itself",
        ),
        (b"[object File]", "This is the name of a JavaScript object, not audio"),
        (b"[object Object]", "This is the name of a JavaScript object, not audio"),
        (b"[object ArrayBuffer]", "This is the name of a JavaScript object, not audio"),
        (b"undefined", "This is the text 'undefined', not audio: the program that sent it had no recording"),
        (b"null", "This is the text 'null', not audio"),
        (b"NaN", "This is the text 'NaN', not audio"),
        (b"None\r\n", "This is the text 'None', not audio"),
        (b"nullified text", "This is text, not audio: it starts with 'nullified te'"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:",
            "This is a pointer of Git LFS, not audio.",
        ),
        (bytes(12), "This is a file that begins with zeros: it was never written, or it is damaged"),
        (bytes(100_000), "This is a file that begins with zeros"),
    ],
)
def test_a_file_that_is_no_wav_is_refused_by_the_format_it_looks_like(start: bytes, words: str) -> None:
    with pytest.raises(UnsupportedAudio) as refusal:
        parse(start)
    assert words in str(refusal.value)


@pytest.mark.parametrize(
    ("wav", "words"),
    [
        (Wav(bits=65), "integer PCM of 65 bit; 1 to 64 bit"),
        (Wav(bits=16, tag=FLOAT), "IEEE float of 16 bit; 32 and 64 bit"),
        (Wav(channels=33), "33 channels; 1 to 32"),
        (Wav(channels=65535), "65535 channels; 1 to 32"),
        (Wav(rate=768001), "768001 Hz; 1 to 768000 Hz"),
        (Wav(rate=0xFFFFFFFF, channels=32), "4294967295 Hz; 1 to 768000 Hz"),
        (Wav(tag=IMA, bits=3, block_align=1024), "IMA ADPCM of 3 bit; 4 bit are"),
        (Wav(tag=IMA, bits=4, block_align=8193), "in blocks of 8193 bytes; at most 8192"),
        (
            Wav(tag=MS, bits=4, channels=3, block_align=1024),
            "Microsoft ADPCM of 3 channels; 1 to 2 are supported",
        ),
    ],
)
def test_a_value_beyond_its_limit_is_refused_with_value_and_limit(wav: Wav, words: str) -> None:
    with pytest.raises(UnsupportedAudio) as refusal:
        parse(wav.header(400))
    assert words in str(refusal.value)


WHAT_TO_DO = (
    "Send a WAV.",
    "Send the whole WAV.",
    "Write the WAV again with the program that made it.",
    "Send the audio of each format as a WAV of its own.",
    "Copy its audio with: ffmpeg -i in.wav -map_metadata -1 -c copy out.wav",
    "Convert it with: ffmpeg -ignore_length 1 -i in.wav -c:a pcm_s16le out.wav",
)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "0 bytes arrived"),
        (b"RI", "ends after 2 bytes, inside its RIFF header"),
        (WHOLE[:11], "ends after 11 bytes, inside its RIFF header"),
        (WHOLE[:12], "ends after 12 bytes, inside its chunk header"),
        (WHOLE[:30], "ends after 30 bytes, inside its fmt chunk"),
        (WHOLE[:36], "has no data chunk"),
        (WHOLE[:40], "ends after 40 bytes, inside its chunk header"),
        (WHOLE[:36] + b"LIST\x08\0\0\0abc", "inside its chunk 'LIST'"),
        (WHOLE[:36] + chunk(b"fmt ", Wav(channels=1).fmt()) + DATA, "two fmt chunks before its audio that"),
        (WHOLE[:12] + WHOLE[36:], "before any fmt chunk"),
        (WHOLE[:12] + chunk(b"fmt ", bytes(13)), "fmt chunk says 13 bytes"),
        (WHOLE[:12] + struct.pack("<4sI", b"fmt ", 1 << 30), "fmt chunk says 1073741824 bytes; 14 to 1024"),
        (WHOLE[:36] + struct.pack("<4sI", b"ju\0k", 1 << 31), "Chunk 'ju\\x00k' says 2147483648 bytes"),
        *(
            (
                Wav(extensible=True, fmt_bytes=size).build(SOUND),
                f"extensible fmt chunk has {size} bytes; it needs",
            )
            for size in (14, 19, 22, 39)
        ),
        *(
            (
                Wav(tag=EXTENSIBLE, bits=bits, fmt_bytes=size, block_align=8).header(4),
                "extensible fmt chunk has",
            )
            for bits in (0, 33, 64)
            for size in (16, 18)
        ),
        (Wav(channels=0).header(4), "0 channels"),
        (Wav(rate=0).header(4), "0 Hz"),
        (Wav(block_align=0, fmt_bytes=14).header(4), "block align of 0 bytes for 2 channels, and no bits"),
        (Wav(bits=0, block_align=0).header(4), "block align of 0 bytes for 2 channels, and no bits"),
        (Wav(bits=0, block_align=3).header(4), "block align of 3 bytes for 2 channels, and no bits"),
        (Wav(bits=0, block_align=18).header(4), "block align of 18 bytes for 2 channels, and no bits"),
        (Wav(tag=IMA, bits=4, block_align=0).header(4), "block align of 0 bytes, too few"),
        (Wav(tag=IMA, bits=4, block_align=7).header(4), "block align of 7 bytes, too few"),
        (Wav(tag=MS, bits=4, block_align=13).header(4), "block align of 13 bytes, too few"),
        (Wav(extensible=True, valid_bits=17).header(4), "17 valid bits in samples of 16"),
    ],
)
def test_a_broken_wav_is_refused_with_the_reason_and_what_to_do(data: bytes, words: str) -> None:
    with pytest.raises(BrokenAudio) as refusal:
        parse(data)
    assert words in str(refusal.value)
    assert str(refusal.value).endswith(WHAT_TO_DO)


def test_endless_chunks_before_the_audio_are_refused() -> None:
    with pytest.raises(BrokenAudio, match=f"{MAX_CHUNKS} chunks"):
        parse(WHOLE[:36], chunk(b"a   ", b"") * MAX_CHUNKS)


def test_only_a_few_thousand_of_ten_million_chunks_after_the_audio_are_read() -> None:
    parser = WavParser()
    piece = chunk(b"LIST", b"ab") * 10_000
    assert b"".join(parser.feed(WHOLE)) == AUDIO
    for _ in range(1000):
        assert b"".join(parser.feed(piece)) == b""
    assert b"".join(parser.finish()) == b""
    assert len(parser.metadata) < 1.1 * MAX_CHUNKS


def test_many_bytes_before_the_audio_are_skipped_without_being_held() -> None:
    parser = WavParser()
    piece = bytes(1 << 16)
    tracemalloc.start()
    try:
        list(parser.feed(WHOLE[:36] + struct.pack("<4sI", b"JUNK", MAX_BYTES_BEFORE_AUDIO // 2)))
        for _ in range(MAX_BYTES_BEFORE_AUDIO // 2 // len(piece)):
            list(parser.feed(piece))
        held_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert b"".join(parser.feed(WHOLE[36:])) == AUDIO
    assert held_bytes < len(piece)


@given(data=st.binary(max_size=200), cuts=st.lists(st.integers(0, 200), max_size=5))
@example(data=b"RIFF", cuts=[1])
def test_arbitrary_bytes_are_refused_with_the_same_message_however_they_are_cut(
    data: bytes, cuts: list[int]
) -> None:
    whole = outcome(data)
    assert isinstance(whole, tuple)
    assert outcome(*cut_up(data, cuts)) == whole


@given(
    wav=st.sampled_from(
        [
            Wav(),
            Wav(extensible=True, before_fmt=(ODD,)),
            Wav(bits=24, before_data=(ODD,)),
            Wav(magic=b"RIFX", bits=12, after=((b"LIST", b"INFO"),)),
            Wav(
                magic=b"RF64", before_fmt=(ds64(len(AUDIO)),), riff_size=UNKNOWN_SIZE, data_size=UNKNOWN_SIZE
            ),
            Wav(tag=IMA, bits=4, block_align=64, fmt_bytes=20, before_data=((b"fact", b"\1\0\0\0"),)),
            Wav(tag=MS, bits=4, block_align=64, fmt_bytes=50, before_data=((b"fact", b"\1\0\0\0"),)),
        ]
    ),
    changes=st.dictionaries(st.integers(0, 90), st.integers(0, 255), max_size=4),
    length=st.integers(0, 200),
    cuts=st.lists(st.integers(0, 200), max_size=5),
)
def test_a_damaged_header_gives_the_same_audio_or_refusal_however_it_is_cut(
    wav: Wav, changes: dict[int, int], length: int, cuts: list[int]
) -> None:
    data = bytearray(wav.build(SOUND)[:length])
    for at, value in changes.items():
        data[at : at + 1] = bytes([value])
    assert outcome(*cut_up(bytes(data), cuts)) == outcome(bytes(data))


def cut_up(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cuts), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]
