"""The requests and responses of the records service, for its OpenAPI document."""

from typing import Any, get_args

from common.openapi import (
    MAY_HAVE_CREDENTIALS,
    NEEDS_CREDENTIALS,
    describe_header,
    describe_operation,
    describe_response,
    header_parameter,
    query_parameter,
)
from common.problems import InvalidCredentials, TooLarge, UnknownRoute, UnsupportedMediaType, UserBlocked
from common.text import make_pattern
from records.form import MAX_TITLE_LENGTH
from records.problems import (
    BrokenAudio,
    Busy,
    CredentialsTooLate,
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    InvalidForm,
    LargerThanQuota,
    LostRecord,
    NoOriginal,
    NoWaveform,
    OriginalsNotKept,
    OutOfProportion,
    PreconditionFailed,
    QuotaReached,
    RangeNotSatisfiable,
    RecordingTooLong,
    TooManyUploads,
    UnknownRecord,
    UnsupportedAudio,
    UploadInterrupted,
)
from records.settings import BitrateKbps

Json = dict[str, Any]

USER_ID = "5782688b-1430-4dac-ba89-4121f7da9f7c"
RECORD: Json = {
    "id": "1e181220-b82f-4504-bb37-775161dacc20",
    "url": f"http://127.0.0.1:8080/record?id=1e181220-b82f-4504-bb37-775161dacc20&user={USER_ID}",
    "listen_url": f"http://127.0.0.1:8080/listen?id=1e181220-b82f-4504-bb37-775161dacc20&user={USER_ID}",
    "user_id": USER_ID,
    "title": None,
    "duration_seconds": 10.0,
    "sample_rate": 44100,
    "channels": 2,
    "bitrate_kbps": 128,
    "peak_dbfs": -2.57,
    "rms_dbfs": -14.53,
    "truncated": False,
    "clipped": False,
    "size_bytes": 160496,
    "sha256": "8d8fa5a7f597a18272138238e40258940b0a8df63e469a9713b7ee98de420e79",
    "original": None,
    "created_at": "2026-11-21T15:48:13.320934Z",
    "lost_at": None,
}
WAVEFORM: Json = {
    "version": 2,
    "channels": 1,
    "sample_rate": 44100,
    "samples_per_pixel": 36864,
    "bits": 8,
    "length": 3,
    "data": [-94, 94, -95, 94, -94, 95],
}
CONDITIONS = [
    header_parameter("If-None-Match", "ETags. If one is the current ETag, the response is 304."),
    header_parameter(
        "If-Modified-Since",
        "A date. If the record is not newer, the response is 304. Ignored with If-None-Match.",
    ),
    header_parameter("If-Match", "ETags. If none is the current ETag, the response is 412."),
    header_parameter(
        "If-Unmodified-Since", "A date. If the record is newer, the response is 412. Ignored with If-Match."
    ),
]
HEADERS = {
    "Location": describe_header("The link of the record.", format="uri"),
    "Idempotency-Replayed": describe_header(
        "`true` if the response is the record of an earlier upload with this key; otherwise absent."
    ),
    "ETag": describe_header("A strong ETag. For the MP3 and the original it is the SHA-256."),
    "Last-Modified": describe_header("When the record was made."),
    "Cache-Control": describe_header("`private, no-cache`: caches may keep it, but must revalidate it."),
    "Accept-Ranges": describe_header("`bytes` if ranges are supported, otherwise `none`."),
    "Content-Range": describe_header("Which bytes of how many the response holds."),
    "Content-Disposition": describe_header("Whether to play or to save the bytes, and their file name."),
}
# Scripts of other sites may read this header too.
EXPOSED_RESPONSE_HEADERS = ("Idempotency-Replayed",)
VALIDATORS = ("ETag", "Last-Modified", "Cache-Control", "Accept-Ranges")
NOT_MODIFIED = describe_response("The client has the current version.", *VALIDATORS)
BINARY = {"type": "string", "format": "binary"}
TITLE_PATTERN = make_pattern(0, MAX_TITLE_LENGTH)
TITLE = {
    "type": "string",
    "pattern": TITLE_PATTERN,
    "description": f"A name for the record: up to {MAX_TITLE_LENGTH} characters after trimming, no control"
    " characters. A title that is not empty needs a visible character.",
}
NEW_TITLE = {"title": "Monday's rehearsal"}
DEFAULT_PAGE_RECORDS, MAX_PAGE_RECORDS = 50, 100
# The highest number of nine digits, which records.requests reads.
MAX_COUNT = 999_999_999
# Visible ASCII characters.
IDEMPOTENCY_KEY = "[!-~]{1,255}"
# Microseconds since 1970, and an id.
CURSOR = "([0-9]{1,17})-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"
BITRATE: Json = {
    "type": "integer",
    "enum": list(get_args(BitrateKbps)),
    "description": "Bitrate of the MP3; 128 by default. A deployment can have another default or range."
    " As a form field, it comes before `audio`.",
}
KEEP_ORIGINAL: Json = {
    "type": "boolean",
    "description": "Whether to keep the WAV as it arrives, beside its MP3, for `GET /records/{id}/original`."
    " It is about eleven times as large, and counts in the quota. `false` by default; a deployment can keep"
    " all that do not say `false`, or none (403). As a form field, it comes before `audio`, and so do the"
    " credentials.",
}
# The bitrate has a name, so that a generated client has one type for it and not one for each use.
REFERENCE_TO_BITRATE = {"$ref": "#/components/schemas/BitrateKbps"}
COMPONENTS = {"headers": HEADERS, "schemas": {"BitrateKbps": BITRATE}}
UPLOAD: Json = {
    "multipart/form-data": {
        "schema": {
            "type": "object",
            "required": ["audio"],
            "additionalProperties": False,
            # In this order: the service must know the other form fields before it converts the audio.
            "properties": {
                "user_id": {
                    "type": "string",
                    "format": "uuid",
                    "description": "With `token`, instead of an Authorization header.",
                },
                "token": {
                    "type": "string",
                    "description": "With `user_id`, instead of a header.",
                },
                "title": TITLE,
                "bitrate_kbps": REFERENCE_TO_BITRATE,
                "keep_original": KEEP_ORIGINAL,
                "audio": {**BINARY, "description": "The WAV."},
            },
        },
    },
    "audio/wav": {
        "schema": {
            **BINARY,
            "description": "The WAV. Needs an Authorization header.",
        }
    },
}

