"""mlock and munlock (mm/mlock.c): the pages are faulted in, touched, and kept off the evictable lists.

In compiled functions *f* is the frames (``page.FrameArrays``), *r* the rules and the host's set-up (``compiled.R``) and *m* an address
space (``pgtable.MmArrays``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from secondsight.bits.pte import MAPPED, PRESENT, PSE, RW
from secondsight.geometry import BLOCK_MASK, PMD_ORDER
from secondsight.mm.gup import NOT_PERMITTED, NOTIFY, populate
from secondsight.mm.internal import USE_AND_WRITE, folio_pte_batch
from secondsight.mm.lru import lru_add_drain, mlock_page, mlock_populated, munlock_folio, munlock_page
from secondsight.mm.page import (
    HEAD,
    HUGE_ZERO_PFN,
    MLOCKED,
    ZERO_PFN,
    folio_nr_pages,
    head_of,
)
from secondsight.mm.pgtable import DROPPABLE, pfn_of
from secondsight.mm.vma import LOCKED_MASK, VmFlags
from secondsight.native import native

if TYPE_CHECKING:
    from secondsight.mm.mm_struct import Mm


@native
def _mark_locked(f, r, m, start, end, lock):  # type: ignore[no-untyped-def]
    """mlock_pte_range over pages already there."""
    for page in range(start, end):
        pmd = m.pmd[page >> PMD_ORDER]
        if not pmd:
            continue
        entry = pmd if pmd & PSE else m.pte[page]
        if not entry & MAPPED:
            continue
        if pfn_of(entry) == ZERO_PFN:
            continue
        pfn = head_of(f, pfn_of(entry))
        by_ptes = f.flags[pfn] & HEAD and not pmd & PSE
        if by_ptes and not r.mlock_counts_large:
            continue
        # All of it must be in the range, from its first page on (allow_mlock_munlock).
        if by_ptes and lock and folio_pte_batch(f, m, page, end, USE_AND_WRITE)[0] != folio_nr_pages(f, pfn):
            continue
        if lock:
            mlock_page(f, pfn)
        elif not r.mlock_batched and f.mapcount[pfn] > 1:
            # __munlock_isolated_page; what is mapped once goes back at once (__putback_lru_fast).
            munlock_folio(f, r, pfn)
        elif f.flags[pfn] & MLOCKED:
            munlock_page(f, pfn)


@native
def _mlock_populated(f, r, m, page, pfn):  # type: ignore[no-untyped-def]
    """FOLL_MLOCK: what follow_page_pte and follow_trans_huge_pmd mlock of what they have met."""
    if pfn == ZERO_PFN or (pfn & ~BLOCK_MASK) == HUGE_ZERO_PFN:
        return
    head = head_of(f, pfn)
    if m.pmd[page >> PMD_ORDER] & PSE:
        # Not where another process maps it too, or PTEs (PageDoubleMap).
        if f.refcount[head + 1] != 1 or f.refcount[head + 2] != 0:
            return
    elif f.flags[head] & HEAD:
        return
    else:
        lru_add_drain(f, r)
    mlock_populated(f, r, head)


def mlock(mm: Mm, start: int, end: int, *, onfault: bool = False) -> str | None:
    """mlock pages *start* to *end*: VM_LOCKED, what is there goes to the unevictable list, what is not is faulted in, or
    (*onfault*, mlock2) locked when it comes.

    Returns ENOMEM where population meets an inaccessible area, or a page that cannot be faulted in (a guard): it stops there
    (mm/gup.c __mm_populate; EFAULT becomes ENOMEM in mm/mlock.c __mlock_posix_error_return), the rest stays locked but absent.
    """
    mm.check_range(start, end)
    if not mm.host.rules.mlock_by_populate:
        mm.host.drain()
    if mm.host.rules.mlock_batched:
        mm.host.frames.count_mlocks()
    _fix_up(mm, start, end, LOCKED_MASK if onfault else VmFlags.LOCKED)
    for vma, low, high in mm.vmas.within(start, end):
        if vma.flags & VmFlags.LOCKONFAULT and not mm.host.rules.mlock_by_populate:
            # populate_vma_page_range: VM_LOCKONFAULT has no work to do there.
            continue
        if not vma.flags & (VmFlags.READ | VmFlags.WRITE):
            return "ENOMEM"
        if not populate_area(mm, low, high, bool(vma.flags & VmFlags.WRITE)):
            return "ENOMEM"
    return None


def munlock(mm: Mm, start: int, end: int) -> None:
    """munlock pages *start* to *end*: back to the evictable lists, inactive."""
    mm.check_range(start, end)
    if not mm.host.rules.mlock_by_populate:
        mm.host.drain()
    _fix_up(mm, start, end, VmFlags(0))


def _fix_up(mm: Mm, start: int, end: int, locks: VmFlags) -> None:
    """mlock_fixup: *locks* is what an area has of VM_LOCKED_MASK then. Pages are touched only where VM_LOCKED comes or goes."""
    lock = bool(locks)
    if mm.arrays.n[DROPPABLE]:
        # vma_supports_mlock: it is not locked, and nobody is told.
        return
    now = [
        (low, high) for a, low, high in mm.vmas.within(start, end) if bool(a.flags & VmFlags.LOCKED) != lock
    ]
    mm.change_areas(start, end, lambda flags: (flags & ~LOCKED_MASK) | locks)
    for low, high in now:
        if not (lock and mm.host.rules.mlock_by_populate):
            _mark_locked(mm.host.frames.arrays, mm.host.r, mm.arrays, low, high, lock)


def populate_area(mm: Mm, low: int, high: int, write: bool) -> bool:
    """populate_vma_page_range: page by page, a huge one as a whole; at its end the LRU batches are drained, area by area.

    False where a page could not be faulted in: those behind it were not tried. An area that is locked as pages come (before 5.18, where
    this is what locks) has nothing faulted in: FOLL_MLOCK without FOLL_POPULATE passes over what gup would have to fault.
    """
    pages = np.arange(low, high, dtype=np.int64)
    host = mm.host
    if mm.vmas.at(low).flags & VmFlags.LOCKONFAULT:
        pmd = mm.arrays.pmd[pages >> PMD_ORDER]
        entry = np.where(pmd & PSE != 0, pmd, np.where(pmd == 0, np.uint64(0), mm.arrays.pte[low:high]))
        pages = pages[(entry & PRESENT != 0) & ((entry & RW != 0) | (not write))]
    whole = True
    mlocks = host.rules.mlock_by_populate and bool(mm.vmas.at(low).flags & VmFlags.LOCKED)

    def step(start: int, notified: bool) -> int:
        nonlocal whole
        f, block = host.frames.arrays, -1
        for i in range(start, len(pages)):
            page = int(pages[i])
            if page >> PMD_ORDER == block:
                continue
            pfn = populate(f, host.r, mm.arrays, page, write, notified and i == start, bool(mm.notifiers))
            if pfn == NOTIFY:
                return i
            if pfn == NOT_PERMITTED:
                whole = False
                return len(pages)
            if mlocks:
                _mlock_populated(f, host.r, mm.arrays, page, pfn)
            block = page >> PMD_ORDER if mm.arrays.pmd[page >> PMD_ORDER] & PSE else -1
        return len(pages)

    mm.run_faults(pages, step, "mlock")
    if not host.rules.mlock_by_populate:
        host.drain()
    return whole
