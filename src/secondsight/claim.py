"""Who writes a file: one process at a time, by a lock that the kernel takes back however that process ends (:manpage:`flock(2)`).

::

    Claim(T) ── T's inode, locked ──▶ move(written anew) ── the new inode, locked ── renamed to T ──▶ close
    a second Claim(T) ──▶ refused, until then

Nothing lies beside the file, so that nothing stale can be in the way.
"""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

from secondsight.errors import UsageError

__all__ = ["Claim", "is_locked", "lock"]


def lock(descriptor: int) -> bool:
    """Lock the open file *descriptor*; False where another open file of it is locked already.

    A file system without locks locks nothing, and all goes on as if nobody else were there.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def is_locked(path: Path) -> bool:
    """Whether somebody holds *path* now; False where it cannot be opened."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not lock(descriptor)
    finally:
        os.close(descriptor)


class Claim:
    """*path* is this object's to write until :meth:`close`, or until the process ends; it is made, empty, if it is not there.

    A device is nobody's.

    :raises UsageError: another process, or another claim, writes it; or it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = -1
        if path.exists() and not path.is_file():
            return
        while True:
            try:
                self._descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
            except OSError as error:
                raise UsageError(f"{path}: cannot be written: {error.strerror}") from None
            if not lock(self._descriptor):
                self.close()
                raise UsageError(
                    f"{path}: another process is recording into it; give another name, or end that one first"
                )
            if self._is_at(path):
                return
            self.close()  # it was written anew between the two: that one is to be locked

    def _is_at(self, path: Path) -> bool:
        try:
            there, here = path.stat(), os.fstat(self._descriptor)
        except OSError:
            return False
        return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)

    def move(self, descriptor: int) -> None:
        """Hold the file open as *descriptor* from now on: it is about to take the place of the one held."""
        if self._descriptor < 0 or not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return
        moved = os.dup(descriptor)
        lock(moved)
        self.close()
        self._descriptor = moved

    def close(self) -> None:
        """Let go of it; may be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def __del__(self) -> None:
        self.close()
