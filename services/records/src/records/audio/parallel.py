"""One recording on all cores, while it arrives.

Where audio waits and a thread is idle, the recording is cut on a frame boundary: the part that is being
encoded gets an end, and a new part, with a LAME of its own, takes what follows. Their frames are joined into
one stream (records.audio.join). A slow client's audio never waits, so it is encoded by one LAME to the end.

    arrived   ────────────────────────────────────────────────▶
    part 1    ════════════════════════╡lead-out
    part 2             lead-in╞═══════════════════════╡lead-out
    part 3                                    lead-in╞═════════▶
"""

import asyncio
import math
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from .encoder import Encoder
from .join import HELD_FRAMES, LEAD_OUT_FRAMES, Frames, join, lead_in_frames
from .mp3 import samples_per_frame

# A recording is cut where so much waits; less would not pay for the lead-in.
_CUT_SECONDS = 1.5
# How far ahead of its encoder a long recording is cut. Parts become twice as long, as they take turns.
_AHEAD_SECONDS = 10.0
# One job of a thread: short, so that recordings take turns, and long, so that handing it over costs nothing.
_LONGEST_JOB_SECONDS = 2.0
_SHORTEST_JOB_SECONDS = 0.1
# What may wait: of all recordings together, for every thread, and of any one, whatever the others have.
_WAITING_BYTES_PER_THREAD = 5 * 1024**2 // 2
WAITING_BYTES_ALONE = 256 * 1024


