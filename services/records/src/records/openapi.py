"""What the routes read and answer, for the OpenAPI document."""

from typing import Any, get_args

from common.openapi import MAY_HAVE_CREDENTIALS, NEEDS_CREDENTIALS, answer, describe, header, query
from common.problems import InvalidCredentials, TooLarge, UnknownRoute, UnsupportedMediaType
from common.text import make_pattern
from records.problems import (
    BrokenAudio,
    Busy,
    CredentialsTooLate,
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    InvalidForm,
    NoWaveform,
    PreconditionFailed,
    RangeNotSatisfiable,
    RecordingTooLong,
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
    "user_id": USER_ID,
    "title": None,
    "duration_seconds": 10.0,
    "sample_rate": 44100,
    "channels": 2,
    "bitrate_kbps": 128,
    "peak_dbfs": -2.57,
    "rms_dbfs": -14.53,
    "truncated": False,
    "size_bytes": 160496,
    "sha256": "8d8fa5a7f597a18272138238e40258940b0a8df63e469a9713b7ee98de420e79",
    "created_at": "2026-11-21T15:48:13.320934Z",
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
    header("If-None-Match", "ETags; 304 where one is the present one."),
    header("If-Modified-Since", "A date; 304 where the record is not later. Ignored beside If-None-Match."),
    header("If-Match", "ETags; 412 where none is the present one."),
    header("If-Unmodified-Since", "A date; 412 where the record is later. Ignored beside If-Match."),
]
VALIDATORS = ("ETag", "Last-Modified", "Cache-Control", "Accept-Ranges")
NOT_MODIFIED = answer("The client has it already.", *VALIDATORS)
BINARY = {"type": "string", "format": "binary"}
TITLE = {
    "type": "string",
    "pattern": make_pattern(0, 200),
    "description": "A name for the record: up to 200 characters after trimming, where there are any at least"
    " one of them visible; no control characters.",
}
# Visible ASCII.
IDEMPOTENCY_KEY = "[!-~]{1,255}"
# Microseconds since 1970, and an id.
CURSOR = "([0-9]{1,17})-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"
BITRATE: Json = {
    "type": "integer",
    "enum": list(get_args(BitrateKbps)),
    "description": "Of the MP3; 128 where none is asked for. A deployment may have another default or range.",
}
UPLOAD: Json = {
    "multipart/form-data": {
        "schema": {
            "type": "object",
            "required": ["audio"],
            "additionalProperties": False,
            # In this order: what stands in front of the audio is known before any of it is converted.
            "properties": {
                "user_id": {
                    "type": "string",
                    "format": "uuid",
                    "description": "With `token`, instead of an Authorization header.",
                },
                "token": {"type": "string", "description": "With `user_id`, instead of the header."},
                "title": TITLE,
                "bitrate_kbps": {**BITRATE, "description": BITRATE["description"] + " In front of `audio`."},
                "audio": {**BINARY, "description": "The WAV. It is not kept."},
            },
        },
        "encoding": {"audio": {"contentType": "audio/wav"}},
    },
    "audio/wav": {
        "schema": {
            **BINARY,
            "description": "The WAV itself, which is not kept; needs an Authorization header.",
        }
    },
}

ONLY_BARE = "**For a bare WAV (`audio/wav`) only.** Of a form it is a field, and the query is empty."
ACCEPTED = """\
**The original WAV is not kept.** Only the MP3 is stored: keep your recordings.

Every WAV is taken: RIFF, RIFX, RF64 and BW64; integer PCM of 1 to 64 bit, IEEE float of 32 and 64 bit, A-law,
µ-law, IMA and Microsoft ADPCM; 1 to 32 channels, of which more than two are mixed down; 1 Hz to 768 kHz.
Other codecs are refused by name. A body has up to 4 GiB and a recording lasts up to 24 hours, if the
deployment has not set other limits (`MAX_UPLOAD_BYTES`, `MAX_DURATION_SECONDS`).
"""
ABOUT = f"{ACCEPTED}\n"
# Litestar takes descriptions and patterns from the fields' msgspec.Meta, but no formats.
FIELDS: dict[str, dict[str, Json]] = {"RecordDocument": {"url": {"format": "uri"}}}

