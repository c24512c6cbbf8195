"""get_user_pages: how a page is reached by its address and taken hold of.

    gup_fast   walks the page table without locks; takes a reference; marks the page referenced (the seed's addition);
               gives up where the entry is missing, inaccessible (PROT_NONE), special (the zero page), or read-only for a write
    gup slow   faults the page in like an access, then touches it: mark_page_accessed (FOLL_TOUCH)

A large folio's head is marked, once a subpage: many subpages in one call are many marks. Source: mm/gup.c
(gup_pte_range, follow_page_pte, get_user_pages_unlocked); 2.6.38: arch/x86/mm/gup.c with the seed patch.

In compiled functions *f* is the frames (``page.FrameArrays``), *r* the rules and the host's set-up (``compiled.R``) and *m* an address
space (``pgtable.MmArrays``).
"""

from __future__ import annotations

import numpy as np

from secondsight.bits.pte import ACCESSED, DIRTY, PRESENT, PROTNONE, PSE, RW
from secondsight.geometry import BLOCK_MASK, PMD_ORDER
from secondsight.mm.lru import mark_page_accessed
from secondsight.mm.memory import ACCESS_DENIED, ACCESS_NOTIFY, access_page
from secondsight.mm.page import DIRTY as PAGE_DIRTY
from secondsight.mm.page import HUGE_ZERO_PFN, REFERENCED, ZERO_FILLED, ZERO_PFN, head_of, put_page
from secondsight.mm.pgtable import NOWAIT, V_READ, V_WRITE, pfn_of, vma_bits
from secondsight.native import merged, native

MISS = -1
NOTIFY = -2
NOT_PERMITTED = -3
#: How the slow way goes about it.
TOUCH, FORCE = 1, 2


@native
def gup_fast(f, r, m, page, write):  # type: ignore[no-untyped-def]
    """get_user_pages_fast of one page: its pfn with one more reference and PG_referenced set, or MISS."""
    block = page >> PMD_ORDER
    pmd = m.pmd[block]
    if pmd & PSE:
        if not pmd & PRESENT or (write and not pmd & RW) or pfn_of(pmd) == HUGE_ZERO_PFN:
            return MISS
        pfn = pfn_of(pmd) + (page & BLOCK_MASK)
    else:
        if not pmd:
            return MISS
        pte = m.pte[page]
        if not pte & PRESENT or (write and not pte & RW):
            return MISS
        pfn = pfn_of(pte)
        if pfn == ZERO_PFN:
            return MISS
    head = head_of(f, pfn)
    f.refcount[head] += 1
    if r.gup_fast_sets_referenced:
        f.flags[head] |= REFERENCED
    return pfn


@native
def _follows(r, m, page, entry, force):  # type: ignore[no-untyped-def]
    """gup_can_follow_protnone: is a page taken through an entry that NUMA balancing made PROT_NONE, without its fault? Not by KVM
    (FOLL_HONOR_NUMA_FAULT); before that flag, by *force* alone."""
    if not entry & PROTNONE or not vma_bits(m, page) & (V_READ | V_WRITE):
        return False
    return not m.n[NOWAIT] if r.gup_follows_protnone else force


@merged
def gup_slow(f, r, m, page, write, notified, has_notifiers, how=TOUCH):  # type: ignore[no-untyped-def]
    """get_user_pages_unlocked of one page: fault it in if need be, touch it (*how* & TOUCH: FOLL_TOUCH), take a reference. *how* & FORCE:
    FOLL_FORCE.

    Returns the pfn (the zero page's is ZERO_PFN, or inside the huge zero page; neither is counted), NOTIFY or NOT_PERMITTED.
    """
    block = page >> PMD_ORDER
    pmd = m.pmd[block]
    entry = pmd
    if not pmd & PSE:
        entry = m.pte[page] if pmd else np.uint64(0)
    follows = not entry & PRESENT and _follows(r, m, page, entry, how & FORCE != 0)
    if not (entry & PRESENT or follows) or (write and not entry & RW):
        # Nothing is stored here: a page that is new, or the zero page's copy, is zero-filled until somebody does.
        new = write and (entry == 0 or (not pmd & PSE and entry & PRESENT and pfn_of(entry) == ZERO_PFN))
        done = access_page(f, r, m, page, write, notified or not has_notifiers)
        if done == ACCESS_NOTIFY:
            return NOTIFY
        if done == ACCESS_DENIED:
            return NOT_PERMITTED
        pmd = m.pmd[block]
        entry = pmd if pmd & PSE else m.pte[page]
        if new:
            f.flags[pfn_of(entry) + (page & BLOCK_MASK if pmd & PSE else 0)] |= ZERO_FILLED
    pfn = pfn_of(entry)
    if pmd & PSE:
        pfn += page & BLOCK_MASK
        # follow_trans_huge_pmd with FOLL_TOUCH, touch_pmd: x86's pmdp_set_access_flags writes nothing where nothing becomes dirty.
        if how & TOUCH and (write or r.touch_pmd_always):
            m.pmd[block] = pmd | ACCESSED | DIRTY
    if pfn == ZERO_PFN or (pfn & ~BLOCK_MASK) == HUGE_ZERO_PFN:
        return pfn
    f.refcount[head_of(f, pfn)] += 1
    if how & TOUCH and not pmd & PSE:
        # follow_page_pte; follow_trans_huge_pmd leaves it at touch_pmd.
        if write and not entry & DIRTY:
            f.flags[head_of(f, pfn)] |= PAGE_DIRTY
        mark_page_accessed(f, r, pfn)
    return pfn


@native
def populate(f, r, m, page, write, notified, has_notifiers):  # type: ignore[no-untyped-def]
    """__mm_populate of one page: gup without the page; answers like ``gup_slow``."""
    pfn = gup_slow(f, r, m, page, write, notified, has_notifiers, TOUCH | FORCE)
    if pfn >= 0 and pfn != ZERO_PFN and (pfn & ~BLOCK_MASK) != HUGE_ZERO_PFN:
        put_page(f, pfn)
    return pfn
