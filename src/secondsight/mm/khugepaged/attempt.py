"""``collapse_huge_page``: one candidate (mm, start, order) is collapsed, or is left as it was.

::

    swap in ──▶ notifiers: invalidate the candidate ──▶ clear the PMD ──▶ isolate ──fails──▶ PMD back, pages back to the LRU
                                                                               ──passes─▶ copy, free the old pages, map the new folio

The new folio is young and dirty, and writable iff its area is; it is unreferenced, and the old pages' flags are lost.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

import numpy as np

from secondsight.bits.pte import DIRTY, MAPPED, PRESENT, PROTNONE, PSE, RW, USER
from secondsight.geometry import HPAGE_PMD_NR, PMD_ORDER
from secondsight.mm.khugepaged.isolate import isolate
from secondsight.mm.khugepaged.result import ScanNumbers, ScanResult
from secondsight.mm.khugepaged.swapin import swap_in_block
from secondsight.mm.lru import folio_add_lru, munlock_folio
from secondsight.mm.memory import PFN_SHIFT, PROT, V_LOCKED, V_READ, V_WRITE, new_large, pfn_of, vma_bits
from secondsight.mm.observe import UnderClearedPmd
from secondsight.mm.page import (
    ACTIVE,
    HEAD,
    LRU,
    SWAPBACKED,
    TAIL,
    UNEVICTABLE,
    ZERO_FILLED,
    ZERO_PFN,
    alloc_huge,
    head_of,
    map_pmd,
    put_page,
    unmap_pte,
)
from secondsight.mm.protocols import MmLike
from secondsight.native import native


class Attempt(NamedTuple):
    """One call of collapse_huge_page: the candidate (its order, and its first page in the block) and how it ended.

    swapped_in: pages that came back from swap; None: none was out, and nobody looked. isolate: one row; None: it did not get that far.
    """

    order: int
    offset: int
    status: ScanResult
    swapped_in: int | None
    isolate: ScanNumbers | None


@native
def _release_pte_folio(f, r, pfn):  # type: ignore[no-untyped-def]
    """What isolate took from the LRU goes back to it, through the batch."""
    f.flags[pfn] &= ~LRU
    if r.mglru and f.flags[pfn] & SWAPBACKED and not f.flags[pfn] & UNEVICTABLE:
        # lru_gen_del_folio: it comes from one of the two youngest generations, where nothing here lets anonymous pages grow old.
        f.flags[pfn] |= ACTIVE
    folio_add_lru(f, r, pfn, False)


@native
def release_pte_pages(f, r, m, first, stopped):  # type: ignore[no-untyped-def]
    """After a failed isolate the pages *first* to *stopped* go back to the LRU: small ones, the last first, and then large folios."""
    for page in range(stopped - 1, first - 1, -1):
        entry = m.pte[page]
        if not entry & MAPPED or pfn_of(entry) == ZERO_PFN:
            continue
        pfn = pfn_of(entry)
        if not f.flags[pfn] & (HEAD | TAIL):
            _release_pte_folio(f, r, pfn)
    last = np.int64(-1)
    for page in range(first, stopped):
        entry = m.pte[page]
        if entry & MAPPED and pfn_of(entry) != ZERO_PFN:
            head = head_of(f, pfn_of(entry))
            if f.flags[head] & HEAD and head != last:
                f.flags[head] &= ~LRU
                folio_add_lru(f, r, head, False)
                last = head


@native
def _let_go(f, r, large):  # type: ignore[no-untyped-def]
    """folio_putback_lru of a large folio that isolate held, if there is one (*large* >= 0)."""
    if large >= 0:
        f.flags[large] &= ~LRU
        folio_add_lru(f, r, large, False)
        put_page(f, large)


@native
def _copy_and_map(f, r, m, block, active):  # type: ignore[no-untyped-def]
    """__collapse_huge_page_copy and what follows: the small pages give way to one huge page; returns its head pfn.

    Each page goes back to the LRU before it is unmapped (__collapse_huge_page_copy_succeeded): one that another process maps stays there.
    """
    first = block * HPAGE_PMD_NR
    head = alloc_huge(f)
    bits = vma_bits(m, first)
    large = np.int64(-1)
    for i in range(HPAGE_PMD_NR):
        entry = m.pte[first + i]
        if entry & MAPPED and pfn_of(entry) != ZERO_PFN:
            pfn = pfn_of(entry)
            f.flags[head + i] |= f.flags[pfn] & ZERO_FILLED
            if not f.flags[pfn] & (HEAD | TAIL):
                _release_pte_folio(f, r, pfn)
            elif head_of(f, pfn) != large:
                _let_go(f, r, large)
                large = np.int64(head_of(f, pfn))
                f.refcount[large] += 1
            if bits & V_LOCKED:
                munlock_folio(f, r, pfn)
            unmap_pte(f, pfn)
        else:
            f.flags[head + i] |= ZERO_FILLED
        m.pte[first + i] = 0
    _let_go(f, r, large)
    if active:
        f.flags[head] |= ACTIVE
    new_large(f, r, head, bits, False)
    map_pmd(f, head)
    put_page(f, head)
    prot = PROT | PSE | DIRTY
    if bits & V_WRITE:
        prot |= RW
    if not bits & V_READ:
        prot = (prot & ~(PRESENT | USER)) | PROTNONE
    m.pmd[block] = (np.uint64(head) << PFN_SHIFT) | prot
    return head


class _Local(threading.local):
    """The view under the cleared PMD, one a thread: its columns are used again by every attempt."""

    def __init__(self) -> None:
        self.view = UnderClearedPmd()


_LOCAL = _Local()


def collapse_huge_page(mm: MmLike, block: int, *, khugepaged: bool, unmapped: int) -> Attempt:
    """Collapse *block*, whose scan has passed and counted *unmapped* entries that are not present.

    The block is huge iff the status is SUCCEED. An allocation that may fail is the caller's question: it comes before all else here.
    """
    host = mm.host
    f = host.frames.reserve(2 * HPAGE_PMD_NR, 2, 4 * HPAGE_PMD_NR)
    # Under the mmap lock for reading (7.3 line 1327).
    swapped = int(swap_in_block(f, host.r, mm.arrays, block)) if unmapped else None
    first = block * HPAGE_PMD_NR
    # mmu_notifier_invalidate_range_start, then pmdp_collapse_flush (7.3 lines 1371, 1382).
    mm.notifiers.invalidate_range(first, first + HPAGE_PMD_NR)
    f = host.frames.reserve(HPAGE_PMD_NR, 2, 4 * HPAGE_PMD_NR)
    # The PMD is clear and the mmap lock held for writing: nobody can map a page in again, so no secondary MMU can answer young.
    seen = _LOCAL.view.look(mm, block)
    found = isolate(seen, host.config.knobs, host.rules, khugepaged=khugepaged)
    status = ScanResult(int(found.code[0]))
    if status == ScanResult.SUCCEED:
        old = [int(p) for p in seen.folio[0]] if host.content else []
        head = int(_copy_and_map(f, host.r, mm.arrays, block, host.rules.huge_folio_active))
        for i, pfn in enumerate(old):
            if pfn in host.content:
                host.content[head + i] = host.content[pfn]
    else:
        release_pte_pages(f, host.r, mm.arrays, first, first + int(found.stopped[0]))
    return Attempt(PMD_ORDER, 0, status, swapped, found)
