"""Why a recording is refused.

A message is the `detail` of a problem: it says what is wrong (with the value), what is allowed and what to
do.
"""

WRITE_AGAIN = "Write the WAV again with the program that made it."
"""What to do about a WAV whose header is wrong."""
SAVE_AS_PCM = "Save it as integer PCM with the program that made it."
"""What to do about audio that FFmpeg does not decode either."""


class UnsupportedAudio(Exception):  # noqa: N818 - the project names its problems for facts, without Error
    """The bytes are no WAV, or a WAV of a kind that is not converted."""


class BrokenAudio(Exception):  # noqa: N818
    """The bytes are a WAV that contradicts itself, ends too early or holds no audio."""


class OutOfProportion(Exception):  # noqa: N818
    """The MP3 would be far larger than the WAV."""


class TooLong(Exception):  # noqa: N818
    """The recording lasts longer than the limit."""


def quote(octets: bytes) -> str:
    """Returns any bytes of the file as quoted ASCII, for a message."""
    return ascii(octets.decode("latin-1"))
