"""A record is defined once: table, publishing and document agree on its fields."""

import re
from typing import Any

from sqlalchemy import CheckConstraint

from common.tables import Record
from records.audio import Properties
from records.documents import COLUMNS, OWN_COLUMNS, OriginalDocument, RecordDocument
from records.sql import FinishedUpload
from records.storage import StoredObject

PROPERTIES = Properties(
    duration_seconds=1.5,
    sample_rate=44100,
    channels=2,
    bitrate_kbps=128,
    peak_dbfs=None,
    rms_dbfs=None,
    truncated=False,
    clipped=False,
)
PUBLISHED = FinishedUpload(
    "Title", StoredObject(1, b"\1" * 32), PROPERTIES, StoredObject(2, b"\2" * 32), 256, 128, "key"
)
# The reservation writes these.
RESERVED = {"id", "user_id", "created_at"}
# Only the operator's doctor writes these.
LATER = {"lost_at": None}


def may_be_null(annotation: Any) -> bool:
    return type(None) in getattr(getattr(annotation, "__origin__", annotation), "__args__", ())


def test_publishing_writes_only_columns_of_the_table() -> None:
    assert set(PUBLISHED.columns) <= set(Record.__table__.columns.keys())


def test_reservation_and_publishing_write_every_field_of_the_document() -> None:
    assert not RESERVED & set(PUBLISHED.columns)
    assert set(COLUMNS) <= RESERVED | set(PUBLISHED.columns) | set(LATER)


def test_a_document_shows_what_publishing_wrote() -> None:
    row = {"id": "i", "user_id": "u", "created_at": "now", **PUBLISHED.columns, **LATER}
    document = RecordDocument.from_row(row)
    shown = {name: getattr(document, name) for name in OWN_COLUMNS}
    assert shown == {name: row[name] for name in OWN_COLUMNS} | {"sha256": "01" * 32}
    assert document.url == "/record?id=i&user=u"
    assert document.original is None


def test_a_document_shows_the_original_and_both_urls_have_the_origin() -> None:
    finished = PUBLISHED._replace(original=StoredObject(2, b"\2" * 32))
    row = {"id": "i", "user_id": "u", "created_at": "now", **finished.columns, **LATER}
    document = RecordDocument.from_row(row).with_origin("https://example.org")
    assert document.original == OriginalDocument(2, "02" * 32, "https://example.org/records/i/original")
    assert document.url == "https://example.org/record?id=i&user=u"
    assert finished.stored_bytes == 3


def test_a_ready_row_has_every_value_that_the_document_requires() -> None:
    checks = [one for one in Record.__table_args__ if isinstance(one, CheckConstraint)]
    (check,) = (str(one.sqltext) for one in checks if one.name == "records_ready_is_complete")
    (required,) = re.findall(r"num_nulls\((.*?)\)", check)
    nullable = {column.name for column in Record.__table__.columns if column.nullable}
    never_null = {name for name in OWN_COLUMNS if not may_be_null(RecordDocument.__annotations__[name])}
    assert never_null & nullable == set(required.split(", ")) - {"published_at"}
