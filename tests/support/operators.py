"""Processes that an operator meets, each a child of the test: ``python operators.py KIND [advised]`` prints one line, then stays.

sparse     100 blocks, 8 pages written in each            shared     64 MiB of memfd, written
snapshot   64 MiB, and a forked child that shares them    segment    64 MiB of memfd that a child alone maps
hotcold    128 MiB written once, the last 16 in use       zeros      16 MiB, half of it read only (zero pages)
mappings N a page N times, each a mapping, and 64 MiB        plain      64 MiB, written

Each does what a line on its standard input says: ``grow`` (64 MiB more), ``fork``, ``exec``, ``unmap`` (the last half), ``seccomp``,
``guard`` (a page of its area), ``private`` (the memfd of ``shared`` again, private, one page of each block copied), and answers with
the word when it has, else with why not.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
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
ANONYMOUS, HUGEPAGE, GUARD_INSTALL = 0x20, 14, 102


class Operated(NamedTuple):
    """*pid*, the area's *start* and *end*, and the *child* to write lines to."""

    pid: int
    start: int
    end: int
    child: subprocess.Popen[str]

    def tell(self, word: str) -> None:
        """Have it do *word*; returns when it has."""
        assert self.child.stdin is not None and self.child.stdout is not None
        self.child.stdin.write(f"{word}\n")
        assert self.child.stdout.readline().strip() == word

    def content(self) -> str:
        """A digest of the area as the process sees it."""
        with Path(f"/proc/{self.pid}/mem").open("rb", buffering=0) as memory:
            memory.seek(self.start)
            digest = hashlib.blake2b()
            for _ in range(self.start, self.end, MIB):
                digest.update(memory.read(MIB))
            return digest.hexdigest()


@contextlib.contextmanager
def operated(
    kind: str, *words: str, group: Path | None = None, under: tuple[str, ...] = ()
) -> Iterator[Operated]:
    """A process of *kind*, in the cgroup *group*, started by the command *under* (``unshare …``), until the block ends."""

    def enter() -> None:
        if group is not None:
            (group / "cgroup.procs").write_text(str(os.getpid()))

    argv = [*under, sys.executable, str(Path(__file__)), kind, *words]
    child = subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=enter, bufsize=1
    )
    try:
        assert child.stdout is not None
        pid, start, end = child.stdout.readline().split()
        number = _descendant(child.pid) if under else int(pid)
        yield Operated(number, int(start, 16), int(end, 16), child)
    finally:
        child.kill()
        child.communicate()


def _descendant(pid: int) -> int:
    """The last of the line of first children of *pid*, in our numbers."""
    while children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        pid = int(children[0])
    return pid


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
    released, tell = os.pipe()
    if os.fork() == 0:
        libc.prctl(1, signal.SIGKILL, 0, 0, 0)
        ctypes.memset(AT, 1, fill)
        os.write(tell, b"!")
        while True:
            time.sleep(1)
    os.read(released, 1)


def main(kind: str) -> None:
    """Be one of *kind*."""
    size = {"sparse": 100 * BLOCK, "zeros": 16 * MIB, "hotcold": 128 * MIB}.get(kind, 64 * MIB)
    if kind in ("shared", "segment"):
        fd = os.memfd_create("ram")
        os.ftruncate(fd, size)
        area(size, SHARED, fd)
    else:
        area(size)
    if kind == "mappings":
        for at in range(AT + (1 << 32), AT + (1 << 32) + int(sys.argv[2]) * 2 * PAGE, 2 * PAGE):
            if libc.mmap(at, PAGE, 3, PRIVATE, -1, 0) != at:
                break  # vm.max_map_count
            ctypes.memset(at, 1, 1)
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
        for at in range(AT, AT + size, PAGE):
            ctypes.memset(at, at >> 12 & 0xFF, PAGE)
    if kind == "snapshot":
        child_that_stays()
    elif kind == "segment":
        child_that_stays(size)
    print(os.getpid(), f"{AT:#x}", f"{AT + size:#x}", flush=True)
    while kind == "hotcold":
        ctypes.memset(AT + 112 * MIB, 2, 16 * MIB)
    grown = 0
    while word := sys.stdin.readline().strip():
        if word == "grow":
            grown += 1
            ctypes.memset(area(64 * MIB, at=AT + grown * (1 << 32)), 1, 64 * MIB)
        elif word == "fork":
            child_that_stays()
        elif word == "unmap":
            libc.munmap(ctypes.c_void_p(AT + size // 2), ctypes.c_size_t(size // 2))
        elif word == "guard" and libc.madvise(AT + 5 * PAGE, PAGE, GUARD_INSTALL):
            word = os.strerror(ctypes.get_errno())
        elif word == "private":
            area(size, PRIVATE & ~ANONYMOUS, fd, at=AT + (1 << 32))
            for at in range(AT + (1 << 32), AT + (1 << 32) + size, BLOCK):
                ctypes.memset(at, 3, 1)
        elif word == "exec":
            os.execv(sys.executable, [sys.executable, "-c", "print('exec', flush=True); input()"])
        elif word == "seccomp":
            libc.prctl(22, 1, 0, 0, 0)  # PR_SET_SECCOMP, SECCOMP_MODE_STRICT: read, write and exit are left
            os.write(1, b"seccomp\n")
            os.read(0, 1)
        print(word, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
