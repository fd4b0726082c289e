"""The object store. Only this module knows MinIO.

miniopy-async's put_object for an unknown length has no back-pressure, fails on exact multiples of the upload
part's size and on an empty object, and never aborts a cancelled upload. So this module sends a small object
as one PUT, and makes the four calls of a multipart upload itself.
"""

import asyncio
import hashlib
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from http import HTTPStatus
from io import BytesIO
from typing import Any, NamedTuple, ParamSpec, TypeVar
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import structlog
from cachetools import TTLCache
from fastcrc import crc64
from miniopy_async.api import Minio
from miniopy_async.datatypes import Part
from miniopy_async.deleteobjects import DeleteObject
from miniopy_async.error import InvalidResponseError, MinioException, S3Error, ServerError

from common.problems import Unavailable
from records.metrics import STORE_CALL_ERRORS, STORE_CALL_SECONDS
from records.settings import StoreSettings

log = structlog.get_logger()

P = ParamSpec("P")
T = TypeVar("T")

# The smallest upload part that S3 allows, except for the last one.
UPLOAD_PART_BYTES = 5 * 1024**2
# An MP3 with fewer bytes was one PUT (see ObjectWriter).
MULTIPART_BYTES = 2 * UPLOAD_PART_BYTES
# Long enough for one upload part over a slow line. After that the store counts as away.
REQUEST_TIMEOUT_SECONDS = 60
# As long as the gateway waits for the store (proxy_read_timeout of its location /_blob).
LISTENER_TIMEOUT_SECONDS = 10
CONNECT_TIMEOUT_SECONDS = 5
# The longest pause before the first repetition of a call that failed. It doubles with each repetition, up to
# the second number.
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 2.0
# The gateway uses a presigned URL at once, so it must only outlive the start of the transfer.
PRESIGNED_LIFETIME = timedelta(minutes=5)
CACHED_PRESIGNED_URLS, PRESIGNED_URLS_CACHED_SECONDS = 1024, 60
READ_BYTES = 256 * 1024
# By the suffix of the object key. A waveform has no type of its own.
CONTENT_TYPES = {"mp3": "audio/mpeg", "wav": "audio/wav"}
# MinIO shows it to everybody in its network (MINIO_PROMETHEUS_AUTH_TYPE=public).
MINIO_METRICS = "/minio/v2/metrics/cluster"
# Stands for a time that a store leaves out. So an object without a time never counts as young.
NEVER = datetime(1970, 1, 1, tzinfo=UTC)
# Keep identical to the text in waxwing.conf.template.
STORE_AWAY = "The object store does not answer"
LOST_OBJECT = "The object store does not have what belongs to this address, so tell the operator"
OTHER_BYTES = "The object store returned other bytes than it was sent"
STORE_ERRORS = (aiohttp.ClientError, MinioException, OSError)
BROKEN_CONNECTION = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, ConnectionError)
# A store, or a proxy in front of it, sends these while it starts, is overloaded or lacks some of its nodes.
PASSING_STATUSES = {500, 502, 503, 504}


class StoredObject(NamedTuple):
    """Size and digest of a complete object."""

    size_bytes: int
    sha256: bytes


class FoundObject(NamedTuple):
    """An object, as the store lists it."""

    key: str
    size_bytes: int
    changed_at: datetime


class FoundMultipartUpload(NamedTuple):
    """An open multipart upload, as the store lists it."""

    key: str
    upload_id: str
    begun_at: datetime


def _unavailable(error: Exception) -> Unavailable:
    """Returns the problem for an error of the store: none of them is the client's fault."""
    if not isinstance(error, S3Error):
        return Unavailable(STORE_AWAY)
    if error.code == "NoSuchKey":
        return Unavailable(LOST_OBJECT)
    return Unavailable(_describe_refusal(error.code))


def _describe_refusal(code: str | None) -> str:
    return f"The object store refuses the request with the error {code}"


def means_lost(problem: Unavailable) -> bool:
    """Whether the store works but does not have the object."""
    return isinstance(problem.__cause__, S3Error) and problem.__cause__.code == "NoSuchKey"


