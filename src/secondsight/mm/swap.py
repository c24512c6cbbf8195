"""Swap slots, the swap cache, and how a page comes back (mm/swap_state.c, mm/swapfile.c, do_swap_page of mm/memory.c).

::

    a slot:  how many entries name it | the page of it that is in the swap cache, or none | its content
             the last entry goes, and no process maps the cached page --> it leaves the cache (__try_to_reclaim_swap)

    an entry is read in, the device being synchronous (brd, zram) and swap's readahead off (vm.page-cluster=0)
      6.1, 6.12   cached --> that page;  named once --> past the cache, a page or (6.12) a large folio of one's own;  else --> through it
      7.2         cached --> that page;  else --> through the cache, a page or a large folio; out of it again if nobody else names it

A large folio comes back where its order is enabled, its slots are a row as aligned as its pages, all entries are alike, none is cached,
and all or none of its slots were all zeroes (thp_swapin_suitable_orders, alloc_swap_folio; swap_zeromap_batch, __swap_cache_add_check).

In compiled functions *f* is the frames (``page.FrameArrays``), *r* the rules and the host's set-up (``compiled.R``) and *m* an address
space (``pgtable.MmArrays``).
"""

from __future__ import annotations

import numpy as np

from secondsight.bits.pte import DIRTY, RW, SWP_EXCLUSIVE, UFFD_WP
from secondsight.bits.swap import OFFSET_MASK, OFFSET_SHIFT, SURE_SWAP, SWP_UFFD_WP, TYPE_SHIFT
from secondsight.geometry import MIN_ANON_ORDER, PMD_ORDER
from secondsight.mm import page as pg
from secondsight.mm.lru import folio_add_lru, lru_add_drain, mlock_folio
from secondsight.mm.page import (
    EXCLUSIVE,
    HEAD,
    KSM,
    LRU,
    MLOCKED,
    NEW_ANON,
    SWAPCACHE,
    ZERO_FILLED,
    alloc_folio,
    alloc_page,
    folio_mapcount,
    folio_nr_pages,
    head_of,
    map_pte,
    put_page,
)
from secondsight.mm.pgtable import (
    PFN_SHIFT,
    PROT,
    V_ADVISED,
    V_LOCKED,
    V_MIXED,
    V_NEVER_HUGE,
    V_START,
    V_WRITE,
    vma_bits,
)
from secondsight.native import inlined, native

#: Rows of ``MmArrays.swap``.
COUNT, CACHED, CONTENT = 0, 1, 2
#: What a slot holds: nothing but zeroes; in the kernel's zeromap (6.12), for its whole folio was zeroes when it went.
CONTENT_ZERO, ZEROMAP = 1, 2
#: Its shadow says that the page was much used when it went (PG_workingset).
MUCH_USED = 4

#: One slot further on (pte_next_swp_offset) is this much less: the offset is kept inverted.
_NEXT = np.uint64(1) << OFFSET_SHIFT


@inlined
def is_swap(entry):  # type: ignore[no-untyped-def]
    """non_swap_entry's opposite: does an entry that is neither none nor present name a slot?"""
    return (entry >> TYPE_SHIFT) < np.uint64(SURE_SWAP)


@inlined
def slot_of(entry):  # type: ignore[no-untyped-def]
    """swp_offset of a swap entry, as an index of the slots."""
    return np.int64((~entry & OFFSET_MASK) >> OFFSET_SHIFT)


@native
def slot_in_cache(m, head):  # type: ignore[no-untyped-def]
    """The first slot of the cached folio at *head*; -1: it is in none."""
    for slot in range(m.swap.shape[1]):
        if m.swap[CACHED, slot] == head:
            return np.int64(slot)
    return np.int64(-1)


@native
def reuse_swap_page(f, m, pfn):  # type: ignore[no-untyped-def]
    """reuse_swap_page (up to 5.18): does one entry at most, present or swapped, name each page of the folio? If one, it
    leaves the swap cache."""
    head = np.int64(head_of(f, pfn))
    if f.flags[head] & KSM:
        return False
    most = most_named(f, m, head)
    if most == 1 and f.flags[head] & SWAPCACHE and not f.flags[head] & HEAD:
        leave_cache(f, m, head, slot_in_cache(m, head))
    return most <= 1


@native
def most_named(f, m, head):  # type: ignore[no-untyped-def]
    """page_trans_huge_map_swapcount: how many entries, present or swapped out, name the folio's most named page."""
    first = slot_in_cache(m, head) if f.flags[head] & SWAPCACHE else np.int64(-1)
    pages = folio_nr_pages(f, head)
    most = np.int64(0)
    for i in range(pages):
        count = np.int64(f.mapcount[head + i])
        if first >= 0:
            count += np.int64(m.swap[COUNT, first + i])
        most = max(most, count)
    if pages > 1:
        most += np.int64(f.refcount[head + 1])
    return most


