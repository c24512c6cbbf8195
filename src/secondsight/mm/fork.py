"""fork and exit (kernel/fork.c dup_mmap, copy_page_range in mm/memory.c, exit_mmap in mm/mmap.c).

fork shares every anonymous page copy-on-write: both sides lose write permission (the notifiers are told, since a guest could write
still), the child's entries are old, and no page is exclusive any more. Areas without an anon_vma are not copied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from secondsight.bits.pte import ACCESSED, PRESENT, PROTNONE, PSE, RW, SWP_EXCLUSIVE, TABLE
from secondsight.mm.madvise import unmap
from secondsight.mm.memory import pfn_of
from secondsight.mm.page import EXCLUSIVE, HPAGE, HUGE_ZERO_PFN, ZERO_PFN, map_pmd, map_pte
from secondsight.mm.vma import Vm
from secondsight.native import native

if TYPE_CHECKING:
    from secondsight.mm.mm_struct import Mm


@native
def _copy(f, parent, child, start, end):  # type: ignore[no-untyped-def]
    """copy_page_range of one area."""
    page = start
    while page < end:
        block = page >> 9
        pmd = parent.pmd[block]
        if pmd & PSE:
            head = pfn_of(pmd)
            if head != HUGE_ZERO_PFN:
                map_pmd(f, head)
                f.flags[head] &= ~EXCLUSIVE
                parent.pmd[block] = pmd & ~RW
            child.pmd[block] = pmd & ~(RW | ACCESSED)
            page = (block + 1) * HPAGE
            continue
        entry = parent.pte[page] if pmd else np.uint64(0)
        if entry:
            child.pmd[block] = TABLE
            if not entry & (PRESENT | PROTNONE):
                parent.swap[np.int64(entry >> np.uint64(14)) - 1] += 1
                parent.pte[page] = entry & ~SWP_EXCLUSIVE
                child.pte[page] = entry & ~SWP_EXCLUSIVE
            else:
                pfn = pfn_of(entry)
                if pfn != ZERO_PFN:
                    map_pte(f, pfn)
                    f.flags[pfn] &= ~EXCLUSIVE
                parent.pte[page] = entry & ~RW
                child.pte[page] = entry & ~(RW | ACCESSED)
        page += 1


def fork(mm: Mm, child_name: str) -> Mm:
    """The child of *mm*: the same area, shared copy-on-write, no notifier; registered with khugepaged if the parent is."""
    host = mm.host
    child = host.mm(child_name, mm.blocks, numbers=mm.numbers)
    child.vmas = mm.vmas.inherited(lambda flags: flags & ~Vm.LOCKED)
    child.refresh()
    child.huge_ever = mm.huge_ever
    if mm in host.khugepaged.slots:
        host.khugepaged.slots.append(child)
    for vma in mm.vmas.areas:
        if vma.anon_vma:
            mm.notifiers.invalidate_range(vma.start, vma.end)
            _copy(host.frames.arrays, mm.arrays, child.arrays, vma.start, vma.end)
    return child


def exit_mm(mm: Mm) -> None:
    """The process ends: khugepaged forgets it, notifiers release, everything is unmapped; pins outlive it until unpinned."""
    host = mm.host
    mm.notifiers.release()
    host.khugepaged.exit(mm)
    unmap(mm, 0, mm.npages)
    mm.arrays.pmd[:] = 0
    for name in list(mm.pins):
        mm.unpin(name)
    mm.exited = True
    del host.mms[mm.name]
