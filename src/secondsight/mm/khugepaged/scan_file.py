"""``collapse_scan_file``: may khugepaged collapse this block of the page cache? (mm/khugepaged.c; hpage_collapse_scan_file up to 6.18.)

Nobody is asked whether a page is young here. The kernel says why at the place: "We probably should check if the folio is referenced
here, but nobody would transfer pte_young() to folio_test_referenced() for us. And rmap walk here is just too costly..." So what a guest
last used hours ago is collapsed like what it uses now: the opposite of the anonymous scan, which refuses what only a guest uses.

Nor is ``max_ptes_shared`` asked: memory that is shared is what this is about. ``max_ptes_swap`` is, entry by entry; ``max_ptes_none`` is
at the end, and counts what is in swap as none. MADV_COLLAPSE has neither limit. What is looked at is the cache alone: whether the process
maps any of it, by what, or has a page table at all, is no matter.
"""

from __future__ import annotations

from typing import NamedTuple

from secondsight.geometry import HPAGE_PMD_NR, PMD_ORDER
from secondsight.mm.filemap import ABSENT, swap_order
from secondsight.mm.khugepaged.collapse_file import CollapseFile, collapse_file
from secondsight.mm.khugepaged.limits import CollapseControl, collapse_max_ptes_none, collapse_max_ptes_swap
from secondsight.mm.khugepaged.result import ScanResult
from secondsight.mm.page import HEAD, LRU, PRIVATE, folio_mapcount, folio_nr_pages, folio_order, head_of
from secondsight.mm.protocols import MmLike


class ScanFile(NamedTuple):
    """What ``mm_khugepaged_scan_file`` says of a block: the final *result*; *present* and *swap*, the pages that were counted;
    *names_page*: its scan_pfn is a page's (the one that ended the scan); and the *collapse* that followed, if the scan passed."""

    result: ScanResult
    present: int
    swap: int
    names_page: bool
    collapse: CollapseFile | None


def scan_file(mm: MmLike, block: int, cc: CollapseControl) -> ScanFile:
    """Scan the block of the page cache that *mm* maps at its *block*, and collapse it if it passes.

    Numbers of lines are those of Debian's 7.3.4, where no other kernel is named.
    """
    memory, rules = mm.memory, mm.host.rules
    assert memory is not None
    f = mm.host.frames.arrays
    start = (mm.memory_block + block) * HPAGE_PMD_NR
    cache = memory.cache
    present = swap = 0
    index = start
    while index < start + HPAGE_PMD_NR:
        pfn = int(cache[index])
        index += 1
        if pfn == ABSENT:
            continue
        # Too many pages in swap. xa_is_value, max_ptes_swap. The tracepoint of 6.1 takes the entry for a page (7.3 line 2706).
        if pfn < 0:
            swap += 1 << int(swap_order(pfn))
            index += (1 << int(swap_order(pfn))) - 1
            if swap > collapse_max_ptes_swap(cc, PMD_ORDER):
                return ScanFile(ScanResult.EXCEED_SWAP_PTE, present, swap, rules.file_scan_names_entry, None)
            continue
        head = int(head_of(f, pfn))
        pages = int(folio_nr_pages(f, head))
        # Huge already, maybe PMD-mapped: the caller sees to the page table (7.3 line 2727).
        if f.flags[head] & HEAD and folio_order(f, head) == PMD_ORDER:
            return ScanFile(ScanResult.PTE_MAPPED_HUGEPAGE, present, swap, True, None)
        # Off the LRU: it waits in a batch, or somebody has isolated it. folio_test_lru (7.3 line 2747).
        if not f.flags[head] & LRU:
            return ScanFile(ScanResult.PAGE_LRU, present, swap, True, None)
        # Somebody beside the cache, its mappings and a file's buffer heads holds it. folio_expected_ref_count (7.3 line 2754).
        expected = int(folio_mapcount(f, head)) + pages + bool(f.flags[head] & PRIVATE)
        if int(f.refcount[head]) != expected:
            return ScanFile(ScanResult.PAGE_COUNT, present, swap, True, None)
        # Here the anonymous scan asks whether the page is in use. This one does not (7.3 lines 2762-2767).
        present += pages
        index += pages - 1
    # Too many pages that are not in memory: what is in swap counts too. max_ptes_none (7.3 line 2783).
    if present < HPAGE_PMD_NR - collapse_max_ptes_none(cc, False, PMD_ORDER):
        return ScanFile(ScanResult.EXCEED_NONE_PTE, present, swap, False, None)
    collapse = collapse_file(mm, block, cc)
    return ScanFile(collapse.result, present, swap, False, collapse)
