"""Huge pages made and unmade: collapse's effects, and the splits (mm/khugepaged.c, mm/huge_memory.c).

collapse   swap in --> notifiers: invalidate --> clear the PMD --> isolate (judgement) --fails--> PMD back, pages back to the LRU
                                                                   --passes--> copy, free the small pages, huge PMD
           the huge PMD is young and dirty and writable iff the area is; the new folio is unreferenced; old flags are lost
split      split_pmd: 512 PTEs map the still whole folio;  split_folio: the folio too falls apart, tails inherit PG_referenced
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from secondsight.bits.pte import DIRTY, MAPPED, PFN_MASK, PRESENT, PROTNONE, PSE, RW, USER
from secondsight.errors import UsageError
from secondsight.mm import judgement
from secondsight.mm.lru import folio_add_lru, lru_add_drain, munlock_folio
from secondsight.mm.memory import (
    PFN_SHIFT,
    PROT,
    V_LOCKED,
    V_READ,
    V_WRITE,
    ZERO_PTE,
    new_large,
    pfn_of,
    split_pmd,
    swap_in,
    vma_bits,
)
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
    MLOCKED,
    N_FREE,
    REFERENCED,
    SWAPBACKED,
    TAIL,
    UNEVICTABLE,
    UPTODATE,
    YOUNG,
    ZERO_FILLED,
    ZERO_PFN,
    alloc_huge,
    folio_mapcount,
    folio_nr_pages,
    head_of,
    map_pmd,
    mlock_page,
    put_page,
    unmap_pte,
)
from secondsight.mm.page import DIRTY as PAGE_DIRTY
from secondsight.mm.vma import Vm
from secondsight.native import native

if TYPE_CHECKING:
    from secondsight.mm.judgement import Look
    from secondsight.mm.mm_struct import Mm

_SWAP_SHIFT = np.uint64(14)


@native
def swap_in_block(f, r, m, block):  # type: ignore[no-untyped-def]
    """__collapse_huge_page_swapin: every swapped page of the block comes back (not counted as a fault of the process); how many."""
    count = 0
    for page in range(block * HPAGE, block * HPAGE + HPAGE):
        entry = m.pte[page]
        if entry != 0 and not entry & MAPPED:
            swap_in(f, r, m, page, False, False)
            count += 1
    if count:
        lru_add_drain(f, r)
    return count


@native
def _release_pte_folio(f, r, pfn):  # type: ignore[no-untyped-def]
    """What isolate took from the LRU goes back to it, through the batch."""
    f.flags[pfn] &= ~LRU
    if r.mglru and f.flags[pfn] & SWAPBACKED and not f.flags[pfn] & UNEVICTABLE:
        # lru_gen_del_folio: it comes from one of the two youngest generations, where nothing here lets anonymous pages grow old.
        f.flags[pfn] |= ACTIVE
    folio_add_lru(f, r, pfn, False)


@native
def put_back(f, r, m, block, stopped):  # type: ignore[no-untyped-def]
    """release_pte_pages after a failed isolate: the pages before *stopped* go back to the LRU, last first, small ones before large."""
    first = block * HPAGE
    for page in range(first + stopped - 1, first - 1, -1):
        entry = m.pte[page]
        if not entry & MAPPED or pfn_of(entry) == ZERO_PFN:
            continue
        pfn = pfn_of(entry)
        if not f.flags[pfn] & (HEAD | TAIL):
            _release_pte_folio(f, r, pfn)
    last = np.int64(-1)
    for page in range(first, first + stopped):
        entry = m.pte[page]
        if entry & MAPPED and pfn_of(entry) != ZERO_PFN:
            head = head_of(f, pfn_of(entry))
            if f.flags[head] & HEAD and head != last:
                f.flags[head] &= ~LRU
                folio_add_lru(f, r, head, False)
                last = head


@native
def _let_go(f, r, large):  # type: ignore[no-untyped-def]
    """folio_putback_lru of a large folio that isolate held, if there is one (*large* >= 0)."""
    if large >= 0:
        f.flags[large] &= ~LRU
        folio_add_lru(f, r, large, False)
        put_page(f, large)


@native
def copy_and_map(f, r, m, block, active):  # type: ignore[no-untyped-def]
    """__collapse_huge_page_copy and what follows: the small pages give way to one huge page; returns its head pfn.

    Each page goes back to the LRU before it is unmapped (__collapse_huge_page_copy_succeeded): one that another process maps stays there.
    """
    first = block * HPAGE
    head = alloc_huge(f)
    bits = vma_bits(m, first)
    large = np.int64(-1)
    for i in range(HPAGE):
        entry = m.pte[first + i]
        if entry & MAPPED and pfn_of(entry) != ZERO_PFN:
            pfn = pfn_of(entry)
            f.flags[head + i] |= f.flags[pfn] & ZERO_FILLED
            if not f.flags[pfn] & (HEAD | TAIL):
                _release_pte_folio(f, r, pfn)
            elif head_of(f, pfn) != large:
                _let_go(f, r, large)
                large = np.int64(head_of(f, pfn))
                f.refcount[large] += 1
            if bits & V_LOCKED:
                munlock_folio(f, r, pfn)
            unmap_pte(f, pfn)
        else:
            f.flags[head + i] |= ZERO_FILLED
        m.pte[first + i] = 0
    _let_go(f, r, large)
    if active:
        f.flags[head] |= ACTIVE
    new_large(f, r, head, bits, False)
    map_pmd(f, head)
    put_page(f, head)
    prot = PROT | PSE | DIRTY
    if bits & V_WRITE:
        prot |= RW
    if not bits & V_READ:
        prot = (prot & ~(PRESENT | USER)) | PROTNONE
    m.pmd[block] = (np.uint64(head) << PFN_SHIFT) | prot
    return head


def collapse(mm: Mm, block: int, *, khugepaged: bool) -> tuple[int, Look]:
    """collapse_huge_page from the swap-in on; the caller's scan has passed.

    Returns (pages swapped in, what isolate answered); the block is huge iff isolate passed. Allocation is assumed to succeed.
    """
    host = mm.host
    f = host.frames.reserve(2 * HPAGE, 2, 4 * HPAGE)
    swapped = int(swap_in_block(f, host.r, mm.arrays, block))
    start, end = block * HPAGE, (block + 1) * HPAGE
    mm.notifiers.invalidate_range(start, end)
    f = host.frames.reserve(HPAGE, 2, 4 * HPAGE)
    # The PMD is clear and the mmap lock held for writing: nobody can map a page in again, so no secondary MMU can answer young.
    seen = host.inside.look(mm, block)
    look = judgement.isolate(seen, host.config.knobs, host.rules, khugepaged=khugepaged)
    if look.passed[0]:
        old = [int(p) for p in seen.folio[0]] if host.content else []
        head = int(copy_and_map(f, host.r, mm.arrays, block, host.rules.huge_folio_active))
        for i, pfn in enumerate(old):
            if pfn in host.content:
                host.content[head + i] = host.content[pfn]
    else:
        put_back(f, host.r, mm.arrays, block, int(look.stopped[0]))
    return swapped, look


def cut_area(mm: Mm, edge: int) -> None:
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


def split_block_pmd(mm: Mm, block: int, *, frozen: bool = False) -> None:
    """split_huge_pmd of one block: the folio stays whole, 512 PTEs map it. Nothing happens where the PMD is not huge.

    *frozen*: on the way to splitting the folio, by migration entries, which keep the dirty bit in every kernel.
    """
    if mm.arrays.pmd[block] & PSE:
        mm.notifiers.invalidate_range(block * HPAGE, (block + 1) * HPAGE)
        mm.host.frames.reserve(0, 0, 4 * HPAGE)
        split_pmd(mm.host.frames.arrays, mm.host.r, mm.arrays, block, frozen)


@native
def _split_folio(f, r, head):  # type: ignore[no-untyped-def]
    """__split_huge_page: tails take over the head's flags (__split_huge_page_tail), each page its own references."""
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
    )
    own = EXCLUSIVE | ZERO_FILLED
    extra = f.refcount[head] - folio_mapcount(f, head)
    for pfn in range(head, head + pages):
        f.flags[pfn] = (f.flags[pfn] & own) | inherited
        f.refcount[pfn] = f.mapcount[pfn]
    f.refcount[head] += extra
    for pfn in range(head, head + pages):
        if f.refcount[pfn] == 0:
            f.flags[pfn] = 0
            f.free[f.n[N_FREE]] = pfn
            f.n[N_FREE] += 1
            f.n[FREED] += 1


