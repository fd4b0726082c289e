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
    name = make_file_name(title, suffix)
    # Transliteration can make characters that a file name must not have.
    ascii_name = make_file_name(anyascii(name.removesuffix(suffix)), suffix)
    names = {"filename": ascii_name}
    if ascii_name != name or "%" in name:
        names["filename*"] = "UTF-8''" + quote(name, safe="")
    return dump_options_header("attachment" if is_attachment else "inline", names)


def make_file_name(title: str | None, suffix: str) -> str:
    """Returns a file name that every operating system accepts."""
    stem = _make_stem(title or "")
    return stem if stem.lower().endswith(suffix) else f"{stem}{suffix}"


def _make_stem(text: str) -> str:
    stem = sanitize_filename(text, max_len=MAX_STEM_BYTES).strip(". ")
    # Stripping can leave a reserved name.
    return sanitize_filename(stem) or DEFAULT_STEM