@native
def folio_free_swap(f, m, head):  # type: ignore[no-untyped-def]
    """folio_free_swap of the cached folio at *head*: out of the swap cache, unless an entry still names one of its slots."""
    first = slot_in_cache(m, head)
    if first >= 0:
        free_cached(f, m, head, first)


@native
def free_cached(f, m, head, first):  # type: ignore[no-untyped-def]
    """The same, its slots starting at *first*. The folio is dirty then: its only copy is in memory."""
    pages = folio_nr_pages(f, head)
    for slot in range(first, first + pages):
        if m.swap[COUNT, slot] > 0:
            return
    leave_cache(f, m, head, first)


@native
def leave_cache(f, m, head, first):  # type: ignore[no-untyped-def]
    """delete_from_swap_cache: out of the swap cache, whoever still names its slots."""
    pages = folio_nr_pages(f, head)
    for slot in range(first, first + pages):
        m.swap[CACHED, slot] = 0
        m.swap[CONTENT, slot] = 0
    f.flags[head] = (f.flags[head] & ~SWAPCACHE) | pg.DIRTY
    for _ in range(pages):
        put_page(f, head)


@native
def free_swap_entry(f, m, entry):  # type: ignore[no-untyped-def]
    """free_swap_and_cache: an entry goes; with the last one of its slot a cached page that nobody maps."""
    if not is_swap(entry):
        return
    slot = slot_of(entry)
    m.swap[COUNT, slot] -= 1
    cached = np.int64(m.swap[CACHED, slot])
    if cached == 0:
        if m.swap[COUNT, slot] == 0:
            m.swap[CONTENT, slot] = 0
        return
    head = np.int64(head_of(f, cached))
    if folio_mapcount(f, head) == 0:
        free_cached(f, m, head, slot - (cached - head))


@native
def unmap_anon(f, m, pfn):  # type: ignore[no-untyped-def]
    """A PTE no longer maps *pfn* (free_folio_and_swap_cache): what only the swap cache has then leaves it too."""
    head = np.int64(head_of(f, pfn))
    f.mapcount[pfn] -= 1
    if f.flags[head] & HEAD:
        f.refcount[head + 2] -= 1
    if f.flags[head] & SWAPCACHE and folio_mapcount(f, head) == 0:
        folio_free_swap(f, m, head)
    put_page(f, pfn)


@native
def _fits(m, page, order, bits):  # type: ignore[no-untyped-def]
    """can_swapin_thp, and thp_vma_suitable_orders: may a folio of *order* come back round *page*, whose area has the V_ *bits*?"""
    first = (page >> order) << order
    slot = slot_of(m.pte[page]) - (page - first)
    if slot < 0 or slot & ((1 << order) - 1):
        return False
    mixed = m.vma[page >> PMD_ORDER] & V_MIXED
    zeromap = m.swap[CONTENT, slot] & ZEROMAP
    expected = m.pte[page] + _NEXT * np.uint64(page - first)
    for i in range(1 << order):
        if m.pte[first + i] != expected or (mixed and i > 0 and m.vma_page[first + i] & V_START):
            return False
        if m.swap[CACHED, slot + i] != 0 or m.swap[CONTENT, slot + i] & ZEROMAP != zeromap:
            return False
        expected -= _NEXT
    return True


@native
def swapin_order(r, m, page, bits):  # type: ignore[no-untyped-def]
    """The order of the folio that the swap entry at *page* comes back in."""
    orders = r.orders_advised if bits & V_ADVISED else r.orders_plain
    if not r.swapin_large or not orders or bits & V_NEVER_HUGE:
        return 0
    for order in range(PMD_ORDER - 1, MIN_ANON_ORDER - 1, -1):
        if orders >> order & 1 and _fits(m, page, order, bits):
            return order
    return 0


@native
def _read_in(f, r, m, slot, order, target, in_fault):  # type: ignore[no-untyped-def]
    """A new folio of *order* with the contents of the slots from *slot* on, on its way to the LRU; the caller has its one reference.

    *target*: the slot whose shadow tells how it was used.
    """
    head = np.int64(alloc_folio(f, order) if order else alloc_page(f))
    f.flags[head] |= NEW_ANON & ~EXCLUSIVE
    if r.new_anon_active or (r.refault_activates and not r.mglru):
        # workingset_refault, before the page reaches the LRU; a reclaimed page's shadow is always recent here.
        f.flags[head] |= pg.ACTIVE
    if r.mglru and m.swap[CONTENT, target] & MUCH_USED:
        f.flags[head] |= pg.WORKINGSET
    for i in range(1 << order):
        if m.swap[CONTENT, slot + i] & CONTENT_ZERO:
            f.flags[head + i] |= ZERO_FILLED
    folio_add_lru(f, r, head, in_fault)
    return head


