"""Blocks of a running process as columns, from whatever may be read: procfs alone, or kernel memory.

::

                      procfs                                   kernel memory
    pte, pmd          present, PFN, swapped; no accessed bit    the entries themselves
    PRIMARY           unknown (known where smaps rules it out)  known
    REFERENCED        KPF_REFERENCED; PG_young not seen         known, PG_young too
    SECONDARY         unknown if any notifier may be there      KVM: known; a notifier that cannot be read: unknown
    references held   unknown                                   known

Imports nothing that a small guest does not have (NumPy, drgn); ``view.py`` turns the columns into the judgement's view.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from secondsight.bits import pageflags as kpf
from secondsight.bits import pagemap as pm
from secondsight.bits import pte as bits
from secondsight.errors import MissingPart
from secondsight.live.process import Process
from secondsight.live.procfs import FrameTable, Pagemap
from secondsight.live.room import unset
from secondsight.live.vma import Vma

if TYPE_CHECKING:
    from secondsight.live.kmem import Kernel

U64 = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]
_FRAME_BITS = np.uint64(int(kpf.KPF_MASK))
_PART = 16  # blocks worked on at a time
_READ = 64  # blocks read at a time: a call costs what a block does, and as long as one lasts is told as its cost to the process
#: of a page that is there and that no one else maps
_OWN = pm.PRESENT | pm.EXCLUSIVE
#: stands for a frame that may not be seen (0 would be the zero page): the highest number there is
_HIDDEN = np.uint64(int(bits.PFN_MASK) >> 12)


@dataclass(frozen=True, slots=True)
class Secondary:
    """One notifier's answers: *young*, *known* bool[N, 512]; *why* says why what is not known is not."""

    name: str
    young: Bools
    known: Bools
    why: str = ""


@dataclass(frozen=True, slots=True)
class Columns:
    """N blocks x 512 pages, as read.

    address, pmd uint64[N]; pte uint64[N, 512], the zero page as frame 0; flags uint32 (``bits.pageflags``); mapcount,
    folio_mapcount, refcount int32; shared bool; folio int64 (head's frame, -1: none); pte_known bool: the accessed bit is
    real; page_known bool; zap_marks uint8: accessed SPTEs over the page; all [N, 512]. *counts_known* False: references beyond the
    mappings could not be seen. gfn int64[N]: guest frame of the block's first page (-1: no VM), slot int32[N].
    """

    address: U64
    pmd: U64
    pte: U64
    flags: npt.NDArray[np.uint32]
    mapcount: npt.NDArray[np.int32]
    folio_mapcount: npt.NDArray[np.int32]
    refcount: npt.NDArray[np.int32]
    shared: Bools
    folio: npt.NDArray[np.int64]
    pte_known: Bools
    page_known: Bools
    zap_marks: npt.NDArray[np.uint8]
    gfn: npt.NDArray[np.int64]
    slot: npt.NDArray[np.int32]
    counts_known: bool = True
    secondary: tuple[Secondary, ...] = field(default=())

    @classmethod
    def empty(cls, blocks: U64, **facts: object) -> Columns:
        """Columns for the blocks at *blocks* (uint64[N]), all zero and known; *facts* are the fields that are not arrays."""
        found = cls.unread(blocks, **facts)
        found.pte[:], found.folio[:], found.flags[:], found.mapcount[:] = 0, -1, 0, 0
        found.page_known[:] = found.pte_known[:] = True
        counts = (np.zeros(found.pte.shape, np.int32) for _ in range(2))
        return replace(found, folio_mapcount=next(counts), refcount=next(counts))

    @classmethod
    def unread(cls, blocks: U64, **facts: object) -> Columns:
        """Columns to be read into: *pte*, *folio*, *flags*, *mapcount* and *page_known* hold anything until they are written.

        *folio_mapcount* and *refcount* are *mapcount* itself; the others are zero, and nothing is known.
        """
        count, page = len(blocks), (len(blocks), 512)
        # The arrays of a number a page lie in one.
        arena = unset(count * 512 * 28)
        taken = 0

        def part(of: type[np.generic]) -> npt.NDArray[Any]:
            nonlocal taken
            start, taken = taken, taken + count * 512 * np.dtype(of).itemsize
            return arena[start:taken].view(of).reshape(page)

        pte, folio, flags, mapcount = part(np.uint64), part(np.int64), part(np.uint32), part(np.int32)
        page_known, shared, pte_known, zap_marks = (
            part(np.bool_),
            part(np.bool_),
            part(np.bool_),
            part(np.uint8),
        )
        shared[:] = pte_known[:] = False
        zap_marks[:] = 0
        return cls(
            address=blocks.copy(), pmd=np.zeros(count, np.uint64), pte=pte, flags=flags, mapcount=mapcount,
            folio_mapcount=mapcount, refcount=mapcount, shared=shared, folio=folio, pte_known=pte_known,
            page_known=page_known, zap_marks=zap_marks, gfn=np.full(count, -1, np.int64),
            slot=np.full(count, -1, np.int32), **facts,  # type: ignore[arg-type]
        )  # fmt: skip

    def chosen(self, rows: npt.NDArray[np.int64]) -> Columns:
        """The blocks *rows*, int64[M], as columns of their own."""
        arrays = {
            each.name: getattr(self, each.name)[rows]
            for each in fields(self)
            if each.name not in ("counts_known", "secondary")
        }
        answers = tuple(replace(a, young=a.young[rows], known=a.known[rows]) for a in self.secondary)
        return replace(self, **arrays, secondary=answers)


