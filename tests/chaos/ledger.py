"""What the clients of the drill were told, and what must therefore be true."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

# "maybe": the request for it got no clear response, so it may have happened, or happen later.
Fate = Literal["no", "maybe", "yes"]


@dataclass
class Fact:
    """A record that a client was told of."""

    id: str
    url: str
    title: str
    """Of the upload."""
    size_bytes: int
    sha256: str
    original_sha256: str | None = None
    is_original_deleted: Fate = "no"
    is_deleted: Fate = "no"
    last_title: str = field(init=False)
    """Of the last rename that got a response, or of the upload."""
    unclear_titles: set[str] = field(default_factory=set)
    """Of the renames without a clear response, which may have happened, or happen later."""
    ranges: dict[tuple[int, int], str] = field(default_factory=dict)
    """The SHA-256 of some ranges, as first downloaded."""

    def __post_init__(self) -> None:
        """The last title is the upload's until a rename."""
        self.last_title = self.title

    def check_original(self, document: dict[str, Any]) -> str | None:
        """Returns what is wrong with the original that the service shows for the record."""
        shown = document["original"] and document["original"]["sha256"]
        if not shown and self.is_original_deleted == "maybe":
            self.is_original_deleted = "yes"
        expected: dict[Fate, set[str | None]] = {
            "no": {self.original_sha256},
            "maybe": {self.original_sha256, None},
            "yes": {None},
        }
        return None if shown in expected[self.is_original_deleted] else f"its original is {shown}"

    def check_mp3(self, status: int, etag: str, body: bytes, wanted: tuple[int, int] | None) -> str | None:
        """Returns what is wrong with a download: 200, or 206 of the wanted first and last byte."""
        if etag != f'"{self.sha256}"':
            return f"the ETag is {etag}"
        digest = hashlib.sha256(body).hexdigest()
        if status == 200:
            return None if digest == self.sha256 else f"its {len(body)} bytes have the SHA-256 {digest}"
        if not wanted or len(body) != wanted[1] - wanted[0] + 1:
            return f"a range of {len(body)} bytes came for {wanted}"
        if self.ranges.setdefault(wanted, digest) != digest:
            return f"the range {wanted} has changed"
        return None

    def learn_ranges(self, mp3: bytes) -> None:
        """Notes the digests of a few ranges of the first download."""
        middle, last = self.size_bytes // 2, self.size_bytes - 1
        for first, end in ((0, min(999, last)), (middle, min(middle + 4095, last)), (last - 99, last)):
            self.ranges[first, end] = hashlib.sha256(mp3[first : end + 1]).hexdigest()


@dataclass
class Upload:
    """An upload, which may have been sent several times with one key. The title tells uploads apart."""

    title: str
    key: str | None = None
    original_sha256: str | None = None
    """Of the WAV, if the upload keeps it."""
    may_have_record: bool = False
    """Whether a response is missing, so that there may be a record that no client knows."""
    record: Fact | None = None


@dataclass
class User:
    """A user with everything that clients know of it."""

    id: str
    token: str
    is_token_known: bool = True
    """False after a rotation without a response."""
    is_deleted: Fate = "no"
    dead_tokens: list[str] = field(default_factory=list)
    uploads: dict[str, Upload] = field(default_factory=dict)
    records: dict[str, Fact] = field(default_factory=dict)

    @property
    def is_clear(self) -> bool:
        """Whether the token must work."""
        return self.is_token_known and self.is_deleted == "no"

    @property
    def living(self) -> list[Fact]:
        """The records that nobody has asked to delete."""
        return [fact for fact in self.records.values() if fact.is_deleted == "no"]


class Ledger:
    """All users, the responses by status, and what was violated."""

    def __init__(self) -> None:
        self.users: list[User] = []
        self.diary: TextIO = io.StringIO()
        """What clients and hands did, and when."""
        self.responses: Counter[tuple[str, str, int]] = Counter()
        """By method, path of the OpenAPI document and status; 0 without a response."""
        self.violations: list[str] = []
        self.acknowledged = Counter[str]()

    def note(self, what: str) -> None:
        """Writes a line of the diary."""
        self.diary.write(f"{datetime.now(UTC):%H:%M:%S.%f} {what}\n")

    def violate(self, sentence: str) -> None:
        """Notes that a promise is broken."""
        self.violations.append(sentence)
        self.note(f"VIOLATED: {sentence}")
        print(f"VIOLATED: {sentence}", flush=True)

    def note_record(self, user: User, document: dict[str, Any]) -> Fact:
        """Notes a record that the service has shown: after an upload, or in a list."""
        known = user.records.get(document["id"])
        if known:
            if (known.sha256, known.size_bytes) != (document["sha256"], document["size_bytes"]):
                self.violate(f"record {known.id} has changed: {document}")
            if document["title"] not in {known.last_title, *known.unclear_titles}:
                self.violate(f"record {known.id} is called {document['title']}, not {known.last_title}")
            if wrong := known.check_original(document):
                self.violate(f"record {known.id}: {wrong}")
            return known
        title = document["title"]
        fact = Fact(document["id"], document["url"], title, document["size_bytes"], document["sha256"])
        upload = user.uploads.get(title)
        if not upload:
            self.violate(f"user {user.id} has a record that nobody has uploaded: {document}")
        elif upload.record:
            self.violate(f"upload {title} (key {upload.key}) made two records: {upload.record.id}, {fact.id}")
        elif not upload.may_have_record:
            self.violate(f"upload {title} was refused, but has the record {fact.id}")
        else:
            upload.record = fact
            fact.original_sha256 = upload.original_sha256
            if wrong := fact.check_original(document):
                self.violate(f"record {fact.id}, which is new: {wrong}")
        user.records[fact.id] = fact
        return fact

    def check_listed(self, user: User, documents: list[dict[str, Any]]) -> None:
        """Compares a whole list of the user's records with the ledger."""
        deleted = {fact.id for fact in user.records.values() if fact.is_deleted == "yes"}
        expected = {fact.id for fact in user.living}
        listed = {str(document["id"]) for document in documents}
        if len(listed) != len(documents):
            self.violate(f"the list of user {user.id} has a record twice")
        for document in documents:
            self.note_record(user, document)
        for missing in expected - listed:
            self.violate(f"lost: record {missing} of user {user.id} is not in the list")
        for ghost in deleted & listed:
            self.violate(f"ghost: the deleted record {ghost} of user {user.id} is in the list")
