"""Page faults: what a CPU access does to page tables and frames (mm/memory.c, mm/huge_memory.c).

    access --> PMD huge? --yes--> set A (D)                          write to the huge zero page: allocate or split
                 | no
               PTE present, allowed? --yes--> set A (D)
                 | no
               none:   huge fault (eligible block without a page table) | zero page (read) | new page (write)
               swap:   swap in
               shared: the page cache's page (``filemap``)
               write to a read-only page: reuse (exclusive, or sole reference) | copy

One call takes many pages, in order, and does to each exactly what it would do alone: cutting the list anywhere changes nothing.
Where a translation that a secondary MMU may hold is about to change (a copy, a split), the call stops with the page's index so that
the notifiers run first, and is entered again with *notified* set for that page.

In compiled functions *f* is the frames (``page.FrameArrays``), *r* the rules and the host's set-up (``compiled.R``) and *m* an address
space (``pgtable.MmArrays``).
"""

from __future__ import annotations

import numpy as np

from secondsight.bits.pte import (
    ACCESSED,
    DIRTY,
    MAPPED,
    PRESENT,
    PROTNONE,
    PSE,
    RW,
    TABLE,
    UFFD_WP,
    USER,
)
from secondsight.geometry import BLOCK_MASK, PMD_ORDER
from secondsight.mm.anonymous import do_anonymous_page, huge_fault, install, new_anon
from secondsight.mm.filemap import page_mkwrite, shared_fault, split_shared_pmd
from secondsight.mm.huge_memory import split_pmd
from secondsight.mm.internal import ptes_of_folio
from secondsight.mm.lru import (
    lru_add_drain,
    munlock_folio,
    munlock_huge,
)
from secondsight.mm.page import (
    EXCLUSIVE,
    HEAD,
    HPAGE,
    HUGE_ZERO_PFN,
    KSM,
    LRU,
    SWAPCACHE,
    TAIL,
    ZERO_FILLED,
    ZERO_PFN,
    folio_mapcount,
    folio_nr_pages,
    head_of,
    unmap_pmd,
)
from secondsight.mm.pgtable import (
    COPIED,
    COPIED_HUGE,
    COPY_SPLITS,
    FAULTS,
    PAGE_NONE,
    PROT,
    V_HUGE,
    V_LOCKED,
    V_MIXED,
    V_READ,
    V_START,
    V_WRITE,
    pfn_of,
    vma_bits,
)
from secondsight.mm.swap import folio_free_swap, reuse_swap_page, swap_in, unmap_anon
from secondsight.native import merged, native

# Answers of a compiled access beside "all done" (the number of pages) and "notify first" (an index).
NOT_PERMITTED = -1
# Answers of one page's access.
ACCESS_DONE, ACCESS_NOTIFY, ACCESS_DENIED = 0, 1, 2


@native
def _copy_huge(f, r, m, block, old):  # type: ignore[no-untyped-def]
    """do_huge_pmd_wp_page before 5.8 (3917c80280c9): all 2 MiB of a shared huge page are copied."""
    huge_fault(f, r, m, block, True)
    head = pfn_of(m.pmd[block])
    for i in range(HPAGE):
        f.flags[head + i] = (f.flags[head + i] & ~ZERO_FILLED) | (f.flags[old + i] & ZERO_FILLED)
    if vma_bits(m, block * HPAGE) & V_LOCKED:
        munlock_huge(f, r, old)
    unmap_pmd(f, old)
    m.n[COPIED_HUGE] += 1


@native
def _only_here(f, m, page, head):  # type: ignore[no-untyped-def]
    """Is every reference to the folio a PTE of this process, more than one (__wp_can_reuse_large_anon_folio)?"""
    here = ptes_of_folio(f, m, page)
    if here <= 1 or here != folio_mapcount(f, head):
        return False
    # Out of the swap cache, unless an entry still names one of its slots.
    if f.flags[head] & SWAPCACHE:
        folio_free_swap(f, m, head)
    return here == f.refcount[head]


