"""Whose areas a walk over an anonymous folio's mappings visits (mm/rmap.c rmap_walk_anon), as far as notifiers hear of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from secondsight.bits.pte import MAPPED, PFN_MASK, PSE
from secondsight.geometry import HPAGE_PMD_NR
from secondsight.mm.page import EXCLUSIVE
from secondsight.mm.pgtable import PFN_SHIFT, pfn_of
from secondsight.mm.protocols import MmLike

__all__ = ["invalidate_folio", "mapped_pages"]


def mapped_pages(mm: MmLike, start: int, head: int, pages: int) -> npt.NDArray[np.int64]:
    """Those of *pages* pages of one block from *start* on whose PTEs map the frames from *head* on; none where a PMD does."""
    if mm.arrays.pmd[start // HPAGE_PMD_NR] & PSE:
        return np.zeros(0, np.int64)
    pte = mm.arrays.pte[start : start + pages]
    pfns = ((pte & PFN_MASK) >> PFN_SHIFT).astype(np.int64)
    return start + np.flatnonzero((pfns >= head) & (pfns < head + pages) & ((pte & MAPPED) != 0))


def invalidate_folio(
    mms: Sequence[MmLike], start: int, pages: int, head: int, *, splits: bool = False
) -> None:
    """What notifiers hear when the folio at *head*, which *mms* map at some of the *pages* pages from *start* on, is unmapped or split.

    try_to_unmap_one and try_to_migrate_one tell of the folio's place in each area that rmap_walk_anon visits, before they look what
    is mapped there (since 4.14, 369ea8242c0f). The walk ends with the last area that maps some of the folio (rmap_walk_control.done,
    folio_not_mapped). An inherited folio's anon_vma has the areas of those that it was inherited from too, until
    a store makes it the process's own (folio_move_anon_rmap; not from 5.8 to 5.17, 09854ba94c6a). Of a process that has forked itself it
    is not known here which folios it inherited: there nobody else hears.

    *splits*: a folio of PMD size is about to be split, and so, whether a PMD maps it or not, up to 6.15 is each area's block.
    """
    by_block = splits and pages == HPAGE_PMD_NR and mms[0].host.rules.split_tells_block
    places = [(mm, vma, low, high) for mm in mms for vma, low, high in mm.vmas.within(start, start + pages)]
    last = max(vma.visited for mm, vma, low, high in places if _maps(mm, low, high, head, pages))
    for mm, vma, low, high in places:
        if vma.anon_vma and vma.visited <= last:
            _tell(mm, low, high, by_block)
    for mm in mms:
        _tell_ancestors(mm, start, pages, head, last, by_block)


def _tell(mm: MmLike, low: int, high: int, by_block: bool) -> None:
    """The pages from *low* to *high*, or where there is a page table their whole block, are gone for notifiers (split_huge_pmd_address)."""
    block = low // HPAGE_PMD_NR
    if by_block and mm.arrays.pmd[block]:
        low, high = block * HPAGE_PMD_NR, (block + 1) * HPAGE_PMD_NR
    mm.notifiers.invalidate_range(low, high)


def _tell_ancestors(
    mm: MmLike, start: int, pages: int, head: int, last: tuple[int, int], by_block: bool
) -> None:
    rules = mm.host.rules
    if not mm.ancestors or mm.has_forked or not (rules.anon_exclusive or rules.wp_counts_references):
        return
    if (mm.host.frames.arrays.flags[head : head + pages] & EXCLUSIVE).any():
        return
    for other in mm.ancestors:
        if not other.exited:
            for vma, low, high in other.vmas.within(start, start + pages):
                if vma.anon_vma and vma.visited < last:
                    _tell(other, low, high, by_block)


def _maps(mm: MmLike, low: int, high: int, head: int, pages: int) -> bool:
    """Whether the pages from *low* to *high* map some of the *pages* frames from *head* on."""
    pmd = mm.arrays.pmd[low // HPAGE_PMD_NR]
    if pmd & PSE:
        return int(pfn_of(pmd)) == head
    mapped = mapped_pages(mm, low, head, pages)
    return bool((mapped < high).any())
