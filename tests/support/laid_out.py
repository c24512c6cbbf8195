"""A process with one block of 2 MiB for each case that a running kernel can lay out: ``python laid_out.py CASE…``.

Prints JSON, {case: address} and {case: why it could not be laid out}, and stays until standard input ends.
"""

import ctypes
import json
import os
import signal
import sys

from secondsight.lab.agent import libc

BLOCK = libc.BLOCK_BYTES
PRIVATE, SHARED, DROPPABLE, ANONYMOUS, FIXED = 0x2, 0x1, 0x8, 0x20, 0x100000
FREE, HUGEPAGE, GUARD_INSTALL = 8, 14, 102
SYS_USERFAULTFD = 323
NEXT = [libc.AREA]
CASES = {}
KEPT = []


def case(lay_out):
    CASES[lay_out.__name__] = lay_out
    return lay_out


def area(flags=PRIVATE | ANONYMOUS, fd=-1, size=BLOCK, offset=0):
    at = NEXT[0]
    NEXT[0] += size + 2 * BLOCK
    if libc.lib.mmap(at, size, 3, flags | FIXED, fd, offset) != at:
        raise OSError(ctypes.get_errno(), "mmap")
    return at


def write(at, pages=range(512)):
    for page in pages:
        ctypes.memset(at + page * 4096, page % 250 + 1, 16)


def advise(at, what, size=BLOCK):
    if libc.lib.madvise(ctypes.c_void_p(at), ctypes.c_size_t(size), what):
        raise OSError(ctypes.get_errno(), f"madvise {what}")


def uffd(at, features, mode):
    fd = libc.lib.syscall(SYS_USERFAULTFD, 0x80000)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "userfaultfd")
    KEPT.append(fd)
    control(fd, 0xC018AA3F, 0xAA, features, 0)
    control(fd, 0xC020AA00, at, BLOCK, mode, 0)
    return fd


def control(fd, request, *words):
    data = (ctypes.c_uint64 * len(words))(*words)
    if libc.lib.ioctl(fd, ctypes.c_ulong(request), ctypes.byref(data)):
        raise OSError(ctypes.get_errno(), f"ioctl {request:#x}")


def shared_file(size):
    fd = os.memfd_create("ram")
    os.ftruncate(fd, size)
    KEPT.append(fd)
    return fd


@case
def plain():
    at = area()
    write(at)
    return at


@case
def guard():
    at = plain()
    advise(at + 100 * 4096, GUARD_INSTALL, 4096)
    return at


@case
def guard65():
    at = plain()
    advise(at + 100 * 4096, GUARD_INSTALL, 65 * 4096)
    return at


@case
def poison():
    at = area()
    write(at, [page for page in range(512) if page != 50])
    control(uffd(at, 1 << 14, 1), 0xC020AA08, at + 50 * 4096, 4096, 0, 0)
    return at


@case
def uffd_hole():
    at = area()
    write(at, range(511))
    uffd(at, 0, 1)
    return at


@case
def uffd_protected():
    at = plain()
    control(uffd(at, 1, 2), 0xC018AA06, at + 77 * 4096, 4096, 1)
    return at


@case
def devzero():
    fd = os.open("/dev/zero", os.O_RDWR)
    KEPT.append(fd)
    at = area(PRIVATE, fd)
    write(at)
    return at


@case
def droppable():
    at = area(DROPPABLE | ANONYMOUS)
    write(at)
    return at


@case
def droppable_free():
    at = droppable()
    freed(at)
    return at


def freed(at):
    advise(at, FREE)
    for page in range(512):
        ctypes.c_char.from_address(at + page * 4096).value  # noqa: B018


@case
def lazyfree():
    at = plain()
    freed(at)
    return at


@case
def zero_pages():
    at = area()
    for page in range(512):
        ctypes.c_char.from_address(at + page * 4096).value  # noqa: B018
    return at


@case
def memfd():
    at = area(SHARED, shared_file(BLOCK))
    write(at)
    return at


@case
def memfd_private():
    at = area(PRIVATE, shared_file(BLOCK))
    write(at)
    return at


@case
def memfd_hole():
    at = area(SHARED, shared_file(BLOCK))
    write(at, range(511))
    return at


@case
def memfd_hole_awaited():
    """Another process, which has no fault of its own, registers its mapping of the file for missing pages."""
    at = memfd_hole()
    ready, done = os.pipe()
    if not os.fork():
        os.closerange(3, done)
        os.closerange(done + 1, 1024)
        libc.lib.prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
        uffd(at, 0, 1)
        os.write(done, b"x")
        while True:
            signal.pause()
    os.close(done)
    if os.read(ready, 1) != b"x":
        raise OSError("the other process could not register its mapping")
    return at


@case
def shared_anonymous():
    at = area(SHARED | ANONYMOUS)
    write(at)
    return at


def lay_out(names):
    """({case: address}, {case: problem})"""
    laid, problems = {}, {}
    for name in names:
        try:
            at = CASES[name]()
            advise(at, HUGEPAGE)
            laid[name] = at
        except OSError as error:
            problems[name] = str(error)
    return laid, problems


if __name__ == "__main__":
    laid, problems = lay_out(sys.argv[1:] or list(CASES))
    print(json.dumps({"laid": laid, "problems": problems}), flush=True)
    sys.stdin.read()
