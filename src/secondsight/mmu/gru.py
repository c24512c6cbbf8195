"""A device with a TLB and no young bits: SGI's GRU (drivers/misc/sgi-gru).

It has no ``test_young``: the seed promises that such users go on working, since gup-fast marks what they fill. Two variants:

    contract   fills through get_user_pages_fast (marks the page referenced); ``clear_flush_young`` drops the translation and reports
               that there was one, as the patch says users without young bits should
    driver     what the real driver does: fills by walking the primary page table (grufault.c atomic_pte_lookup, which marks nothing)
               and only faults through get_user_pages; it has no ``clear_flush_young``
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from secondsight.bits.pte import DIRTY, PRESENT, PSE, RW
from secondsight.geometry import BLOCK_MASK, PMD_ORDER
from secondsight.mm import gup
from secondsight.mm.mm_struct import Mm
from secondsight.mm.mmu_notifier import Bools, MmuNotifier
from secondsight.mm.page import HUGE_ZERO_PFN, ZERO_PFN, put_page


class GruContext(MmuNotifier):
    """A GRU context on *mm*; registers itself. ``tlb`` maps a page to whether the translation permits stores."""

    name = "gru"

    def __init__(self, mm: Mm, variant: Literal["contract", "driver"] = "contract") -> None:
        """*variant*: see the module."""
        self.mm = mm
        self.variant = variant
        self.tlb: dict[int, bool] = {}
        if variant == "contract":
            self.clear_flush_young = self._clear_flush_young
        mm.notifiers.register(self)

    def access(self, pages: npt.NDArray[np.int64], *, write: bool) -> None:
        """The device reads or writes *pages*, in order; a miss fills the TLB. A hit changes nothing anywhere."""
        pages = np.ascontiguousarray(pages, dtype=np.int64)

        def step(start: int, notified: bool) -> int:
            for i in range(start, len(pages)):
                answer = self._fill(int(pages[i]), write, notified and i == start)
                if answer == gup.NOTIFY:
                    return i
                if answer == gup.NOT_PERMITTED:
                    return -1 - i
            return len(pages)

        self.mm.run_faults(pages, step, "the device")
        if write:
            self.mm.wrote(pages)

    def _fill(self, page: int, write: bool, notified: bool) -> int:
        """Make the TLB permit the access; the pfn, or gup's NOTIFY or NOT_PERMITTED."""
        if page in self.tlb and (self.tlb[page] or not write):
            return 0
        mm, host = self.mm, self.mm.host
        if self.variant == "driver" and self._walk(page, write):
            self.tlb[page] = write
            return 0
        f = host.frames.arrays
        pfn = gup.MISS
        if self.variant == "contract":
            pfn = int(gup.gup_fast(f, host.r, mm.arrays, page, write))
        if pfn == gup.MISS:
            pfn = int(gup.gup_slow(f, host.r, mm.arrays, page, write, notified, bool(mm.notifiers)))
        if pfn < 0:
            return pfn
        if pfn != ZERO_PFN and (pfn & ~BLOCK_MASK) != HUGE_ZERO_PFN:
            put_page(f, pfn)
        self.tlb[page] = write
        return pfn

    def _walk(self, page: int, write: bool) -> bool:
        """atomic_pte_lookup: present, and for a store writable and dirty."""
        arrays = self.mm.arrays
        pmd = arrays.pmd[page >> PMD_ORDER]
        entry = pmd if pmd & PSE else (arrays.pte[page] if pmd else np.uint64(0))
        return bool(entry & PRESENT) and (not write or bool(entry & RW and entry & DIRTY))

    def _clear_flush_young(self, start: int, end: int) -> Bools:
        """Without young bits: drop the translations and answer that they existed."""
        had = np.zeros(end - start, dtype=np.bool_)
        for page in [p for p in self.tlb if start <= p < end]:
            had[page - start] = True
            del self.tlb[page]
        return had

    def invalidate_range_start(self, start: int, end: int) -> None:
        """gru_invalidate_range_start: flush the range."""
        for page in [p for p in self.tlb if start <= p < end]:
            del self.tlb[page]

    def invalidate_page(self, page: int) -> None:
        """gru_invalidate_page."""
        self.tlb.pop(page, None)

    def release(self) -> None:
        """gru_release: the context goes."""
        self.tlb.clear()
