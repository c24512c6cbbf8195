"""Blocks of a process from kernel memory: every channel known, but where a table would not hold still.

::

    page table (pagetable.py)   ─▶  pte, pmd, PRIMARY
    struct page (frames.py)     ─▶  flags, counts, folio, REFERENCED
    page cache  (kernel_page_cache.py)  ─▶  what is there of a file's block, whoever maps it
    notifiers   (notifiers.py)  ─▶  SECONDARY: KVM's tables (kvm.py) page by page; any other by whether it tests at all
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from secondsight.bits import pageflags as kpf
from secondsight.bits import pte as bits
from secondsight.errors import TargetGone
from secondsight.geometry import HPAGE_PMD_NR, PAGE_SHIFT, PMD_ORDER
from secondsight.live.read.columns import U64, Columns, Secondary
from secondsight.live.read.folio_sizes import sizes_by_order
from secondsight.live.read.frames import FrameReader
from secondsight.live.read.kernel_page_cache import KernelPageCache
from secondsight.live.read.kmem import KernelMemory, Torn
from secondsight.live.read.kvm import RunningVm
from secondsight.live.read.notifiers import registered
from secondsight.live.read.pagetable import PageTable
from secondsight.live.read.process import Process
from secondsight.live.read.vma import Vma


class KernelReader:
    """Reads blocks of one process from kernel memory."""

    def __init__(self, kernel: KernelMemory, process: Process) -> None:
        """Find the process in *kernel*.

        :raises TargetGone, MissingDependency: as ``KernelMemory.find_mm`` and ``FrameReader``.
        """
        self._kernel = kernel
        self._process = process
        self._mm = kernel.find_mm(process.pid, process.start_time)
        self._frames = FrameReader(kernel)
        self._zero = np.uint64(int(kernel.variable("zero_pfn") or kernel.variable("zero_page_pfn") or 0))

    @property
    def mm(self) -> int:
        """The kernel address of the process's ``struct mm_struct``."""
        return int(self._mm.value_())

    def read_blocks(self, blocks: U64) -> Columns:
        """Columns of the 2 MiB blocks at *blocks* (uint64[N], ascending).

        :raises TargetGone: the process exited or called exec meanwhile.
        """
        entries = PageTable(self._kernel, int(self._mm.pgd.value_())).read_blocks(blocks)
        secondary, marks, gfn, slot, levels = self._secondary(blocks)
        columns = Columns.empty(blocks, secondary=secondary)
        columns.spte_level[:] = levels
        columns.pmd[:], columns.pte[:], columns.zap_marks[:] = entries.pmd, entries.pte, marks
        columns.gfn[:], columns.slot[:] = gfn, slot
        columns.pte_known[:] = columns.page_known[:] = entries.known[:, None]
        present = bits.pte_present(entries.pte)
        pfns = bits.pte_pfn(entries.pte)
        zero = present & (pfns == self._zero) if self._zero else np.zeros(present.shape, np.bool_)
        columns.pte[zero] &= ~bits.PFN_MASK
        mapped = present & ~zero
        frames = self._frames.read(pfns[mapped])
        for name in ("flags", "mapcount", "folio_mapcount", "refcount", "order", "shared", "folio"):
            getattr(columns, name)[mapped] = getattr(frames, name)
        columns.page_known[mapped] &= frames.known
        huge = bits.pmd_trans_huge(entries.pmd)
        if huge.any():
            heads = self._frames.read(bits.pte_pfn(entries.pmd[huge]))
            columns.flags[huge, 0], columns.page_known[huge, 0] = heads.flags, heads.known
            columns.shared[huge, 0] = heads.shared
        columns.sizes[:] = sizes_by_order(blocks, pfns, columns.flags, mapped, columns.order)
        columns.sizes[huge] = 0
        columns.sizes[huge, PMD_ORDER] = HPAGE_PMD_NR
        columns.sizes[huge & ((columns.flags[:, 0] & kpf.ZERO_PAGE) != 0)] = 0
        self._process.require_alive()
        if self._kernel.find_mm(self._process.pid, self._process.start_time).value_() != self._mm.value_():
            raise TargetGone(
                f"process {self._process.pid} ({self._process.name}) called exec while it was read"
            )
        return columns

    def read_page_cache(self, columns: Columns, vmas: list[Vma]) -> None:
        """Fill ``cache`` and ``cached`` of *columns*, for the blocks that *vmas* map of files and shared memory."""
        KernelPageCache(self._kernel, self._frames).fill(self._mm, columns, vmas)

    def _secondary(
        self, blocks: U64
    ) -> tuple[
        tuple[Secondary, ...],
        npt.NDArray[np.uint8],
        npt.NDArray[np.int64],
        npt.NDArray[np.int32],
        npt.NDArray[np.uint8],
    ]:
        levels = np.zeros(len(blocks), np.uint8)
        shape = (len(blocks), HPAGE_PMD_NR)
        marks = np.zeros(shape, np.uint8)
        gfn, slot = np.full(len(blocks), -1, np.int64), np.full(len(blocks), -1, np.int32)
        nowhere = np.zeros(shape, np.bool_)
        try:
            notifiers = registered(self._kernel, self._mm)
        except Torn as torn:
            unread = Secondary(
                "notifiers", nowhere, nowhere, f"the list of notifiers would not hold still ({torn})"
            )
            return (unread,), marks, gfn, slot, levels
        answers = []
        for notifier in notifiers:
            if isinstance(notifier.vm, RunningVm):
                answers.append(_ask_vm(notifier.vm, blocks, marks, gfn, slot, levels))
            elif notifier.tests_young:
                why = f"{notifier.name} answers test_young from where this reader cannot look"
                answers.append(Secondary(notifier.name, nowhere, nowhere, why))
            else:
                answers.append(Secondary(notifier.name, nowhere, np.ones(shape, np.bool_)))
        return tuple(answers), marks, gfn, slot, levels


