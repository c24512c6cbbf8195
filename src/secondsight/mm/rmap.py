"""Ageing: who clears young bits, and where they go (mm/rmap.c, mm/page_idle.c, mm/damon/vaddr.c).

age (page_idle)   every mapping old, primary and secondary (clear_young)      was young --> PG_young, not idle; then PG_idle
damon_mkold       this mapping old, primary and secondary (clear_young)       the same; the notifiers hear of the next page too
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from secondsight.bits.pte import ACCESSED, MAPPED, PFN_MASK, PSE
from secondsight.mm.page import (
    HPAGE,
    HUGE_ZERO_PFN,
    IDLE,
    LRU,
    TAIL,
    YOUNG,
    ZERO_PFN,
    folio_nr_pages,
)
from secondsight.mm.pgtable import PFN_SHIFT, pfn_of

if TYPE_CHECKING:
    from secondsight.mm.mm_struct import Mm, MmHost

Pages = npt.NDArray[np.int64]


def mappings(host: MmHost, pfn: int) -> list[tuple[Mm, int]]:
    """rmap_walk: every (mm, page) whose PTE maps the small page *pfn*."""
    out: list[tuple[Mm, int]] = []
    want = np.uint64(pfn) << PFN_SHIFT
    for mm in host.mms.values():
        pte = mm.arrays.pte
        pages = np.flatnonzero(((pte & PFN_MASK) == want) & ((pte & MAPPED) != 0))
        out.extend(
            (mm, int(p)) for p in pages if mm.arrays.pmd[p // HPAGE] and not mm.arrays.pmd[p // HPAGE] & PSE
        )
    return out


def _clear_young(mm: Mm, page: int, *, flush: bool) -> bool:
    """ptep_clear_young_notify (or _flush_): the primary bit and every notifier's."""
    young = bool(mm.arrays.pte[page] & ACCESSED)
    mm.arrays.pte[page] &= ~ACCESSED
    clear = mm.notifiers.clear_flush_young if flush else mm.notifiers.clear_young
    return bool(clear(page, page + 1)[0]) or young


def age(mm: Mm, pages: Pages) -> None:
    """Write these pages' bits to ``/sys/kernel/mm/page_idle/bitmap``: page_idle_clear_pte_refs, then PG_idle.

    A page off the LRU, or a tail of a large folio, is left alone; a large folio is aged through its head.
    """
    f = mm.host.frames.arrays
    for page in pages.tolist():
        pmd = mm.arrays.pmd[page // HPAGE]
        if pmd & PSE:
            if page % HPAGE == 0 and f.flags[int(pfn_of(pmd))] & LRU:
                head = int(pfn_of(pmd))
                young = bool(pmd & ACCESSED)
                mm.arrays.pmd[page // HPAGE] = pmd & ~ACCESSED
                if bool(mm.notifiers.clear_young(page, page + HPAGE).any()) or young:
                    f.flags[head] |= YOUNG
                f.flags[head] |= IDLE
            continue
        pfn = mm.pfn(page)
        # page_idle_get_folio takes no tail; through its head a folio is aged in all its pages.
        if pfn <= ZERO_PFN or f.flags[pfn] & TAIL or not f.flags[pfn] & LRU:
            continue
        young = False
        for each in range(pfn, pfn + int(folio_nr_pages(f, pfn))):
            alone = each == pfn and f.mapcount[pfn] == 1
            for owner, at in [(mm, page)] if alone else mappings(mm.host, each):
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
        pmd = mm.arrays.pmd[page // HPAGE]
        if folio <= ZERO_PFN or folio == HUGE_ZERO_PFN or not f.flags[folio] & LRU:
            continue
        if pmd & PSE:
            young = bool(pmd & ACCESSED)
            mm.arrays.pmd[page // HPAGE] = pmd & ~ACCESSED
            end = min(page + HPAGE + 1, mm.npages)
        else:
            young = bool(mm.arrays.pte[page] & ACCESSED)
            mm.arrays.pte[page] &= ~ACCESSED
            end = page + 2 if page + 1 in seen else page + 1
        if bool(mm.notifiers.clear_young(page, end).any()) or young:
            f.flags[folio] |= YOUNG
        f.flags[folio] |= IDLE