@native
def _can_reuse(f, r, m, page, pfn):  # type: ignore[no-untyped-def]
    """do_wp_page: may the sole owner write in place?"""
    flags = f.flags[pfn]
    head = head_of(f, pfn)
    if f.flags[head] & KSM:
        return False
    if not r.anon_exclusive:
        return f.refcount[head] == 1 if r.wp_counts_references else reuse_swap_page(f, m, pfn)
    if flags & EXCLUSIVE:
        return True
    if f.flags[head] & HEAD:
        return (
            r.wp_reuses_large and _only_here(f, m, page, head) or (r.wp_reuses_last and f.refcount[head] == 1)
        )
    if f.refcount[head] > 3:
        return False
    if not flags & LRU:
        lru_add_drain(f, r)
    if f.flags[head] & SWAPCACHE:
        if f.refcount[head] > 2:
            return False
        folio_free_swap(f, m, head)
    return f.refcount[head] <= 1


@native
def _can_reuse_huge(f, r, m, head):  # type: ignore[no-untyped-def]
    """do_huge_pmd_wp_page: may the sole owner of a huge page write in place?"""
    if r.cow_copies_huge:
        # page_mapcount == 1 (2.6.38).
        return f.flags[head] & EXCLUSIVE != 0 or f.refcount[head + 1] == 1
    if not r.anon_exclusive:
        return reuse_swap_page(f, m, head)
    return f.flags[head] & EXCLUSIVE != 0 or f.refcount[head] == 1


@native
def _numa_present(f, r, m, page, bits):  # type: ignore[no-untyped-def]
    """numa_rebuild_single_mapping: the entry is what its area allows again, and young."""
    pte = (m.pte[page] & ~PROTNONE) | PRESENT | USER | ACCESSED
    if not r.numa_keeps_write and bits & V_WRITE and f.flags[pfn_of(pte)] & EXCLUSIVE and not pte & UFFD_WP:
        pte |= RW
    m.pte[page] = pte


@native
def _do_numa_page(f, r, m, page, bits):  # type: ignore[no-untyped-def]
    """do_numa_page where there is one node, so that nothing moves; a large folio's other entries come with it in later kernels."""
    m.n[FAULTS] += 1
    pfn = pfn_of(m.pte[page])
    if r.numa_fault_maps_folio and f.flags[pfn] & (HEAD | TAIL):
        head = head_of(f, pfn)
        first = max(page - (pfn - head), page & ~BLOCK_MASK)
        last = min(page - (pfn - head) + folio_nr_pages(f, head), (page | BLOCK_MASK) + 1)
        # Within the fault's own area.
        mixed = m.vma[page >> PMD_ORDER] & V_MIXED
        low, high = page, page + 1
        while low > first and not (mixed and m.vma_page[low] & V_START):
            low -= 1
        while high < last and not (mixed and m.vma_page[high] & V_START):
            high += 1
        for other in range(low, high):
            entry = m.pte[other]
            if entry & PROTNONE and head_of(f, pfn_of(entry)) == head:
                _numa_present(f, r, m, other, bits)
    else:
        _numa_present(f, r, m, page, bits)


@native
def _do_huge_pmd_numa_page(f, r, m, page):  # type: ignore[no-untyped-def]
    """do_huge_pmd_numa_page: the same for a huge PMD."""
    m.n[FAULTS] += 1
    pmd = (m.pmd[page >> PMD_ORDER] & ~PROTNONE) | PRESENT | USER | ACCESSED
    if (
        not r.numa_keeps_write
        and vma_bits(m, page) & V_WRITE
        and f.flags[pfn_of(pmd)] & EXCLUSIVE
        and not pmd & UFFD_WP
    ):
        pmd |= RW
    m.pmd[page >> PMD_ORDER] = pmd
    return pmd


