"""The tables of docs/scale.md come from the measured figures, and the simulation agrees with both."""

import pytest

from tests.bench.capacity import (
    PAGE,
    count_upload_instances,
    predict_seconds,
    put_tables_into,
    simulate,
)


def test_the_tables_are_up_to_date() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert put_tables_into(page) == page
    assert "| 1,000 | " in page


@pytest.mark.parametrize(("uploads", "seconds"), [(10, 3600), (100, 600), (1000, 300)])
def test_the_instances_of_the_table_are_enough_and_half_of_them_are_not(uploads: int, seconds: int) -> None:
    instances = count_upload_instances(uploads)
    enough = simulate(uploads, instances, seconds=seconds)
    assert enough.ended > uploads
    assert enough.refused == 0
    assert enough.slowdown < 1.25
    half = simulate(uploads, instances, cores=1, seconds=seconds)
    assert half.refused > 0 or half.slowdown > 1.25


# The same run as that of the figures.
@pytest.mark.parametrize(
    ("audio_seconds", "uploads", "measured_seconds"), [(600, 1, 2.631), (3600, 1, 17.13), (60, 20, 5.585)]
)
def test_the_figures_predict_what_was_measured(
    audio_seconds: int, uploads: int, measured_seconds: float
) -> None:
    assert predict_seconds(audio_seconds, uploads, cores=2) == pytest.approx(measured_seconds, rel=1 / 3)
