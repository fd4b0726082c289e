"""Names and titles, and what their normal form costs."""

import pytest

from common.problems import InvalidRequest
from common.text import normalise_text

# Four characters of which form C makes one, the most that there are.
ALPHA = "\u03b1\u0313\u0300\u0345"


def test_a_text_is_counted_in_its_normal_form() -> None:
    assert normalise_text("name", f" {ALPHA * 100}\n", 1, 100) == "\u1f82" * 100
    with pytest.raises(InvalidRequest, match="has 101"):
        normalise_text("name", ALPHA * 99 + "xy", 1, 100)


def test_what_is_too_long_in_every_form_is_not_brought_to_one() -> None:
    """To order 32,000 marks would take four seconds, in which the service does nothing else."""
    with pytest.raises(InvalidRequest, match="has 32000"):
        normalise_text("name", "\u0301\u0316" * 16_000, 1, 100)
    with pytest.raises(InvalidRequest, match="has 401"):
        normalise_text("name", ALPHA * 100 + "\u0301", 1, 100)
