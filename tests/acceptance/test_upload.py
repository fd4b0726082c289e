"""POST /records: a WAV becomes an MP3 behind a link, or is refused with the way out."""

import hashlib
from base64 import b64encode
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import httpx
import pytest
from mutagen.id3 import ID3
from mutagen.mp3 import MPEGInfo

from deploy.client import Client
from tests import judge, wavs
from tests.acceptance.answers import assert_json, assert_problem
from tests.acceptance.forms import (
    BOUNDARY,
    FORM_TYPE,
    NOBODY,
    TINY_WAV,
    WAV_TYPE,
    Part,
    audio,
    basic,
    bearer,
    make_form,
    token,
    user_id,
)
from tests.acceptance.wire import make_head, open_wire
from tests.wavs import Wav

MIB = 1 << 20
GIB = 1 << 30
CHALLENGE = 'Bearer realm="waxwing"'

Credentials = Callable[[dict[str, Any]], dict[str, str]]


def post_form(client: Client, *parts: Part, headers: dict[str, str] | None = None) -> httpx.Response:
    return client.http.post("/records", content=make_form(*parts), headers={**FORM_TYPE, **(headers or {})})


def post_wav(client: Client, user: dict[str, Any], wav: bytes = TINY_WAV, **query: str) -> httpx.Response:
    return client.http.post("/records", content=wav, params=query, headers={**WAV_TYPE, **bearer(user)})


def assert_record(client: Client, user: dict[str, Any], response: httpx.Response) -> dict[str, Any]:
    """Checks that an upload of TINY_WAV was taken, and that its MP3 can be had."""
    record = assert_json(response, 201)
    assert record["user_id"] == user["id"]
    assert record["duration_seconds"] == 0.1
    mp3 = client.http.get(record["url"])
    assert (mp3.status_code, mp3.headers["Content-Type"]) == (200, "audio/mpeg")
    assert hashlib.sha256(mp3.content).hexdigest() == record["sha256"]
    return record


def assert_wrong_credentials(response: httpx.Response, says: str) -> None:
    assert_problem(response, 401, "invalid-credentials", says)
    assert response.headers.get_list("WWW-Authenticate") == [CHALLENGE]


def one_at_a_time(data: bytes) -> Iterator[bytes]:
    """A body in pieces, which httpx sends chunked and without a length."""
    yield from (data[start : start + 1000] for start in range(0, len(data), 1000))


# What an upload may look like


def test_a_form_is_answered_with_the_record_and_its_link(
    client: Client, user: dict[str, Any], base_url: str
) -> None:
    wav = Wav(channels=2, rate=44100).build(wavs.music(seconds=2))
    response = post_form(client, user_id(user), token(user), Part("title", "A walk"), audio(wav))
    record = assert_json(response, 201)
    mp3 = client.download(record["url"])
    UUID(record["id"], version=4)
    assert datetime.fromisoformat(record["created_at"]).utcoffset() == timedelta(0)
    assert record == {
        "id": record["id"],
        "url": f"{base_url}/record?id={record['id']}&user={user['id']}",
        "user_id": user["id"],
        "title": "A walk",
        "duration_seconds": 2.0,
        "sample_rate": 44100,
        "channels": 2,
        "bitrate_kbps": 128,
        "peak_dbfs": record["peak_dbfs"],
        "rms_dbfs": record["rms_dbfs"],
        "truncated": False,
        "size_bytes": len(mp3),
        "sha256": hashlib.sha256(mp3).hexdigest(),
        "created_at": record["created_at"],
    }
    assert isinstance(record["duration_seconds"], float)
    assert -40 < record["rms_dbfs"] < record["peak_dbfs"] <= 0
    assert response.headers["Location"] == record["url"]
    assert judge.decode(mp3).seconds == 2


def test_the_answer_tells_what_the_mp3_is_and_not_what_was_asked_for(
    client: Client, user: dict[str, Any]
) -> None:
    wav = Wav(channels=1, rate=8000).build(wavs.sine(rate=8000, channels=1))
    record = assert_json(post_wav(client, user, wav), 201)
    # MPEG-2.5 ends at 64 kbit/s where LAME is asked for 128.
    assert (record["sample_rate"], record["channels"], record["bitrate_kbps"]) == (8000, 1, 64)
    assert record["duration_seconds"] == 1.0