class KernelReader:
    """Reads blocks of one process from kernel memory."""

    def __init__(self, kernel: Kernel, process: Process) -> None:
        """Find the process in *kernel*.

        Raises:
            TargetGone, MissingPart: as ``Kernel.find_mm`` and ``Frames``.
        """
        from secondsight.live.frames import Frames

        self._kernel = kernel
        self._process = process
        self._mm = kernel.find_mm(process.pid, process.start_time)
        self._frames = Frames(kernel)
        self._zero = np.uint64(int(kernel.variable("zero_pfn") or kernel.variable("zero_page_pfn") or 0))

    def read_blocks(self, blocks: U64) -> Columns:
        """Columns of the 2 MiB blocks at *blocks* (uint64[N], ascending).

        Raises:
            TargetGone: the process exited or called exec meanwhile.
        """
        from secondsight.errors import TargetGone
        from secondsight.live.pagetable import PageTable

        entries = PageTable(self._kernel, int(self._mm.pgd.value_())).read_blocks(blocks)
        secondary, marks, gfn, slot = self._secondary(blocks)
        found = Columns.empty(blocks, secondary=secondary)
        found.pmd[:], found.pte[:], found.zap_marks[:] = entries.pmd, entries.pte, marks
        found.gfn[:], found.slot[:] = gfn, slot
        found.pte_known[:] = found.page_known[:] = entries.known[:, None]
        present = bits.pte_present(entries.pte)
        pfns = bits.pte_pfn(entries.pte)
        zero = present & (pfns == self._zero) if self._zero else np.zeros(present.shape, np.bool_)
        found.pte[zero] &= ~bits.PFN_MASK
        mapped = present & ~zero
        frames = self._frames.read(pfns[mapped])
        for name in ("flags", "mapcount", "folio_mapcount", "refcount", "shared", "folio"):
            getattr(found, name)[mapped] = getattr(frames, name)
        found.page_known[mapped] &= frames.known
        huge = bits.pmd_trans_huge(entries.pmd)
        if huge.any():
            heads = self._frames.read(bits.pte_pfn(entries.pmd[huge]))
            found.flags[huge, 0], found.page_known[huge, 0] = heads.flags, heads.known
        self._process.require_alive()
        if self._kernel.find_mm(self._process.pid, self._process.start_time).value_() != self._mm.value_():
            raise TargetGone(
                f"process {self._process.pid} ({self._process.name}) called exec while it was read"
            )
        return found

    def _secondary(
        self, blocks: U64
    ) -> tuple[tuple[Secondary, ...], npt.NDArray[np.uint8], npt.NDArray[np.int64], npt.NDArray[np.int32]]:
        from secondsight.live.kmem import Torn
        from secondsight.live.kvm import Vm
        from secondsight.live.notifiers import registered

        shape = (len(blocks), 512)
        marks = np.zeros(shape, np.uint8)
        gfn, slot = np.full(len(blocks), -1, np.int64), np.full(len(blocks), -1, np.int32)
        nowhere = np.zeros(shape, np.bool_)
        try:
            notifiers = registered(self._kernel, self._mm)
        except Torn as torn:
            unread = Secondary(
                "notifiers", nowhere, nowhere, f"the list of notifiers would not hold still ({torn})"
            )
            return (unread,), marks, gfn, slot
        answers = []
        for notifier in notifiers:
            if isinstance(notifier.vm, Vm):
                answers.append(_ask_vm(notifier.vm, notifier.name, blocks, marks, gfn, slot))
            elif notifier.tests_young:
                why = f"{notifier.name} answers test_young from where this reader cannot look"
                answers.append(Secondary(notifier.name, nowhere, nowhere, why))
            else:
                answers.append(Secondary(notifier.name, nowhere, np.ones(shape, np.bool_)))
        return tuple(answers), marks, gfn, slot


