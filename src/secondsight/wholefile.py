"""Files that a user names, opened: nothing waits or reads without end, whatever the name stands for (an idle pipe, /dev/zero)."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from secondsight.errors import InputError

__all__ = ["check_input", "open_input", "read_whole"]


def open_input(path: Path, what: str, *, devices: bool = False) -> BinaryIO:
    """*path*, which is to be *what* ("a trace"), opened for reading; *devices*: a character device too, which may have no end.

    :raises InputError: it cannot be read, or is no regular file.
    """
    try:
        # A pipe's open would wait for who writes it; a regular file does not know the flag.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        # A socket cannot be opened at all.
        kind = _kind_of(path)
        why = f"is {kind}; {what} is one file" if kind else f"cannot be read: {error.strerror}; give {what}"
        raise InputError(str(path), "", why) from None
    mode = os.fstat(descriptor).st_mode
    kind = _kind(mode)
    if kind and not (devices and stat.S_ISCHR(mode)):
        os.close(descriptor)
        raise InputError(str(path), "", f"is {kind}; {what} is one file")
    os.set_blocking(descriptor, True)
    return os.fdopen(descriptor, "rb")


def check_input(path: Path, what: str) -> None:
    """Refuse *path*, which is to be *what*, before a library opens it by its name.

    :raises InputError: as :func:`open_input`.
    """
    if not os.path.lexists(path):
        raise InputError(str(path), "", "no such file")
    open_input(path, what).close()


def read_whole(path: Path, most: int, what: str) -> bytes:
    """The bytes of *path*, which is to be *what* ("a scenario") and at most *most* bytes long.

    :raises InputError: it cannot be read, is no file, or is longer.
    """
    with open_input(path, what, devices=True) as file:
        try:
            data = file.read(most + 1)
        except OSError as error:
            raise InputError(str(path), "", f"cannot be read: {error.strerror}; give {what}") from None
    if len(data) > most:
        raise InputError(str(path), "", f"longer than {most:,} bytes; give {what}")
    return data


def _kind_of(path: Path) -> str:
    try:
        return _kind(path.stat().st_mode)
    except OSError:
        return ""


def _kind(mode: int) -> str:
    """What *mode* is the mode of; nothing where that is a regular file."""
    for told, kind in (
        (stat.S_ISDIR, "a directory"),
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
    ):
        if told(mode):
            return kind
    return ""
