"""Reads an upload's body while it arrives: multipart/form-data, or the bare WAV.

Litestar's own multipart reading writes files to disk before the handler runs, and limits them to 10 MB.
"""

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import NamedTuple

from multipart import MultipartError, MultipartSegment, PushMultipartParser

from common.problems import InvalidRequest, UnsupportedMediaType
from common.queries import refuse_others
from records.problems import InvalidForm

WAV_TYPES = {"audio/wav", "audio/x-wav", "audio/wave", "audio/vnd.wave"}
CREDENTIAL_FIELDS = ("user_id", "token")
# What an upload says besides: fields of the form, or parameters of a bare WAV's query.
BITRATE = "bitrate_kbps"
PARAMETERS = ("title", BITRATE)
FIELDS = (*CREDENTIAL_FIELDS, *PARAMETERS)
AUDIO = "audio"
MAX_FIELD_BYTES = 4 * 1024
# RFC 2046 section 5.1.1.
MAX_BOUNDARY_LENGTH = 70
# What leaves a body as it is (RFC 2045 section 6.2); the others are not for HTTP (RFC 7578 section 4.7).
IDENTITY_ENCODINGS = ("7bit", "8bit", "binary")
HEADERS_WITH_PARAMETERS = ("Content-Disposition", "Content-Type")
PARAMETER = re.compile(r""";[ \t]*(?P<name>[^\s;="]+)[ \t]*=[ \t]*("(\\.|[^"\\])*"|[^\s;"]+)[ \t]*""")
CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
# Three quarters of a second of CD sound: few enough steps, and little memory where many upload at once.
WINDOW_BYTES = 128 * 1024


class Field(NamedTuple):
    """A text field of the form."""

    name: str
    value: str


def read_upload(
    body: AsyncIterator[bytes], content_type: tuple[str, Mapping[str, str]], query: Sequence[tuple[str, str]]
) -> AsyncIterator[Field | bytes]:
    """Yields the text fields, and the audio in windows, in the order in which they arrive.

    The first window is empty: it says that the audio begins, before any of it is read.
    A bare WAV has its fields in the query; credentials are never taken from there.
    Raises UnsupportedMediaType for a body that is neither form nor WAV, InvalidForm for a malformed form.
    """
    kind, parameters = content_type
    if kind in WAV_TYPES:
        refuse_others(query, PARAMETERS)
        return _read_bare(body, [Field(*parameter) for parameter in query])
    if kind == "multipart/form-data":
        if not 1 <= len(parameters.get("boundary", "")) <= MAX_BOUNDARY_LENGTH:
            raise InvalidForm(
                f"A multipart/form-data needs a boundary of 1 to {MAX_BOUNDARY_LENGTH} characters."
            )
        if query:
            raise InvalidRequest("A form has its fields in the body; the query must be empty.")
        return _read_form(body, parameters["boundary"])
    raise UnsupportedMediaType(
        f"The content type is {kind!r}; send multipart/form-data with user_id, token and audio,"
        " or a bare audio/wav with the credentials in a header."
    )


async def _read_bare(body: AsyncIterator[bytes], fields: list[Field]) -> AsyncIterator[Field | bytes]:
    for field in fields:
        yield field
    yield b""
    window = _Window()
    async for chunk in body:
        if piece := window.add(chunk):
            yield piece
    yield window.take()


async def _read_form(body: AsyncIterator[bytes], boundary: str) -> AsyncIterator[Field | bytes]:
    # Not strict: that refuses an epilogue, which RFC 2046 allows, when it comes in a chunk of its own.
    try:
        parser = PushMultipartParser(boundary, max_segment_count=len(FIELDS) + 1)
        form = _Form()
        async for chunk in body:
            if chunk:
                for event in parser.parse(chunk):
                    if (item := form.take(event)) is not None:
                        yield item
        parser.close()
    except MultipartError as error:
        raise InvalidForm(f"The form is malformed: {error.args[0]}.") from None
    if AUDIO not in form.seen:
        raise InvalidForm("The form has no field 'audio'; send the WAV as that file.")


class _Window:
    """Gathers pieces until they are worth a step."""

    def __init__(self) -> None:
        self._data = bytearray()

    def add(self, piece: bytes) -> bytes | None:
        """Returns the next window once it is complete: a large piece as it came, without a copy."""
        if not self._data and len(piece) >= WINDOW_BYTES:
            return piece
        self._data += piece
        return self.take() if len(self) >= WINDOW_BYTES else None

    def take(self) -> bytes:
        """Returns what has been gathered. It is emptied: while that is converted, there is one copy of it."""
        data = bytes(self._data)
        self._data.clear()
        return data

    def __len__(self) -> int:
        return len(self._data)


class _Form:
    """What has been seen of the form, and the segment that is being read."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self._name = ""
        self._window = _Window()

    def take(self, event: MultipartSegment | bytes | None) -> Field | bytes | None:
        """Takes an event of the parser; returns a field or a window of audio once it is complete."""
        if isinstance(event, MultipartSegment):
            _check_headers(event.headerlist)
            self._begin(event.name)
            return b"" if event.name == AUDIO else None
        if event is not None:
            if self._name != AUDIO and len(self._window) + len(event) > MAX_FIELD_BYTES:
                raise InvalidForm(f"The field {self._name!r} is longer than {MAX_FIELD_BYTES} bytes.")
            return self._window.add(event)
        data = self._window.take()
        if self._name == AUDIO:
            return data
        try:
            return Field(self._name, data.decode())
        except UnicodeDecodeError:
            raise InvalidForm(f"The field {self._name!r} is not UTF-8.") from None

    def _begin(self, name: str) -> None:
        if name not in (*FIELDS, AUDIO):
            known = ", ".join((*FIELDS, AUDIO))
            raise InvalidForm(f"The field {name[:100]!r} is not known here; allowed: {known}.")
        if name in self.seen:
            raise InvalidForm(f"The field {name!r} is there twice.")
        if name == BITRATE and AUDIO in self.seen:
            raise InvalidForm(
                f"The field {BITRATE!r} comes too late: the audio is encoded while it arrives;"
                " put the field in front of it."
            )
        self.seen.add(name)
        self._name = name


def _check_headers(headers: Sequence[tuple[str, str]]) -> None:
    """Raises InvalidForm for headers of a part that another program could read in another way."""
    for name in (names := [name for name, _ in headers]):
        if names.count(name) > 1:
            raise InvalidForm(f"A part of the form has the header {name[:100]} twice.")
    for name, value in headers:
        if CONTROL.search(value):
            raise InvalidForm(f"The header {name[:100]} of a part has a control character.")
        if name == "Content-Transfer-Encoding" and value.strip().lower() not in IDENTITY_ENCODINGS:
            raise InvalidForm(f"A part of the form is encoded as {value[:100]!r}; send it as it is.")
        if name in HEADERS_WITH_PARAMETERS:
            _check_parameters(name, value)


def _check_parameters(header: str, value: str) -> None:
    _, semicolon, rest = value.partition(";")
    parameters = semicolon + rest
    if PARAMETER.sub("", parameters).strip() not in ("", ";"):
        raise InvalidForm(f"The header {header} of a part is malformed: {value[:100]!r}.")
    names = [found["name"].lower() for found in PARAMETER.finditer(parameters)]
    for name in names:
        if names.count(name) > 1:
            raise InvalidForm(f"The header {header} of a part has the parameter {name[:100]!r} twice.")