@native
def swap_in(f, r, m, page, write, in_fault):  # type: ignore[no-untyped-def]
    """do_swap_page of the entry at *page*, which is neither none nor present: False where it fails, as a marker does.

    A store (*write*) to a page that is not the process's alone leaves its entry read-only: do_wp_page is the caller's.
    """
    entry = m.pte[page]
    if not is_swap(entry):
        return False
    bits = vma_bits(m, page)
    slot = slot_of(entry)
    exclusive = entry & SWP_EXCLUSIVE != 0
    cached = np.int64(m.swap[CACHED, slot])
    first, base, count = page, slot, np.int64(1)
    if cached == 0:
        bypass = r.swapin_bypasses_cache and m.swap[COUNT, slot] == 1
        order = swapin_order(r, m, page, bits) if bypass or not r.swapin_bypasses_cache else 0
        count = np.int64(1) << order
        first = (page >> order) << order
        base = slot - (page - first)
        head = _read_in(f, r, m, base, order, slot, in_fault)
        pfn = head
        if bypass:
            exclusive = True
        else:
            f.flags[head] |= SWAPCACHE
            f.refcount[head] += count
            for i in range(count):
                m.swap[CACHED, base + i] = head + i
    else:
        pfn = cached
        head = np.int64(head_of(f, cached))
        f.refcount[head] += 1
        if f.flags[head] & HEAD:
            # The folio is mapped whole, if all of its entries are here, in one area, and alike.
            whole = folio_nr_pages(f, head)
            start = page - (cached - head)
            same = (
                start >= (page >> PMD_ORDER) << PMD_ORDER
                and start + whole <= ((page >> PMD_ORDER) + 1) << PMD_ORDER
            )
            if same:
                expected = entry + _NEXT * np.uint64(cached - head)
                mixed = m.vma[page >> PMD_ORDER] & V_MIXED
                for i in range(whole):
                    same = same and m.pte[start + i] == expected
                    same = same and not (mixed and i > 0 and m.vma_page[start + i] & V_START)
                    expected -= _NEXT
            if same:
                first, base, count, pfn = start, slot - (cached - head), whole, head
    if not r.anon_exclusive:
        # While the entry still counts, and the page's mapping not yet.
        exclusive = write != 0 and reuse_swap_page(f, m, head)
    for i in range(count):
        m.swap[COUNT, base + i] -= 1
    if f.flags[head] & SWAPCACHE and not r.anon_exclusive:
        if bits & V_LOCKED or f.flags[head] & MLOCKED:
            free_cached(f, m, head, slot - (cached - head) if cached else base)
    elif f.flags[head] & SWAPCACHE:
        if r.swapin_drains and write and not f.flags[head] & (KSM | LRU):
            lru_add_drain(f, r)
        # should_try_to_free_swap: always since 7.x, where the device is synchronous.
        alone = write and not f.flags[head] & KSM and f.refcount[head] == 1 + folio_nr_pages(f, head)
        if not r.swapin_bypasses_cache or bits & V_LOCKED or f.flags[head] & MLOCKED or alone:
            free_cached(f, m, head, slot - (cached - head) if cached else base)
        # Freed before it is mapped, a page that nobody else has is the process's own; since 7.x it is mapped first.
        if r.swapin_bypasses_cache and f.refcount[head] == 1:
            exclusive = True
    else:
        for i in range(count):
            if m.swap[COUNT, base + i] == 0:
                m.swap[CONTENT, base + i] = 0
    # A small page that is anonymous already, another's, is mlocked at once in every kernel since 5.18 (folio_add_anon_rmap_ptes).
    known = cached != 0 and r.mlock_batched and not f.flags[head] & HEAD
    if bits & V_LOCKED and (r.swapin_mlocks or known):
        mlock_folio(f, r, head)
    prot = PROT
    if entry & SWP_UFFD_WP:
        # pte_swp_uffd_wp: it comes back as protected as it went; a store to it is the handler's.
        prot |= UFFD_WP
    else:
        if exclusive and (write or r.swapin_writable) and bits & V_WRITE:
            prot |= RW
        if exclusive and write:
            prot |= DIRTY
    for i in range(count):
        if exclusive:
            f.flags[pfn + i] |= EXCLUSIVE
        map_pte(f, pfn + i)
        m.pte[first + i] = (np.uint64(pfn + i) << PFN_SHIFT) | prot
    # The reference that reading it in, or finding it, took.
    put_page(f, head)
    return True
