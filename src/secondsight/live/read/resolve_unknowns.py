"""What the sums of smaps say about the accessed bits that procfs does not show."""

from __future__ import annotations

import numpy as np

from secondsight.bits import pageflags as kpf
from secondsight.bits import pte as bits
from secondsight.geometry import BLOCK_MASK, PAGE_SIZE
from secondsight.live.read.columns import Columns
from secondsight.live.read.vma import Vma

#: Mappings whose pages smaps leaves out of its sums: hugetlb's (smaps_hugetlb_range), and those that vm_normal_page takes for no memory.
_UNCOUNTED = frozenset({"ht", "io", "mm", "pf"})


def resolve_accessed(columns: Columns, vmas: list[Vma]) -> None:
    """Fill in what the sums of smaps, read *after* the columns, leave only one answer for.

    ::

        Referenced of a mapping                 every page that is resident        so PRIMARY    either
        0                                       none of the three bits is set      clear         no
        its PG_referenced pages, no more        so of every other page             clear         no
        Rss                                     one of the three bits is set       unknown       yes

    smaps counts a page as Referenced if its PTE is young, PG_young or PG_referenced is set (``smaps_account``, fs/proc/task_mmu.c), which
    is what khugepaged asks of the CPU's side. A page that is not counted has an accessed bit that is clear; one that is counted may owe it
    to PG_referenced, which read() and process_vm_readv set, or to PG_young, which kpageflags does not show: its accessed bit stays unknown.
    """
    for vma in vmas:
        low, high = np.searchsorted(columns.address, np.array([vma.start, vma.end], np.uint64)).tolist()
        if "Referenced" not in vma.kb or _UNCOUNTED & vma.flags or low == high:
            continue
        pmd, pte, known = columns.pmd[low:high], columns.pte[low:high], columns.pte_known[low:high]
        referenced = vma.kb["Referenced"]
        present = bits.pte_present(pte)
        marked = (columns.flags[low:high] & kpf.REFERENCED) != 0
        whole = vma.first_block == vma.start and vma.block_end == vma.end
        huge = bits.pmd_trans_huge(pmd)
        if referenced and referenced == vma.kb.get("Rss"):
            columns.either[low:high] |= present
            columns.either[low:high][huge, 0] = True
            continue
        # A huge page counts with all of its pages; its flags stand with the first.
        pages = int(np.count_nonzero(marked)) + BLOCK_MASK * int(np.count_nonzero(marked[huge, 0]))
        if referenced == 0:
            known[huge, 0] = True
        if referenced == 0 or (whole and referenced <= 4 * pages):
            known |= ~marked & present


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