def _ask_vm(
    vm: object, name: str, blocks: U64, marks: npt.NDArray[np.uint8],
    gfn: npt.NDArray[np.int64], slot: npt.NDArray[np.int32],
) -> Secondary:  # fmt: skip
    """KVM's answer for each page; fills in *marks*, *gfn* and *slot*."""
    from secondsight.live.kmem import Torn
    from secondsight.live.kvm import Vm

    assert isinstance(vm, Vm)
    shape = (len(blocks), 512)
    try:
        slots = vm.slots()
    except Torn as torn:
        nowhere = np.zeros(shape, np.bool_)
        return Secondary(name, nowhere, nowhere, f"the memslots would not hold still ({torn})")
    sptes = vm.read_blocks(blocks, slots)
    counts = np.bincount(sptes.page[sptes.young], minlength=len(blocks) * 512).reshape(shape)
    np.minimum(counts + marks, 255, out=counts)
    marks[:] = counts
    for entry in slots:
        inside = (blocks >= np.uint64(entry.address)) & (
            blocks < np.uint64(entry.address + (entry.pages << 12))
        )
        inside &= gfn < 0
        gfn[inside] = entry.gfn + ((blocks[inside] - np.uint64(entry.address)) >> np.uint64(12)).astype(
            np.int64
        )
        slot[inside] = entry.number
    known = sptes.known.reshape(shape)
    young = (counts > 0) & known
    return Secondary(
        f"kvm ({vm.mmu})", young, known, "" if known.all() else "KVM's tables would not hold still"
    )