@pytest.mark.parametrize(
    "order",
    [
        pytest.param((user_id, token, None), id="credentials first"),
        pytest.param((token, user_id, None), id="token first"),
        pytest.param((None, user_id, token), id="audio first"),
        pytest.param((user_id, None, token), id="audio between"),
    ],
)
def test_the_fields_of_a_form_may_come_in_any_order(
    client: Client, user: dict[str, Any], order: tuple[Callable[[dict[str, Any]], Part] | None, ...]
) -> None:
    response = post_form(client, *(part(user) if part else audio() for part in order))
    assert_record(client, user, response)


@pytest.mark.parametrize("credentials", [bearer, basic])
def test_a_form_may_have_its_credentials_in_a_header(
    client: Client, user: dict[str, Any], credentials: Credentials
) -> None:
    assert_record(client, user, post_form(client, audio(), headers=credentials(user)))


@pytest.mark.parametrize("credentials", [bearer, basic])
@pytest.mark.parametrize(
    "content_type", ["audio/wav", "audio/x-wav", "audio/wave", "audio/vnd.wave", "Audio/WAV"]
)
def test_a_bare_wav_is_taken_with_credentials_in_a_header(
    client: Client, user: dict[str, Any], credentials: Credentials, content_type: str
) -> None:
    headers = {"Content-Type": content_type, **credentials(user)}
    assert_record(client, user, client.http.post("/records", content=TINY_WAV, headers=headers))


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer "])
def test_the_name_of_the_scheme_may_be_in_any_case(client: Client, user: dict[str, Any], scheme: str) -> None:
    headers = {**WAV_TYPE, "Authorization": f"{scheme} {user['token']}"}
    assert_record(client, user, client.http.post("/records", content=TINY_WAV, headers=headers))


def test_a_bare_wav_may_be_sent_without_a_length(client: Client, user: dict[str, Any]) -> None:
    headers = {**WAV_TYPE, **bearer(user)}
    response = client.http.post("/records", content=one_at_a_time(TINY_WAV), headers=headers)
    assert response.request.headers["Transfer-Encoding"] == "chunked"
    assert_record(client, user, response)


def test_a_form_may_be_sent_without_a_length(client: Client, user: dict[str, Any]) -> None:
    body = one_at_a_time(make_form(user_id(user), token(user), audio()))
    response = client.http.post("/records", content=body, headers=FORM_TYPE)
    assert response.request.headers["Transfer-Encoding"] == "chunked"
    assert_record(client, user, response)


def test_uploading_the_same_wav_twice_makes_two_records(client: Client, user: dict[str, Any]) -> None:
    first, second = (assert_record(client, user, post_wav(client, user)) for _ in range(2))
    assert first["id"] != second["id"]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        pytest.param("A walk", "A walk", id="plain"),
        pytest.param("  A walk\n", "A walk", id="blanks around"),
        pytest.param("Zoe\u0308", "Zo\u00eb", id="composed"),
        pytest.param("x" * 200, "x" * 200, id="two hundred characters"),
        pytest.param("\U0001f3b5" * 200, "\U0001f3b5" * 200, id="two hundred characters of four bytes"),
        pytest.param("a & b = c + d % e", "a & b = c + d % e", id="what means something in a query"),
        pytest.param("", None, id="empty"),
        pytest.param(" ", None, id="blank"),
    ],
)
def test_a_title_is_kept_from_a_field_and_from_the_query(
    client: Client, user: dict[str, Any], given: str, kept: str | None
) -> None:
    field = post_form(client, Part("title", given), user_id(user), token(user), audio())
    query = post_wav(client, user, title=given)
    behind = post_form(client, user_id(user), token(user), audio(), Part("title", given))
    for response in (field, query, behind):
        assert assert_record(client, user, response)["title"] == kept


def test_the_title_stands_in_the_mp3_wherever_it_stood_in_the_form(
    client: Client, user: dict[str, Any]
) -> None:
    before = post_form(client, Part("title", "A w\u00e4lk \U0001f3b5"), audio(), headers=bearer(user))
    behind = post_form(client, audio(), Part("title", "A w\u00e4lk \U0001f3b5"), headers=bearer(user))
    for response in (before, behind):
        mp3 = client.download(assert_record(client, user, response)["url"])
        assert ID3(BytesIO(mp3)).getall("TIT2")[0].text == ["A w\u00e4lk \U0001f3b5"]
        assert judge.decode(mp3).seconds == 0.1


def test_an_mp3_of_which_nothing_is_said_has_no_tags(client: Client, user: dict[str, Any]) -> None:
    mp3 = client.download(assert_record(client, user, post_wav(client, user))["url"])
    assert mp3[:2] == b"\xff\xe3"


ALLOWED_KBPS = [32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320]


