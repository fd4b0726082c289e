"""POST /records: title and bitrate of an upload, and the tags of its MP3."""

from io import BytesIO
from typing import Any

import pytest
from mutagen.id3 import ID3
from mutagen.mp3 import MPEGInfo

from deploy.client import Client
from tests import decoding, wavs
from tests.acceptance.upload_client import assert_record, post_form, post_wav
from tests.response_checks import assert_json, assert_problem
from tests.upload_requests import (
    FORM_TYPE,
    TINY_WAV,
    WAV_TYPE,
    FormPart,
    audio,
    bearer,
    make_form,
    token,
    user_id,
)
from tests.wavs import Wav


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        pytest.param("A walk", "A walk", id="plain"),
        pytest.param("  A walk\n", "A walk", id="blanks around"),
        pytest.param("Zoe\u0308", "Zo\u00eb", id="composed"),
        pytest.param("x" * 200, "x" * 200, id="two hundred characters"),
        pytest.param("\U0001f3b5" * 200, "\U0001f3b5" * 200, id="two hundred characters of four bytes"),
        pytest.param("a & b = c + d % e", "a & b = c + d % e", id="characters with a meaning in a query"),
        pytest.param("", None, id="empty"),
        pytest.param(" ", None, id="blank"),
    ],
)
def test_a_title_comes_from_a_form_field_or_from_the_query(
    client: Client, user: dict[str, Any], given: str, kept: str | None
) -> None:
    before_audio = post_form(client, FormPart("title", given), user_id(user), token(user), audio())
    behind_audio = post_form(client, user_id(user), token(user), audio(), FormPart("title", given))
    in_query = post_wav(client, user, title=given)
    form = make_form(audio())
    beside_form = client.http.post(
        "/records", content=form, params={"title": given}, headers={**FORM_TYPE, **bearer(user)}
    )
    for response in (before_audio, behind_audio, in_query, beside_form):
        assert assert_record(client, user, response)["title"] == kept


def test_a_record_without_a_title_has_none(client: Client, user: dict[str, Any]) -> None:
    assert assert_record(client, user, post_wav(client, user))["title"] is None


@pytest.mark.parametrize(
    ("title", "says"),
    [
        pytest.param("x" * 201, "has 201", id="too long"),
        pytest.param("a\0b", "U+0000", id="NUL"),
        pytest.param("a\r\nb", "U+000D", id="line break"),
        pytest.param("a\u202eb", "U+202E", id="right-to-left override"),
        pytest.param("a\uffff", "U+FFFF", id="a noncharacter"),
        pytest.param("\u200b \ufeff", "can be seen", id="only invisible characters"),
    ],
)
def test_a_title_that_is_not_allowed_is_refused(
    client: Client, user: dict[str, Any], title: str, says: str
) -> None:
    field = post_form(client, user_id(user), token(user), FormPart("title", title), audio())
    for response in (field, post_wav(client, user, title=title)):
        assert_problem(response, 400, "invalid-request", says)


def test_the_title_is_a_tag_of_the_mp3_wherever_it_stood_in_the_form(
    client: Client, user: dict[str, Any]
) -> None:
    before = post_form(client, FormPart("title", "A w\u00e4lk \U0001f3b5"), audio(), headers=bearer(user))
    behind = post_form(client, audio(), FormPart("title", "A w\u00e4lk \U0001f3b5"), headers=bearer(user))
    for response in (before, behind):
        mp3 = client.download(assert_record(client, user, response)["url"])
        assert ID3(BytesIO(mp3)).getall("TIT2")[0].text == ["A w\u00e4lk \U0001f3b5"]
        assert decoding.decode(mp3).seconds == 0.1


def test_an_mp3_has_no_tags_without_a_title_or_tags_of_the_wav(client: Client, user: dict[str, Any]) -> None:
    mp3 = client.download(assert_record(client, user, post_wav(client, user))["url"])
    assert mp3[:2] == b"\xff\xe3"


def test_the_tags_of_a_wav_become_those_of_the_mp3_and_a_given_title_wins(
    client: Client, user: dict[str, Any]
) -> None:
    info = (b"LIST", b"INFO" + wavs.chunk(b"INAM", b"Its own") + wavs.chunk(b"IART", b"Somebody"))
    for wav in (Wav(before_data=(info,)), Wav(after=(info,))):
        for title, kept in ((None, "Its own"), ("Another", "Another")):
            query = {"title": title} if title else {}
            response = post_wav(client, user, wav.build(wavs.noise(0.1)), **query)
            tags = ID3(BytesIO(client.download(assert_record(client, user, response)["url"])))
            assert (tags["TIT2"].text, tags["TPE1"].text) == ([kept], ["Somebody"])


ALLOWED_KBPS = [32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320]


