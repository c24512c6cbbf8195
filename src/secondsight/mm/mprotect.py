"""mprotect(2) (mm/mprotect.c): notifiers, then each PTE's permissions; accessed and dirty bits stay.

In compiled functions *f* is the frames (``page.FrameArrays``), *r* the rules and the host's set-up (``compiled.R``) and *m* an address
space (``pgtable.MmArrays``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from secondsight.bits.pte import (
    ACCESSED,
    DIRTY,
    NX,
    PFN_MASK,
    PRESENT,
    PROTNONE,
    PSE,
    RW,
    SPECIAL,
    UFFD_WP,
    USER,
)
from secondsight.geometry import PMD_ORDER
from secondsight.mm.internal import USE, folio_pte_batch
from secondsight.mm.mlock import populate_area
from secondsight.mm.page import EXCLUSIVE, HPAGE, HUGE_ZERO_PFN, ZERO_PFN
from secondsight.mm.pgtable import pfn_of
from secondsight.mm.vma import LOCKED_MASK, VmFlags
from secondsight.native import native

if TYPE_CHECKING:
    from secondsight.mm.mm_struct import Mm

#: What pte_modify and pmd_modify leave of an entry (_PAGE_CHG_MASK).
KEPT = PFN_MASK | ACCESSED | DIRTY | SPECIAL | PSE | NX | UFFD_WP


@native
def change_protection(f, r, m, start, end, none, writable):  # type: ignore[no-untyped-def]
    """change_pte_range, change_huge_pmd: *none* (PROT_NONE) or readable, and *writable*.

    Exclusive pages may be writable again at once (can_change_pte_writable, can_change_pmd_writable); PTEs of one large folio may share
    their accessed and dirty bits; x86's pmd_modify may lose the dirty bit.
    """
    page = start
    batched, used = start, np.uint64(0)
    while page < end:
        block = page >> PMD_ORDER
        pmd = m.pmd[block]
        step = HPAGE if pmd & PSE else 1
        entry = pmd if pmd & PSE else m.pte[page]
        if pmd and entry & (PRESENT | PROTNONE):
            pfn = pfn_of(entry)
            if r.mprotect_batches and step == 1:
                if page >= batched:
                    n, used = folio_pte_batch(f, m, page, end, USE)
                    batched = page + n
                entry |= used
            new = entry & KEPT
            # A write-protected PMD's dirty bit waits in _PAGE_SAVED_DIRTY, which stays.
            if step > 1 and r.pmd_modify_drops_dirty and entry & RW:
                new &= ~DIRTY
            new |= PROTNONE if none else (PRESENT | USER)
            if writable:
                zero = pfn in (ZERO_PFN, HUGE_ZERO_PFN)
                again = r.mprotect_keeps_huge_writable if pmd & PSE else r.mprotect_keeps_exclusive_writable
                dirty = r.mprotect_keeps_clean_writable or entry & DIRTY
                again = again and not entry & UFFD_WP  # userfaultfd_pte_wp
                if entry & RW or (again and not zero and f.flags[pfn] & EXCLUSIVE and dirty):
                    new |= RW
            if pmd & PSE:
                m.pmd[block] = new
            else:
                m.pte[page] = new
        page += step


def mprotect(mm: Mm, start: int, end: int, prot: Literal["none", "r", "rw"]) -> None:
    """Protect pages *start* to *end* (exclusive).

    :raises UsageError: the range is empty or outside the space.
    """
    mm.check_range(start, end)
    flags = {"none": VmFlags(0), "r": VmFlags.READ, "rw": VmFlags.READ | VmFlags.WRITE}[prot]
    for vma, low, high in mm.vmas.within(start, end):
        # mprotect_fixup leaves an area alone that is so protected already.
        if vma.flags & (VmFlags.READ | VmFlags.WRITE) != flags:
            mm.change_areas(low, high, lambda old: (old & ~(VmFlags.READ | VmFlags.WRITE)) | flags)
            mm.notifiers.invalidate_range(low, high)
            change_protection(
                mm.host.frames.arrays, mm.host.r, mm.arrays, low, high, prot == "none", prot == "rw"
            )
            locked = vma.flags & LOCKED_MASK
            by_populate = bool(locked) and mm.host.rules.mlock_by_populate
            if (locked == VmFlags.LOCKED or by_populate) and prot == "rw":
                # A locked area that becomes writable: copied now what it shares, rather than at the store.
                populate_area(mm, low, high, True)