def _is_passing(error: BaseException | None) -> bool:
    """Whether the same call may succeed soon. A store that was silent for REQUEST_TIMEOUT_SECONDS is no such
    case.
    """
    match error:
        case S3Error():
            return error.response.status in PASSING_STATUSES
        case ServerError():
            return error.status_code in PASSING_STATUSES
        case InvalidResponseError():
            return error._code in PASSING_STATUSES
    return isinstance(error, BROKEN_CONNECTION)


def make_original_key(mp3_key: str) -> str:
    """Returns the object key of the original of a record. OBJECTS in records.sql has the same in SQL."""
    return f"{mp3_key.removesuffix('.mp3')}.wav"


def make_waveform_key(mp3_key: str) -> str:
    """Returns the object key of the waveform of a record. OBJECTS in records.sql has the same in SQL."""
    return f"{mp3_key.removesuffix('.mp3')}.waveform"


def _headers(key: str) -> dict[str, str | list[str] | tuple[str]]:
    return {"Content-Type": CONTENT_TYPES.get(key.rpartition(".")[2], "application/octet-stream")}


def _bounded(call: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """Gives a call to the store a time limit, and translates its errors.

    It is no context manager made from a generator: since Python 3.13 the frames of such a generator hold the
    error, and the error holds the frames.
    """

    seconds, errors = STORE_CALL_SECONDS.labels(call.__name__), STORE_CALL_ERRORS.labels(call.__name__)

    async def bounded(*args: P.args, **kwargs: P.kwargs) -> T:
        began = time.perf_counter()
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_SECONDS):
                result = await call(*args, **kwargs)
        except STORE_ERRORS as error:
            errors.inc()
            raise _unavailable(error) from error
        seconds.observe(time.perf_counter() - began)
        return result

    return bounded


