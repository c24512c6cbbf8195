"""The command lines that a command reads without Typer.

Typer and what it imports take longer to come than a process of 1 GiB takes to read. So what cannot be misread is read here, and anything
else (a wrong word, two of a kind, ``--pid=1``, ``--help``) is left to Typer, which also says what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def number(word: str) -> int:
    """*word*, ASCII digits, as a number.

    Raises:
        ValueError: it is anything else.
    """
    if not (word.isascii() and word.isdigit()):
        raise ValueError(word)
    return int(word)


def read(words: list[str], options: Mapping[str, tuple[str, Any]]) -> dict[str, Any] | None:
    """The parameters that *words* name and what they say; None: not for this reader.

    *options* tells of each option, and of a word without one (""), which parameter it is, and what it says or how the next word is read.
    """
    said: dict[str, Any] = {}
    rest = iter(words)
    for word in rest:
        option = word if word.startswith("-") else ""
        if option not in options:
            return None
        name, says = options[option]
        if callable(says):
            value = next(rest, "") if option else word
            if not value or value.startswith("-"):
                return None
            try:
                says = says(value)
            except ValueError:
                return None
        if name in said:
            return None
        said[name] = says
    return said