class EncoderThreads:
    """The threads that encode, for all recordings: as many as there are cores to use."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.executor = ThreadPoolExecutor(count, thread_name_prefix="encoder")
        self.working: set[ParallelEncoder] = set()
        self.waiting_bytes = 0
        self.budget_bytes = count * _WAITING_BYTES_PER_THREAD

    def share_of(self, encoder: "ParallelEncoder") -> int:
        """How many threads a recording may use now: all that the others leave, and one at least."""
        return max(1, self.count - len(self.working - {encoder}))

    def close(self) -> None:
        """Ends the threads; what they are at is a matter of milliseconds."""
        self.executor.shutdown()


class _Backlog:
    """The PCM that has arrived and is still needed, in the pieces in which it came; places are in bytes."""

    def __init__(self) -> None:
        self.start = 0
        self.end = 0
        self._pieces: deque[bytes] = deque()
        # Where the first piece begins: at `start`, or before.
        self._first = 0

    def __len__(self) -> int:
        return self.end - self.start

    def append(self, piece: bytes) -> None:
        """Takes what follows."""
        self._pieces.append(piece)
        self.end += len(piece)

    def read(self, start: int, end: int) -> list[memoryview]:
        """Returns a stretch without copying it."""
        views = []
        place = self._first
        for piece in self._pieces:
            if place >= end:
                break
            if place + len(piece) > start:
                views.append(memoryview(piece)[max(0, start - place) : end - place])
            place += len(piece)
        return views

    def forget(self, end: int) -> None:
        """Lets go what comes before a place."""
        self.start = end
        while self._pieces and self._first + len(self._pieces[0]) <= end:
            self._first += len(self._pieces.popleft())


class _Part:
    """A stretch of the recording with its encoder; places are numbers of MP3 frames, or of samples."""

    def __init__(self, encoder: Encoder, first_frame: int, frame_samples: int) -> None:
        self.encoder = encoder
        self.first_frame = first_frame
        self.frames = Frames(first_frame)
        self.fed_samples = first_frame * frame_samples
        """Where its next job begins, in samples since the start of the recording."""
        self.encoded_samples = self.fed_samples
        """Where the next job begins that is not done yet."""
        self.end_frame: int | None = None
        """Where the next part begins; None for the last one."""
        self.is_busy = False
        self.is_finished = False

    def encode(self, pcm: list[memoryview], *, is_last: bool) -> bytes:
        """Encodes the next samples, in a thread."""
        mp3 = b"".join([self.encoder.encode(piece) for piece in pcm])
        return mp3 + self.encoder.finish() if is_last else mp3


class ParallelEncoder:
    """Encodes one recording of 16-bit PCM, by as many threads as there are to spare.

    The MP3 depends on where it was cut, and so on time; its sound does not. To be used in one event loop.
    """

    def __init__(
        self,
        threads: EncoderThreads,
        sample_rate: int,
        channels: int,
        bitrate_kbps: int,
        expected_samples: int | None,
    ) -> None:
        """`sample_rate`: one of MP3's. `expected_samples`: what the header promises, where it does."""
        self._threads = threads
        self._sample_rate = sample_rate
        self._new_encoder = partial(Encoder, sample_rate, channels, bitrate_kbps)
        self._sample_bytes = 2 * channels
        self._frame_samples = samples_per_frame(sample_rate)
        self._lead_in = lead_in_frames(sample_rate, bitrate_kbps)
        self._expected_samples = expected_samples
        self._backlog = _Backlog()
        self._has_ended = False
        self.cuts = 0
        """How many times the recording has been cut."""
        self.frames = 0
        """How many MP3 frames there are, once `finish` has returned."""
        self._parts = deque([_Part(self._new_encoder(), 0, self._frame_samples)])
        self._jobs = 0
        self._mp3 = bytearray()
        self._error: BaseException | None = None
        self._changed = asyncio.Event()

    async def write(self, pcm: bytes) -> None:
        """Takes whole samples, and waits while too many of them wait."""
        self._backlog.append(pcm)
        self._threads.waiting_bytes += len(pcm)
        self._work()
        while (
            len(self._backlog) > WAITING_BYTES_ALONE
            and self._threads.waiting_bytes > self._threads.budget_bytes
        ):
            await self._wait()
        self._raise_error()

    async def finish(self) -> None:
        """Says that the recording has ended, and waits for the rest of the MP3."""
        self._has_ended = True
        self._work()
        while self._parts:
            await self._wait()

    def take(self) -> bytes:
        """Returns the MP3 bytes that are ready."""
        mp3 = bytes(self._mp3)
        self._mp3.clear()
        return mp3

    def close(self) -> None:
        """Lets everything go; a job that a thread is at ends by itself, and nothing follows it."""
        self._parts.clear()
        self._forget_before(self.samples)

    @property
    def samples(self) -> int:
        """How many samples have been written."""
        return self._backlog.end // self._sample_bytes

    async def _wait(self) -> None:
        self._changed.clear()
        await self._changed.wait()
        self._raise_error()

    def _raise_error(self) -> None:
        if self._error:
            raise self._error

    def _work(self) -> None:
        """Does whatever can be done now: after audio has come, and after a job."""
        self._join()
        self._cut()
        for part in self._parts:
            if self._jobs >= self._threads.share_of(self):
                break
            if not part.is_busy and not part.is_finished:
                self._start_job(part)

    def _limit(self, part: _Part) -> int:
        """How far a part can be encoded now, in samples."""
        if part.end_frame is None:
            return self.samples
        return min(self.samples, (part.end_frame + LEAD_OUT_FRAMES) * self._frame_samples)

    def _has_done_its_share(self, part: _Part) -> bool:
        if part.is_busy or part.end_frame is None:
            return part.is_finished
        has_arrived = (part.end_frame + LEAD_OUT_FRAMES) * self._frame_samples <= self.samples
        return (has_arrived or self._has_ended) and part.fed_samples == self._limit(part)

    def _start_job(self, part: _Part) -> None:
        limit = self._limit(part)
        longest = int(_LONGEST_JOB_SECONDS * self._sample_rate)
        count = min(limit - part.fed_samples, longest)
        is_last = self._has_ended and part.end_frame is None and part.fed_samples + count == limit
        if count == 0 and not is_last:
            return
        is_whole = self._has_ended or limit < self.samples
        if not is_whole and count < _SHORTEST_JOB_SECONDS * self._sample_rate:
            return
        start, end = (place * self._sample_bytes for place in (part.fed_samples, part.fed_samples + count))
        pcm = self._backlog.read(start, end)
        part.fed_samples += count
        part.is_busy = True
        self._jobs += 1
        self._threads.working.add(self)
        job = asyncio.get_running_loop().run_in_executor(
            self._threads.executor, partial(part.encode, pcm, is_last=is_last)
        )
        job.add_done_callback(partial(self._end_job, part, is_last))

    def _end_job(self, part: _Part, is_last: bool, job: asyncio.Future[bytes]) -> None:
        self._jobs -= 1
        if not self._jobs:
            self._threads.working.discard(self)
        part.is_busy = False
        part.encoded_samples = part.fed_samples
        part.is_finished = is_last
        try:
            part.frames.append(job.result())
            self._work()
        except Exception as error:
            self._error = error
        self._changed.set()

    def _cut(self) -> None:
        """Opens new parts for idle threads, where enough audio waits."""
        frame_seconds = self._frame_samples / self._sample_rate
        shortest = _CUT_SECONDS / frame_seconds
        while self._parts:
            last = self._parts[-1]
            working = sum(not self._has_done_its_share(part) for part in self._parts)
            idle = self._threads.share_of(self) - working
            arrived, fed, encoded = (
                samples / self._frame_samples
                for samples in (self.samples, last.fed_samples, last.encoded_samples)
            )
            if idle < 1 or arrived - fed < shortest:
                return
            ahead = self._expected_frames - encoded
            length = min(_AHEAD_SECONDS / frame_seconds, (ahead + idle * self._lead_in) / (idle + 1))
            # The lead-in's samples must not have been let go, which they are when they are fed.
            cut = max(int(encoded + length), math.ceil(fed) + self._lead_in)
            # What is gained must be worth the lead-in, and what the new part begins with must have arrived.
            if encoded + ahead - cut < self._lead_in or arrived < cut - self._lead_in + 1:
                return
            self.cuts += 1
            last.end_frame = cut
            self._parts.append(_Part(self._new_encoder(), cut - self._lead_in, self._frame_samples))

    @property
    def _expected_frames(self) -> float:
        if self._has_ended:
            samples = self.samples
        elif self._expected_samples is None:
            return float("inf")
        else:
            samples = max(self._expected_samples, self.samples)
        return samples / self._frame_samples

    def _join(self) -> None:
        """Joins the parts that are done, and lets their frames and their audio go."""
        while len(self._parts) > 1 and self._has_done_its_share(self._parts[0]):
            a, b = self._parts[0], self._parts[1]
            if b.frames.end < a.frames.end and not self._has_done_its_share(b):
                break
            mp3 = join(a.frames, b.frames, b.first_frame + self._lead_in // 2)
            if mp3 is None:
                # No frame fits, which is rare: the first goes on serially, and the second was in vain.
                a.end_frame = b.end_frame
                del self._parts[1]
            else:
                self._mp3 += mp3
                self._parts.popleft()
        if not self._parts:
            return
        first = self._parts[0]
        if first.is_finished:
            self.frames = first.frames.end
            self._mp3 += first.frames.take_all()
            self._parts.clear()
        else:
            self._mp3 += first.frames.take_before(first.frames.end - HELD_FRAMES)
        self._forget_before(min((part.fed_samples for part in self._parts), default=self.samples))

    def _forget_before(self, sample: int) -> None:
        before = len(self._backlog)
        self._backlog.forget(sample * self._sample_bytes)
        self._threads.waiting_bytes -= before - len(self._backlog)