@pytest.mark.parametrize(
    ("rate", "given", "kept"),
    [
        *((44100, kbps, kbps) for kbps in ALLOWED_KBPS),
        *((22050, kbps, kbps) for kbps in (32, 64, 160)),
        # MPEG-2 ends at 160 kbit/s and MPEG-2.5 at 64; a higher request is lowered to that.
        *((22050, kbps, 160) for kbps in (192, 224, 256, 320)),
        *((8000, kbps, kbps) for kbps in (32, 64)),
        *((8000, kbps, 64) for kbps in (80, 320)),
    ],
)
def test_the_bitrate_is_the_requested_one_or_the_highest_of_its_mpeg_version(
    client: Client, user: dict[str, Any], rate: int, given: int, kept: int
) -> None:
    wav = Wav(rate=rate).build(wavs.noise(1, rate))
    field = post_form(client, FormPart("bitrate_kbps", str(given)), audio(wav), headers=bearer(user))
    for response in (field, post_wav(client, user, wav, bitrate_kbps=str(given))):
        record = assert_json(response, 201)
        assert (record["bitrate_kbps"], record["sample_rate"], record["channels"]) == (kept, rate, 2)
        mp3 = client.download(record["url"])
        info = MPEGInfo(BytesIO(mp3))
        assert (round(info.bitrate / 1000), info.length) == (kept, record["duration_seconds"])
        assert len(mp3) == record["size_bytes"]


def test_the_default_bitrate_is_128(client: Client, user: dict[str, Any]) -> None:
    response = post_wav(client, user, Wav().build(wavs.noise(0.1)), title="x")
    assert assert_json(response, 201)["bitrate_kbps"] == 128


@pytest.mark.parametrize(
    "given",
    ["0", "8", "31", "100", "321", "-128", "+128", "128.0", "128 ", "0128", "\u0661\u0662\u0668", "high"],
)
def test_an_unknown_bitrate_is_refused_and_the_allowed_ones_are_named(
    client: Client, user: dict[str, Any], given: str
) -> None:
    field = post_form(client, FormPart("bitrate_kbps", given), audio(), headers=bearer(user))
    for response in (field, post_wav(client, user, bitrate_kbps=given)):
        assert_problem(response, 400, "invalid-form", ", ".join(map(str, ALLOWED_KBPS)))


def test_an_empty_bitrate_counts_as_no_bitrate(client: Client, user: dict[str, Any]) -> None:
    wav = Wav().build(wavs.noise(0.1))
    field = post_form(client, FormPart("bitrate_kbps", ""), audio(wav), headers=bearer(user))
    for response in (field, post_wav(client, user, wav, bitrate_kbps="")):
        assert assert_json(response, 201)["bitrate_kbps"] == 128


def test_options_beside_a_form_may_be_in_the_query_or_in_both_places_with_the_same_value(
    client: Client, user: dict[str, Any]
) -> None:
    wav = Wav().build(wavs.noise(0.1))
    form = make_form(FormPart("title", "A walk"), audio(wav))
    headers = {**FORM_TYPE, **bearer(user)}
    response = client.http.post("/records?title=A+walk&bitrate_kbps=64", content=form, headers=headers)
    record = assert_json(response, 201)
    assert (record["title"], record["bitrate_kbps"]) == ("A walk", 64)
    response = client.http.post("/records?title=B", content=form, headers=headers)
    assert_problem(response, 400, "invalid-form", "different values of 'title'")


@pytest.mark.parametrize(("in_query", "in_form"), [("true", "TRUE"), ("1", "true"), ("False", "0")])
def test_a_wish_for_the_original_may_be_in_both_places_in_other_words(
    client: Client, user: dict[str, Any], in_query: str, in_form: str
) -> None:
    form = make_form(FormPart("keep_original", in_form), audio(Wav().build(wavs.noise(0.1))))
    headers = {**FORM_TYPE, **bearer(user)}
    response = client.http.post(f"/records?keep_original={in_query}", content=form, headers=headers)
    is_kept = in_query in ("true", "1")
    assert (assert_json(response, 201)["original"] is not None) == is_kept
    other = "false" if is_kept else "true"
    response = client.http.post(f"/records?keep_original={other}", content=form, headers=headers)
    assert_problem(response, 400, "invalid-form", "different values of 'keep_original'")


def test_a_bitrate_behind_the_audio_is_refused(client: Client, user: dict[str, Any]) -> None:
    response = post_form(client, audio(), FormPart("bitrate_kbps", "64"), headers=bearer(user))
    assert_problem(response, 400, "invalid-form", "'bitrate_kbps' in front of 'audio', or into the query")


def test_a_query_parameter_that_is_sent_twice_is_refused(client: Client, user: dict[str, Any]) -> None:
    headers = {**WAV_TYPE, **bearer(user)}
    response = client.http.post("/records?title=a&title=b", content=TINY_WAV, headers=headers)
    assert_problem(response, 400, "invalid-request", "title")
