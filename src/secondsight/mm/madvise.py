"""madvise(2) (mm/madvise.c), and the unmapping it shares with exit (zap_pte_range in mm/memory.c).

hugepage, nohugepage    the area's advice; hugepage may register the mm with khugepaged
dontneed                notifiers, then the PTEs go; a huge PMD cut in part is split first
free                    notifiers, then each PTE clean and old, each page lazily freed (through a batch)
cold                    PTE old, page unreferenced and inactive; no notifier is told or asked
mergeable               the area's advice for KSM; unmergeable breaks what was merged
collapse                MADV_COLLAPSE: khugepaged.py
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from numba import njit

from secondsight.bits.pte import ACCESSED, DIRTY, MAPPED, PSE
from secondsight.errors import UsageError
from secondsight.mm.huge_memory import split_block_pmd
from secondsight.mm.lru import lru_add_drain
from secondsight.mm.memory import pfn_of
from secondsight.mm.page import (
    ACTIVE,
    ANON,
    HEAD,
    HPAGE,
    HUGE_ZERO_PFN,
    LRU,
    REFERENCED,
    SWAPBACKED,
    SWAPCACHE,
    TAIL,
    UNEVICTABLE,
    YOUNG,
    ZERO_PFN,
    head_of,
    unmap_pmd,
    unmap_pte,
)
from secondsight.mm.vma import Vm

if TYPE_CHECKING:
    from secondsight.mm.mm_struct import Mm

Advice = Literal["hugepage", "nohugepage", "dontneed", "free", "cold", "mergeable", "unmergeable", "collapse"]


@njit(cache=True)
def zap_page_range(f, m, start, end):  # type: ignore[no-untyped-def]
    """Unmap pages *start* to *end*; a huge PMD lies wholly inside (the caller split others). Page tables stay."""
    page = start
    while page < end:
        block = page >> 9
        pmd = m.pmd[block]
        if pmd & PSE:
            if pfn_of(pmd) != HUGE_ZERO_PFN:
                unmap_pmd(f, pfn_of(pmd))
            m.pmd[block] = 0
            page = (block + 1) * HPAGE
            continue
        entry = m.pte[page]
        if pmd and entry:
            if not entry & MAPPED:
                m.swap[np.int64(entry >> np.uint64(14)) - 1] -= 1
            elif pfn_of(entry) != ZERO_PFN:
                unmap_pte(f, pfn_of(entry))
            m.pte[page] = 0
        page += 1


def split_edges(mm: Mm, start: int, end: int) -> None:
    """Split the huge PMDs that pages *start* to *end* cut in part."""
    for edge in (start, end):
        if edge % HPAGE and edge < mm.npages:
            split_block_pmd(mm, edge // HPAGE)


def unmap(mm: Mm, start: int, end: int) -> None:
    """zap_page_range_single: drain the LRU, tell the notifiers, unmap."""
    split_edges(mm, start, end)
    host = mm.host
    f = host.frames.reserve(0, 0, end - start + 1024)
    lru_add_drain(f, host.r)
    mm.notifiers.invalidate_range(start, end)
    f = host.frames.reserve(0, 0, end - start + 1024)
    zap_page_range(f, mm.arrays, start, end)


@njit(cache=True)
def _lazyfree(f, r, m, start, end):  # type: ignore[no-untyped-def]
    """madvise_free_pte_range: swap entries go; young or dirty PTEs become clean and old; eligible pages lose PG_swapbacked.

    Lazily freed pages wait in a batch of their own; a drain empties it before the activations.
    """
    batch = np.empty(32, np.int64)
    waiting = 0
    for page in range(start, end):
        block = page >> 9
        if not m.pmd[block]:
            continue
        entry = m.pte[page]
        if entry == 0:
            continue
        if not entry & MAPPED:
            m.swap[np.int64(entry >> np.uint64(14)) - 1] -= 1
            m.pte[page] = 0
            continue
        pfn = pfn_of(entry)
        if pfn == ZERO_PFN:
            continue
        if f.flags[pfn] & (HEAD | TAIL):
            continue
        # A shared dirty page is left alone.
        if f.mapcount[pfn] != 1:
            continue
        m.pte[page] = entry & ~(ACCESSED | DIRTY)
        flags = f.flags[pfn]
        if flags & LRU and flags & ANON and flags & SWAPBACKED and not flags & (SWAPCACHE | UNEVICTABLE):
            batch[waiting] = pfn
            waiting += 1
            f.refcount[pfn] += 1
            if waiting == r.lru_batch:
                _lazyfree_drain(f, batch, waiting)
                waiting = 0
    _lazyfree_drain(f, batch, waiting)


@njit(cache=True)
def _lazyfree_drain(f, batch, waiting):  # type: ignore[no-untyped-def]
    for i in range(waiting):
        pfn = batch[i]
        f.flags[pfn] &= ~(ACTIVE | REFERENCED | SWAPBACKED)
        f.refcount[pfn] -= 1


@njit(cache=True)
def _cold(f, r, m, start, end):  # type: ignore[no-untyped-def]
    """madvise_cold_or_pageout_pte_range: only pages mapped once and on the LRU."""
    for page in range(start, end):
        block = page >> 9
        pmd = m.pmd[block]
        if pmd & PSE:
            head = pfn_of(pmd)
            if (page & 511) or head == HUGE_ZERO_PFN or f.refcount[head + 1] != 1:
                continue
            m.pmd[block] = pmd & ~ACCESSED
            _deactivate(f, r, head)
            continue
        entry = m.pte[page] if pmd else np.uint64(0)
        if not entry & MAPPED or pfn_of(entry) == ZERO_PFN:
            continue
        pfn = pfn_of(entry)
        if not f.flags[head_of(f, pfn)] & LRU or f.mapcount[pfn] != 1 or f.flags[pfn] & (HEAD | TAIL):
            continue
        m.pte[page] = entry & ~ACCESSED
        _deactivate(f, r, pfn)


@njit(cache=True)
def _deactivate(f, r, pfn):  # type: ignore[no-untyped-def]
    f.flags[pfn] &= ~(REFERENCED | YOUNG)
    if not f.flags[pfn] & UNEVICTABLE:
        f.flags[pfn] &= ~ACTIVE


def madvise(mm: Mm, start: int, end: int, advice: Advice) -> str | None:
    """Advise pages *start* to *end* (exclusive); returns the errno's name where the call fails, else None.

    :raises UsageError: the range is empty or outside the space, or the advice unknown.
    """
    if not 0 <= start < end <= mm.npages:
        raise UsageError(f"pages {start} to {end} are no range of space {mm.name!r} of {mm.npages} pages")
    host = mm.host
    if advice in ("hugepage", "nohugepage"):
        _advise_huge(mm, start, end, advice == "hugepage")
        return None
    if advice == "collapse":
        return host.khugepaged.madvise_collapse(mm, start, end)
    if advice in ("mergeable", "unmergeable"):
        from secondsight.mm.ksm import unmerge

        def change(flags: Vm) -> Vm:
            return flags | Vm.MERGEABLE if advice == "mergeable" else flags & ~Vm.MERGEABLE

        mm.vmas.update(start, end, change)
        mm.refresh()
        if advice == "unmergeable":
            unmerge(mm, start, end)
        return None
    if advice == "dontneed":
        if any(v.flags & Vm.LOCKED for v in mm.vmas.areas if v.start < end and start < v.end):
            return "EINVAL"
        unmap(mm, start, end)
        if host.rules.dontneed_frees_tables:
            whole = slice(-(-start // HPAGE), end // HPAGE)
            mm.arrays.pmd[whole] = 0
    elif advice == "free":
        split_edges(mm, start, end)
        host.frames.reserve(0, 0, 2048)
        lru_add_drain(host.frames.arrays, host.r)
        mm.notifiers.invalidate_range(start, end)
        _lazyfree(host.frames.arrays, host.r, mm.arrays, start, end)
    elif advice == "cold":
        if any(v.flags & Vm.LOCKED for v in mm.vmas.areas if v.start < end and start < v.end):
            return "EINVAL"
        host.drain()
        split_edges(mm, start, end)
        _cold(host.frames.arrays, host.r, mm.arrays, start, end)
    else:
        raise UsageError(f"no advice is called {advice!r}")
    return None


def _advise_huge(mm: Mm, start: int, end: int, huge: bool) -> None:
    """hugepage_madvise: flags first; registration looks at the area as it was, before it is split."""
    before = [v for v in mm.vmas.areas if v.start < end and start < v.end]

    def change(flags: Vm) -> Vm:
        return (flags | Vm.HUGEPAGE) & ~Vm.NOHUGEPAGE if huge else (flags | Vm.NOHUGEPAGE) & ~Vm.HUGEPAGE

    mm.vmas.update(start, end, change)
    mm.refresh()
    if huge:
        for vma in before:
            mm.host.khugepaged.enter_vma(mm, replace(vma, flags=change(vma.flags)))
