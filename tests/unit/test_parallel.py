"""One recording on all cores: cut where audio waits, whole and in order at the end, and bounded meanwhile."""

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from records.audio import parallel
from records.audio.encoder import Encoder
from records.audio.parallel import EncoderThreads, ParallelEncoder
from tests.mp3_walk import assert_valid, walk
from tests.unit.test_join import DECODER_DELAY, decode, encode, errors, music, power_db, samples_of

STREAM = (44100, 2, 128)
PIECE_BYTES = 256 * 1024


@pytest.fixture
async def threads() -> AsyncIterator[EncoderThreads]:
    threads = EncoderThreads(2)
    yield threads
    threads.close()


async def encode_fast(encoder: ParallelEncoder, samples: NDArray[np.int16]) -> bytes:
    """Writes without a pause, as a client nearby does."""
    pcm, mp3 = samples.tobytes(), b""
    for place in range(0, len(pcm), PIECE_BYTES):
        await encoder.write(pcm[place : place + PIECE_BYTES])
        mp3 += encoder.take()
    await encoder.finish()
    return mp3 + encoder.take()


async def until_idle(threads: EncoderThreads) -> None:
    while threads.working:  # noqa: ASYNC110 (nothing is announced to those outside)
        await asyncio.sleep(0)


@pytest.mark.parametrize("seconds", [0.01, 1, 5, 10, 60])
@pytest.mark.parametrize("is_announced", [True, False])
async def test_a_fast_upload_is_cut_and_sounds_as_if_it_had_been_encoded_in_one(
    threads: EncoderThreads, seconds: float, is_announced: bool
) -> None:
    samples = samples_of(music(seconds, 44100, 2))
    encoder = ParallelEncoder(threads, *STREAM, len(samples) if is_announced else None)
    mp3, serial = await encode_fast(encoder, samples), encode(samples, STREAM)
    assert (encoder.cuts > 0) == (seconds >= 5)
    assert_valid(walk(mp3))
    assert len(decode(mp3)) == len(decode(serial))
    if seconds >= 1:
        assert power_db(errors(samples, mp3)) - power_db(errors(samples, serial)) <= 0.05
    assert threads.waiting_bytes == 0


@pytest.mark.parametrize("announced_seconds", [1, 3600])
async def test_a_header_that_lies_about_the_length_does_no_harm(
    threads: EncoderThreads, announced_seconds: int
) -> None:
    samples = samples_of(music(20, 44100, 2))
    encoder = ParallelEncoder(threads, *STREAM, announced_seconds * 44100)
    mp3 = await encode_fast(encoder, samples)
    assert_valid(walk(mp3))
    assert len(decode(mp3)) == len(decode(encode(samples, STREAM)))


@settings(max_examples=60)
@given(
    data=st.data(),
    stream=st.sampled_from([STREAM, (48000, 1, 32), (24000, 1, 16)]),
    expected_seconds=st.sampled_from([None, 1, 12, 3600]),
    thread_count=st.integers(1, 5),
)
def test_however_the_audio_comes_the_mp3_is_whole_and_sounds_right(
    data: st.DataObject, stream: tuple[int, int, int], expected_seconds: int | None, thread_count: int
) -> None:
    sample_rate, channels, _ = stream
    samples = samples_of(music(12, sample_rate, channels))
    pieces = data.draw(st.lists(st.tuples(st.integers(1, 200_000), st.integers(0, 50)), max_size=20))

    async def encode_pieces() -> tuple[ParallelEncoder, bytes]:
        threads = EncoderThreads(thread_count)
        expected = expected_seconds and expected_seconds * sample_rate
        encoder = ParallelEncoder(threads, *stream, expected)
        mp3, place = b"", 0
        for size, pause in [*pieces, (len(samples), 0)]:
            await encoder.write(samples[place : place + size].tobytes())
            place += size
            # However far the threads come meanwhile.
            for _ in range(pause):
                await asyncio.sleep(0)
            mp3 += encoder.take()
        await encoder.finish()
        mp3 += encoder.take()
        threads.close()
        return encoder, mp3

    encoder, mp3 = asyncio.run(encode_pieces())
    assert_valid(walk(mp3))
    assert encoder.frames == len(walk(mp3)) == len(walk(encode(samples, stream)))
    assert power_db(errors(samples, mp3)) - power_db(errors(samples, encode(samples, stream))) <= 0.1


