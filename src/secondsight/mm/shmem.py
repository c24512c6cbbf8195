"""What has a page cache: a memfd, MAP_SHARED | MAP_ANONYMOUS or a regular file, and who maps it (struct address_space and its i_mmap);
how shmem goes to swap (mm/shmem.c).

    SharedMemory   cache: an entry a page (``filemap``)      mappings: (mm, first block of the memory that it maps), (mm, …)

A memfd is held open, and keeps its pages without a mapping, as a file does; anonymous shared memory goes with its last one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from secondsight.bits.pte import ACCESSED, DIRTY, MAPPED, PSE
from secondsight.errors import UsageError
from secondsight.mm.filemap import ABSENT, drop_cache, split_shared_pmd, swap_entry
from secondsight.mm.lru import activate_locked
from secondsight.mm.page import (
    ACTIVE,
    HPAGE,
    LRU,
    MLOCKED,
    REFERENCED,
    WORKINGSET,
    YOUNG,
    folio_mapcount,
    folio_nr_pages,
    folio_order,
    head_of,
    put_page,
    unmap_pte,
)
from secondsight.mm.page import DIRTY as PAGE_DIRTY
from secondsight.mm.protocols import MmLike, SharedMemoryLike
from secondsight.mm.vma import VmFlags


class SharedMapping(NamedTuple):
    """*mm* maps the memory from its block *block* on."""

    mm: MmLike
    block: int


class SharedMemory:
    """One inode: *name* (a memfd's; empty: MAP_SHARED | MAP_ANONYMOUS; or a regular file's) and its page cache."""

    def __init__(self, name: str, blocks: int, *, is_shmem: bool = True) -> None:
        """*blocks* blocks of 2 MiB, all absent; not *is_shmem*: a regular file of a disk's file system, of which every block is there."""
        self.name, self.is_shmem = name, is_shmem
        self.cache = np.zeros(blocks * HPAGE, np.int64)
        self.mappings: list[SharedMapping] = []

    @property
    def file(self) -> str:
        """What the kernel calls the file (d_iname)."""
        if not self.is_shmem:
            return self.name
        return f"memfd:{self.name}" if self.name else "dev/zero"

    @property
    def open_for_write(self) -> bool:
        """inode_is_open_for_write: a mapping that may be written to keeps the file open so; write(2) does only while it lasts."""
        return any(vma.flags & VmFlags.WRITE for each in self.mappings for vma in each.mm.vmas.areas)

    def map(self, mm: MmLike, block: int) -> npt.NDArray[np.int64]:
        """mmap(MAP_SHARED): *mm* maps all its blocks, from *block* of the memory on; the part of the cache that it sees.

        :raises UsageError: the memory is not as long as that.
        """
        first, end = block * HPAGE, (block + mm.blocks) * HPAGE
        if block < 0 or end > len(self.cache):
            raise UsageError(
                f"space {mm.name!r}: {self.file!r} has {len(self.cache) // HPAGE} blocks, not {block + mm.blocks}"
            )
        self.mappings.append(SharedMapping(mm, block))
        return self.cache[first:end]

    def unmap(self, mm: MmLike) -> None:
        """*mm* is gone."""
        self.mappings = [each for each in self.mappings if each.mm is not mm]
        if not self.mappings and not self.name:
            drop_cache(mm.host.frames.reserve(0, 0, 4 * len(self.cache)), self.cache)

    def mapped_at(self, index: int) -> list[tuple[MmLike, int]]:
        """rmap_walk_file: each process that has the page at *index* of the cache in an area, and which of its pages that is."""
        return [
            (mm, index - block * HPAGE)
            for mm, block in self.mappings
            if block * HPAGE <= index < block * HPAGE + mm.npages
        ]


def try_to_unmap(memory: SharedMemoryLike, index: int, pfn: int) -> None:
    """Take the page *pfn*, which the cache has at *index*, from every page table that maps it by a PTE; the notifiers are told before."""
    for mm, page in memory.mapped_at(index):
        block = page // HPAGE
        if not mm.arrays.pmd[block] or mm.arrays.pmd[block] & PSE or not mm.arrays.pte[page] & MAPPED:
            continue
        mm.notifiers.invalidate_range(page, page + 1)
        if mm.arrays.pte[page] & DIRTY:
            f = mm.host.frames.arrays
            f.flags[head_of(f, pfn)] |= PAGE_DIRTY
        mm.arrays.pte[page] = 0
        unmap_pte(mm.host.frames.arrays, pfn)


