"""mlock and munlock (mm/mlock.c): the pages are faulted in, touched, and kept off the evictable lists."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from secondsight.bits.pte import MAPPED, PSE
from secondsight.errors import UsageError
from secondsight.mm.lru import mark_page_accessed
from secondsight.mm.memory import pfn_of
from secondsight.mm.page import ACTIVE, HEAD, LRU, MLOCKED, TAIL, UNEVICTABLE, ZERO_PFN, head_of
from secondsight.mm.vma import Vm
from secondsight.native import native

if TYPE_CHECKING:
    from secondsight.mm.mm_struct import Mm


@native
def _mark_locked(f, m, start, end, lock):  # type: ignore[no-untyped-def]
    """mlock_pte_range over pages already there."""
    for page in range(start, end):
        pmd = m.pmd[page >> 9]
        if not pmd:
            continue
        entry = pmd if pmd & PSE else m.pte[page]
        if not entry & MAPPED:
            continue
        pfn = head_of(f, pfn_of(entry))
        if pfn == ZERO_PFN or f.flags[pfn] & TAIL or (f.flags[pfn] & HEAD and not pmd & PSE):
            continue
        if lock:
            f.flags[pfn] |= MLOCKED
            if f.flags[pfn] & LRU:
                f.flags[pfn] = (f.flags[pfn] & ~ACTIVE) | UNEVICTABLE
        elif f.flags[pfn] & MLOCKED:
            f.flags[pfn] &= ~(MLOCKED | UNEVICTABLE)


@native
def _touch(f, r, m, start, end):  # type: ignore[no-untyped-def]
    """__mm_populate: gup with FOLL_TOUCH marks each page accessed."""
    for page in range(start, end):
        pmd = m.pmd[page >> 9]
        pfn = pfn_of(pmd) if pmd & PSE else pfn_of(m.pte[page])
        if pfn != ZERO_PFN:
            mark_page_accessed(f, r, pfn)


def mlock(mm: Mm, start: int, end: int) -> str | None:
    """mlock pages *start* to *end*: VM_LOCKED, what is there goes to the unevictable list, what is not is faulted in.

    Returns ENOMEM where population meets an inaccessible area: it stops there (__mm_populate), the rest stays locked but absent.
    """
    _range(mm, start, end)
    host = mm.host
    host.drain()
    mm.change_areas(start, end, lambda flags: flags | Vm.LOCKED)
    _mark_locked(host.frames.arrays, mm.arrays, start, end, True)
    for vma in list(mm.vmas.areas):
        low, high = max(start, vma.start), min(end, vma.end)
        if low >= high:
            continue
        if not vma.flags & (Vm.READ | Vm.WRITE):
            return "ENOMEM"
        write = bool(vma.flags & Vm.WRITE)
        pages = np.arange(low, high, dtype=np.int64)
        absent = pages[[not _populated(mm, p, write) for p in pages.tolist()]]
        mm.cpu_access(absent, write=write)
        _touch(host.frames.arrays, host.r, mm.arrays, low, high)
    host.drain()
    return None


def munlock(mm: Mm, start: int, end: int) -> None:
    """munlock pages *start* to *end*: back to the evictable lists, inactive."""
    _range(mm, start, end)
    mm.host.drain()
    mm.change_areas(start, end, lambda flags: flags & ~Vm.LOCKED)
    _mark_locked(mm.host.frames.arrays, mm.arrays, start, end, False)


def _populated(mm: Mm, page: int, write: bool) -> bool:
    """Would gup find the page without a fault?"""
    pmd = mm.arrays.pmd[page >> 9]
    entry = pmd if pmd & PSE else (mm.arrays.pte[page] if pmd else np.uint64(0))
    return bool(entry & MAPPED and entry & np.uint64(2))


def _range(mm: Mm, start: int, end: int) -> None:
    if not 0 <= start < end <= mm.npages:
        raise UsageError(f"pages {start} to {end} are no range of space {mm.name!r} of {mm.npages} pages")
