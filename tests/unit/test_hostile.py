"""Any bytes are converted or refused with a message, in bounded work and memory.

`just fuzz` makes the same checks for any length of time, and chooses its bytes by the code that they reach.
"""

import inspect
import random
import sys
import tracemalloc
from collections.abc import Iterator
from types import CodeType, FrameType
from typing import Any

from records.audio import formats, metadata, pieces, wav
from tests.fuzz import hostile

Line = tuple[str, int]


def arbitrary(count: int) -> Iterator[bytes]:
    source = random.Random(1)
    return (source.randbytes(source.randrange(300)) for _ in range(count))


def test_every_input_is_converted_or_refused_and_many_get_past_the_format() -> None:
    outcomes = [hostile.check(data) for data in arbitrary(4_000)]
    assert sum(outcome.is_past_fmt for outcome in outcomes) >= 0.3 * len(outcomes)
    assert sum(not outcome.refusal for outcome in outcomes) >= 0.3 * len(outcomes)


def test_the_work_grows_at_most_with_the_size_and_nearly_all_of_the_parser_is_reached() -> None:
    reached: set[Line] = set()
    for data in arbitrary(2_000):
        wav_bytes = hostile.make_wav(hostile.Choices(data))
        lines = lines_run_for(wav_bytes)
        assert len(lines) <= 2_000 + 50 * len(wav_bytes)
        reached.update(lines)
    all_lines = {line for module in (wav, pieces, metadata, formats) for line in lines_of_functions(module)}
    missing = all_lines - reached
    assert len(missing) <= 0.05 * len(all_lines), sorted(missing)


def lines_run_for(wav_bytes: bytes) -> list[Line]:
    """Returns the lines of the audio package that run for this input, each as often as it runs."""
    lines: list[Line] = []

    def on_line(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            lines.append((frame.f_code.co_filename, frame.f_lineno))
        return on_line

    def on_call(frame: FrameType, event: str, _: Any) -> Any:
        return on_line if frame.f_globals.get("__package__") == "records.audio" else None

    before = sys.gettrace()
    sys.settrace(on_call)
    try:
        hostile.convert([wav_bytes], 60)
    finally:
        sys.settrace(before)
    return lines


def lines_of_functions(module: Any) -> Iterator[Line]:
    """Yields the lines inside functions, which run when the module is used, not when it is imported."""
    path = inspect.getsourcefile(module)
    assert path
    codes = [compile(inspect.getsource(module), path, "exec")]
    while codes:
        code = codes.pop()
        codes += [const for const in code.co_consts if isinstance(const, CodeType)]
        if code.co_flags & inspect.CO_OPTIMIZED:
            yield from ((path, line) for *_, line in code.co_lines() if line and line != code.co_firstlineno)


def test_the_memory_is_bounded() -> None:
    tracemalloc.start()
    try:
        for data in arbitrary(600):
            wav_bytes = hostile.make_wav(hostile.Choices(data))
            tracemalloc.reset_peak()
            before_bytes, _ = tracemalloc.get_traced_memory()
            hostile.convert([wav_bytes], 60)
            assert tracemalloc.get_traced_memory()[1] - before_bytes <= 1024 * 1024
    finally:
        tracemalloc.stop()
