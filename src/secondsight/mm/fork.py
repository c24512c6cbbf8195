"""fork and exit (kernel/fork.c dup_mmap, copy_page_range in mm/memory.c, exit_mmap in mm/mmap.c).

fork shares every anonymous page copy-on-write: both sides lose write permission (the notifiers are told, since a guest could write
still), the child's entries are old, and no page is exclusive any more. Areas without an anon_vma are not copied, nor droppable ones
(VM_WIPEONFORK): a child of shared memory begins without a page table.

A page that is pinned for DMA (FOLL_PIN) must stay the parent's: the child gets a copy at once, writable and young, and the
parent's entry stays as it is. A huge page of which any part is pinned is split in the parent's table first, and copied page by page
(copy_huge_pmd).

In compiled functions *f* is the frames (``page.FrameArrays``) and *r* the rules and the host's set-up (``compiled.R``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from secondsight.bits.pte import (
    ACCESSED,
    DIRTY,
    PRESENT,
    PROTNONE,
    PSE,
    RW,
    SWP_EXCLUSIVE,
    TABLE,
    UFFD_WP,
)
from secondsight.bits.swap import SWP_UFFD_WP
from secondsight.geometry import PMD_ORDER
from secondsight.mm.anonymous import install, new_anon
from secondsight.mm.huge_memory import split_pmd
from secondsight.mm.page import (
    EXCLUSIVE,
    HPAGE,
    HUGE_ZERO_PFN,
    ZERO_FILLED,
    ZERO_PFN,
    head_of,
    map_pmd,
    map_pte,
)
from secondsight.mm.pgtable import DROPPABLE, PAGE_NONE, PROT, pfn_of
from secondsight.mm.swap import COUNT, is_swap, slot_of
from secondsight.mm.unmap import unmap
from secondsight.mm.vma import LOCKED_MASK, UFFD_FLAGS, VmFlags
from secondsight.native import native

if TYPE_CHECKING:
    from secondsight.mm.mm_struct import Mm


@native
def _is_pinned(f, r, pinned, pfn):  # type: ignore[no-untyped-def]
    """folio_needs_cow_for_dma: does an exclusive page (any, if none remembers) belong to one of the folios *pinned* (ascending)?"""
    if not len(pinned) or (r.anon_exclusive and not f.flags[pfn] & EXCLUSIVE):
        return False
    head = head_of(f, pfn)
    at = np.searchsorted(pinned, head)
    return at < len(pinned) and pinned[at] == head


@native
def _copy(f, r, parent, child, area, pinned, prot, copies):  # type: ignore[no-untyped-def]
    """copy_page_range of one *area* (first page, end), whose new pages get the rights *prot*.

    *copies* int64[pages] takes the pfn of what was copied.
    """
    page, end = area
    while page < end:
        block = page >> PMD_ORDER
        pmd = parent.pmd[block]
        if pmd & PSE:
            head = pfn_of(pmd)
            if not _is_pinned(f, r, pinned, head):
                if head != HUGE_ZERO_PFN:
                    map_pmd(f, head)
                    f.flags[head] &= ~EXCLUSIVE
                    parent.pmd[block] = pmd & ~RW
                child.pmd[block] = pmd & ~(RW | ACCESSED)
                page = (block + 1) * HPAGE
                continue
            split_pmd(f, r, parent, block, False)
            pmd = parent.pmd[block]
        entry = parent.pte[page] if pmd else np.uint64(0)
        if pmd:
            # copy_pte_range allocates the child's table before it looks whether there is anything to copy.
            child.pmd[block] = TABLE
        if entry:
            if not entry & (PRESENT | PROTNONE):
                # copy_nonpresent_pte: markers that are errors go along.
                if is_swap(entry):
                    parent.swap[COUNT, slot_of(entry)] += 1
                parent.pte[page] = entry & ~SWP_EXCLUSIVE
                # The child is not registered: pte_swp_clear_uffd_wp, pte_clear_uffd_wp.
                child.pte[page] = entry & ~(SWP_EXCLUSIVE | SWP_UFFD_WP)
            else:
                pfn = pfn_of(entry)
                if pfn != ZERO_PFN and _is_pinned(f, r, pinned, pfn):
                    new = new_anon(f, r, 0, False)
                    f.flags[new] |= f.flags[pfn] & ZERO_FILLED
                    install(f, child, page, new, prot)
                    copies[page] = new
                else:
                    if pfn != ZERO_PFN:
                        map_pte(f, pfn)
                        f.flags[pfn] &= ~EXCLUSIVE
                    parent.pte[page] = entry & ~RW
                    child.pte[page] = entry & ~(RW | ACCESSED | UFFD_WP)
        page += 1


def fork(mm: Mm, child_name: str) -> Mm:
    """The child of *mm*: the same area, shared copy-on-write, no notifier; registered with khugepaged if the parent is."""
    droppable = bool(mm.arrays.n[DROPPABLE])
    child = mm.host.mm(child_name, mm.blocks, numbers=mm.numbers, droppable=droppable)
    dup_mmap(mm, child)
    return child


def dup_mmap(mm: Mm, child: Mm) -> None:
    """Make *child*, which has as many blocks as *mm* and nothing mapped, what :func:`fork` makes."""
    host = mm.host
    if mm.memory is not None:
        child.share(mm.memory, mm.memory_block)
    mm.has_forked, child.ancestors = True, (*mm.ancestors, mm)
    child.vmas = mm.vmas.inherited(lambda flags: flags & ~(LOCKED_MASK | UFFD_FLAGS))
    child.refresh()
    child.huge_ever |= mm.huge_ever
    if mm in host.khugepaged.slots and child not in host.khugepaged.slots:
        host.khugepaged.slots.append(child)
    pinned = mm.dma_pinned() if host.rules.fork_copies_pinned else np.zeros(0, np.int64)
    copies = np.full(mm.npages if len(pinned) else 0, -1, np.int64)
    for vma in mm.vmas.areas:
        if vma.anon_vma and not vma.flags & VmFlags.DROPPABLE:
            mm.notifiers.invalidate_range(vma.start, vma.end)
            f = host.frames.reserve(vma.end - vma.start if len(pinned) else 0, 0, 4 * HPAGE)
            prot = PROT | DIRTY | (RW if vma.flags & VmFlags.WRITE else np.uint64(0))
            if not vma.flags & (VmFlags.READ | VmFlags.WRITE):
                prot = PAGE_NONE | DIRTY
            _copy(f, host.r, mm.arrays, child.arrays, (vma.start, vma.end), pinned, prot, copies)
    for page in np.flatnonzero(copies >= 0).tolist():
        value = host.content.get(mm.pfn(page))
        if value is None:
            host.content.pop(int(copies[page]), None)
        else:
            host.content[int(copies[page])] = value


def exit_mm(mm: Mm) -> None:
    """The process ends: khugepaged forgets it, notifiers release, everything is unmapped; pins outlive it until unpinned."""
    host = mm.host
    mm.notifiers.release()
    host.khugepaged.exit(mm)
    unmap(mm, 0, mm.npages)
    mm.arrays.pmd[:] = 0
    if mm.memory is not None:
        mm.memory.unmap(mm)
    for name in list(mm.pins):
        mm.unpin(name)
    mm.exited = True
    del host.mms[mm.name]
