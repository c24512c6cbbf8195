"""Pages as I/O uses them: copied through a pipe, used in place by O_DIRECT, or held by get_user_pages.

    verb                   system call                            how the kernel gets the page
    io_copied              readv/writev of a pipe                 copy_to_user/copy_from_user: a plain access
    io_zero_copy           preadv/pwritev, O_DIRECT, brd          gup-fast, released when the call returns
    pin, write=False       vmsplice into a pipe                   gup-fast for reading, FOLL_GET: one reference a page
    pin, write=True        io_uring, registered buffers           FOLL_PIN | FOLL_LONGTERM | FOLL_WRITE: 1024 references a
                                                                  page (GUP_PIN_COUNTING_BIAS)

Every function takes page numbers in the order to be used and returns errno's name where some were denied (the others are
done), or None.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import struct
from collections.abc import Callable

from secondsight.lab.agent import libc
from secondsight.lab.agent.routines import Routines

__all__ = ["Pins", "copied", "zero_copy"]

_CHUNK = 1024  # UIO_MAXIOV
_F_SETPIPE_SZ = 1031
_SPLICE_F_NONBLOCK = 2
_REGISTER_BUFFERS, _UNREGISTER_BUFFERS = 0, 1


class _PinnedRange(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("len", ctypes.c_size_t))


def _iovecs(pages: list[int], length: int) -> ctypes.Array[_PinnedRange]:
    return (_PinnedRange * len(pages))(*(_PinnedRange(libc.AREA + p * libc.PAGE, length) for p in pages))


def _each(pages: list[int], length: int, call: Callable[[list[int], int], int]) -> str | None:
    """Hand *pages* to *call* (pages, index of the first) until all are done, stepping over those that are denied.

    *call* answers the bytes done, or a negative errno.
    """
    denied = None
    at = 0
    while at < len(pages):
        done = call(pages[at : at + _CHUNK], at)
        if done < 0:
            if done != -errno.EFAULT:
                raise libc.SysError(-done, os.strerror(-done))
            done = 0
        at += done // length
        if done < length:
            denied = "EFAULT"
            at += 1
    return denied


def _vectored(
    routines: Routines, number: int, fd: int, vectors: ctypes.Array[_PinnedRange], *arguments: int
) -> int:
    """readv and its like, on empty LRU batches; the bytes done, or a negative errno."""
    return routines.syscall(number, fd, ctypes.addressof(vectors), len(vectors), *arguments)


def _stamps(pages: list[int], stamp: int) -> bytes:
    return b"".join(struct.pack("<I", stamp | p) for p in pages)


def copied(routines: Routines, pages: list[int], write: bool, stamp: int) -> str | None:
    """The process itself moves four bytes of each page out of, or into, a pipe."""
    out, into = os.pipe()
    fcntl.fcntl(into, _F_SETPIPE_SZ, 1 << 20)
    os.set_blocking(out, False)

    def store(part: list[int], at: int) -> int:
        with contextlib.suppress(BlockingIOError):
            os.read(out, 1 << 16)
        os.write(into, _stamps(part, stamp))
        return _vectored(routines, libc.SYS_READV, out, _iovecs(part, 4))

    def load(part: list[int], at: int) -> int:
        done = _vectored(routines, libc.SYS_WRITEV, into, _iovecs(part, 4))
        with contextlib.suppress(BlockingIOError):
            os.read(out, 1 << 16)
        return done

    try:
        return _each(pages, 4, store if write else load)
    finally:
        os.close(out)
        os.close(into)


def zero_copy(routines: Routines, device: int, pages: list[int], write: bool, stamp: int) -> str | None:
    """*device* (a brd opened with O_DIRECT) reads from, or writes to, each whole page."""
    n = min(len(pages), _CHUNK)
    if write:
        with mmap.mmap(-1, n * libc.PAGE) as staging:
            for at in range(0, len(pages), _CHUNK):
                part = pages[at : at + _CHUNK]
                for i, p in enumerate(part):
                    struct.pack_into("<I", staging, i * libc.PAGE, stamp | p)
                view = memoryview(staging)[: len(part) * libc.PAGE]
                os.pwritev(device, [view], at * libc.PAGE)
                view.release()
    move = libc.SYS_PREADV if write else libc.SYS_PWRITEV
    return _each(
        pages,
        libc.PAGE,
        lambda part, at: _vectored(routines, move, device, _iovecs(part, libc.PAGE), at * libc.PAGE),
    )


class Pins:
    """The pins a process holds, by name."""

    def __init__(self, routines: Routines) -> None:
        self._routines = routines
        self._held: dict[str, list[tuple[str, int, int]]] = {}

    def pin(self, name: str, pages: list[int], write: bool) -> str | None:
        """Pin *pages* and keep them under *name* (several pins may share it)."""
        held = self._held.setdefault(name, [])
        if write:
            fd = libc.check(
                libc.lib.syscall(libc.SYS_IO_URING_SETUP, 4, ctypes.create_string_buffer(120)),
                "io_uring_setup",
            )
            pieces = libc.runs(pages)
            vectors = (_PinnedRange * len(pieces))(
                *(_PinnedRange(libc.AREA + p * libc.PAGE, n * libc.PAGE) for p, n in pieces)
            )
            wrong = self._routines.failed(
                libc.SYS_IO_URING_REGISTER, fd, _REGISTER_BUFFERS, ctypes.addressof(vectors), len(pieces)
            )
            if wrong:
                os.close(fd)
                return wrong
            held.append(("uring", fd, fd))
            return None
        out, into = os.pipe()
        fcntl.fcntl(into, _F_SETPIPE_SZ, max(len(pages), 16) * libc.PAGE)
        held.append(("pipe", out, into))
        return _each(
            pages,
            libc.PAGE,
            lambda part, at: _vectored(
                self._routines, libc.SYS_VMSPLICE, into, _iovecs(part, libc.PAGE), _SPLICE_F_NONBLOCK
            ),
        )

    def unpin(self, name: str) -> None:
        """Release what was pinned under *name*, at once: closing an io_uring would release it some time later."""
        for kind, one, other in self._held.pop(name, []):
            if kind == "uring":
                libc.check(
                    libc.lib.syscall(libc.SYS_IO_URING_REGISTER, one, _UNREGISTER_BUFFERS, None, 0),
                    "unregister",
                )
                os.close(one)
            else:
                os.close(one)
                os.close(other)

    def release(self) -> None:
        """Unpin everything."""
        for name in list(self._held):
            self.unpin(name)

    def close_inherited(self) -> None:
        """In a forked child: the pins are the parent's; drop the file descriptors that came along."""
        for kept in self._held.values():
            for fd in {fd for _, *both in kept for fd in both}:
                os.close(fd)
        self._held.clear()
