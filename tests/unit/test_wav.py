"""The WAV parser: every layout that real writers leave behind, and a clear refusal of the rest."""

import struct
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from records.audio import BrokenAudio, UnsupportedAudio
from records.audio.wav import MAX_BYTES_BEFORE_AUDIO, MAX_CHUNKS_BEFORE_AUDIO, WavParser
from tests.wavs import UNKNOWN_SIZE, Wav, chunk, sine

SOUND = sine(seconds=0.001)
AUDIO = Wav().build(SOUND)[44:]
ODD = (b"odd ", b"123")
unhurried = settings(deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])


def parse(*pieces: bytes) -> bytes:
    """Returns the audio of a WAV that arrives in these pieces."""
    parser = WavParser()
    audio = b"".join(bytes(view) for piece in pieces for view in parser.feed(piece))
    parser.finish()
    return audio


def outcome(*pieces: bytes) -> bytes | tuple[type[Exception], str]:
    """Returns the audio, or the refusal and its words; any other exception escapes."""
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
        Wav(riff_size=7),
    ],
    ids=repr,
)
def test_the_audio_is_found_in_every_layout_that_writers_leave(wav: Wav) -> None:
    data = wav.build(SOUND)
    assert parse(data) == AUDIO
    assert {parse(data[:cut], data[cut:]) for cut in range(len(data))} == {AUDIO}
    assert parse(*(data[at : at + 1] for at in range(len(data)))) == AUDIO


def test_the_format_says_what_the_fmt_chunk_says() -> None:
    parser = WavParser()
    wav = Wav(bits=24, channels=6, rate=48000, extensible=True, mask=0x3F, valid_bits=20)
    assert b"".join(parser.feed(wav.header(0))) == b""
    assert parser.format.channels == 6
    assert parser.format.sample_rate == 48000
    assert parser.format.sample_bytes == 3
    assert parser.format.frame_bytes == 18
    assert parser.format.channel_mask == 0x3F


def test_audio_that_ends_early_is_complete_as_far_as_it_goes() -> None:
    data = Wav().build(SOUND)
    assert parse(data[:-7]) == AUDIO[:-7]


def test_audio_of_unknown_size_goes_on_past_four_gib() -> None:
    parser = WavParser()
    piece = memoryview(bytes(64 << 20))
    assert b"".join(parser.feed(Wav(data_size=UNKNOWN_SIZE).header(0))) == b""
    audio_bytes = sum(len(view) for _ in range(65) for view in parser.feed(piece))
    assert audio_bytes == 65 * len(piece) > 1 << 32


def test_what_follows_the_announced_audio_is_ignored() -> None:
    assert parse(Wav().build(SOUND), b"\xff\xfegarbage" * 9, b"data") == AUDIO
    assert parse(Wav(data_size=len(AUDIO) - 8).build(SOUND)) == AUDIO[:-8]


def test_an_empty_data_chunk_of_a_finished_file_does_not_swallow_what_follows() -> None:
    assert parse(Wav(after=((b"LIST", b"INFO"),)).build(SOUND[:0])) == b""


