"""Small files that a user names, read whole: never more than such a file can hold, whatever the name stands for (/dev/zero, a pipe)."""

from __future__ import annotations

from pathlib import Path

from secondsight.errors import InputError

__all__ = ["read_whole"]


def read_whole(path: Path, most: int, what: str) -> bytes:
    """The bytes of *path*, which is to be *what* ("a scenario") and at most *most* bytes long.

    :raises InputError: it cannot be read, or is longer.
    """
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise InputError(str(path), "", f"cannot be read: {error.strerror}; give {what}") from None
    if len(data) > most:
        raise InputError(str(path), "", f"longer than {most:,} bytes; give {what}")
    return data
