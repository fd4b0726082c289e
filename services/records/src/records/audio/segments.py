"""One segment of a recording, the LAME encoder that encodes it, and the states that it passes through."""

from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from typing import NamedTuple

from .encoder import Encoder
from .join import Mp3Frames


class State(Enum):
    """What a segment's encoder is doing. Only the last segment of a recording has a last job."""

    WAITING = auto()
    """No thread runs its jobs: it waits for audio, or its jobs wait for a thread."""
    ENCODING = auto()
    """A thread runs its jobs."""
    LAST_JOB_WAITING = auto()
    """No thread runs its jobs, and the last one is among them."""
    LAST_JOB_ENCODING = auto()
    """A thread runs its jobs, and the last one is among them."""
    FINISHED = auto()
    """The last job is done: the MP3 is complete."""


class _Event(Enum):
    THREAD_STARTED = auto()
    THREAD_ENDED = auto()
    LAST_JOB_ADDED = auto()
    LAST_JOB_DONE = auto()


_TRANSITIONS = {
    (State.WAITING, _Event.THREAD_STARTED): State.ENCODING,
    (State.WAITING, _Event.LAST_JOB_ADDED): State.LAST_JOB_WAITING,
    (State.ENCODING, _Event.THREAD_ENDED): State.WAITING,
    (State.ENCODING, _Event.LAST_JOB_ADDED): State.LAST_JOB_ENCODING,
    (State.LAST_JOB_WAITING, _Event.THREAD_STARTED): State.LAST_JOB_ENCODING,
    # The thread found no job just before the last one was added, or it has failed.
    (State.LAST_JOB_ENCODING, _Event.THREAD_ENDED): State.LAST_JOB_WAITING,
    (State.LAST_JOB_ENCODING, _Event.LAST_JOB_DONE): State.FINISHED,
    # A thread reports its last job first, and its own end afterwards.
    (State.FINISHED, _Event.THREAD_ENDED): State.FINISHED,
}


class Job(NamedTuple):
    """The PCM that a segment's encoder encodes next."""

    pcm: list[memoryview]
    end_sample_frames: int
    """Where it ends, in sample frames since the start of the recording."""
    is_last: bool
    """Whether the recording ends with it, so that the encoder is flushed."""


class Segment:
    """A segment of a recording with an encoder of its own.

    Sample frames and MP3 frames are counted from the start of the recording. All methods but `run_jobs`
    belong to the event loop's thread.
    """

    def __init__(self, encoder: Encoder, first_mp3_frame: int, first_sample_frame: int) -> None:
        """Begins at `first_mp3_frame`, which begins at `first_sample_frame`."""
        self.first_mp3_frame = first_mp3_frame
        self.end_mp3_frame: int | None = None
        """The MP3 frame at which the next segment takes over; None for the last segment."""
        self.mp3_frames = Mp3Frames(first_mp3_frame)
        self.fed_sample_frames = first_sample_frame
        """Where the next job that is added begins."""
        self.encoded_sample_frames = first_sample_frame
        """Where the first job that is not done yet begins."""
        self.state = State.WAITING
        self._encoder = encoder
        # The event loop adds jobs at the end; a thread takes them from the front.
        self._jobs: deque[Job] = deque()

    @property
    def has_jobs(self) -> bool:
        """Whether there are jobs that no thread has taken yet."""
        return bool(self._jobs)

    @property
    def has_thread(self) -> bool:
        """Whether a thread runs its jobs. A finished segment no longer needs one."""
        return self.state in (State.ENCODING, State.LAST_JOB_ENCODING)

    @property
    def accepts_jobs(self) -> bool:
        """Whether its last job has not been added yet."""
        return self.state in (State.WAITING, State.ENCODING)

    def add_job(self, job: Job) -> None:
        """Adds the job that follows; a thread that runs the segment's jobs runs this one too."""
        self.fed_sample_frames = job.end_sample_frames
        if job.is_last:
            self._enter(_Event.LAST_JOB_ADDED)
        self._jobs.append(job)

    def drop_jobs(self) -> None:
        """Drops the jobs that no thread has taken yet."""
        self._jobs.clear()

    def thread_started(self) -> None:
        """Notes that a thread is about to call `run_jobs`."""
        self._enter(_Event.THREAD_STARTED)

    def job_done(self, job: Job, mp3: bytes) -> None:
        """Takes the MP3 of a job. Raises ValueError if the stream does not start with an MP3 frame."""
        self.encoded_sample_frames = job.end_sample_frames
        if job.is_last:
            self._enter(_Event.LAST_JOB_DONE)
        self.mp3_frames.append(mp3)

    def thread_ended(self) -> None:
        """Notes that the thread has returned from `run_jobs`."""
        self._enter(_Event.THREAD_ENDED)

    def run_jobs(self, done: Callable[[Job, bytes], None]) -> None:
        """Runs one job after the other, and calls `done` with each and its MP3. A thread calls this.

        A thread does not wait for the event loop between two jobs.
        """
        while job := self._take_job():
            mp3 = b"".join([self._encoder.encode(block) for block in job.pcm])
            done(job, mp3 + self._encoder.finish() if job.is_last else mp3)

    def _take_job(self) -> Job | None:
        # Do not ask first whether there is a job: the event loop may drop it in between.
        try:
            return self._jobs.popleft()
        except IndexError:
            return None

    def _enter(self, event: _Event) -> None:
        self.state = _TRANSITIONS[self.state, event]
