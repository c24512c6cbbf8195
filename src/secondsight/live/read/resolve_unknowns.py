"""What the sums of smaps say about the accessed bits that procfs does not show."""

from __future__ import annotations

import numpy as np

from secondsight.bits import pageflags as kpf
from secondsight.bits import pte as bits
from secondsight.geometry import BLOCK_MASK, PAGE_SIZE
from secondsight.live.read.columns import Columns
from secondsight.live.read.vma import Vma


def resolve_accessed(columns: Columns, vmas: list[Vma]) -> None:
    """Make PRIMARY known where the sums of smaps, read *after* the columns, leave only one answer.

    smaps counts a page as Referenced if its PTE is young, PG_young or PG_referenced is set (``smaps_account``), which is what khugepaged
    asks of the CPU's side. Where a mapping's sum is no more than its PG_referenced pages, no other page of it can be young; where it
    is all that is resident, every page must be (PG_young, the accessed bit that idle tracking took off, counted with it).
    """
    for vma in vmas:
        low, high = np.searchsorted(columns.address, np.array([vma.start, vma.end], np.uint64)).tolist()
        # smaps leaves hugetlb's pages out of its sums (smaps_hugetlb_range).
        if "Referenced" not in vma.kb or "ht" in vma.flags or low == high:
            continue
        pmd, pte, known = columns.pmd[low:high], columns.pte[low:high], columns.pte_known[low:high]
        referenced = vma.kb["Referenced"]
        present = bits.pte_present(pte)
        marked = (columns.flags[low:high] & kpf.REFERENCED) != 0
        whole = vma.first_block == vma.start and vma.block_end == vma.end
        huge = bits.pmd_trans_huge(pmd)
        # A huge page counts with all of its pages; its flags stand with the first.
        pages = int(np.count_nonzero(marked)) + BLOCK_MASK * int(np.count_nonzero(marked[huge, 0]))
        if referenced in (0, vma.kb.get("Rss")):
            pmd[huge] |= bits.ACCESSED if referenced else bits.NONE
            known[huge, 0] = True
        if referenced == 0 or (whole and referenced <= 4 * pages):
            known |= ~marked & present
        elif referenced == vma.kb.get("Rss"):
            np.bitwise_or(pte, bits.ACCESSED, out=pte, where=present)
            known |= present


def resolve_swapped(columns: Columns, vmas: list[Vma]) -> None:
    """Call entries swap whose type was hidden, where smaps' sum leaves only that.

    smaps counts under Swap the pages that are in swap, and no marker, migration or poison entry (``smaps_pte_entry``). Where that sum is
    as much as a mapping's entries of unread kind, all of them are.
    """
    unread = bits.is_swap_pte(columns.pte) & ~columns.page_known
    if not unread.any():
        return
    for vma in vmas:
        low, high = np.searchsorted(columns.address, np.array([vma.start, vma.end], np.uint64)).tolist()
        mine = unread[low:high]
        count = int(np.count_nonzero(mine))
        if count and vma.anonymous and vma.kb.get("Swap", -1) << 10 == count * PAGE_SIZE:
            columns.page_known[low:high][mine] = True
