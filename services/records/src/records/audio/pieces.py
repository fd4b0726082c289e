"""Hands out an input that arrives in pieces of any size to a parser that asks for what it needs next."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from enum import Enum, auto

from .chunk_search import find_chunk

_MAX_COPIED_BYTES = 1024


class Kind(Enum):
    TAKE = auto()
    PEEK = auto()
    """Takes bytes, at the end of the input perhaps fewer, which may be given back."""
    SKIP = auto()
    AUDIO = auto()
    WATCHED_AUDIO = auto()
    """Audio that stops early in front of what may be a chunk."""


@dataclass(frozen=True, slots=True)
class Want:
    """What a parser asks of the input next: so many bytes to take, to skip, or to hand out as audio."""

    kind: Kind
    size: int
    what: str
    """The name of these bytes in an error message."""


def skip(size: int, what: str) -> Generator[Want, bytes, None]:
    """Skips so many bytes, which may be none."""
    if size:
        yield Want(Kind.SKIP, size, what)


class PieceReader:
    """Runs a parser: a generator that yields what it wants next, and is sent the bytes that it takes."""

    def __init__(self, parser: Generator[Want, bytes, None]) -> None:
        self.position = 0
        """How many bytes of the input the parser has got."""
        self.copy = bytearray()
        """What the parser puts here of what it takes, and the bytes behind that, at most 1,024 together."""
        self.held = bytearray()
        """The bytes that the parser wants to take, as far as they have arrived."""
        self._given_back = b""
        self._parser = parser
        self.want = next(parser)
        """What the parser wants next."""

    def feed(self, data: memoryview) -> Iterator[memoryview]:
        """Yields the audio in the next piece, as views of it."""
        pieces = [data]
        while pieces:
            piece, want = pieces.pop(), self.want
            wanted = piece[: want.size - len(self.held)]
            if want.kind is Kind.WATCHED_AUDIO:
                wanted = wanted[: find_chunk(wanted)]
            rest = piece[len(wanted) :]
            if rest:
                pieces.append(rest)
            self.position += len(wanted)
            if self.copy:
                self.copy += wanted[: _MAX_COPIED_BYTES - len(self.copy)]
            if want.kind in (Kind.TAKE, Kind.PEEK):
                self.held += wanted
                if len(self.held) == want.size:
                    pieces += self._send_held()
            else:
                if wanted and want.kind is not Kind.SKIP:
                    yield wanted
                left = want.size - len(wanted)
                is_stopped = want.kind is Kind.WATCHED_AUDIO and rest
                self.want = replace(want, size=left) if left and not is_stopped else next(self._parser)

    def _send_held(self) -> list[memoryview]:
        """Lets the parser go on with the bytes that it has taken. Returns what it gives back of them."""
        taken = bytes(self.held)
        self.held.clear()
        self.want = self._parser.send(taken)
        given_back, self._given_back = self._given_back, b""
        return [memoryview(given_back)] if given_back else []

    def give_back(self, octets: bytes) -> None:
        """Makes these bytes, which the parser has just taken, the next of the input."""
        self._given_back = octets
        self.position -= len(octets)

    def finish(self) -> Iterator[memoryview]:
        """Says that the input has ended, and yields the last audio, if it could have been a chunk."""
        while self.want.kind is Kind.PEEK:
            for given_back in self._send_held():
                yield from self.feed(given_back)

    def close(self) -> None:
        """Ends the parser."""
        self._parser.close()
