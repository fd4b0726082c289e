"""Runs hostile inputs under libFuzzer, which looks for inputs that reach new code (`just fuzz`)."""

import atexit
import sys
from pathlib import Path

import atheris

# atheris instruments what is imported here.
with atheris.instrument_imports(include=["records"]):
    from tests.fuzz import hostile

CORPUS = Path(".fuzz")
# A later argument on the command line wins.
DEFAULTS = [
    *("-max_len=300", "-len_control=0", "-reduce_inputs=0", f"-artifact_prefix={CORPUS}/"),
    # libFuzzer tries slow inputs less often.
    "-entropic_scale_per_exec_time=1",
]
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
    """Prints how many inputs ran, and how far they came."""
    share, whole = past_fmt / max(1, inputs), converted / max(1, inputs)
    print(f"{inputs} inputs without a finding, {share:.1%} past fmt, {whole:.1%} converted", flush=True)


if __name__ == "__main__":
    atexit.register(report)
    CORPUS.mkdir(exist_ok=True)
    # libFuzzer ends the process at its -runs, without a report. At -atheris_runs Python ends it, and reports.
    words = [word.replace("-runs=", "-atheris_runs=") for word in sys.argv[1:]]
    if all(word.startswith("-") for word in words):
        words.append(str(CORPUS))
    atheris.Setup([sys.argv[0], *DEFAULTS, *words], fuzz)
    atheris.Fuzz()