@pytest.mark.parametrize(
    ("rate", "given", "kept"),
    [
        *((44100, kbps, kbps) for kbps in ALLOWED_KBPS),
        *((22050, kbps, kbps) for kbps in (32, 64, 160)),
        # The lower versions of MPEG have less; the nearest is taken.
        *((22050, kbps, 160) for kbps in (192, 224, 256, 320)),
        *((8000, kbps, kbps) for kbps in (32, 64)),
        *((8000, kbps, 64) for kbps in (80, 320)),
    ],
)
def test_the_bitrate_is_what_was_asked_for_or_the_nearest_that_exists_and_the_answer_says_which(
    client: Client, user: dict[str, Any], rate: int, given: int, kept: int
) -> None:
    wav = Wav(rate=rate).build(wavs.noise(1, rate))
    field = post_form(client, Part("bitrate_kbps", str(given)), audio(wav), headers=bearer(user))
    for response in (field, post_wav(client, user, wav, bitrate_kbps=str(given))):
        record = assert_json(response, 201)
        assert (record["bitrate_kbps"], record["sample_rate"], record["channels"]) == (kept, rate, 2)
        mp3 = client.download(record["url"])
        info = MPEGInfo(BytesIO(mp3))
        assert (round(info.bitrate / 1000), info.length) == (kept, record["duration_seconds"])
        assert len(mp3) == record["size_bytes"]


def test_without_a_bitrate_it_is_128(client: Client, user: dict[str, Any]) -> None:
    response = post_wav(client, user, Wav().build(wavs.noise(0.1)), title="x")
    assert assert_json(response, 201)["bitrate_kbps"] == 128


@pytest.mark.parametrize(
    "given",
    ["", "0", "8", "31", "100", "321", "-128", "+128", "128.0", "128 ", "0128", "\u0661\u0662\u0668", "high"],
)
def test_a_bitrate_that_cannot_be_had_is_refused_with_those_that_can(
    client: Client, user: dict[str, Any], given: str
) -> None:
    field = post_form(client, Part("bitrate_kbps", given), audio(), headers=bearer(user))
    for response in (field, post_wav(client, user, bitrate_kbps=given)):
        assert_problem(response, 400, "invalid-form", ", ".join(map(str, ALLOWED_KBPS)))


def test_a_bitrate_behind_the_audio_is_refused_with_the_way_out(client: Client, user: dict[str, Any]) -> None:
    response = post_form(client, audio(), Part("bitrate_kbps", "64"), headers=bearer(user))
    assert_problem(response, 400, "invalid-form", "Put 'bitrate_kbps' in front of 'audio'")


def test_without_a_title_there_is_none(client: Client, user: dict[str, Any]) -> None:
    assert assert_record(client, user, post_wav(client, user))["title"] is None


def test_what_a_wav_says_of_itself_before_or_behind_its_audio_is_tagged_and_a_title_wins(
    client: Client, user: dict[str, Any]
) -> None:
    info = (b"LIST", b"INFO" + wavs.chunk(b"INAM", b"Its own") + wavs.chunk(b"IART", b"Somebody"))
    for wav in (Wav(before_data=(info,)), Wav(after=(info,))):
        for title, kept in ((None, "Its own"), ("Another", "Another")):
            query = {"title": title} if title else {}
            response = post_wav(client, user, wav.build(wavs.noise(0.1)), **query)
            tags = ID3(BytesIO(client.download(assert_record(client, user, response)["url"])))
            assert (tags["TIT2"].text, tags["TPE1"].text) == ([kept], ["Somebody"])


@pytest.mark.parametrize(
    ("title", "says"),
    [
        pytest.param("x" * 201, "has 201", id="too long"),
        pytest.param("a\0b", "U+0000", id="NUL"),
        pytest.param("a\r\nb", "U+000D", id="line break"),
        pytest.param("a\u202eb", "U+202E", id="right-to-left override"),
        pytest.param("a\uffff", "U+FFFF", id="a noncharacter"),
        pytest.param("\u200b \ufeff", "can be seen", id="nothing that can be seen"),
    ],
)
def test_a_title_that_is_not_allowed_is_refused(
    client: Client, user: dict[str, Any], title: str, says: str
) -> None:
    field = post_form(client, user_id(user), token(user), Part("title", title), audio())
    for response in (field, post_wav(client, user, title=title)):
        assert_problem(response, 400, "invalid-request", says)


