"""The examples in the documentation: the code blocks of a page, with their headings."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.wavs import Wav, music

ROOT = Path(__file__).parents[1]
# What the examples upload.
HELLO_WAV = Wav().build(music(2))
# Where the examples find Waxwing.
SHOWN_URL = "http://127.0.0.1:8080"


@dataclass(frozen=True)
class Example:
    """A code block, and the JSON that the page shows right below it, if any."""

    heading: str
    language: str
    code: str
    shown: Any = None


def read_examples(page: str, language: str) -> list[Example]:
    """Returns the code blocks of a page in this language, in their order. `page` is a path from the root."""
    text = (ROOT / page).read_text(encoding="utf-8")
    examples, heading = [], ""
    block = r"```(\w*)\n(.*?)^```$(?:\n```json\n(.*?)^```$)?"
    for found in re.finditer(rf"^#+ ([^\n]+)$|^{block}", text, re.MULTILINE | re.DOTALL):
        if found[1]:
            heading = found[1]
        elif found[2] == language:
            shown = json.loads(found[4]) if found[4] else None
            examples.append(Example(heading, language, found[3], shown))
    return examples


def join_examples(page: str, language: str, base_url: str, until: str | None = None) -> str:
    """Returns the code blocks as one program for the Waxwing at `base_url`, up to the heading `until`."""
    examples = read_examples(page, language)
    headings = [example.heading for example in examples]
    end = len(headings) - headings[::-1].index(until) if until else len(headings)
    return "\n\n".join(each.code for each in examples[:end]).replace(SHOWN_URL, base_url)
