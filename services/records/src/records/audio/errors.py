"""Why a recording is refused, in words for the person who sent it."""


class UnsupportedAudio(Exception):  # noqa: N818 - a fact, as all problems of this project are named
    """The bytes are no WAV, or of a kind that is not converted; the message names it and the way out."""


class BrokenAudio(Exception):  # noqa: N818
    """The bytes are a WAV that contradicts itself or holds no audio; the message names what is wrong."""


class TooLong(Exception):  # noqa: N818
    """The recording lasts longer than is converted; the message names the limit and the way out."""