@pytest.mark.parametrize(
    "filename",
    [
        *(
            "../../etc/passwd",
            "..\\..\\boot.ini",
            "a" * 1000 + ".wav",
            "recording",
            "t\u00f6ne.wav",
            "a.mp3",
            "CON",
        ),
        *(
            "a%00b%0D%0A.wav",
            "\u202evaw.exe",
            "a; name=title",
            ".",
            "|id",
        ),
    ],
)
def test_the_name_of_the_file_does_not_matter(client: Client, user: dict[str, Any], filename: str) -> None:
    parts = user_id(user), token(user), Part("audio", TINY_WAV, filename)
    assert_record(client, user, post_form(client, *parts))


# How its bytes may arrive


def test_a_form_may_be_cut_anywhere_by_the_network(client: Client, user: dict[str, Any]) -> None:
    body = make_form(user_id(user), token(user), audio())
    # Up to here: every boundary but the last, every field, and the header of the WAV.
    offsets = range(1, body.index(b"data", body.index(b"RIFF")) + 8)
    for offset in offsets:
        content = iter([body[:offset], body[offset:]])
        response = client.http.post("/records", content=content, headers=FORM_TYPE)
        assert_json(response, 201)
    assert len(offsets) > 200


def test_the_end_of_a_form_may_be_cut_anywhere_by_the_network(client: Client, user: dict[str, Any]) -> None:
    body = make_form(user_id(user), token(user), audio())
    end = len(f"\r\n--{BOUNDARY}--\r\n")
    for offset in range(len(body) - end, len(body)):
        content = iter([body[:offset], body[offset:]])
        assert_record(client, user, client.http.post("/records", content=content, headers=FORM_TYPE))


def test_a_form_may_arrive_byte_by_byte(client: Client, user: dict[str, Any], base_url: str) -> None:
    body = make_form(user_id(user), token(user), audio())
    head = make_head("POST", "/records", base_url, *lines(FORM_TYPE), f"Content-Length: {len(body)}")
    with open_wire(base_url) as wire:
        wire.send(head, *(body[at : at + 1] for at in range(len(body))))
        assert_record(client, user, wire.read_answer("POST"))


@pytest.mark.parametrize("epilogue", [b"", b"\r\n", b"Nobody reads this.", b"x" * MIB])
def test_what_follows_the_last_boundary_is_ignored(
    client: Client, user: dict[str, Any], epilogue: bytes
) -> None:
    form = make_form(user_id(user), token(user), audio())
    for body in (iter([form, epilogue]), iter([form[:-2], b"\r\n" + epilogue]), form + epilogue):
        assert_record(client, user, client.http.post("/records", content=body, headers=FORM_TYPE))


def test_what_precedes_the_first_boundary_is_ignored(client: Client, user: dict[str, Any]) -> None:
    body = b"This is a message in MIME format.\r\n" + make_form(user_id(user), token(user), audio())
    assert_record(client, user, client.http.post("/records", content=body, headers=FORM_TYPE))


@pytest.mark.parametrize("boundary", ["x", "x" * 70, "'()+_,-./:=?", "----WebKitFormBoundary7MA4YWxkTrZu0gW"])
def test_a_boundary_may_be_all_that_rfc_2046_allows(
    client: Client, user: dict[str, Any], boundary: str
) -> None:
    body = make_form(user_id(user), token(user), audio(), boundary=boundary)
    headers = {"Content-Type": f'multipart/form-data; boundary="{boundary}"'}
    assert_record(client, user, client.http.post("/records", content=body, headers=headers))


def lines(headers: dict[str, str]) -> list[str]:
    return [f"{name}: {value}" for name, value in headers.items()]


# Who may not


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param((), id="none"),
        pytest.param((user_id,), id="no token"),
        pytest.param((token,), id="no user"),
    ],
)
@pytest.mark.parametrize("audio_first", [False, True])
def test_a_form_without_credentials_is_refused(
    client: Client,
    user: dict[str, Any],
    parts: tuple[Callable[[dict[str, Any]], Part], ...],
    audio_first: bool,
) -> None:
    fields = [part(user) for part in parts]
    body = [audio(), *fields] if audio_first else [*fields, audio()]
    assert_wrong_credentials(post_form(client, *body), "Authorization")


def test_a_bare_wav_without_credentials_is_refused(client: Client) -> None:
    response = client.http.post("/records", content=TINY_WAV, headers=WAV_TYPE)
    assert_wrong_credentials(response, "Authorization")


