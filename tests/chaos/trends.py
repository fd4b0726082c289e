"""Whether a count of the soak grows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from statistics import median
from typing import NamedTuple

# The run is cut into so many stretches of equal length. The medians of the last half make the trend: in the
# first half pools, caches and allocators fill, and the first tombstones become due.
STRETCHES = 60
CONFIDENCE = 0.99
MEMORY = "memory, MiB"
MOST_MIB_PER_HOUR = 1.0
MOST_PER_HOUR = 1.0


class Trend(NamedTuple):
    """How one count changes in the last half of a run, per hour, and between which slopes it surely lies."""

    slope: float
    lowest: float
    highest: float
    values: list[float]


def find_trend(samples: list[tuple[float, float]]) -> Trend:
    """Fits a line through samples of (seconds, value), by Theil and Sen."""
    begin, end = samples[0][0], samples[-1][0]
    stretches = defaultdict[int, list[tuple[float, float]]](list)
    for seconds, value in samples:
        number = int((seconds - begin) / (end - begin) * STRETCHES)
        stretches[min(number, STRETCHES - 1)].append((seconds, value))
    half = [stretch for number, stretch in sorted(stretches.items()) if number >= STRETCHES / 2]
    hours = [median(seconds for seconds, _ in stretch) / 3600 for stretch in half]
    values = [median(value for _, value in stretch) for stretch in half]
    # Loading it takes longer than loading the other modules of the tests, which pytest does in every process.
    from scipy.stats import theilslopes  # noqa: PLC0415 (see above)

    fit = theilslopes(values, hours, alpha=CONFIDENCE)
    return Trend(float(fit.slope), float(fit.low_slope), float(fit.high_slope), values)


def find_grown(trends: Mapping[str, Trend]) -> Iterator[str]:
    """Returns a sentence for each count that surely grows, and for the memory of the records service."""
    for name, trend in trends.items():
        if name.endswith(MEMORY) and not name.startswith("records"):
            continue
        most = MOST_MIB_PER_HOUR if name.endswith(MEMORY) else MOST_PER_HOUR
        if trend.lowest > most:
            yield f"{name} grows by {trend.lowest:.1f} to {trend.highest:.1f} an hour"
