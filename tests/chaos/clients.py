"""Clients who use a stack in every way while it is disturbed, and compare each response with the ledger."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import re
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, NamedTuple

import aiohttp

from tests.chaos.ledger import Fact, Ledger, Upload, User
from tests.upload_requests import (
    FORM_TYPE,
    WAV_TYPE,
    FormPart,
    audio,
    basic,
    bearer,
    make_form,
    token,
    user_id,
)
from tests.wavs import Wav, silence, sine

SMALL = Wav(bits=16, channels=1, rate=16000).build(sine(seconds=1.0, rate=16000, channels=1))
# At 320 kbit/s this is 10.6 MB of MP3: a multipart upload, with the fewest sample frames.
LARGE = Wav(bits=16, channels=1, rate=32000).build(silence(265.0, rate=32000, channels=1))
LARGE_BITRATE_KBPS = 320
# Without samples, cut inside `fmt `, and no WAV at all.
BROKEN = (Wav().build(silence(0)), SMALL[:24], b"ID3" + SMALL[3:])
# The share of uploads that keep their original. That of LARGE is a multipart upload of four upload parts.
KEPT_ORIGINALS = 0.3
PIECE_BYTES = 256 * 1024
JSON_TYPE = {"Content-Type": "application/json"}
UUID_TEXT = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}")
TIMEOUT = aiohttp.ClientTimeout(total=45, sock_connect=10)
# What a right upload may meet: nothing is acknowledged, and a later one can succeed.
PASSING = {0, 408, 409, 429, 503}
TRIES = 4
# Of these clients each has one user at a time, and sends one request after the other, so that the ledger
# knows the order.
WEIGHTS: dict[str, int] = {
    "upload_small": 34,
    "upload_large": 20,
    "race": 8,
    "abort_upload": 6,
    "upload_broken": 4,
    "listen": 20,
    "get_original": 8,
    "delete_original": 4,
    "look_at_list": 7,
    "rename_record": 8,
    "delete_record": 18,
    "renew_token": 4,
    "delete_user": 3,
}


class Response(NamedTuple):
    """A whole response. The status is 0 if none came, or not all of it."""

    status: int
    etag: str
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class Http:
    """Sends requests and counts the statuses."""

    def __init__(self, base_url: str, ledger: Ledger) -> None:
        self._base_url = base_url
        self._ledger = ledger
        self._session = aiohttp.ClientSession(timeout=TIMEOUT, connector=aiohttp.TCPConnector(limit=0))

    async def close(self) -> None:
        """Closes all connections."""
        await self._session.close()

    async def send(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, data: Any = None
    ) -> Response:
        """Returns the response to one request. `path` may be a whole URL."""
        path = path.removeprefix(self._base_url)
        shape = UUID_TEXT.sub("{record_id}", path.partition("?")[0])
        try:
            async with self._session.request(
                method, self._base_url + path, headers=headers, data=data, allow_redirects=False
            ) as response:
                body = await response.read()
                found = Response(response.status, response.headers.get("ETag", ""), body)
                request_id = response.headers.get("X-Request-ID", "")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            found, request_id = Response(0, "", b""), repr(error)
        detail = found.body[:300] if found.status >= 400 else b""
        self._ledger.note(f"{method} {path} {found.status} {request_id} {detail!r}")
        self._ledger.responses[method, shape, found.status] += 1
        if found.status == 500:
            self._ledger.violate(f"500 for {method} {shape}: {found.body[:300]!r}")
        return found


class Client:
    """One client, whose seed chooses what it does."""

    longest_rest_seconds = 0.0
    """How long it may rest after each action."""

    def __init__(self, http: Http, ledger: Ledger, seed: str) -> None:
        self._http = http
        self._ledger = ledger
        self._random = random.Random(seed)
        self._user: User | None = None

    async def run(self, is_over: Callable[[], bool]) -> None:
        """Acts until it is over."""
        while not is_over():
            user = self._user
            if not user or not user.is_clear:
                self._user = await self._sign_up()
                continue
            (action,) = self._random.choices(list(WEIGHTS), list(WEIGHTS.values()))
            # Everything else is about records.
            if not user.records and action != "upload_large":
                action = "upload_small"
            await getattr(self, f"_{action}")(user)
            await asyncio.sleep(self._random.uniform(0, self.longest_rest_seconds))

    async def warm_up(self, *, has_large_upload: bool) -> None:
        """Does what takes memory and connections, once."""
        while not (user := await self._sign_up()):
            pass
        for act in (self._upload_small, self._listen, self._look_at_list):
            await act(user)
        if has_large_upload:
            await self._upload_large(user)

    async def _pause(self) -> None:
        await asyncio.sleep(self._random.uniform(0.1, 0.8))

    async def _sign_up(self) -> User | None:
        response = await self._http.send("POST", "/users", JSON_TYPE, json.dumps({"name": "Ann"}))
        if response.status != 201:
            self._expect(response, {0, 503}, "a sign-up")
            await self._pause()
            return None
        document = response.json()
        user = User(document["id"], document["token"])
        self._ledger.users.append(user)
        self._ledger.acknowledged["users"] += 1
        return user

    def _expect(self, response: Response, statuses: set[int], what: str) -> None:
        if response.status not in statuses:
            self._ledger.violate(f"{what} got {response.status}: {response.body[:300]!r}")

    # Uploads

    async def _upload_small(self, user: User) -> None:
        await self._upload(user, SMALL)

    async def _upload_large(self, user: User) -> None:
        await self._upload(user, LARGE)

    async def _upload(self, user: User, wav: bytes) -> None:
        upload = self._begin_upload(user, wav)
        for _ in range(TRIES):
            if await self._send_upload(user, upload, wav) or not upload.key or not user.is_clear:
                return
            await self._pause()

    async def _race(self, user: User) -> None:
        """Sends one upload twice at once, with one key."""
        upload = self._begin_upload(user, SMALL, has_key=True)
        await asyncio.gather(*(self._send_upload(user, upload, SMALL) for _ in range(2)))

    async def _abort_upload(self, user: User) -> None:
        """Begins an upload, and breaks it off anywhere."""
        wav = LARGE if self._random.random() < 0.2 else SMALL
        await self._send_vainly(user, wav, self._random.randrange(len(wav)), PASSING)

    async def _upload_broken(self, user: User) -> None:
        await self._send_vainly(user, self._random.choice(BROKEN), None, {*PASSING, 415, 422})

    async def _send_vainly(self, user: User, wav: bytes, sent_bytes: int | None, statuses: set[int]) -> None:
        """Sends an upload that must not make a record, or only its first bytes."""
        upload = self._begin_upload(user, wav)
        headers, data, query = self._make_request(user, upload, wav)
        if sent_bytes is not None:
            data = _break_off(data, sent_bytes)
        response = await self._http.send("POST", f"/records{query}", headers, data)
        if response.status == 401:
            self._note_401(user, "an upload")
        else:
            self._expect(response, statuses, "an upload that was broken off, or of a broken WAV,")

    def _begin_upload(self, user: User, wav: bytes, *, has_key: bool | None = None) -> Upload:
        if has_key is None:
            has_key = self._random.random() < 0.6
        # Of the client's own random numbers, so that a seed repeats its requests.
        number = f"{self._random.getrandbits(64):016x}"
        upload = Upload(f"upload {number}", f"key-{number}" if has_key else None)
        if self._random.random() < KEPT_ORIGINALS:
            upload.original_sha256 = hashlib.sha256(wav).hexdigest()
        user.uploads[upload.title] = upload
        return upload

    async def _send_upload(self, user: User, upload: Upload, wav: bytes) -> bool:
        """Sends an upload once. Returns whether there is nothing to repeat."""
        upload.may_have_record = True
        headers, data, query = self._make_request(user, upload, wav)
        response = await self._http.send("POST", f"/records{query}", headers, data)
        if response.status == 201:
            await self._take_record(user, upload, response)
            return True
        if response.status == 401:
            self._note_401(user, "an upload")
        else:
            self._expect(response, PASSING, "a right upload")
        if 400 <= response.status < 500 and not upload.key:
            upload.may_have_record = False
        await self._pause()
        return response.status not in PASSING

    def _make_request(self, user: User, upload: Upload, wav: bytes) -> tuple[dict[str, str], Any, str]:
        """Returns headers, body and query of an upload in any of the ways."""
        options = {"title": upload.title}
        if wav is LARGE:
            options["bitrate_kbps"] = str(LARGE_BITRATE_KBPS)
        if upload.original_sha256:
            options["keep_original"] = "true"
        fields = [FormPart(name, value) for name, value in options.items()]
        query = "?" + "&".join(f"{name}={value.replace(' ', '%20')}" for name, value in options.items())
        credentials = {"id": user.id, "token": user.token}
        # An original is not kept if the audio comes before the credentials.
        last = () if upload.original_sha256 else ("last",)
        way = self._random.choice(("first", *last, "header", "bearer", "basic"))
        headers: dict[str, str] = {"Idempotency-Key": upload.key} if upload.key else {}
        in_form = [user_id(credentials), token(credentials)]
        match way:
            case "first":
                body, headers = make_form(*in_form, *fields, audio(wav)), {**headers, **FORM_TYPE}
                query = ""
            case "last":
                body, headers = make_form(*fields, audio(wav), *in_form), {**headers, **FORM_TYPE}
                query = ""
            case "header":
                body, headers = make_form(*fields, audio(wav)), {**headers, **FORM_TYPE, **basic(credentials)}
                query = ""
            case "bearer":
                body, headers = wav, {**headers, **WAV_TYPE, **bearer(credentials)}
            case _:
                body, headers = wav, {**headers, **WAV_TYPE, **basic(credentials)}
        is_chunked = self._random.random() < 0.5
        if not is_chunked:
            headers["Content-Length"] = str(len(body))
        return headers, _in_pieces(body, self._random.uniform(0, 0.02)), query

    async def _take_record(self, user: User, upload: Upload, response: Response) -> None:
        document = response.json()
        self._ledger.acknowledged["uploads"] += 1
        fact = self._ledger.note_record(user, document)
        if fact.title != upload.title:
            self._ledger.violate(f"upload {upload.title} got the record of {fact.title}")
        # The first download, whose bytes all later ones must have.
        await self._download(user, fact, None)

    # Downloads and lists

    async def _listen(self, user: User) -> None:
        fact = self._random.choice(list(user.records.values()))
        ranges = [*fact.ranges, None]
        await self._download(user, fact, self._random.choice(ranges))

    async def _download(self, user: User, fact: Fact, wanted: tuple[int, int] | None) -> None:
        headers = {"Range": f"bytes={wanted[0]}-{wanted[1]}"} if wanted else None
        response = await self._http.send("GET", fact.url, headers)
        if judge_download(self._ledger, user, fact, response, wanted) and not wanted and not fact.ranges:
            fact.learn_ranges(response.body)

    async def _get_original(self, user: User) -> None:
        facts = [fact for fact in user.records.values() if fact.original_sha256]
        if facts:
            await fetch_original(self._http, self._ledger, user, self._random.choice(facts))

    async def _look_at_list(self, user: User) -> None:
        documents = await fetch_list(self._http, user)
        if isinstance(documents, Response):
            if documents.status == 401:
                self._note_401(user, "a list")
            else:
                self._expect(documents, {0, 503}, "a list")
            await self._pause()
            return
        self._ledger.check_listed(user, documents)

    # Renames, deletions and tokens

    async def _rename_record(self, user: User) -> None:
        if not user.living:
            return
        fact = self._random.choice(user.living)
        title = f"renamed {self._random.getrandbits(64):016x}"
        fact.unclear_titles.add(title)
        headers = {**bearer({"token": user.token}), **JSON_TYPE}
        body = json.dumps({"title": title})
        response = await self._http.send("PATCH", f"/records/{fact.id}", headers, body)
        if response.status == 200:
            fact.last_title = title
            fact.unclear_titles.discard(title)
            self._ledger.acknowledged["renames"] += 1
            self._ledger.note_record(user, response.json())
        elif response.status == 401:
            self._note_401(user, "a rename")
        else:
            self._expect(response, {0, 503}, f"a rename of record {fact.id}")
            await self._pause()

    async def _delete_record(self, user: User) -> None:
        waiting = [fact for fact in user.records.values() if fact.is_deleted != "yes"]
        # Some records stay, so that there is something to lose.
        if len(waiting) < 2:
            return
        fact = self._random.choice(waiting)
        fact.is_deleted = "maybe"
        response = await self._http.send("DELETE", f"/records/{fact.id}", bearer({"token": user.token}))
        if response.status == 204:
            self._ledger.acknowledged["deletions"] += 1
        # nginx and the client repeat a DELETE whose response was lost.
        if response.status in (204, 404):
            fact.is_deleted = "yes"
            await self._download(user, fact, None)
        elif response.status == 401:
            self._note_401(user, "a deletion")
        else:
            self._expect(response, {0, 503}, "a deletion")
            await self._pause()

    async def _delete_original(self, user: User) -> None:
        facts = [fact for fact in user.living if fact.original_sha256 and fact.is_original_deleted != "yes"]
        if not facts:
            return
        fact = self._random.choice(facts)
        fact.is_original_deleted = "maybe"
        path = f"/records/{fact.id}/original"
        response = await self._http.send("DELETE", path, bearer({"token": user.token}))
        # As for a record.
        if response.status in (204, 404):
            fact.is_original_deleted = "yes"
            await fetch_original(self._http, self._ledger, user, fact)
        elif response.status == 401:
            self._note_401(user, "the deletion of an original")
        else:
            self._expect(response, {0, 503}, "the deletion of an original")
            await self._pause()

    async def _renew_token(self, user: User) -> None:
        user.is_token_known = False
        old = user.token
        response = await self._http.send("POST", "/users/me/token", bearer({"token": old}))
        if response.status == 200:
            user.token, user.is_token_known = response.json()["token"], True
            user.dead_tokens.append(old)
            self._ledger.acknowledged["new tokens"] += 1
            path = self._random.choice(("/users/me", "/records"))
            check = await self._http.send("GET", path, bearer({"token": old}))
            self._expect(check, {0, 401, 503}, f"the old token of user {user.id}")
        else:
            self._expect(response, {0, 503}, "a new token")

    async def _delete_user(self, user: User) -> None:
        user.is_deleted = "maybe"
        response = await self._http.send("DELETE", "/users/me", bearer({"token": user.token}))
        # A repetition of a DELETE whose response was lost gets 401.
        if response.status in (204, 401):
            user.is_deleted = "yes"
            self._ledger.acknowledged["deleted users"] += response.status == 204
            for fact in list(user.records.values())[:3]:
                await self._download(user, fact, None)
        else:
            self._expect(response, {0, 503}, "the deletion of a user")

    def _note_401(self, user: User, what: str) -> None:
        self._ledger.violate(f"{what} of user {user.id} got 401, although its token is right")
        user.is_token_known = False


def judge_download(
    ledger: Ledger, user: User, fact: Fact, response: Response, wanted: tuple[int, int] | None
) -> bool:
    """Compares a download with the ledger. Returns whether it was whole and right."""
    fates = (fact.is_deleted, user.is_deleted)
    fate = next(each for each in ("yes", "maybe", "no") if each in fates)
    what = f"record {fact.id} of user {user.id} (deleted: {fate})"
    if response.status in (0, 503):
        return False
    if response.status == 404:
        if fate == "no":
            ledger.violate(f"lost: {what} is 404")
        elif user.is_deleted == "no":
            fact.is_deleted = "yes"
        return False
    if response.status not in (200, 206):
        ledger.violate(f"{what} is {response.status}: {response.body[:300]!r}")
        return False
    if fate == "yes":
        ledger.violate(f"ghost: {what} still plays")
    wrong = fact.check_mp3(response.status, response.etag, response.body, wanted)
    if wrong:
        ledger.violate(f"{what} plays wrong: {wrong}")
    return not wrong


async def fetch_original(http: Http, ledger: Ledger, user: User, fact: Fact) -> None:
    """Gets an original and compares it with the ledger."""
    path = f"/records/{fact.id}/original"
    response = await http.send("GET", path, bearer({"token": user.token}))
    fates = (fact.is_original_deleted, fact.is_deleted, user.is_deleted)
    what = f"the original of record {fact.id} of user {user.id}"
    if response.status == 404 and fates == ("no", "no", "no"):
        ledger.violate(f"lost: {what} is 404")
    elif response.status == 200 and "yes" in fates:
        ledger.violate(f"ghost: {what} is still sent")
    elif response.status == 200 and hashlib.sha256(response.body).hexdigest() != fact.original_sha256:
        ledger.violate(f"{what} has {len(response.body)} other bytes")
    elif response.status not in {0, 200, 404, 503} and user.is_clear:
        ledger.violate(f"{what} is {response.status}: {response.body[:300]!r}")


async def fetch_list(http: Http, user: User) -> list[dict[str, Any]] | Response:
    """Returns all records of the user's list, or the response that is no page."""
    documents: list[dict[str, Any]] = []
    cursor = ""
    while True:
        response = await http.send("GET", f"/records?limit=100{cursor}", bearer({"token": user.token}))
        if response.status != 200:
            return response
        page = response.json()
        documents += page["records"]
        if not page["next_cursor"]:
            return documents
        cursor = f"&cursor={page['next_cursor']}"


async def _break_off(pieces: AsyncIterator[bytes], length: int) -> AsyncIterator[bytes]:
    async for piece in pieces:
        yield piece[:length]
        length -= len(piece)
        if length <= 0:
            raise ConnectionAbortedError


async def _in_pieces(body: bytes, pause_seconds: float) -> AsyncIterator[bytes]:
    for start in range(0, len(body), PIECE_BYTES):
        yield body[start : start + PIECE_BYTES]
        await asyncio.sleep(pause_seconds)