def _ask_vm(
    vm: RunningVm, blocks: U64, marks: npt.NDArray[np.uint8], gfn: npt.NDArray[np.int64], slot: npt.NDArray[np.int32],
    levels: npt.NDArray[np.uint8],
) -> Secondary:  # fmt: skip
    """KVM's answer for each page; fills in *marks*, *gfn*, *slot* and *levels*."""
    shape = (len(blocks), HPAGE_PMD_NR)
    try:
        slots = vm.slots()
    except Torn as torn:
        nowhere = np.zeros(shape, np.bool_)
        return Secondary(f"kvm ({vm.mmu})", nowhere, nowhere, f"the memslots would not hold still ({torn})")
    sptes = vm.read_blocks(blocks, slots)
    counts = np.bincount(sptes.page[sptes.young], minlength=len(blocks) * HPAGE_PMD_NR).reshape(shape)
    np.minimum(counts + marks, 255, out=counts)
    marks[:] = counts
    for entry in slots:
        inside = (blocks >= np.uint64(entry.address)) & (
            blocks < np.uint64(entry.address + (entry.pages << PAGE_SHIFT))
        )
        inside &= gfn < 0
        gfn[inside] = entry.gfn + (
            (blocks[inside] - np.uint64(entry.address)) >> np.uint64(PAGE_SHIFT)
        ).astype(np.int64)
        slot[inside] = entry.number
    if len(sptes.page):
        lowest = np.full(len(blocks), 255, np.uint8)
        np.minimum.at(lowest, sptes.page // HPAGE_PMD_NR, sptes.level)
        mapped = lowest != 255
        levels[mapped] = np.where(
            levels[mapped] == 0, lowest[mapped], np.minimum(levels[mapped], lowest[mapped])
        )
    known = sptes.known.reshape(shape)
    young = (counts > 0) & known
    return Secondary(
        f"kvm ({vm.mmu})", young, known, "" if known.all() else "KVM's tables would not hold still"
    )
