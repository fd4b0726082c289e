"""The object store: the only module that knows MinIO.

miniopy-async's own put_object of unknown length has no back-pressure, fails on exact multiples of the part
size and on nothing at all, and never aborts an upload that is cancelled. So what fits one part is one PUT
here, and the four calls of a multipart upload are made one by one.
"""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from io import BytesIO
from typing import Any, NamedTuple, ParamSpec, TypeVar
from urllib.parse import urlsplit, urlunsplit

import aiohttp
from cachetools import TTLCache
from fastcrc import crc64
from miniopy_async.api import Minio
from miniopy_async.datatypes import Part
from miniopy_async.error import MinioException, S3Error

from common.problems import Unavailable
from records.settings import StoreSettings

P = ParamSpec("P")
T = TypeVar("T")

PART_BYTES = 5 * 1024**2  # S3's smallest part, but for the last.
# Long enough for one part over a slow line; after it the store counts as away.
REQUEST_TIMEOUT_SECONDS = 60
# A listener waits for the first byte no longer than the gateway would.
LISTENER_TIMEOUT_SECONDS = 10
CONNECT_TIMEOUT_SECONDS = 5
# A link of the gateway to the store is used at once; it must outlive the transfer's start only.
PRESIGNED_LIFETIME = timedelta(minutes=5)
PRESIGNED_KEPT, PRESIGNED_KEPT_SECONDS = 1024, 60
READ_BYTES = 256 * 1024
# In these words the gateway says it, too.
LOST = "The object store does not have this MP3, which its operator should know"


class StoredObject(NamedTuple):
    """What is known of an object once it is complete."""

    size_bytes: int
    sha256: bytes


@contextmanager
def _translating() -> Iterator[None]:
    """Whatever the store does not do is Unavailable to our callers: it is never the client's fault."""
    try:
        yield
    except S3Error as error:
        is_lost = error.code == "NoSuchKey"
        raise Unavailable(LOST if is_lost else f"The object store refuses, with {error.code}") from error
    except (aiohttp.ClientError, MinioException, OSError) as error:
        raise Unavailable("The object store does not answer") from error


