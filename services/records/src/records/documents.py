"""The JSON documents of the API: a record, its new title, a page of records, a waveform.

`RecordDocument` is the one definition of a record's fields. `records.sql` selects the columns with these
names, and the OpenAPI document takes its descriptions from here.
"""

from datetime import datetime
from typing import Annotated, Any, Self
from uuid import UUID

import msgspec

from records.audio import Waveform

_LEVEL = (
    "of the encoded audio in dBFS; null for digital silence and for records made before levels were measured."
)


class OriginalDocument(msgspec.Struct, frozen=True):
    """The WAV of a record, byte for byte as the upload sent it."""

    size_bytes: Annotated[int, msgspec.Meta(description="Size of the WAV in bytes.")]
    sha256: Annotated[
        str,
        msgspec.Meta(
            pattern="^[0-9a-f]{64}$", description="SHA-256 of the WAV in hexadecimal; also its ETag."
        ),
    ]
    url: Annotated[
        str, msgspec.Meta(description="Where the user gets the WAV, with credentials. It is no link.")
    ]


class RecordDocument(msgspec.Struct, frozen=True):
    """A published record."""

    id: Annotated[UUID, msgspec.Meta(description="The record's id.")]
    url: Annotated[str, msgspec.Meta(description="The link. Anyone who has it may listen, without a token.")]
    listen_url: Annotated[
        str, msgspec.Meta(description="The page behind the link, for people: it shows and plays the record.")
    ]
    user_id: Annotated[UUID, msgspec.Meta(description="The id of the user who uploaded the record.")]
    title: Annotated[
        str | None,
        msgspec.Meta(
            description="The given title, trimmed and in Unicode's normal form C; null without one. `PATCH`"
            " changes it."
        ),
    ]
    duration_seconds: Annotated[
        float, msgspec.Meta(description="Duration of the sound in seconds, exactly as in the WAV.")
    ]
    sample_rate: Annotated[
        int,
        msgspec.Meta(
            description="Sample rate of the MP3 in Hz: the lowest that is not below the WAV's, at most 48000."
        ),
    ]
    channels: Annotated[int, msgspec.Meta(description="Channels of the MP3: 1 or 2.")]
    bitrate_kbps: Annotated[
        int,
        msgspec.Meta(
            description="Bitrate of the MP3 in kbit/s. Below 32 kHz it can be lower than requested."
        ),
    ]
    peak_dbfs: Annotated[
        float | None,
        msgspec.Meta(description=f"Highest sample {_LEVEL} If `clipped`, the highest of the WAV, over 0."),
    ]
    rms_dbfs: Annotated[
        float | None, msgspec.Meta(description=f"RMS level {_LEVEL} A full-scale square wave has 0.")
    ]
    truncated: Annotated[
        bool, msgspec.Meta(description="Whether the WAV ended before the audio that its header announced.")
    ]
    clipped: Annotated[
        bool, msgspec.Meta(description="Whether the WAV had floats over full scale. The MP3 cuts them off.")
    ]
    size_bytes: Annotated[int, msgspec.Meta(description="Size of the MP3 in bytes.")]
    sha256: Annotated[
        str,
        msgspec.Meta(
            pattern="^[0-9a-f]{64}$", description="SHA-256 of the MP3 in hexadecimal; also its ETag."
        ),
    ]
    original: Annotated[
        OriginalDocument | None,
        msgspec.Meta(description="The WAV, if the upload kept it (`keep_original`); otherwise null."),
    ]
    created_at: Annotated[
        datetime,
        msgspec.Meta(
            description="When the upload began, in UTC. Lists are sorted by it, so a long upload comes after"
            " shorter uploads that began later."
        ),
    ]
    lost_at: Annotated[
        datetime | None,
        msgspec.Meta(
            description="When the operator found that the MP3 is lost, so that its link is 410; null as long"
            " as the link works."
        ),
    ]

    @classmethod
    def from_row(cls, row: Any) -> Self:
        """Reads a row of the table `records`, which gives its values by name. Its URLs have no origin yet."""
        values = {name: row[name] for name in OWN_COLUMNS}
        values["sha256"] = values["sha256"].hex()
        original = None
        if sha256 := row["original_sha256"]:
            original = OriginalDocument(
                row["original_size_bytes"], sha256.hex(), f"/records/{row['id']}/original"
            )
        query = f"id={row['id']}&user={row['user_id']}"
        return cls(url=f"/record?{query}", listen_url=f"/listen?{query}", original=original, **values)

    def with_origin(self, origin: str) -> Self:
        """Returns the record with its URLs at `origin`, such as https://example.org."""
        original = self.original and msgspec.structs.replace(self.original, url=origin + self.original.url)
        urls = {"url": origin + self.url, "listen_url": origin + self.listen_url}
        return msgspec.structs.replace(self, **urls, original=original)


MADE = ("url", "listen_url", "original")
OWN_COLUMNS = tuple(name for name in RecordDocument.__struct_fields__ if name not in MADE)
COLUMNS = (*OWN_COLUMNS, "original_size_bytes", "original_sha256")
"""The columns that a RecordDocument is read from."""


class NewTitle(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of PATCH /records/{id}."""

    title: str | None


class RecordPage(msgspec.Struct, frozen=True):
    """A page of records."""

    records: Annotated[list[RecordDocument], msgspec.Meta(description="The newest record comes first.")]
    next_cursor: Annotated[
        str | None, msgspec.Meta(description="The `cursor` of the next page; null on the last page.")
    ]


class WaveformDocument(msgspec.Struct, frozen=True):
    """A waveform in the JSON format of BBC audiowaveform, version 2."""

    version: Annotated[int, msgspec.Meta(description="Version of the format: 2.")]
    channels: Annotated[
        int, msgspec.Meta(description="Always 1: the waveform is of the average of the WAV's channels.")
    ]
    sample_rate: Annotated[int, msgspec.Meta(description="Sample rate of the MP3 in Hz.")]
    samples_per_pixel: Annotated[
        int, msgspec.Meta(description="How many samples of a channel one pixel stands for.")
    ]
    bits: Annotated[int, msgspec.Meta(description="Bits of a value: 8, so values are from -128 to 127.")]
    length: Annotated[int, msgspec.Meta(description="The number of pixels.")]
    data: Annotated[
        list[int],
        msgspec.Meta(description="Minimum and maximum of each pixel in turn: two values for each pixel."),
    ]

    @classmethod
    def from_waveform(cls, waveform: Waveform, sample_rate: int) -> Self:
        """Draws a waveform of an MP3 with this sample rate."""
        return cls(
            version=2,
            channels=1,
            sample_rate=sample_rate,
            samples_per_pixel=waveform.samples_per_pixel,
            bits=8,
            length=waveform.length,
            data=waveform.values(),
        )