class ObjectStore:
    """One bucket. Every method raises Unavailable if the store is away or refuses.

    Bodies are sent as BytesIO: aiohttp sends a BytesIO piece by piece, but bytes in one go.
    """

    def __init__(self, client: Minio, bucket: str) -> None:
        self._client = client
        self._bucket = bucket
        self._presigned: TTLCache[str, str] = TTLCache(CACHED_PRESIGNED_URLS, PRESIGNED_URLS_CACHED_SECONDS)

    @_bounded
    async def put(self, key: str, data: bytes) -> None:
        """Stores an object with one PUT."""
        await self._client._put_object(self._bucket, key, BytesIO(data), _headers(key))

    @_bounded
    async def begin(self, key: str) -> str:
        """Begins a multipart upload and returns its upload id."""
        return str(await self._client._create_multipart_upload(self._bucket, key, _headers(key)))

    @_bounded
    async def put_upload_part(self, key: str, upload_id: str, number: int, data: bytes) -> Part:
        """Stores upload part `number`, counted from 1."""
        etag = await self._client._upload_part(self._bucket, key, BytesIO(data), None, upload_id, number)
        return Part(number, etag)

    @_bounded
    async def complete(self, key: str, upload_id: str, parts: list[Part]) -> None:
        """Joins the upload parts into the object. May be repeated."""
        try:
            result = await self._client._complete_multipart_upload(self._bucket, key, upload_id, parts)
        except S3Error as error:
            # If the response to an earlier call was lost, the object stands. Nobody else uses this key, and
            # the caller reads the object back.
            if error.code == "NoSuchUpload" and await self._has_object(key):
                return
            raise
        # S3 can send the status 200 before it has joined the upload parts, and then an error in the body.
        if not result.etag:
            cause = ServerError("the body has an error", 500)
            raise Unavailable("The object store could not join the upload parts") from cause

    @_bounded
    async def remove(self, key: str) -> None:
        """Removes the object and every multipart upload of exactly this key."""
        await self._abort_multipart_uploads(key)
        await self._client.remove_object(self._bucket, key)

    @_bounded
    async def abort_multipart_uploads(self, key: str) -> None:
        """Removes every multipart upload of exactly this key."""
        await self._abort_multipart_uploads(key)

    @_bounded
    async def remove_objects(self, keys: list[str]) -> dict[str, str]:
        """Removes at most 1,000 objects with one request, whether they exist or not.

        Returns the keys that the store refused to remove, each with the reason.
        """
        if not keys:
            return {}
        # Quiet: the response names only what failed.
        result = await self._client._delete_objects(
            self._bucket, [DeleteObject(key) for key in keys], quiet=True
        )
        if any(not error.name for error in result.error_list):
            raise Unavailable(_describe_refusal(result.error_list[0].code))
        return {str(error.name): _describe_refusal(error.code) for error in result.error_list}

    async def presign(self, key: str) -> str:
        """Returns path and query of a URL that allows anyone to GET the object for a few minutes.

        Sends nothing to the store. A URL is cached for a minute, because players ask for the same object
        often.
        """
        if not (presigned := self._presigned.get(key)):
            url = await self._client.presigned_get_object(self._bucket, key, expires=PRESIGNED_LIFETIME)
            presigned = self._presigned[key] = urlunsplit(("", "", *urlsplit(url)[2:]))
        return presigned

    @_bounded
    async def open(
        self, key: str, first: int = 0, length: int = 0, timeout_seconds: int = REQUEST_TIMEOUT_SECONDS
    ) -> AsyncGenerator[bytes, None]:
        """Returns `length` bytes (0: all) of an object from byte `first` on, in pieces. The caller closes it.

        Returns when the store's response has begun. After `timeout_seconds` without one the store counts as
        away.
        """
        async with asyncio.timeout(timeout_seconds):
            response = await self._client.get_object(self._bucket, key, first, length)
        pieces = _read(response)
        # Starts the generator: closing one that has not started would not run its `finally`.
        await anext(pieces)
        return pieces

    @_bounded
    async def read(self, key: str, sha256: bytes) -> bytes:
        """Returns a small object whole, for a listener. Raises Unavailable if it has another SHA-256."""
        async with asyncio.timeout(LISTENER_TIMEOUT_SECONDS):
            response = await self._client.get_object(self._bucket, key)
            try:
                data = await response.read()
            finally:
                response.close()
        if hashlib.sha256(data).digest() != sha256:
            raise Unavailable(OTHER_BYTES)
        return data

    @_bounded
    async def check(self) -> None:
        """Raises Unavailable if the bucket is missing."""
        if not await self._client.bucket_exists(self._bucket):
            raise Unavailable("The bucket is missing")

    async def list_objects(self, prefix: str = "") -> AsyncIterator[FoundObject]:
        """Yields every object, in the order of S3: by the bytes of the keys. Holds one page of 1,000."""
        try:
            async for each in self._client.list_objects(self._bucket, prefix, recursive=True):
                changed_at = each.last_modified or NEVER
                yield FoundObject(str(each.object_name), each.size or 0, changed_at)
        except STORE_ERRORS as error:
            raise _unavailable(error) from error

    async def list_multipart_uploads(self, key: str = "") -> AsyncIterator[FoundMultipartUpload]:
        """Yields the open multipart uploads of exactly this key, or of the whole bucket.

        If asked for the whole bucket, MinIO lists only the uploads that have begun since MinIO started.
        """
        markers: dict[str, Any] = {}
        try:
            while True:
                page = await self._client._list_multipart_uploads(self._bucket, prefix=key, **markers)
                for each in page.uploads:
                    if not key or each.object_name == key:
                        begun_at = each.initiated_time or NEVER
                        yield FoundMultipartUpload(str(each.object_name), str(each.upload_id), begun_at)
                if not page.is_truncated:
                    return
                markers = {
                    "key_marker": page.next_key_marker,
                    "upload_id_marker": page.next_upload_id_marker,
                }
        except STORE_ERRORS as error:
            raise _unavailable(error) from error

    async def _abort_multipart_uploads(self, key: str) -> None:
        async for upload in self.list_multipart_uploads(key):
            try:
                await self._client._abort_multipart_upload(self._bucket, key, upload.upload_id)
            except S3Error as error:
                if error.code != "NoSuchUpload":
                    raise

    @_bounded
    async def abort_multipart_upload(self, upload: FoundMultipartUpload) -> None:
        """Aborts one multipart upload."""
        await self._client._abort_multipart_upload(self._bucket, upload.key, upload.upload_id)

    @_bounded
    async def find(self, key: str) -> FoundObject | None:
        """Returns what the store says of an object, or None if there is no such object."""
        return await self._find(key)

    async def _has_object(self, key: str) -> bool:
        return await self._find(key) is not None

    async def _find(self, key: str) -> FoundObject | None:
        try:
            found = await self._client.stat_object(self._bucket, key)
        except S3Error as error:
            if error.code != "NoSuchKey":
                raise
            return None
        return FoundObject(key, found.size or 0, found.last_modified or NEVER)


