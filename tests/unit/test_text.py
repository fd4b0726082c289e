"""Names and titles: what is taken is what the OpenAPI documents say, and what their normal form costs."""

import json
import random
import re
import subprocess
from pathlib import Path

import playwright
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.problems import InvalidRequest
from common.text import make_pattern, normalise_text

# Four characters of which form C makes one, the most that there are.
ALPHA = "\u03b1\u0313\u0300\u0345"
# Letters, spaces and what cannot be seen, and one of each kind of what is refused; the normal form makes none
# of them longer.
ALPHABET = (
    "a\u00e9\U0001f3b5 \n\u00a0\u2003\u3000\u00ad\u115f\u200b\u200d\u2800\u3164\ufe0f\ufeff\U000e0061"
    "\u0000\u001d\u0085\u007f\u009f\u2028\u2029\u202e\u2066\ufdd0\uffff\U0001fffe\U0010ffff"
)
NODE = Path(playwright.__file__).parent / "driver" / "node"
# Reads a pattern and texts, and prints whether it fits each.
SCRIPT = """
const [pattern, texts] = JSON.parse(require("fs").readFileSync(0));
console.log(JSON.stringify(texts.map((text) => new RegExp(pattern, "u").test(text))));
"""


def is_taken(text: str, shortest: int) -> bool:
    try:
        normalise_text("title", text, shortest, 4)
    except InvalidRequest:
        return False
    return True


@pytest.mark.parametrize("shortest", [0, 1])
@given(text=st.text(ALPHABET, max_size=8))
def test_the_pattern_of_the_documents_fits_exactly_what_is_taken(shortest: int, text: str) -> None:
    assert bool(re.search(make_pattern(shortest, 4), text)) == is_taken(text, shortest)


@pytest.mark.parametrize("shortest", [0, 1])
def test_a_javascript_reads_the_pattern_as_python_does(shortest: int) -> None:
    chance = random.Random(1)
    texts = [*ALPHABET, ""]
    texts += ["".join(chance.choices(ALPHABET[:18], k=chance.randrange(2, 8))) for _ in range(2000)]
    texts += ["".join(chance.choices(ALPHABET, k=chance.randrange(2, 8))) for _ in range(2000)]
    given = json.dumps([make_pattern(shortest, 4), texts])
    answer = subprocess.run([NODE, "-e", SCRIPT], input=given, capture_output=True, text=True, check=True)
    taken = [is_taken(text, shortest) for text in texts]
    assert json.loads(answer.stdout) == taken
    assert 200 < sum(taken) < 2000


def test_every_character_that_unicode_says_is_none_is_refused() -> None:
    planes = range(0, 0x110000, 0x10000)
    ends = [plane + end for plane in planes for end in (0xFFFE, 0xFFFF)]
    for number in (*range(0xFDD0, 0xFDF0), *ends):
        assert not is_taken(f"a{chr(number)}", 1), hex(number)
        assert not re.search(make_pattern(1, 4), f"a{chr(number)}"), hex(number)


@pytest.mark.parametrize("lone", ["\ud800", "\udfff"])
def test_half_a_character_is_refused(lone: str) -> None:
    assert not is_taken(lone, 1)


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
