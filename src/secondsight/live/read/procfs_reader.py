"""Blocks of a process from procfs: what is there and how often it is mapped, page flags where root may see them, no accessed bit.

::

    pagemap        ─▶  present, swapped, frame, mapped more than once       PAGEMAP_SCAN  ─▶  PMD-mapped, zero page
    kpageflags     ─▶  flags, REFERENCED, the zero page, the swap cache     kpagecount    ─▶  mapcount of what is mapped more than once

The numbers a page lie where the columns will that are made of them, and are worked on a few blocks at a time: reading 1 GiB costs
little more than its system calls. What PRIMARY was, ``resolve_unknowns.py`` finds out afterwards where it can.
"""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from secondsight.bits import pageflags as kpf
from secondsight.bits import pagemap as pm
from secondsight.bits import pte as bits
from secondsight.bits import swap
from secondsight.errors import MissingDependency
from secondsight.geometry import BLOCK_MASK, HPAGE_PMD_NR, PAGE_SHIFT, PAGE_SIZE, PMD_ORDER
from secondsight.live.read.columns import U64, Bools, Columns, Secondary
from secondsight.live.read.folio_sizes import FolioSizes, folio_sizes
from secondsight.live.read.frame_table import FrameTable
from secondsight.live.read.process import Process
from secondsight.live.read.procfs import Pagemap

_FRAME_BITS = np.uint64(int(kpf.KPF_MASK))
_PART = 16  # blocks worked on at a time
_READ = 64  # blocks read at a time: a call costs what a block does, and as long as one lasts is told as its cost to the process
#: of a page that is there and that no one else maps
_OWN = pm.PRESENT | pm.EXCLUSIVE
#: stands for a frame that may not be seen (0 would be the zero page): the highest number there is
_HIDDEN = np.uint64(int(bits.PFN_MASK) >> PAGE_SHIFT)


