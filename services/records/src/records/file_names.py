"""Names the file of a download after the record's title."""

from functools import lru_cache
from urllib.parse import quote

from anyascii import anyascii
from pathvalidate import sanitize_filename
from werkzeug.http import dump_options_header

MAX_STEM_BYTES = 200
DEFAULT_STEM = "recording"
CACHED_NAMES = 1024


# Cached, because players ask for the same record again and again.
@lru_cache(CACHED_NAMES)
def make_content_disposition(title: str | None, suffix: str = ".mp3", *, is_attachment: bool) -> str:
    """Returns a Content-Disposition (RFC 6266) with a file name that every operating system accepts.

    The ASCII name is for clients that do not read the extended one (RFC 8187).
    """
    stem = _make_stem(title or "")
    # Transliteration can make characters that a file name must not have.
    ascii_stem = _make_stem(anyascii(stem))
    names = {"filename": f"{ascii_stem}{suffix}"}
    if ascii_stem != stem or "%" in stem:
        names["filename*"] = "UTF-8''" + quote(f"{stem}{suffix}", safe="")
    return dump_options_header("attachment" if is_attachment else "inline", names)


def _make_stem(text: str) -> str:
    stem = sanitize_filename(text, max_len=MAX_STEM_BYTES).strip(". ")
    # Stripping can leave a reserved name.
    return sanitize_filename(stem) or DEFAULT_STEM