def split_huge(mm: Mm, block: int) -> bool:
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


def split_folio(mm: Mm, page: int, *, remap: bool = True) -> bool:
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
    if int(f.refcount[head]) != int(folio_mapcount(f, head)):
        return False
    pages = int(folio_nr_pages(f, head))
    # Only fork gives a folio more mappings, and it keeps their addresses: they are all where these are.
    start = page - (pfn - head)
    sharing = [each for each in host.mms.values() if block < each.blocks]
    for other in sharing:
        if other.arrays.pmd[block] & PSE and int(pfn_of(other.arrays.pmd[block])) == head:
            split_block_pmd(other, block, frozen=True)
    if remap:
        for other in sharing:
            # try_to_migrate, before the split: what a secondary MMU tells of its use is still told of the whole folio. Its range is the
            # folio's place in the area, so that pages which have come in place of some of its are unmapped as well.
            if len(_mapped(other, start, head, pages)):
                other.notifiers.invalidate_range(start, start + pages)
    host.frames.reserve(0, 0, 4 * HPAGE)
    _split_folio(host.frames.arrays, host.r, head)
    if remap:
        for other in sharing:
            _remap(other, _mapped(other, start, head, pages))
    return True


def _mapped(mm: Mm, start: int, head: int, pages: int) -> npt.NDArray[np.int64]:
    """Those of *pages* pages from *start* on whose PTEs map the frames from *head* on."""
    if mm.arrays.pmd[start // HPAGE] & PSE:
        return np.zeros(0, np.int64)
    pte = mm.arrays.pte[start : start + pages]
    pfns = ((pte & PFN_MASK) >> PFN_SHIFT).astype(np.int64)
    return start + np.flatnonzero((pfns >= head) & (pfns < head + pages) & ((pte & MAPPED) != 0))


def _remap(mm: Mm, pages: npt.NDArray[np.int64]) -> None:
    """remap_page: some kernels map the zero page in place of subpages that are zero-filled; what comes back to a locked area is mlocked
    (remove_migration_pte)."""
    host, f = mm.host, mm.host.frames.arrays
    for page in pages.tolist():
        pfn, area = mm.pfn(page), mm.vmas.at(page).flags
        if area & Vm.LOCKED:
            mlock_page(f, pfn)
        elif host.rules.split_maps_zero_page and f.flags[pfn] & ZERO_FILLED and not f.flags[pfn] & MLOCKED:
            unmap_pte(f, pfn)
            inaccessible = not area & (Vm.READ | Vm.WRITE)
            mm.arrays.pte[page] = ZERO_PTE ^ (PRESENT | PROTNONE) if inaccessible else ZERO_PTE


def is_large(mm: Mm, page: int) -> bool:
    """Is *page* mapped by a PTE to a part of a large folio?"""
    if mm.arrays.pmd[page // HPAGE] & PSE or mm.pfn(page) < 0:
        return False
    return bool(mm.host.frames.arrays.flags[mm.pfn(page)] & (HEAD | TAIL))