@pytest.mark.parametrize("audio_first", [False, True])
@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"token": str(uuid4())}, id="another token"),
        pytest.param({"token": ""}, id="an empty token"),
        pytest.param({"token": "\0"}, id="a token of NUL"),
        pytest.param({"token": "\u00e9"}, id="a token beyond ASCII"),
        pytest.param({"id": str(uuid4())}, id="another user"),
        pytest.param({"id": ""}, id="an empty user"),
        pytest.param({"id": "' OR 1=1 --"}, id="a user that is no id"),
        pytest.param({"id": str(uuid4()), "token": str(uuid4())}, id="nobody"),
    ],
)
def test_wrong_credentials_and_unknown_users_get_one_answer(
    client: Client, user: dict[str, Any], wrong: dict[str, str], audio_first: bool
) -> None:
    fields = [user_id(user | wrong), token(user | wrong)]
    response = post_form(client, *([audio(), *fields] if audio_first else [*fields, audio()]))
    assert_wrong_credentials(response, "There is no user with this id and token")


def test_a_token_is_good_for_its_own_user_only(client: Client, user: dict[str, Any]) -> None:
    other = client.create_user("Other")
    mixed = {"id": other["id"], "token": user["token"]}
    says = "There is no user with this id and token"
    assert_wrong_credentials(post_form(client, user_id(mixed), token(mixed), audio()), says)
    assert_wrong_credentials(post_form(client, audio(), headers=basic(mixed)), says)


@pytest.mark.parametrize(
    "authorization",
    [
        "Bearer",
        "Bearer nonsense",
        f"Bearer {NOBODY}",
        "Bearer a b",
        "Basic",
        "Basic !!!",
        "Basic " + b64encode(b"\xff\xfe").decode(),
        "Basic " + b64encode(b"no colon").decode(),
        "Basic " + b64encode(b":").decode(),
        "Basic " + b64encode(f"{NOBODY}:{NOBODY}".encode()).decode(),
        'Digest username="x"',
        "nonsense",
        ",",
        "Bearer \u00e9",
    ],
)
@pytest.mark.parametrize("bare", [False, True])
def test_an_authorization_that_is_wrong_or_malformed_is_refused(
    client: Client, authorization: str, bare: bool
) -> None:
    kind = WAV_TYPE if bare else FORM_TYPE
    # As bytes, since httpx takes no header that is not ASCII otherwise.
    headers = [(name.encode(), value.encode()) for name, value in kind.items()]
    headers.append((b"Authorization", authorization.encode()))
    response = client.http.post("/records", content=TINY_WAV if bare else make_form(audio()), headers=headers)
    assert_wrong_credentials(response, "")


def test_a_header_is_not_mended_by_the_fields_of_the_form(client: Client, user: dict[str, Any]) -> None:
    headers = {"Authorization": f"Bearer {uuid4()}"}
    response = post_form(client, user_id(user), token(user), audio(), headers=headers)
    assert_wrong_credentials(response, "There is no user")


@pytest.mark.parametrize("credentials", [bearer, basic])
@pytest.mark.parametrize("audio_first", [False, True])
def test_credentials_in_header_and_form_are_refused(
    client: Client, user: dict[str, Any], credentials: Credentials, audio_first: bool
) -> None:
    fields = [user_id(user), token(user)]
    parts = [audio(), *fields] if audio_first else [*fields, audio()]
    assert_problem(post_form(client, *parts, headers=credentials(user)), 400, "invalid-form", "twice")


@pytest.mark.parametrize("names", [("user_id", "token"), ("token",)])
def test_credentials_in_the_query_are_never_taken(
    client: Client, user: dict[str, Any], names: tuple[str, ...]
) -> None:
    given = {"user_id": user["id"], "token": user["token"]}
    query = {name: given[name] for name in names}
    bare = client.http.post("/records", content=TINY_WAV, params=query, headers=WAV_TYPE)
    form = client.http.post("/records", content=make_form(audio()), params=query, headers=FORM_TYPE)
    for response in (bare, form):
        assert_problem(response, 400, "invalid-request", "query")
        assert user["token"] not in response.text


def test_a_right_upload_with_a_token_in_the_query_beside_is_refused(
    client: Client, user: dict[str, Any]
) -> None:
    assert_problem(post_wav(client, user, token=user["token"]), 400, "invalid-request", "'token'")
    form = make_form(user_id(user), token(user), audio())
    response = client.http.post("/records", content=form, params={"title": "x"}, headers=FORM_TYPE)
    assert_problem(response, 400, "invalid-request", "query")


def test_a_query_parameter_that_is_there_twice_is_refused(client: Client, user: dict[str, Any]) -> None:
    headers = {**WAV_TYPE, **bearer(user)}
    response = client.http.post("/records?title=a&title=b", content=TINY_WAV, headers=headers)
    assert_problem(response, 400, "invalid-request", "title")


