"""Uploads and downloads that are tried again if they break off.

A terminal shows how far they are, how fast they are and how long they still take.
"""

import hashlib
import io
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, BinaryIO, TypeVar, cast

import httpx
from tqdm import tqdm

from deploy.client import BROKEN, Client, Refused
from deploy.terminal.logins import Login

# The pauses behind the tries. Together they are longer than the lease of an upload whose service was killed.
PAUSES_SECONDS = (1, 2, 4, 8, 16)
T = TypeVar("T")


class WrongBytesError(Exception):
    """A download is not what the record says."""


def upload(
    client: Client, wav: BinaryIO, name: str, login: Login, key: str, **options: str | int | None
) -> dict[str, Any]:
    """Uploads a WAV and returns its record. However often it is tried, the key makes one record.

    `name` stands in front of the progress bar. Raises Refused, or one of BROKEN.
    """
    return _try(partial(_upload, client, wav, name, login, key, **options), f" with --key {key}")


def download(
    stream: Callable[[], AbstractContextManager[httpx.Response]], target: BinaryIO, what: dict[str, Any]
) -> None:
    """Downloads what has these `size_bytes` and this `sha256` to an empty file that can be sought.

    Raises Refused, WrongBytesError, or one of BROKEN.
    """
    _try(partial(_download, stream, target, what))


def describe_error(error: Exception) -> str:
    """Returns the text of an error. Some errors of httpx have no text, so their class is named."""
    # The whole text of an OSError names the file too, as the caller does.
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _try(transfer: Callable[[], T], how: str = "") -> T:
    for pause in PAUSES_SECONDS:
        try:
            return transfer()
        except (Refused, *BROKEN) as error:
            asked = error.pause_seconds if isinstance(error, Refused) else 0
            if asked is None:
                raise
            seconds = max(pause, asked)
            print(f"client: {describe_error(error)}; trying again in {seconds} s{how}", file=sys.stderr)
            time.sleep(seconds)
    return transfer()


def _upload(
    client: Client, wav: BinaryIO, name: str, login: Login, key: str, **options: str | int | None
) -> dict[str, Any]:
    size_bytes = wav.seek(0, io.SEEK_END)
    wav.seek(0)
    with tqdm.wrapattr(wav, "read", size_bytes, desc=name, disable=None) as watched:
        return client.upload(cast(BinaryIO, watched), login.user_id, login.token, key, **options)


def _download(
    stream: Callable[[], AbstractContextManager[httpx.Response]], target: BinaryIO, what: dict[str, Any]
) -> None:
    target.seek(0)
    target.truncate()
    digest = hashlib.sha256()
    progress = tqdm(desc="downloading", total=what["size_bytes"], unit="B", unit_scale=True, disable=None)
    with stream() as response, progress:
        if response.is_error:
            response.read()
            raise Refused(response)
        for piece in response.iter_raw():
            target.write(piece)
            digest.update(piece)
            progress.update(len(piece))
    target.flush()
    if digest.hexdigest() != what["sha256"]:
        raise WrongBytesError("the downloaded bytes are not those of the record: try again")
