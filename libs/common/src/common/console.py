"""What the commands of the services and of the terminal print."""

import os
import sys
from io import TextIOWrapper


def use_utf8() -> None:
    """Prints UTF-8, because names and titles may have characters that the terminal's own encoding lacks."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")


def drop_output() -> None:
    """Prints nothing more, because the reader of the output, such as `head`, has left.

    At its end Python writes what is left, and that must not fail again.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def make_printable(text: str) -> str:
    """Returns the text with an escape for each character that could disturb a terminal."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