# What is refused before the audio is read


def begin_upload(base_url: str, fields: bytes, *headers: str) -> httpx.Response:
    """Announces 1 GiB, sends the fields and a little audio, and reads the answer with the body incomplete."""
    head = make_head("POST", "/records", base_url, *headers, f"Content-Length: {GIB}")
    with open_wire(base_url) as wire:
        wire.send(head, fields, Wav().header(GIB - MIB), bytes(4096))
        return wire.read_answer("POST")


def test_wrong_credentials_in_fields_are_refused_before_the_audio_is_read(
    base_url: str, user: dict[str, Any]
) -> None:
    wrong = user | {"token": str(uuid4())}
    start = make_form(user_id(wrong), token(wrong), audio(b""))
    fields = start[: start.index(b"\r\n\r\n", start.index(b"recording.wav")) + 4]
    response = begin_upload(base_url, fields, *lines(FORM_TYPE))
    assert_wrong_credentials(response, "There is no user")


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param((), id="none"),
        pytest.param((f"Authorization: Bearer {uuid4()}",), id="Bearer"),
        pytest.param(("Authorization: Basic !",), id="Basic"),
    ],
)
def test_wrong_credentials_of_a_bare_wav_are_refused_before_it_is_read(
    base_url: str, headers: tuple[str, ...]
) -> None:
    assert_wrong_credentials(begin_upload(base_url, b"", *lines(WAV_TYPE), *headers), "")


def test_what_is_no_wav_is_refused_before_all_of_it_is_sent(base_url: str, user: dict[str, Any]) -> None:
    response = begin_upload(base_url, b"x" * 300_000, *lines(WAV_TYPE | bearer(user)))
    assert_problem(response, 415, "unsupported-audio", "'xxxx")


def test_a_content_type_that_is_not_read_is_refused_before_the_body_is_sent(
    base_url: str, user: dict[str, Any]
) -> None:
    response = begin_upload(base_url, b"", "Content-Type: application/json", *lines(bearer(user)))
    assert_problem(response, 415, "unsupported-media-type", "application/json")


def test_a_body_larger_than_the_limit_is_refused_at_once(base_url: str, user: dict[str, Any]) -> None:
    size = 4 * GIB + 1
    head = make_head("POST", "/records", base_url, *lines(WAV_TYPE | bearer(user)), f"Content-Length: {size}")
    with open_wire(base_url) as wire:
        wire.send(head)
        assert_problem(wire.read_answer("POST"), 413, "too-large", str(4 * GIB))


def test_a_body_of_the_limit_is_not_refused_for_its_size(base_url: str) -> None:
    head = make_head("POST", "/records", base_url, *lines(WAV_TYPE), f"Content-Length: {4 * GIB}")
    with open_wire(base_url) as wire:
        wire.send(head)
        assert_wrong_credentials(wire.read_answer("POST"), "Authorization")


def test_a_client_that_asks_first_is_refused_before_it_sends_anything(
    base_url: str, user: dict[str, Any]
) -> None:
    expecting = f"Authorization: Bearer {uuid4()}", "Expect: 100-continue", f"Content-Length: {GIB}"
    head = make_head("POST", "/records", base_url, *lines(WAV_TYPE), *expecting)
    with open_wire(base_url) as wire:
        wire.send(head)
        assert_wrong_credentials(wire.read_answer("POST"), "There is no user")


def test_a_refused_upload_never_breaks_the_next_request_of_its_client(
    client: Client, user: dict[str, Any]
) -> None:
    wrong = user | {"token": str(uuid4())}
    form = make_form(user_id(wrong), token(wrong), audio(Wav().build(wavs.noise(seconds=6))))
    assert len(form) > MIB
    for _ in range(300):
        assert_wrong_credentials(client.http.post("/records", content=form, headers=FORM_TYPE), "no user")
        assert assert_json(client.http.get("/healthz"), 200) == {"status": "ok"}


# What is no form


def field(name: str, body: str | bytes = "x", filename: str | None = None) -> Part:
    return Part(name, body, filename)


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
        pytest.param((field("audio\0", TINY_WAV, "a.wav"),), "control character", id="NUL in a name"),
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
    client: Client, user: dict[str, Any], parts: tuple[Part, ...], says: str
) -> None:
    response = post_form(client, *parts, headers=bearer(user))
    assert_problem(response, 400, "invalid-form", says)