def _translated(call: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    async def translated(*args: P.args, **kwargs: P.kwargs) -> T:
        with _translating():
            async with asyncio.timeout(REQUEST_TIMEOUT_SECONDS):
                return await call(*args, **kwargs)

    return translated


class ObjectStore:
    """One bucket. Every method raises Unavailable where the store is away or refuses.

    Bodies go out as BytesIO: aiohttp sends these piece by piece, and large bytes in one go.
    """

    def __init__(self, client: Minio, bucket: str) -> None:
        self._client = client
        self._bucket = bucket
        self._presigned: TTLCache[str, str] = TTLCache(PRESIGNED_KEPT, PRESIGNED_KEPT_SECONDS)

    @_translated
    async def put(self, key: str, data: bytes) -> None:
        """Stores an object of one piece."""
        await self._client._put_object(self._bucket, key, BytesIO(data), {"Content-Type": "audio/mpeg"})

    @_translated
    async def begin(self, key: str) -> str:
        """Begins a multipart upload and returns its id."""
        return str(
            await self._client._create_multipart_upload(self._bucket, key, {"Content-Type": "audio/mpeg"})
        )

    @_translated
    async def put_part(self, key: str, upload_id: str, number: int, data: bytes) -> Part:
        """Stores part `number` (from 1) of a multipart upload."""
        etag = await self._client._upload_part(self._bucket, key, BytesIO(data), None, upload_id, number)
        return Part(number, etag)

    @_translated
    async def complete(self, key: str, upload_id: str, parts: list[Part]) -> None:
        """Makes an object of the parts."""
        result = await self._client._complete_multipart_upload(self._bucket, key, upload_id, parts)
        # S3 may send the status 200 before it is done, and then an error in the body.
        if not result.etag:
            raise Unavailable("The object store could not join the parts")

    @_translated
    async def remove(self, key: str) -> bool:
        """Removes the object and every open upload of exactly this key; True where there was any."""
        uploads = await self._client._list_multipart_uploads(self._bucket, prefix=key)
        for upload in uploads.uploads:
            try:
                await self._client._abort_multipart_upload(self._bucket, key, str(upload.upload_id))
            except S3Error as error:
                if error.code != "NoSuchUpload":
                    raise
        try:
            await self._client.stat_object(self._bucket, key)
        except S3Error as error:
            if error.code != "NoSuchKey":
                raise
            return bool(uploads.uploads)
        await self._client.remove_object(self._bucket, key)
        return True

    async def presign(self, key: str) -> str:
        """Path and query with which whoever has them may GET the object for a few minutes.

        Asks nobody. What is listened to now is asked for again and again: its signature is used for a while.
        """
        if not (presigned := self._presigned.get(key)):
            url = await self._client.presigned_get_object(self._bucket, key, expires=PRESIGNED_LIFETIME)
            presigned = self._presigned[key] = urlunsplit(("", "", *urlsplit(url)[2:]))
        return presigned

    @_translated
    async def open(
        self, key: str, first: int = 0, length: int = 0, timeout_seconds: int = REQUEST_TIMEOUT_SECONDS
    ) -> AsyncGenerator[bytes, None]:
        """The `length` bytes (0: all) of an object from byte `first` on, in pieces; to be closed (`aclose`).

        The store has answered by then; after `timeout_seconds` without an answer it is away.
        """
        async with asyncio.timeout(timeout_seconds):
            response = await self._client.get_object(self._bucket, key, first, length)
        pieces = _read(response)
        # Or it could not be closed before its first piece.
        await anext(pieces)
        return pieces

    @_translated
    async def check(self) -> None:
        """Asks for the bucket."""
        if not await self._client.bucket_exists(self._bucket):
            raise Unavailable("The bucket is missing")


async def _read(response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
    try:
        yield b""
        async for piece in response.content.iter_chunked(READ_BYTES):
            yield piece
            # Where neither the store nor the listener makes it wait, it hears only here that the latter left.
            await asyncio.sleep(0)
    finally:
        # At the end the connection has gone back already; for a listener who left, the rest is not read.
        response.close()


class ObjectWriter:
    """Writes one object as its bytes become known, of which the first, its head, are known last.

    So the first part of 5 MiB is kept back until the end. An object of less than two parts is one PUT; of a
    larger one the parts behind the first are sent on the way. In memory are at most the part that is kept,
    one that fills and one under way. Before `open` all is held, and the store is not touched.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._key = ""
        # The first part, and what is to follow the parts that have been sent.
        self._buffer = bytearray()
        self._checksum = 0
        self._size_bytes = 0
        self._upload_id = ""
        self.has_touched_store = False
        self._sending: list[asyncio.Task[Part]] = []

    @property
    def held_bytes(self) -> int:
        """How much is waiting in memory."""
        return len(self._buffer)

    def open(self, key: str) -> None:
        """Says where the object belongs; from now on the store may be touched."""
        self._key = key

    async def write(self, data: bytes) -> None:
        """Takes the next bytes behind the head; waits for the store where it is slower than its client."""
        self._buffer += data
        self._checksum = crc64.xz(data, self._checksum)
        self._size_bytes += len(data)
        while self._key and len(self._buffer) >= 2 * PART_BYTES:
            if self._sending:
                await self._sending[-1]
            await self._send_part(self._take(PART_BYTES, 2 * PART_BYTES))

    async def finish(self, head: bytes) -> StoredObject:
        """Stores what is left with `head` in front of it all, and completes the object.

        Raises Unavailable where it does not read back as it was written.
        """
        await self.write(b"")
        if not self._upload_id:
            # In place, so that no third copy of it is in memory.
            self._buffer[:0] = head
            data = self._take(0, len(self._buffer))
            self.has_touched_store = True
            await self._store.put(self._key, data)
            return StoredObject(len(data), hashlib.sha256(data).digest())
        if len(self._buffer) > PART_BYTES:
            await self._send_part(self._take(PART_BYTES, len(self._buffer)))
        await self._send_part(head + self._take(0, PART_BYTES), is_first=True)
        parts = sorted([await task for task in self._sending], key=lambda part: part.part_number)
        await self._store.complete(self._key, self._upload_id, parts)
        return StoredObject(len(head) + self._size_bytes, await self._read_back(head))

    async def close(self) -> None:
        """Ends what is under way here; what the store is still at, the sweeper finds at its second look."""
        for task in self._sending:
            task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)

    def _take(self, start: int, end: int) -> bytes:
        taken = bytes(memoryview(self._buffer)[start:end])
        del self._buffer[start:end]
        return taken

    async def _send_part(self, part: bytes, *, is_first: bool = False) -> None:
        if not self._upload_id:
            self.has_touched_store = True
            self._upload_id = await self._store.begin(self._key)
        # The first part is sent last, so its number is left out until then.
        number = 1 if is_first else len(self._sending) + 2
        self._sending.append(
            asyncio.create_task(self._store.put_part(self._key, self._upload_id, number, part))  # type: ignore[arg-type]
        )

    async def _read_back(self, head: bytes) -> bytes:
        """Returns the digest of the stored object, which can be known only now that its first bytes are.

        Raises Unavailable where the object is not what was sent.
        """
        digest = hashlib.sha256()
        start, checksum = b"", 0
        with _translating():
            async for piece in await self._store.open(self._key):
                digest.update(piece)
                missing = len(head) - len(start)
                start += piece[:missing]
                checksum = crc64.xz(piece[missing:], checksum)
        if (start, checksum) != (head, self._checksum):
            raise Unavailable("The object store did not keep what it was sent")
        return digest.digest()


@asynccontextmanager
async def open_store(settings: StoreSettings) -> AsyncIterator[ObjectStore]:
    """The bucket of these settings, with connections of its own that are closed at the end."""
    async with make_session() as session:
        yield ObjectStore(make_client(settings, session), settings.s3_bucket)


def make_session() -> aiohttp.ClientSession:
    """Connections to the store. miniopy-async's own session allows ten and lets the eleventh wait."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(
            total=None, sock_connect=CONNECT_TIMEOUT_SECONDS, sock_read=REQUEST_TIMEOUT_SECONDS
        ),
    )


def make_client(settings: StoreSettings, session: aiohttp.ClientSession, **keys: Any) -> Minio:
    """A client; the region is given, or every first call would ask for it.

    The bucket stands in the path, also where the library would put it into the host name: the gateway cannot.
    """
    endpoint = urlsplit(settings.s3_endpoint)
    credentials = {"access_key": settings.s3_access_key, "secret_key": settings.s3_secret_key, **keys}
    client = Minio(
        endpoint.netloc,
        secure=endpoint.scheme == "https",
        region=settings.s3_region,
        session=session,
        **credentials,
    )
    client.disable_virtual_style_endpoint()  # type: ignore[no-untyped-call]
    return client
