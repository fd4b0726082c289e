"""Reading the body of an upload while it arrives, forms and bare WAVs, without any server."""

from collections.abc import AsyncIterator, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.problems import InvalidRequest, UnsupportedMediaType
from records.form import BLOCK_BYTES, MAX_FIELD_BYTES, AudioBegins, FormField, read_upload
from records.problems import InvalidForm

BOUNDARY = "XyZ"
FORM = ("multipart/form-data", f"multipart/form-data; boundary={BOUNDARY}")


def make_form(*fields: tuple[str, bytes]) -> bytes:
    parts = (
        b'--XyZ\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (name.encode(), value)
        for name, value in fields
    )
    return b"".join(parts) + b"--XyZ--\r\n"


async def arrive(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def read(
    pieces: Iterable[bytes],
    content_type: tuple[str, str] = FORM,
    query: tuple[tuple[str, str], ...] = (),
) -> tuple[list[FormField], bytes]:
    items = [item async for item in read_upload(arrive(pieces), content_type, query)]
    fields = [item for item in items if isinstance(item, FormField)]
    return fields, b"".join(item for item in items if isinstance(item, bytes))


USUAL = make_form(
    ("user_id", b"u"), ("token", b"t"), ("audio", b"RIFF\r\n--Xy\r\n--XyRIFF"), ("title", b"\xc3\xbc")
)
USUAL_FIELDS = [FormField("user_id", "u"), FormField("token", "t"), FormField("title", "ü")]
USUAL_AUDIO = b"RIFF\r\n--Xy\r\n--XyRIFF"


async def test_a_form_reads_the_same_wherever_the_network_cuts_it() -> None:
    for cut in range(len(USUAL) + 1):
        assert await read([USUAL[:cut], USUAL[cut:]]) == (USUAL_FIELDS, USUAL_AUDIO)
    assert await read([bytes([byte]) for byte in USUAL]) == (USUAL_FIELDS, USUAL_AUDIO)


async def test_the_beginning_of_the_audio_is_announced_after_all_fields_in_front_of_it() -> None:
    items = [item async for item in read_upload(arrive([USUAL]), FORM, ())]
    assert items == [*USUAL_FIELDS[:2], AudioBegins(), USUAL_AUDIO, USUAL_FIELDS[2]]
    bare = read_upload(arrive([b"RIFF"]), ("audio/wav", ""), [("title", "ü")])
    assert [item async for item in bare] == [USUAL_FIELDS[2], AudioBegins(), b"RIFF"]


async def test_an_epilogue_is_ignored_even_in_a_piece_of_its_own() -> None:
    assert await read([USUAL, b"epilogue\r\n"]) == (USUAL_FIELDS, USUAL_AUDIO)


async def test_long_audio_comes_in_blocks_and_not_whole() -> None:
    audio = bytes(5 * BLOCK_BYTES)
    body = make_form(("audio", audio))
    pieces = [body[start : start + 65536] for start in range(0, len(body), 65536)]
    for content_type, arriving in ((FORM, pieces), (("audio/wav", ""), [audio[:65536]] * 80)):
        blocks = [
            item async for item in read_upload(arrive(arriving), content_type, ()) if isinstance(item, bytes)
        ]
        assert len(blocks) > 1
        assert max(len(block) for block in blocks) < 2 * BLOCK_BYTES
        assert sum(len(block) for block in blocks) == sum(map(len, arriving)) - (len(body) - len(audio)) * (
            content_type is FORM
        )


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (make_form(("audio", b"RIFF"), ("audio", b"RIFF")), "'audio' twice"),
        (make_form(("user_id", b"u"), ("user_id", b"u")), "'user_id' twice"),
        (make_form(("name", b"u")), "'name' is unknown"),
        (make_form(("audio", b"RIFF"), ("bitrate_kbps", b"64")), "'bitrate_kbps' comes too late"),
        (make_form(("audio", b"RIFF"), ("keep_original", b"1")), r"stored while it .*\?keep_original=true"),
        (make_form(("", b"u")), "'' is unknown"),
        (make_form(("user_id", b"u"), ("token", b"t")), "no form part 'audio'"),
        (make_form(("title", b"x" * (MAX_FIELD_BYTES + 1))), "longer than 4096 bytes"),
        (make_form(("title", b"\xff")), "not UTF-8"),
        (make_form(("audio", b"RIFF"))[:-10], "malformed"),
        (b"", "malformed"),
        (b"--XyZ\r\n\r\n--XyZ--\r\n", "malformed"),
        (b"--XyZ\r\n" + b"A: b\r\n" * 100 + b"\r\n\r\n--XyZ--\r\n", "malformed"),
        (b"--XyZ\r\nContent-Disposition: form-data; name=" + b"a" * 10000, "malformed"),
        (b'--XyZ\r\nContent-Disposition: attachment; name="audio"\r\n\r\n', "malformed"),
    ],
)
async def test_a_malformed_form_is_refused_with_the_reason(body: bytes, words: str) -> None:
    with pytest.raises(InvalidForm, match=words):
        await read([body])


