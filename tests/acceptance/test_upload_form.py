"""POST /records: forms that are malformed or have wrong fields, and bodies of other types, are refused."""

from typing import Any

import pytest

from deploy.client import Client
from tests.acceptance.upload_client import post_form
from tests.response_checks import assert_json, assert_problem
from tests.upload_requests import BOUNDARY, FORM_TYPE, TINY_WAV, WAV_TYPE, FormPart, audio, bearer, make_form


def field(name: str, body: str | bytes = "x", filename: str | None = None) -> FormPart:
    return FormPart(name, body, filename)


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        pytest.param((field("colour"), audio()), "'colour'", id="an unknown field"),
        pytest.param((field("Audio", TINY_WAV, "a.wav"),), "'Audio'", id="audio in another case"),
        pytest.param((field(""), audio()), "''", id="a field without a name"),
        pytest.param((field("title"), field("title"), audio()), "'title'", id="a title twice"),
        pytest.param((audio(), audio()), "'audio'", id="two files"),
        pytest.param((audio(), field("audio2", TINY_WAV, "b.wav")), "'audio2'", id="two files, two names"),
        pytest.param((field("a%75dio", TINY_WAV, "a.wav"),), "'a%75dio'", id="an escaped name"),
        pytest.param((field("audio\0", TINY_WAV, "a.wav"),), "NUL", id="NUL in a name"),
        pytest.param((field("_charset_", "utf-16"), audio()), "'_charset_'", id="another character set"),
        pytest.param((field("bitrate_kbps", "64"), field("bitrate_kbps", "64")), "twice", id="two bitrates"),
        pytest.param((audio(), field("colour")), "'colour'", id="an unknown field behind the audio"),
        pytest.param((), "", id="nothing at all"),
        pytest.param((field("title"),), "'audio'", id="no audio"),
        pytest.param((field("title", "x" * 5000), audio()), "'title'", id="a field of 5 kB"),
        pytest.param((field("title", b"\xff"), audio()), "'title'", id="a field that is not UTF-8"),
        pytest.param((field("n" * 5000), audio()), "", id="a name of 5 kB"),
        pytest.param(tuple(field(f"f{i}") for i in range(100)), "", id="a hundred fields"),
    ],
)
def test_a_form_with_wrong_fields_is_refused(
    client: Client, user: dict[str, Any], parts: tuple[FormPart, ...], says: str
) -> None:
    response = post_form(client, *parts, headers=bearer(user))
    assert_problem(response, 400, "invalid-form", says)


@pytest.mark.parametrize(
    "content_type",
    ["multipart/form-data", "multipart/form-data; boundary=", f"{FORM_TYPE['Content-Type']}; boundary=b"],
)
def test_a_form_without_a_boundary_is_refused(
    client: Client, user: dict[str, Any], content_type: str
) -> None:
    headers = {"Content-Type": content_type, **bearer(user)}
    response = client.http.post("/records", content=make_form(audio()), headers=headers)
    assert_problem(response, 400, "invalid-form", "boundary", "your HTTP library sets it")


@pytest.mark.parametrize(
    ("boundary", "content_type"),
    [
        # Jakarta Mail and others write such boundaries without quotes.
        ("----=_Part_5_123.456", "multipart/form-data; boundary=----=_Part_5_123.456"),
        ("a:b(c)/d?e'f", "multipart/form-data;boundary=a:b(c)/d?e'f;charset=utf-8"),
        ("a; b=c", 'multipart/form-data; charset=utf-8; boundary="a; b=c"'),
        ("a", "Multipart/Form-Data ; Boundary = a"),
    ],
)
def test_a_boundary_may_be_written_in_every_way_that_clients_use(
    client: Client, user: dict[str, Any], boundary: str, content_type: str
) -> None:
    body = make_form(audio(), boundary=boundary)
    headers = {"Content-Type": content_type, **bearer(user)}
    assert_json(client.http.post("/records", content=body, headers=headers), 201)


FORM = make_form(audio())
HEADERS = b'Content-Disposition: form-data; name="audio"; filename="a.wav"\r\n'