@pytest.mark.parametrize(
    ("tag", "words"),
    [
        (0x0002, "0x0002 (Microsoft ADPCM)"),
        (0x0003, "0x0003 (IEEE float)"),
        (0x0006, "0x0006 (A-law)"),
        (0x0007, "0x0007 (µ-law)"),
        (0x0011, "0x0011 (IMA ADPCM)"),
        (0x0031, "0x0031 (GSM 6.10)"),
        (0x0055, "0x0055 (MP3)"),
        (0x1234, "0x1234;"),
    ],
)
@pytest.mark.parametrize("extensible", [False, True])
def test_another_codec_is_refused_by_tag_and_name_with_a_way_out(
    tag: int, words: str, extensible: bool
) -> None:
    with pytest.raises(UnsupportedAudio) as refusal:
        parse(Wav(tag=tag, extensible=extensible).build(SOUND))
    assert f"fmt chunk says codec {words}" in str(refusal.value)
    assert "integer PCM of 8, 16, 24 or 32 bit is supported" in str(refusal.value)
    assert "ffmpeg -i in.wav -c:a pcm_s16le out.wav" in str(refusal.value)


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
        (b"RIFX\0\0\0\0WAVE", "This is a big-endian WAV (RIFX)"),
        (b"RF64\xff\xff\xff\xffWAVE", "This is an RF64 WAV"),
        (b"BW64\xff\xff\xff\xffWAVE", "This is a BW64 WAV"),
        (b"RIFF\0\0\0\0AVI ", "This is AVI"),
        (b"RIFF\0\0\0\0WEBP", "This is not a WAV: it starts with 'RIFF\\x00\\x00\\x00\\x00WEBP'"),
        (b"<!DOCTYPE html>", "This is not a WAV: it starts with '<!DOCTYPE ht'"),
        (b"hello", "This is not a WAV: it starts with 'hello'"),
    ],
)
def test_a_file_that_is_no_wav_is_refused_by_what_it_looks_like(start: bytes, words: str) -> None:
    with pytest.raises(UnsupportedAudio) as refusal:
        parse(start)
    assert words in str(refusal.value)
    assert "ffmpeg -i in" in str(refusal.value)


@pytest.mark.parametrize(
    ("wav", "words"),
    [
        (Wav(bits=12, block_align=4), "PCM of 12 bit; integer PCM of 8, 16, 24 or 32 bit"),
        (Wav(bits=64), "PCM of 64 bit"),
        (Wav(channels=33, block_align=66), "33 channels; 1 to 32"),
    ],
)
def test_pcm_beyond_the_limits_is_refused_with_value_limit_and_way_out(wav: Wav, words: str) -> None:
    with pytest.raises(UnsupportedAudio) as refusal:
        parse(wav.header(400))
    assert words in str(refusal.value)
    assert "ffmpeg -i in.wav" in str(refusal.value)


WHOLE = Wav().build(SOUND)


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
        (WHOLE[:36] + WHOLE[12:], "two fmt chunks"),
        (WHOLE[:12] + WHOLE[36:], "before any fmt chunk"),
        (WHOLE[:12] + chunk(b"fmt ", bytes(14)), "fmt chunk says 14 bytes"),
        (WHOLE[:12] + struct.pack("<4sI", b"fmt ", 1 << 30), "fmt chunk says 1073741824 bytes; 16 to 1024"),
        (WHOLE[:36] + struct.pack("<4sI", b"ju\0k", 1 << 31), "Chunk 'ju\\x00k' says 2147483648 bytes"),
        (Wav(extensible=True, fmt_bytes=39).build(SOUND), "extensible fmt chunk has 39 bytes; it needs 40"),
        (Wav(channels=0).header(4), "0 channels"),
        (Wav(rate=0).header(4), "0 Hz"),
        (Wav(block_align=3).header(4), "block align of 3 bytes, but 2 channels of 16 bit take 4"),
        (Wav(extensible=True, valid_bits=17).header(4), "17 valid bits in samples of 16"),
    ],
)
def test_a_broken_wav_is_refused_with_what_is_wrong(data: bytes, words: str) -> None:
    with pytest.raises(BrokenAudio) as refusal:
        parse(data)
    assert words in str(refusal.value)


def test_endless_chunks_before_the_audio_are_refused() -> None:
    with pytest.raises(BrokenAudio, match=f"{MAX_CHUNKS_BEFORE_AUDIO} chunks"):
        parse(WHOLE[:36], chunk(b"a   ", b"") * MAX_CHUNKS_BEFORE_AUDIO)


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


@unhurried
@given(data=st.binary(max_size=200), cuts=st.lists(st.integers(0, 200), max_size=5))
@example(data=b"RIFF", cuts=[1])
def test_arbitrary_bytes_are_refused_with_the_same_words_however_they_are_cut(
    data: bytes, cuts: list[int]
) -> None:
    whole = outcome(data)
    assert isinstance(whole, tuple)
    assert outcome(*cut_up(data, cuts)) == whole


@unhurried
@given(
    wav=st.sampled_from([Wav(), Wav(extensible=True, before_fmt=(ODD,)), Wav(bits=24, before_data=(ODD,))]),
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