@pytest.mark.parametrize("name", ["user_id", "token"])
def test_a_credential_that_is_there_twice_is_refused(client: Client, user: dict[str, Any], name: str) -> None:
    fields = [user_id(user), token(user)]
    twice = [part for part in fields if part.name == name]
    response = post_form(client, *twice, *fields, audio())
    assert_problem(response, 400, "invalid-form", name)


def test_a_field_of_five_kilobytes_is_refused_before_it_is_complete(
    base_url: str, user: dict[str, Any]
) -> None:
    start = make_form(Part("token", "x" * 100_000))[:90_000]
    assert_problem(begin_upload(base_url, start, *lines(FORM_TYPE)), 400, "invalid-form", "'token'")


@pytest.mark.parametrize("content_type", ["multipart/form-data", "multipart/form-data; boundary="])
def test_a_form_without_a_boundary_is_refused(
    client: Client, user: dict[str, Any], content_type: str
) -> None:
    headers = {"Content-Type": content_type, **bearer(user)}
    response = client.http.post("/records", content=make_form(audio()), headers=headers)
    assert_problem(response, 400, "invalid-form", "boundary")


FORM = make_form(audio())
HEADERS = b'Content-Disposition: form-data; name="audio"; filename="a.wav"\r\n'


def one_part(headers: bytes) -> bytes:
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
        pytest.param(one_part(b""), id="a part without headers"),
        pytest.param(one_part(b"Content-Type: audio/wav\r\n"), id="a part without a disposition"),
        pytest.param(one_part(b"Content-Disposition: attachment; name=audio\r\n"), id="no form-data"),
        pytest.param(one_part(b"Content-Disposition: form-data\r\n"), id="a part without a name"),
        pytest.param(one_part(b"no header at all\r\n"), id="a header without a colon"),
        pytest.param(one_part(HEADERS + b"X-Header: x\r\n" * 200), id="two hundred headers"),
        pytest.param(one_part(HEADERS + b"X-Header: " + b"x" * 100_000 + b"\r\n"), id="a header of 100 kB"),
        pytest.param(one_part(HEADERS + b"X-Header: " + b"\xff\xfe\r\n"), id="a header that is not UTF-8"),
        pytest.param(FORM.replace(b"\r\n", b"\n"), id="bare line feeds"),
        pytest.param(make_form(Part("audio", TINY_WAV, "a\0b.wav")), id="NUL in the name of the file"),
        pytest.param(make_form(Part("audio", TINY_WAV, "a\r\nX-Header: b.wav")), id="two lines in it"),
        pytest.param(one_part(HEADERS + HEADERS), id="a header twice"),
        pytest.param(one_part(HEADERS + b"Content-Transfer-Encoding: base64\r\n"), id="base64"),
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
def test_a_body_that_is_neither_form_nor_wav_is_refused(
    client: Client, user: dict[str, Any], content_type: str | None
) -> None:
    headers = bearer(user) | ({} if content_type is None else {"Content-Type": content_type})
    response = client.http.post("/records", content=TINY_WAV, headers=headers)
    assert_problem(response, 415, "unsupported-media-type", "multipart/form-data")


# What is no WAV, or not one of ours


def post_both_ways(client: Client, user: dict[str, Any], wav: bytes) -> list[httpx.Response]:
    """Uploads in a form, with the credentials before and behind, and bare."""
    fields = user_id(user), token(user)
    forms = [post_form(client, *fields, audio(wav)), post_form(client, audio(wav), *fields)]
    return [*forms, post_wav(client, user, wav)]


@pytest.mark.parametrize(
    ("wav", "says"),
    [
        pytest.param(Wav(tag=0x0045, bits=8), "0x0045 (G.726 ADPCM)", id="G.726"),
        pytest.param(Wav(tag=0x0031, bits=8), "0x0031 (GSM 6.10)", id="GSM"),
        pytest.param(Wav(tag=0x0055, bits=8), "0x0055 (MP3)", id="MP3 in a WAV"),
        pytest.param(Wav(tag=0x9999), "0x9999", id="a codec nobody knows"),
    ],
)
def test_a_codec_that_is_not_converted_is_named_with_the_way_out(
    client: Client, user: dict[str, Any], wav: Wav, says: str
) -> None:
    for response in post_both_ways(client, user, wav.build(wavs.sine())):
        problem = assert_problem(response, 415, "unsupported-audio", says)
        assert "ffmpeg -i in.wav -c:a pcm_s16le out.wav" in problem["detail"]


