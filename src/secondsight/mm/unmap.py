"""Unmapping: of private memory (zap_pte_range, zap_huge_pmd), and what madvise, fork, exit and mremap share of it (mm/memory.c).

In compiled functions *f* is the frames (``page.FrameArrays``), *r* the rules and the host's set-up (``compiled.R``) and *m* an address
space (``pgtable.MmArrays``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from secondsight.bits.pte import MAPPED, PSE
from secondsight.geometry import PMD_ORDER
from secondsight.mm.filemap import zap_shared
from secondsight.mm.huge_memory import split_block_pmd
from secondsight.mm.lru import lru_add_drain, munlock_folio, munlock_huge
from secondsight.mm.page import HPAGE, HUGE_ZERO_PFN, ZERO_PFN, unmap_pmd
from secondsight.mm.pgtable import V_LOCKED, pfn_of, vma_bits
from secondsight.mm.swap import free_swap_entry, is_swap, unmap_anon
from secondsight.native import native

if TYPE_CHECKING:
    from secondsight.mm.mm_struct import Mm


@native
def zap_page_range(f, r, m, start, end, drops_markers):  # type: ignore[no-untyped-def]
    """Unmap pages *start* to *end*; a huge PMD lies wholly inside (the caller split others). Page tables stay, and markers without
    *drops_markers*."""
    page = start
    while page < end:
        block = page >> PMD_ORDER
        pmd = m.pmd[block]
        if pmd & PSE:
            if pfn_of(pmd) != HUGE_ZERO_PFN:
                if vma_bits(m, page) & V_LOCKED:
                    munlock_huge(f, r, pfn_of(pmd))
                unmap_pmd(f, pfn_of(pmd))
            m.pmd[block] = 0
            page = (block + 1) * HPAGE
            continue
        entry = m.pte[page]
        if pmd and entry:
            if not entry & MAPPED:
                # A marker stays unless the area goes (zap_drop_markers).
                if not is_swap(entry) and not drops_markers:
                    page += 1
                    continue
                free_swap_entry(f, m, entry)
            elif pfn_of(entry) != ZERO_PFN:
                if vma_bits(m, page) & V_LOCKED and r.mlock_batched:
                    munlock_folio(f, r, pfn_of(entry))
                unmap_anon(f, m, pfn_of(entry))
            m.pte[page] = 0
        page += 1


def split_edges(mm: Mm, start: int, end: int) -> None:
    """Split the huge PMDs that pages *start* to *end* cut in part."""
    for edge in (start, end):
        if edge % HPAGE and edge < mm.npages:
            split_block_pmd(mm, edge // HPAGE)


def unmap(mm: Mm, start: int, end: int, *, drops_markers: bool = True) -> None:
    """zap_page_range_single: drain the LRU, tell the notifiers, unmap; markers too, if *drops_markers*."""
    split_edges(mm, start, end)
    host = mm.host
    f = host.frames.reserve(0, 0, end - start + 1024)
    lru_add_drain(f, host.r)
    mm.notifiers.invalidate_range(start, end)
    f = host.frames.reserve(0, 0, end - start + 1024)
    if mm.memory is not None:
        zap_shared(f, host.r, mm.arrays, start, end)
    else:
        zap_page_range(f, host.r, mm.arrays, start, end, drops_markers)
