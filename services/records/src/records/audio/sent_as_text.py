"""Recognises a WAV that a program has read or sent as text, which changes its bytes and makes noise of it.

A program that takes the bytes for UTF-8 replaces those that are none, with EF BF BD. One that takes them for
Latin-1 and writes UTF-8 makes two bytes of each byte from 80 on. Text mode turns 0A into 0D 0A, and `curl -d`
drops 00, 0A and 0D.
"""

import codecs

import numpy as np

from .errors import UnsupportedAudio

# Where these stand in the header of a WAV.
_RIFF, _FORM = slice(0, 4), slice(8, 12)
_FORM_NAME = "WAVE"
# Audio that is UTF-8 has at least so many bytes more than characters. Because the levels of a square wave can
# look like two or three characters, it also has so many different ones beyond ASCII, or the one that replaces
# others. Audio of text mode has at least so many line feeds.
_MIN_FURTHER_BYTES = 64
_MIN_CHARACTERS = 16
_REPLACEMENT = "\ufffd"
_MIN_LINE_FEEDS = 32
# So many bytes are searched behind silence, because quiet audio can have neither.
_SEARCHED_BYTES = 4 * 1024 * 1024
_MAX_CONTINUATION_BYTES = 3
_CONTINUATION_BYTES = bytes(range(0x80, 0xC0))


def make_refusal() -> UnsupportedAudio:
    """Returns what to tell the client."""
    return UnsupportedAudio(
        "This WAV was read or sent as text, which changed its bytes. Send it as bytes: curl -F audio=@in.wav "
        "or --data-binary @in.wav (not -d), open('in.wav', 'rb') in Python, fs.readFile without an encoding "
        "in Node."
    )


def is_in_header(start: bytes) -> bool:
    """Returns whether the bytes from "RIFF" on, up to where the WAV cannot be read, show a text.

    Of `start` at least 12 bytes count.
    """
    form = _FORM_NAME.encode()
    if form in start[5:11] or start.replace(b"\r\n", b"\n")[8:11] == form[:3] != start[8:11]:
        return True
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        return False
    return not text.isascii() and _FORM_NAME.startswith(text[_FORM])


class TextSearch:
    """Looks at the beginning of the audio, behind silence. Hardly any audio gets past its loud samples."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._may_be_utf_8 = self._may_have_line_breaks = True
        self._left_bytes = _SEARCHED_BYTES
        self._further_bytes = 0
        self._characters: set[str] = set()
        # How often 0A and 0D stand in the audio, and its last byte.
        self._line_feeds = self._carriage_returns = 0
        self._last = b""

    def feed(self, audio: bytes | bytearray | memoryview) -> None:
        """Takes the next audio. Raises UnsupportedAudio once it is certain."""
        if not (self._may_be_utf_8 or self._may_have_line_breaks):
            return
        octets = bytes(audio)
        if not self._last and not np.frombuffer(octets, dtype=np.uint8).any():
            return
        self._left_bytes -= len(octets)
        if self._left_bytes < 0:
            self._may_be_utf_8 = self._may_have_line_breaks = False
        if self._may_be_utf_8:
            self._decode(octets)
        if self._may_have_line_breaks:
            self._count_line_breaks(octets)
        self._last = octets[-1:]

    def _decode(self, octets: bytes) -> None:
        if not self._last:
            # The size of the data chunk is text, too, so the audio may begin inside a character.
            head = octets[:_MAX_CONTINUATION_BYTES].lstrip(_CONTINUATION_BYTES)
            octets = head + octets[_MAX_CONTINUATION_BYTES:]
        try:
            text = self._decoder.decode(octets)
        except UnicodeDecodeError:
            self._may_be_utf_8 = False
            return
        self._further_bytes += len(octets) - len(text)
        self._characters.update(character for character in set(text) if not character.isascii())
        is_various = len(self._characters) >= _MIN_CHARACTERS or _REPLACEMENT in self._characters
        if self._further_bytes >= _MIN_FURTHER_BYTES and is_various:
            raise make_refusal()

    def _count_line_breaks(self, octets: bytes) -> None:
        line_feeds = octets.count(b"\n")
        self._line_feeds += line_feeds
        self._carriage_returns += octets.count(b"\r")
        # In binary data, most of both stand alone.
        self._may_have_line_breaks = line_feeds == (self._last + octets).count(b"\r\n")
        if self._may_have_line_breaks and self._line_feeds >= _MIN_LINE_FEEDS:
            if self._carriage_returns > 1.25 * self._line_feeds:
                raise make_refusal()
            self._may_have_line_breaks = False
