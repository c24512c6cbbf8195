"""Files that appear whole or not at all: written beside their place, then put into it.

::

    part(T) ──▶ .T.PID.tmp ── write ── put ──▶ T        what is written; T is complete whenever it is there, and keeps its mode and owner
    part(T) ──▶ refused                                 T holds something that the command does not make (FileKind)
    part(/dev/null) ──▶ /dev/null                       a device, or /dev/stdout, is written to itself: it is never replaced
    part(pipe) ──▶ refused                              a pipe with a name: its open waits for who reads it, for ever where nobody does
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from secondsight.errors import SecondSightError, UsageError

Name = str | os.PathLike[str]
#: what befalls a right name while it is written: a failure, not a wrong request
FAILURES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class FileKind(NamedTuple):
    """What a command makes: its *name* ("trace"), and whether the file at a path *is_one*, which another may take the place of."""

    name: str
    is_one: Callable[[Path], bool]


def starting(name: str, *heads: bytes) -> FileKind:
    """Files that begin with one of *heads*, white space before it and its case aside."""

    def is_one(path: Path) -> bool:
        try:
            with path.open("rb") as file:
                head = file.read(256)
        except OSError:
            return False
        return head.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith(tuple(map(bytes.lower, heads)))

    return FileKind(name, is_one)


#: pages and pictures that are read in a browser
PAGE = starting("page", b"<!doctype html", b"<html", b"<svg", b"<?xml")
_HEADS = (
    (b"PAR1", "another Parquet file"),
    (b"PK", "another archive"),
    (b"\x7fELF", "a program"),
    (b"#!", "a script"),
)


def _content(path: Path) -> str:
    """What the file *path* holds, in words."""
    try:
        with path.open("rb") as file:
            head = file.read(1000)
    except OSError as error:
        return f"a file that cannot be read ({error.strerror})"
    for start, content in _HEADS:
        if head.startswith(start):
            return content
    return "binary data" if b"\0" in head else "text"


def temporary_path(path: Name, kind: FileKind | None = None) -> Path:
    """Where to write what :func:`commit` makes *path* of; *kind*: what alone it replaces, besides an empty file.

    :raises UsageError: *path* is a directory, a named pipe or a file of another kind, or its own directory is not there.
    """
    target = Path(path)
    try:
        mode = target.stat().st_mode
    except OSError:
        mode = stat.S_IFREG
    if stat.S_ISDIR(mode):
        raise UsageError(f"{path}: cannot be written: is a directory; name a file in it")
    if stat.S_ISFIFO(mode) and os.path.exists(os.path.realpath(target)):  # noqa: PTH110 - as it stands
        raise UsageError(f"{path}: cannot be written: is a pipe, no regular file; name a file")
    if not target.parent.is_dir():
        raise UsageError(f"{path}: cannot be written: there is no directory {target.parent}")
    if not stat.S_ISREG(mode):
        return target
    if kind is not None and target.is_file() and target.stat().st_size and not kind.is_one(target):
        raise UsageError(
            f"{path}: is there already and holds {_content(target)}, no {kind.name}: give another name, or remove it first"
        )
    # A symbolic link stays one: what it names is written.
    place = Path(os.path.realpath(target))
    return place.with_name(f".{place.name}.{os.getpid()}.tmp")


def commit(written: Path, path: Name) -> None:
    """Put what was *written* to ``temporary_path(path)`` into its place.

    :raises OSError: it cannot be renamed.
    """
    if written != Path(path):
        place = os.path.realpath(path)
        # What was made unreadable for others, or given to a service, stays so.
        with contextlib.suppress(OSError):
            there = os.stat(place)  # noqa: PTH116 - as it stands
            with contextlib.suppress(PermissionError):
                os.chown(written, there.st_uid, there.st_gid)
            written.chmod(stat.S_IMODE(there.st_mode))
        written.replace(place)


def discard(written: Path, path: Name) -> None:
    """Remove what was *written* to ``temporary_path(path)``, if it was not put into place."""
    if written != Path(path):
        written.unlink(missing_ok=True)


@contextlib.contextmanager
def open_atomic(path: Name) -> Iterator[Path]:
    """A name to write to within the block; *path* is that file once the block ends without an error, else as it was.

    What writes to the name must not remove it when it fails, as pyarrow's ``write_table`` does: the name can be a device. Give it the
    opened file.

    :raises UsageError: *path* cannot be written; so does an OSError within the block.
    :raises SecondSightError: the disk is full or failed.
    """
    written = temporary_path(path)
    try:
        yield written
        commit(written, path)
    except OSError as error:
        error_type = SecondSightError if error.errno in FAILURES else UsageError
        raise error_type(f"{path}: cannot be written: {error.strerror or error}") from None
    finally:
        discard(written, path)


def check_writable(path: Name | None, *sources: Name, kind: FileKind | None = None) -> None:
    """Refuse *path* before work begins of which it is to hold the result (None: nothing is to be written).

    *sources*: what the work reads, and must not write over; *kind*: as :func:`temporary_path`.

    :raises UsageError: it cannot be written, is one of *sources*, or is a file of another kind.
    :raises SecondSightError: a device that is full.
    """
    if path is None:
        return
    for source in sources:
        with contextlib.suppress(OSError):
            if Path(path).samefile(source):
                temporary_path(path)
                raise UsageError(f"{path}: is what is read; give the output another name")
    written = temporary_path(path, kind)
    if not os.access(written if written == Path(path) else written.parent, os.W_OK):
        raise UsageError(f"{path}: cannot be written: permission denied")
    if written == Path(path):
        _probe(path)


def check_distinct(*paths: Name | None) -> None:
    """Refuse, before work begins, two results that would be written to one file (None: nothing is to be written).

    :raises UsageError: two *paths* are one, and it is no device or pipe.
    """
    met: set[str] = set()
    for path in paths:
        if path is None or (Path(path).exists() and not Path(path).is_file()):
            continue
        real = os.path.realpath(path)
        if real in met:
            raise UsageError(f"{path}: two results cannot be written to one file")
        met.add(real)


def check_directory(path: Name | None) -> None:
    """Refuse *path* before work begins whose results are to be files in it; it need not be there (None: nothing is to be written).

    :raises UsageError: it is no directory, cannot be made, or cannot be written into.
    """
    if path is None:
        return
    there = Path(path).absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        raise UsageError(f"{path}: cannot be made: {there} is no directory")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UsageError(f"{path}: cannot be written: permission denied")


def _probe(path: Name) -> None:
    """Ask a device or a pipe whether it takes anything, by writing nothing to it.

    :raises SecondSightError: it does not.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return  # a socket as standard output: whoever writes it says what is wrong
    try:
        os.write(descriptor, b"")
    except OSError as error:
        raise SecondSightError(f"{path}: cannot be written: {error.strerror}") from None
    finally:
        os.close(descriptor)
