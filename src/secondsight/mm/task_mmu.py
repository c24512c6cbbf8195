"""``/proc/PID/clear_refs`` (fs/proc/task_mmu.c clear_refs_pte_range).

Clears, for every page the process maps, the primary accessed bit, PG_young and PG_referenced. It asks no notifier: what a secondary MMU
holds stays young there.

In compiled functions *f* is the frames (``page.FrameArrays``), *r* the rules and the host's set-up (``compiled.R``) and *m* an address
space (``pgtable.MmArrays``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from secondsight.bits.pte import ACCESSED, MAPPED, PSE
from secondsight.mm.page import HPAGE, HUGE_ZERO_PFN, REFERENCED, YOUNG, ZERO_PFN, head_of
from secondsight.mm.pgtable import pfn_of
from secondsight.native import native

if TYPE_CHECKING:
    from secondsight.mm.mm_struct import Mm


@native
def _clear_refs(f, r, m):  # type: ignore[no-untyped-def]
    for block in range(len(m.pmd)):
        pmd = m.pmd[block]
        if pmd & PSE:
            if pfn_of(pmd) == HUGE_ZERO_PFN and not r.clear_refs_ages_huge_zero:
                continue
            m.pmd[block] = pmd & ~ACCESSED
            f.flags[pfn_of(pmd)] &= ~(REFERENCED | YOUNG)
        elif pmd:
            for page in range(block * HPAGE, block * HPAGE + HPAGE):
                entry = m.pte[page]
                # The zero page is no normal page: its PTE keeps the bit (vm_normal_page).
                if not entry & MAPPED or pfn_of(entry) == ZERO_PFN:
                    continue
                m.pte[page] = entry & ~ACCESSED
                f.flags[head_of(f, pfn_of(entry))] &= ~(REFERENCED | YOUNG)


def clear_refs(mm: Mm) -> None:
    """``echo 1 > /proc/PID/clear_refs`` with a TLB flush behind it (the kernel makes none)."""
    _clear_refs(mm.host.frames.arrays, mm.host.r, mm.arrays)
