"""Numbers with the word for what is counted."""

from __future__ import annotations


def pluralize(number: int, one: str, many: str = "") -> str:
    """``1 block``, ``1,024 blocks``; *many* where it is not *one* with an s."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def file_size(number: int) -> str:
    """Bytes of a file, in three figures or more: ``3,586 bytes``, ``41.2 kB``, ``3.59 MB``."""
    if number < 10_000:
        return pluralize(number, "byte")
    return f"{number / 1e3:.1f} kB" if number < 1_000_000 else f"{number / 1e6:,.2f} MB"