POST_RECORD = describe(
    "Upload a WAV",
    description=f"Converts the WAV to MP3 while it arrives, and answers with the link.\n\n{ACCEPTED}",
    security=MAY_HAVE_CREDENTIALS,
    parameters=[
        {**query("title", ONLY_BARE), "schema": TITLE},
        {**query("bitrate_kbps", ONLY_BARE), "schema": BITRATE},
        header(
            "Idempotency-Key",
            "1 to 255 visible characters, such as a UUID. An upload with a key that has made a record in the"
            " last 24 hours is answered with that record, without its audio (`Idempotency-Replayed: true`)."
            " `bitrate_kbps` (the default where none is given) must be the same, and a `title` in front of"
            " the audio the record's, or it is 422; the audio, and a title behind it, are not compared.",
            pattern=f"^{IDEMPOTENCY_KEY}$",
        ),
    ],
    requestBody={"required": True, "content": UPLOAD},
    responses={201: answer("The record with its link.", "Location", "Idempotency-Replayed", example=RECORD)},
    problems=[
        *(InvalidForm, CredentialsTooLate, TooLarge, RecordingTooLong, UnsupportedMediaType),
        *(UnsupportedAudio, BrokenAudio, IdempotencyKeyInUse, IdempotencyKeyReused, Busy, UploadInterrupted),
    ],
)
GET_RECORDS = describe(
    "List my records, newest first",
    security=NEEDS_CREDENTIALS,
    parameters=[
        query("limit", "How many at most.", type="integer", minimum=1, maximum=100, default=50),
        query(
            "cursor",
            "The `next_cursor` of the page before; none for the first page.",
            type="string",
            pattern=f"^{CURSOR}$",
        ),
    ],
    responses={200: answer("A page of records.", example={"records": [RECORD], "next_cursor": None})},
)
GET_RECORD = describe(
    "Look at a record",
    security=NEEDS_CREDENTIALS,
    responses={200: answer("The record with its link.", example=RECORD)},
    problems=[UnknownRecord, UnknownRoute],
)
REMOVE_RECORD = describe(
    "Delete a record",
    security=NEEDS_CREDENTIALS,
    responses={204: answer("It is gone, and so is what its link led to.")},
    problems=[UnknownRecord, UnknownRoute],
)
GET_RECORD_AUDIO = describe(
    "Listen to a record",
    parameters=[
        query("id", "The record's id.", required=True, type="string", format="uuid"),
        query("user", "The id of the record's user.", required=True, type="string", format="uuid"),
        query("download", "1 to save the MP3 instead of playing it.", type="string", enum=["0", "1"]),
        header("Range", "One range of bytes, such as `bytes=0-99`; several are answered with the whole."),
        header("If-Range", "An ETag or a date; where it is another one now, the whole is sent."),
        *CONDITIONS,
    ],
    responses={
        200: answer(
            "The MP3.", *VALIDATORS, "Content-Disposition", content={"audio/mpeg": {"schema": BINARY}}
        ),
        206: answer(
            "The range of the MP3.",
            *(*VALIDATORS, "Content-Range", "Content-Disposition"),
            content={"audio/mpeg": {"schema": BINARY}},
        ),
        304: NOT_MODIFIED,
    },
    problems=[UnknownRecord, PreconditionFailed, RangeNotSatisfiable],
)
GET_RECORD_WAVEFORM = describe(
    "Draw a record",
    security=MAY_HAVE_CREDENTIALS,
    parameters=[
        query("user", "As in the record's link, instead of credentials.", type="string", format="uuid"),
        query(
            "samples_per_pixel",
            "At least so many; not together with `points`.",
            type="integer",
            minimum=1,
            maximum=999_999_999,
        ),
        query(
            "points",
            "At most so many pixels; not together with `samples_per_pixel`.",
            type="integer",
            minimum=1,
            maximum=999_999_999,
        ),
        *CONDITIONS,
    ],
    responses={200: answer("The waveform.", *VALIDATORS, example=WAVEFORM), 304: NOT_MODIFIED},
    problems=[InvalidCredentials, UnknownRecord, UnknownRoute, NoWaveform, PreconditionFailed],
)
