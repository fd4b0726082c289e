"""The states that a segment passes through, from its first job to the end of its MP3."""

from collections import deque

from records.audio.encoder import Encoder
from records.audio.segments import Job, Segment, State
from tests.unit.serial_encoding import encode, music

STREAM = (44100, 2, 128)
PCM = music(1, 44100, 2)


def make_segment() -> Segment:
    return Segment(Encoder(*STREAM), first_mp3_frame=0, first_sample_frame=0)


def make_job(start: int, end: int, *, is_last: bool = False) -> Job:
    return Job([memoryview(PCM[start:end].tobytes())], end, is_last)


def run_jobs(segment: Segment) -> deque[tuple[Job, bytes]]:
    """Runs all jobs as a thread does, and returns its reports, which the event loop has not seen yet."""
    reports: deque[tuple[Job, bytes]] = deque()
    segment.run_jobs(lambda job, mp3: reports.append((job, mp3)))
    return reports


def test_a_segment_waits_is_encoded_and_finishes_with_its_last_job() -> None:
    segment = make_segment()
    assert (segment.state, segment.accepts_jobs, segment.has_thread) == (State.WAITING, True, False)
    segment.add_job(make_job(0, 20_000))
    assert (segment.state, segment.has_jobs) == (State.WAITING, True)
    segment.thread_started()
    assert (segment.state, segment.has_thread) == (State.ENCODING, True)
    for report in run_jobs(segment):
        segment.job_done(*report)
    segment.thread_ended()
    assert (segment.state, segment.has_jobs) == (State.WAITING, False)
    assert segment.encoded_sample_frames == segment.fed_sample_frames == 20_000

    segment.add_job(make_job(20_000, 44_100, is_last=True))
    assert (segment.state, segment.accepts_jobs) == (State.LAST_JOB_WAITING, False)
    segment.thread_started()
    assert (segment.state, segment.has_thread) == (State.LAST_JOB_ENCODING, True)
    for report in run_jobs(segment):
        segment.job_done(*report)
    assert (segment.state, segment.has_thread) == (State.FINISHED, False)
    segment.thread_ended()
    assert (segment.state, segment.accepts_jobs) == (State.FINISHED, False)
    assert segment.mp3_frames.take_all() == encode(PCM, STREAM)


def test_a_last_job_that_is_added_behind_a_thread_waits_for_the_next_thread() -> None:
    segment = make_segment()
    segment.add_job(make_job(0, 20_000))
    segment.thread_started()
    reports = run_jobs(segment)
    # The thread has found no further job, but the event loop does not know that yet.
    segment.add_job(make_job(20_000, 44_100, is_last=True))
    states = [segment.state]
    for report in reports:
        segment.job_done(*report)
    segment.thread_ended()
    states.append(segment.state)
    assert segment.has_jobs
    segment.thread_started()
    for report in run_jobs(segment):
        segment.job_done(*report)
    states.append(segment.state)
    assert states == [State.LAST_JOB_ENCODING, State.LAST_JOB_WAITING, State.FINISHED]


def test_dropped_jobs_are_not_encoded() -> None:
    segment = make_segment()
    segment.add_job(make_job(0, 20_000))
    segment.thread_started()
    segment.drop_jobs()
    assert not run_jobs(segment)
    segment.thread_ended()
    assert (segment.state, segment.encoded_sample_frames) == (State.WAITING, 0)
