"""What a WAV says about itself becomes an ID3v2.4 tag, and nothing that it says breaks anything."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mutagen import id3

from records.audio.tags import MAX_CHARACTERS, MAX_TAG_BYTES, make_id3

Chunks = list[tuple[bytes, bytes]]


def info(*entries: tuple[bytes, bytes], order: str = "little") -> tuple[bytes, bytes]:
    """Returns a LIST chunk of the type INFO."""
    body = b"INFO"
    for name, value in entries:
        size = len(value).to_bytes(4, "big" if order == "big" else "little")
        body += name + size + value + bytes(len(value) % 2)
    return b"LIST", body


def bext(description: bytes = b"", originator: bytes = b"", date: bytes = b"") -> tuple[bytes, bytes]:
    """Returns a bext chunk of EBU Tech 3285, version 0."""
    fields = (description, 256), (originator, 32), (b"", 32), (date, 10), (b"12:34:56", 8), (b"", 264)
    return b"bext", b"".join(value.ljust(size, b"\0") for value, size in fields)


def read(chunks: Chunks, title: str | None = None) -> dict[str, str]:
    """Returns the texts of the tag by name."""
    tag = make_id3(chunks, title)
    if not tag:
        return {}
    read = id3.ID3(io.BytesIO(tag))
    assert read.version == (2, 4, 0)
    assert len(tag) <= MAX_TAG_BYTES
    # mutagen counts only the tag, so nothing may follow it.
    assert read.size == len(tag)
    assert not read.unknown_frames
    return {name: str(frame.text[0]) for name, frame in read.items()}


def test_every_entry_with_an_id3_frame_arrives() -> None:
    chunks: Chunks = [
        info(
            *((b"INAM", b"A walk\0"), (b"IART", b"Ann\0"), (b"IPRD", b"Walks\0"), (b"IGNR", b"Folk\0")),
            *((b"ICMT", b"In the rain\0"), (b"ICRD", b"2024-05-06\0"), (b"ICOP", b"(c) Ann\0")),
            *((b"ITRK", b"3/12\0"), (b"ISFT", b"Lavf60.16.100\0"), (b"IXYZ", b"whatever\0")),
        )
    ]
    assert read(chunks) == {
        "TIT2": "A walk",
        "TPE1": "Ann",
        "TALB": "Walks",
        "TCON": "Folk",
        "COMM::XXX": "In the rain",
        "TDRC": "2024-05-06",
        "TCOP": "(c) Ann",
        "TRCK": "3/12",
    }


def test_bext_fills_in_what_info_does_not_say() -> None:
    recorder = bext(b"Scene 1, take 2", b"Recorder", b"2023-01-02")
    assert read([recorder]) == {"COMM::XXX": "Scene 1, take 2", "TPE1": "Recorder", "TDRC": "2023-01-02"}
    own = info((b"IART", b"Ann"), (b"ICRD", b"2024"), (b"ICMT", b"In the rain"))
    assert read([recorder, own]) == {
        "TPE1": "Ann",
        "TDRC": "2024",
        "COMM::XXX": "In the rain",
        "TXXX:description": "Scene 1, take 2",
    }


def test_the_title_of_the_request_wins() -> None:
    chunks: Chunks = [info((b"INAM", b"From the file"))]
    assert read(chunks) == {"TIT2": "From the file"}
    assert read(chunks, "From the request \U0001f3b5") == {"TIT2": "From the request \U0001f3b5"}
    assert read([], "Alone") == {"TIT2": "Alone"}


@pytest.mark.parametrize(
    "chunks",
    [
        [],
        [info()],
        [info((b"INAM", b"\0"), (b"IART", b"  "), (b"ISFT", b"Lavf"))],
        [bext()],
        [(b"LIST", b"adtl"), (b"LIST", b""), (b"bext", b""), (b"id3 ", b"ID3")],
        [(b"LIST", b"INFO"), (b"LIST", b"INFOINAM"), (b"LIST", b"INFOINAM\xff")],
    ],
)
def test_chunks_that_say_nothing_make_no_tag(chunks: Chunks) -> None:
    assert make_id3(chunks, None) == b""
    assert make_id3(chunks, "") == b""


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"Zo\xc3\xab", "Zoë"),
        (b"Zo\xeb", "Zoë"),
        (b"Caf\xe9", "Café"),
        (b"\x93quoted\x94 \x80", "“quoted” €"),
        (b"a\x81\x8db", "ab"),
        ("日本".encode() + b"\xe6\x9c", "日本"),
        (b"a\0b", "a"),
        (b"  a \r\n\t b\x07 \x7f", "a b"),
        ("a\u202eb\u2066c\u0085d".encode(), "abc d"),
        ("👩\u200d🚒".encode(), "👩\u200d🚒"),
    ],
)
def test_texts_of_every_encoding_are_read_and_cleaned(raw: bytes, text: str) -> None:
    assert read([info((b"INAM", raw))]) == {"TIT2": text}


@pytest.mark.parametrize(
    ("raw", "date"),
    [
        (b"2024", "2024"),
        (b"2024-05", "2024-05"),
        (b"2024/05/06", "2024-05-06"),
        (b"2024:05:06 12:00", "2024-05-06"),
        (b"2024-13-01", "2024"),
        (b"0000-00-00", None),
        (b"20240506", None),
        (b"May 2024", None),
        ("٢٠٢٤".encode(), None),
    ],
)
def test_a_date_has_a_year_and_perhaps_month_and_day_or_is_left_out(raw: bytes, date: str | None) -> None:
    expected = {"TDRC": date} if date else {}
    assert read([info((b"ICRD", raw))]) == expected
    assert read([bext(date=raw[:10])]) == expected


@pytest.mark.parametrize("raw", [b"three", b"-1", b"3 of 12", b"12345", b"3/"])
def test_a_track_that_is_no_number_is_left_out(raw: bytes) -> None:
    assert read([info((b"ITRK", raw), (b"IPRT", b"7"))]) == {"TRCK": "7"}


def test_the_first_entry_that_says_something_counts() -> None:
    assert read([info((b"INAM", b""), (b"INAM", b"one")), info((b"INAM", b"two"))]) == {"TIT2": "one"}


def test_sizes_of_a_big_endian_file_are_read() -> None:
    entries = (b"INAM", b"A walk"), (b"IART", b"x" * 300), (b"IPRD", b"Walks")
    assert read([info(*entries, order="big")]) == read([info(*entries)])
    assert len(read([info(*entries)])) == 3


def test_texts_and_tag_have_a_bounded_length() -> None:
    long = "\U0001f3b5" * (2 * MAX_CHARACTERS)
    names = b"INAM", b"IART", b"IPRD", b"IGNR", b"ICMT", b"ICOP"
    texts = read([info(*((name, long.encode()) for name in names), (b"ITRK", b"1"))], long)
    assert texts["TIT2"] == "\U0001f3b5" * MAX_CHARACTERS
    # A small text still fits after larger ones were left out.
    assert texts["TRCK"] == "1"
    assert 4 <= len(texts) < len(names) + 1


def test_a_chunk_of_many_entries_is_read_in_bounded_time() -> None:
    many = b"INFO" + (b"IXYZ" + bytes(4)) * 100_000 + b"INAM\x01\0\0\0x"
    assert make_id3([(b"LIST", many)], None) == b""


@given(
    chunks=st.lists(
        st.tuples(
            st.sampled_from([b"LIST", b"bext"]),
            st.builds(bytes.__add__, st.sampled_from([b"", b"INFO", b"INFOINAM", b"INFOICRD"]), st.binary()),
        )
    ),
    title=st.none() | st.text(max_size=200),
)
def test_any_chunks_make_a_readable_tag_or_none(chunks: Chunks, title: str | None) -> None:
    if title:
        title = title.encode(errors="ignore").decode()
    for text in read(chunks, title).values():
        assert len(text) <= MAX_CHARACTERS