async def test_a_slow_upload_is_never_cut_and_equals_one_encoding_bit_for_bit(
    threads: EncoderThreads,
) -> None:
    samples = samples_of(music(20, 44100, 2))
    encoder = ParallelEncoder(threads, *STREAM, len(samples))
    mp3 = b""
    for place in range(0, len(samples), 44100):
        await encoder.write(samples[place : place + 44100].tobytes())
        await until_idle(threads)
        mp3 += encoder.take()
    await encoder.finish()
    mp3 += encoder.take()
    assert encoder.cuts == 0
    assert mp3 == encode(samples, STREAM)


async def test_one_thread_cuts_nothing() -> None:
    threads = EncoderThreads(1)
    samples = samples_of(music(20, 44100, 2))
    encoder = ParallelEncoder(threads, *STREAM, len(samples))
    assert await encode_fast(encoder, samples) == encode(samples, STREAM)
    assert encoder.cuts == 0
    threads.close()


async def test_many_threads_work_on_one_recording() -> None:
    threads = EncoderThreads(8)
    samples = samples_of(music(40, 44100, 2))
    encoder = ParallelEncoder(threads, *STREAM, len(samples))
    mp3 = await encode_fast(encoder, samples)
    assert encoder.cuts >= 7
    assert_valid(walk(mp3))
    assert len(decode(mp3)) == len(decode(encode(samples, STREAM)))
    threads.close()


async def test_where_no_frame_ever_fits_the_recording_is_encoded_serially(
    threads: EncoderThreads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "join", lambda *_: None)
    samples = samples_of(music(40, 44100, 2))
    encoder = ParallelEncoder(threads, *STREAM, len(samples))
    assert await encode_fast(encoder, samples) == encode(samples, STREAM)
    assert encoder.cuts > 1


async def test_a_writer_waits_while_too_much_audio_waits(threads: EncoderThreads) -> None:
    samples = samples_of(music(120, 44100, 2))
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


async def test_recordings_at_once_are_all_whole_and_share_one_budget(threads: EncoderThreads) -> None:
    samples = samples_of(music(20, 44100, 2))
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
    assert {len(decode(mp3)) for mp3 in mp3s} == {len(decode(encode(samples, STREAM)))}
    assert most <= threads.budget_bytes + 10 * (parallel.WAITING_BYTES_ALONE + PIECE_BYTES)


async def test_others_leave_a_recording_one_thread_at_least(threads: EncoderThreads) -> None:
    encoders = [ParallelEncoder(threads, *STREAM, None) for _ in range(3)]
    assert [threads.share_of(encoder) for encoder in encoders] == [2, 2, 2]
    pcm = samples_of(music(1, 44100, 2)).tobytes()
    for encoder in encoders:
        await encoder.write(pcm)
    assert threads.working == set(encoders)
    assert [threads.share_of(encoder) for encoder in encoders] == [1, 1, 1]
    await until_idle(threads)
    assert [threads.share_of(encoder) for encoder in encoders] == [2, 2, 2]


async def test_a_recording_that_is_closed_leaves_its_threads_and_its_memory(threads: EncoderThreads) -> None:
    encoder = ParallelEncoder(threads, *STREAM, None)
    pcm = samples_of(music(20, 44100, 2)).tobytes()
    await encoder.write(pcm)
    assert threads.waiting_bytes == len(pcm)
    encoder.close()
    assert threads.waiting_bytes == 0
    await until_idle(threads)
    assert encoder.take() == b""


async def test_an_encoder_that_fails_fails_its_recording_alone(
    threads: EncoderThreads, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = samples_of(music(20, 44100, 2))
    good, bad = (ParallelEncoder(threads, *STREAM, len(samples)) for _ in range(2))

    def fail(*_: object) -> bytes:
        raise MemoryError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(Encoder, "encode", fail)
        with pytest.raises(MemoryError, match="no room"):
            await encode_fast(bad, samples)
    bad.close()
    assert len(decode(await encode_fast(good, samples))) == len(decode(encode(samples, STREAM)))
    assert threads.waiting_bytes == 0
