"""Writing a regular file's dirty pages to its disk (mm/page-writeback.c; ext4_writepages).

The disk is memory: what is written is clean when the call returns. Before a folio is written it becomes read-only in every page table
(folio_mkclean), so that the next store to it is a fault, which makes it dirty again. Its buffer heads stay.
"""

from __future__ import annotations

from secondsight.bits.pte import DIRTY, MAPPED, PSE, RW
from secondsight.geometry import HPAGE_PMD_NR
from secondsight.mm.lru import lru_add_drain
from secondsight.mm.page import DIRTY as PAGE_DIRTY
from secondsight.mm.page import folio_mapcount, folio_nr_pages, head_of
from secondsight.mm.pgtable import pfn_of
from secondsight.mm.protocols import HostLike, SharedMemoryLike
from secondsight.mm.vma import VmFlags

_CLEAN = ~(RW | DIRTY)


def write_and_wait(host: HostLike, memory: SharedMemoryLike, start: int, end: int) -> None:
    """filemap_write_and_wait_range: the dirty folios that have a page at the indices *start* to *end* of *memory*, each whole.

    Where there is one, the LRU batches are drained (folio_batch_release).
    """
    f = host.frames.reserve(0, 0, 1024)
    index, written = start, False
    while index < end:
        pfn = int(memory.cache[index])
        if pfn <= 0:
            index += 1
            continue
        head = int(head_of(f, pfn))
        first, pages = index - (pfn - head), int(folio_nr_pages(f, head))
        if f.flags[head] & PAGE_DIRTY:
            _mkclean(host, memory, first, pages, head)
            f.flags[head] &= ~PAGE_DIRTY
            written = True
        index = first + pages
    if written:
        lru_add_drain(f, host.r)


def _mkclean(host: HostLike, memory: SharedMemoryLike, first: int, pages: int, head: int) -> None:
    """folio_mkclean of the folio at *head*, *pages* pages from index *first* on: in each shared mapping notifiers are told of all of it,
    whatever is mapped there (page_vma_mkclean_one)."""
    if not folio_mapcount(host.frames.arrays, head):
        return
    for mm, page in memory.mapped_at(first):
        if not mm.vmas.at(page).flags & VmFlags.WRITE:
            continue
        a, block = mm.arrays, page // HPAGE_PMD_NR
        mm.notifiers.invalidate_range(page, page + pages)
        pmd = a.pmd[block]
        if pmd & PSE:
            if pfn_of(pmd) == head and pmd & (RW | DIRTY):
                a.pmd[block] = pmd & _CLEAN
        elif pmd:
            pte = a.pte[page : page + pages]
            pte[(pte & MAPPED) != 0] &= _CLEAN