async def _read(response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
    try:
        yield b""
        async for piece in response.content.iter_chunked(READ_BYTES):
            yield piece
            # If neither the store nor the listener is slow, only this await notices that the listener has
            # left.
            await asyncio.sleep(0)
    finally:
        # After the last piece this does nothing. After a listener has left, it drops the rest of the
        # response.
        response.close()


class ObjectWriter:
    """Writes one object while its bytes become known.

    A head, if the object has one, becomes known last. For it the first upload part of 5 MiB is kept in memory
    until the end. The later upload parts are sent while the object grows; an object that ends before the
    first of them is one PUT. Memory holds at most three upload parts: the first one, one that fills, and one
    that is being sent; without a head it holds two. Before `open`, memory holds everything and the store is
    not touched.

    If a call fails and may succeed soon, the writer repeats it for `retry_seconds` after its first failure.
    All bytes of a call are in memory, and each repetition sends them from the start. Other calls to the store
    are not repeated: the sweeper repeats removals, and listeners and `/readyz` should get their response
    soon.
    """

    def __init__(self, store: ObjectStore, retry_seconds: float, *, has_head: bool = True) -> None:
        self._first_bytes = UPLOAD_PART_BYTES if has_head else 0
        self._digest = None if has_head else hashlib.sha256()
        self._store = store
        self._retry_seconds = retry_seconds
        self._is_lost: Callable[[], bool] = lambda: False
        self.key = ""
        # The first upload part, and the bytes behind the upload parts that were sent.
        self._buffer = bytearray()
        self._checksum = 0
        self.written_bytes = 0
        """How many bytes behind the head have been written."""
        self._upload_id = ""
        self.has_touched_store = False
        self._sending: list[asyncio.Task[Part]] = []

    @property
    def held_bytes(self) -> int:
        """How many bytes wait in memory."""
        return len(self._buffer)

    def open(self, key: str, is_lost: Callable[[], bool]) -> None:
        """Sets the object key. From now on the store may be touched. No call is repeated once `is_lost`."""
        self.key = key
        self._is_lost = is_lost

    async def write(self, data: bytes) -> None:
        """Takes the next bytes behind the head. Waits if the store is slower than the client."""
        self._buffer += data
        if self._digest:
            self._digest.update(data)
        else:
            self._checksum = crc64.xz(data, self._checksum)
        self.written_bytes += len(data)
        while self.key and len(self._buffer) >= self._first_bytes + UPLOAD_PART_BYTES:
            if self._sending:
                await self._sending[-1]
            await self._send_upload_part(self._take(self._first_bytes, self._first_bytes + UPLOAD_PART_BYTES))

    async def finish(self, head: bytes = b"") -> StoredObject:
        """Stores the rest, puts `head` in front of everything, and completes the object.

        Raises Unavailable if a multipart object with a head does not read back as it was written. Without a
        head its SHA-256 is known, and each request has a digest of its bytes, which the store compares.
        """
        await self.write(b"")
        if not self._upload_id:
            # Inserts in place, so that memory holds no third copy.
            self._buffer[:0] = head
            data = self._take(0, len(self._buffer))
            self.has_touched_store = True
            await self._persist(partial(self._store.put, self.key, data))
            return StoredObject(len(data), hashlib.sha256(data).digest())
        if len(self._buffer) > self._first_bytes:
            await self._send_upload_part(self._take(self._first_bytes, len(self._buffer)))
        if self._first_bytes:
            await self._send_upload_part(head + self._take(0, self._first_bytes), is_first=True)
        # Not in a loop: its frame would hold the failed task, and the task's exception would hold the frame.
        parts = sorted(await asyncio.gather(*self._sending), key=lambda part: part.part_number)
        await self._persist(partial(self._store.complete, self.key, self._upload_id, parts))
        if self._digest:
            return StoredObject(self.written_bytes, self._digest.digest())
        sha256 = await self._persist(partial(self._read_back, head))
        return StoredObject(len(head) + self.written_bytes, sha256)

    def drop(self) -> None:
        """Drops the bytes in memory, and cancels the upload parts under way. Nothing can be written any more.

        If the store still finishes an upload part, the sweeper's second look finds it.
        """
        self._buffer.clear()
        for task in self._sending:
            task.cancel()

    async def close(self) -> None:
        """Drops everything, and waits until no upload part is under way."""
        self.drop()
        await asyncio.gather(*self._sending, return_exceptions=True)
        # A failed task holds its exception, and that holds the frames that hold this writer: cut the cycle.
        self._sending.clear()

    def _take(self, start: int, end: int) -> bytes:
        taken = bytes(memoryview(self._buffer)[start:end])
        del self._buffer[start:end]
        return taken

    async def _send_upload_part(self, part: bytes, *, is_first: bool = False) -> None:
        if not self._upload_id:
            self._upload_id = await self._persist(self._begin)
        # The part with the head is sent last, so then the others are numbered from 2.
        number = 1 if is_first else len(self._sending) + 1 + bool(self._first_bytes)
        send = partial(self._store.put_upload_part, self.key, self._upload_id, number, part)
        self._sending.append(asyncio.create_task(self._persist(send)))

    async def _begin(self) -> str:
        if self.has_touched_store:
            # This is a repetition. The multipart upload of a lost response would stay open for ever.
            await self._store.remove(self.key)
        self.has_touched_store = True
        return await self._store.begin(self.key)

    async def _persist(self, call: Callable[[], Awaitable[T]]) -> T:
        """Repeats a call until it succeeds, or fails for good, or there is no more time for it."""
        now = asyncio.get_running_loop().time
        end, longest_pause = None, FIRST_PAUSE_SECONDS
        while True:
            # Random, so that uploads which failed together do not come back together.
            pause = random.uniform(longest_pause / 2, longest_pause)  # noqa: S311
            try:
                return await call()
            except Unavailable as problem:
                failed_at = now()
                end = end or failed_at + self._retry_seconds
                if not _is_passing(problem.__cause__) or failed_at + pause > end:
                    raise
                log.warning("a call to the store is repeated", detail=problem.detail)
            # Outside of `except`, so that nothing holds the failed call meanwhile.
            await asyncio.sleep(pause)
            if self._is_lost():
                raise Unavailable(STORE_AWAY)
            longest_pause = min(2 * longest_pause, LONGEST_PAUSE_SECONDS)

    async def _read_back(self, head: bytes) -> bytes:
        """Reads the stored object and returns its digest.

        The object starts with the head, which becomes known last, so the digest is not known before.

        Raises Unavailable if the object differs from the bytes that were sent.
        """
        digest = hashlib.sha256()
        start, checksum = b"", 0
        try:
            async for piece in await self._store.open(self.key):
                digest.update(piece)
                missing = len(head) - len(start)
                start += piece[:missing]
                checksum = crc64.xz(piece[missing:], checksum)
        except STORE_ERRORS as error:
            raise _unavailable(error) from error
        if (start, checksum) != (head, self._checksum):
            raise Unavailable(OTHER_BYTES)
        return digest.digest()


@asynccontextmanager
async def open_store(settings: StoreSettings) -> AsyncIterator[ObjectStore]:
    """Opens the bucket of these settings, and closes its connections at the end."""
    async with make_session() as session:
        yield ObjectStore(make_client(settings, session), settings.s3_bucket)


def make_session() -> aiohttp.ClientSession:
    """Returns connections to the store, any number. miniopy-async's own session would stall the eleventh.

    Each call has the id of its request in the User-Agent, so that the store's log has it too.
    """
    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(_name_request)
    return aiohttp.ClientSession(
        trace_configs=[trace],
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(
            total=None, sock_connect=CONNECT_TIMEOUT_SECONDS, sock_read=REQUEST_TIMEOUT_SECONDS
        ),
    )


async def read_server_metrics(endpoint: str, session: aiohttp.ClientSession) -> str:
    """Returns what MinIO says of itself to Prometheus, or an empty text if another store says nothing."""
    try:
        async with session.get(f"{endpoint}{MINIO_METRICS}") as response:
            is_minio = response.status == HTTPStatus.OK and response.content_type == "text/plain"
            return await response.text() if is_minio else ""
    except (TimeoutError, UnicodeDecodeError, *STORE_ERRORS):
        return ""


async def _name_request(_: object, __: object, call: aiohttp.TraceRequestStartParams) -> None:
    request_id = structlog.contextvars.get_contextvars().get("request_id", "none")
    call.headers["User-Agent"] = f"waxwing-records request-id/{request_id}"


class _Client(Minio):
    """A client whose errors hold no reference to themselves.

    miniopy-async keeps an error in a variable of the frame that raises it. This reference cycle would keep
    the request's frames, with the bytes of an upload part, until Python's cycle collector runs.

    The client puts the bucket into the path, never into the host name, because the gateway knows the hosts of
    the endpoints only.
    """

    def __init__(self, endpoint: str, **options: Any) -> None:
        scheme, netloc, *_ = urlsplit(endpoint)
        super().__init__(netloc, secure=scheme == "https", **options)
        self.disable_virtual_style_endpoint()  # type: ignore[no-untyped-call]

    async def _url_open(self, *args: Any, **named: Any) -> Any:
        try:
            return await super()._url_open(*args, **named)
        except MinioException as error:
            raise error.with_traceback(None) from None


class _ClientOfNodes(_Client):
    """A client of a store with several nodes. It signs URLs for the first one.

    A request goes to the node that succeeded last. Another node gets it at once if this one fails in passing,
    or says that it does not have what the request names: for seconds after its return, a node says so of
    objects that the store has.
    """

    def __init__(self, endpoints: list[str], **options: Any) -> None:
        super().__init__(endpoints[0], **options)
        self._nodes = [_Client(endpoint, **options) for endpoint in endpoints]
        # So the instances of the service begin with different nodes.
        self._preferred = random.randrange(len(endpoints))  # noqa: S311

    async def _url_open(self, method: str, *args: Any, body: Any = None, **named: Any) -> Any:
        failures: list[BaseException] = []
        for number in [*range(self._preferred, len(self._nodes)), *range(self._preferred)]:
            # A request that has failed leaves its body at an end or in the middle.
            own_body = BytesIO(body.getvalue()) if isinstance(body, BytesIO) else body
            try:
                response = await self._nodes[number]._url_open(method, *args, body=own_body, **named)
            except BaseException as error:
                # Also if the request was cancelled, perhaps because this node hangs.
                if self._preferred == number:
                    self._preferred = (number + 1) % len(self._nodes)
                if not _may_ask_another_node(method, error):
                    raise
                # The error's frames hold the body.
                failures.append(error.with_traceback(None))
            else:
                if any(map(_says_absent, failures)):
                    log.warning("a node of the store lacks what another node has", method=method)
                self._preferred = number
                return response
        try:
            raise _choose_failure(failures)
        finally:
            # The error holds this frame, so the frame must not hold the error.
            failures.clear()


def _may_ask_another_node(method: str, error: BaseException) -> bool:
    """Whether another node may succeed.

    A POST that failed may have had its effect, and beginning a multipart upload twice would leave one open.
    So its caller repeats it (see ObjectWriter).
    """
    return _says_absent(error) or (_is_passing(error) and method != "POST")


def _choose_failure(failures: list[BaseException]) -> BaseException:
    """Returns what counts if all nodes have failed.

    Something is absent if more than half of the nodes say so. Fewer may have come back too recently to know.
    """
    absent = [error for error in failures if _says_absent(error)]
    if 2 * len(absent) > len(failures):
        return absent[0]
    return next(error for error in failures if error not in absent)


def _says_absent(error: BaseException) -> bool:
    return isinstance(error, S3Error) and error.response.status == HTTPStatus.NOT_FOUND


def make_client(settings: StoreSettings, session: aiohttp.ClientSession, **keys: Any) -> Minio:
    """Returns a client. Without the region, the client would ask the store for it."""
    options = {
        "access_key": settings.s3_access_key,
        "secret_key": settings.s3_secret_key,
        "region": settings.s3_region,
        "session": session,
        **keys,
    }
    endpoint, *others = settings.endpoints
    return _ClientOfNodes([endpoint, *others], **options) if others else _Client(endpoint, **options)