NAME = b'Content-Disposition: form-data; name="audio"'


def make_part(headers: bytes) -> bytes:
    return b"--XyZ\r\n" + headers + b"\r\n\r\nRIFF\r\n--XyZ--\r\n"


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        (NAME + b"\r\nContent-Transfer-Encoding: base64", "encoded as 'base64'"),
        (NAME + b"\r\nContent-Transfer-Encoding: Quoted-Printable", "encoded as 'Quoted-Printable'"),
        (NAME + b"\r\nContent-Transfer-Encoding: ", "encoded as ''"),
        (NAME + b"\r\n" + NAME, "Content-Disposition twice"),
        (NAME + b"\r\nContent-Type: audio/wav\r\ncontent-type: audio/wav", "Content-Type twice"),
        (NAME + b"\r\nX: a\r\nx: b", "X twice"),
        (NAME + b'; name="title"', "parameter 'name' twice"),
        (NAME + b'; NAME="title"', "parameter 'name' twice"),
        (NAME + b'; filename="a.wav"; filename="b.wav"', "parameter 'filename' twice"),
        (NAME + b"\r\nContent-Type: audio/wav; a=b; a=b", "parameter 'a' twice"),
        (NAME + b'; filename="a\0b.wav"', "a NUL or a line break"),
        (NAME + b'; filename="a\rb.wav"', "a NUL or a line break"),
        (NAME + b"\r\nX: a\0b", "a NUL or a line break"),
        (NAME + b'; filename="a\r\nX-Header: b.wav"', "malformed"),
        (NAME + b'; filename="a', "malformed"),
        (NAME + b'; filename="a"; name="title"b.wav"', "malformed"),
        (NAME + b'; filename=a b.wav; name="title"', "malformed"),
        (NAME + b'; filename="a"b.wav"; filename="c.wav"', "malformed"),
        (NAME + b'; filename="a"b.wav', "malformed"),
        (NAME + b'; filename="a"b"; name="title"; filename*=UTF-8\'\'a', "malformed"),
        (NAME + b"; filename=; name=title", "malformed"),
        (NAME + b";\x0bfilename=a", "malformed"),
        (NAME + b"; filename", "malformed"),
        (NAME + b'; other="a"b"', "malformed"),
    ],
)
async def test_a_form_part_that_other_programs_read_differently_is_refused(
    headers: bytes, words: str
) -> None:
    with pytest.raises(InvalidForm, match=words):
        await read([make_part(headers)])


