"""Reads an upload's body while it arrives: multipart/form-data, or a bare WAV.

Litestar's own multipart reader writes files to disk before the handler runs, and limits them to 10 MB.
"""

import re
import unicodedata
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from multipart import MultipartError, MultipartSegment, PushMultipartParser, header_unquote

from common.problems import UnsupportedMediaType
from common.requests import reject_unknown_parameters
from records.problems import InvalidForm

WAV_TYPES = {"audio/wav", "audio/x-wav", "audio/wave", "audio/vnd.wave"}
CREDENTIAL_FIELDS = ("user_id", "token")
# Options of an upload: query parameters, or fields of the form.
BITRATE = "bitrate_kbps"
KEEP_ORIGINAL = "keep_original"
OPTIONS = ("title", BITRATE, KEEP_ORIGINAL)
# Why an option must stand in front of the audio, and an example of it in the query.
EARLY_OPTIONS = {BITRATE: ("encoded", "192"), KEEP_ORIGINAL: ("stored", "true")}
# The values of `keep_original`, in any case.
WISHES = {"true": True, "1": True, "false": False, "0": False}
FIELDS = (*CREDENTIAL_FIELDS, *OPTIONS)
AUDIO = "audio"
MAX_FIELD_BYTES = 4 * 1024
# In characters, after trimming.
MAX_TITLE_LENGTH = 200
# RFC 2046 section 5.1.1.
MAX_BOUNDARY_LENGTH = 70
# RFC 2045 section 6.2: these encodings leave a body unchanged. RFC 7578 section 4.7 forbids the others in
# forms.
IDENTITY_ENCODINGS = ("7bit", "8bit", "binary")
HEADERS_WITH_PARAMETERS = ("Content-Disposition", "Content-Type")
PARAMETER = re.compile(
    r""";[ \t]*(?P<name>[^\s;="]+)[ \t]*=[ \t]*(?P<value>"(\\.|[^"\\])*"|[^\s;"]+)[ \t]*"""
)
# A file name, up to the end of its header or to its extended form (RFC 8187). It is never used, so quotes and
# spaces may stand in it as they are. Only a text that looks like another parameter is refused.
# Without the atomic groups (?>…), a header of 4 KiB would take seconds. Possessive quantifiers (*+) mean the
# same, but Python before 3.11.5 matches them wrongly.
FILE_NAME = re.compile(
    r"""
    ;[ \t]*filename[ \t]*=(?>[ \t]*)
    ("TEXT*"[ \t]*|[^"; \t](?>TEXT*))?
    (\Z|(?=;[ \t]*filename\*[ \t]*=))
    """.replace("TEXT", r"""((?!;[ \t]*[^\s;="]+[ \t]*=).)"""),
    re.IGNORECASE | re.VERBOSE,
)
# RFC 9110 section 5.5 calls these dangerous in a header. Other control characters may be in a file name.
DANGEROUS = re.compile(r"[\x00\r\n]")
# 0.75 s of CD sound: large enough to keep the steps few, and small enough for many uploads at once.
BLOCK_BYTES = 128 * 1024