class ProcfsReader:
    """Reads blocks of one process from procfs; a context manager."""

    def __init__(self, process: Process) -> None:
        """Open what may be opened; what may not is unknown later.

        :raises MissingDependency: not even pagemap may be read.
        """
        self._process = process
        self._pagemap = Pagemap(process)
        self.page_flags = _table("/proc/kpageflags")
        self.page_counts = _table("/proc/kpagecount")
        self.trusts_ksm = self.page_flags is not None and not _calls_all_ksm()

    @property
    def pagemap(self) -> Pagemap:
        """The open pagemap."""
        return self._pagemap

    @functools.cached_property
    def vms(self) -> int:
        """KVM VMs that the process holds open; asked when somebody wants to know: a server has thousands of descriptors."""
        links = self._process.list_links("fd").values()
        return sum(link.startswith("anon_inode:kvm-vm") for link in links)

    def secondary_reason(self) -> str:
        """Why the SECONDARY channel is unknown here; empty if nothing secondary can be there."""
        if self.vms:
            return f"{self.vms} KVM VM{'s' * (self.vms > 1)}: which pages the guest used takes kernel memory to see"
        return "an MMU notifier may be registered (RDMA, GPU …); only kernel memory tells"

    def read_blocks(self, blocks: U64, reasons: bool = True) -> Columns:
        """Columns of the 2 MiB blocks at *blocks* (uint64[N], ascending); without *reasons* why SECONDARY is unknown is left out.

        :raises TargetGone: the process exited or called exec meanwhile.
        """
        shape = (len(blocks), HPAGE_PMD_NR)
        nowhere = np.zeros(shape, np.bool_)
        secondary = Secondary("secondary MMUs", nowhere, nowhere, self.secondary_reason() if reasons else "")
        columns = Columns.unread(blocks, secondary=(secondary,), counts_known=False)
        # The frames stand where their folios will, which procfs does not tell apart.
        pfns = columns.folio.view(np.uint64)
        present, hidden, several = (np.zeros(shape, np.bool_) for _ in range(3))
        # And the words where the entries will that are made of them.
        for rows in _parts(len(blocks), _READ):
            self._pagemap.read_blocks(blocks[rows], columns.pte[rows])
        for rows in _parts(len(blocks)):
            some = columns.pte[rows]
            frames = np.bitwise_and(some, pm.PFN_MASK, out=pfns[rows])
            if (np.bitwise_and.reduce(some, axis=None) & _OWN) == _OWN and frames.all():
                # The common case, in a third of the time: all there, seen, mapped once.
                present[rows] = columns.page_known[rows] = True
                _entries(columns, some, frames, rows)
                continue
            some = some.copy()
            here = np.not_equal(some & pm.PRESENT, 0, out=present[rows])
            np.logical_and(here, (some & pm.EXCLUSIVE) == 0, out=several[rows])
            unseen = np.logical_and(here, frames == 0, out=hidden[rows])
            np.logical_not(unseen, out=columns.page_known[rows])
            _entries(columns, some, np.where(unseen, _HIDDEN, frames), rows)
            _but_for(columns, some, here, rows)
        visible = present & ~hidden
        huge = self._huge(columns, pfns, visible, hidden)
        asked = visible
        shared_whole: Bools | None = None
        if huge is not None and huge.any():
            # Of what a PMD maps as a whole, the first page speaks for all.
            asked, shared_whole = visible.copy(), several[huge, 0]
            asked[huge, 1:] = several[huge] = False
        columns = self._pages(columns, pfns, present, asked, several)
        if hidden.any():
            self._mark_zero(columns, hidden)
        if huge is None:
            # No PAGEMAP_SCAN: 512 frames of one aligned THP are taken for a PMD mapping.
            huge = _in_one(pfns, visible) & ((columns.flags[:, 0] & kpf.THP) != 0)
            columns.flags[huge, 1:] = 0
        columns = self._sized(columns, pfns, asked, huge)
        if shared_whole is not None:
            columns.shared[huge, 0] = shared_whole
        # The huge zero page is no memory, and its mark stays, as on any frame that kpageflags tells of.
        zero = huge & ((columns.pte[:, 0] & bits.PFN_MASK) == 0)
        columns.flags[zero, 0] = kpf.ZERO_PAGE
        columns.sizes[zero] = columns.order[zero] = 0
        first = np.where(visible[huge, 0], pfns[huge, 0], np.uint64(0))
        columns.pmd[huge] = bits.PRESENT | bits.PSE | bits.RW | bits.USER | first << bits.PFN_SHIFT
        columns.pte[huge] = 0
        columns.folio[~asked] = -1
        self._process.require_alive()
        return columns

    def _huge(self, columns: Columns, pfns: U64, visible: Bools, hidden: Bools) -> Bools | None:
        """Which blocks a PMD maps; None without PAGEMAP_SCAN, which is asked about those whose frames do not deny it."""
        huge = _in_one(pfns, visible) | hidden[:, 0]
        if huge.any():
            scanned = self._pagemap.huge_blocks(columns.address[huge])
            if scanned is None:
                return None
            huge[huge] = scanned
        return huge

    def _pages(self, columns: Columns, pfns: U64, present: Bools, asked: Bools, several: Bools) -> Columns:
        """*columns* with flags and counts of the frames that are *asked*; *several* are mapped more than once."""
        counts = columns.mapcount
        counts[:] = present
        counts[several] = 2
        columns.shared[several] = True
        cached: Bools | None = None
        if self.page_flags is None:
            columns.flags[:] = 0
            columns.page_known[present] = False
        else:
            keep = _FRAME_BITS if self.trusts_ksm else _FRAME_BITS & ~np.uint64(int(kpf.KSM))
            if 2 * np.count_nonzero(asked) <= asked.size:
                columns.flags[:] = 0
                columns.flags[asked] = self.page_flags.read(pfns[asked], keep=keep)
            else:
                # One that is asked anyway stands for each that is not: less work than leaving those out.
                rest = ~asked
                pfns[rest] = pfns.reshape(-1)[asked.argmax()]
                self.page_flags.read(pfns, columns.flags, keep)
                columns.flags[rest] = 0
            cached = _apply_page_flags(columns)
        several &= asked
        if self.page_counts is not None and several.any():
            held = self.page_counts.read(pfns[several])
            counts[several] = np.minimum(held, np.uint64(1 << 30)).astype(np.int32)
            columns.shared[several] = held > 1
        # What procfs tells of a folio is its page's own: one column is all three, where no page is in the swap cache.
        return columns if cached is None else replace(columns, refcount=counts + cached)

    def _sized(self, columns: Columns, pfns: U64, asked: Bools, huge: Bools) -> Columns:
        """*columns* with the sizes of its folios; nothing but the zero page is no folio's."""
        table = self.page_flags
        if table is not None:
            mapped = asked & ((columns.pte & bits.PFN_MASK) != 0)
            mapped[huge] = False

            def flags_of(frames: U64) -> npt.NDArray[np.uint32]:
                return table.read(frames, keep=_FRAME_BITS)

            sizes = folio_sizes(columns.address, pfns, columns.flags, mapped, flags_of)
            columns.sizes[:] = sizes.pages
            if sizes.pages[:, 1:].any():
                columns = _of_large(columns, pfns, sizes)
        columns.sizes[huge] = 0
        columns.sizes[huge, PMD_ORDER] = HPAGE_PMD_NR
        columns.order[huge, 0] = PMD_ORDER
        return columns

    def _mark_zero(self, columns: Columns, hidden: Bools) -> None:
        """Which of the *hidden* pages (bool[N, 512]) are the zero page: PAGEMAP_SCAN tells without their frames."""
        zero = self._pagemap.zero_pages(columns.address)
        if zero is None:
            return
        zero &= hidden
        columns.pte[zero] &= ~(bits.PFN_MASK | bits.RW)
        columns.page_known[zero] = True
        columns.mapcount[zero] = columns.folio_mapcount[zero] = columns.refcount[zero] = 1
        columns.shared[zero] = False

    def close(self) -> None:
        """Close the files."""
        self._pagemap.close()
        for table in (self.page_flags, self.page_counts):
            if table is not None:
                table.close()

    def __enter__(self) -> ProcfsReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _entries(columns: Columns, words: U64, frames: U64, rows: slice) -> None:
    """Entries of the blocks *rows* as if every page were there, which *words* and *frames* tell of (the words may be where they go)."""
    protected = None
    if np.bitwise_or.reduce(words, axis=None) & pm.UFFD_WP:
        protected = (words & pm.UFFD_WP) != 0
    columns.pmd[rows] = bits.TABLE
    # Which PTEs are writable procfs does not say: taken for writable, as private memory that was written is.
    pte = np.left_shift(frames, bits.PFN_SHIFT, out=columns.pte[rows])
    pte |= bits.PRESENT | bits.USER | bits.RW | bits.DIRTY
    if protected is not None:
        pte[protected] |= bits.UFFD_WP