@pytest.mark.parametrize(
    ("wav", "says"),
    [
        pytest.param(Wav(channels=33), "33 channels", id="33 channels"),
        pytest.param(Wav(bits=65), "65 bit", id="65 bit"),
        pytest.param(Wav(bits=16, tag=0x0003), "16 bit", id="float of 16 bit"),
        pytest.param(Wav(rate=768_001), "768001 Hz", id="over 768 kHz"),
    ],
)
def test_a_pcm_that_is_not_converted_is_named_with_the_way_out(
    client: Client, user: dict[str, Any], wav: Wav, says: str
) -> None:
    body = wav.header(100_000) + bytes(100_000)
    for response in post_both_ways(client, user, body):
        problem = assert_problem(response, 415, "unsupported-audio", says)
        assert "ffmpeg -i in.wav" in problem["detail"]


PLAYLIST = b"#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:10.0,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        pytest.param(b"This is a text, and not even a short one.", "not a WAV", id="text"),
        pytest.param(PLAYLIST, "not a WAV", id="an HLS playlist"),
        pytest.param(b"\xff\xfb\x90\x64" + bytes(1000), "MP3", id="an MP3"),
        pytest.param(b"ID3\x04" + bytes(1000), "MP3", id="an MP3 with a tag"),
        pytest.param(b"fLaC" + bytes(1000), "FLAC", id="a FLAC"),
        pytest.param(b"OggS" + bytes(1000), "Ogg", id="an Ogg"),
        pytest.param(b"RIFF\0\0\0\0AVI " + bytes(1000), "AVI", id="an AVI"),
        pytest.param(b"<svg/>", "not a WAV", id="an SVG"),
        pytest.param(b"x", "not a WAV", id="one byte"),
        pytest.param(bytes(100_000), "not a WAV", id="zeros"),
    ],
)
def test_what_is_no_wav_is_refused_with_the_way_out(
    client: Client, user: dict[str, Any], body: bytes, says: str
) -> None:
    for response in post_both_ways(client, user, body):
        problem = assert_problem(response, 415, "unsupported-audio", says)
        assert "ffmpeg -i in" in problem["detail"]


WHOLE = Wav()
STREAMED = Wav(riff_size=wavs.UNKNOWN_SIZE, data_size=wavs.UNKNOWN_SIZE)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        pytest.param(b"", "0 bytes", id="nothing"),
        pytest.param(WHOLE.header(0), "no", id="0 frames"),
        pytest.param(STREAMED.header(0), "", id="0 frames of a stream"),
        pytest.param(WHOLE.header(4) + bytes(3), "frame", id="less than a frame"),
        pytest.param(WHOLE.header(1000)[:8], "8 bytes", id="cut in the RIFF header"),
        pytest.param(WHOLE.header(1000)[:12], "12 bytes", id="cut behind the RIFF header"),
        pytest.param(WHOLE.header(1000)[:30], "30 bytes", id="cut in the fmt chunk"),
        pytest.param(WHOLE.header(1000)[:36], "data chunk", id="cut behind the fmt chunk"),
        pytest.param(WHOLE.header(1000)[:40], "40 bytes", id="cut in the data chunk's header"),
        pytest.param(Wav(channels=0).header(1000) + bytes(1000), "0 channels", id="no channels"),
        pytest.param(Wav(rate=0).header(1000) + bytes(1000), "0 Hz", id="no rate"),
        pytest.param(Wav(block_align=3).header(1000) + bytes(1000), "block align", id="a wrong block align"),
    ],
)
def test_a_broken_wav_is_refused(client: Client, user: dict[str, Any], body: bytes, says: str) -> None:
    for response in post_both_ways(client, user, body):
        assert_problem(response, 422, "broken-audio", says)


def test_nothing_of_a_refused_upload_is_kept_and_its_client_may_try_again(
    client: Client, user: dict[str, Any]
) -> None:
    for _ in range(50):
        assert_problem(post_wav(client, user, WHOLE.header(0)), 422, "broken-audio")
    assert_record(client, user, post_wav(client, user))


# The address itself


def test_a_host_that_is_not_ours_is_refused_before_the_body_is_read(
    base_url: str, user: dict[str, Any]
) -> None:
    port = urlsplit(base_url).port
    head = make_head("POST", "/records", f"http://evil.example:{port}", *lines(WAV_TYPE | bearer(user)))
    head = head[:-2] + f"Content-Length: {GIB}\r\n\r\n".encode()
    with open_wire(base_url) as wire:
        wire.send(head, Wav().header(GIB - 44), bytes(4096))
        assert_problem(wire.read_answer("POST"), 421, "unknown-host", "evil.example")