class ProcfsReader:
    """Reads blocks of one process from procfs; a context manager."""

    def __init__(self, process: Process) -> None:
        """Open what may be opened; what may not is unknown later.

        Raises:
            MissingPart: not even pagemap may be read.
        """
        self._process = process
        self._pagemap = Pagemap(process)
        self._flags = _table("/proc/kpageflags")
        self._counts = _table("/proc/kpagecount")
        self._trust_ksm = self._flags is not None and not _calls_all_ksm()
        self.vms = self._kvm_files()

    @property
    def pagemap(self) -> Pagemap:
        """The open pagemap."""
        return self._pagemap

    def _kvm_files(self) -> int:
        links = self._process.list_links("fd").values()
        return sum(link.startswith("anon_inode:kvm-vm") for link in links)

    def secondary_reason(self) -> str:
        """Why the SECONDARY channel is unknown here; empty if nothing secondary can be there."""
        if self.vms:
            return f"{self.vms} KVM VM{'s' * (self.vms > 1)}: which pages the guest used takes kernel memory to see"
        return "an MMU notifier may be registered (RDMA, GPU …); only kernel memory tells"

    def read_blocks(self, blocks: U64) -> Columns:
        """Columns of the 2 MiB blocks at *blocks* (uint64[N], ascending).

        Raises:
            TargetGone: the process exited or called exec meanwhile.
        """
        shape = (len(blocks), 512)
        nowhere = np.zeros(shape, np.bool_)
        secondary = Secondary("secondary MMUs", nowhere, nowhere, self.secondary_reason())
        found = Columns.unread(blocks, secondary=(secondary,), counts_known=False)
        # The frames stand where their folios will, which procfs does not tell apart.
        pfns = found.folio.view(np.uint64)
        present, hidden, several = (np.zeros(shape, np.bool_) for _ in range(3))
        # And the words where the entries will that are made of them.
        for rows in _parts(len(blocks), _READ):
            self._pagemap.read_blocks(blocks[rows], found.pte[rows])
        for rows in _parts(len(blocks)):
            some = found.pte[rows]
            frames = np.bitwise_and(some, pm.PFN_MASK, out=pfns[rows])
            if (np.bitwise_and.reduce(some, axis=None) & _OWN) == _OWN and frames.all():
                # The common case, in a third of the time: all there, seen, mapped once.
                present[rows] = found.page_known[rows] = True
                _entries(found, some, frames, rows)
                continue
            some = some.copy()
            here = np.not_equal(some & pm.PRESENT, 0, out=present[rows])
            np.logical_and(here, (some & pm.EXCLUSIVE) == 0, out=several[rows])
            unseen = np.logical_and(here, frames == 0, out=hidden[rows])
            np.logical_not(unseen, out=found.page_known[rows])
            _entries(found, some, np.where(unseen, _HIDDEN, frames), rows)
            _but_for(found, some, here, rows)
        visible = present & ~hidden
        huge = self._huge(found, pfns, visible, hidden)
        asked = visible
        if huge is not None and huge.any():
            # Of what a PMD maps as a whole, the first page speaks for all.
            asked = visible.copy()
            asked[huge, 1:] = several[huge] = False
        found = self._pages(found, pfns, present, asked, several)
        if hidden.any():
            self._mark_zero(found, hidden)
        if huge is None:
            # No PAGEMAP_SCAN: 512 frames of one aligned THP are taken for a PMD mapping.
            huge = _in_one(pfns, visible) & ((found.flags[:, 0] & kpf.THP) != 0)
            found.flags[huge, 1:] = 0
        first = np.where(visible[huge, 0], pfns[huge, 0], np.uint64(0))
        found.pmd[huge] = bits.PRESENT | bits.PSE | bits.RW | bits.USER | first << bits.PFN_SHIFT
        found.pte[huge] = 0
        found.folio[~asked] = -1
        self._process.require_alive()
        return found

    def _huge(self, found: Columns, pfns: U64, visible: Bools, hidden: Bools) -> Bools | None:
        """Which blocks a PMD maps; None without PAGEMAP_SCAN, which is asked about those whose frames do not deny it."""
        huge = _in_one(pfns, visible) | hidden[:, 0]
        if huge.any():
            told = self._pagemap.huge_blocks(found.address[huge])
            if told is None:
                return None
            huge[huge] = told
        return huge

    def _pages(self, found: Columns, pfns: U64, present: Bools, asked: Bools, several: Bools) -> Columns:
        """*found* with flags and counts of the frames that are *asked*; *several* are mapped more than once."""
        counts = found.mapcount
        counts[:] = present
        counts[several] = 2
        found.shared[several] = True
        cached: Bools | None = None
        if self._flags is None:
            found.flags[:] = 0
            np.logical_not(present, out=found.page_known)
        else:
            keep = _FRAME_BITS if self._trust_ksm else _FRAME_BITS & ~np.uint64(int(kpf.KSM))
            if 2 * np.count_nonzero(asked) < asked.size:
                found.flags[:] = 0
                found.flags[asked] = self._flags.read(pfns[asked], keep=keep)
            else:
                # One that is asked anyway stands for each that is not: less work than leaving those out.
                rest = ~asked
                pfns[rest] = pfns.reshape(-1)[asked.argmax()]
                self._flags.read(pfns, found.flags, keep)
                found.flags[rest] = 0
            cached = _told(found)
        several &= asked
        if self._counts is not None and several.any():
            held = self._counts.read(pfns[several])
            counts[several] = np.minimum(held, np.uint64(1 << 30)).astype(np.int32)
            found.shared[several] = held > 1
        # What procfs tells of a folio is its page's own: one column is all three, where no page is in the swap cache.
        return found if cached is None else replace(found, refcount=counts + cached)

    def _mark_zero(self, found: Columns, hidden: Bools) -> None:
        """Which of the *hidden* pages (bool[N, 512]) are the zero page: PAGEMAP_SCAN tells without their frames."""
        zero = self._pagemap.zero_pages(found.address)
        if zero is None:
            return
        zero &= hidden
        found.pte[zero] &= ~(bits.PFN_MASK | bits.RW)
        found.page_known[zero] = True
        found.mapcount[zero] = found.folio_mapcount[zero] = found.refcount[zero] = 1
        found.shared[zero] = False

    def close(self) -> None:
        """Close the files."""
        self._pagemap.close()
        for table in (self._flags, self._counts):
            if table is not None:
                table.close()

    def __enter__(self) -> ProcfsReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _entries(found: Columns, words: U64, frames: U64, rows: slice) -> None:
    """Entries of the blocks *rows* as if every page were there, which *words* and *frames* tell of (the words may be where they go)."""
    protected = None
    if np.bitwise_or.reduce(words, axis=None) & pm.UFFD_WP:
        protected = (words & pm.UFFD_WP) != 0
    found.pmd[rows] = bits.TABLE
    # Which PTEs are writable procfs does not say: taken for writable, as private memory that was written is.
    pte = np.left_shift(frames, bits.PFN_SHIFT, out=found.pte[rows])
    pte |= bits.PRESENT | bits.USER | bits.RW | bits.DIRTY
    if protected is not None:
        pte[protected] |= bits.UFFD_WP


def _but_for(found: Columns, words: U64, present: Bools, rows: slice) -> None:
    """Put right the entries of the blocks *rows* whose page is not *present*: swapped out, or nothing."""
    pte = found.pte[rows]
    absent = np.logical_not(present, out=found.pte_known[rows])
    pte[absent] = 0
    swapped = (words & pm.SWAPPED) != 0
    pte[swapped] = bits.swap_pte(words[swapped] & pm.PFN_MASK)
    found.pmd[rows][~(present | swapped).any(axis=1)] = 0


