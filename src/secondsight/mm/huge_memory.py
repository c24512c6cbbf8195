"""Huge pages split (mm/huge_memory.c); they are made by faults (``memory``) and by ``khugepaged.attempt``.

split      split_pmd: 512 PTEs map the still whole folio;  split_folio: the folio too falls apart, tails inherit PG_referenced

In compiled functions *f* is the frames (``page.FrameArrays``), *r* the rules and the host's set-up (``compiled.R``) and *m* an address
space (``pgtable.MmArrays``).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from secondsight.bits.pte import (
    ACCESSED,
    DIRTY,
    DIRTY_BITS,
    NX,
    PRESENT,
    PROTNONE,
    PSE,
    RW,
    SPECIAL,
    TABLE,
    USER,
)
from secondsight.errors import UsageError
from secondsight.mm.filemap import split_shared_pmd
from secondsight.mm.lru import clear_page_mlock, mlock_page, munlock_huge
from secondsight.mm.page import (
    ACTIVE,
    ANON,
    EXCLUSIVE,
    FREED,
    HEAD,
    HPAGE,
    HUGE_ZERO_PFN,
    IDLE,
    LRU,
    LRU_REFS,
    MLOCKED,
    N_FREE,
    REFERENCED,
    SWAPBACKED,
    SWAPCACHE,
    TAIL,
    UNEVICTABLE,
    UPTODATE,
    WORKINGSET,
    YOUNG,
    ZERO_FILLED,
    folio_mapcount,
    folio_nr_pages,
    map_pte,
    unmap_pmd,
    unmap_pte,
)
from secondsight.mm.page import DIRTY as PAGE_DIRTY
from secondsight.mm.pgtable import PAGE_NONE, PFN_SHIFT, V_LOCKED, V_READ, V_WRITE, ZERO_PTE, pfn_of, vma_bits
from secondsight.mm.protocols import MmLike, SharedMemoryLike
from secondsight.mm.rmap_walk import invalidate_folio, mapped_pages
from secondsight.mm.shmem import try_to_unmap
from secondsight.mm.vma import VmFlags
from secondsight.native import native


def cut_area(mm: MmLike, edge: int) -> None:
    """vma_adjust_trans_huge: an area is about to end (or begin) at page *edge*, inside a block that it holds whole.

    split_huge_pmd_if_needed splits a huge PMD; later kernels tell the notifiers even where there is only a page table.
    """
    block = edge // HPAGE
    vma = mm.vmas.at(edge)
    if edge % HPAGE == 0 or vma.start > block * HPAGE or vma.end < (block + 1) * HPAGE:
        return
    if mm.arrays.pmd[block] & PSE:
        split_block_pmd(mm, block)
    elif mm.arrays.pmd[block] and mm.host.rules.area_cut_invalidates:
        mm.notifiers.invalidate_range(block * HPAGE, (block + 1) * HPAGE)


@native
def split_pmd(f, r, m, block, frozen):  # type: ignore[no-untyped-def]
    """__split_huge_pmd: PTEs in place of a huge PMD, with its bits; the folio stays whole. *frozen*: by way of migration entries."""
    pmd = m.pmd[block]
    first = block * HPAGE
    if pfn_of(pmd) == HUGE_ZERO_PFN:
        # __split_huge_zero_page_pmd: of what the area permits (vm_page_prot).
        zero = ZERO_PTE if vma_bits(m, first) & (V_READ | V_WRITE) else PAGE_NONE | SPECIAL
        for i in range(HPAGE):
            m.pte[first + i] = zero
    else:
        head = pfn_of(pmd)
        if pmd & DIRTY:
            f.flags[head] |= PAGE_DIRTY
        exclusive = f.flags[head] & EXCLUSIVE
        keep = pmd & (ACCESSED | DIRTY | RW | USER | PRESENT | NX | PROTNONE)
        if keep & PROTNONE and vma_bits(m, first) & (V_READ | V_WRITE):
            # mk_pte of vma_page_prot: NUMA balancing's mark is lost.
            keep = (keep & ~PROTNONE) | PRESENT | USER
        if not r.split_pmd_keeps_dirty and not frozen:
            keep &= ~DIRTY
        for i in range(HPAGE):
            map_pte(f, head + i)
            f.flags[head + i] = (f.flags[head + i] & ~EXCLUSIVE) | exclusive
            m.pte[first + i] = (np.uint64(head + i) << PFN_SHIFT) | keep
        if r.split_pmd_munlocks and not r.mlock_batched:
            clear_page_mlock(f, r, head)
        elif vma_bits(m, first) & V_LOCKED and (frozen or r.split_pmd_munlocks):
            munlock_huge(f, r, head)
        unmap_pmd(f, head)
    m.pmd[block] = TABLE


def split_block_pmd(mm: MmLike, block: int, *, frozen: bool = False) -> None:
    """split_huge_pmd of one block: the folio stays whole, 512 PTEs map it (none, if it is shared memory: it is unmapped). Nothing happens
    where the PMD is not huge.

    *frozen*: on the way to splitting the folio, by migration entries, which keep the dirty bit in every kernel.
    """
    if mm.arrays.pmd[block] & PSE:
        mm.notifiers.invalidate_range(block * HPAGE, (block + 1) * HPAGE)
        mm.host.frames.reserve(0, 0, 4 * HPAGE)
        if mm.memory is not None:
            split_shared_pmd(mm.host.frames.arrays, mm.arrays, block)
        else:
            split_pmd(mm.host.frames.arrays, mm.host.r, mm.arrays, block, frozen)


@native
def _split_folio(f, r, head, in_cache=False):  # type: ignore[no-untyped-def]
    """__split_huge_page: tails take over the head's flags (__split_huge_page_tail), each page its own references; *in_cache*: the page
    cache holds one to each."""
    pages = folio_nr_pages(f, head)
    inherited = f.flags[head] & (
        REFERENCED
        | ACTIVE
        | LRU
        | UNEVICTABLE
        | MLOCKED
        | ANON
        | SWAPBACKED
        | UPTODATE
        | PAGE_DIRTY
        | YOUNG
        | IDLE
        | SWAPCACHE
        | LRU_REFS
        | WORKINGSET
    )
    # Each page keeps its place in the swap cache, and a reference for it.
    cached = np.int64(1 if f.flags[head] & SWAPCACHE or in_cache else 0)
    own = EXCLUSIVE | ZERO_FILLED
    extra = f.refcount[head] - folio_mapcount(f, head) - cached * pages
    for pfn in range(head, head + pages):
        f.flags[pfn] = (f.flags[pfn] & own) | inherited
        if len(f.mlocks):
            f.mlocks[pfn] = 0
        f.refcount[pfn] = f.mapcount[pfn] + cached
    f.refcount[head] += extra
    for pfn in range(head, head + pages):
        if f.refcount[pfn] == 0:
            f.flags[pfn] = 0
            f.free[f.n[N_FREE]] = pfn
            f.n[N_FREE] += 1
            f.n[FREED] += 1


def split_huge(mm: MmLike, block: int) -> bool:
    """debugfs' split_huge_pages over one block: every large folio that it maps falls into small pages. False: none did.

    :raises UsageError: the block is outside the space.
    """
    if not 0 <= block < mm.blocks:
        raise UsageError(f"block {block} lies outside space {mm.name!r} of {mm.blocks} blocks")
    first = block * HPAGE
    if mm.arrays.pmd[block] & PSE:
        return split_folio(mm, first)
    done = False
    tried = -1
    for page in range(first, first + HPAGE):
        if is_large(mm, page) and mm.folio(page) != tried:
            tried = mm.folio(page)
            done |= split_folio(mm, page)
    return done


def split_folio(mm: MmLike, page: int, *, remap: bool = True) -> bool:
    """split_folio of the large folio behind *page*: it falls into small pages. False where there is none, or it is pinned.

    *remap* is False where the kernel only unmaps the folio, and no zero page comes in its zero-filled pages' places.
    """
    host, block = mm.host, page // HPAGE
    f = host.frames.arrays
    pfn = mm.pfn(page)
    if pfn < 0 or not f.flags[pfn] & (HEAD | TAIL):
        return False
    head = mm.folio(page)
    if head == HUGE_ZERO_PFN:
        return False
    host.drain()
    pages = int(folio_nr_pages(f, head))
    if mm.memory is not None:
        return split_shared_folio(mm, mm.memory, page - (pfn - head), head)
    if int(f.refcount[head]) != int(folio_mapcount(f, head)) + (pages if f.flags[head] & SWAPCACHE else 0):
        return False
    # Only fork gives a folio more mappings, and it keeps their addresses: they are all where these are.
    start = page - (pfn - head)
    sharing = [each for each in host.mms.values() if block < each.blocks]
    for other in sharing:
        if other.arrays.pmd[block] & PSE and int(pfn_of(other.arrays.pmd[block])) == head:
            split_block_pmd(other, block, frozen=True)
    mapping = [other for other in sharing if len(mapped_pages(other, start, head, pages))]
    if remap and mapping:
        # try_to_migrate, before the split: what a secondary MMU tells of its use is still told of the whole folio. Its range is the
        # folio's place in the area, so that pages which have come in place of some of its are unmapped as well.
        invalidate_folio(mapping, start, pages, head, splits=True)
    # try_to_migrate_one, in every kernel (5.10: try_to_unmap_one): a dirty PTE that goes makes the folio dirty, and so each of its pages,
    # which MADV_FREE then leaves alone where they are shared.
    if any(
        (other.arrays.pte[mapped_pages(other, start, head, pages)] & DIRTY_BITS).any() for other in sharing
    ):
        f.flags[head] |= PAGE_DIRTY
    if remap and not host.rules.migration_keeps_bits:
        for other in sharing:
            other.arrays.pte[mapped_pages(other, start, head, pages)] &= ~(ACCESSED | DIRTY)
    host.frames.reserve(0, 0, 4 * HPAGE)
    _split_folio(host.frames.arrays, host.r, head)
    if remap:
        for other in sharing:
            _remap(other, mapped_pages(other, start, head, pages))
    return True


def split_shared_folio(mm: MmLike, memory: SharedMemoryLike, start: int, head: int) -> bool:
    """split_huge_page of the folio of shared memory at *head*, which begins at page *start* of *mm*: every mapping goes, and each page is
    the cache's by itself. False: somebody holds it."""
    host, f = mm.host, mm.host.frames.arrays
    pages = int(folio_nr_pages(f, head))
    if int(f.refcount[head]) != int(folio_mapcount(f, head)) + pages:
        return False
    first = mm.memory_block * HPAGE + start
    for other, page in memory.mapped_at(first):
        if other.arrays.pmd[page // HPAGE] & PSE:
            split_block_pmd(other, page // HPAGE)
    for i in range(pages):
        try_to_unmap(memory, first + i, head + i)
    f = host.frames.reserve(0, 0, 4 * HPAGE)
    _split_folio(f, host.r, head, True)
    return True


def _remap(mm: MmLike, pages: npt.NDArray[np.int64]) -> None:
    """remap_page: some kernels map the zero page in place of subpages that are zero-filled; what comes back to a locked area is mlocked
    (remove_migration_pte)."""
    host, f = mm.host, mm.host.frames.arrays
    for page in pages.tolist():
        pfn, area = mm.pfn(page), mm.vmas.at(page).flags
        entry = mm.arrays.pte[page]
        if entry & PROTNONE and area & (VmFlags.READ | VmFlags.WRITE):
            # mk_pte of vma_page_prot: NUMA balancing's mark is lost.
            mm.arrays.pte[page] = (entry & ~PROTNONE) | PRESENT | USER
        if area & VmFlags.LOCKED:
            mlock_page(f, pfn)
        elif host.rules.split_maps_zero_page and f.flags[pfn] & ZERO_FILLED and not f.flags[pfn] & MLOCKED:
            unmap_pte(f, pfn)
            inaccessible = not area & (VmFlags.READ | VmFlags.WRITE)
            mm.arrays.pte[page] = PAGE_NONE | SPECIAL if inaccessible else ZERO_PTE


def is_large(mm: MmLike, page: int) -> bool:
    """Is *page* mapped by a PTE to a part of a large folio?"""
    if mm.arrays.pmd[page // HPAGE] & PSE or mm.pfn(page) < 0:
        return False
    return bool(mm.host.frames.arrays.flags[mm.pfn(page)] & (HEAD | TAIL))
