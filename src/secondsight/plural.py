"""Numbers with the word for what is counted."""

from __future__ import annotations


def pluralize(number: int, one: str, many: str = "") -> str:
    """``1 block``, ``1,024 blocks``; *many* where it is not *one* with an s."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
