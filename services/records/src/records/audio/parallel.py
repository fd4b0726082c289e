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
import sys
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

from .encoder import Encoder
from .join import HELD_FRAMES, LEAD_OUT_FRAMES, Frames, join, lead_in_frames
from .mp3 import samples_per_frame

# A recording is cut where so much waits; less would not pay for the lead-in.
_CUT_SECONDS = 1.5
# How far ahead of its encoder a long recording is cut. Parts become twice as long, as they take turns.
_AHEAD_SECONDS = 26.0
# One job of a thread: short, so that recordings take turns, and long, so that handing it over costs nothing.
_LONGEST_JOB_SECONDS = 2.0
_SHORTEST_JOB_SECONDS = 0.1
_SWITCH_SECONDS = 0.0005
# What may wait: of all recordings together, for every thread, and of any one, whatever the others have. The
# latter is several of the shortest jobs, or it would wait for none.
_WAITING_BYTES_PER_THREAD = 5 * 1024**2
WAITING_BYTES_ALONE = 256 * 1024


class EncoderThreads:
    """The threads that encode, for all recordings: as many as there are cores to use."""

    def __init__(self, count: int) -> None:
        self.count = count
        # Between two calls of LAME a thread needs the GIL for a moment, and Python would let it wait for 5 ms
        # where the event loop works: with many recordings at once that is 5 to 10 % of the time.
        sys.setswitchinterval(_SWITCH_SECONDS)
        self.executor = ThreadPoolExecutor(count, thread_name_prefix="encoder")
        self.working: set[ParallelEncoder] = set()
        self.waiting_bytes = 0
        self.budget_bytes = count * _WAITING_BYTES_PER_THREAD

    def share_of(self, encoder: "ParallelEncoder") -> int:
        """How many threads a recording may use now: all that the others leave, and one at least."""
        return max(1, self.count - len(self.working - {encoder}))

    @property
    def is_crowded(self) -> bool:
        """Whether there are more recordings than threads."""
        return len(self.working) > self.count

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


class _Job(NamedTuple):
    """The samples that are encoded next, and where they end."""

    pcm: list[memoryview]
    end_samples: int
    is_last: bool


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
        self.jobs: deque[_Job] = deque()
        """What a thread takes from the front, and does in turn."""
        self.is_busy = False
        self.is_fed = False
        """Whether its last job has been made."""
        self.is_finished = False

    def work(self, done: Callable[[_Job, bytes], None]) -> None:
        """Does its jobs, in a thread, which need not wait for the event loop between them."""
        while job := self._take_job():
            mp3 = b"".join([self.encoder.encode(piece) for piece in job.pcm])
            done(job, mp3 + self.encoder.finish() if job.is_last else mp3)

    def _take_job(self) -> _Job | None:
        # Asking first whether there is one would be too late where they are cleared.
        try:
            return self.jobs.popleft()
        except IndexError:
            return None


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
        self._busy = 0
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
        for part in self._parts:
            part.jobs.clear()
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
        share = self._threads.share_of(self)
        for part in self._parts:
            if part.is_busy:
                # The next job, for the same thread; unless another recording waits for that.
                if not part.jobs and self._busy <= share and not self._threads.is_crowded:
                    self._add_job(part)
            elif self._busy < share and (part.jobs or self._add_job(part)):
                self._start(part)

    def _limit(self, part: _Part) -> int:
        """How far a part can be encoded now, in samples."""
        if part.end_frame is None:
            return self.samples
        return min(self.samples, (part.end_frame + LEAD_OUT_FRAMES) * self._frame_samples)

    def _has_done_its_share(self, part: _Part) -> bool:
        if part.is_busy or part.jobs or part.end_frame is None:
            return part.is_finished
        has_arrived = (part.end_frame + LEAD_OUT_FRAMES) * self._frame_samples <= self.samples
        return (has_arrived or self._has_ended) and part.fed_samples == self._limit(part)

    def _add_job(self, part: _Part) -> bool:
        """Gives a part its next samples, if they are enough for a job."""
        limit = self._limit(part)
        longest = int(_LONGEST_JOB_SECONDS * self._sample_rate)
        count = min(limit - part.fed_samples, longest)
        is_last = self._has_ended and part.end_frame is None and part.fed_samples + count == limit
        if part.is_fed or (count == 0 and not is_last):
            return False
        is_whole = self._has_ended or limit < self.samples
        if not is_whole and count < _SHORTEST_JOB_SECONDS * self._sample_rate:
            return False
        start, end = (place * self._sample_bytes for place in (part.fed_samples, part.fed_samples + count))
        part.fed_samples += count
        part.is_fed = is_last
        part.jobs.append(_Job(self._backlog.read(start, end), part.fed_samples, is_last))
        return True

    def _start(self, part: _Part) -> None:
        loop = asyncio.get_running_loop()
        part.is_busy = True
        self._busy += 1
        self._threads.working.add(self)

        def done(job: _Job, mp3: bytes) -> None:
            loop.call_soon_threadsafe(partial(self._end_job, part, job, mp3))

        thread = loop.run_in_executor(self._threads.executor, partial(part.work, done))
        thread.add_done_callback(partial(self._end, part))

    def _end_job(self, part: _Part, job: _Job, mp3: bytes) -> None:
        part.encoded_samples = job.end_samples
        part.is_finished = job.is_last
        self._try(lambda: part.frames.append(mp3))

    def _end(self, part: _Part, thread: asyncio.Future[None]) -> None:
        part.is_busy = False
        self._busy -= 1
        if not self._busy:
            self._threads.working.discard(self)
        self._try(thread.result)

    def _try(self, step: Callable[[], object]) -> None:
        """Takes a step that a thread has made possible, and what follows from it."""
        try:
            step()
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
                b.jobs.clear()
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
