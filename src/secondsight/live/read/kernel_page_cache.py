"""The page cache behind a process's mappings, from kernel memory: what khugepaged's scan of a file asks of each page.

::

    vm_area_struct.vm_file ─▶ f_mapping ─▶ i_pages.xa_head        an XArray (include/linux/xarray.h)
      xa_node at shift 6    64 slots: a leaf of 64 pages, a folio of 2 MiB (a slot and 7 siblings), or nothing
        xa_node at shift 0  64 slots: a folio (a large one: its slot and siblings), a value (shmem in swap, a dropped file page), or nothing

Whoever maps the pages, or nobody: what procfs shows of that is how many there are. Read twice; where the two differ the block is unread.
"""

from __future__ import annotations

import stat
from typing import Any

import drgn
import numpy as np
import numpy.typing as npt
from drgn.helpers.linux.mm import vma_find

from secondsight.bits import pageflags as kpf
from secondsight.geometry import HPAGE_PMD_NR, PAGE_SHIFT, PMD_ORDER
from secondsight.live.read.columns import CachePage, Columns
from secondsight.live.read.frames import FrameReader
from secondsight.live.read.kmem import KernelMemory, Torn
from secondsight.live.read.vma import Vma

U64 = npt.NDArray[np.uint64]

#: slots of a node (XA_CHUNK_SIZE of every kernel that is not CONFIG_BASE_SMALL)
_SLOTS, _CHUNK_SHIFT = 64, 6
_INTERNAL = np.uint64(2)
_LOW = np.uint64(3)
#: internal entries: siblings are below this, nodes above that (xa_is_sibling, xa_is_node)
_SIBLINGS, _NODES = np.uint64(_SLOTS << 2), np.uint64(4096)
_VM_HUGETLB = 0x400000
_WHERE = ("vm_file", "f_mapping", "i_pages", "xa_head")