@merged
def access_page(f, r, m, page, write, notifiers_done):  # type: ignore[no-untyped-def]
    """One load (*write* 0) or store through the primary page table: an ACCESS_ code.

    *notifiers_done*: its notifiers have run, or there are none.
    """
    block = page >> PMD_ORDER
    need = V_WRITE if write else V_READ
    pmd = m.pmd[block]
    if pmd & PSE:
        if not vma_bits(m, page) & need:
            return ACCESS_DENIED
        if not pmd & PRESENT:
            pmd = _do_huge_pmd_numa_page(f, r, m, page)
        if not write or pmd & RW:
            m.pmd[block] = pmd | ACCESSED | (DIRTY if write else np.uint64(0))
            return ACCESS_DONE
        if len(m.file):
            # wp_huge_pmd: who wants to know of writes knows PTEs alone; the fault then begins anew.
            if not notifiers_done:
                return ACCESS_NOTIFY
            split_shared_pmd(f, m, block)
            shared_fault(f, r, m, page, write)
            return ACCESS_DONE
        zero = pfn_of(pmd) == HUGE_ZERO_PFN
        if not zero and _can_reuse_huge(f, r, m, pfn_of(pmd)):
            f.flags[pfn_of(pmd)] |= EXCLUSIVE
            m.pmd[block] = pmd | RW | ACCESSED | DIRTY
            return ACCESS_DONE
        if not notifiers_done:
            return ACCESS_NOTIFY
        if zero and r.huge_zero_wp_allocates:
            m.pmd[block] = 0
            huge_fault(f, r, m, block, True)
            return ACCESS_DONE
        if not zero and r.cow_copies_huge:
            _copy_huge(f, r, m, block, pfn_of(pmd))
            return ACCESS_DONE
        m.n[COPY_SPLITS] += not zero
        split_pmd(f, r, m, block, False)
        pmd = m.pmd[block]
    pte = m.pte[page] if pmd else np.uint64(0)
    if pte & PRESENT:
        if not write:
            m.pte[page] = pte | ACCESSED
            return ACCESS_DONE
        if pte & RW:
            m.pte[page] = pte | ACCESSED | DIRTY
            return ACCESS_DONE
    bits = vma_bits(m, page)
    if not bits & need:
        return ACCESS_DENIED
    if pte & PROTNONE and not pte & PRESENT:
        _do_numa_page(f, r, m, page, bits)
        pte = m.pte[page]
        if not write or pte & RW:
            m.pte[page] = pte | (DIRTY if write else np.uint64(0))
            return ACCESS_DONE
    if len(m.cache) and pte == 0:
        shared_fault(f, r, m, page, write)
        return ACCESS_DONE
    if len(m.file):
        # wp_page_shared
        m.n[FAULTS] += 1
        page_mkwrite(f, m, head_of(f, pfn_of(pte)))
        m.pte[page] = pte | RW | ACCESSED | DIRTY
        return ACCESS_DONE
    if not pmd:
        if bits & V_HUGE:
            huge_fault(f, r, m, block, write)
            return ACCESS_DONE
        m.pmd[block] = TABLE
    if pte == 0:
        do_anonymous_page(f, r, m, page, write)
    elif not pte & PRESENT:
        m.n[FAULTS] += 1
        if not swap_in(f, r, m, page, write, True):
            return ACCESS_DENIED
        if write and not m.pte[page] & RW:
            # No secondary MMU maps the page here yet, but a copy tells them all the same, which makes a fault of KVM's stale.
            if not notifiers_done and not _can_reuse(f, r, m, page, pfn_of(m.pte[page])):
                return ACCESS_NOTIFY
            _do_wp_page(f, r, m, page)
    else:
        # A write to a present read-only page.
        old = pfn_of(pte)
        if (old == ZERO_PFN or not _can_reuse(f, r, m, page, old)) and not notifiers_done:
            return ACCESS_NOTIFY
        _do_wp_page(f, r, m, page)
    return ACCESS_DONE


@native
def _do_wp_page(f, r, m, page):  # type: ignore[no-untyped-def]
    """do_wp_page of a present read-only entry: the sole owner writes in place, everybody else gets a copy (wp_page_copy)."""
    pte = m.pte[page]
    old = pfn_of(pte)
    if old != ZERO_PFN and _can_reuse(f, r, m, page, old):
        if not r.wp_counts_references:
            # Else it stays in the anon_vma that it was inherited with (no page_move_anon_rmap, 5.8 to 5.17).
            f.flags[old] |= EXCLUSIVE
        m.pte[page] = pte | RW | ACCESSED | DIRTY
        return
    wp_page_copy(f, r, m, page, False)


