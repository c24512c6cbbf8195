"""Blocks that the scan of the page table judges, one function a state."""

import ctypes
import os
from pathlib import Path

import laid_out
from backings_common import NOHUGEPAGE, PAGEOUT, kind, pin, read, some
from laid_out import ANONYMOUS, BLOCK, DROPPABLE, GUARD_INSTALL, HUGEPAGE, PRIVATE, advise, area, freed, write

from secondsight.lab.agent import libc

HUGETLB = 0x40000


@kind("anonymous")
def plain(r, _):
    at = area()
    write(at, some(r))
    return at


@kind("anonymous")
def aged(r, _):
    """Nothing of it was used since the bits were cleared, most often."""
    return plain(r, _)


@kind("anonymous", advised=False)
def unadvised(r, _):
    return plain(r, _)


@kind("anonymous", advised=False)
def nohugepage(r, _):
    at = plain(r, _)
    advise(at, NOHUGEPAGE)
    return at


@kind("anonymous")
def guard(r, _):
    at = plain(r, _)
    first = r.randrange(512)
    advise(at + first * 4096, GUARD_INSTALL, 4096 * r.randint(1, min(100, 512 - first)))
    return at


@kind("anonymous")
def poison(r, _):
    at, page = area(), r.randrange(512)
    write(at, [p for p in range(512) if p != page])
    laid_out.control(laid_out.uffd(at, 1 << 14, 1), 0xC020AA08, at + page * 4096, 4096, 0, 0)
    return at


@kind("anonymous")
def uffd_armed(r, _):
    at = plain(r, _)
    laid_out.uffd(at, 0, 1)
    return at


@kind("anonymous")
def uffd_protected(r, _):
    at = laid_out.plain()
    laid_out.control(laid_out.uffd(at, 1, 2), 0xC018AA06, at + r.randrange(512) * 4096, 4096, 1)
    return at


@kind("anonymous")
def dev_zero(r, _):
    fd = os.open("/dev/zero", os.O_RDWR)
    laid_out.KEPT.append(fd)
    at = area(PRIVATE, fd)
    write(at, some(r))
    return at


@kind("anonymous")
def droppable(r, _):
    at = area(DROPPABLE | ANONYMOUS)
    write(at, some(r))
    if r.random() < 0.5:
        freed(at)
    return at


@kind("anonymous")
def lazyfree(r, _):
    at = laid_out.plain()
    pages = r.randint(1, 512)
    advise(at, libc.ADVICE["free"], pages * 4096)
    read(at, range(pages))
    return at


@kind("anonymous")
def zero_pages(r, _):
    at = area()
    pages = some(r)
    read(at, pages)
    if r.random() < 0.5:
        write(at, [p for p in pages if r.random() < 0.3])
    return at


@kind("anonymous")
def swapped(r, _):
    at = plain(r, _)
    first = r.randrange(512)
    advise(at + first * 4096, PAGEOUT, 4096 * r.randint(1, 512 - first))
    read(at, [p for p in range(512) if r.random() < 0.5])
    return at


@kind("anonymous")
def mlocked(r, _):
    at = plain(r, _)
    libc.check(libc.lib.syscall(libc.SYS_MLOCK, ctypes.c_void_p(at), BLOCK), "mlock")
    return at


@kind("anonymous")
def pinned(r, _):
    at = laid_out.plain()
    for _ in range(r.randint(1, 4)):
        pin(at, r.randrange(512))
    return at


@kind("anonymous")
def read_only(r, _):
    at = plain(r, _)
    libc.check(libc.lib.syscall(libc.SYS_MPROTECT, ctypes.c_void_p(at), BLOCK, 1), "mprotect")
    return at


@kind("anonymous")
def huge(r, _):
    at = area()
    advise(at, HUGEPAGE)
    write(at, [3])
    if r.random() < 0.5:
        # The PMD becomes a page table, the folio stays whole.
        advise(at, libc.ADVICE["dontfork"], 4096)
        advise(at, libc.ADVICE["dofork"], 4096)
    return at


@kind("anonymous", advised=False)
def hugetlb(r, _):
    Path("/proc/sys/vm/nr_hugepages").write_text("8")
    at = area(PRIVATE | ANONYMOUS | HUGETLB)
    write(at, [r.randrange(512)])
    return at


@kind("anonymous")
def shared_with_a_child(r, _):
    """Forked, and partly copied by the child, which stays."""
    at = plain(r, _)
    pages = some(r)
    if not os.fork():
        libc.disable_thp(True)
        write(at, [p for p in pages if r.random() < 0.7])
        os.kill(os.getpid(), 19)
        os._exit(0)
    os.waitpid(-1, os.WUNTRACED)
    return at
