"""Files that appear whole or not at all: written beside their place, then put into it.

::

    part(T) ──▶ .T.PID.tmp ── write ── put ──▶ T        what is written; T is complete whenever it is there
    part(/dev/null) ──▶ /dev/null                       a device, or /dev/stdout, is written to itself: it is never replaced
    part(pipe) ──▶ refused                              a pipe with a name: its open waits for who reads it, for ever where nobody does
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from secondsight.errors import SecondSightError, UsageError

Name = str | os.PathLike[str]
#: what befalls a right name while it is written: a failure, not a wrong request
FAILURES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def temporary_path(path: Name) -> Path:
    """Where to write what :func:`commit` makes *path* of.

    :raises UsageError: *path* is a directory or a named pipe, or its own directory is not there.
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
    # A symbolic link stays one: what it names is written.
    place = Path(os.path.realpath(target))
    return place.with_name(f".{place.name}.{os.getpid()}.tmp")


def commit(written: Path, path: Name) -> None:
    """Put what was *written* to ``temporary_path(path)`` into its place.

    :raises OSError: it cannot be renamed.
    """
    if written != Path(path):
        written.replace(os.path.realpath(path))


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


def check_writable(path: Name | None, *sources: Name) -> None:
    """Refuse *path* before work begins of which it is to hold the result (None: nothing is to be written).

    *sources*: what the work reads, and must not write over.

    :raises UsageError: it cannot be written, or is one of *sources*.
    """
    if path is None:
        return
    written = temporary_path(path)
    if not os.access(written if written == Path(path) else written.parent, os.W_OK):
        raise UsageError(f"{path}: cannot be written: permission denied")
    for source in sources:
        with contextlib.suppress(OSError):
            if Path(path).samefile(source):
                raise UsageError(f"{path}: is what is read; give the output another name")