def form_with(headers: bytes) -> bytes:
    """Returns a form of one form part, which has these headers."""
    return f"--{BOUNDARY}\r\n".encode() + headers + b"\r\n" + TINY_WAV + f"\r\n--{BOUNDARY}--\r\n".encode()


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\r\n", id="blank"),
        pytest.param(b"nonsense" * 1000, id="no boundary in it"),
        pytest.param(make_form(audio(), boundary="another"), id="another boundary"),
        pytest.param(FORM[: len(FORM) // 2], id="cut in the audio"),
        pytest.param(FORM[:-6], id="cut in the last boundary"),
        pytest.param(FORM[:40], id="cut in the headers"),
        pytest.param(form_with(b""), id="a form part without headers"),
        pytest.param(form_with(b"Content-Type: audio/wav\r\n"), id="a form part without a disposition"),
        pytest.param(form_with(b"Content-Disposition: attachment; name=audio\r\n"), id="no form-data"),
        pytest.param(form_with(b"Content-Disposition: form-data\r\n"), id="a form part without a name"),
        pytest.param(form_with(b"no header at all\r\n"), id="a header without a colon"),
        pytest.param(form_with(HEADERS + b"X-Header: x\r\n" * 200), id="two hundred headers"),
        pytest.param(form_with(HEADERS + b"X-Header: " + b"x" * 100_000 + b"\r\n"), id="a header of 100 kB"),
        pytest.param(FORM.replace(b"\r\n", b"\n"), id="bare line feeds"),
        pytest.param(make_form(FormPart("audio", TINY_WAV, "a\0b.wav")), id="NUL in the name of the file"),
        pytest.param(make_form(FormPart("audio", TINY_WAV, "a\r\nX-Header: b.wav")), id="two lines in it"),
        pytest.param(form_with(HEADERS + HEADERS), id="a header twice"),
        pytest.param(form_with(HEADERS + b"Content-Transfer-Encoding: base64\r\n"), id="base64"),
    ],
)
def test_a_malformed_form_is_refused(client: Client, user: dict[str, Any], body: bytes) -> None:
    response = client.http.post("/records", content=body, headers={**FORM_TYPE, **bearer(user)})
    assert_problem(response, 400, "invalid-form")


@pytest.mark.parametrize("other", ["audio/wav", "multipart/form-data; boundary=x", "text/plain"])
def test_two_content_types_are_refused(client: Client, user: dict[str, Any], other: str) -> None:
    headers = [*bearer(user).items(), *WAV_TYPE.items(), ("Content-Type", other)]
    response = client.http.post("/records", content=TINY_WAV, headers=headers)
    assert_problem(response, 400, "invalid-request", "Content-Type")


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "application/json",
        "text/plain",
        "application/octet-stream",
        "application/x-www-form-urlencoded",
        "audio/mpeg",
        "multipart/mixed; boundary=x",
        "nonsense",
    ],
)
def test_a_content_type_that_is_neither_form_nor_wav_is_refused(
    client: Client, user: dict[str, Any], content_type: str | None
) -> None:
    headers = bearer(user) | ({} if content_type is None else {"Content-Type": content_type})
    response = client.http.post("/records", content=TINY_WAV, headers=headers)
    assert_problem(response, 415, "unsupported-media-type", "multipart/form-data")


@pytest.mark.parametrize(
    "filename",
    [
        b'my "best" song.wav',
        b"gr\xfc\xdfe.wav",
        b"\xcf\xe5\xf1\xed\xff.wav",
        b"\x83\x5c\x95\x5c.wav",
        b"a\x1b[2J\x07b.wav",
        b"",
        "\u6f22".encode() * 255,
    ],
)
def test_the_name_of_the_file_may_have_any_encoding_and_quotes(
    client: Client, user: dict[str, Any], filename: bytes
) -> None:
    disposition = b'Content-Disposition: form-data; name="audio"; filename="%b"\r\n' % filename
    response = client.http.post(
        "/records", content=form_with(disposition), headers={**FORM_TYPE, **bearer(user)}
    )
    assert_json(response, 201)


def test_a_title_is_read_in_its_charset(client: Client, user: dict[str, Any]) -> None:
    title = (
        b'Content-Disposition: form-data; name="title"\r\nContent-Type: text/plain; charset=ISO-8859-1\r\n'
    )
    body = f"--{BOUNDARY}\r\n".encode() + title + b"\r\nGr\xfc\xdfe\r\n" + FORM
    response = client.http.post("/records", content=body, headers={**FORM_TYPE, **bearer(user)})
    assert assert_json(response, 201)["title"] == "Gr\u00fc\u00dfe"


def test_fields_that_come_from_files_may_have_a_byte_order_mark_and_credentials_a_newline(
    client: Client, user: dict[str, Any]
) -> None:
    credentials = (field("user_id", user["id"] + "\n"), field("token", f"\ufeff{user['token']}\r\n"))
    response = post_form(client, *credentials, field("title", "\ufeffA walk\n"), audio())
    assert assert_json(response, 201)["title"] == "A walk"


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "br", "deflate, gzip"])
def test_a_compressed_body_is_refused_and_its_encoding_named(
    client: Client, user: dict[str, Any], encoding: str
) -> None:
    headers = {**bearer(user), "Content-Encoding": encoding}
    for content, kind in ((TINY_WAV, WAV_TYPE), (FORM, FORM_TYPE)):
        response = client.http.post("/records", content=content, headers={**headers, **kind})
        assert_problem(response, 415, "unsupported-media-type", f"Content-Encoding '{encoding}'")
