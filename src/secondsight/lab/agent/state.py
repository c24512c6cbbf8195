"""What can be seen of a space's pages without touching one: entries, flags and counts, read from kernel memory.

All reads go through ``secondsight.live``: the primary table, KVM's tables and rmaps, ``struct page``. Nothing there changes an
accessed bit. Attaching (types from BTF, symbols from kallsyms) takes seconds under an emulator and is done once a boot,
when first needed.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from secondsight.bits import pageflags, pte, spte
from secondsight.geometry import HPAGE_PMD_NR
from secondsight.lab.agent import libc
from secondsight.lab.agent.events import TraceError
from secondsight.lab.agent.worker import PM_PRESENT, pagemap
from secondsight.scenario import pages as pagetext
from secondsight.scenario.results import PageState
from secondsight.scenario.states import When, page_state, per_page, spte_texts, vm_name

__all__ = ["Eyes", "View", "ksm_pages"]

U64 = npt.NDArray[np.uint64]


def ksm_pages(pid: int, blocks: int) -> str:
    """The pages (as text) that are KSM pages now; from /proc/kpageflags."""
    from secondsight.live.read.frame_table import FrameTable

    entries = pagemap(pid, blocks)
    present = np.flatnonzero((entries & PM_PRESENT) != 0)
    if not len(present):
        return ""
    with FrameTable() as table:
        flags = table.read(entries[present] & np.uint64((1 << 55) - 1))
    return pagetext.format(present[(flags & np.uint64(pageflags.KSM)) != 0])


class View:
    """One space at one moment: *pmd* uint64[B], *table* uint64[B, 512], *flags* uint32[n], *mapcount* int32[n], *secondary* bool[n]
    (some SPTE is young), *sptes* the text of each page, by the VM's name; n = B * 512."""

    def __init__(
        self, pmd: U64, table: U64, flags: npt.NDArray[np.uint32], mapcount: npt.NDArray[np.int32],
        secondary: npt.NDArray[np.bool_], sptes: dict[str, list[str]],
    ) -> None:  # fmt: skip
        self.pmd, self.table, self.flags, self.mapcount = pmd, table, flags, mapcount
        self.secondary, self.sptes = secondary, sptes

    def young(self) -> list[tuple[int, int, int]]:
        """Of each block, the pages that each channel calls young: PRIMARY, REFERENCED, SECONDARY."""
        entries = per_page(self.pmd, self.table)
        present = pte.pte_present(entries)
        marked = (self.flags & (pageflags.REFERENCED | pageflags.YOUNG)) != 0
        columns = (present & pte.pte_young(entries), present & marked, present & self.secondary)
        counts = [c.reshape(-1, HPAGE_PMD_NR).sum(axis=1).tolist() for c in columns]
        return list(zip(*counts, strict=True))

    def write_down(
        self, step: int, space: str, at: Literal["observe", "before", "after"], number: int
    ) -> PageState:
        """As the record that a run answers."""
        return page_state(
            When(step, at, number), space, pmd=self.pmd, table=self.table, flags=self.flags, mapcount=self.mapcount,
            sptes=self.sptes,
        )  # fmt: skip


class Eyes:
    """Kernel memory, attached."""

    def __init__(self) -> None:
        from secondsight.live.read.frames import FrameReader
        from secondsight.live.read.kmem import KernelMemory

        self._kernel = KernelMemory.live()
        self._frames = FrameReader(self._kernel)

    def look(self, pid: int, blocks: int) -> View:
        """The space of process *pid*.

        :raises TraceError: kernel memory would not hold still.
        """
        from secondsight.live.read.notifiers import registered
        from secondsight.live.read.pagetable import PageTable

        mm = self._kernel.find_mm(pid)
        addresses = np.arange(blocks, dtype=np.uint64) * np.uint64(libc.BLOCK_BYTES) + np.uint64(libc.AREA)
        entries = PageTable(self._kernel, mm.pgd.value_()).read_blocks(addresses)
        if not entries.known.all():
            raise TraceError(f"the page table of process {pid} would not hold still")
        each = per_page(entries.pmd, entries.pte)
        present = np.flatnonzero(pte.pte_present(each))
        flags, mapcount = np.zeros(len(each), np.uint32), np.zeros(len(each), np.int32)
        columns = self._frames.read(pte.pte_pfn(each[present]))
        flags[present], mapcount[present] = columns.flags, columns.mapcount
        secondary, sptes = np.zeros(len(each), np.bool_), {}
        # The newest notifier stands first in the list.
        vms = [notifier.vm for notifier in registered(self._kernel, mm) if notifier.vm is not None]
        for number, vm in enumerate(reversed(vms)):
            vm_sptes = vm.read_blocks(addresses)
            if not vm_sptes.known.all():
                raise TraceError(f"KVM's tables of process {pid} would not hold still")
            secondary[vm_sptes.page[vm_sptes.young]] = True
            layout = spte.layout(vm.mmu, vm.era)
            sptes[vm_name(number)] = spte_texts(
                len(each), vm_sptes.page, vm_sptes.spte, vm_sptes.young, vm_sptes.level > 1, layout
            )
        return View(entries.pmd, entries.pte, flags, mapcount, secondary, sptes)
