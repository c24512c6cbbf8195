"""``collapse_file``: a block of the page cache becomes one huge page (mm/khugepaged.c; numbers of lines are those of Debian's 7.3.4).

::

    for each index   absent ─▶ counted     in swap ─▶ read in     a page ─▶ off the LRU, unmapped everywhere
    all went well    the huge page takes the block of the cache, the page tables of the block go (``retract``), the old pages are freed
    else             the pages taken so far go back to the LRU; what was unmapped stays unmapped, until somebody touches it

The new page is in the cache and mapped by nobody: whoever touches the block next, or MADV_COLLAPSE at its end, maps it by a PMD.
"""

from __future__ import annotations

from typing import NamedTuple

from secondsight.geometry import HPAGE_PMD_NR
from secondsight.mm.filemap import ABSENT, add_huge, swap_in_shared
from secondsight.mm.khugepaged.attempt import release_pte_folio
from secondsight.mm.khugepaged.limits import CollapseControl
from secondsight.mm.khugepaged.result import ScanResult
from secondsight.mm.khugepaged.retract import retract_page_tables
from secondsight.mm.lru import lru_add_drain
from secondsight.mm.page import LRU, head_of, is_huge, put_page
from secondsight.mm.protocols import HostLike, MmLike, SharedMemoryLike
from secondsight.mm.shmem import try_to_unmap


class CollapseFile(NamedTuple):
    """What ``mm_khugepaged_collapse_file`` says: how it ended, and at which index of the cache (*ended_at*)."""

    result: ScanResult
    ended_at: int


def collapse_file(mm: MmLike, block: int, cc: CollapseControl) -> CollapseFile:
    """Collapse the block of the page cache that *mm* maps at its *block*; its scan has passed."""
    memory, host = mm.memory, mm.host
    assert memory is not None
    cache, start = memory.cache, (mm.memory_block + block) * HPAGE_PMD_NR
    taken: list[int] = []
    for index in range(start, start + HPAGE_PMD_NR):
        if cache[index] == ABSENT:
            # Nothing at all is in the block: it was truncated, or never filled (7.3 line 2314).
            if index == start and not cache[start : start + HPAGE_PMD_NR].any():
                return CollapseFile(ScanResult.TRUNCATED, index)
            continue
        f = host.frames.reserve(1, 1, 2 * HPAGE_PMD_NR)
        if cache[index] < 0:
            # In swap: it is read in. shmem_get_folio; it waits in a batch of the LRU, which is drained for it since 6.4 (7.3 line 2325).
            swap_in_shared(f, host.r, cache, index, False)
            if host.rules.file_swapin_drains:
                lru_add_drain(f, host.r)
        # What went to swap huge has come back so: there is nothing to collapse (7.3 line 2405).
        if is_huge(f, int(head_of(f, int(cache[index])))):
            return CollapseFile(ScanResult.PTE_MAPPED_HUGEPAGE, index)
        result = _take(memory, host, index)
        if result != ScanResult.SUCCEED:
            _roll_back(memory, host, taken)
            return CollapseFile(result, index)
        taken.append(index)
    old = [int(cache[index]) for index in taken]
    f = host.frames.reserve(0, 2, 4 * HPAGE_PMD_NR)
    add_huge(f, host.r, cache, start, False)
    result = retract_page_tables(mm, block, cc)
    for pfn in old:
        # The cache's reference, isolation's, and ours.
        f.flags[pfn] = 0
        for _ in range(3):
            put_page(f, pfn)
    return CollapseFile(result, start + HPAGE_PMD_NR)


def _take(memory: SharedMemoryLike, host: HostLike, index: int) -> ScanResult:
    """Isolate and unmap the small page at *index*; SUCCEED: it has two references more, of which one is isolation's."""
    f, pfn = host.frames.arrays, int(memory.cache[index])
    # It cannot be taken off the LRU. folio_isolate_lru (7.3 line 2426).
    if not f.flags[pfn] & LRU:
        return ScanResult.DEL_PAGE_LRU
    f.flags[pfn] &= ~LRU
    f.refcount[pfn] += 2
    try_to_unmap(memory, index, pfn)
    f = host.frames.arrays
    # Unmapped everywhere, somebody beside the cache and us holds it. 2 + folio_nr_pages (7.3 line 2456).
    if f.refcount[pfn] != 3:
        f = host.frames.reserve(0, 0, 64)
        _put_back(host, pfn)
        return ScanResult.PAGE_COUNT
    return ScanResult.SUCCEED


def _put_back(host: HostLike, pfn: int) -> None:
    """folio_putback_lru, folio_put."""
    f = host.frames.arrays
    release_pte_folio(f, host.r, pfn)
    put_page(f, pfn)
    put_page(f, pfn)


def _roll_back(memory: SharedMemoryLike, host: HostLike, taken: list[int]) -> None:
    """The pages at the indices *taken* go back to the LRU, the first first; they are as unmapped as they are."""
    host.frames.reserve(0, 0, 2 * HPAGE_PMD_NR)
    for index in taken:
        _put_back(host, int(memory.cache[index]))
