"""``collapse_huge_page``: one candidate (mm, start, order) is collapsed, or is left as it was.

::

    swap in ──▶ notifiers: invalidate the candidate ──▶ clear the PMD ──▶ isolate ──fails──▶ PMD back, pages back to the LRU
                                                                               ──passes─▶ copy, free the old pages, map the new folio

The new folio is young, and writable and dirty iff its area is writable (a huge PMD is dirty always); it is unreferenced, and the old
pages' flags are lost. Below the PMD order the page table is out of the way for the time of it, and comes back.

In compiled functions *f* is the frames (``page.FrameArrays``), *r* the rules and the host's set-up (``compiled.R``) and *m* an address
space (``pgtable.MmArrays``).
"""

from __future__ import annotations

import threading
from typing import NamedTuple

import numpy as np

from secondsight.bits.pte import DIRTY, MAPPED, PRESENT, PROTNONE, PSE, RW, USER
from secondsight.geometry import HPAGE_PMD_NR, PMD_ORDER
from secondsight.mm.anonymous import map_new_large, new_large, set_backing
from secondsight.mm.khugepaged.isolate import isolate
from secondsight.mm.khugepaged.result import ScanNumbers, ScanResult
from secondsight.mm.khugepaged.swapin import first_not_present, swap_in_block
from secondsight.mm.lru import folio_add_lru, munlock_folio
from secondsight.mm.observe import UnderClearedPmd
from secondsight.mm.page import (
    ACTIVE,
    HEAD,
    LRU,
    SWAPBACKED,
    SWAPCACHE,
    TAIL,
    UNEVICTABLE,
    ZERO_FILLED,
    ZERO_PFN,
    alloc_huge,
    head_of,
    map_pmd,
    put_page,
)
from secondsight.mm.pgtable import PFN_SHIFT, PROT, V_LOCKED, V_READ, V_WRITE, pfn_of, vma_bits
from secondsight.mm.protocols import MmLike
from secondsight.mm.swap import reuse_swap_page, unmap_anon
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
def _taken(f, r, head):  # type: ignore[no-untyped-def]
    """What isolate leaves of the flags of the folio at *head*, which it takes from the LRU (folio_isolate_lru)."""
    f.flags[head] &= ~LRU
    if r.mglru and f.flags[head] & SWAPBACKED and not f.flags[head] & UNEVICTABLE:
        # lru_gen_del_folio: it comes from one of the two youngest generations, where nothing here lets anonymous pages grow old.
        f.flags[head] |= ACTIVE


@native
def release_pte_folio(f, r, pfn):  # type: ignore[no-untyped-def]
    """What isolate took from the LRU goes back to it, through the batch."""
    _taken(f, r, pfn)
    folio_add_lru(f, r, pfn, False)


@native
def _putback_large(f, r, m, first, end, held):  # type: ignore[no-untyped-def]
    """folio_putback_lru of the large folios that isolate took from the pages *first* to *end*, in the order of compound_pagelist.

    Their PG_lru is clear since; putting one back sets it, since a large folio drains the batch. *held*: each has one reference too many.
    """
    for page in range(first, end):
        entry = m.pte[page]
        if not entry & MAPPED or pfn_of(entry) == ZERO_PFN:
            continue
        head = head_of(f, pfn_of(entry))
        if f.flags[head] & HEAD and not f.flags[head] & LRU:
            folio_add_lru(f, r, head, False)
            if held:
                put_page(f, head)


@native
def _reuse_swap_pages(f, m, first, end):  # type: ignore[no-untyped-def]
    """What isolate has asked for each read-only page of the swap cache from *first* to *end* (reuse_swap_page): it has left the cache."""
    for page in range(first, end):
        entry = m.pte[page]
        if not entry & MAPPED or entry & RW or pfn_of(entry) == ZERO_PFN:
            continue
        if f.flags[head_of(f, pfn_of(entry))] & SWAPCACHE:
            reuse_swap_page(f, m, pfn_of(entry))


@native
def release_pte_pages(f, r, m, first, stopped):  # type: ignore[no-untyped-def]
    """After a failed isolate the pages *first* to *stopped* go back to the LRU: small ones, the last first, and then large folios."""
    for page in range(stopped - 1, first - 1, -1):
        entry = m.pte[page]
        if not entry & MAPPED or pfn_of(entry) == ZERO_PFN:
            continue
        pfn = pfn_of(entry)
        if f.flags[pfn] & (HEAD | TAIL):
            if f.flags[head_of(f, pfn)] & LRU:
                _taken(f, r, head_of(f, pfn))
        else:
            release_pte_folio(f, r, pfn)
    _putback_large(f, r, m, first, stopped, False)


@native
def _copy_succeeded(f, r, m, first, pages, empty):  # type: ignore[no-untyped-def]
    """__collapse_huge_page_copy_succeeded: the old pages are unmapped, and freed if nobody else has them. Into *empty* bool[pages] goes
    which of them hold nothing but zeroes.

    Each page goes back to the LRU before it is unmapped: one that another process maps stays there.
    """
    bits = vma_bits(m, first)
    for i in range(pages):
        entry = m.pte[first + i]
        empty[i] = True
        if not entry & MAPPED or pfn_of(entry) == ZERO_PFN:
            continue
        pfn = pfn_of(entry)
        empty[i] = f.flags[pfn] & ZERO_FILLED != 0
        head = np.int64(head_of(f, pfn))
        if not f.flags[pfn] & (HEAD | TAIL):
            release_pte_folio(f, r, pfn)
        elif f.flags[head] & LRU:
            # The reference of folio_isolate_lru: unmapping does not free what is yet to be put back.
            _taken(f, r, head)
            f.refcount[head] += 1
        if bits & V_LOCKED and r.mlock_batched:
            munlock_folio(f, r, pfn)
        unmap_anon(f, m, pfn)
    _putback_large(f, r, m, first, first + pages, True)
    for page in range(first, first + pages):
        m.pte[page] = 0


