"""One recording on all cores: cut where audio waits, complete and in order at the end, in bounded memory."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache, partial
from threading import Event

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from records.audio import parallel
from records.audio.encoder import Encoder
from records.audio.fair_threads import FairThreads
from records.audio.parallel import EncoderThreads, ParallelEncoder
from tests.mp3_walk import assert_valid, walk
from tests.unit.serial_encoding import (
    DECODER_DELAY,
    Samples,
    Stream,
    decode,
    encode_music,
    errors_of,
    music,
    music_error_db,
    power_db,
)

STREAM = (44100, 2, 128)
PIECE_BYTES = 256 * 1024
# Only ends a test that waits for something that never comes.
MAX_WAIT_SECONDS = 30


@pytest.fixture
async def threads() -> AsyncIterator[EncoderThreads]:
    threads = EncoderThreads(2)
    yield threads
    threads.close()


async def encode_fast(encoder: ParallelEncoder, samples: Samples) -> bytes:
    """Writes without a pause, like a client nearby."""
    pcm, mp3 = samples.tobytes(), b""
    for place in range(0, len(pcm), PIECE_BYTES):
        await encoder.write(pcm[place : place + PIECE_BYTES])
        mp3 += encoder.take()
    await encoder.finish()
    return mp3 + encoder.take()


@cache
def count_mp3_frames(seconds: float, stream: Stream) -> int:
    """Returns how many MP3 frames the serial MP3 of music has."""
    return len(walk(encode_music(seconds, stream)))


@asynccontextmanager
async def nothing_encoded(threads: EncoderThreads) -> AsyncIterator[None]:
    """Keeps all threads busy with something else."""
    may_end = Event()
    waits = [threads.encoding.run("other", may_end.wait) for _ in range(threads.count)]
    try:
        yield
    finally:
        may_end.set()
        await asyncio.gather(*waits)


async def until_idle(threads: EncoderThreads) -> None:
    while threads.working:  # noqa: ASYNC110 (the threads announce nothing outside the package)
        await asyncio.sleep(0)


@pytest.mark.parametrize("seconds", [0.01, 1, 5, 10, 60])
@pytest.mark.parametrize("is_announced", [True, False])
async def test_a_fast_upload_is_cut_and_sounds_like_one_encoding(
    threads: EncoderThreads, seconds: float, is_announced: bool
) -> None:
    samples = music(seconds, 44100, 2)
    encoder = ParallelEncoder(threads, *STREAM, len(samples) if is_announced else None)
    mp3, serial = await encode_fast(encoder, samples), encode_music(seconds, STREAM)
    assert (encoder.cuts > 0) == (seconds >= 5)
    assert_valid(walk(mp3))
    decoded = decode(mp3)
    assert len(decoded) == len(decode(serial))
    if seconds >= 1:
        assert power_db(errors_of(samples, decoded)) - music_error_db(seconds, STREAM) <= 0.05
    assert threads.waiting_bytes == 0


@pytest.mark.parametrize("announced_seconds", [1, 3600])
async def test_a_header_that_lies_about_the_length_does_no_harm(
    threads: EncoderThreads, announced_seconds: int
) -> None:
    samples = music(20, 44100, 2)
    encoder = ParallelEncoder(threads, *STREAM, announced_seconds * 44100)
    mp3 = await encode_fast(encoder, samples)
    assert_valid(walk(mp3))
    assert len(decode(mp3)) == len(decode(encode_music(20, STREAM)))


@settings(max_examples=60)
@given(
    data=st.data(),
    stream=st.sampled_from([STREAM, (48000, 1, 32), (24000, 1, 16)]),
    expected_seconds=st.sampled_from([None, 1, 12, 3600]),
    thread_count=st.integers(1, 5),
)
def test_however_the_audio_arrives_the_mp3_is_complete_and_sounds_right(
    data: st.DataObject, stream: Stream, expected_seconds: int | None, thread_count: int
) -> None:
    sample_rate, channels, _ = stream
    samples = music(8, sample_rate, channels)
    pieces = data.draw(st.lists(st.tuples(st.integers(1, 200_000), st.integers(0, 50)), max_size=20))

    async def encode_pieces() -> tuple[ParallelEncoder, bytes]:
        threads = EncoderThreads(thread_count)
        expected = expected_seconds and expected_seconds * sample_rate
        encoder = ParallelEncoder(threads, *stream, expected)
        mp3, place = b"", 0
        for size, pause in [*pieces, (len(samples), 0)]:
            await encoder.write(samples[place : place + size].tobytes())
            place += size
            # Let the threads get further, or not.
            for _ in range(pause):
                await asyncio.sleep(0)
            mp3 += encoder.take()
        await encoder.finish()
        mp3 += encoder.take()
        threads.close()
        return encoder, mp3

    encoder, mp3 = asyncio.run(encode_pieces())
    mp3_frames = walk(mp3)
    assert_valid(mp3_frames)
    assert encoder.mp3_frames == len(mp3_frames) == count_mp3_frames(8, stream)
    assert power_db(errors_of(samples, decode(mp3))) - music_error_db(8, stream) <= 0.1


async def test_a_slow_upload_is_never_cut_and_equals_one_encoding_bit_for_bit(
    threads: EncoderThreads,
) -> None:
    samples = music(20, 44100, 2)
    encoder = ParallelEncoder(threads, *STREAM, len(samples))
    mp3 = b""
    for place in range(0, len(samples), 44100):
        await encoder.write(samples[place : place + 44100].tobytes())
        await until_idle(threads)
        mp3 += encoder.take()
    await encoder.finish()
    mp3 += encoder.take()
    assert encoder.cuts == 0
    assert mp3 == encode_music(20, STREAM)


async def test_one_thread_cuts_nothing() -> None:
    threads = EncoderThreads(1)
    samples = music(20, 44100, 2)
    encoder = ParallelEncoder(threads, *STREAM, len(samples))
    assert await encode_fast(encoder, samples) == encode_music(20, STREAM)
    assert encoder.cuts == 0
    threads.close()


async def test_many_threads_work_on_one_recording() -> None:
    threads = EncoderThreads(8)
    samples = music(40, 44100, 2)
    encoder = ParallelEncoder(threads, *STREAM, len(samples))
    mp3 = await encode_fast(encoder, samples)
    assert encoder.cuts >= 7
    assert_valid(walk(mp3))
    assert len(decode(mp3)) == len(decode(encode_music(40, STREAM)))
    threads.close()


async def test_where_no_mp3_frame_ever_fits_the_recording_is_encoded_serially(
    threads: EncoderThreads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "join", lambda *_: None)
    samples = music(40, 44100, 2)
    encoder = ParallelEncoder(threads, *STREAM, len(samples))
    assert await encode_fast(encoder, samples) == encode_music(40, STREAM)
    assert encoder.cuts > 1


async def test_write_waits_while_too_much_audio_waits(threads: EncoderThreads) -> None:
    # The recording has ten times as much.
    threads.budget_bytes = 512 * 1024
    samples = music(30, 44100, 2)
    encoder = ParallelEncoder(threads, *STREAM, None)
    pcm, most = samples.tobytes(), 0
    for place in range(0, len(pcm), PIECE_BYTES):
        await encoder.write(pcm[place : place + PIECE_BYTES])
        most = max(most, threads.waiting_bytes)
    await encoder.finish()
    assert most <= threads.budget_bytes + PIECE_BYTES
    assert (
        len(decode(encoder.take())) == len(samples) + DECODER_DELAY + -(len(samples) + DECODER_DELAY) % 1152
    )


async def test_simultaneous_recordings_are_complete_and_share_one_budget(threads: EncoderThreads) -> None:
    # What the limit allows in the end is less than half of the ten recordings.
    threads.budget_bytes = 1024 * 1024
    samples = music(8, 44100, 2)
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, threads.waiting_bytes)
            await asyncio.sleep(0)

    watcher = asyncio.create_task(watch())
    encoders = [ParallelEncoder(threads, *STREAM, len(samples)) for _ in range(10)]
    mp3s = await asyncio.gather(*(encode_fast(encoder, samples) for encoder in encoders))
    watcher.cancel()
    assert {len(decode(mp3)) for mp3 in mp3s} == {len(decode(encode_music(8, STREAM)))}
    assert most <= threads.budget_bytes + 10 * (parallel.WAITING_BYTES_ALONE + PIECE_BYTES)


async def test_waiting_audio_of_one_user_leaves_room_for_the_audio_of_another(
    threads: EncoderThreads,
) -> None:
    threads.budget_bytes = 16 * PIECE_BYTES
    many, single = (ParallelEncoder(threads, *STREAM, None, user) for user in ("many", "single"))

    async def write(encoder: ParallelEncoder, pieces: int) -> None:
        for _ in range(pieces):
            await encoder.write(bytes(PIECE_BYTES))

    async with nothing_encoded(threads):
        await write(single, 1)
        writing = asyncio.create_task(write(many, 20))
        for _ in range(100):
            await asyncio.sleep(0)
        assert not writing.done()
        # More than each recording may always hold: half of the budget.
        async with asyncio.timeout(MAX_WAIT_SECONDS):
            await write(single, 7)
        # One piece more, because a recording adds a piece before it waits.
        assert threads.waiting_bytes <= threads.budget_bytes + PIECE_BYTES
    await writing
    for encoder in (many, single):
        encoder.close()


async def test_a_recording_always_has_at_least_one_thread(threads: EncoderThreads) -> None:
    encoders = [ParallelEncoder(threads, *STREAM, None) for _ in range(3)]
    assert [threads.share_of(encoder) for encoder in encoders] == [2, 2, 2]
    pcm = music(1, 44100, 2).tobytes()
    async with nothing_encoded(threads):
        for encoder in encoders:
            await encoder.write(pcm)
        assert threads.working == set(encoders)
        assert [threads.share_of(encoder) for encoder in encoders] == [1, 1, 1]
    await until_idle(threads)
    assert [threads.share_of(encoder) for encoder in encoders] == [2, 2, 2]


async def test_threads_serve_the_users_in_turn() -> None:
    threads = FairThreads(1, "test")
    has_begun, may_end = Event(), Event()
    order: list[str] = []

    def occupy() -> None:
        has_begun.set()
        may_end.wait()

    occupied = threads.run("x", occupy)
    assert has_begun.wait(MAX_WAIT_SECONDS)
    names = ("a1", "a2", "a3", "b1", "b2", "c1")
    jobs = [threads.run(name[0], partial(order.append, name)) for name in names]
    may_end.set()
    await asyncio.gather(occupied, *jobs)
    assert order == ["a1", "b1", "c1", "a2", "b2", "a3"]
    threads.close()


async def test_mp3_is_ready_although_the_caller_never_lets_the_loop_run() -> None:
    threads = EncoderThreads(1)
    encoder = ParallelEncoder(threads, *STREAM, None)
    pcm = music(4, 44100, 2).tobytes()
    await encoder.write(pcm)
    # Blocks the loop until the thread has done its job.
    threads.encoding._executor.submit(lambda: None).result(MAX_WAIT_SECONDS)
    await encoder.write(pcm[:4])
    assert encoder.take()
    encoder.close()
    threads.close()


@pytest.mark.parametrize(
    ("threads", "recordings", "shares", "in_turns"),
    [
        (2, "a", [2], [False]),
        (2, "aa", [1, 1], [False, False]),
        (2, "aaa", [1, 1, 1], [True, True, True]),
        (2, "ab", [1, 1], [False, False]),
        # The single recording keeps its thread, whether the other user has two recordings or many.
        (2, "aab", [1, 1, 1], [True, True, False]),
        (2, "aaaaaab", [1] * 7, [True] * 6 + [False]),
        (2, "abc", [1, 1, 1], [True, True, True]),
        (3, "aab", [1, 1, 1], [False, False, False]),
        (4, "aaaab", [1, 1, 1, 1, 2], [True] * 4 + [False]),
        (8, "aaab", [5, 5, 5, 5], [False] * 4),
    ],
)
async def test_the_threads_are_shared_by_user(
    threads: int, recordings: str, shares: list[int], in_turns: list[bool]
) -> None:
    shared = EncoderThreads(threads)
    encoders = [ParallelEncoder(shared, *STREAM, None, user) for user in recordings]
    shared.working.update(encoders)
    assert [shared.share_of(encoder) for encoder in encoders] == shares
    assert [shared.must_take_turns(encoder) for encoder in encoders] == in_turns
    shared.close()


async def test_a_closed_recording_lets_go_of_its_threads_and_its_memory(threads: EncoderThreads) -> None:
    encoder = ParallelEncoder(threads, *STREAM, None)
    pcm = music(20, 44100, 2).tobytes()
    await encoder.write(pcm)
    assert threads.waiting_bytes == len(pcm)
    encoder.close()
    assert threads.waiting_bytes == 0
    await until_idle(threads)
    assert encoder.take() == b""


async def test_a_failing_encoder_ends_only_its_own_recording(
    threads: EncoderThreads, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = music(20, 44100, 2)
    good, bad = (ParallelEncoder(threads, *STREAM, len(samples)) for _ in range(2))

    def fail(*_: object) -> bytes:
        raise MemoryError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(Encoder, "encode", fail)
        with pytest.raises(MemoryError, match="no room"):
            await encode_fast(bad, samples)
    bad.close()
    assert len(decode(await encode_fast(good, samples))) == len(decode(encode_music(20, STREAM)))
    assert threads.waiting_bytes == 0
