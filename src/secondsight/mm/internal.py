"""How much of a large folio a process's PTEs map, and how (mm/internal.h folio_pte_batch; include/linux/mm.h folio_maybe_mapped_shared).

A folio's pages are mapped in one block, each as far from the next as in the folio: fork keeps addresses, and mremap brings them back.

In compiled functions *f* is the frames (``page.FrameArrays``) and *m* an address space (``pgtable.MmArrays``).
"""

from __future__ import annotations

from secondsight.bits.pte import ACCESSED, DIRTY, MAPPED, PFN_MASK, RW
from secondsight.mm.page import HEAD, TAIL, folio_mapcount, folio_nr_pages, head_of
from secondsight.mm.pgtable import pfn_of
from secondsight.native import native

#: What two PTEs of a batch may differ in: whether they were used, or (without FPB_RESPECT_WRITE) whether they are writable too.
USE = ACCESSED | DIRTY
USE_AND_WRITE = USE | RW


@native
def folio_pte_batch(f, m, page, end, ignored):  # type: ignore[no-untyped-def]
    """How many PTEs from *page* on, before *end*, map the following pages of its large folio and are equal but for the bits *ignored*; and
    the accessed and dirty bits of them all."""
    entry = m.pte[page]
    pfn = pfn_of(entry)
    used = entry & USE
    n = 1
    if f.flags[pfn] & (HEAD | TAIL):
        head = head_of(f, pfn)
        most = min(head + folio_nr_pages(f, head) - pfn, end - page)
        expected = entry & ~(ignored | PFN_MASK)
        while n < most:
            entry = m.pte[page + n]
            if entry & ~(ignored | PFN_MASK) != expected or pfn_of(entry) != pfn + n:
                break
            used |= entry & USE
            n += 1
    return n, used


@native
def ptes_of_folio(f, m, page):  # type: ignore[no-untyped-def]
    """How many PTEs of the process map pages of the folio that the PTE at *page* maps a page of."""
    pfn = pfn_of(m.pte[page])
    head = head_of(f, pfn)
    start = page - (pfn - head)
    here = 0
    for other in range(start, start + folio_nr_pages(f, head)):
        if m.pte[other] & MAPPED and pfn_of(m.pte[other]) == head + other - start:
            here += 1
    return here


@native
def maybe_mapped_shared(f, m, page, by_mm):  # type: ignore[no-untyped-def]
    """Does the large folio that *page* maps by a PTE count as shared?

    folio_likely_mapped_shared (6.10): its first page speaks for it; *by_mm*: folio_maybe_mapped_shared (6.15), some of its mappings are
    not this process's. A single mapping is exclusive in both.
    """
    head = head_of(f, pfn_of(m.pte[page]))
    maps = folio_mapcount(f, head)
    if maps <= 1:
        return False
    if by_mm:
        return ptes_of_folio(f, m, page) != maps
    return f.refcount[head + 1] > 0 or maps > folio_nr_pages(f, head) or f.mapcount[head] > 1