@native
def wp_page_copy(f, r, m, page, unshare):  # type: ignore[no-untyped-def]
    """wp_page_copy: the mapping gets a copy, with an entry made anew of what its area permits (mk_pte of vm_page_prot): dirty and, where
    stores are allowed, writable (maybe_mkwrite); *unshare*: clean, read-only, and protected by userfaultfd if it was."""
    m.n[FAULTS] += 1
    pte = m.pte[page]
    old = pfn_of(pte)
    bits = vma_bits(m, page)
    pfn = new_anon(f, r, bits, True)
    # A copy, until somebody stores: gup for writing does not.
    f.flags[pfn] |= f.flags[old] & ZERO_FILLED
    if old != ZERO_PFN:
        m.n[COPIED] += 1
        if bits & V_LOCKED:
            munlock_folio(f, r, old)
        unmap_anon(f, m, old)
    prot = PROT if bits & (V_READ | V_WRITE) else PAGE_NONE
    if unshare:
        prot |= pte & UFFD_WP
    else:
        prot |= DIRTY | (RW if bits & V_WRITE else np.uint64(0))
    install(f, m, page, pfn, prot)


@native
def unshare_page(f, r, m, page, notifiers_done):  # type: ignore[no-untyped-def]
    """FAULT_FLAG_UNSHARE: a pin (FOLL_PIN) for reading makes the mapping's page its own first: an ACCESS_ code.

    A sole owner takes the page over; of a shared one the process gets a copy, read-only and clean (wp_page_copy). Nothing to do where
    no anonymous page is mapped, or an exclusive one (gup_must_unshare).
    """
    if len(m.cache):
        # gup_must_unshare asks about anonymous pages alone.
        return ACCESS_DONE
    block = page >> PMD_ORDER
    pmd = m.pmd[block]
    if pmd & PSE:
        head = pfn_of(pmd)
        if not vma_bits(m, page) & V_READ or head == HUGE_ZERO_PFN or f.flags[head] & EXCLUSIVE:
            return ACCESS_DONE
        if not pmd & PRESENT:
            _do_huge_pmd_numa_page(f, r, m, page)
        if f.refcount[head] == 1:
            f.flags[head] |= EXCLUSIVE
            return ACCESS_DONE
        if not notifiers_done:
            return ACCESS_NOTIFY
        m.n[COPY_SPLITS] += 1
        split_pmd(f, r, m, block, False)
        pmd = m.pmd[block]
    pte = m.pte[page] if pmd else np.uint64(0)
    if pte != 0 and not pte & MAPPED and vma_bits(m, page) & V_READ:
        # It is read in first, maybe as somebody else's too.
        m.n[FAULTS] += 1
        if not swap_in(f, r, m, page, False, True):
            return ACCESS_DONE
        pte = m.pte[page]
    old = pfn_of(pte)
    readable = pte & MAPPED and vma_bits(m, page) & V_READ
    if not readable or old == ZERO_PFN or f.flags[old] & EXCLUSIVE:
        return ACCESS_DONE
    if not pte & PRESENT:
        _do_numa_page(f, r, m, page, vma_bits(m, page))
    if _can_reuse(f, r, m, page, old):
        f.flags[old] |= EXCLUSIVE
        return ACCESS_DONE
    if not notifiers_done:
        return ACCESS_NOTIFY
    wp_page_copy(f, r, m, page, True)
    return ACCESS_DONE


@native
def cpu_access(f, r, m, pages, write, start, notified, has_notifiers):  # type: ignore[no-untyped-def]
    """Loads (*write* 0) or stores through the primary page table, of *pages* from index *start* on.

    Returns len(pages) when done, the index of a page whose notifiers must run first, or ``-1 - index`` of one whose VMA
    does not permit the access.
    """
    for i in range(start, len(pages)):
        done = access_page(f, r, m, pages[i], write, not has_notifiers or (notified and i == start))
        if done == ACCESS_NOTIFY:
            return i
        if done == ACCESS_DENIED:
            return NOT_PERMITTED - i
        if write:
            # What gup made, or the fault of a large folio, is zero-filled until somebody stores.
            pmd = m.pmd[pages[i] >> PMD_ORDER]
            if pmd & PSE:
                f.flags[pfn_of(pmd) + (pages[i] & BLOCK_MASK)] &= ~ZERO_FILLED
            else:
                f.flags[pfn_of(m.pte[pages[i]])] &= ~ZERO_FILLED
    return len(pages)
