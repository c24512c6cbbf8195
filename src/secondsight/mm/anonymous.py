"""New anonymous pages, small, large and huge, and the faults that make them where nothing is mapped (mm/memory.c, mm/huge_memory.c).

read     the zero page; the huge zero page, where the block may be huge and has no page table
write    a new page; a folio of the largest size that is switched on and fits its area and the empty entries round it; a huge page

In compiled functions *f* is the frames (``page.FrameArrays``), *r* the rules and the host's set-up (``compiled.R``) and *m* an address
space (``pgtable.MmArrays``).
"""

from __future__ import annotations

import numpy as np

from secondsight.bits.pte import DIRTY, PSE, RW
from secondsight.geometry import MIN_ANON_ORDER, PMD_ORDER
from secondsight.mm import page as pg
from secondsight.mm.lru import folio_add_lru, mlock_new_folio
from secondsight.mm.page import (
    EXCLUSIVE,
    HPAGE,
    NEW_ANON,
    SWAPBACKED,
    ZERO_FILLED,
    alloc_folio,
    alloc_huge,
    alloc_page,
    map_pmd,
    map_pte,
    put_page,
)
from secondsight.mm.pgtable import (
    DROPPABLE,
    FAULTS,
    HUGE_FAULTS,
    HUGE_ZERO_PMD,
    PFN_SHIFT,
    PROT,
    V_ADVISED,
    V_LOCKED,
    V_MIXED,
    V_NEVER_HUGE,
    V_START,
    V_WRITE,
    ZERO_PTE,
    vma_bits,
)
from secondsight.native import merged, native


@merged
def new_anon(f, r, bits, in_fault):  # type: ignore[no-untyped-def]
    """A new anonymous page on its way to the LRU (folio_add_new_anon_rmap, folio_add_lru_vma); refcount 1, not yet mapped."""
    pfn = alloc_page(f)
    flags = NEW_ANON
    if r.new_anon_active:
        flags |= pg.ACTIVE
    if bits & V_LOCKED:
        f.flags[pfn] = flags & ~pg.ACTIVE
        mlock_new_folio(f, r, pfn)
    else:
        f.flags[pfn] = flags
        folio_add_lru(f, r, pfn, in_fault)
    return pfn


@native
def set_backing(f, m, pfn):  # type: ignore[no-untyped-def]
    """folio_add_new_anon_rmap (6.11): the new folio at *pfn* is swap-backed, unless its area is droppable."""
    if m.n[DROPPABLE]:
        f.flags[pfn] &= ~SWAPBACKED


@native
def install(f, m, page, pfn, prot):  # type: ignore[no-untyped-def]
    """Map a new page whose one reference the caller holds: the reference becomes the mapping's."""
    set_backing(f, m, pfn)
    f.mapcount[pfn] += 1
    m.pte[page] = (np.uint64(pfn) << PFN_SHIFT) | prot


@native
def huge_fault(f, r, m, block, write):  # type: ignore[no-untyped-def]
    """do_huge_pmd_anonymous_page: the huge zero page for a read, a new zeroed huge page for a write."""
    m.n[HUGE_FAULTS] += 1
    if not write and r.use_zero_page:
        m.pmd[block] = HUGE_ZERO_PMD
        return
    head = alloc_huge(f)
    new_large(f, r, head, m.vma[block], True)
    set_backing(f, m, head)
    for i in range(head, head + HPAGE):
        f.flags[i] |= ZERO_FILLED
    map_pmd(f, head)
    put_page(f, head)
    m.pmd[block] = (np.uint64(head) << PFN_SHIFT) | PROT | PSE | DIRTY
    if write or m.vma[block] & V_WRITE:
        m.pmd[block] |= RW


@native
def new_large(f, r, head, bits, in_fault):  # type: ignore[no-untyped-def]
    """Flags and LRU of a new large anonymous folio (refcount 1 held by the caller)."""
    f.flags[head] |= NEW_ANON
    if r.new_anon_active:
        f.flags[head] |= pg.ACTIVE
    if bits & V_LOCKED:
        f.flags[head] &= ~pg.ACTIVE
        mlock_new_folio(f, r, head)
    else:
        folio_add_lru(f, r, head, in_fault)


@native
def do_anonymous_page(f, r, m, page, write):  # type: ignore[no-untyped-def]
    """Nothing is mapped here: the zero page for a read, a new page or a folio of several for a write."""
    m.n[FAULTS] += 1
    bits = vma_bits(m, page)
    if not write:
        m.pte[page] = ZERO_PTE
        return
    order = fault_order(r, m, page, bits)
    if order:
        map_new_large(f, r, m, (page >> order) << order, order, True)
        return
    pfn = new_anon(f, r, bits, True)
    install(f, m, page, pfn, PROT | DIRTY | RW)


@native
def fault_order(r, m, page, bits):  # type: ignore[no-untyped-def]
    """alloc_anon_folio: the largest enabled order below the PMD's whose aligned range round *page* lies in its area and is empty; 0: none.

    Memory is assumed to be there for the first that fits.
    """
    orders = r.orders_advised if bits & V_ADVISED else r.orders_plain
    if not orders or bits & V_NEVER_HUGE:
        return 0
    mixed = m.vma[page >> PMD_ORDER] & V_MIXED
    for order in range(PMD_ORDER - 1, MIN_ANON_ORDER - 1, -1):
        if not orders >> order & 1:
            continue
        first = (page >> order) << order
        fits = True
        for other in range(first, first + (1 << order)):
            if m.pte[other] != 0 or (mixed and other > first and m.vma_page[other] & V_START):
                fits = False
                break
        if fits:
            return order
    return 0


@native
def map_new_large(f, r, m, first, order, in_fault):  # type: ignore[no-untyped-def]
    """map_anon_folio_pte_pf, map_anon_folio_pte_nopf: a new folio of *order*, mapped from page *first* on; all its PTEs are alike.

    Returns its head. Its pages are zero-filled until somebody stores.
    """
    head = alloc_folio(f, order)
    bits = vma_bits(m, first)
    new_large(f, r, head, bits, in_fault)
    set_backing(f, m, head)
    prot = PROT | DIRTY if bits & V_WRITE else PROT
    prot |= RW if bits & V_WRITE else np.uint64(0)
    for i in range(1 << order):
        f.flags[head + i] |= ZERO_FILLED | EXCLUSIVE
        map_pte(f, head + i)
        m.pte[first + i] = (np.uint64(head + i) << PFN_SHIFT) | prot
    put_page(f, head)
    return head
