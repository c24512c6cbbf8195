"""MADV_PAGEOUT: what reclaim makes of pages that it is handed (mm/madvise.c, mm/vmscan.c, mm/rmap.c try_to_unmap).

    isolate      off the LRU, unreferenced, not young, inactive (madvise_cold_or_pageout_pte_range)
    referenced?  up to 6.9 every mapping is asked and made old: used by a secondary MMU --> kept, referenced
    unmap        swap-backed  --> swap entries, a huge page whole or in pieces, as the kernel recorded
                 lazily freed --> the notifiers are told, which may tell of stores; clean --> gone, dirty --> swap-backed again, active
    put back     what is still mapped

What is lazily freed is decided by the rules alone. Whether swap-backed memory goes is recorded from the kernel where one was asked.

In compiled functions *f* is the frames (``page.FrameArrays``) and *m* an address space (``pgtable.MmArrays``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from secondsight.bits.pte import ACCESSED, DIRTY, PSE, RW, SWP_EXCLUSIVE, UFFD_WP
from secondsight.bits.swap import SWP_UFFD_WP, swp_entry
from secondsight.mm.huge_memory import split_block_pmd, split_folio
from secondsight.mm.lru import activate_locked
from secondsight.mm.madvise import ranges_without_large
from secondsight.mm.page import (
    ACTIVE,
    EXCLUSIVE,
    HEAD,
    HPAGE,
    HUGE_ZERO_PFN,
    LRU,
    MLOCKED,
    REFERENCED,
    SWAPBACKED,
    SWAPCACHE,
    TAIL,
    WORKINGSET,
    YOUNG,
    ZERO_FILLED,
    ZERO_PFN,
    folio_mapcount,
    folio_nr_pages,
    head_of,
    unmap_pte,
)
from secondsight.mm.page import DIRTY as PAGE_DIRTY
from secondsight.mm.pgtable import DROPPABLE, pfn_of
from secondsight.mm.rmap_walk import invalidate_folio
from secondsight.mm.shmem import Reclaimed, swap_out_shared
from secondsight.mm.swap import CACHED, CONTENT, CONTENT_ZERO, MUCH_USED, ZEROMAP
from secondsight.mm.unmap import unmap
from secondsight.mm.vma import VmFlags, page_runs
from secondsight.native import native

if TYPE_CHECKING:
    from secondsight.mm.mm_struct import Mm

Pages = npt.NDArray[np.int64]


class PagedOut(NamedTuple):
    """*gone* int64: the pages that went to swap or were discarded; *errno*: EINVAL where a locked area was among them."""

    gone: Pages
    errno: str | None


def can_swap(mm: Mm, page: int) -> bool:
    """Could reclaim take this page: small, anonymous, mapped once, on the LRU, not locked in memory? A pin does not keep it from that."""
    f = mm.host.frames.arrays
    if not mm.arrays.pmd[page // HPAGE] or mm.arrays.pmd[page // HPAGE] & PSE:
        return False
    pfn = mm.pfn(page)
    if pfn <= ZERO_PFN:
        return False
    flags = f.flags[pfn]
    return bool(flags & LRU and not flags & (HEAD | TAIL | MLOCKED) and f.mapcount[pfn] == 1)


def swap_out(mm: Mm, pages: Pages, took: Pages | None = None, slots: Pages | None = None) -> PagedOut:
    """MADV_PAGEOUT of each run of *pages*; a locked area ends its run (can_madv_lru_vma).

    *took*: what a kernel really took, where that was recorded; without, all goes that can. *slots*: the swap slot of each of these, where
    they were seen, or -1 (it is in none): in which row they are decides what comes back at once.
    """
    mm.host.drain()
    recorded = None if took is None else set(took.tolist())
    placed: dict[int, int] = {}
    if took is not None and slots is not None:
        placed = {page: slot for page, slot in zip(took.tolist(), slots.tolist(), strict=True) if slot >= 0}
    reclaim = _Reclaim(mm, recorded, placed)
    errno: str | None = None
    for start, end in page_runs(pages):
        for vma, low, high in mm.vmas.within(start, end):
            if vma.flags & VmFlags.LOCKED:
                errno = "EINVAL"
                break
            for a, b in ranges_without_large(mm, low, high):
                if mm.memory is not None:
                    reclaim.gone.extend(
                        swap_out_shared(mm, mm.memory, a, b, Reclaimed(recorded, reclaim.pinned))
                    )
                else:
                    reclaim.range(a, b)
    return PagedOut(np.array(reclaim.gone, dtype=np.int64), errno)


@native
def _to_swap(f, m, first, slots, entries):  # type: ignore[no-untyped-def]
    """add_to_swap, try_to_unmap, and the end of pageout: *entries* in the places of the pages from *first* on, for their *slots*.

    A page that somebody still holds stays in the swap cache, mapped nowhere (pageout: is_page_cache_freeable).
    """
    count = len(slots)
    zeroes = 0
    for i in range(count):
        zeroes += f.flags[pfn_of(m.pte[first + i])] & ZERO_FILLED != 0
    for i in range(count):
        pfn = pfn_of(m.pte[first + i])
        head = head_of(f, pfn)
        m.swap[CONTENT, slots[i]] = 0
        if f.flags[pfn] & ZERO_FILLED:
            m.swap[CONTENT, slots[i]] = CONTENT_ZERO | (ZEROMAP if zeroes == count else 0)
        if f.flags[head] & WORKINGSET:
            m.swap[CONTENT, slots[i]] |= MUCH_USED
        alone = SWP_EXCLUSIVE if f.flags[pfn] & EXCLUSIVE else np.uint64(0)
        f.flags[pfn] &= ~EXCLUSIVE
        wp = SWP_UFFD_WP if m.pte[first + i] & UFFD_WP else np.uint64(0)
        m.pte[first + i] = entries[i] | alone | wp
        if f.flags[head] & SWAPCACHE:
            if count == 1 and f.refcount[pfn] == 2:
                # It leaves the cache, which alone had it beside this mapping; its slot stays.
                m.swap[CACHED, slots[i]] = 0
                f.flags[head] &= ~SWAPCACHE
                f.refcount[pfn] -= 1
        elif count == 1 and f.refcount[pfn] > 1:
            m.swap[CACHED, slots[i]] = pfn
            f.flags[pfn] |= SWAPCACHE | PAGE_DIRTY
            f.refcount[pfn] += 1
        unmap_pte(f, pfn)


@native
def _gather_ptes(m, first, end, alike):  # type: ignore[no-untyped-def]
    """folio_unmap_pte_batch, get_and_clear_ptes: how many PTEs from *first* on are alike, and what they have of accessed and dirty bits.

    *alike*: the bits (uint64) in which they must be; 0: each is taken alone.
    """
    n = 1
    bits = m.pte[first] & (ACCESSED | DIRTY)
    while alike and first + n < end and (m.pte[first + n] ^ m.pte[first]) & alike == 0:
        bits |= m.pte[first + n] & (ACCESSED | DIRTY)
        n += 1
    return n, bits


@native
def _set_ptes(m, first, n, bits):  # type: ignore[no-untyped-def]
    """set_ptes: *n* PTEs come back, as writable as the first of them, with the *bits* that they had together."""
    writable = m.pte[first] & RW
    for page in range(first, first + n):
        m.pte[page] = (m.pte[page] & ~RW) | writable | bits


@native
def _discard(f, m, first, head, alike):  # type: ignore[no-untyped-def]
    """try_to_unmap of a lazily freed folio whose PTEs start at *first*: how many pages went before a dirty one ended it.

    *alike*: what :func:`_gather_ptes` takes together.
    """
    count = folio_nr_pages(f, head)
    i = 0
    while i < count:
        n, bits = _gather_ptes(m, first + i, first + count, alike)
        if bits & DIRTY:
            f.flags[head] |= PAGE_DIRTY
        if f.flags[head] & PAGE_DIRTY and not m.n[DROPPABLE]:
            _set_ptes(m, first + i, n, bits)
            f.flags[head] |= SWAPBACKED
            return i
        for j in range(i, i + n):
            unmap_pte(f, pfn_of(m.pte[first + j]))
            m.pte[first + j] = 0
        i += n
    return count


class _Reclaim:
    """One MADV_PAGEOUT: *gone* grows."""

    def __init__(self, mm: Mm, recorded: set[int] | None, placed: dict[int, int]) -> None:
        self.mm = mm
        self.recorded = recorded
        self.placed = placed
        #: Pinned for DMA: reclaim leaves them mapped (folio_maybe_dma_pinned).
        self.pinned = {int(head) for each in mm.host.mms.values() for head in each.dma_pinned()}
        self.rules = mm.host.rules
        #: Dropped even where it is dirty.
        self._droppable = bool(mm.arrays.n[DROPPABLE])
        #: In which bits the PTEs of a lazily freed folio must be alike to be taken together.
        self._alike = np.uint64(0)
        if self.rules.unmap_batches_lazyfree:
            self._alike = UFFD_WP | RW if self.rules.unmap_batch_ends_at_write else UFFD_WP
        self.gone: list[int] = []

    def range(self, start: int, end: int) -> None:
        """Pages *start* to *end*; a folio is all inside."""
        page = start
        while page < end:
            if self.mm.arrays.pmd[page // HPAGE] & PSE:
                self._huge(page // HPAGE)
                page += HPAGE
                continue
            head = self.mm.folio(page)
            f = self.mm.host.frames.arrays
            if head > ZERO_PFN and f.flags[head] & HEAD:
                pages = int(folio_nr_pages(f, head))
                self._large(page, head, pages)
                page += pages
                continue
            if can_swap(self.mm, page):
                self._small(page, self.mm.pfn(page))
            page += 1

    # -- by size -------------------------------------------------------------------------------------------------

    def _small(self, page: int, pfn: int) -> None:
        self._isolate(pfn)
        young = False
        if self.rules.pageout_asks_references:
            self.mm.arrays.pte[page] &= ~ACCESSED
            young = bool(self.mm.notifiers.clear_flush_young(page, page + 1)[0])
        flags = self.mm.host.frames.arrays.flags
        if young:
            self._put_back(pfn, referenced=True)
        elif not flags[pfn] & SWAPBACKED:
            invalidate_folio([self.mm], page, 1, pfn)
            if self.mm.host.frames.arrays.refcount[pfn] > 1:
                self._lazily_freed_and_held(page, pfn, 1)
            else:
                self._lazily_freed(page, pfn)
        elif pfn in self.pinned or (self.recorded is not None and page not in self.recorded):
            self._put_back(pfn)
        else:
            held = self.mm.host.frames.arrays.refcount[pfn] > (2 if flags[pfn] & SWAPCACHE else 1)
            self._swap(page, 1)
            if held:
                self._put_back(pfn)

    def _large(self, page: int, head: int, pages: int) -> None:
        """A large folio of *pages* that PTEs map, in order from *page* on."""
        f = self.mm.host.frames.arrays
        mapped = int(folio_mapcount(f, head))
        if not f.flags[head] & LRU or mapped != pages:
            return
        pinned = int(f.refcount[head]) != mapped
        self._isolate(head)
        if not f.flags[head] & SWAPBACKED:
            invalidate_folio([self.mm], page, pages, head)
            if pinned:
                self._lazily_freed_and_held(page, head, pages)
            else:
                self._lazily_freed(page, head)
        else:
            # Not to be split: activate_locked.
            self._put_back(head, active=pinned and head not in self.pinned)
            if not pinned:
                self._whole_or_in_pieces(page, pages)

    def _huge(self, block: int) -> None:
        """A huge page that a PMD maps."""
        mm, f = self.mm, self.mm.host.frames.arrays
        head, page = mm.folio(block * HPAGE), block * HPAGE
        if head == HUGE_ZERO_PFN or not f.flags[head] & LRU or f.refcount[head + 1] != 1:
            return
        pinned = int(f.refcount[head]) != 1
        self._isolate(head)
        young = False
        if self.rules.pageout_asks_references:
            mm.arrays.pmd[block] &= ~ACCESSED
            young = bool(mm.notifiers.clear_flush_young(page, page + HPAGE).any())
        if young:
            self._put_back(head, referenced=True)
        elif f.flags[head] & SWAPBACKED:
            self._put_back(head, active=pinned and head not in self.pinned)
            if not pinned:
                self._whole_or_in_pieces(page, HPAGE)
        elif self.rules.reclaim_splits_lazyfree:
            if split_folio(mm, page):
                for each in range(page, page + HPAGE):
                    self._small(each, mm.pfn(each))
            else:
                # keep_locked.
                self._put_back(head)
        else:
            invalidate_folio([mm], page, HPAGE, head)
            if self.rules.lazyfree_keeps_pmd:
                self._lazily_freed_pmd(block, head, pinned)
            else:
                split_block_pmd(mm, block)
                if pinned:
                    self._lazily_freed_and_held(page, head, HPAGE)
                else:
                    self._lazily_freed(page, head)

    # -- what becomes of it ----------------------------------------------------------------------------------------

    def _isolate(self, head: int) -> None:
        flags = self.mm.host.frames.arrays.flags
        if flags[head] & ACTIVE:
            flags[head] |= WORKINGSET
        flags[head] &= ~(LRU | REFERENCED | YOUNG | ACTIVE)

    def _put_back(self, head: int, *, active: bool = False, referenced: bool = False) -> None:
        """folio_putback_lru; *active*: shrink_folio_list's activate_locked."""
        flags, host = self.mm.host.frames.arrays.flags, self.mm.host
        flags[head] |= LRU | (REFERENCED if referenced else np.uint32(0))
        if active:
            activate_locked(host.frames.arrays, host.r, head)

    def _lazily_freed(self, page: int, head: int) -> None:
        f = self.mm.host.frames.arrays
        count = int(folio_nr_pages(f, head))
        went = int(_discard(f, self.mm.arrays, page, head, self._alike))
        self.gone.extend(range(page, page + went))
        if went < count:
            self._put_back(head, active=True)

    def _lazily_freed_and_held(self, page: int, head: int, pages: int) -> None:
        """The same where somebody holds the folio: it stays mapped, and active; swap-backed again, or (later) only if it is dirty.

        The first PTEs that are taken together end it (try_to_unmap_one: ref_count != 1 + map_count); they come back with what they had.
        """
        f, m = self.mm.host.frames.arrays, self.mm.arrays
        n, bits = _gather_ptes(m, page, page + pages, self._alike)
        _set_ptes(m, page, n, bits)
        if bits & DIRTY:
            f.flags[head] |= PAGE_DIRTY
        if (f.flags[head] & PAGE_DIRTY or not self.rules.lazyfree_held_stays) and not self._droppable:
            f.flags[head] |= SWAPBACKED
        self._put_back(head, active=True)

    def _lazily_freed_pmd(self, block: int, head: int, pinned: bool) -> None:
        """__discard_anon_folio_pmd_locked: the huge page goes with its table, or stays huge."""
        mm, f = self.mm, self.mm.host.frames.arrays
        if mm.arrays.pmd[block] & DIRTY:
            f.flags[head] |= PAGE_DIRTY
        if f.flags[head] & PAGE_DIRTY and not self._droppable:
            f.flags[head] |= SWAPBACKED
        elif not pinned:
            page = block * HPAGE
            unmap(mm, page, page + HPAGE)
            mm.arrays.pmd[block] = 0
            self.gone.extend(range(page, page + HPAGE))
            return
        self._put_back(head, active=True)

    def _whole_or_in_pieces(self, page: int, pages: int) -> None:
        """Swap space for all of a large folio lets it go unsplit; else it is split first, and its pages go one by one."""
        every = range(page, page + pages)
        if self.recorded is None or (self.recorded.issuperset(every) and self._in_a_row(page, pages)):
            split_folio(self.mm, page, remap=False)
            self._swap(page, pages)
        elif not self.recorded.isdisjoint(every):
            split_folio(self.mm, page)
            for each in every:
                if can_swap(self.mm, each):
                    self._small(each, self.mm.pfn(each))

    def _in_a_row(self, page: int, pages: int) -> bool:
        """Did the kernel give the folio's pages one aligned row of slots (folio_alloc_swap), so that it went whole?"""
        if not self.placed:
            return True
        first = self.placed.get(page, -1)
        return first % pages == 0 and all(self.placed.get(page + i) == first + i for i in range(pages))

    def _swap(self, page: int, count: int) -> None:
        host, f = self.mm.host, self.mm.host.frames.arrays
        invalidate_folio([self.mm], page, count, self.mm.pfn(page))
        wanted = None
        if f.flags[self.mm.folio(page)] & SWAPCACHE:
            # It has its slots still.
            wanted = np.flatnonzero(host.slots[CACHED] == self.mm.pfn(page))
        elif all(page + i in self.placed for i in range(count)):
            wanted = np.array([self.placed[page + i] for i in range(count)], np.int64)
        slots = host.swap_slots(count, wanted)
        entries = swp_entry(np.zeros(count, np.uint64), slots.astype(np.uint64))
        _to_swap(host.frames.reserve(0, 0, count + 64), self.mm.arrays, page, slots, entries)
        self.gone.extend(range(page, page + count))
