"""Encodes one recording on all cores, while it arrives.

If audio waits and a thread is idle, the recording is cut before an MP3 frame: the segment that is being
encoded gets an end, and a new segment, with a LAME encoder of its own, takes what follows. Their MP3 frames
are joined into one stream (records.audio.join). The audio of a slow client never waits, so one LAME encoder
encodes all of it.

    arrived      ────────────────────────────────────────────────▶
    segment 1    ════════════════════════╡lead-out
    segment 2             lead-in╞═══════════════════════╡lead-out
    segment 3                                    lead-in╞═════════▶
"""

import asyncio
import sys
from collections import Counter, deque
from collections.abc import Callable, Hashable
from functools import partial

from .backlog import Backlog
from .cuts import Progress, plan_cut
from .encoder import Encoder
from .fair_threads import FairThreads
from .join import HELD_MP3_FRAMES, LEAD_OUT_MP3_FRAMES, join, lead_in_mp3_frames
from .mp3 import sample_frames_per_mp3_frame
from .segments import Job, Segment, State

# A job is short, so that recordings take turns, and long, so that handing it over costs nothing.
_MAX_JOB_SECONDS = 2.0
_MIN_JOB_SECONDS = 0.1
_SWITCH_SECONDS = 0.0005
# All recordings together may hold this much PCM per thread, and their users share it. Each recording may
# always hold WAITING_BYTES_ALONE, which is room for several of the shortest jobs: with less it could wait for
# ever.
WAITING_BYTES_PER_THREAD = 5 * 1024**2
WAITING_BYTES_ALONE = 256 * 1024


