"""Ageing: who clears young bits, where they go, and what reclaim makes of them (mm/rmap.c, mm/page_idle.c, mm/vmscan.c).

age (page_idle)   every mapping old, primary and secondary (clear_young)      was young --> PG_young, not idle; then PG_idle
reclaim           folio_referenced: every mapping old (clear_flush_young)     young --> kept;  else --> swapped out
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from secondsight.bits.pte import ACCESSED, DIRTY, MAPPED, PFN_MASK, PSE, swap_pte
from secondsight.mm.huge_memory import split_huge
from secondsight.mm.madvise import ranges_without_large
from secondsight.mm.memory import pfn_of
from secondsight.mm.page import (
    ACTIVE,
    HEAD,
    HPAGE,
    HUGE_ZERO_PFN,
    IDLE,
    LRU,
    MLOCKED,
    REFERENCED,
    SWAPBACKED,
    TAIL,
    YOUNG,
    ZERO_PFN,
    unmap_pte,
)
from secondsight.mm.page import DIRTY as PAGE_DIRTY
from secondsight.mm.vma import Vm
from secondsight.native import native

if TYPE_CHECKING:
    from secondsight.mm.host import Host
    from secondsight.mm.mm_struct import Mm

Pages = npt.NDArray[np.int64]


def mappings(host: Host, pfn: int) -> list[tuple[Mm, int]]:
    """rmap_walk: every (mm, page) whose PTE maps the small page *pfn*."""
    out: list[tuple[Mm, int]] = []
    want = np.uint64(pfn) << np.uint64(12)
    for mm in host.mms.values():
        pte = mm.arrays.pte
        found = np.flatnonzero(((pte & PFN_MASK) == want) & ((pte & MAPPED) != 0))
        out.extend((mm, int(p)) for p in found if mm.arrays.pmd[p >> 9] and not mm.arrays.pmd[p >> 9] & PSE)
    return out


def _clear_young(mm: Mm, page: int, *, flush: bool) -> bool:
    """ptep_clear_young_notify (or _flush_): the primary bit and every notifier's."""
    young = bool(mm.arrays.pte[page] & ACCESSED)
    mm.arrays.pte[page] &= ~ACCESSED
    clear = mm.notifiers.clear_flush_young if flush else mm.notifiers.clear_young
    return bool(clear(page, page + 1)[0]) or young


def age(mm: Mm, pages: Pages) -> None:
    """Write these pages' bits to ``/sys/kernel/mm/page_idle/bitmap``: page_idle_clear_pte_refs, then PG_idle.

    A page off the LRU, or a tail of a huge page, is left alone; a huge PMD is aged through its head.
    """
    f = mm.host.frames.arrays
    for page in pages.tolist():
        pmd = mm.arrays.pmd[page >> 9]
        if pmd & PSE:
            if page % HPAGE == 0 and f.flags[int(pfn_of(pmd))] & LRU:
                head = int(pfn_of(pmd))
                young = bool(pmd & ACCESSED)
                mm.arrays.pmd[page >> 9] = pmd & ~ACCESSED
                if bool(mm.notifiers.clear_young(page, page + HPAGE).any()) or young:
                    f.flags[head] |= YOUNG
                f.flags[head] |= IDLE
            continue
        pfn = mm.pfn(page)
        if pfn <= ZERO_PFN or f.flags[pfn] & (HEAD | TAIL) or not f.flags[pfn] & LRU:
            continue
        young = False
        for owner, at in mappings(mm.host, pfn) if f.mapcount[pfn] > 1 else [(mm, page)]:
            young |= _clear_young(owner, at, flush=False)
        if young:
            f.flags[pfn] = (f.flags[pfn] & ~IDLE) | YOUNG
        f.flags[pfn] |= IDLE


def damon_mkold(mm: Mm, pages: Pages, aged: Pages) -> None:
    """DAMON looks at each of *pages* (damon_ptep_mkold, damon_pmdp_mkold): entry old, notifiers aged, what was young to PG_young.

    It asks the notifiers about a range that begins at an address inside the page, so the page behind it is aged with it, and with a
    huge PMD all up to the same page of the next block; unless chance chose the page's very first byte. *aged*: the pages whose
    secondary entries were seen to be old afterwards.
    """
    f = mm.host.frames.arrays
    seen = set(aged.tolist())
    for page in pages.tolist():
        folio = mm.folio(page)
        pmd = mm.arrays.pmd[page >> 9]
        if folio <= ZERO_PFN or folio == HUGE_ZERO_PFN or not f.flags[folio] & LRU:
            continue
        if pmd & PSE:
            young = bool(pmd & ACCESSED)
            mm.arrays.pmd[page >> 9] = pmd & ~ACCESSED
            end = min(page + HPAGE + 1, mm.npages)
        else:
            young = bool(mm.arrays.pte[page] & ACCESSED)
            mm.arrays.pte[page] &= ~ACCESSED
            end = page + 2 if page + 1 in seen else page + 1
        if bool(mm.notifiers.clear_young(page, end).any()) or young:
            f.flags[folio] |= YOUNG
        f.flags[folio] |= IDLE