@pytest.mark.parametrize(
    "headers",
    [
        *(NAME + b"\r\nContent-Transfer-Encoding: " + each for each in (b"7bit", b"8BIT", b"binary\t")),
        *(NAME + b"; filename=" + each for each in (b'"a; name=title"', b'"a\\"b\\\\.wav"', b"\xc3\xa9.wav")),
        NAME + b";filename*=UTF-8''%C3%A9.wav ; filename=\"\" ;",
        NAME + b';\r\n\tfilename="a.wav"\r\nContent-Type: audio/wav;rate=8000; channels="1"\r\nX: a; a; a',
        b"content-disposition:form-data ; name=audio",
        # File names with quotes and spaces, in Latin-1, code page 1251 and Shift-JIS.
        NAME + b'; filename="my "best" song.wav"',
        NAME + b"; filename=my best song.wav",
        NAME + b'; filename="C:\\x\\a.wav"',
        NAME + b'; filename="gr\xfc\xdfe.wav"\r\nContent-Type: audio/wav',
        NAME + b"; filename=\xcf\xe5\xf1\xed\xff.wav",
        NAME + b'; filename="\x83\x5c\x95\x5c".wav"',
        NAME + b"\r\nX-Header: \xff\xfe",
        # With the extended form of the same name behind it.
        NAME + b'; filename="my "best" song.wav"; filename*=UTF-8\'\'my%20%22best%22%20song.wav',
        NAME + b"; filename=my best song.wav ; FileName* = UTF-8''a.wav",
        # Empty, with control characters, and as long as a file system allows, in both forms.
        NAME + b"; filename=",
        NAME + b"; filename=; filename*=UTF-8''a.wav",
        NAME + b'; filename="a\x1b[2J\x07\x7f\tb.wav"',
        NAME + b"; filename=\"%b\"; filename*=UTF-8''%b" % ("\u6f22".encode() * 255, b"%E6%BC%A2" * 255),
    ],
)
async def test_a_form_part_may_be_written_in_every_unambiguous_way(headers: bytes) -> None:
    assert await read([make_part(headers)]) == ([], b"RIFF")


@pytest.mark.parametrize(("length", "is_taken"), [(1, True), (70, True), (71, False)])
async def test_a_boundary_has_1_to_70_characters(length: int, is_taken: bool) -> None:
    boundary = "x" * length
    form = USUAL.replace(BOUNDARY.encode(), boundary.encode())
    reading = read([form], ("multipart/form-data", f"multipart/form-data; boundary={boundary}"))
    if is_taken:
        assert (await reading)[0] == USUAL_FIELDS
    else:
        with pytest.raises(InvalidForm, match="1 to 70"):
            await reading


async def test_a_body_of_another_type_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedMediaType, match="'text/plain'"):
        await read([b""], ("text/plain", ""))
    with pytest.raises(InvalidForm, match="needs one boundary"):
        await read([b""], ("multipart/form-data", ""))


async def test_the_query_of_a_bare_wav_has_title_and_bitrate_but_never_credentials() -> None:
    assert await read([b"RIFF"], ("audio/wav", ""), (("title", "x"),)) == ([FormField("title", "x")], b"RIFF")
    both = (("bitrate_kbps", "192"), ("title", "x"))
    assert await read([b"RIFF"], ("audio/wav", ""), both) == ([FormField(*each) for each in both], b"RIFF")
    with pytest.raises(InvalidRequest, match="'title'; allowed, once each"):
        await read([b"RIFF"], ("audio/wav", ""), (("title", "x"), *both))
    with pytest.raises(InvalidRequest, match="'token'; allowed, once each"):
        await read([b"RIFF"], ("audio/wav", ""), (("token", "x"),))
    with pytest.raises(InvalidRequest, match="'token'; allowed, once each"):
        await read([USUAL], FORM, (("token", "x"),))


async def test_the_query_beside_a_form_has_title_and_bitrate() -> None:
    form = make_form(("audio", b"RIFF"), ("title", b"x"))
    assert await read([form], FORM, (("bitrate_kbps", "192"), ("title", "x"))) == (
        [FormField("bitrate_kbps", "192"), FormField("title", "x")],
        b"RIFF",
    )
    with pytest.raises(InvalidForm, match="different values of 'title'"):
        await read([form], FORM, (("title", "y"),))
    with pytest.raises(InvalidForm, match=r"or into the query: POST /records\?bitrate_kbps=192"):
        await read([make_form(("audio", b"RIFF"), ("bitrate_kbps", b"64"))])


