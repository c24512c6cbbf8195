"""NUMA balancing (mm/mempolicy.c change_prot_numa, mm/mprotect.c change_pte_range): entries made PROT_NONE, to see who uses them next.

present entry --scan--> PROT_NONE, its bits kept --access--> do_numa_page (``memory``): present and young again
     |                                                        with several nodes the page might move first; here there is one
     +--> notifiers: what secondary MMUs map there is gone, with what it told of use since 6.13

In compiled functions *f* is the frames (``page.FrameArrays``), *r* the rules and the host's set-up (``compiled.R``) and *m* an address
space (``pgtable.MmArrays``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from secondsight.bits.pte import DIRTY, PRESENT, PROTNONE, PSE, RW
from secondsight.errors import UsageError
from secondsight.geometry import PMD_ORDER
from secondsight.mm.internal import USE, folio_pte_batch, maybe_mapped_shared
from secondsight.mm.mprotect import KEPT
from secondsight.mm.page import DIRTY as PAGE_DIRTY
from secondsight.mm.page import (
    HEAD,
    HPAGE,
    HUGE_ZERO_PFN,
    KSM,
    SWAPBACKED,
    TAIL,
    ZERO_PFN,
    folio_mapcount,
    head_of,
)
from secondsight.mm.pgtable import pfn_of
from secondsight.mm.vma import VmFlags
from secondsight.native import native

if TYPE_CHECKING:
    from secondsight.mm.mm_struct import Mm


@native
def _may_move(f, r, m, page, huge, pinned, by_mm):  # type: ignore[no-untyped-def]
    """folio_can_map_prot_numa, on one node: the zero page, KSM pages, and what others hold or map stay as they are."""
    pfn = pfn_of(m.pmd[page >> PMD_ORDER] if huge else m.pte[page])
    if pfn == (HUGE_ZERO_PFN if huge else ZERO_PFN):
        return False
    if huge and not r.numa_asks_huge:
        return True
    head = head_of(f, pfn)
    if f.flags[head] & KSM:
        return False
    if r.numa_counts_references:
        if f.refcount[head] != 1:
            return False
    else:
        at = np.searchsorted(pinned, head)
        if at < len(pinned) and pinned[at] == head:
            return False
        if not huge and f.flags[head] & (HEAD | TAIL):
            shared = maybe_mapped_shared(f, m, page, by_mm)
        else:
            shared = folio_mapcount(f, head) > 1
        if shared:
            return False
    # folio_is_file_lru: anonymous memory that is not swap-backed is on the files' list.
    return huge or f.flags[head] & SWAPBACKED != 0 or f.flags[head] & PAGE_DIRTY == 0


@native
def _change(f, r, m, start, end, pinned, by_mm):  # type: ignore[no-untyped-def]
    """change_pte_range and change_huge_pmd with MM_CP_PROT_NUMA, over pages *start* to *end* of one area."""
    page = start
    batched, used = start, np.uint64(0)
    while page < end:
        block = page >> PMD_ORDER
        pmd = m.pmd[block]
        huge = pmd & PSE != 0
        entry = pmd if huge else m.pte[page]
        if pmd and entry & PRESENT and _may_move(f, r, m, page, huge, pinned, by_mm):
            if r.mprotect_batches and not huge:
                if page >= batched:
                    n, used = folio_pte_batch(f, m, page, min(end, (block + 1) * HPAGE), USE)
                    batched = page + n
                entry |= used
            new = (entry & KEPT) | PROTNONE
            if huge and r.pmd_modify_drops_dirty and entry & RW:
                new &= ~DIRTY
            if r.numa_keeps_write:
                new |= entry & RW
            if huge:
                m.pmd[block] = new
            else:
                m.pte[page] = new
        page += HPAGE if huge else 1


def change_prot_numa(mm: Mm) -> None:
    """task_numa_work of *mm*, through all of its area: accessible VMAs alone (vma_is_accessible).

    :raises UsageError: the kernel has no NUMA balancing, or *mm* is shared memory, which is not modelled.
    """
    if not mm.host.rules.has_numa_balancing:
        raise UsageError(
            f"{mm.host.rules.name} has no NUMA balancing, or it is not modelled: 6.1 and later are"
        )
    if mm.memory is not None:
        raise UsageError(f"space {mm.name!r} maps shared memory: NUMA balancing of that is not modelled")
    pinned = np.unique(np.concatenate([each.dma_pinned() for each in mm.host.mms.values()]))
    by_mm = mm.host.rules.large_mapped_shared == "mm"
    for vma, low, high in mm.vmas.within(0, mm.npages):
        if vma.flags & (VmFlags.READ | VmFlags.WRITE):
            mm.notifiers.invalidate_range(low, high)
            _change(mm.host.frames.arrays, mm.host.r, mm.arrays, low, high, pinned, by_mm)