@native
def _unmap_to_swap(f, m, pages, slots):  # type: ignore[no-untyped-def]
    """try_to_unmap: a swap entry in each page's place; what was lazily freed is discarded."""
    for i in range(len(pages)):
        page = pages[i]
        pfn = pfn_of(m.pte[page])
        lazily_freed = not f.flags[pfn] & SWAPBACKED
        unmap_pte(f, pfn)
        m.pte[page] = slots[i]
        if lazily_freed:
            m.pte[page] = 0
            m.swap[np.int64(slots[i] >> np.uint64(14)) - 1] -= 1


def can_swap(mm: Mm, page: int) -> bool:
    """Could reclaim take this page: small, anonymous, mapped once, on the LRU, not locked in memory, not pinned?"""
    f = mm.host.frames.arrays
    if not mm.arrays.pmd[page >> 9] or mm.arrays.pmd[page >> 9] & PSE:
        return False
    pfn = mm.pfn(page)
    if pfn <= ZERO_PFN:
        return False
    flags = f.flags[pfn]
    return bool(
        flags & LRU and not flags & (HEAD | TAIL | MLOCKED) and f.mapcount[pfn] == 1 and f.refcount[pfn] == 1
    )


class PagedOut(NamedTuple):
    """*gone* int64: the pages that went to swap; *errno*: EINVAL where a locked area was among them."""

    gone: Pages
    errno: str | None


def swap_out(mm: Mm, pages: Pages, took: Pages | None = None) -> PagedOut:
    """MADV_PAGEOUT of each run of *pages*; a locked area ends its run (can_madv_lru_vma).

    Earlier kernels make each PTE old and its page unreferenced (no notifier asked), then let reclaim ask
    folio_referenced, which does ask: a page young in a secondary MMU is aged, marked referenced and kept. Later ones ignore
    references. *took*: what a kernel really took, where that was recorded.
    """
    host = mm.host
    host.drain()
    asks = host.rules.pageout_asks_references
    gone: list[int] = []
    errno: str | None = None
    recorded = None if took is None else set(took.tolist())
    for start, end in _runs(pages):
        for vma in list(mm.vmas.areas):
            low, high = max(start, vma.start), min(end, vma.end)
            if low >= high:
                continue
            if vma.flags & Vm.LOCKED:
                errno = "EINVAL"
                break
            for a, b in ranges_without_large(mm, low, high):
                _reclaim(mm, range(a, b), recorded, asks, gone)
    out = np.array(gone, dtype=np.int64)
    if len(out):
        slots = swap_pte(host.swap_slots(len(out)).astype(np.uint64))
        _unmap_to_swap(host.frames.reserve(0, 0, len(out) + 64), mm.arrays, out, slots)
    return PagedOut(out, errno)


def _runs(pages: Pages) -> list[tuple[int, int]]:
    cut = np.flatnonzero(np.diff(pages) != 1) + 1
    return [(int(p[0]), int(p[-1]) + 1) for p in np.split(pages, cut) if len(p)]


def _keep_huge(mm: Mm, block: int, asks: bool) -> None:
    """A huge page isolated by MADV_PAGEOUT and put back: old and inactive, referenced where a secondary MMU had used it."""
    f = mm.host.frames.arrays
    head = mm.folio(block * HPAGE)
    if head == HUGE_ZERO_PFN or not f.flags[head] & LRU or f.refcount[head + 1] != 1:
        return
    f.flags[head] &= ~(REFERENCED | YOUNG | ACTIVE)
    if asks:
        mm.arrays.pmd[block] &= ~ACCESSED
        if mm.notifiers.clear_flush_young(block * HPAGE, (block + 1) * HPAGE).any():
            f.flags[head] |= REFERENCED


def _reclaim(mm: Mm, pages: range, recorded: set[int] | None, asks: bool, gone: list[int]) -> None:
    """reclaim_pages: what goes is unmapped everywhere (the notifiers are told); what stays is put back, inactive."""
    for page in pages:
        pmd = mm.arrays.pmd[page >> 9]
        if pmd & PSE:
            if recorded is not None and page not in recorded:
                if page % HPAGE == 0:
                    _keep_huge(mm, page >> 9, asks)
                continue
            # Unmapped through PTEs (TTU_SPLIT_HUGE_PMD), then page by page; what went to swap as a whole was never split before.
            whole = recorded is not None and recorded.issuperset(range(page, page + HPAGE))
            split_huge(mm, page >> 9, remap=not whole)
        f = mm.host.frames.arrays
        if not can_swap(mm, page):
            continue
        pfn = mm.pfn(page)
        f.flags[pfn] &= ~(REFERENCED | YOUNG)
        young = False
        if asks:
            mm.arrays.pte[page] &= ~ACCESSED
            young = bool(mm.notifiers.clear_flush_young(page, page + 1)[0])
        dirty = mm.arrays.pte[page] & DIRTY or f.flags[pfn] & PAGE_DIRTY
        if not f.flags[pfn] & SWAPBACKED and dirty and not young:
            # Stored to since MADV_FREE: try_to_unmap_one discards it no longer, and keeps it this time.
            f.flags[pfn] |= SWAPBACKED
            kept = True
        else:
            kept = young if recorded is None else page not in recorded
        if not kept:
            mm.notifiers.invalidate_range(page, page + 1)
            gone.append(page)
        else:
            f.flags[pfn] &= ~ACTIVE
            if young:
                f.flags[pfn] |= REFERENCED