def _but_for(columns: Columns, words: U64, present: Bools, rows: slice) -> None:
    """Put right the entries of the blocks *rows* whose page is not *present*: swapped out, or nothing."""
    pte = columns.pte[rows]
    absent = np.logical_not(present, out=columns.pte_known[rows])
    pte[absent] = 0
    swapped = (words & pm.SWAPPED) != 0
    if swapped.any():
        some = words[swapped]
        pte[swapped] = swap.from_pagemap(some)
        # Swap, or one of the kernel's own entries: where the type is hidden, page_known says so of what is not present.
        columns.page_known[rows][swapped] = swap.kind_known(some)
    columns.pmd[rows][~(present | swapped).any(axis=1)] = 0


def _in_one(pfns: U64, visible: Bools) -> Bools:
    """Which blocks' frames lie as a PMD's mapping has them, in a row from a multiple of 512; bool[N]."""
    first, last = pfns[:, 0], pfns[:, BLOCK_MASK]
    may = (
        visible[:, 0]
        & visible[:, BLOCK_MASK]
        & (first % np.uint64(HPAGE_PMD_NR) == 0)
        & (last == first + np.uint64(BLOCK_MASK))
    )
    rows = np.flatnonzero(may)
    may[rows] = visible[rows].all(axis=1) & (np.diff(pfns[rows].view(np.int64), axis=1) == 1).all(axis=1)
    return may


def _of_large(columns: Columns, pfns: U64, sizes: FolioSizes) -> Columns:
    """*columns* with what is known of large folios: their order, their head, and what the swap cache holds of them."""
    columns.order[:] = sizes.order
    columns.page_known[sizes.torn] = False
    large = np.nonzero(sizes.order)
    orders = sizes.order[large].astype(np.uint64)
    pfns[large] = pfns[large] >> orders << orders
    if columns.refcount is not columns.mapcount:
        # One reference is in there already.
        held = (columns.flags[large] & kpf.SWAPCACHE) != 0
        columns.refcount[large] += held * ((1 << orders.astype(np.int32)) - 1)
    return columns


def _apply_page_flags(columns: Columns) -> Bools | None:
    """Clear the frames of what the flags say is the zero page; which pages are in the swap cache, None if none is."""
    cached: Bools | None = None
    for rows in _parts(len(columns.flags)):
        flags = columns.flags[rows]
        telling = flags & (kpf.ZERO_PAGE | kpf.SWAPCACHE)
        if telling.any():
            zero = (telling & kpf.ZERO_PAGE) != 0
            columns.pte[rows][zero] &= ~(bits.PFN_MASK | bits.RW)
            flags[zero] = 0
            cached = np.zeros(columns.flags.shape, np.bool_) if cached is None else cached
            np.equal(telling, kpf.SWAPCACHE, out=cached[rows])
    return cached


def _parts(blocks: int, size: int = _PART) -> list[slice]:
    """*blocks* in pieces whose arrays of a number a page fit into a core's cache: fresh memory for the whole costs its page faults."""
    return [slice(at, at + size) for at in range(0, blocks, size)]


def _table(path: str) -> FrameTable | None:
    try:
        return FrameTable(path)
    except MissingDependency:
        return None


@functools.cache
def _calls_all_ksm() -> bool:
    """Whether this kernel's kpageflags shows KPF_KSM on every anonymous page (6.9 to 6.15 test ``mapping & 3``, which
    PAGE_MAPPING_ANON alone satisfies): asked, once, of a page of our own that cannot be merged."""
    import mmap

    with mmap.mmap(-1, PAGE_SIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as page:
        page[0] = 1
        try:
            with Process.open(_own_pid()) as own, Pagemap(own) as pagemap, FrameTable() as table:
                word = pagemap.read(_address_of(page), 1)[0] & pm.PFN_MASK
                return bool(word) and bool(int(table.read(np.array([word]))[0]) & int(kpf.KSM))
        except MissingDependency:
            return False


def _own_pid() -> int:
    import os

    return os.getpid()


def _address_of(page: object) -> int:
    return int(np.frombuffer(page, np.uint8, 1).ctypes.data)  # type: ignore[call-overload]
