"""Which pages of a process turned young since the last look, in the CPU's page table and in KVM's, from kernel memory.

::

    PTE, PMD                 accessed, dirty, soft-dirty     PRIMARY       cpu_read, cpu_write
    SPTE, of KVM             accessed                        SECONDARY     guest_read
    struct page              PG_referenced, PG_young         REFERENCED    counted

Nothing is written: which rows a look makes of these, ``page_table_changes.py`` says.

A VM's memory is a space of its own, by guest-physical address; the rest of the process is the first space. A page of both is
the VM's, also where the CPU (QEMU itself) used it. What a bit of a huge mapping says, it says of its 512 pages.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from secondsight.bits import pageflags as kpf
from secondsight.bits import pte as bits
from secondsight.errors import TargetGone
from secondsight.geometry import HPAGE_PMD_NR, PAGE_SHIFT, PMD_SIZE
from secondsight.live.read.kmem import KernelMemory, Torn
from secondsight.live.read.kvm import Memslot, RunningVm
from secondsight.live.read.notifiers import registered
from secondsight.live.read.page_table_changes import (
    CPU,
    GUEST,
    HUGE,
    MARKED,
    NONE,
    TABLE,
    WRITTEN,
    Bits,
    PageTableChanges,
)
from secondsight.live.read.pagetable import PageTable
from secondsight.live.read.process import Process
from secondsight.live.read.vma import parse_maps
from secondsight.trace.kinds import Kind
from secondsight.trace.record.procfs import Sighting

if TYPE_CHECKING:
    from secondsight.trace.intake import Intake

U64 = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]
_PART: Final = 64  # blocks worked on at a time
_MOST_USER: Final = 1 << 56


class YoungLooker:
    """Looks through kernel memory; a ``Looker`` of :mod:`secondsight.trace.record.pid`."""

    def __init__(
        self, kernel: KernelMemory, process: Process, *, clear: bool = False, soft_dirty: bool = False
    ) -> None:
        """*clear*: the recorder clears accessed bits after each look; *soft_dirty*: those of writes too.

        :raises TargetGone, MissingDependency: as ``KernelMemory.find_mm`` and ``FrameReader``.
        """
        from secondsight.live.read.frames import FrameReader

        self._kernel, self._process = kernel, process
        self._clear, self._soft_dirty = clear, soft_dirty
        self._mm = kernel.find_mm(process.pid, process.start_time)
        self._frames = FrameReader(kernel)
        self._zero = np.uint64(int(kernel.variable("zero_pfn") or kernel.variable("zero_page_pfn") or 0))
        self._turned = PageTableChanges(clear, soft_dirty)
        self.left_out = self._turned.left_out
        self._intake: Intake | None = None
        self._spaces: dict[int, int] = {}
        self._slots: list[tuple[int, Memslot]] = []
        self._vms, self._mute = self._notifiers()

    def _notifiers(self) -> tuple[list[RunningVm], list[str]]:
        """KVM's VMs, and the names of notifiers that answer test_young from where we cannot look."""
        try:
            notifiers = registered(self._kernel, self._mm)
        except Torn:
            return [], ["notifiers (their list would not hold still)"]
        vms = [each.vm for each in notifiers if each.vm is not None]
        return vms, [each.name for each in notifiers if each.vm is None and each.tests_young]

    def seen(self) -> list[str]:
        """What is seen, in words."""
        sources = ["kernel memory: accessed bits of the CPU's page table (PRIMARY)"]
        if self._vms:
            kinds = ", ".join(sorted({vm.mmu for vm in self._vms}))
            sources.append(
                f"kernel memory: accessed bits of {len(self._vms)} KVM VM's tables ({kinds}; SECONDARY)"
            )
        return [*sources, "kernel memory: PG_referenced and PG_young (REFERENCED), counted"]

    def unseen(self) -> list[str]:
        """What is not."""
        gaps = [f"what {name} did, a secondary MMU that cannot be read" for name in self._mute]
        if not self._clear:
            gaps.append(
                "further accesses to pages that were young at the last look (--clear or ageing makes them tell)"
            )
        elif self._vms and not self._soft_dirty:
            gaps.append(
                "further guest accesses to pages that were young at the last look: clear_refs does not age KVM's tables"
            )
        if self._vms:
            gaps.append("whether a guest's access was a read or a write")
        if self._clear:
            gaps.append("accesses after clearing through translations that the TLB kept")
        return [
            *gaps,
            "which page of a huge mapping was accessed: all 512 are rows",
            "which pages of a file's fault-around were accessed: x86 maps all of them young",
        ]

    def begin(self, intake: Intake) -> None:
        """The process's space, and one for each VM there is."""
        self._intake = intake
        intake.add_space(self._process.name)
        self._find_slots()

    def _find_slots(self) -> None:
        """The VMs' memslots as they are now, each with its space."""
        self._vms, _ = self._notifiers()
        slots = []
        for vm in self._vms:
            if vm.identity not in self._spaces:
                assert self._intake is not None
                name = f"{self._process.name}: VM {len(self._spaces)}"
                self._spaces[vm.identity] = self._intake.add_space(name, "vm", 0)
            try:
                slots += [(self._spaces[vm.identity], slot) for slot in vm.slots()]
            except Torn:
                slots += [each for each in self._slots if each[0] == self._spaces[vm.identity]]
        # The guest's normal address space first: a page that several slots show is one page.
        self._slots = sorted(slots, key=lambda each: (each[1].space, each[1].gfn))

    def _blocks(self, table: PageTable) -> U64:
        """Every block of a mapping that has a page table entry."""
        vmas = parse_maps(self._process.read_file("maps"), f"/proc/{self._process.pid}/maps")
        mapped = [
            table.mapped_blocks(vma.start & -PMD_SIZE, (vma.end + PMD_SIZE - 1) & -PMD_SIZE)
            for vma in vmas
            if vma.end <= _MOST_USER
        ]
        return np.unique(np.concatenate([np.empty(0, np.uint64), *mapped]))

    def look(self) -> Iterator[Sighting]:
        """What turned young since the last look; the first only takes stock.

        :raises TargetGone: the process exited or called exec.
        """
        self._process.require_alive()
        self._find_slots()
        table = PageTable(self._kernel, int(self._mm.pgd.value_()))
        blocks = self._blocks(table)
        for at in range(0, len(blocks), _PART):
            part = blocks[at : at + _PART]
            accessed = self._turned.add(part, self._read(table, part))
            if accessed is not None:
                kinds = np.where(accessed.written, np.uint8(Kind.CPU_WRITE), np.uint8(Kind.CPU_READ))
                yield from self._rows(part, accessed.cpu, kinds)
                yield from self._rows(part, accessed.guest, np.full_like(kinds, Kind.GUEST_READ))
        if self._kernel.find_mm(self._process.pid, self._process.start_time).value_() != self._mm.value_():
            raise TargetGone(f"process {self._process.pid} ({self._process.name}) called exec")
        self._turned.turn()

    def _read(self, table: PageTable, blocks: U64) -> Bits:
        entries = table.read_blocks(blocks)
        of = np.zeros((4, len(blocks), HPAGE_PMD_NR), np.bool_)
        huge = bits.pmd_trans_huge(entries.pmd)
        pte = np.where(huge[:, None], entries.pmd[:, None], entries.pte)
        present = bits.pte_present(pte)
        of[CPU] = present & bits.pte_young(pte)
        of[WRITTEN] = present & ((pte & bits.SOFT_DIRTY != 0) if self._soft_dirty else bits.pte_dirty(pte))
        known = np.repeat(entries.known[:, None], HPAGE_PMD_NR, axis=1)
        small = present & ~huge[:, None]
        pfns = bits.pte_pfn(pte[small])
        frames = self._frames.read(pfns)
        of[MARKED][small] = (frames.flags & (kpf.REFERENCED | kpf.YOUNG) != 0) & (pfns != self._zero)
        if huge.any():
            heads = self._frames.read(bits.pte_pfn(entries.pmd[huge]))
            of[MARKED][huge] = (heads.flags & (kpf.REFERENCED | kpf.YOUNG) != 0)[:, None]
        for vm in self._vms:
            sptes = vm.read_blocks(blocks)
            known &= sptes.known.reshape(known.shape)
            of[GUEST].reshape(-1)[sptes.page[sptes.young]] = True
        form = np.where(huge, HUGE, np.where(bits.pte_present(entries.pmd), TABLE, NONE)).astype(np.uint8)
        return Bits(of, known, form)

    def _rows(self, blocks: U64, which: Bools, kinds: npt.NDArray[np.uint8]) -> Iterator[Sighting]:
        """Pages *which* of *blocks* in the spaces that they belong to."""
        row, column = np.nonzero(which)
        pages = (blocks[row] >> np.uint64(PAGE_SHIFT)) + column.astype(np.uint64)
        kind = kinds[row, column]
        left = np.ones(pages.size, np.bool_)
        for space, slot in self._slots:
            first = np.uint64(slot.address >> PAGE_SHIFT)
            mine = left & (pages >= first) & (pages < first + np.uint64(slot.pages))
            if mine.any():
                yield Sighting(space, pages[mine] - first + np.uint64(slot.gfn), kind[mine])
                left &= ~mine
        if left.any():
            yield Sighting(0, pages[left], kind[left])

    def within(self, first: int, stop: int) -> Iterator[Sighting]:
        """The pages from number *first* up to *stop* that were young or marked at the last look: no other can have been accessed."""
        low, high = np.searchsorted(
            self._turned.blocks, np.array([first & -HPAGE_PMD_NR, stop], np.uint64) << np.uint64(PAGE_SHIFT)
        )
        for at in range(int(low), int(high), _PART):
            blocks = self._turned.blocks[at : min(at + _PART, int(high))]
            of, _ = self._turned.held(blocks)
            number = (blocks >> np.uint64(PAGE_SHIFT))[:, None] + np.arange(HPAGE_PMD_NR, dtype=np.uint64)
            inside = (number >= np.uint64(first)) & (number < np.uint64(stop))
            guest = of[GUEST] & ~of[CPU]
            kinds = np.where(guest, np.uint8(Kind.GUEST_READ), np.uint8(Kind.CPU_READ))
            yield from self._rows(blocks, (of[CPU] | of[GUEST] | of[MARKED]) & inside, kinds)