class _Nodes:
    """The nodes of one XArray as they are read, each once."""

    def __init__(self, kernel: KernelMemory, shift_at: int, slots_at: int) -> None:
        self._kernel, self._shift_at, self._slots_at = kernel, shift_at, slots_at
        self._read: dict[int, tuple[int, U64]] = {}

    def node(self, entry: int) -> tuple[int, U64]:
        """(shift, slots uint64[64]) of the node that *entry* leads to, siblings replaced by what they stand for.

        :raises Torn: it has gone.
        """
        node = self._read.get(entry)
        if node is None:
            at = entry & ~3
            shift = self._kernel.read(at + self._shift_at, 1)[0]
            slots = self._kernel.words(at + self._slots_at, _SLOTS).copy()
            siblings = ((slots & _LOW) == _INTERNAL) & (slots < _SIBLINGS)
            slots[siblings] = slots[(slots[siblings] >> np.uint64(2)).astype(np.int64)]
            if shift > 60 or shift % _CHUNK_SHIFT:
                raise Torn(f"a node of shift {shift}")
            node = self._read[entry] = (shift, slots)
        return node

    def entries(self, head: int, start: int) -> U64:
        """What lies at the indices *start* … *start* + 511 (a multiple of 512) of the array that *head* is the head of; uint64[512]: the
        entry, of a large folio or value at each of its indices; 0 none.

        :raises Torn: the array changed meanwhile.
        """
        entries = np.zeros(HPAGE_PMD_NR, np.uint64)
        if not _is_node(head):
            entries[0] = head if start == 0 else 0
            return entries
        shift, _ = self.node(head)
        if start >> (shift + _CHUNK_SHIFT):
            return entries  # the array is not as long
        self._descend(head, start, entries)
        return entries

    def _descend(self, entry: int, start: int, entries: U64) -> None:
        """Fill *entries*, the entries from index *start* on, from the node *entry*."""
        shift, slots = self.node(entry)
        first, each = (start >> shift) % _SLOTS, 1 << shift
        if each == 1:
            part = slots[first : first + len(entries)]
            entries[: len(part)] = part  # fewer, of an array that is no longer than a node
            if bool((((entries & _LOW) == _INTERNAL) & (entries != 0)).any()):
                raise Torn("an entry that is to be read again")
            return
        wide = min(each, len(entries))
        for i in range(len(entries) // wide):
            child, part = int(slots[first + i]), entries[i * wide : (i + 1) * wide]
            if _is_node(child):
                self._descend(child, start + i * wide, part)
            elif child & 3 == int(_INTERNAL):
                raise Torn("an entry that is to be read again")
            else:
                part[:] = child


def _is_node(entry: int) -> bool:
    return entry & 3 == int(_INTERNAL) and entry > int(_NODES)


class KernelPageCache:
    """Reads the page cache of one kernel."""

    def __init__(self, kernel: KernelMemory, frames: FrameReader) -> None:
        self._kernel, self._frames = kernel, frames
        self._shift = kernel.offset("struct xa_node", "shift")
        self._slots = kernel.offset("struct xa_node", "slots")

    def fill(self, mm: Any, columns: Columns, vmas: list[Vma]) -> None:
        """Write ``cache`` and ``cached`` of *columns* for the blocks of *vmas*, mappings of the ``struct mm_struct *`` *mm*, that are of a
        file whose offsets are aligned as its addresses are; of what would not hold still nothing."""
        if self._shift is None or self._slots is None:
            return
        for vma in vmas:
            if not vma.of_file or "ht" in vma.flags or vma.first_block >= vma.block_end:
                continue
            low, high = np.searchsorted(
                columns.address, np.array([vma.first_block, vma.block_end], np.uint64)
            )
            if low < high:
                self._fill(mm, columns, slice(int(low), int(high)), vma)

    def _fill(self, mm: Any, columns: Columns, rows: slice, vma: Vma) -> None:
        try:
            area = vma_find(mm, int(columns.address[rows.start]))
            if not area or not area.vm_ops or not area.vm_file or int(area.vm_flags.value_()) & _VM_HUGETLB:
                return  # private /dev/zero is anonymous memory
            if not stat.S_ISREG(int(area.vm_file.f_inode.i_mode.value_())):
                return
            base = int(area.vm_pgoff.value_()) - (int(area.vm_start.value_()) >> PAGE_SHIFT)
            head = area
            for name in _WHERE:
                head = head.member_(name)
            where = int(head.address_ or 0)
        except (drgn.FaultError, LookupError, AttributeError):
            return
        if base % HPAGE_PMD_NR or not where:
            return
        starts = [(int(address) >> PAGE_SHIFT) + base for address in columns.address[rows]]
        first, good = self.walk(where, starts)
        states = self.states_of(first)
        second, again = self.walk(where, starts)
        good &= again & (first == second).all(axis=1)
        states[~good] = CachePage.UNREAD
        columns.cache[rows] = states
        present = ((states & CachePage.PRESENT) != 0).sum(axis=1)
        columns.cached[rows] = np.where(good, present, columns.cached[rows])

    def walk(self, where: int, starts: list[int]) -> tuple[U64, npt.NDArray[np.bool_]]:
        """(entries uint64[K, 512] of the blocks from the indices *starts* on, bool[K]: they could be read)."""
        assert self._shift is not None and self._slots is not None
        entries, good = np.zeros((len(starts), HPAGE_PMD_NR), np.uint64), np.zeros(len(starts), np.bool_)
        nodes = _Nodes(self._kernel, self._shift, self._slots)
        try:
            head = int(self._kernel.words(where, 1)[0])
        except Torn:
            return entries, good
        for row, start in enumerate(starts):
            try:
                entries[row] = nodes.entries(head, start)
                good[row] = True
            except (Torn, IndexError):
                continue
        return entries, good

    def states_of(self, entries: U64) -> npt.NDArray[np.uint8]:
        """``CachePage`` of each of *entries*; uint8 of the same shape."""
        states = np.zeros(entries.shape, np.uint8)
        value = (entries & np.uint64(1)) != 0
        states[value] = CachePage.SWAPPED
        pages = (entries != 0) & ~value
        if not pages.any():
            return states
        pointers, back = np.unique(entries[pages], return_inverse=True)
        frames = self._frames.read(
            (pointers - np.uint64(self._kernel.vmemmap)) // np.uint64(self._frames.size)
        )
        flags, order = frames.flags, frames.order
        private = (flags & kpf.PRIVATE) != 0
        held = frames.refcount != frames.folio_mapcount + (1 << order.astype(np.int32)) + private
        each = np.full(len(pointers), CachePage.PRESENT, np.uint8)
        for bit, what in (
            (CachePage.HUGE, order == PMD_ORDER),
            (CachePage.OFF_LRU, (flags & kpf.LRU) == 0),
            (CachePage.HELD, held),
            (CachePage.DIRTY, (flags & (kpf.DIRTY | kpf.WRITEBACK)) != 0),
            (CachePage.LOCKED, (flags & kpf.LOCKED) != 0),
            (CachePage.UNREAD, ~frames.known),
        ):
            each[what] |= np.uint8(bit)
        states[pages] = each[back.reshape(-1)]
        return states
