"""The soak finds what grows in noise, and takes no noise for growth."""

import random

import pytest

from tests.chaos.trends import find_grown, find_trend

MINUTES = 30


def sample(per_hour: float) -> list[tuple[float, float]]:
    """Samples of half an hour: much at the beginning, then a slope with noise and peaks."""
    chance = random.Random(1)
    return [
        (
            seconds,
            100
            + per_hour * seconds / 3600
            - max(0, 300 - seconds)
            + chance.uniform(-2, 2)
            + 40 * (chance.random() < 0.1),
        )
        for seconds in range(0, MINUTES * 60, 5)
    ]


@pytest.mark.parametrize(
    ("name", "per_hour", "grows"),
    [
        ("records: memory, MiB", 0, False),
        ("records: memory, MiB", 12, True),
        ("records: memory, MiB", -12, False),
        ("users: descriptors", 12, True),
        ("minio: memory, MiB", 12, False),
    ],
)
def test_only_what_grows_beyond_its_noise_is_named(name: str, per_hour: float, grows: bool) -> None:
    assert bool(list(find_grown({name: find_trend(sample(per_hour))}))) is grows
