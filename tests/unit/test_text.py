"""Names and titles: the code accepts what the OpenAPI patterns accept, and normalises in bounded time."""

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

# Four characters that form C joins into one. No character stands for more than four.
ALPHA = "\u03b1\u0313\u0300\u0345"
# Letters, white space, invisible characters, and one character of each rejected kind. Form C makes no text of
# them longer or shorter.
ALPHABET = (
    "a\u00e9\U0001f3b5 \n\u00a0\u2003\u3000\u00ad\u115f\u200b\u200d\u2800\u3164\ufe0f\ufeff\U000e0061"
    "\u0000\u001d\u0085\u007f\u009f\u2028\u2029\u202e\u2066\ufdd0\uffff\U0001fffe\U0010ffff"
)
NODE = Path(playwright.__file__).parent / "driver" / "node"
# Reads a pattern and texts, and prints whether the pattern matches each text.
SCRIPT = """
const [pattern, texts] = JSON.parse(require("fs").readFileSync(0));
console.log(JSON.stringify(texts.map((text) => new RegExp(pattern, "u").test(text))));
"""


def is_accepted(text: str, shortest: int) -> bool:
    try:
        normalise_text("title", text, shortest, 4)
    except InvalidRequest:
        return False
    return True


@pytest.mark.parametrize("shortest", [0, 1])
@given(text=st.text(ALPHABET, max_size=8))
def test_the_pattern_matches_exactly_the_accepted_texts(shortest: int, text: str) -> None:
    assert bool(re.search(make_pattern(shortest, 4), text)) == is_accepted(text, shortest)


@pytest.mark.parametrize("shortest", [0, 1])
def test_javascript_and_python_read_the_pattern_alike(shortest: int) -> None:
    chance = random.Random(1)
    texts = [*ALPHABET, ""]
    texts += ["".join(chance.choices(ALPHABET[:18], k=chance.randrange(2, 8))) for _ in range(2000)]
    texts += ["".join(chance.choices(ALPHABET, k=chance.randrange(2, 8))) for _ in range(2000)]
    given = json.dumps([make_pattern(shortest, 4), texts])
    answer = subprocess.run([NODE, "-e", SCRIPT], input=given, capture_output=True, text=True, check=True)
    accepted = [is_accepted(text, shortest) for text in texts]
    assert json.loads(answer.stdout) == accepted
    assert 200 < sum(accepted) < 2000


def test_every_noncharacter_is_rejected() -> None:
    planes = range(0, 0x110000, 0x10000)
    ends = [plane + end for plane in planes for end in (0xFFFE, 0xFFFF)]
    for number in (*range(0xFDD0, 0xFDF0), *ends):
        assert not is_accepted(f"a{chr(number)}", 1), hex(number)
        assert not re.search(make_pattern(1, 4), f"a{chr(number)}"), hex(number)


@pytest.mark.parametrize("lone", ["\ud800", "\udfff"])
def test_a_lone_surrogate_is_rejected(lone: str) -> None:
    assert not is_accepted(lone, 1)


def test_the_limits_count_characters_in_form_c() -> None:
    assert normalise_text("name", f" {ALPHA * 100}\n", 1, 100) == "\u1f82" * 100
    with pytest.raises(InvalidRequest, match="has 101"):
        normalise_text("name", ALPHA * 99 + "xy", 1, 100)


def test_a_text_that_is_too_long_in_every_form_is_not_normalised() -> None:
    """Sorting 32,000 combining marks would block the service for four seconds."""
    with pytest.raises(InvalidRequest, match="has 32000"):
        normalise_text("name", "\u0301\u0316" * 16_000, 1, 100)
    with pytest.raises(InvalidRequest, match="has 401"):
        normalise_text("name", ALPHA * 100 + "\u0301", 1, 100)