@native
def _map_pmd(f, r, m, block, active):  # type: ignore[no-untyped-def]
    """map_anon_folio_pmd_nopf: one huge page takes the block; returns its head."""
    head = alloc_huge(f)
    bits = vma_bits(m, block * HPAGE_PMD_NR)
    if active:
        f.flags[head] |= ACTIVE
    new_large(f, r, head, bits, False)
    set_backing(f, m, head)
    map_pmd(f, head)
    put_page(f, head)
    prot = PROT | PSE | DIRTY
    if bits & V_WRITE:
        prot |= RW
    if not bits & V_READ:
        prot = (prot & ~(PRESENT | USER)) | PROTNONE
    m.pmd[block] = (np.uint64(head) << PFN_SHIFT) | prot
    return head


@native
def _map_ptes(f, r, m, first, order):  # type: ignore[no-untyped-def]
    """pmd_populate and map_anon_folio_pte_nopf: the page table comes back with a folio of *order* in it; returns its head."""
    head = map_new_large(f, r, m, first, order, False)
    if not vma_bits(m, first) & V_READ:
        for page in range(first, first + (1 << order)):
            m.pte[page] = (m.pte[page] & ~(PRESENT | USER)) | PROTNONE
    return head


@native
def _collapsed(f, r, m, candidate, active, empty):  # type: ignore[no-untyped-def]
    """What follows an isolate of *candidate* = (block, first page in it, order) that passed; returns the new folio's head."""
    block, offset, order = candidate
    first = block * HPAGE_PMD_NR + offset
    _copy_succeeded(f, r, m, first, 1 << order, empty)
    if order == PMD_ORDER:
        head = np.int64(_map_pmd(f, r, m, block, active))
    else:
        head = np.int64(_map_ptes(f, r, m, first, order))
    for i in range(1 << order):
        if empty[i]:
            f.flags[head + i] |= ZERO_FILLED
        else:
            f.flags[head + i] &= ~ZERO_FILLED
    return head


class _Local(threading.local):
    """The view under the cleared PMD, one a thread: its columns are used again by every attempt; and which of its pages are empty."""

    def __init__(self) -> None:
        self.view = UnderClearedPmd()
        self.empty = np.zeros(HPAGE_PMD_NR, np.bool_)


_LOCAL = _Local()


def collapse_huge_page(
    mm: MmLike, block: int, *, khugepaged: bool, unmapped: int, order: int = PMD_ORDER, offset: int = 0
) -> Attempt:
    """Collapse the candidate of *order* at page *offset* of *block*, whose scan has passed and counted *unmapped* entries that are not
    present.

    Its pages are one folio iff the status is SUCCEED. An allocation that may fail is the caller's question: it comes before all else here.
    """
    host = mm.host
    pages, first = 1 << order, block * HPAGE_PMD_NR + offset
    # What comes back from swap may be large folios.
    parts = pages if order != PMD_ORDER else HPAGE_PMD_NR if unmapped else 0
    f = host.frames.reserve(2 * HPAGE_PMD_NR, 2, 4 * HPAGE_PMD_NR, parts)
    swapped = None
    if unmapped:
        # Under the mmap lock for reading (7.3 line 1327). Below the PMD order the first entry that is not present ends it (line 1203).
        if order != PMD_ORDER and first_not_present(mm.arrays, first, first + pages) >= 0:
            return Attempt(order, offset, ScanResult.EXCEED_SWAP_PTE, 0, None)
        swapped = int(swap_in_block(f, host.r, mm.arrays, block)) if order == PMD_ORDER else 0
        if swapped < 0:
            return Attempt(order, offset, ScanResult.FAIL, -1 - swapped, None)
    # The candidate alone is invalidated, though the whole page table is out of the way (7.3 lines 1369 and 1382).
    mm.notifiers.invalidate_range(first, first + pages)
    f = host.frames.reserve(HPAGE_PMD_NR, 2, 4 * HPAGE_PMD_NR, parts)
    # The PMD is clear and the mmap lock held for writing: nobody can map a page in again, so no secondary MMU can answer young.
    seen = _LOCAL.view.look(mm, block, offset, offset + pages)
    isolated = isolate(seen, host.config.knobs, host.rules, khugepaged=khugepaged, order=order, offset=offset)
    status = ScanResult(int(isolated.code[0]))
    if host.rules.isolate_reuses_swap_page:
        # Of the page at which it stopped, too, where that could not be taken off the LRU: that is tried last.
        asked = min(int(isolated.stopped[0]) + (status == ScanResult.DEL_PAGE_LRU), offset + pages) - offset
        _reuse_swap_pages(f, mm.arrays, first, first + asked)
    if status != ScanResult.SUCCEED:
        # pmd_populate: the page table is back as it was (7.3 line 1404).
        taken = min(int(isolated.stopped[0]), offset + pages) - offset
        release_pte_pages(f, host.r, mm.arrays, first, first + taken)
        return Attempt(order, offset, status, swapped, isolated)
    values = [host.content.get(mm.pfn(first + i)) for i in range(pages)] if host.content else []
    candidate = (block, offset, order)
    head = int(_collapsed(f, host.r, mm.arrays, candidate, host.rules.huge_folio_active, _LOCAL.empty))
    for i, value in enumerate(values):
        host.content.pop(head + i, None)
        if value is not None:
            host.content[head + i] = value
    return Attempt(order, offset, status, swapped, isolated)