class FormField(NamedTuple):
    """A form part that holds text, or a query parameter."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class AudioBegins:
    """Marks where the audio begins: everything in front of it has been read, and nothing of the audio."""


FormItem = FormField | AudioBegins | bytes


def read_upload(
    body: AsyncIterator[bytes], content_type: tuple[str, str], query: Sequence[tuple[str, str]]
) -> AsyncIterator[FormItem]:
    """Yields the form fields, AudioBegins, and the audio in blocks, in the order in which they arrive.

    `content_type` is the media type and the whole header.
    The options in the query come first. Credentials are never read from a query.
    Raises UnsupportedMediaType for a body that is neither a form nor a WAV, and InvalidForm for a malformed
    form.
    """
    kind, header = content_type
    if kind in WAV_TYPES:
        return _read_bare_wav(body, _read_query(query))
    if kind == "multipart/form-data":
        boundary = _read_boundary(header)
        if not 1 <= len(boundary) <= MAX_BOUNDARY_LENGTH:
            raise InvalidForm(
                f"The type multipart/form-data needs one boundary of 1 to {MAX_BOUNDARY_LENGTH} characters."
                " Do not set the Content-Type yourself: your HTTP library sets it together with the boundary."
            )
        return _read_form(body, boundary, _read_query(query))
    raise UnsupportedMediaType(
        f"The content type is {kind!r}. Send multipart/form-data with user_id, token and audio,"
        " or a bare audio/wav with the credentials in a header."
    )


def _read_boundary(header: str) -> str:
    """Returns the boundary in a Content-Type, or "" if it has none or several.

    Litestar ends a boundary without quotes at a "=" or ":", but many clients write one with them.
    """
    values = [found["value"] for found in PARAMETER.finditer(header) if found["name"].lower() == "boundary"]
    return str(header_unquote(values[0])) if len(values) == 1 else ""


def _read_query(query: Sequence[tuple[str, str]]) -> list[FormField]:
    reject_unknown_parameters(query, OPTIONS)
    return [FormField(*parameter) for parameter in query]


async def _read_bare_wav(body: AsyncIterator[bytes], fields: list[FormField]) -> AsyncIterator[FormItem]:
    for field in fields:
        yield field
    yield AudioBegins()
    buffer = _BlockBuffer()
    async for piece in body:
        if block := buffer.add(piece):
            yield block
    yield buffer.take()


async def _read_form(
    body: AsyncIterator[bytes], boundary: str, fields: list[FormField]
) -> AsyncIterator[FormItem]:
    for field in fields:
        yield field
    # Not in strict mode: it refuses an epilogue in a piece of its own, which RFC 2046 allows.
    # As Latin-1, headers in any encoding can be read; a file name is never used.
    try:
        parser = PushMultipartParser(boundary, max_segment_count=len(FIELDS) + 1, header_charset="latin-1")
        form = _Form(dict(fields))
        async for piece in body:
            if piece:
                for event in parser.parse(piece):
                    if (item := form.take(event)) is not None:
                        yield item
        parser.close()
    except MultipartError as error:
        raise InvalidForm(f"The form is malformed: {error.args[0]}.") from None
    if AUDIO not in form.seen:
        raise InvalidForm("The form has no form part 'audio'. Send the WAV as a file with this name.")


class _BlockBuffer:
    """Gathers pieces into blocks."""

    def __init__(self) -> None:
        self._data = bytearray()

    def add(self, piece: bytes) -> bytes | None:
        """Returns the next block if it is complete. A large piece is returned without a copy."""
        if not self._data and len(piece) >= BLOCK_BYTES:
            return piece
        self._data += piece
        return self.take() if len(self) >= BLOCK_BYTES else None

    def take(self) -> bytes:
        """Returns the gathered bytes and drops them, so that only one copy exists during the conversion."""
        data = bytes(self._data)
        self._data.clear()
        return data

    def __len__(self) -> int:
        return len(self._data)


class _Form:
    """The names of the form parts so far, and the form part that is being read."""

    def __init__(self, query: Mapping[str, str]) -> None:
        self.seen: set[str] = set()
        self._query = query
        self._name = ""
        self._charset = ""
        self._buffer = _BlockBuffer()

    def take(self, event: MultipartSegment | bytes | None) -> FormItem | None:
        """Takes an event of the parser: the start of a form part, bytes of it, or None for its end."""
        if isinstance(event, MultipartSegment):
            _check_headers(event.headerlist)
            self._begin(event.name)
            self._charset = event.charset or "utf-8"
            return AudioBegins() if event.name == AUDIO else None
        if event is not None:
            if self._name != AUDIO and len(self._buffer) + len(event) > MAX_FIELD_BYTES:
                raise InvalidForm(f"The field {self._name!r} is longer than {MAX_FIELD_BYTES} bytes.")
            return self._buffer.add(event)
        data = self._buffer.take()
        if self._name == AUDIO:
            return data
        return self._make_field(data)

    def _make_field(self, data: bytes) -> FormField | None:
        """Returns the field, or None if the query has the same option with the same value.

        An option that is empty in the query or in the form counts as absent there.
        """
        try:
            # A file from which a field comes can begin with a byte order mark.
            value = data.decode(self._charset).removeprefix("\ufeff")
        except LookupError:
            raise InvalidForm(
                f"The field {self._name!r} has the unknown charset {self._charset[:100]!r}. Send it as UTF-8."
            ) from None
        except UnicodeError:
            raise InvalidForm(
                f"The field {self._name!r} is not {self._charset[:100].upper()}, which is its charset."
            ) from None
        if self._name in CREDENTIAL_FIELDS:
            # A field whose value comes from a file often ends in a newline.
            value = value.rstrip("\r\n")
        if in_query := self._query.get(self._name):
            if value and not _mean_the_same(self._name, value, in_query):
                raise InvalidForm(
                    f"The query and the form have different values of {self._name!r}. Send one."
                )
            return None
        if value and self._name in EARLY_OPTIONS and AUDIO in self.seen:
            done, example = EARLY_OPTIONS[self._name]
            raise InvalidForm(
                f"The field {self._name!r} comes too late, because the audio is {done} while it arrives."
                f" Put {self._name!r} in front of 'audio', or into the query:"
                f" POST /records?{self._name}={example}."
            )
        return FormField(self._name, value)

    def _begin(self, name: str) -> None:
        if name not in (*FIELDS, AUDIO):
            known = ", ".join((*FIELDS, AUDIO))
            name = name.encode("latin-1").decode(errors="replace")
            raise InvalidForm(f"The field {name[:100]!r} is unknown. Allowed fields: {known}.")
        if name in self.seen:
            raise InvalidForm(f"The form has the field {name!r} twice. Send it once.")
        self.seen.add(name)
        self._name = name


def _mean_the_same(name: str, value: str, other: str) -> bool:
    value, other = (unicodedata.normalize("NFC", text.strip()) for text in (value, other))
    if name == KEEP_ORIGINAL:
        return WISHES.get(value.lower(), value) == WISHES.get(other.lower(), other)
    return value == other


def _check_headers(headers: Sequence[tuple[str, str]]) -> None:
    """Raises InvalidForm for headers of a form part that another program could read differently."""
    for name in (names := [name for name, _ in headers]):
        if names.count(name) > 1:
            raise InvalidForm(f"A form part has the header {name[:100]} twice. Send it once.")
    for name, value in headers:
        if DANGEROUS.search(value):
            raise InvalidForm(f"The header {name[:100]} of a form part contains a NUL or a line break.")
        if name == "Content-Transfer-Encoding" and value.strip().lower() not in IDENTITY_ENCODINGS:
            raise InvalidForm(f"A form part is encoded as {value[:100]!r}. Send its bytes unencoded.")
        if name in HEADERS_WITH_PARAMETERS:
            _check_parameters(name, value)


def _check_parameters(header: str, value: str) -> None:
    _, semicolon, rest = value.partition(";")
    parameters = semicolon + rest
    if not _is_well_formed(parameters):
        parameters = FILE_NAME.sub("", parameters)
    if not _is_well_formed(parameters):
        raise InvalidForm(f"The header {header} of a form part is malformed: {value[:100]!r}.")
    names = [found["name"].lower() for found in PARAMETER.finditer(parameters)]
    for name in names:
        if names.count(name) > 1:
            raise InvalidForm(
                f"The header {header} of a form part has the parameter {name[:100]!r} twice. Send it once."
            )


def _is_well_formed(parameters: str) -> bool:
    return PARAMETER.sub("", parameters).strip() in ("", ";")