IN_QUERY = "The same as the form field. If an upload has both, their values must be the same."
ACCEPTED = """\
**The original WAV is kept only if you ask for it** (`keep_original=true`). Otherwise only the MP3 is stored:
keep your recordings.

Supported WAVs: RIFF, RIFX, RF64 and BW64; integer PCM of 1 to 64 bits, IEEE float of 32 and 64 bits, A-law,
µ-law, IMA ADPCM and Microsoft ADPCM; 1 to 32 channels (more than two are mixed down); 1 Hz to 768 kHz. For
another codec, the problem names the codec. A body may have up to 4 GiB, and a recording may last up to
24 hours, unless the deployment sets other limits (`MAX_UPLOAD_BYTES`, `MAX_DURATION_SECONDS`).
"""
ABOUT = f"{ACCEPTED}\n"
# Litestar takes descriptions and patterns from the fields' msgspec.Meta, but no formats.
FIELDS: dict[str, dict[str, Json]] = {
    "RecordDocument": {"url": {"format": "uri"}, "listen_url": {"format": "uri"}},
    "OriginalDocument": {"url": {"format": "uri"}},
}

POST_RECORD = describe_operation(
    "Upload a WAV",
    description=f"Converts the WAV to MP3 while it arrives, and returns the link.\n\n{ACCEPTED}",
    security=MAY_HAVE_CREDENTIALS,
    parameters=[
        {**query_parameter("title", IN_QUERY), "schema": TITLE},
        {**query_parameter("bitrate_kbps", IN_QUERY), "schema": REFERENCE_TO_BITRATE},
        {**query_parameter("keep_original", IN_QUERY), "schema": KEEP_ORIGINAL},
        header_parameter(
            "Idempotency-Key",
            "1 to 255 visible ASCII characters, such as a UUID. If an upload with this key has made a record"
            " in the last 24 hours, the response is that record (`Idempotency-Replayed: true`), and the audio"
            " is not read. If `bitrate_kbps` or `keep_original` (or its default) differs from that upload, or"
            " a `title` before the audio differs from the record's, the response is 422. The audio, a title"
            " after it, and the title of a record that was renamed, are not compared.",
            pattern=f"^{IDEMPOTENCY_KEY}$",
        ),
    ],
    requestBody={"required": True, "content": UPLOAD},
    responses={
        201: describe_response(
            "The record with its link.", "Location", "Idempotency-Replayed", example=RECORD
        )
    },
    problems=[
        *(InvalidForm, CredentialsTooLate, TooLarge, RecordingTooLong, UnsupportedMediaType),
        *(UnsupportedAudio, BrokenAudio, OutOfProportion, IdempotencyKeyInUse, IdempotencyKeyReused),
        *(TooManyUploads, Busy, UploadInterrupted, UserBlocked, QuotaReached, LargerThanQuota),
        OriginalsNotKept,
    ],
)
GET_RECORDS = describe_operation(
    "List my records, newest first",
    security=NEEDS_CREDENTIALS,
    parameters=[
        query_parameter(
            "q",
            "Only records whose title has this part, in upper or lower case. Russian \u0451 counts as \u0435."
            " Send it with every page.",
            type="string",
            pattern=TITLE_PATTERN,
        ),
        query_parameter(
            "limit",
            "The highest number of records on the page.",
            type="integer",
            minimum=1,
            maximum=MAX_PAGE_RECORDS,
            default=DEFAULT_PAGE_RECORDS,
        ),
        query_parameter(
            "cursor",
            "The `next_cursor` of the previous page. Leave it out for the first page.",
            type="string",
            pattern=f"^{CURSOR}$",
        ),
    ],
    responses={
        200: describe_response("A page of records.", example={"records": [RECORD], "next_cursor": None})
    },
)
GET_RECORD = describe_operation(
    "Show a record",
    security=NEEDS_CREDENTIALS,
    responses={200: describe_response("The record with its link.", example=RECORD)},
    problems=[UnknownRecord, UnknownRoute],
)
PATCH_RECORD = describe_operation(
    "Rename a record",
    description="The MP3 with the title in its tags, its link and its ETag stay as they are. The file name of"
    " a download follows the new title.",
    security=NEEDS_CREDENTIALS,
    requestBody={
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["title"],
                    "additionalProperties": False,
                    "properties": {
                        "title": {
                            **TITLE,
                            "type": ["string", "null"],
                            "description": f"{TITLE['description']} Null or empty: no title.",
                        }
                    },
                },
                "example": NEW_TITLE,
            }
        },
    },
    responses={200: describe_response("The record with its new title.", example={**RECORD, **NEW_TITLE})},
    problems=[TooLarge, UnsupportedMediaType, UserBlocked, UnknownRecord, UnknownRoute],
)
REMOVE_RECORD = describe_operation(
    "Delete a record",
    security=NEEDS_CREDENTIALS,
    responses={204: describe_response("The record, its MP3 and its original are gone.")},
    problems=[UserBlocked, UnknownRecord, UnknownRoute],
)
RANGES = [
    header_parameter(
        "Range",
        "One range of bytes, such as `bytes=0-99`. For several, the response has all bytes.",
    ),
    header_parameter(
        "If-Range", "An ETag or a date. If it is not the current one, the response has all bytes."
    ),
    *CONDITIONS,
]