def _in_one(pfns: U64, visible: Bools) -> Bools:
    """Which blocks' frames lie as a PMD's mapping has them, in a row from a multiple of 512; bool[N]."""
    first, last = pfns[:, 0], pfns[:, 511]
    may = visible[:, 0] & visible[:, 511] & (first % np.uint64(512) == 0) & (last == first + np.uint64(511))
    rows = np.flatnonzero(may)
    may[rows] = visible[rows].all(axis=1) & (np.diff(pfns[rows].view(np.int64), axis=1) == 1).all(axis=1)
    return may


def _told(found: Columns) -> Bools | None:
    """Make *found* of what the flags say is the zero page; which pages are in the swap cache, None if none is."""
    cached: Bools | None = None
    for rows in _parts(len(found.flags)):
        flags = found.flags[rows]
        telling = flags & (kpf.ZERO_PAGE | kpf.SWAPCACHE)
        if telling.any():
            zero = (telling & kpf.ZERO_PAGE) != 0
            found.pte[rows][zero] &= ~(bits.PFN_MASK | bits.RW)
            flags[zero] = 0
            cached = np.zeros(found.flags.shape, np.bool_) if cached is None else cached
            np.equal(telling, kpf.SWAPCACHE, out=cached[rows])
    return cached


def _parts(blocks: int, size: int = _PART) -> list[slice]:
    """*blocks* in pieces whose arrays of a number a page fit into a core's cache: fresh memory for the whole costs its page faults."""
    return [slice(at, at + size) for at in range(0, blocks, size)]


def _table(path: str) -> FrameTable | None:
    try:
        return FrameTable(path)
    except MissingPart:
        return None


@functools.cache
def _calls_all_ksm() -> bool:
    """Whether this kernel's kpageflags shows KPF_KSM on every anonymous page (6.9 to 6.15 test ``mapping & 3``, which
    PAGE_MAPPING_ANON alone satisfies): asked, once, of a page of our own that cannot be merged."""
    import mmap

    with mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as page:
        page[0] = 1
        try:
            with Process.open(_own_pid()) as own, Pagemap(own) as pagemap, FrameTable() as table:
                word = pagemap.read(_address_of(page), 1)[0] & pm.PFN_MASK
                return bool(word) and bool(int(table.read(np.array([word]))[0]) & int(kpf.KSM))
        except MissingPart:
            return False


def _own_pid() -> int:
    import os

    return os.getpid()


def _address_of(page: object) -> int:
    return int(np.frombuffer(page, np.uint8, 1).ctypes.data)  # type: ignore[call-overload]


def settle_primary(found: Columns, vmas: list[Vma]) -> None:
    """Make PRIMARY known where the sums of smaps, read *after* the columns, leave only one answer.

    smaps counts a page as Referenced if its PTE is young, PG_young or PG_referenced is set (``smaps_account``), which is what khugepaged
    asks of the CPU's side. Where a mapping's sum is no more than its PG_referenced pages, no other page of it can be young; where it
    is all that is resident, every page must be (PG_young, the accessed bit that idle tracking took off, counted with it).
    """
    for vma in vmas:
        low, high = np.searchsorted(found.address, np.array([vma.start, vma.end], np.uint64)).tolist()
        # smaps leaves hugetlb's pages out of its sums (smaps_hugetlb_range).
        if "Referenced" not in vma.kb or "ht" in vma.flags or low == high:
            continue
        pmd, pte, known = found.pmd[low:high], found.pte[low:high], found.pte_known[low:high]
        referenced = vma.kb["Referenced"]
        present = bits.pte_present(pte)
        marked = (found.flags[low:high] & kpf.REFERENCED) != 0
        whole = vma.first_block == vma.start and vma.block_end == vma.end
        huge = bits.pmd_trans_huge(pmd)
        # A huge page counts with all of its pages; its flags stand with the first.
        pages = int(np.count_nonzero(marked)) + 511 * int(np.count_nonzero(marked[huge, 0]))
        if referenced in (0, vma.kb.get("Rss")):
            pmd[huge] |= bits.ACCESSED if referenced else bits.NONE
            known[huge, 0] = True
        if referenced == 0 or (whole and referenced <= 4 * pages):
            known |= ~marked & present
        elif referenced == vma.kb.get("Rss"):
            np.bitwise_or(pte, bits.ACCESSED, out=pte, where=present)
            known |= present
