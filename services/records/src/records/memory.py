"""Chooses how many uploads an instance takes at once, so that they fit into the memory of its container."""

from pathlib import Path

import msgspec

from common.settings import SettingsError
from records.audio import MAX_ID3_BYTES, MAX_METADATA_BYTES, WAITING_BYTES_PER_THREAD
from records.settings import Settings

MIB = 1024**2
# What an instance needs without uploads: about 122 MiB, 26 MiB for the models of chardet once it has loaded
# them, 5 MiB for the picture that is drawn, and 12 MiB for the copies of a cover while a head is made, which
# happens to one upload at a time.
BASE_BYTES = 172 * MIB
# What an upload needs at most: three upload parts of MP3 (records.storage.ObjectWriter); 5 MiB for its
# encoders, for what is read, and for copies (measured by `./just bench --overload`); and the tags of its
# WAV. When the head is stored, the encoders and the tags are gone; then the head is in memory twice.
UPLOAD_BYTES = 20 * MIB + MAX_METADATA_BYTES + MAX_ID3_BYTES
# What an upload that keeps its original needs more: two upload parts of it, and copies.
ORIGINAL_BYTES = 12 * MIB
# A buffer that grows is a quarter larger than its content, at most.
BUFFER_GROWTH = 1.25


def needed_bytes(settings: Settings) -> int:
    """Returns how much memory an instance needs at most, if each of its slots has a long upload."""
    held_bytes = settings.max_held_bytes * BUFFER_GROWTH
    waiting_bytes = settings.encoder_threads * WAITING_BYTES_PER_THREAD
    return int(BASE_BYTES + settings.max_uploads * upload_bytes(settings) + held_bytes + waiting_bytes)


def upload_bytes(settings: Settings) -> int:
    """Returns how much memory an upload needs at most. Any upload may keep its original, unless none can."""
    return UPLOAD_BYTES + (0 if settings.keep_originals == "never" else ORIGINAL_BYTES)


def fit_to_memory(settings: Settings, limit_bytes: int | None) -> Settings:
    """Returns the settings with as many slots as fit into the memory limit, or unchanged without a limit.

    Raises SettingsError if no slot fits.
    """
    if limit_bytes is None or needed_bytes(settings) <= limit_bytes:
        return settings
    without_uploads = needed_bytes(msgspec.structs.replace(settings, max_uploads=0))
    max_uploads = (limit_bytes - without_uploads) // upload_bytes(settings)
    if max_uploads < 1:
        needed = (without_uploads + upload_bytes(settings)) // MIB
        raise SettingsError(
            f"the container may use {limit_bytes // MIB} MiB of memory, but even one upload needs"
            f" {needed} MiB: raise the limit, or lower MAX_HELD_BYTES"
        )
    return msgspec.structs.replace(settings, max_uploads=max_uploads)


def read_memory_limit(folder: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Returns the memory limit of the container in bytes, or None if there is none.

    Reads the file of cgroup v2 or, on older hosts, of cgroup v1, which says a huge number for no limit.
    """
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        file = folder / name
        if file.exists():
            text = file.read_text().strip()
            return None if text == "max" else int(text)
    return None