def describe_bytes(what: str, media_type: str) -> dict[int, Json]:
    """Returns the responses that send a file, whole or a range of it."""
    content = {media_type: {"schema": BINARY}}
    return {
        200: describe_response(f"The {what}.", *VALIDATORS, "Content-Disposition", content=content),
        206: describe_response(
            f"The range of the {what}.",
            *(*VALIDATORS, "Content-Range", "Content-Disposition"),
            content=content,
        ),
        304: describe_response("The client has the current version.", *VALIDATORS, "Content-Disposition"),
    }


REFUSAL_PAGE = (
    "A browser that opens a link which does not work gets a page with the same status, and no problem."
)
LINK = [
    query_parameter("id", "The record's id.", required=True, type="string", format="uuid"),
    query_parameter("user", "The id of the record's user.", required=True, type="string", format="uuid"),
]
GET_RECORD_AUDIO = describe_operation(
    "Listen to a record",
    description=REFUSAL_PAGE,
    parameters=[
        *LINK,
        query_parameter(
            "download",
            "1 to save the MP3 instead of playing it.",
            type="string",
            enum=["0", "1", "false", "true"],
        ),
        *RANGES,
    ],
    responses=describe_bytes("MP3", "audio/mpeg"),
    problems=[UnknownRecord, LostRecord, PreconditionFailed, RangeNotSatisfiable],
    # HEAD ignores the header Range (RFC 9110 section 14.2).
    never_for_head=[206, 416],
)
GET_RECORD_PAGE = describe_operation(
    "Show the page of a record",
    description="For people: title, waveform, player and download, in English or Russian (Accept-Language)."
    f" {REFUSAL_PAGE}",
    parameters=LINK,
    responses={
        200: describe_response(
            "The page.",
            "Cache-Control",
            content={
                "text/html": {
                    "schema": {"type": "string"},
                    "example": '<!doctype html>\n<html lang="en">…</html>\n',
                }
            },
        )
    },
    problems=[UnknownRecord, LostRecord],
)
GET_RECORD_PICTURE = describe_operation(
    "Show the picture of a record",
    description="The waveform, 1200 by 630 pixels, for previews of the page.",
    parameters=[*LINK, *CONDITIONS],
    responses={
        200: describe_response("The picture.", *VALIDATORS[:3], content={"image/png": {"schema": BINARY}}),
        304: NOT_MODIFIED,
    },
    problems=[UnknownRecord, LostRecord, NoWaveform, PreconditionFailed],
)
GET_RECORD_ORIGINAL = describe_operation(
    "Get the original of a record",
    security=NEEDS_CREDENTIALS,
    parameters=RANGES,
    responses=describe_bytes("WAV", "audio/wav"),
    problems=[UserBlocked, UnknownRecord, UnknownRoute, NoOriginal, PreconditionFailed, RangeNotSatisfiable],
    never_for_head=[206, 416],
)
REMOVE_RECORD_ORIGINAL = describe_operation(
    "Delete the original of a record",
    security=NEEDS_CREDENTIALS,
    responses={204: describe_response("The original is gone, and the record stays.")},
    problems=[UserBlocked, UnknownRecord, UnknownRoute, NoOriginal],
)
GET_RECORD_WAVEFORM = describe_operation(
    "Draw a record",
    security=MAY_HAVE_CREDENTIALS,
    parameters=[
        query_parameter(
            "user", "The `user` of the record's link, instead of credentials.", type="string", format="uuid"
        ),
        query_parameter(
            "samples_per_pixel",
            "The lowest number of samples for a pixel. Not together with `points`.",
            type="integer",
            minimum=1,
            maximum=MAX_COUNT,
        ),
        query_parameter(
            "points",
            "The highest number of pixels. Not together with `samples_per_pixel`.",
            type="integer",
            minimum=1,
            maximum=MAX_COUNT,
        ),
        *CONDITIONS,
    ],
    responses={200: describe_response("The waveform.", *VALIDATORS, example=WAVEFORM), 304: NOT_MODIFIED},
    problems=[InvalidCredentials, UnknownRecord, UnknownRoute, NoWaveform, PreconditionFailed],
)
