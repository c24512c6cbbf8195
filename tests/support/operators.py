"""Processes that an operator meets, each a child of the test: ``python operators.py KIND [advised]`` prints one line, then stays.

sparse     100 blocks, 8 pages written in each            shared     64 MiB of memfd, written
snapshot   64 MiB, and a forked child that shares them    segment    64 MiB of memfd that a child alone maps
hotcold    128 MiB written once, the last 16 in use       zeros      16 MiB, half of it read only (zero pages)
grows      64 MiB more each time a line is read           plain      64 MiB, written
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

BLOCK, MIB, PAGE = 2 << 20, 1 << 20, 4096
AT = 0x300000000000
PRIVATE, SHARED = 0x32, 0x11  # MAP_FIXED, and MAP_ANONYMOUS or a file's
HUGEPAGE = 14


class Operated(NamedTuple):
    """*pid*, the area's *start* and *end*, and the *child* to write lines to."""

    pid: int
    start: int
    end: int
    child: subprocess.Popen[str]


@contextlib.contextmanager
def operated(kind: str, *words: str, group: Path | None = None) -> Iterator[Operated]:
    """A process of *kind*, in the cgroup *group*, until the block ends."""

    def enter() -> None:
        if group is not None:
            (group / "cgroup.procs").write_text(str(os.getpid()))

    argv = [sys.executable, str(Path(__file__)), kind, *words]
    child = subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=enter, bufsize=1
    )
    try:
        assert child.stdout is not None
        pid, start, end = child.stdout.readline().split()
        yield Operated(int(pid), int(start, 16), int(end, 16), child)
    finally:
        child.kill()
        child.communicate()


# -- in the child ----------------------------------------------------------------------------------------------------

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *([ctypes.c_int] * 3), ctypes.c_long]
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def area(size: int, flags: int = PRIVATE, fd: int = -1, at: int = AT) -> int:
    """*size* bytes at *at*; advised if the command line says so."""
    got = libc.mmap(at, size, 3, flags, fd, 0)
    assert got == at, os.strerror(ctypes.get_errno())
    if "advised" in sys.argv:
        libc.madvise(at, size, HUGEPAGE)
    return at


def child_that_stays(fill: int = 0) -> None:
    """Fork one that ends with its parent; it has written *fill* bytes when this returns."""
    told, tell = os.pipe()
    if os.fork() == 0:
        libc.prctl(1, signal.SIGKILL, 0, 0, 0)
        ctypes.memset(AT, 1, fill)
        os.write(tell, b"!")
        while True:
            time.sleep(1)
    os.read(told, 1)


def main(kind: str) -> None:
    """Be one of *kind*."""
    size = {"sparse": 100 * BLOCK, "zeros": 16 * MIB, "hotcold": 128 * MIB}.get(kind, 64 * MIB)
    if kind in ("shared", "segment"):
        fd = os.memfd_create("ram")
        os.ftruncate(fd, size)
        area(size, SHARED, fd)
    else:
        area(size)
    if kind == "sparse":
        for block in range(100):
            ctypes.memset(AT + block * BLOCK, 1, 8 * PAGE)
    elif kind == "zeros":
        ctypes.memset(AT, 1, size // 2)
        for at in range(AT + size // 2, AT + size, PAGE):
            ctypes.c_char.from_address(at).value  # noqa: B018 - a read
        for at in range(AT + size // 2, AT + size, BLOCK):
            ctypes.memset(at, 1, PAGE)
    elif kind != "segment":
        ctypes.memset(AT, 1, size)
    if kind == "snapshot":
        child_that_stays()
    elif kind == "segment":
        child_that_stays(size)
    print(os.getpid(), f"{AT:#x}", f"{AT + size:#x}", flush=True)
    grown = 0
    while kind == "hotcold":
        ctypes.memset(AT + 112 * MIB, 2, 16 * MIB)
    while sys.stdin.readline():
        if kind == "grows":
            grown += 1
            ctypes.memset(area(64 * MIB, at=AT + grown * (1 << 32)), 1, 64 * MIB)
            print("grown", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