class EncoderThreads:
    """The threads that encode all recordings: one for each core that may be used."""

    def __init__(self, count: int) -> None:
        self.count = count
        # Between two calls of LAME a thread needs the GIL for a moment. If the event loop is busy, Python
        # makes the thread wait for 5 ms: with many recordings at once that is 5 to 10 % of the time.
        sys.setswitchinterval(_SWITCH_SECONDS)
        self.encoding = FairThreads(count, "encoder")
        # Threads of their own, so that a recording is decoded and encoded at once.
        self.decoding = FairThreads(count, "decoder")
        self.working: set[ParallelEncoder] = set()
        """The recordings for which a thread works."""
        self.waiting_bytes = 0
        """PCM that waits, of all recordings together."""
        self.budget_bytes = count * WAITING_BYTES_PER_THREAD
        self._waiting_bytes_of = Counter[Hashable]()

    def add_waiting(self, user: Hashable, size_bytes: int) -> None:
        """Notes that so much more PCM of a user waits, or so much less if it is negative."""
        self.waiting_bytes += size_bytes
        self._waiting_bytes_of[user] += size_bytes
        if not self._waiting_bytes_of[user]:
            del self._waiting_bytes_of[user]

    def has_too_much_waiting(self, user: Hashable) -> bool:
        """Whether more PCM of a user waits than its share, so that its recordings must wait before they add
        more. All users whose PCM waits have equal shares.
        """
        return self._waiting_bytes_of[user] * len(self._waiting_bytes_of) > self.budget_bytes

    def share_of(self, encoder: "ParallelEncoder") -> int:
        """Returns how many threads a recording may use now: all that other recordings leave, or its share of
        its user's threads if that is more; at least one.
        """
        recordings, threads = self._count_of_user(encoder)
        return max(1, self.count - len(self.working - {encoder}), threads // recordings)

    def must_take_turns(self, encoder: "ParallelEncoder") -> bool:
        """Whether a recording must leave its thread after each job: there are more recordings than threads,
        and its user has more recordings than their share of the threads.
        """
        recordings, threads = self._count_of_user(encoder)
        return len(self.working) > self.count and recordings > threads

    def close(self) -> None:
        """Ends the threads. Their current jobs take milliseconds."""
        self.encoding.close()
        self.decoding.close()

    def _count_of_user(self, encoder: "ParallelEncoder") -> tuple[int, int]:
        """Returns how many recordings the user of this one has, and each user's share of the threads."""
        users = [each.user for each in self.working | {encoder}]
        return users.count(encoder.user), self.count // len(set(users))


class ParallelEncoder:
    """Encodes one recording of 16-bit PCM, with as many threads as there are to spare.

    The places of the cuts depend on time, and so do the bytes of the MP3; its sound does not. Use it in one
    event loop.
    """

    def __init__(
        self,
        threads: EncoderThreads,
        sample_rate: int,
        channels: int,
        bitrate_kbps: int,
        expected_sample_frames: int | None,
        user: Hashable = None,
    ) -> None:
        """Prepares for mono or stereo at one of mp3.SAMPLE_RATES.

        `expected_sample_frames` is the length that the WAV's header announces, None if it announces none.
        Users share the threads.
        """
        self._threads = threads
        self.user = user
        self._sample_rate = sample_rate
        self._new_encoder = partial(Encoder, sample_rate, channels, bitrate_kbps)
        self._sample_frame_bytes = 2 * channels
        self._mp3_frame_samples = sample_frames_per_mp3_frame(sample_rate)
        self._lead_in_mp3_frames = lead_in_mp3_frames(sample_rate, bitrate_kbps)
        self._expected_sample_frames = expected_sample_frames
        self._backlog = Backlog()
        self._has_ended = False
        self.cuts = 0
        """How many times the recording has been cut."""
        self.missed_joins = 0
        """At how many of the cuts no MP3 frame fitted."""
        self.mp3_frames = 0
        """How many MP3 frames there are, once `finish` has returned."""
        self._segments = deque([self._new_segment(0)])
        # Threads that run jobs of this recording, also those of segments that were given up.
        self._busy_threads = 0
        self._mp3 = bytearray()
        self._error: BaseException | None = None
        self._changed = asyncio.Event()

    async def write(self, pcm: bytes) -> None:
        """Takes whole sample frames. Waits while too much PCM waits for an encoder."""
        self._backlog.append(pcm)
        self._threads.add_waiting(self.user, len(pcm))
        self._advance()
        if self._busy_threads:
            # Lets the event loop take what the threads have done. The caller may never wait for it.
            await asyncio.sleep(0)
        while len(self._backlog) > WAITING_BYTES_ALONE and self._threads.has_too_much_waiting(self.user):
            await self._wait()
        self._raise_error()

    async def finish(self) -> None:
        """Says that the recording has ended. Waits until its MP3 is complete."""
        self._has_ended = True
        self._advance()
        while self._segments:
            await self._wait()

    def take(self) -> bytes:
        """Returns the MP3 bytes that are ready."""
        mp3 = bytes(self._mp3)
        self._mp3.clear()
        return mp3

    def close(self) -> None:
        """Drops everything. A job that a thread has begun ends by itself, and no other job follows it."""
        for segment in self._segments:
            segment.drop_jobs()
        self._segments.clear()
        self._forget_before(self.sample_frames)

    @property
    def sample_frames(self) -> int:
        """How many sample frames have been written."""
        return self._backlog.end // self._sample_frame_bytes

    async def _wait(self) -> None:
        self._changed.clear()
        await self._changed.wait()
        self._raise_error()

    def _raise_error(self) -> None:
        if self._error:
            raise self._error

    def _advance(self) -> None:
        """Does whatever can be done now: after audio has arrived, and after a job."""
        self._join()
        self._cut()
        share = self._threads.share_of(self)
        for segment in self._segments:
            if segment.has_thread:
                # Add the next job for the same thread, unless another recording shall have that thread.
                if not (
                    segment.has_jobs or self._busy_threads > share or self._threads.must_take_turns(self)
                ):
                    self._add_job(segment)
            elif self._busy_threads < share and (segment.has_jobs or self._add_job(segment)):
                self._start(segment)

    def _new_segment(self, first_mp3_frame: int) -> Segment:
        return Segment(self._new_encoder(), first_mp3_frame, first_mp3_frame * self._mp3_frame_samples)

    def _lead_out_end(self, end_mp3_frame: int) -> int:
        """Returns the sample frame at which the lead-out of a segment ends."""
        return (end_mp3_frame + LEAD_OUT_MP3_FRAMES) * self._mp3_frame_samples

    def _encodable_end(self, segment: Segment) -> int:
        """Returns the sample frame up to which a segment can be encoded now."""
        if segment.end_mp3_frame is None:
            return self.sample_frames
        return min(self.sample_frames, self._lead_out_end(segment.end_mp3_frame))

    def _is_done(self, segment: Segment) -> bool:
        """Returns whether a segment is encoded up to the end of its lead-out."""
        if segment.state is State.FINISHED:
            return True
        if segment.has_thread or segment.has_jobs or segment.end_mp3_frame is None:
            return False
        has_arrived = self._lead_out_end(segment.end_mp3_frame) <= self.sample_frames
        return (has_arrived or self._has_ended) and segment.fed_sample_frames == self._encodable_end(segment)

    def _add_job(self, segment: Segment) -> bool:
        """Adds a segment's next job if there is enough audio for one. Returns whether it did."""
        if not segment.accepts_jobs:
            return False
        start, limit = segment.fed_sample_frames, self._encodable_end(segment)
        end = min(limit, start + int(_MAX_JOB_SECONDS * self._sample_rate))
        is_last = self._has_ended and segment.end_mp3_frame is None and end == limit
        if start == end and not is_last:
            return False
        may_still_grow = not self._has_ended and limit == self.sample_frames
        if may_still_grow and end - start < _MIN_JOB_SECONDS * self._sample_rate:
            return False
        pcm = self._backlog.read(start * self._sample_frame_bytes, end * self._sample_frame_bytes)
        segment.add_job(Job(pcm, end, is_last))
        return True

    def _start(self, segment: Segment) -> None:
        loop = asyncio.get_running_loop()
        segment.thread_started()
        self._busy_threads += 1
        self._threads.working.add(self)

        def done(job: Job, mp3: bytes) -> None:
            loop.call_soon_threadsafe(partial(self._end_job, segment, job, mp3))

        thread = self._threads.encoding.run(self.user, partial(segment.run_jobs, done))
        thread.add_done_callback(partial(self._end_thread, segment))

    def _end_job(self, segment: Segment, job: Job, mp3: bytes) -> None:
        self._run_step(lambda: segment.job_done(job, mp3))

    def _end_thread(self, segment: Segment, thread: asyncio.Future[None]) -> None:
        segment.thread_ended()
        self._busy_threads -= 1
        if not self._busy_threads:
            self._threads.working.discard(self)
        self._run_step(thread.result)

    def _run_step(self, step: Callable[[], object]) -> None:
        """Takes a step that a thread has made possible, and then does whatever can be done."""
        try:
            step()
            self._advance()
        except Exception as error:
            self._error = error
        self._changed.set()

    def _cut(self) -> None:
        """Opens new segments for idle threads if enough audio waits."""
        while self._segments:
            last = self._segments[-1]
            at_work = sum(not self._is_done(segment) for segment in self._segments)
            cut = plan_cut(
                Progress(
                    arrived_mp3_frames=self.sample_frames / self._mp3_frame_samples,
                    fed_mp3_frames=last.fed_sample_frames / self._mp3_frame_samples,
                    encoded_mp3_frames=last.encoded_sample_frames / self._mp3_frame_samples,
                    expected_mp3_frames=self._expected_mp3_frames,
                    lead_in_mp3_frames=self._lead_in_mp3_frames,
                    mp3_frame_seconds=self._mp3_frame_samples / self._sample_rate,
                    idle_threads=self._threads.share_of(self) - at_work,
                )
            )
            if cut is None:
                return
            self.cuts += 1
            last.end_mp3_frame = cut
            self._segments.append(self._new_segment(cut - self._lead_in_mp3_frames))

    @property
    def _expected_mp3_frames(self) -> float:
        if self._has_ended:
            sample_frames = self.sample_frames
        elif self._expected_sample_frames is None:
            return float("inf")
        else:
            sample_frames = max(self._expected_sample_frames, self.sample_frames)
        return sample_frames / self._mp3_frame_samples

    def _join(self) -> None:
        """Joins the segments that are done, and drops the MP3 and the PCM that nothing needs any more."""
        while len(self._segments) > 1 and self._is_done(self._segments[0]):
            a, b = self._segments[0], self._segments[1]
            if b.mp3_frames.end < a.mp3_frames.end and not self._is_done(b):
                break
            mp3 = join(a.mp3_frames, b.mp3_frames, b.first_mp3_frame + self._lead_in_mp3_frames // 2)
            if mp3 is None:
                # Rarely no MP3 frame fits. Then the first segment goes on serially, without the second one.
                self.missed_joins += 1
                a.end_mp3_frame = b.end_mp3_frame
                b.drop_jobs()
                del self._segments[1]
            else:
                self._mp3 += mp3
                self._segments.popleft()
        if not self._segments:
            return
        first = self._segments[0]
        if first.state is State.FINISHED:
            self.mp3_frames = first.mp3_frames.end
            self._mp3 += first.mp3_frames.take_all()
            self._segments.clear()
        else:
            self._mp3 += first.mp3_frames.take_before(first.mp3_frames.end - HELD_MP3_FRAMES)
        self._forget_before(
            min((segment.fed_sample_frames for segment in self._segments), default=self.sample_frames)
        )

    def _forget_before(self, sample_frame: int) -> None:
        before = len(self._backlog)
        self._backlog.forget_before(sample_frame * self._sample_frame_bytes)
        self._threads.add_waiting(self.user, len(self._backlog) - before)
