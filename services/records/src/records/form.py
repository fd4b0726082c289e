"""Reads an upload's body while it arrives: multipart/form-data, or the bare WAV.

Litestar's own multipart reading writes files to disk before the handler runs, and limits them to 10 MB.
"""

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
        if not parameters.get("boundary"):
            raise InvalidForm("The content type multipart/form-data has no boundary.")
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
    window = bytearray()
    async for chunk in body:
        window += chunk
        if len(window) >= WINDOW_BYTES:
            # Emptied first: while it is converted, there is one copy of it.
            piece = bytes(window)
            window.clear()
            yield piece
    yield bytes(window)


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


class _Form:
    """What has been seen of the form, and the segment that is being read."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self._name = ""
        self._data = bytearray()

    def take(self, event: MultipartSegment | bytes | None) -> Field | bytes | None:
        """Takes an event of the parser; returns a field or a window of audio once it is complete."""
        if isinstance(event, MultipartSegment):
            self._begin(event.name)
            return b"" if event.name == AUDIO else None
        if event is not None:
            self._data += event
            if self._name != AUDIO:
                if len(self._data) > MAX_FIELD_BYTES:
                    raise InvalidForm(f"The field {self._name!r} is longer than {MAX_FIELD_BYTES} bytes.")
                return None
            return self._flush() if len(self._data) >= WINDOW_BYTES else None
        data = self._flush()
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

    def _flush(self) -> bytes:
        data = bytes(self._data)
        self._data.clear()
        return data