class Reclaimed(NamedTuple):
    """What reclaim of shared memory knows beforehand: the pages that a kernel was seen to unmap (*took*; None: all that can be), and the
    folios that are *pinned* for DMA (folio_maybe_dma_pinned)."""

    took: set[int] | None
    pinned: set[int]


def swap_out_shared(
    mm: MmLike, memory: SharedMemoryLike, start: int, end: int, known: Reclaimed
) -> list[int]:
    """MADV_PAGEOUT of the shared pages *start* to *end*, folios whole; returns those that were unmapped.

    Only what is on the LRU and nobody else maps. What somebody holds is unmapped, and stays in the cache (pageout:
    is_page_cache_freeable), active if it is pinned for DMA; but a huge page that has to be split for it stays as it is.
    """
    gone: list[int] = []
    page = start
    while page < end:
        huge = bool(mm.arrays.pmd[page // HPAGE] & PSE)
        head = mm.folio(page)
        pages = int(folio_nr_pages(mm.host.frames.arrays, head)) if head >= 0 else 1
        mappings = 1 if huge else pages
        if head >= 0 and _isolated(mm, page, head, mappings) and (known.took is None or page in known.took):
            unmapped = _to_swap(mm, memory, page, head, pages)
            if unmapped and head in known.pinned:
                activate_locked(mm.host.frames.arrays, mm.host.r, head)
            gone += unmapped
        page += pages
    return gone


def _isolated(mm: MmLike, page: int, head: int, mappings: int) -> bool:
    """madvise_cold_or_pageout_pte_range takes the folio at *head*, which *mm* maps *mappings* times from *page* on; and it was not found
    used (folio_check_references)."""
    host, f = mm.host, mm.host.frames.arrays
    if not f.flags[head] & LRU or f.flags[head] & MLOCKED or int(folio_mapcount(f, head)) != mappings:
        return False
    if f.flags[head] & ACTIVE:
        f.flags[head] |= WORKINGSET
    f.flags[head] &= ~(REFERENCED | YOUNG | ACTIVE)
    if not host.rules.pageout_asks_references:
        return True
    huge = bool(mm.arrays.pmd[page // HPAGE] & PSE)
    if huge:
        mm.arrays.pmd[page // HPAGE] &= ~ACCESSED
    else:
        mm.arrays.pte[page] &= ~ACCESSED
    if not bool(mm.notifiers.clear_flush_young(page, page + (HPAGE if huge else 1)).any()):
        return True
    f.flags[head] |= REFERENCED
    return False


def _to_swap(mm: MmLike, memory: SharedMemoryLike, page: int, head: int, pages: int) -> list[int]:
    """try_to_unmap and pageout of the folio of *pages* pages at *head*; the pages that it unmapped."""
    host, f = mm.host, mm.host.frames.arrays
    index = mm.memory_block * HPAGE + page
    held = int(f.refcount[head]) != int(folio_mapcount(f, head)) + pages
    whole = host.rules.shmem_swaps_whole
    if pages > 1 and held and not whole:
        return []
    if mm.arrays.pmd[page // HPAGE] & PSE:
        mm.notifiers.invalidate_range(page, page + pages)
        split_shared_pmd(f, mm.arrays, page // HPAGE)
    else:
        for i in range(pages):
            try_to_unmap(memory, index + i, head + i)
    f = host.frames.reserve(0, 0, 64 + 4 * pages)
    if not held:
        order = int(folio_order(f, head)) if whole else 0
        # What nobody ever stored to is clean, and simply dropped (__remove_mapping).
        dirty = bool(f.flags[head] & PAGE_DIRTY)
        gone_to = swap_entry(order, int(bool(f.flags[head] & WORKINGSET))) if dirty else ABSENT
        memory.cache[index : index + pages] = gone_to
        for _ in range(pages):
            put_page(f, head)
    return list(range(page, page + pages))
