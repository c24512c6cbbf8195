"""``struct mm_struct``: one process's address space, and the accesses that go through it.

Pages are numbered from 0 in the area's order, 512 to a block. ``numbers`` gives the true number of each block
in the address space where blocks are not adjacent (a trace's touched blocks): one area holds them all, gaps and all, until advice cuts it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from secondsight.bits.pte import MAPPED, PFN_MASK, PSE, RW
from secondsight.errors import UsageError
from secondsight.geometry import BLOCK_MASK
from secondsight.mm import gup, memory, pgtable
from secondsight.mm.huge_memory import cut_area
from secondsight.mm.mmu_notifier import MmuNotifiers
from secondsight.mm.page import DIRTY as PAGE_DIRTY
from secondsight.mm.page import (
    EXCLUSIVE,
    HEAD,
    HPAGE,
    HUGE_ZERO_PFN,
    TAIL,
    ZERO_FILLED,
    ZERO_PFN,
    head_of,
    heads_of,
    put_page,
)
from secondsight.mm.pgtable import MmArrays
from secondsight.mm.protocols import HostLike, SharedMemoryLike
from secondsight.mm.vma import VmaList, VmArea, VmFlags

Pages = npt.NDArray[np.int64]


class MmHost(HostLike, Protocol):
    """The machine of an mm: one that makes others too (``Host``)."""

    @property
    def mms(self) -> dict[str, Mm]:
        """Every mm, by name."""

    def mm(
        self, name: str, blocks: int, *, numbers: npt.NDArray[np.int64] | None = None, droppable: bool = False
    ) -> Mm:
        """A new mm."""


class Mm:
    """One process. Make it with :meth:`Host.mm`."""

    def __init__(
        self, host: MmHost, name: str, blocks: int, *, numbers: npt.NDArray[np.int64] | None = None, droppable: bool = False
    ) -> None:  # fmt: skip
        """*blocks* aligned 2 MiB blocks, nothing mapped; *numbers* int64[blocks], rising: their true block numbers; *droppable*: mapped
        with MAP_DROPPABLE.

        :raises UsageError: no block, or the kernel has no droppable mappings.
        """
        if blocks < 1:
            raise UsageError(f"space {name!r} needs at least one block, not {blocks}")
        if droppable and not host.rules.has_droppable:
            raise UsageError(f"{host.rules.name} has no MAP_DROPPABLE, which came in 6.11")
        self.host: MmHost = host
        self.name, self.blocks, self.npages = name, blocks, blocks * HPAGE
        self.numbers = np.arange(blocks, dtype=np.int64) if numbers is None else numbers
        self.notifiers = MmuNotifiers(
            built_in=host.config.mmu_notifier,
            protection=host.rules.notifier_protection,
            has_clear_young=host.rules.has_clear_young,
            context=host.context,
        )
        self.exited = False
        #: Those that it was forked from, the eldest first, and whether it has forked itself.
        self.ancestors: tuple[Mm, ...] = ()
        self.has_forked = False
        self.denied = 0
        self.pins: dict[str, list[int]] = {}
        #: Of these, the ones that FOLL_PIN took.
        self.dma_pins: dict[str, list[int]] = {}
        # One area, also where the numbers have gaps: a trace does not tell mappings apart.
        flags = VmFlags.READ | VmFlags.WRITE | (VmFlags.DROPPABLE if droppable else VmFlags(0))
        self.vmas = VmaList([VmArea(0, blocks * HPAGE, flags)])
        self.arrays = MmArrays(
            pmd=np.zeros(blocks, np.uint64),
            pte=np.zeros(blocks * HPAGE, np.uint64),
            vma=np.zeros(blocks, np.uint8),
            vma_page=np.zeros(0, np.uint8),
            swap=host.slots,
            n=np.zeros(pgtable.COUNTERS, np.int64),
            cache=np.zeros(0, np.int64),
            file=np.zeros(0, np.int64),
        )
        self.arrays.n[pgtable.DROPPABLE] = droppable
        #: What the area maps, and from which block of it on, where it is a shared mapping.
        self.memory: SharedMemoryLike | None = None
        self.memory_block = 0
        #: Whether a fault may ever have mapped a huge page or the huge zero page here.
        self.huge_ever = False
        self.fault_huge: npt.NDArray[np.bool_] | None = None
        self.refresh()

    def share(self, memory: SharedMemoryLike, block: int, *, writable: bool = True) -> None:
        """The area is a mapping of *memory* from *block* on, shared, or (a file's) not *writable*; nothing has been accessed yet.

        :raises UsageError: the memory is not as long as that.
        """
        self.arrays = self.arrays._replace(cache=memory.map(self, block))
        self.memory, self.memory_block = memory, block
        if not memory.is_shmem:
            self.arrays = self.arrays._replace(file=memory.cache)
            self.arrays.n[pgtable.FILE_FIRST] = block * HPAGE
        flags = VmFlags.READ | (VmFlags.WRITE if writable else VmFlags(0))
        self.vmas = VmaList(
            [replace(vma, shared=True, regular=not memory.is_shmem, flags=flags) for vma in self.vmas.areas]
        )
        self.refresh()

    # -- areas ---------------------------------------------------------------------------------------------------

    def check_range(self, start: int, end: int) -> None:
        """:raises UsageError: pages *start* to *end* (exclusive) are none, or not all of the space."""
        if not 0 <= start < end <= self.npages:
            raise UsageError(
                f"pages {start} to {end} are no range of space {self.name!r} of {self.npages} pages"
            )

    def refresh(self) -> None:
        """Carry areas, sysfs and swap over to what compiled code reads.

        ``fault_huge`` bool[blocks]: where a fault finds a free huge page; None: everywhere. Elsewhere it falls back to small ones.
        """
        pages = self.vmas.encode(self.arrays.vma, self.arrays.vma_page, self.host.config)
        if self.fault_huge is not None:
            self.arrays.vma[~self.fault_huge] &= np.uint8(255 ^ pgtable.V_HUGE)
        self._may_huge = bool((self.arrays.vma & np.uint8(pgtable.V_HUGE | pgtable.V_MIXED)).any())
        self.arrays = self.arrays._replace(vma_page=pages, swap=self.host.slots)

    def change_areas(self, start: int, end: int, change: Callable[[VmFlags], VmFlags]) -> None:
        """Give pages *start* to *end* new vm_flags; an area that grows by vma_merge may be registered with khugepaged.

        An area that is cut inside a block comes through ``cut_area`` first.
        """
        for edge in (start, end):
            if edge % HPAGE and edge < self.npages:
                vma = self.vmas.at(edge)
                if vma.start < edge and change(vma.flags) != vma.flags:
                    cut_area(self, edge)
        for vma in self.vmas.update(start, end, change, merges_unfaulted=self.host.rules.merge_unfaulted):
            self.host.khugepaged.enter_vma(self, vma)
        self.refresh()

    def note_anon(self, pages: Pages) -> None:
        """anon_vma_prepare, seen after an access to *pages*: an area with an anonymous page, a swap entry or a huge PMD has an anon_vma."""
        areas = self.vmas.areas
        if self.memory is not None or not len(pages) or all(vma.anon_vma for vma in areas):
            return
        starts = np.array([vma.start for vma in areas], np.int64)
        which = np.searchsorted(starts, pages, side="right") - 1
        for index in np.unique(which).tolist():
            vma = areas[index]
            if not vma.anon_vma and self._has_anon(pages[which == index]):
                self.vmas.set_anon(vma)
                self.host.khugepaged.enter_by_fault(self, vma)

    def _has_anon(self, pages: Pages) -> bool:
        """Whether one of *pages* is anonymous memory, small or huge, present or swapped out."""
        a = self.arrays
        pmd = a.pmd[pages // HPAGE]
        pte = a.pte[pages]
        zero_page = ((pte & MAPPED) != 0) & ((pte & PFN_MASK) == 0)
        small = (pmd != 0) & (pte != 0) & ~zero_page
        return bool((((pmd & PSE) != 0) | small).any())

    # -- accesses -----------------------------------------------------------------------------------------------

    def run_faults(self, pages: Pages, step: Callable[[int, bool], int], who: str) -> None:
        """Drive a compiled access by *who* over *pages*: notifiers run for the pages it stops at; accesses that an area denies are
        left out and counted in ``denied``.

        :raises UsageError: the process has exited.
        """
        if self.exited:
            raise UsageError(f"space {self.name!r} has exited: {who} cannot access it")
        huge = self.huge_faults(pages)
        parts = self._large_faults(pages)
        empty = self.host.khugepaged.empty_blocks(self, pages) if huge else []
        # What a forced readahead brings beside them.
        ahead = len(self.arrays.file)
        at, notified = 0, False
        while at < len(pages):
            self.host.frames.reserve(len(pages) - at + ahead, huge + ahead // HPAGE, 1024, parts)
            at = step(at, notified)
            if at == len(pages):
                break
            if at < 0:
                # SIGSEGV, EFAULT: this access is denied, what follows is made.
                at, notified = -at, False
                self.denied += 1
                continue
            first, count = int(pages[at]), 1
            if self.arrays.pmd[first // HPAGE] & PSE:
                first, count = first & ~BLOCK_MASK, HPAGE
            self.notifiers.invalidate_range(first, first + count)
            notified = True
        self.note_anon(pages)
        self.host.khugepaged.enter_by_huge_faults(self, empty)

    def huge_faults(self, pages: Pages) -> int:
        """At most how many huge pages accesses to *pages* allocate: where an area may have them, or the huge zero page is mapped."""
        if self.memory is not None:
            return len(np.unique(pages // HPAGE))
        self.huge_ever |= self._may_huge | self.host.rules.cow_copies_huge
        if not self.huge_ever:
            return 0
        blocks = np.unique(pages // HPAGE) if len(pages) < 4096 else slice(None)
        pmd = self.arrays.pmd[blocks]
        may = (pmd == 0) & ((self.arrays.vma[blocks] & np.uint8(pgtable.V_HUGE | pgtable.V_MIXED)) != 0)
        if self.host.rules.cow_copies_huge:
            may |= ((pmd & PSE) != 0) & ((pmd & RW) == 0)
        return int((may | ((pmd & PFN_MASK) == pgtable.HUGE_ZERO_PMD & PFN_MASK)).sum())

    def _large_faults(self, pages: Pages) -> int:
        """At most how many pages accesses to *pages* allocate in large folios below the PMD's order."""
        r = self.host.r
        # A block's pages may be allocated anew twice: a folio that comes back from swap may be too large to be written in place.
        parts = r.orders_plain | r.orders_advised
        if self.memory is not None:
            parts = (r.shmem_plain | r.shmem_advised) & (HPAGE - 1)
        return 2 * len(np.unique(pages // HPAGE)) * HPAGE if parts else 0

    def cpu_access(self, pages: Pages, *, write: bool, value: int | None = None) -> None:
        """The process loads or stores *pages* (int64, any order, repetition allowed) through the primary page table.

        *value*: what a store fills the page with: 0 leaves it zero-filled, equal values let KSM merge.
        """
        pages = np.ascontiguousarray(pages, dtype=np.int64)
        self._check(pages)

        def step(start: int, notified: bool) -> int:
            h = self.host
            return int(
                memory.cpu_access(
                    h.frames.arrays, h.r, self.arrays, pages, write, start, notified, bool(self.notifiers)
                )
            )

        self.run_faults(pages, step, "the process")
        if write:
            self.wrote(pages, value)

    def wrote(self, pages: Pages, value: int | None = None) -> None:
        """What stores to *pages*, by whomever, left in them: *value* all over, or (None) a content of each page's own.

        A store that was denied left nothing: after one that was made the entry permits it.
        """
        content, flags = self.host.content, self.host.frames.arrays.flags
        if value is None and not content:
            pmd = self.arrays.pmd[pages // HPAGE]
            huge = (pmd & PSE) != 0
            entries = np.where(huge, pmd, self.arrays.pte[pages])
            pfns = ((entries & PFN_MASK) >> pgtable.PFN_SHIFT).astype(np.int64) + np.where(
                huge, pages & BLOCK_MASK, 0
            )
            flags[pfns[(entries & RW) != 0]] &= ~ZERO_FILLED
            return
        for page in pages.tolist():
            pmd = self.arrays.pmd[page // HPAGE]
            if not (pmd if pmd & PSE else self.arrays.pte[page]) & RW:
                continue
            pfn = self.pfn(page)
            flags[pfn] &= ~ZERO_FILLED
            if value is None:
                content.pop(pfn, None)
            else:
                content[pfn] = value
                if value == 0:
                    flags[pfn] |= ZERO_FILLED

    def _check(self, pages: Pages) -> None:
        if len(pages) and (pages.min() < 0 or pages.max() >= self.npages):
            bad = int(pages[(pages < 0) | (pages >= self.npages)][0])
            raise UsageError(f"page {bad} lies outside space {self.name!r} of {self.npages} pages")

    # -- gup -----------------------------------------------------------------------------------------------------

    def pin(
        self, pages: Pages, name: str, *, write: bool = False, unshare: bool = False, longterm: bool = False
    ) -> None:
        """get_user_pages_fast, keeping a reference on each page under *name*: fast where it can, else the slow path, which touches.

        *unshare*: pin_user_pages_fast (FOLL_PIN), which first makes shared pages the process's own even for reading.
        *longterm*: FOLL_PIN and FOLL_LONGTERM, as io_uring pins its registered buffers: each run of pages is one call, whose fast part ends
        at the first page that it cannot take (mm/gup.c internal_get_user_pages_fast: the slow path takes all that remain).
        """
        touch = not longterm or self.host.rules.longterm_pins_touch
        pages = np.ascontiguousarray(pages, dtype=np.int64)
        self._check(pages)
        held = self.pins.setdefault(name, [])
        host = self.host
        slow = np.zeros(len(pages), np.bool_)

        def step(start: int, notified: bool) -> int:
            f = host.frames.arrays
            for i in range(start, len(pages)):
                page = int(pages[i])
                just_notified = notified and i == start
                if unshare and not write:
                    before = self.pfn(page)
                    alone = before >= 0 and bool(f.flags[before] & EXCLUSIVE)
                    done = just_notified or not self.notifiers
                    if memory.unshare_page(f, host.r, self.arrays, page, done) == memory.ACCESS_NOTIFY:
                        return i
                    # Made the process's own in place, it was no page for the fast path either (gup_must_unshare).
                    missed = self.pfn(page) != before or (
                        before >= 0 and not alone and bool(f.flags[before] & EXCLUSIVE)
                    )
                else:
                    missed = longterm and i > 0 and bool(slow[i - 1]) and page == int(pages[i - 1]) + 1
                pfn = (
                    gup.MISS
                    if missed or not touch
                    else int(gup.gup_fast(f, host.r, self.arrays, page, write))
                )
                if pfn == gup.MISS:
                    slow[i] = True
                    asked = just_notified, bool(self.notifiers), int(touch)
                    pfn = int(gup.gup_slow(f, host.r, self.arrays, page, write, *asked))
                if pfn == gup.NOTIFY:
                    return i
                if pfn == gup.NOT_PERMITTED:
                    return -1 - i
                held.append(pfn)
            return len(pages)

        before = len(held)
        self.run_faults(pages, step, "gup")
        if longterm:
            self.dma_pins.setdefault(name, []).extend(held[before:])

    def dma_pinned(self) -> Pages:
        """The folios that are pinned for DMA (folio_maybe_dma_pinned): their head pfns, ascending."""
        pfns = np.array([pfn for held in self.dma_pins.values() for pfn in held], np.int64)
        return np.unique(heads_of(self.host.frames.arrays.flags[pfns], pfns))

    def unpin(self, name: str) -> None:
        """put_page on everything pinned under *name*; a page that lived only by its pin is freed.

        :raises UsageError: nothing is pinned under *name*.
        """
        if name not in self.pins:
            raise UsageError(f"space {self.name!r} holds no pins called {name!r}")
        self.dma_pins.pop(name, None)
        f = self.host.frames.reserve(0, frees=1024 + len(self.pins[name]))
        for pfn in self.pins.pop(name):
            if pfn != ZERO_PFN and (pfn & ~BLOCK_MASK) != HUGE_ZERO_PFN:
                put_page(f, pfn)

    def direct_io(self, pages: Pages, *, write: bool) -> None:
        """A device reads from *pages* or stores into them (*write*): O_DIRECT, pinned only until the call returns.

        What it stored into is dirty, compound pages left out (bio_release_pages).
        """
        self.pin(pages, "\0io", write=write, unshare=self.host.rules.direct_io_pins)
        if write:
            self.wrote(np.ascontiguousarray(pages, dtype=np.int64))
            f = self.host.frames.arrays
            for pfn in self.pins["\0io"]:
                if not f.flags[pfn] & (HEAD | TAIL):
                    f.flags[pfn] |= PAGE_DIRTY
        self.unpin("\0io")

    def take(self, other: Mm) -> None:
        """Become what *other* is: an mm of as many blocks, on a host whose frames were taken over too, where nothing is pinned."""
        self.vmas.areas = list(other.vmas.areas)
        self.huge_ever, self.denied = other.huge_ever, other.denied
        mine, theirs = self.arrays, other.arrays
        mine.pmd[:], mine.pte[:], mine.n[:] = theirs.pmd, theirs.pte, theirs.n

    # -- looking -----------------------------------------------------------------------------------------------

    def pfn(self, page: int) -> int:
        """The frame behind *page*; -1 where none is mapped."""
        pmd = self.arrays.pmd[page // HPAGE]
        if pmd & PSE:
            return int(pgtable.pfn_of(pmd)) + (page & BLOCK_MASK)
        entry = self.arrays.pte[page]
        return int(pgtable.pfn_of(entry)) if pmd and entry & MAPPED else -1

    def folio(self, page: int) -> int:
        """The pfn that holds the flags of the folio behind *page*; -1 where none is mapped."""
        pfn = self.pfn(page)
        return int(head_of(self.host.frames.arrays, pfn)) if pfn >= 0 else -1