WAV = ("audio", b"RIFF")


@pytest.mark.parametrize(
    ("in_query", "form", "values"),
    [
        (("bitrate_kbps", "64"), (("bitrate_kbps", b""), WAV), ["64"]),
        (("bitrate_kbps", "64"), (WAV, ("bitrate_kbps", b"64")), ["64"]),
        (("bitrate_kbps", ""), (("bitrate_kbps", b"64"), WAV), ["", "64"]),
        (("bitrate_kbps", ""), (WAV, ("bitrate_kbps", b"")), ["", ""]),
        (("title", "A walk"), (("title", b""), WAV), ["A walk"]),
        (("title", "A walk"), (WAV, ("title", b"  A walk\r\n")), ["A walk"]),
        (("title", "\u00e9"), (("title", "e\u0301".encode()), WAV), ["\u00e9"]),
        (("title", ""), (WAV, ("title", b"A walk")), ["", "A walk"]),
    ],
)
async def test_query_and_form_agree_about_an_option_if_it_is_empty_in_one_of_them_or_means_the_same(
    in_query: tuple[str, str], form: tuple[tuple[str, bytes], ...], values: list[str]
) -> None:
    fields, audio = await read([make_form(*form)], FORM, (in_query,))
    assert ([field.value for field in fields], audio) == (values, b"RIFF")


async def test_an_option_behind_the_audio_must_not_differ_from_the_query() -> None:
    for name, value in (("bitrate_kbps", b"64"), ("title", b"a walk")):
        with pytest.raises(InvalidForm, match=f"different values of '{name}'"):
            await read([make_form(WAV, (name, value))], FORM, ((name, "A walk"),))


def make_text_part(content_type: bytes, title: bytes) -> bytes:
    part = b'--XyZ\r\nContent-Disposition: form-data; name="title"\r\nContent-Type: %b\r\n\r\n%b\r\n'
    return part % (content_type, title) + make_form(("audio", b"RIFF"))


@pytest.mark.parametrize(
    ("charset", "title"),
    [
        (b"", "ü".encode()),
        (b"; charset=UTF-8", "ü".encode()),
        (b"; charset=ISO-8859-1", b"\xfc"),
        (b'; charset="windows-1252"', b"\xfc"),
        (b";charset=utf-16", "ü".encode("utf-16")),
    ],
)
async def test_a_field_is_read_in_the_charset_that_it_names(charset: bytes, title: bytes) -> None:
    body = make_text_part(b"text/plain" + charset, title)
    assert await read([body]) == ([FormField("title", "ü")], b"RIFF")


@pytest.mark.parametrize(
    ("charset", "words"),
    [
        (b"klingon", "unknown charset 'klingon'"),
        (b"hex", "unknown charset 'hex'"),
        (b"ascii", "is not ASCII, which is its charset"),
    ],
)
async def test_a_field_whose_charset_cannot_be_read_is_refused_by_name(charset: bytes, words: str) -> None:
    with pytest.raises(InvalidForm, match=words):
        await read([make_text_part(b"text/plain; charset=" + charset, b"\xfc")])


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
async def test_the_newline_of_a_file_with_an_id_or_a_token_does_not_count(newline: bytes) -> None:
    form = make_form(("user_id", b"u" + newline), ("token", b"t" + newline), ("audio", b"RIFF"))
    assert (await read([form]))[0] == USUAL_FIELDS[:2]


@given(st.binary(max_size=300))
async def test_no_body_breaks_the_reader(body: bytes) -> None:
    for content in (body, make_form(("audio", body)), b"--XyZ\r\n" + body):
        try:
            await read([content])
        except InvalidForm as problem:
            assert problem.detail.startswith("The f")
