"""Runs hostile inputs under libFuzzer, which looks for those that reach new code: see `just fuzz`."""

import atexit
import sys

import atheris

# What is imported here is instrumented.
with atheris.instrument_imports(include=["records"]):
    from tests.fuzz import hostile

EVERY = 100_000
inputs = past_fmt = converted = 0


def fuzz(data: bytes) -> None:
    """Checks one input and counts it."""
    global inputs, past_fmt, converted  # noqa: PLW0603 - libFuzzer calls nothing but this function
    outcome = hostile.check(data)
    inputs += 1
    past_fmt += outcome.is_past_fmt
    converted += not outcome.refusal
    if inputs % EVERY == 0:
        report()


def report() -> None:
    """Says how far the inputs have come."""
    share, whole = past_fmt / max(1, inputs), converted / max(1, inputs)
    print(f"{inputs} inputs without a finding, {share:.1%} past fmt, {whole:.1%} converted", flush=True)


if __name__ == "__main__":
    atexit.register(report)
    atheris.Setup(sys.argv, fuzz)
    atheris.Fuzz()
