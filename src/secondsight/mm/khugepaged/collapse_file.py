"""``collapse_file``: a block of the page cache becomes one huge page (mm/khugepaged.c; numbers of lines are those of Debian's 7.3.4).

::

    for each folio   absent ─▶ counted (a file's: read)     in swap ─▶ read in     else ─▶ off the LRU, unmapped everywhere
                     a regular file's, dirty before or after it is unmapped ─▶ page_dirty_or_writeback
    all went well    the huge page takes the block of the cache, the page tables of the block go (``retract``), the old pages are freed
    else             the pages taken so far go back to the LRU; what was unmapped stays unmapped, until somebody touches it

The new page is in the cache and mapped by nobody: whoever touches the block next, or MADV_COLLAPSE at its end, maps it by a PMD.
"""

from __future__ import annotations

from typing import NamedTuple

from secondsight.geometry import HPAGE_PMD_NR, PMD_ORDER
from secondsight.mm.filemap import ABSENT, add_large, swap_in_shared
from secondsight.mm.khugepaged.attempt import release_pte_folio
from secondsight.mm.khugepaged.limits import CollapseControl
from secondsight.mm.khugepaged.result import ScanResult
from secondsight.mm.khugepaged.retract import retract_page_tables
from secondsight.mm.lru import lru_add_drain
from secondsight.mm.page import DIRTY, LRU, PRIVATE, folio_nr_pages, head_of, is_huge, put_page
from secondsight.mm.protocols import HostLike, MmLike, SharedMemoryLike
from secondsight.mm.readahead import add_folio, read_folio
from secondsight.mm.shmem import try_to_unmap
from secondsight.mm.writeback import write_and_wait


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
    index = start - 1
    while (index := index + 1) < start + HPAGE_PMD_NR:
        if not memory.is_shmem:
            result = _ready_file(memory, host, index)
            if result != ScanResult.SUCCEED:
                _roll_back(memory, host, taken)
                return CollapseFile(result, index)
        elif cache[index] == ABSENT:
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
        head = int(head_of(f, int(cache[index])))
        if is_huge(f, head):
            return CollapseFile(ScanResult.PTE_MAPPED_HUGEPAGE, index)
        result = _take(memory, host, index)
        if result != ScanResult.SUCCEED:
            _roll_back(memory, host, taken)
            return CollapseFile(result, index)
        taken.append(index)
        index += int(folio_nr_pages(host.frames.arrays, head)) - 1
    old = [int(cache[index]) for index in taken]
    f = host.frames.reserve(0, 2, 4 * HPAGE_PMD_NR)
    if memory.is_shmem:
        add_large(f, host.r, cache, start, PMD_ORDER, False)
    else:
        add_folio(f, host.r, cache, start, PMD_ORDER, False)
    result = retract_page_tables(mm, block, cc)
    for pfn in old:
        # The cache's references, isolation's, and ours.
        for _ in range(2 + int(folio_nr_pages(f, pfn))):
            put_page(f, pfn)
    return CollapseFile(result, start + HPAGE_PMD_NR)


def _ready_file(memory: SharedMemoryLike, host: HostLike, index: int) -> ScanResult:
    """A regular file's page at *index* is in the cache, read if it was not, and clean; else why not."""
    f = host.frames.reserve(1, 1, 2 * HPAGE_PMD_NR)
    if memory.cache[index] == ABSENT:
        # page_cache_sync_readahead, which here brings the page alone; lru_add_drain (7.3 line 2341).
        read_folio(f, host.r, memory.cache, index, False)
        lru_add_drain(f, host.r)
    elif f.flags[head_of(f, int(memory.cache[index]))] & DIRTY:
        # Not written since the last store: it is now, unless somebody may go on storing (7.3 line 2351).
        if not memory.open_for_write:
            write_and_wait(host, memory, 0, len(memory.cache))
        return ScanResult.PAGE_DIRTY_OR_WRITEBACK
    return ScanResult.SUCCEED


def _take(memory: SharedMemoryLike, host: HostLike, index: int) -> ScanResult:
    """Isolate and unmap the folio that begins at *index*; SUCCEED: it has two references more, of which one is isolation's."""
    f, pfn = host.frames.arrays, int(memory.cache[index])
    pages = int(folio_nr_pages(f, pfn))
    # It cannot be taken off the LRU. folio_isolate_lru (7.3 line 2426).
    if not f.flags[pfn] & LRU:
        return ScanResult.DEL_PAGE_LRU
    f.flags[pfn] &= ~LRU
    f.refcount[pfn] += 2
    # The buffer heads of a clean folio go. filemap_release_folio (7.3 line 2431).
    if f.flags[pfn] & PRIVATE:
        f.flags[pfn] &= ~PRIVATE
        f.refcount[pfn] -= 1
    for i in range(pages):
        try_to_unmap(memory, index + i, pfn + i)
    f = host.frames.arrays
    # Unmapped everywhere, somebody beside the cache and us holds it. 2 + folio_nr_pages (7.3 line 2456).
    if f.refcount[pfn] != 2 + pages:
        f = host.frames.reserve(0, 0, 64)
        _put_back(host, pfn)
        return ScanResult.PAGE_COUNT
    # What was dirty in a page table alone is so in the folio now (7.3 line 2478).
    if not memory.is_shmem and f.flags[pfn] & DIRTY:
        f = host.frames.reserve(0, 0, 64)
        _put_back(host, pfn)
        return ScanResult.PAGE_DIRTY_OR_WRITEBACK
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
